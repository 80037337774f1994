//! The user service on databases of tests.

mod drivers;
mod program;
