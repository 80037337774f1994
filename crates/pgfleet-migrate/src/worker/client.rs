//! The caller's side: a program that is started when it is needed, kept for many targets, and
//! started again when it dies.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgfleet_postgres::retry;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc, watch};

use crate::announce::Applied;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Observer};
use crate::options::Options;
use crate::path::SetPath;
use crate::report::Report;
use crate::revert::Goal;
use crate::target::Target;
use crate::worker::describe::Description;
use crate::worker::protocol::{Answer, Ask, Back, Head, PROTOCOL, Request, Response, Task, line};

/// How long a program may take until it says what it has in it.
const TO_DESCRIBE: Duration = Duration::from_secs(20);

/// How long a program that was told to end may take for it. A statement that runs is cancelled first,
/// which has a limit of its own.
const TO_END: Duration = Duration::from_secs(40);

/// How long the end of a program and the rest of its output are waited for once it says nothing more.
const TO_DIE: Duration = Duration::from_secs(5);

/// How many of its last lines are kept for an error.
const LAST_LINES: usize = 20;

/// The program of one service, as far as it is running.
pub struct Program {
    service: String,
    path: PathBuf,
    /// Who sees what it prints.
    observer: Arc<dyn Observer>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    worker: Option<Arc<Worker>>,
    described: Option<Arc<Description>>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("service", &self.service).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for Program {
    /// Without [`Program::close`] nobody waits for its end, but it is told to.
    fn drop(&mut self) {
        if let Some(worker) = &self.state.get_mut().worker {
            lock(&worker.input).take();
        }
    }
}

impl Program {
    /// Names a service's program; nothing is started yet. The observer sees what it prints.
    pub fn new(service: impl Into<String>, path: impl Into<PathBuf>, observer: Arc<dyn Observer>) -> Self {
        Self { service: service.into(), path: path.into(), observer, state: tokio::sync::Mutex::default() }
    }

    /// Returns the program's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks what it has in it; starts it when it does not run.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Program`]: it is not there, does not answer, or is another one than it was.
    pub async fn describe(&self) -> Result<Arc<Description>, Error> {
        Ok(self.ready().await?.1)
    }

    /// Asks for all its sets with all their texts, those of files among them.
    ///
    /// # Errors
    ///
    /// As [`describe`](Self::describe).
    pub async fn export(&self) -> Result<Description, Error> {
        let (worker, _) = self.ready().await?;
        match self.answer(&worker, Ask::Export, TO_DESCRIBE).await? {
            Answer::Description(description) => Ok(*description),
            Answer::Error(error) => Err(Error::from(*error)),
            _ => Err(self.unusable("it answers with something else")),
        }
    }

    /// Migrates and seeds one target in it, as [`run::migrate`](crate::run::migrate) does here.
    ///
    /// The values for seeds and placeholders are those of the path's own set. A program that dies is
    /// started again by the rule of tries: nothing is applied twice, since it reads the history
    /// again, and a backfill goes on behind its last batch.
    ///
    /// # Errors
    ///
    /// As [`run::migrate`](crate::run::migrate), and [`ErrorKind::Program`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future asks the program to end this target in an orderly way.
    pub async fn migrate(
        &self,
        target: &Target,
        path: &SetPath,
        options: &Options,
        observer: &dyn Observer,
    ) -> Result<Report, Error> {
        let doing = if options.dry_run || options.look_only { "looked at" } else { "migrated" };
        self.run(target, path, &Ask::Migrate, doing, options, observer).await
    }

    /// Seeds one target in it, as [`run::seed`](crate::run::seed) does here.
    ///
    /// # Errors
    ///
    /// As [`run::seed`](crate::run::seed), and [`ErrorKind::Program`].
    ///
    /// # Cancel safety
    ///
    /// As [`migrate`](Self::migrate).
    pub async fn seed(
        &self,
        target: &Target,
        path: &SetPath,
        options: &Options,
        observer: &dyn Observer,
    ) -> Result<Report, Error> {
        self.run(target, path, &Ask::Seed, "seeded", options, observer).await
    }

    /// Reverts in one target, as [`revert::revert`](crate::revert::revert) does here.
    ///
    /// # Errors
    ///
    /// As [`revert::revert`](crate::revert::revert), and [`ErrorKind::Program`].
    ///
    /// # Cancel safety
    ///
    /// As [`migrate`](Self::migrate).
    pub async fn revert(
        &self,
        target: &Target,
        path: &SetPath,
        goal: &Goal,
        options: &Options,
        observer: &dyn Observer,
    ) -> Result<Report, Error> {
        let ask = |task| Ask::Revert(task, Back::from(goal));
        self.run(target, path, &ask, "reverted", options, observer).await
    }

    async fn run(
        &self,
        target: &Target,
        path: &SetPath,
        ask: &(dyn Fn(Box<Task>) -> Ask + Sync),
        doing: &str,
        options: &Options,
        observer: &dyn Observer,
    ) -> Result<Report, Error> {
        let mut attempt = 1;
        loop {
            let task = Box::new(Task::new(target, options, path.own()));
            let error = match self.once(target, ask(task), doing, options, observer).await {
                Ok(report) => return Ok(report),
                Err(error) => error,
            };
            // What else can pass was tried again in the program itself.
            let died = error.kind() == ErrorKind::Program && error.is_retryable();
            if !died || attempt >= options.max_tries || options.stop.is_asked() {
                return Err(error);
            }
            let wait = retry::between(options.min_retry_wait, options.max_retry_wait);
            let event = Event::Retry { attempt, attempts: options.max_tries, wait, reason: error.to_string() };
            observer.event(&target.name, &event);
            if options.stop.sleep(wait).await {
                return Err(error);
            }
            attempt += 1;
        }
    }

    async fn once(
        &self,
        target: &Target,
        ask: Ask,
        doing: &str,
        options: &Options,
        observer: &dyn Observer,
    ) -> Result<Report, Error> {
        let (worker, _) = self.ready().await?;
        let mut call = worker.call(ask);
        let mut told = false;
        loop {
            let answer = tokio::select! {
                answer = call.answers.recv() => answer,
                () = options.stop.asked(), if !told => {
                    told = true;
                    call.say(Ask::Stop);
                    continue;
                }
            };
            match answer {
                Some(Answer::Event(event)) => observer.event(&target.name, &event),
                Some(Answer::Announce(applied)) => call.say(Ask::Announced(announce(options, &applied).await)),
                Some(Answer::Report(report)) => return Ok(*report),
                Some(Answer::Error(error)) => return Err(Error::from(*error)),
                Some(Answer::Description(_)) => return Err(self.unusable("it answers with something else")),
                None => {
                    let ended = worker.end().await;
                    let (program, how) = (self.path.display(), &ended.how);
                    let error = Error::new(
                        ErrorKind::Program,
                        format!("the program {program} ended ({how}) while it {doing} {}", target.name),
                    );
                    return Err(ended
                        .tell(error.died())
                        .hinted("what was committed stays; the next run goes on behind it"));
                }
            }
        }
    }

    /// Returns a worker that has described itself, the one that runs or a new one.
    ///
    /// One call at a time starts it; the others wait for that.
    async fn ready(&self) -> Result<(Arc<Worker>, Arc<Description>), Error> {
        let mut state = self.state.lock().await;
        if let (Some(worker), Some(described)) = (&state.worker, &state.described)
            && !worker.has_ended()
        {
            return Ok((worker.clone(), described.clone()));
        }
        let worker = self.start()?;
        let described = match self.answer(&worker, Ask::Describe, TO_DESCRIBE).await {
            Ok(Answer::Description(description)) => Ok(Arc::new(*description)),
            Ok(Answer::Error(error)) => Err(Error::from(*error)),
            Ok(_) => Err(self.unusable("it answers with something else")),
            Err(error) => Err(error),
        };
        let described = described.and_then(|description| match &state.described {
            // Between two lives of a worker somebody may have built the program again.
            Some(before) if *before != description => {
                Err(self.unusable("it is another one than it was a moment ago").hinted("run again"))
            }
            _ => Ok(description),
        });
        let description = match described {
            Ok(description) => description,
            Err(error) => {
                // It has nothing under way, and must not outlive us.
                worker.kill.notify_one();
                worker.end().await;
                return Err(error);
            }
        };
        state.worker = Some(worker.clone());
        state.described = Some(description.clone());
        Ok((worker, description))
    }

    /// Asks for what is answered at once.
    async fn answer(&self, worker: &Arc<Worker>, ask: Ask, limit: Duration) -> Result<Answer, Error> {
        let mut call = worker.call(ask);
        match tokio::time::timeout(limit, call.answers.recv()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                let ended = worker.end().await;
                let error = match ended.protocol {
                    Some(theirs) => self
                        .unusable(&format!("it speaks protocol {theirs}, and this pgfleet {PROTOCOL}"))
                        .hinted("build both with the same version of pgfleet"),
                    None => self
                        .unusable(&format!("it ended ({}) and did not say what it has in it", ended.how))
                        .hinted(START_FIRST),
                };
                Err(ended.tell(error))
            }
            Err(_) => {
                let error = self.unusable(&format!("it did not say within {} s what it has in it", limit.as_secs()));
                Err(worker.said().tell(error).hinted(START_FIRST))
            }
        }
    }

    fn unusable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Program, format!("cannot use the program of {}: {why}", self.service))
            .cause(self.path.display().to_string())
    }

    fn start(&self) -> Result<Arc<Worker>, Error> {
        let mut command = Command::new(&self.path);
        command.args(["pgfleet", "worker"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for us, who then tell it to stop; a terminal would tell it too.
        command.process_group(0);
        let child = command.spawn().map_err(|error| {
            let hint = if error.kind() == std::io::ErrorKind::NotFound {
                "build it (`cargo build`), or correct `program` in the manifest"
            } else {
                "`program` in the manifest names the service's program"
            };
            Error::new(ErrorKind::Program, format!("cannot start the program of {}", self.service))
                .cause(format!("{}: {error}", self.path.display()))
                .hinted(hint)
        })?;
        Ok(Worker::of(child, self.service.clone(), self.observer.clone()))
    }

    /// Ends it, when it runs, and waits until it has.
    pub async fn close(&self) {
        let worker = self.state.lock().await.worker.take();
        let Some(worker) = worker else { return };
        // The end of its input is what tells it to end.
        lock(&worker.input).take();
        if tokio::time::timeout(TO_END, worker.end()).await.is_err() {
            worker.kill.notify_one();
            worker.end().await;
        }
    }
}

const START_FIRST: &str = "is it built of this service, and is `Service::builder(…).start()` the first thing it does?";

/// Announces for a worker; returns what went wrong.
async fn announce(options: &Options, applied: &Applied) -> Option<String> {
    match &options.announcer {
        Some(announcer) => announcer.tell(applied).await.err().map(|error| error.to_string()),
        None => Some("nobody is to be told".to_owned()),
    }
}

/// One process.
struct Worker {
    next: AtomicU64,
    /// Lines to its standard input, written by one task; none once it is to end. Without a bound,
    /// since a request is written once and read at once.
    input: Mutex<Option<mpsc::UnboundedSender<String>>>,
    /// Requests under way. Callers put themselves in; the task that reads the answers hands them
    /// out, and lets go of everybody when there will be no more.
    calls: Mutex<HashMap<u64, mpsc::UnboundedSender<Answer>>>,
    /// What it printed last.
    lines: Mutex<VecDeque<String>>,
    ended: watch::Sender<Option<Ended>>,
    kill: Notify,
}

/// How a process ended.
#[derive(Debug, Clone, Default)]
struct Ended {
    how: String,
    lines: Vec<String>,
    /// The protocol that it speaks, where it is not ours.
    protocol: Option<u32>,
}

impl Ended {
    /// Adds the last lines to an error.
    fn tell(&self, mut error: Error) -> Error {
        for line in &self.lines {
            error = error.cause(format!("it said: {line}"));
        }
        error
    }
}

/// One request under way; dropped before its end, it asks the worker to end it.
struct Call {
    worker: Arc<Worker>,
    id: u64,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Call {
    fn say(&self, ask: Ask) {
        self.worker.send(&Request { pgfleet: PROTOCOL, id: self.id, ask });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Taken out when it was answered to the end.
        if lock(&self.worker.calls).remove(&self.id).is_some() {
            self.say(Ask::Stop);
        }
    }
}

impl Worker {
    /// Begins to talk with a process.
    fn of(mut child: Child, service: String, observer: Arc<dyn Observer>) -> Arc<Self> {
        let (sender, mut requests) = mpsc::unbounded_channel::<String>();
        let worker = Arc::new(Self {
            next: AtomicU64::new(1),
            input: Mutex::new(Some(sender)),
            calls: Mutex::default(),
            lines: Mutex::default(),
            ended: watch::Sender::new(None),
            kill: Notify::new(),
        });
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        if let Some(mut stdin) = stdin {
            tokio::spawn(async move {
                while let Some(text) = requests.recv().await {
                    if stdin.write_all(text.as_bytes()).await.is_err() {
                        // It is gone; the end of its output says so to everybody.
                        break;
                    }
                }
            });
        }
        let talk = Talk { service, observer, worker: worker.clone() };
        let ending = worker.clone();
        tokio::spawn(async move {
            let other = tokio::spawn({
                let talk = talk.clone();
                async move {
                    if let Some(stderr) = stderr {
                        lines_of(stderr, |line| talk.said(line)).await;
                    }
                }
            });
            let mut protocol = None;
            let reading = async {
                if let Some(stdout) = stdout {
                    lines_of(stdout, |line| talk.answer(line, &mut protocol)).await;
                }
            };
            let patience = tokio::select! {
                () = reading => TO_DIE,
                () = ending.kill.notified() => Duration::ZERO,
            };
            let status = match tokio::time::timeout(patience, child.wait()).await {
                Ok(status) => status,
                Err(_) => match child.start_kill() {
                    Ok(()) => child.wait().await,
                    Err(error) => Err(error),
                },
            };
            // A process that it left behind may keep the stream open.
            let _rest = tokio::time::timeout(TO_DIE, other).await;
            let how = status.map_or_else(|error| error.to_string(), how);
            let lines = lock(&ending.lines).iter().cloned().collect();
            ending.ended.send_replace(Some(Ended { how, lines, protocol }));
            lock(&ending.input).take();
            // Whoever waits for an answer gets none.
            lock(&ending.calls).clear();
        });
        worker
    }

    fn call(self: &Arc<Self>, ask: Ask) -> Call {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::unbounded_channel();
        lock(&self.calls).insert(id, sender);
        let call = Call { worker: self.clone(), id, answers };
        call.say(ask);
        // One that ended before the call was put in has let go of everybody already.
        if self.has_ended() {
            lock(&self.calls).remove(&id);
        }
        call
    }

    fn send(&self, request: &Request) {
        if let Some(input) = &*lock(&self.input) {
            // It is gone, and so will be who waits for the answer.
            let _gone = input.send(line(request));
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits for its end.
    async fn end(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or_default(),
            // Its sender is in `self`.
            Err(_) => Ended::default(),
        }
    }

    /// Returns what it printed until now.
    fn said(&self) -> Ended {
        Ended { lines: lock(&self.lines).iter().cloned().collect(), ..Ended::default() }
    }
}

/// Where the lines of a process go.
#[derive(Clone)]
struct Talk {
    service: String,
    observer: Arc<dyn Observer>,
    worker: Arc<Worker>,
}

impl Talk {
    /// Takes a line that is no answer.
    fn said(&self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        let mut lines = lock(&self.worker.lines);
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
        drop(lines);
        self.observer.event(&self.service, &Event::Said(line.to_owned()));
    }

    /// Takes a line that may be an answer.
    fn answer(&self, line: &str, protocol: &mut Option<u32>) {
        let response = serde_json::from_str(line).ok().filter(|response: &Response| response.pgfleet == PROTOCOL);
        let Some(Response { id, answer, .. }) = response else {
            match serde_json::from_str(line) {
                Ok(Head { pgfleet, .. }) if pgfleet != PROTOCOL => {
                    *protocol = Some(pgfleet);
                    // There is no use in waiting for more.
                    self.worker.kill.notify_one();
                }
                _ => self.said(line),
            }
            return;
        };
        let mut calls = lock(&self.worker.calls);
        let goes_on = matches!(answer, Answer::Event(_) | Answer::Announce(_));
        let call = if goes_on { calls.get(&id).cloned() } else { calls.remove(&id) };
        drop(calls);
        if let Some(call) = call {
            // Who asked may have gone.
            let _gone = call.send(answer);
        }
    }
}

/// Hands out the lines of a stream until its end.
async fn lines_of(stream: impl AsyncRead + Unpin, mut each: impl FnMut(&str)) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    // What cannot be read any more has ended.
    while matches!(stream.read_until(b'\n', &mut line).await, Ok(count) if count > 0) {
        each(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// A panic while the mutex was held left nothing half done: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
