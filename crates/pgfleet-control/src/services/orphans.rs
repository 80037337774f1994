//! What runs although nobody supervises it, and stopping those who do.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::TO_END;
use super::folder::{RunFolder, RunLock};
use super::process::{Identity, end_group, has_variable, members};
use crate::error::{Error, ErrorKind};

/// How often a lock that will be free soon is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What stopping did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stopped {
    /// The services whose programs ended.
    pub services: Vec<String>,
    /// Whether the supervisor was there and was asked; otherwise programs were left over.
    pub supervised: bool,
}

/// Ends programs that a supervisor left behind when it was killed. The lock says that there is none.
///
/// A program is known by its process with the time at which that began. When the process itself is gone,
/// others in its group are known by a variable that the supervisor gave them.
pub async fn end_left(folder: &RunFolder, _lock: &RunLock) -> Vec<String> {
    let Some(board) = folder.board() else { return Vec::new() };
    let mut ended = Vec::new();
    for entry in &board.services {
        let Some(process) = &entry.process else { continue };
        let ours = process.is_alive() || members(process.pid).iter().any(|pid| has_variable(*pid, &board.mark));
        if ours {
            end_group(process.pid, TO_END).await;
            ended.push(entry.service.clone());
        }
    }
    folder.clear();
    ended
}

/// Stops whoever supervises the services of a solution, and what was left behind.
///
/// # Errors
///
/// The supervisor does not end, or the folder cannot be read.
pub async fn stop(folder: &RunFolder) -> Result<Stopped, Error> {
    if !folder.path().is_dir() {
        return Ok(Stopped::default());
    }
    let mut stopped = Stopped::default();
    if let Some(lock) = folder.try_lock()? {
        stopped.services = end_left(folder, &lock).await;
        return Ok(stopped);
    }
    let board = folder.board();
    if let Some(board) = &board {
        stopped.supervised = true;
        let running = board.services.iter().filter(|entry| entry.process.is_some());
        stopped.services = running.map(|entry| entry.service.clone()).collect();
    }
    let lock = wait_for_end(folder).await?;
    // What it could not stop any more.
    end_left(folder, &lock).await;
    Ok(stopped)
}

/// Asks whoever supervises to stop, waits for it, and kills it when it takes longer than all its programs
/// may.
///
/// Who has only just taken the lock is not written down yet: so it is looked for again and again.
async fn wait_for_end(folder: &RunFolder) -> Result<RunLock, Error> {
    let mut asked: Option<(Identity, Instant)> = None;
    let mut deadline = Instant::now() + TO_END * 2;
    while Instant::now() < deadline {
        if let Some(lock) = folder.try_lock()? {
            return Ok(lock);
        }
        let board = folder.board();
        let found = board.as_ref().and_then(|board| Some((board.supervisor.clone()?, board.services.len())));
        match (found, &asked) {
            (Some((supervisor, count)), known) if known.as_ref().is_none_or(|(asked, _)| *asked != supervisor) => {
                supervisor.signal(Signal::SIGTERM);
                let patience = TO_END * (2 * u32::try_from(count).unwrap_or(u32::MAX / 4) + 1);
                deadline = Instant::now() + patience + TO_END;
                asked = Some((supervisor, Instant::now() + patience));
            }
            (_, Some((supervisor, patience))) if Instant::now() >= *patience => supervisor.signal(Signal::SIGKILL),
            _ => {}
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Error::new(ErrorKind::Failed, "cannot stop the services: the one who runs them does not end")
        .cause(format!("it holds the lock in {}", folder.path().display())))
}
