//! The user service: `cargo run -p masar-user`, or `pgfleet up`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    masar_common::run(masar_user::service(), 8081, masar_user::routes).await
}
