//! Set-up, tests, benchmarks and soak runs of this repository.
fn main() {}
