//! The pgfleet command line.
fn main() {}
