//! Handing whole targets to the program that has the Rust steps of a service.
//!
//! A step written in Rust is machine code of the service's program, so the service's program has to
//! run it. Every one built with the facade answers `<program> pgfleet worker`: lines of JSON, requests
//! on its standard input, answers on its standard output. What is kept true:
//!
//! * a target is handed over whole: the worker takes the lock on the very connection that migrates,
//!   and its caller connects to nothing;
//! * what the program has in it and what lies in the folder are compared before anything is touched;
//! * a worker that dies loses the transaction under way and nothing else: the next one reads the
//!   history and goes on;
//! * connection strings and properties go over standard input only.

mod client;
mod describe;
mod differ;
mod protocol;
mod serve;

pub use client::Program;
pub use describe::Description;
pub use serve::{Sets, serve};
