//! Connections to real servers and poolers.

mod dialing;
mod pool;
mod session;
mod support;
mod tls;
mod wishes;
