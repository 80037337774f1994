//! One task per program: start, watch, start again; and stopping them all in order.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pgfleet_migrate::options::Stop;
use pgfleet_postgres::retry;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::folder::{Board, Entry, Health, RunFolder, RunLock, RunState};
use super::output::{Lines, Tail};
use super::process::{Identity, group_runs, signal_group, wait_until};
use super::{Happened, Program, TO_END};
use crate::error::Error;
use crate::vault::random_text;

/// The first wait before a program that failed is started again, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Who ran for so long has not failed because it was just started.
const RAN_WELL: Duration = Duration::from_secs(30);

/// A program of which nothing can be asked is healthy after this time.
const TO_BE_HEALTHY: Duration = Duration::from_secs(1);

/// So many starts that failed before it was healthy are enough to say that it is not going to be.
const FAILED_STARTS: u32 = 3;

/// How often health is asked for while a program starts, and after it should have been healthy.
const ASK: Duration = Duration::from_millis(200);
const ASK_LATER: Duration = Duration::from_secs(1);

/// How long the rest of its output is waited for when a program has ended: others may hold its pipe.
const TO_DRAIN: Duration = Duration::from_secs(1);

/// Lines on their way to the watcher. A watcher that is slow makes the programs wait, as a terminal does.
const LINES: usize = 1024;

/// Waits at the gate until its process id is written down; at the end of its input the supervisor is dead.
const GATE: &str = "read -r _ || exit 125; exec </dev/null; exec sh -c \"$0\"";

/// Sees what programs print and what happens to them. It is called on a thread of its own and may block.
pub trait Watcher: Send + Sync + 'static {
    /// A program printed a line.
    fn line(&self, service: &str, line: &str);
    /// Something happened to a program.
    fn happened(&self, service: &str, happened: &Happened);
}

/// Whether a program has come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    NotYet,
    Well,
    Badly,
}

enum Note {
    Line(String),
    Happened(Happened),
}

/// Asks a supervisor to stop; clones ask the same one.
#[derive(Debug, Clone, Default)]
pub struct Stopper {
    stop: Stop,
    kill: Stop,
}

impl Stopper {
    /// Asks for an orderly end; says whether this was the first time.
    pub fn ask(&self) -> bool {
        let first = !self.stop.is_asked();
        self.stop.ask();
        first
    }

    /// Has everything killed that has not ended yet.
    pub fn kill(&self) {
        self.kill.ask();
    }

    /// Waits until stopping is asked for. Cancel safe.
    pub async fn asked(&self) {
        self.stop.asked().await;
    }
}

/// Keeps programs running until it is stopped. Dropping it leaves them running.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    tasks: Vec<(Stop, JoinHandle<()>)>,
    printer: std::thread::JoinHandle<()>,
    stopper: Stopper,
    _lock: RunLock,
}

#[derive(Debug)]
struct Shared {
    folder: RunFolder,
    /// Written to the folder at each change, under the lock, so that the file never goes back.
    board: Mutex<Board>,
    tails: Mutex<Vec<Tail>>,
    settled: watch::Sender<Vec<Settled>>,
    kill: Stop,
}

impl Supervisor {
    /// Starts programs. `lock` says that nobody else does.
    ///
    /// `unready` are services that are not started, with the reason.
    ///
    /// # Errors
    ///
    /// The folder cannot be written; nothing is started then.
    pub fn start(
        folder: RunFolder,
        lock: RunLock,
        detached: bool,
        programs: Vec<Program>,
        unready: &[(String, String)],
        watcher: Arc<dyn Watcher>,
    ) -> Result<Self, Error> {
        let mut services: Vec<Entry> = programs.iter().map(|program| Entry::new(&program.service)).collect();
        services.extend(unready.iter().map(|(service, why)| Entry {
            state: RunState::Failed,
            ended: Some(why.clone()),
            ..Entry::new(service)
        }));
        let board = Board {
            supervisor: Identity::of(std::process::id()),
            detached,
            mark: format!("PGFLEET_RUN={}", random_text(20)),
            services,
        };
        folder.write(&board)?;
        let stopper = Stopper::default();
        let shared = Arc::new(Shared {
            folder,
            board: Mutex::new(board),
            tails: Mutex::new(vec![Tail::default(); programs.len()]),
            settled: watch::Sender::new(vec![Settled::NotYet; programs.len()]),
            kill: stopper.kill.clone(),
        });
        let (notes, mut incoming) = mpsc::channel::<(usize, Note)>(LINES);
        let names: Vec<String> = programs.iter().map(|program| program.service.clone()).collect();
        let printer = std::thread::spawn(move || {
            while let Some((at, note)) = incoming.blocking_recv() {
                match note {
                    Note::Line(line) => watcher.line(&names[at], &line),
                    Note::Happened(happened) => watcher.happened(&names[at], &happened),
                }
            }
        });
        let tasks = programs.into_iter().enumerate().map(|(at, program)| {
            let stop = Stop::default();
            let task = Task { shared: shared.clone(), at, program, stop: stop.clone(), notes: notes.clone() };
            (stop, tokio::spawn(task.run()))
        });
        let tasks = tasks.collect();
        Ok(Self { shared, tasks, printer, stopper, _lock: lock })
    }

    /// Returns what asks this supervisor to stop.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Waits until every program is healthy or done, or one will not be; says which. Cancel safe.
    pub async fn settled(&self) -> bool {
        let mut settled = self.shared.settled.subscribe();
        let decided = |all: &Vec<Settled>| all.contains(&Settled::Badly) || !all.contains(&Settled::NotYet);
        // The sender is ours: it cannot go away.
        settled.wait_for(decided).await.is_ok_and(|all| !all.contains(&Settled::Badly))
    }

    /// Returns the services whose programs did not come up.
    pub fn failed(&self) -> Vec<String> {
        let settled = self.shared.settled.borrow();
        let board = self.shared.board();
        let failed = settled.iter().zip(&board.services).filter(|(settled, _)| **settled == Settled::Badly);
        failed.map(|(_, entry)| entry.service.clone()).collect()
    }

    /// Waits until every program has ended by itself. Cancel safe.
    pub async fn ended(&self) {
        while self.tasks.iter().any(|(_, task)| !task.is_finished()) {
            tokio::time::sleep(ASK).await;
        }
    }

    /// Returns where the programs stand.
    pub fn entries(&self) -> Vec<Entry> {
        self.shared.board().services.clone()
    }

    /// Returns the last lines of a service's program.
    pub fn tail(&self, service: &str) -> Vec<String> {
        let at = self.shared.board().services.iter().position(|entry| entry.service == service);
        let tails = self.shared.tails.lock().unwrap_or_else(PoisonError::into_inner);
        at.and_then(|at| tails.get(at)).map(Tail::lines).unwrap_or_default()
    }

    /// Stops the programs, the last one first, and waits until they have ended.
    pub async fn stop(self) {
        for (stop, task) in self.tasks.into_iter().rev() {
            stop.ask();
            // A task that panicked has left its program to whoever comes next.
            let _ended = task.await;
        }
        self.shared.folder.clear();
        let printer = self.printer;
        let printed = tokio::task::spawn_blocking(move || printer.join());
        // A watcher that is stuck must not keep us.
        let _printed = tokio::time::timeout(TO_DRAIN * 2, printed).await;
    }
}

impl Shared {
    /// Held for a look or a change, so that a panic leaves nothing half done.
    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The supervision of one program.
struct Task {
    shared: Arc<Shared>,
    at: usize,
    program: Program,
    stop: Stop,
    notes: mpsc::Sender<(usize, Note)>,
}

/// How one run ended.
enum Ended {
    Well,
    Badly(String),
    Stopped { killed: bool },
}

impl Task {
    async fn run(self) {
        let deadline = Instant::now() + self.program.health_timeout;
        let (mut attempt, mut failed_starts) = (0, 0);
        while !self.stop.is_asked() {
            let began = Instant::now();
            let ended = match self.start().await {
                Ok((child, group)) => self.watch(child, group, deadline).await,
                Err(why) => Ended::Badly(why),
            };
            match ended {
                Ended::Well => {
                    self.change(|entry| (entry.state, entry.process) = (RunState::Done, None));
                    self.settle(Settled::Well);
                    return self.tell(Happened::Done).await;
                }
                Ended::Stopped { killed } => {
                    self.change(|entry| (entry.state, entry.process) = (RunState::Stopped, None));
                    return self.tell(Happened::Stopped { killed }).await;
                }
                Ended::Badly(how) => {
                    attempt = if began.elapsed() >= RAN_WELL { 1 } else { attempt + 1 };
                    let again = retry::backoff(attempt, FIRST_WAIT, LONGEST_WAIT);
                    self.change(|entry| {
                        (entry.state, entry.process) = (RunState::Failed, None);
                        entry.ended = Some(how.clone());
                    });
                    failed_starts += 1;
                    if failed_starts >= FAILED_STARTS || Instant::now() >= deadline {
                        self.settle(Settled::Badly);
                    }
                    self.tell(Happened::Failed { how, again }).await;
                    self.stop.sleep(again).await;
                }
            }
        }
        self.change(|entry| entry.state = RunState::Stopped);
    }

    /// Starts the program and lets it go when its process is written down.
    async fn start(&self) -> Result<(Child, u32), String> {
        let program = &self.program;
        let mut command = Command::new("sh");
        command.args(["-c", GATE, &program.command]).current_dir(&program.folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in &program.without {
            command.env_remove(name);
        }
        command.envs(program.variables.iter().map(|(name, value)| (name, value.expose_secret())));
        let mark = self.shared.board().mark.clone();
        command.envs(mark.split_once('='));
        let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
        let (Some(pid), Some(mut gate)) = (child.id(), child.stdin.take()) else {
            return Err("ended while it was started".to_owned());
        };
        let process = Identity::of(pid);
        let written = self.try_change(|entry| {
            (entry.state, entry.process, entry.health) = (RunState::Starting, process, Health::Unknown);
            entry.starts += 1;
        });
        if let Err(error) = written {
            // Behind its gate it ends by itself.
            drop(gate);
            let _ended = child.wait().await;
            return Err(format!("cannot be started: {error}"));
        }
        self.tell(Happened::Started(pid)).await;
        // One that is gone already is seen by who waits for it.
        let _opened = gate.write_all(b"\n").await;
        Ok((child, pid))
    }

    /// Waits for the end of a run, and for its health until then.
    async fn watch(&self, mut child: Child, group: u32, deadline: Instant) -> Ended {
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|output| self.read(output)));
        readers.extend(child.stderr.take().map(|output| self.read(output)));
        let healthy = self.healthy(deadline);
        tokio::pin!(healthy);
        let mut known = false;
        let status = loop {
            tokio::select! {
                () = self.stop.asked() => {
                    let killed = self.end(group).await;
                    let _reaped = child.wait().await;
                    drain(readers).await;
                    return Ended::Stopped { killed };
                }
                status = child.wait() => break status,
                () = &mut healthy, if !known => {
                    known = true;
                    self.change(|entry| (entry.state, entry.health) = (RunState::Running, Health::Healthy));
                    self.settle(Settled::Well);
                    self.tell(Happened::Healthy).await;
                }
            }
        };
        let ended = match status {
            Ok(status) if status.success() => {
                // What it left in the background belongs to it.
                let empty = wait_until(Duration::from_secs(u64::from(u32::MAX)), || !group_runs(group));
                tokio::select! {
                    _ = empty => Ended::Well,
                    () = self.stop.asked() => Ended::Stopped { killed: self.end(group).await },
                }
            }
            Ok(status) => Ended::Badly(how(status)),
            Err(error) => Ended::Badly(format!("cannot be waited for: {error}")),
        };
        if matches!(ended, Ended::Badly(_)) && group_runs(group) {
            // It would be in the way of the next start.
            self.end(group).await;
        }
        drain(readers).await;
        ended
    }

    /// Asks the group of a program to end, and kills it when it does not.
    async fn end(&self, group: u32) -> bool {
        signal_group(group, Signal::SIGTERM);
        let ended = tokio::select! {
            ended = wait_until(TO_END, || !group_runs(group)) => ended,
            () = self.shared.kill.asked() => false,
        };
        if !ended {
            signal_group(group, Signal::SIGKILL);
            wait_until(TO_END, || !group_runs(group)).await;
        }
        !ended
    }

    /// Returns when the program is healthy. Cancel safe.
    async fn healthy(&self, deadline: Instant) {
        let Some(check) = &self.program.health else { return tokio::time::sleep(TO_BE_HEALTHY).await };
        let mut told = false;
        while let Err(why) = check.ask().await {
            let late = Instant::now() >= deadline;
            self.note_health(Health::Unhealthy(why.clone()), late);
            if late && !told {
                told = true;
                self.settle(Settled::Badly);
                self.tell(Happened::NotHealthy(why)).await;
            }
            tokio::time::sleep(if late { ASK_LATER } else { ASK }).await;
        }
    }

    fn note_health(&self, health: Health, late: bool) {
        let same = self.shared.board().services[self.at].health == health;
        if !same || late {
            self.change(|entry| {
                entry.health = health;
                if late {
                    entry.state = RunState::Running;
                }
            });
        }
    }

    /// Passes on what is read from a pipe, until everybody has closed it.
    fn read(&self, mut output: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
        let (shared, notes, at) = (self.shared.clone(), self.notes.clone(), self.at);
        tokio::spawn(async move {
            let mut lines = Lines::default();
            let mut buffer = vec![0; 8192];
            loop {
                let read = output.read(&mut buffer).await.unwrap_or(0);
                let mut found = lines.push(&buffer[..read]);
                if read == 0 {
                    found.extend(lines.finish());
                }
                for line in found {
                    if let Some(tail) = shared.tails.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
                        tail.push(&line);
                    }
                    if notes.send((at, Note::Line(line))).await.is_err() {
                        return;
                    }
                }
                if read == 0 {
                    return;
                }
            }
        })
    }

    fn settle(&self, how: Settled) {
        self.shared.settled.send_modify(|all| {
            // Who was healthy once has come up, whatever comes later.
            if let Some(settled) = all.get_mut(self.at).filter(|settled| **settled != Settled::Well) {
                *settled = how;
            }
        });
    }

    async fn tell(&self, happened: Happened) {
        // A watcher that is stuck must keep nobody from being stopped.
        let sent = self.notes.send((self.at, Note::Happened(happened)));
        let _told = tokio::time::timeout(TO_DRAIN, sent).await;
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Err(error) = self.try_change(change) {
            // What is written down is then older than what is; nothing is started on that ground.
            tracing::warn!(%error, service = self.program.service, "cannot write the state of the services");
        }
    }

    fn try_change(&self, change: impl FnOnce(&mut Entry)) -> Result<(), Error> {
        let mut board = self.shared.board();
        change(&mut board.services[self.at]);
        self.shared.folder.write(&board)
    }
}

/// Waits for the rest of the output, unless somebody else holds the pipe.
async fn drain(readers: Vec<JoinHandle<()>>) {
    let _rest = tokio::time::timeout(TO_DRAIN, futures_util::future::join_all(readers)).await;
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("was ended by {signal}"),
            Err(_) => format!("was ended by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_lets_nobody_through_when_the_supervisor_has_died() {
        let folder = tempfile::tempdir().unwrap();
        let run = |input: &str| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", GATE, "cat > seen; echo ran >> ran"]).current_dir(folder.path());
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
            child.wait().unwrap().code()
        };
        assert_eq!(run(""), Some(125));
        assert!(!folder.path().join("ran").exists());
        assert_eq!(run("\nmore"), Some(0));
        assert_eq!(std::fs::read_to_string(folder.path().join("ran")).unwrap(), "ran\n");
        assert_eq!(std::fs::read_to_string(folder.path().join("seen")).unwrap(), "", "its input is empty");
    }
}
