//! The mails service: `cargo run -p streaming-mails`, or `pgfleet up`; with `migrate`, only its database is migrated.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let done = match std::env::args().nth(1).as_deref() {
        Some("migrate") => streaming_mails::migrate().await,
        _ => streaming_mails::run().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}`: with its causes and what to do about it.
            tracing::error!("mails: {error:#}");
            ExitCode::FAILURE
        }
    }
}
