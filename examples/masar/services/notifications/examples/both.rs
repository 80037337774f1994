//! Both ends of a booking's way as programs, for the test that kills them: `both trip` or `both notifications`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("trip") => masar_common::run(masar_trip::service(), 8082, masar_trip::routes).await,
        Some("notifications") => {
            masar_common::run(masar_notifications::service(), 8083, masar_notifications::routes).await
        }
        other => {
            eprintln!("which service? trip or notifications, not {other:?}");
            ExitCode::FAILURE
        }
    }
}
