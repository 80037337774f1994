//! `pg_dump` and `pg_restore`: finding them, and running one into the other.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use pgfleet_local::{Binaries, Search};
use pgfleet_postgres::Address;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout, Command};

use super::fence::APPLICATION;
use crate::error::{Error, ErrorKind};
use crate::solution::Solution;

/// How much of what a program says is kept, from the end.
const KEPT: usize = 4096;

/// How many lines of it are told.
const LINES: usize = 6;

/// Variables that would lead the programs elsewhere, or have them write otherwise.
const UNSET: [&str; 12] = [
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGOPTIONS",
    "PGTARGETSESSIONATTRS",
    "PGCLIENTENCODING",
    "PGDATESTYLE",
    "PGTZ",
];

/// Programs that copy.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    /// Those that may read the old server, to be tried in this order.
    pub(super) dumps: Vec<PathBuf>,
    /// The one that writes the new server.
    pub(super) restore: PathBuf,
}

/// Finds the programs for copying from a server of one major version to one of another.
///
/// The old server is read by its own version's: a server keeps things in its catalogs that only programs
/// of its version leave out, also those of a minor release. Newer ones are tried where that fails, or where
/// it is not there. The new server is written by its own version's, or the newest that is there.
///
/// # Errors
///
/// There are none; the hints say what to install.
pub(super) async fn find(solution: &Solution, from: u32, to: u32) -> Result<Programs, Error> {
    let mut search = Search::from_env();
    let local = solution.servers().filter_map(|(_, server)| server.local.as_ref());
    search.path.splice(0..0, local.map(|running| running.bin_dir.clone()));
    let look = move || {
        let of = |major: u32| search.clone().with_major(major);
        let mut found: Vec<PathBuf> =
            (from..=to).filter_map(|major| Some(Binaries::find_clients(&of(major)).ok()?.bin_dir)).collect();
        if found.is_empty() {
            found.push(Binaries::find_or_fetch_clients(&of(to))?.bin_dir);
        }
        Ok(found)
    };
    let found = match tokio::task::spawn_blocking(look).await {
        Ok(found) => found.map_err(|error: pgfleet_local::Error| Error::from(error))?,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let program = |folder: &PathBuf, name: &str| folder.join(name);
    let restore = found.last().map(|folder| program(folder, "pg_restore")).unwrap_or_default();
    Ok(Programs { dumps: found.iter().map(|folder| program(folder, "pg_dump")).collect(), restore })
}

/// Copies what is in one database into another, which is empty; returns how many bytes went over.
///
/// # Errors
///
/// A program cannot be started, or says that it failed. What was copied until then is there.
///
/// # Cancel safety
///
/// Both programs are ended.
pub(super) async fn copy(dump: &Path, restore: &Path, from: &Address, to: &Address) -> Result<u64, Error> {
    let failed = || Error::new(ErrorKind::Failed, format!("cannot copy database {}", from.database()));
    let started =
        |program: &Path, error: &std::io::Error| failed().cause(format!("cannot start {}: {error}", program.display()));
    let (dumping, restoring) = (dump, restore);
    let mut dump = command(dumping, from)
        .args(["--format=custom", "--compress=0", "--lock-wait-timeout=60s"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| started(dumping, &error))?;
    let mut restore = command(restoring, to)
        .args(["--format=custom", "--exit-on-error"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| started(restoring, &error))?;
    let ends = (dump.stdout.take(), restore.stdin.take());
    let (written, dump_said, restore_said) =
        tokio::join!(stream(ends), tail(dump.stderr.take()), tail(restore.stderr.take()));
    let restored = ended(restoring, restore.wait().await, &restore_said);
    if restored.is_some() {
        // It would wait for somebody to read.
        let _gone = dump.start_kill();
    }
    let dumped = ended(dumping, dump.wait().await, &dump_said);
    // Of a reader that went away the writer has nothing to say.
    let causes: Vec<String> = match (dumped, restored) {
        (None, None) => return written.map_err(|error| failed().cause(error.to_string())),
        (Some(dumped), Some(restored)) if dumped.len() > 1 => dumped.into_iter().chain(restored).collect(),
        (_, Some(restored)) => restored,
        (Some(dumped), None) => dumped,
    };
    Err(causes.into_iter().fold(failed(), Error::cause))
}

/// Says how a program ended; nothing when all went well.
fn ended(program: &Path, status: std::io::Result<ExitStatus>, said: &str) -> Option<Vec<String>> {
    let why = match status {
        Ok(status) if status.success() => return None,
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let first = format!("{} failed ({why})", program.display());
    let told = lines.iter().take(LINES).map(|line| (*line).to_owned());
    Some(std::iter::once(first).chain(told).collect())
}

/// The password is in the environment, which only the same user sees, never in the arguments.
fn command(program: &Path, address: &Address) -> Command {
    let mut command = Command::new(program);
    for name in UNSET {
        command.env_remove(name);
    }
    if let Some(password) = address.password() {
        command.env("PGPASSWORD", password.expose_secret());
    }
    let without = address.with_user(address.user(), None).expose_url();
    command
        .env("PGAPPNAME", APPLICATION)
        .env("LC_ALL", "C")
        .arg("--no-password")
        .arg(format!("--dbname={}", without.expose_secret()))
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Hands on what one program writes to the other; closes both ends.
async fn stream(ends: (Option<ChildStdout>, Option<ChildStdin>)) -> std::io::Result<u64> {
    let (Some(mut from), Some(mut into)) = ends else { return Ok(0) };
    let mut buffer = vec![0; 128 * 1024];
    let mut written = 0;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        into.write_all(&buffer[..read]).await?;
        written += read as u64;
    }
    into.shutdown().await?;
    Ok(written)
}

/// Reads to the end and keeps the end.
async fn tail(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 4096];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..read]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}
