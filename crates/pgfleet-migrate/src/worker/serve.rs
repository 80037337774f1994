//! The worker: reads requests, works on targets with the sets compiled into this program, answers.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::announce::{Announce, Announced, Announcer, Applied};
use crate::error::{Error, ErrorKind, ErrorRecord};
use crate::event::{Event, Observer};
use crate::options::Stop;
use crate::path::SetPath;
use crate::report::Report;
use crate::revert::Goal;
use crate::step_error::StepError;
use crate::worker::describe::Description;
use crate::worker::protocol::{Answer, Ask, Head, PROTOCOL, Request, Response, Task, line};

/// The sets that are compiled into a program.
pub trait Sets: Send + Sync + 'static {
    /// The service's name.
    fn name(&self) -> &str;

    /// Makes the sets with these placeholders for the service's own. Properties for seeds are laid over.
    ///
    /// # Errors
    ///
    /// Migrations that cannot be used.
    fn path(&self, placeholders: &BTreeMap<String, String>) -> Result<SetPath, Error>;
}

/// Answers requests until `input` ends or `stop` is asked; then what runs ends in an orderly way,
/// and its answers are written.
///
/// # Errors
///
/// Reading `input` fails; what runs is ended before.
pub async fn serve(
    sets: impl Sets,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin + Send + 'static,
    stop: Stop,
) -> std::io::Result<()> {
    let (out, lines) = mpsc::unbounded_channel();
    let writer = tokio::spawn(write(output, lines));
    let shared = Arc::new(Shared { sets: Box::new(sets), out, running: Mutex::default(), made: Mutex::default() });
    // Ends a line that the program may have begun on the same stream.
    let _gone = shared.out.send("\n".to_owned());
    let mut input = BufReader::new(input).lines();
    let mut tasks = JoinSet::new();
    let read = loop {
        tokio::select! {
            read = input.next_line() => match read {
                Ok(Some(text)) => shared.clone().take(&text, &mut tasks),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            },
            () = stop.asked() => break Ok(()),
            // Only to forget what has ended; a task answers for itself.
            Some(_) = tasks.join_next() => {}
        }
    };
    shared.stop_all();
    while tasks.join_next().await.is_some() {}
    drop(shared);
    // A caller that is gone reads nothing.
    let _written = writer.await;
    read
}

/// Writes lines, as many at a time as there are.
///
/// The channel has no bound: what is sent are a few short lines per migration, and a step must not
/// wait for a caller that reads slowly while it holds the database's lock.
async fn write(mut output: impl AsyncWrite + Unpin, mut lines: mpsc::UnboundedReceiver<String>) {
    let mut many = Vec::new();
    while lines.recv_many(&mut many, 256).await > 0 {
        let text = many.concat();
        many.clear();
        let written = async {
            output.write_all(text.as_bytes()).await?;
            output.flush().await
        };
        if let Err(error) = written.await {
            // The end of the input, which comes with it, ends what runs.
            tracing::debug!(%error, "nobody reads the answers");
            return;
        }
    }
}

/// What all requests of one worker share.
struct Shared {
    sets: Box<dyn Sets>,
    out: mpsc::UnboundedSender<String>,
    /// Requests under way; written when one begins and ends, and by those that end it or answer it.
    running: Mutex<HashMap<u64, Running>>,
    /// The last path that was made. The targets of one service have the same placeholders, and
    /// reading the files again for each would cost more than looking at it.
    made: Mutex<Option<Made>>,
}

/// What is done with a target.
enum Doing {
    Migrate,
    Seed,
    Revert(Goal),
}

/// One request under way.
#[derive(Default)]
struct Running {
    stop: Stop,
    /// Who waits for an announcement to be taken.
    announced: Option<oneshot::Sender<Option<String>>>,
}

struct Made {
    placeholders: BTreeMap<String, String>,
    path: Arc<SetPath>,
}

impl Shared {
    /// Takes one line.
    fn take(self: Arc<Self>, text: &str, tasks: &mut JoinSet<()>) {
        if text.trim().is_empty() {
            return;
        }
        let request = serde_json::from_str(text).ok().filter(|request: &Request| request.pgfleet == PROTOCOL);
        let Some(Request { id, ask, .. }) = request else {
            let (id, error) = not_understood(text);
            return self.answer(id, Answer::Error(Box::new(ErrorRecord::from(&error))));
        };
        match ask {
            Ask::Stop => {
                if let Some(running) = lock(&self.running).get(&id) {
                    running.stop.ask();
                }
            }
            Ask::Announced(error) => {
                let waiting = lock(&self.running).get_mut(&id).and_then(|running| running.announced.take());
                if let Some(waiting) = waiting {
                    // Who waited may have been stopped.
                    let _gone = waiting.send(error);
                }
            }
            ask => {
                lock(&self.running).insert(id, Running::default());
                let sentence = sentence(&ask);
                tasks.spawn(async move {
                    let worked = AssertUnwindSafe(self.work(id, ask)).catch_unwind().await;
                    let answer = match worked {
                        Ok(Ok(answer)) => answer,
                        Ok(Err(error)) => Answer::Error(Box::new(ErrorRecord::from(&error))),
                        Err(panic) => Answer::Error(Box::new(ErrorRecord::from(&panicked(sentence, &*panic)))),
                    };
                    lock(&self.running).remove(&id);
                    self.answer(id, answer);
                });
            }
        }
    }

    async fn work(self: &Arc<Self>, id: u64, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Describe | Ask::Export => {
                let path = self.path(&BTreeMap::new())?;
                let texts = matches!(ask, Ask::Export);
                Ok(Answer::Description(Box::new(Description::of(self.sets.name(), &path, texts))))
            }
            Ask::Migrate(task) => self.target(id, &task, &Doing::Migrate).await,
            Ask::Seed(task) => self.target(id, &task, &Doing::Seed).await,
            Ask::Revert(task, back) => self.target(id, &task, &Doing::Revert(back.goal()?)).await,
            // Taken care of where they came in.
            Ask::Stop | Ask::Announced(_) => Err(Error::new(ErrorKind::Program, "this is no work")),
        }
    }

    async fn target(self: &Arc<Self>, id: u64, task: &Task, doing: &Doing) -> Result<Answer, Error> {
        let (target, mut options, announce) = task.read()?;
        options.stop = lock(&self.running).get(&id).map(|running| running.stop.clone()).unwrap_or_default();
        if announce {
            options.announcer = Some(Announce::new(Caller { id, shared: self.clone() }));
        }
        let path = self.path(&task.placeholders)?.laid_over(&task.properties, |name| task.own.contains(name));
        let observer = Caller { id, shared: self.clone() };
        // Boxed with its lifetime named: the compiler cannot prove by itself that the borrows inside
        // may cross threads.
        let run: std::pin::Pin<Box<dyn Future<Output = Result<Report, Error>> + Send + '_>> = match doing {
            Doing::Migrate => Box::pin(crate::run::migrate(&target, &path, &options, &observer)),
            Doing::Seed => Box::pin(crate::run::seed(&target, &path, &options, &observer)),
            Doing::Revert(goal) => Box::pin(crate::revert::revert(&target, &path, goal, &options, &observer)),
        };
        Ok(Answer::Report(Box::new(run.await?)))
    }

    /// Makes the sets, or takes those that were made before.
    fn path(&self, placeholders: &BTreeMap<String, String>) -> Result<Arc<SetPath>, Error> {
        let mut made = lock(&self.made);
        if let Some(made) = &*made
            && made.placeholders == *placeholders
        {
            return Ok(made.path.clone());
        }
        let path = Arc::new(self.sets.path(placeholders)?);
        *made = Some(Made { placeholders: placeholders.clone(), path: path.clone() });
        Ok(path)
    }

    fn answer(&self, id: u64, answer: Answer) {
        // Without a reader nothing is left to do but to end, which the end of the input asks for.
        let _gone = self.out.send(line(&Response { pgfleet: PROTOCOL, id, answer }));
    }

    /// Asks everything that runs to end.
    fn stop_all(&self) {
        for running in lock(&self.running).values_mut() {
            running.stop.ask();
            // Nobody will answer any more.
            running.announced = None;
        }
    }
}

/// The caller of one request, who is told what happens.
struct Caller {
    id: u64,
    shared: Arc<Shared>,
}

impl Observer for Caller {
    fn event(&self, _target: &str, event: &Event) {
        self.shared.answer(self.id, Answer::Event(event.clone()));
    }
}

impl Announcer for Caller {
    fn announce<'a>(&'a self, applied: &'a Applied) -> Announced<'a> {
        Box::pin(async move {
            let (taken, waiting) = oneshot::channel();
            if let Some(running) = lock(&self.shared.running).get_mut(&self.id) {
                running.announced = Some(taken);
            }
            self.shared.answer(self.id, Answer::Announce(applied.clone()));
            match waiting.await {
                Ok(None) => Ok(()),
                Ok(Some(error)) => Err(StepError::new(error)),
                Err(_) => Err(StepError::new("the caller is gone")),
            }
        })
    }
}

/// A panic while the mutex was held left nothing half done: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says why a line is no request, without repeating it: it may hold a password.
fn not_understood(text: &str) -> (u64, Error) {
    let error = Error::new(ErrorKind::Program, "cannot understand a request");
    match serde_json::from_str::<Head>(text) {
        Ok(Head { pgfleet, id }) if pgfleet != PROTOCOL => (
            id,
            error
                .cause(format!("it is of protocol {pgfleet}, and this program speaks {PROTOCOL}"))
                .hinted("build both with the same version of pgfleet"),
        ),
        Ok(Head { id, .. }) => (id, error),
        Err(_) => (0, error),
    }
}

/// What cannot be done when the code of a request panics.
fn sentence(ask: &Ask) -> String {
    match ask {
        Ask::Migrate(task) => format!("cannot migrate {}: its code panicked", task.name()),
        Ask::Seed(task) => format!("cannot seed {}: its code panicked", task.name()),
        Ask::Revert(task, _) => format!("cannot revert {}: its code panicked", task.name()),
        Ask::Describe | Ask::Export | Ask::Stop | Ask::Announced(_) => "cannot answer: the code panicked".to_owned(),
    }
}

fn panicked(sentence: String, panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Error::new(ErrorKind::Code, sentence)
        .cause(text)
        .hinted("its transaction was rolled back; the program's own output says where it was")
}
