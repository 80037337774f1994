//! What `up` and `down` do with services' programs: in this terminal, or by a process without one.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;

use pgfleet_control::Solution;
use pgfleet_control::services::{Board, Entry, LogFiles, Program, RunFolder, Supervisor, orphans};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::commands::follow::{Follower, Whereabouts};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::prefix::Prefixed;
use crate::talk::{Talk, counted};

/// The programs of a solution, and the services that are not started because their database is not there.
pub(crate) struct Plan {
    programs: Vec<Program>,
    unready: Vec<(String, String)>,
    /// With `--json`, what is said of each service beside its program.
    documents: Vec<serde_json::Value>,
}

impl Plan {
    /// Collects what is to be started; none when no service has a program.
    pub(crate) fn of(
        solution: &Solution,
        failed: &BTreeSet<&str>,
        documents: Vec<serde_json::Value>,
    ) -> Result<Option<Self>, CommandError> {
        let surroundings: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        let mut plan = Self { programs: Vec::new(), unready: Vec::new(), documents };
        for service in &solution.manifest.services {
            if service.run.is_some() && failed.contains(service.name.as_str()) {
                plan.unready.push((service.name.clone(), "not started: its database is not ready".to_owned()));
            } else {
                plan.programs.extend(solution.program_of(service, &surroundings)?);
            }
        }
        Ok((!plan.programs.is_empty() || !plan.unready.is_empty()).then_some(plan))
    }
}

/// Runs the programs in this terminal until it is interrupted, or all have ended.
pub(crate) async fn stay(context: &Context, solution: &Solution, plan: Plan) -> Result<Exit, CommandError> {
    let folder = RunFolder::of(&solution.manifest.root);
    let Some(lock) = folder.try_lock()? else { return Ok(run_already(context, &folder, &plan)) };
    for service in orphans::end_left(&folder, &lock).await {
        context.talk.say(&format!("{service}: stopped what an earlier pgfleet up left behind"));
    }
    let names = plan.programs.iter().map(|program| program.service.clone());
    let prefixed = Arc::new(Prefixed::new(context.talk.clone(), names));
    let supervisor = Supervisor::start(folder, lock, false, plan.programs, &plan.unready, prefixed)?;
    let stopper = supervisor.stopper();
    context.serve(Some(stopper.clone()));
    let follower = Follower::begin(context, Whereabouts::of(&solution.manifest));
    tokio::select! {
        well = supervisor.settled() => {
            report(context, &plan.documents, &supervisor.entries())?;
            if !well {
                for service in supervisor.failed() {
                    context.talk.say(&format!("service {service} is not healthy; it goes on, see above"));
                }
            }
            context.talk.say("the services run; Ctrl-C stops them");
        }
        () = stopper.asked() => {}
    }
    let ended = tokio::select! {
        () = supervisor.ended() => {
            context.talk.say("all services have ended");
            true
        }
        () = stopper.asked() => false,
    };
    // Who wants to stop waits for nothing that others can go on with.
    tokio::select! {
        () = follower.end(ended) => {}
        () = stopper.asked(), if ended => {}
    }
    supervisor.stop().await;
    let interrupted = context.was_interrupted();
    context.serve(None);
    if solution.servers().any(|(_, server)| server.local.is_some()) {
        context.talk.say("the services are stopped; the server keeps running until pgfleet down");
    } else {
        context.talk.say("the services are stopped");
    }
    Ok(if interrupted { Exit::Interrupted } else { Exit::Done })
}

/// What the process without a terminal is told, over its standard input: arguments and variables can be
/// read by others.
#[derive(Serialize, Deserialize)]
struct Order {
    folder: std::path::PathBuf,
    programs: Vec<Ordered>,
    unready: Vec<(String, String)>,
    whereabouts: Whereabouts,
}

#[derive(Serialize, Deserialize)]
struct Ordered {
    service: String,
    command: String,
    folder: std::path::PathBuf,
    variables: Vec<(String, String)>,
    without: Vec<String>,
    health: Option<String>,
    health_timeout_ms: u64,
}

impl From<&Program> for Ordered {
    fn from(program: &Program) -> Self {
        use secrecy::ExposeSecret as _;
        let expose = |(name, value): &(String, secrecy::SecretString)| (name.clone(), value.expose_secret().to_owned());
        Self {
            service: program.service.clone(),
            command: program.command.clone(),
            folder: program.folder.clone(),
            variables: program.variables.iter().map(expose).collect(),
            without: program.without.clone(),
            health: program.health.as_ref().map(ToString::to_string),
            health_timeout_ms: u64::try_from(program.health_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl From<Ordered> for Program {
    fn from(ordered: Ordered) -> Self {
        Self {
            service: ordered.service,
            command: ordered.command,
            folder: ordered.folder,
            variables: ordered.variables.into_iter().map(|(name, value)| (name, value.into())).collect(),
            without: ordered.without,
            health: ordered.health.and_then(|check| check.parse().ok()),
            health_timeout: std::time::Duration::from_millis(ordered.health_timeout_ms),
        }
    }
}

/// What it answers, one line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// Somebody else runs the services.
    Busy,
    /// Nothing could be started.
    Refused(Vec<String>),
    /// Services that were left behind were stopped.
    Left(Vec<String>),
    /// Everything has come up, or something will not: where the services stand, and the last lines of
    /// those that failed.
    Settled { entries: Vec<Entry>, failed: Vec<(String, Vec<String>)> },
}

/// Has the programs run by a process of their own, and waits until they have come up.
pub(crate) async fn detach(context: &Context, solution: &Solution, plan: Plan) -> Result<Exit, CommandError> {
    let folder = RunFolder::of(&solution.manifest.root);
    folder.make()?;
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        CommandError::new(Exit::Failed, format!("cannot start what runs the services: {what}")).cause(error.to_string())
    };
    let log = std::fs::File::create(folder.own_log()).map_err(|error| failed("its log", &error))?;
    let program = std::env::current_exe().map_err(|error| failed("its program", &error))?;
    let mut child = tokio::process::Command::new(program)
        .arg("supervise")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| failed("its process", &error))?;
    let order = Order {
        folder: folder.path().to_owned(),
        programs: plan.programs.iter().map(Ordered::from).collect(),
        unready: plan.unready.clone(),
        whereabouts: Whereabouts::of(&solution.manifest),
    };
    let text = serde_json::to_string(&order).map_err(|error| failed("its order", &error))?;
    if let Some(mut input) = child.stdin.take() {
        // When it has died its answer is missing, which is said below.
        let _written = input.write_all(text.as_bytes()).await;
    }
    let mut answers = child.stdout.take().map(|output| BufReader::new(output).lines());
    while let Some(lines) = answers.as_mut() {
        let Some(line) = lines.next_line().await.map_err(|error| failed("its answer", &error))? else { break };
        match serde_json::from_str(&line).map_err(|error| failed("its answer", &error))? {
            Answer::Busy => return Ok(run_already(context, &folder, &plan)),
            Answer::Refused(why) => {
                let error = CommandError::new(Exit::Failed, "cannot start the services");
                return Err(why.into_iter().fold(error, CommandError::cause));
            }
            Answer::Left(services) => {
                for service in services {
                    context.talk.say(&format!("{service}: stopped what an earlier pgfleet up left behind"));
                }
            }
            Answer::Settled { entries, failed } => {
                report(context, &plan.documents, &entries)?;
                for (service, lines) in &failed {
                    last_lines(context, &folder, service, lines);
                }
                if failed.is_empty() && plan.unready.is_empty() {
                    context.talk.say("the services run until pgfleet down; what they print is in .pgfleet/run");
                    return Ok(Exit::Done);
                }
                context.talk.say("not every service is healthy; those that run go on until pgfleet down");
                return Ok(Exit::Failed);
            }
        }
    }
    // Without a log it ended before it could say anything; that it has is the error.
    let said = std::fs::read_to_string(folder.own_log()).unwrap_or_default();
    Err(failed("it has ended", &said.trim()))
}

fn last_lines(context: &Context, folder: &RunFolder, service: &str, lines: &[String]) {
    context.talk.say(&format!("service {service} is not healthy; its last lines:"));
    for line in lines {
        context.talk.say(&format!("    {}", crate::prefix::plain(line)));
    }
    if lines.is_empty() {
        context.talk.say("    (it printed nothing)");
    }
    context.talk.say(&format!("hint: {}", crate::error::relative(&folder.log_of(service)).display()));
}

/// The process without a terminal: runs the programs until it is asked to stop.
pub(crate) async fn supervise(context: &Context) -> Result<Exit, CommandError> {
    let wrong = |error: &dyn std::fmt::Display| {
        CommandError::new(Exit::Usage, "pgfleet supervise is started by pgfleet up").cause(error.to_string())
    };
    // Away from the terminal: neither its Ctrl-C nor its end is meant for the services.
    nix::unistd::setsid().map_err(|error| wrong(&error))?;
    let order: Order = serde_json::from_reader(std::io::stdin()).map_err(|error| wrong(&error))?;
    let folder = RunFolder::at(order.folder);
    let Some(lock) = folder.try_lock()? else {
        answer(&Answer::Busy);
        return Ok(Exit::Done);
    };
    let left = orphans::end_left(&folder, &lock).await;
    if !left.is_empty() {
        answer(&Answer::Left(left));
    }
    let logs = Arc::new(LogFiles::new(folder.clone()));
    let programs = order.programs.into_iter().map(Program::from).collect();
    let supervisor = match Supervisor::start(folder, lock, true, programs, &order.unready, logs) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            let why = std::iter::once(error.to_string()).chain(error.causes().iter().cloned());
            answer(&Answer::Refused(why.collect()));
            return Ok(Exit::Failed);
        }
    };
    let stopper = supervisor.stopper();
    context.serve(Some(stopper.clone()));
    let follower = Follower::begin(context, order.whereabouts);
    tokio::select! {
        _ = supervisor.settled() => {
            let failed = supervisor.failed().into_iter().map(|service| {
                let lines = supervisor.tail(&service);
                (service, lines)
            });
            answer(&Answer::Settled { failed: failed.collect(), entries: supervisor.entries() });
        }
        () = stopper.asked() => {}
    }
    // One whose programs have all ended has nothing left to do.
    let ended = tokio::select! {
        () = supervisor.ended() => true,
        () = stopper.asked() => false,
    };
    tokio::select! {
        () = follower.end(ended) => {}
        () = stopper.asked(), if ended => {}
    }
    supervisor.stop().await;
    context.serve(None);
    Ok(Exit::Done)
}

fn answer(answer: &Answer) {
    // Whoever waited may have been interrupted; the services run all the same.
    if let Ok(text) = serde_json::to_string(answer) {
        let _gone = writeln!(std::io::stdout(), "{text}");
    }
}

/// Says what runs, and that nothing was started.
fn run_already(context: &Context, folder: &RunFolder, plan: &Plan) -> Exit {
    // Who has the lock and has written nothing yet has only begun.
    let board = folder.board();
    let Some(Board { supervisor, detached, services, .. }) = &board else {
        context.talk.say("another pgfleet up is starting the services; nothing was started");
        return Exit::Done;
    };
    let pid = supervisor.as_ref().map_or_else(String::new, |process| format!(" (pid {})", process.pid));
    let place = if *detached { "in the background" } else { "in another terminal" };
    context.talk.say(&format!("the services are run by a pgfleet up {place}{pid}; nothing was started"));
    let _printed = report(context, &plan.documents, services);
    for program in &plan.programs {
        if !services.iter().any(|entry| entry.service == program.service) {
            context.talk.note(&format!("service {} is not among them: pgfleet down, then pgfleet up", program.service));
        }
    }
    Exit::Done
}

/// Prints where the programs stand.
fn report(context: &Context, documents: &[serde_json::Value], entries: &[Entry]) -> Result<(), CommandError> {
    if context.talk.json {
        let mut documents = documents.to_vec();
        for document in &mut documents {
            let Some(entry) = entries.iter().find(|entry| document["service"] == entry.service.as_str()) else {
                continue;
            };
            document["program"] = serde_json::json!({
                "state": entry.state.word(),
                "pid": entry.process.as_ref().map(|process| process.pid),
                "health": entry.health_word(),
                "starts": entry.starts,
            });
        }
        return context.talk.json(&documents);
    }
    let mut table = Talk::table(&["service", "state", "pid", "health"]);
    for entry in entries {
        let pid = entry.process.as_ref().map_or_else(|| "-".to_owned(), |process| process.pid.to_string());
        table.add_row([entry.service.clone(), entry.state.word().to_owned(), pid, entry.health_word()]);
    }
    context.talk.print_table(&table);
    Ok(())
}

/// Stops the programs, wherever they are run from.
pub(crate) async fn stop(context: &Context, root: &std::path::Path) -> Result<(), CommandError> {
    let stopped = orphans::stop(&RunFolder::of(root)).await?;
    if !stopped.services.is_empty() {
        let names = stopped.services.join(", ");
        context.talk.say(&format!("stopped {}: {names}", counted(stopped.services.len(), "service")));
    }
    Ok(())
}
