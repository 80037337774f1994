//! A service against a real server.

mod start;
mod support;
mod test_databases;
mod test_processes;
