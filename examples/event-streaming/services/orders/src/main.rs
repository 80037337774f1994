//! The orders service: `cargo run -p streaming-orders`, or `pgfleet up`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match streaming_orders::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}`: with its causes and what to do about it.
            tracing::error!("orders: {error:#}");
            ExitCode::FAILURE
        }
    }
}
