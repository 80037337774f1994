//! Connections to real servers and poolers.

mod session;
mod wishes;
