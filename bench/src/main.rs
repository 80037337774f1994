//! Measures pgfleet against its peers and against the limit, in one run.
fn main() {}
