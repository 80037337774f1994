//! The notifications service on databases of tests.

mod crash;
mod told;
