//! The text of SQL against those who read it besides us: another parser, and the server.

mod corpus;
mod golden;
mod layouts;
mod scripts;
mod server;
mod support;
mod traps;
