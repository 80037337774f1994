//! A service against a real server.

mod start;
mod support;
