//! What the macros expand to, compiled: this program plays the crate `pgfleet` that they refer to.

extern crate self as pgfleet;

mod embed;
mod expansion;
mod test;

pub(crate) use pgfleet_macros::{migrations, seeds, test};
pub(crate) use test::Service;
