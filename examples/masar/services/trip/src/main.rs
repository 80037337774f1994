//! The trip service: `cargo run -p masar-trip`, or `pgfleet up`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    masar_common::run(masar_trip::service(), 8082, masar_trip::routes).await
}
