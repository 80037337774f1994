//! Both services of the example `event-streaming` in one program, for the tests that run them: `streaming orders`,
//! `streaming mails`, `streaming mails migrate`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["orders"] => streaming_orders::run().await,
        ["mails"] => streaming_mails::run().await,
        ["mails", "migrate"] => streaming_mails::migrate().await,
        _ => Err(format!("which service? orders or mails, not {arguments:?}").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
