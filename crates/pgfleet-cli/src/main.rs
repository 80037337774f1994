//! The pgfleet command line.
//!
//! One file per subcommand in `commands`; what they do is in `pgfleet-control` and
//! `pgfleet-migrate`, so that the server can do the same.

mod args;
mod commands;
mod context;
mod error;
mod prefix;
mod talk;

use clap::Parser as _;

use crate::args::Cli;
use crate::context::Context;
use crate::error::Exit;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.global.verbose);
    let context = Context::new(cli.global);
    // One database is one conversation: a second thread would only be handed things and hand them
    // back. Many are two threads' worth of logins; more than that is the server's work.
    let mut builder = match &cli.command {
        args::Command::Migrate(arguments) if arguments.dir.is_some() => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            context.talk.say(&format!("error: cannot start: {error}"));
            return std::process::ExitCode::from(Exit::Failed as u8);
        }
    };
    let exit = runtime.block_on(async {
        watch_interrupts(&context);
        let exit = match commands::run(&context, cli.command).await {
            Ok(exit) => exit,
            Err(error) => {
                context.talk.error(&error);
                error.exit
            }
        };
        context.programs.close().await;
        exit
    });
    // A thread that still waits for a terminal must not keep us.
    runtime.shutdown_background();
    std::process::ExitCode::from(exit as u8)
}

/// Ctrl-C, SIGTERM and the end of the terminal ask for an orderly end; a second one does not wait for it.
fn watch_interrupts(context: &Context) {
    let (stop, talk, orderly) = (context.stop.clone(), context.talk.clone(), context.orderly.clone());
    let serving = context.serving.clone();
    tokio::spawn(async move {
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
            return;
        };
        let mut hangup = hangup();
        loop {
            let interrupted = tokio::select! {
                _ = tokio::signal::ctrl_c() => true,
                _ = terminate.recv() => false,
                () = hung_up(&mut hangup) => false,
            };
            if serving.ask(interrupted, &talk) {
                continue;
            }
            // Outside of a run nothing is lost: a closed connection rolls back, and every step of
            // provisioning can be taken up again.
            if stop.is_asked() || !orderly.load(std::sync::atomic::Ordering::SeqCst) {
                talk.say("interrupted");
                #[expect(clippy::exit, reason = "nothing to wait for, or the user asked twice")]
                std::process::exit(Exit::Interrupted as i32);
            }
            talk.say("stopping after rolling back what runs; again to stop at once");
            stop.ask();
        }
    });
}

/// Listens for the end of the terminal, unless it was said that it does not matter (`nohup`): whoever
/// started us ignored the signal then, which only the system can tell.
fn hangup() -> Option<tokio::signal::unix::Signal> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let ignored = u64::from_str_radix(ignored.trim(), 16).ok()?;
    let bit = 1 << (nix::sys::signal::Signal::SIGHUP as u32 - 1);
    if ignored & bit != 0 {
        return None;
    }
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok()
}

async fn hung_up(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "off",
        1 => "pgfleet=info,pgfleet_postgres=info,pgfleet_migrate=info,pgfleet_control=info,pgfleet_local=info",
        _ => "debug",
    };
    // Set by the person who debugs; wins over the flag.
    let filter = std::env::var("PGFLEET_LOG").unwrap_or_else(|_| level.to_owned());
    if filter == "off" {
        return;
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
