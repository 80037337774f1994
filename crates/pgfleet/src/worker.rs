//! `<program> pgfleet worker`: the service's program runs what is Rust for the command line.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;

use pgfleet_migrate::options::Stop;
use pgfleet_migrate::worker::{Sets, serve};
use pgfleet_migrate::{ErrorKind, SetPath};
use tokio::signal::unix::{SignalKind, signal};

use crate::builder::Builder;

/// Whether the program was called as a worker.
pub(crate) fn is_asked() -> bool {
    std::env::args_os().skip(1).eq(["pgfleet", "worker"])
}

/// Answers on the standard streams until the input ends, and ends the process: nothing of the
/// service behind the call runs.
pub(crate) async fn run(builder: Builder) -> ! {
    let code = match answer(builder).await {
        Ok(()) => 0,
        Err(error) => {
            // Without a caller there is nobody else to tell.
            eprintln!("pgfleet worker: {error}");
            1
        }
    };
    #[expect(clippy::exit, reason = "the program was called to be a worker, and nothing else of it may run")]
    std::process::exit(code)
}

async fn answer(builder: Builder) -> std::io::Result<()> {
    // The answers get the standard output for themselves: what the service prints from here on goes
    // to standard error.
    let answers = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let requests = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    nix::unistd::dup2_stdout(std::io::stderr())?;
    let stop = Stop::default();
    watch(&stop)?;
    let (requests, answers) = (tokio::fs::File::from_std(requests), tokio::fs::File::from_std(answers));
    serve(Compiled(builder), requests, answers, stop).await
}

/// A request to end from the terminal or a supervisor ends what runs in an orderly way.
fn watch(stop: &Stop) -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.ask();
    });
    Ok(())
}

/// What is compiled into the program.
struct Compiled(Builder);

impl Sets for Compiled {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn path(&self, placeholders: &BTreeMap<String, String>) -> Result<SetPath, pgfleet_migrate::Error> {
        self.0.path_with(&BTreeMap::new(), placeholders).map_err(|error| {
            let mut own = pgfleet_migrate::Error::new(ErrorKind::Files, error.to_string());
            for cause in error.causes() {
                own = own.cause(cause);
            }
            match error.hint() {
                Some(hint) => own.hinted(hint),
                None => own,
            }
        })
    }
}
