//! The notifications service: `cargo run -p masar-notifications`, or `pgfleet up`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    masar_common::run(masar_notifications::service(), 8083, masar_notifications::routes).await
}
