//! Message brokers for tests: a RabbitMQ and a NATS of the tests' own.
//!
//! RabbitMQ takes seconds to start, so tests share one ([`Broker::rabbitmq_shared`]), left running as the shared PostgreSQL
//! is and stopped with it ([`TestServer::stop_all`](super::TestServer::stop_all)). What tests make on it bears names of
//! their own. A test that kills its broker has one for itself ([`Broker::rabbitmq`], [`Broker::nats`]).

mod nats;
mod process;
mod rabbitmq;

use std::fs;
use std::path::{Path, PathBuf};

use self::process::Process;
use super::own::in_background;
use super::server::{make_base, random_password};
use crate::cluster::HOST;
use crate::error::{Error, Result, describe};
use crate::postmaster::is_alive;
use crate::user::{ServerUser, current_uid};
use crate::{files, port};

/// Where looking for a port begins: below the range from which systems take ports of outgoing connections, so that a
/// broker that was killed finds its port free when it starts again.
const FIRST_PORT: u16 = 20_000;

/// How often other ports are tried when somebody took those that were free.
const PORT_TRIES: u32 = 5;

/// The name that clients log in by.
const USER: &str = "pgfleet";

/// Which program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    RabbitMq,
    Nats,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::RabbitMq => "rabbitmq",
            Self::Nats => "nats",
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::RabbitMq => "amqp",
            Self::Nats => "nats",
        }
    }
}

/// A broker that runs for tests, on ports and in a folder of its own.
///
/// One that is not shared ends and is deleted when this value is dropped; what a killed test process leaves behind is
/// removed by the next one that starts such a broker.
#[derive(Debug)]
pub struct Broker {
    kind: Kind,
    folder: PathBuf,
    ports: Ports,
    password: String,
    shared: bool,
}

/// The ports of a broker: that of clients, and two that RabbitMQ needs for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    clients: u16,
    names: u16,
    nodes: u16,
}

impl Broker {
    /// The RabbitMQ that tests share; started if it does not run, and left running.
    ///
    /// # Panics
    /// When there is none on this machine or it does not start.
    pub async fn rabbitmq_shared() -> Self {
        Self::get(Kind::RabbitMq, true).await
    }

    /// A RabbitMQ for one test.
    ///
    /// # Panics
    /// When there is none on this machine or it does not start.
    pub async fn rabbitmq() -> Self {
        Self::get(Kind::RabbitMq, false).await
    }

    /// The NATS server, with JetStream, that tests share; started if it does not run, and left running.
    ///
    /// # Panics
    /// When there is none on this machine or it does not start.
    pub async fn nats_shared() -> Self {
        Self::get(Kind::Nats, true).await
    }

    /// A NATS server, with JetStream, for one test.
    ///
    /// # Panics
    /// When there is none on this machine or it does not start.
    pub async fn nats() -> Self {
        Self::get(Kind::Nats, false).await
    }

    async fn get(kind: Kind, shared: bool) -> Self {
        in_background(move || open(kind, shared))
            .await
            .unwrap_or_else(|error| panic!("no {}: {}", kind.word(), describe(&error)))
    }

    /// The TCP port for clients on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.ports.clients
    }

    /// The URL with the password.
    pub fn url(&self) -> String {
        self.url_by(self.port())
    }

    /// The URL by way of another port, for a [`Proxy`](super::Proxy).
    pub fn url_by(&self, port: u16) -> String {
        format!("{}://{USER}:{}@{HOST}:{port}", self.kind.scheme(), self.password)
    }

    /// Ends it as a power cut would: `kill -9` of all its processes.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill(&self) {
        self.end(true).await;
    }

    /// Ends it in good order.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&self) {
        self.end(false).await;
    }

    async fn end(&self, at_once: bool) {
        let process = self.process();
        in_background(move || process.end(at_once))
            .await
            .unwrap_or_else(|error| panic!("the {} does not end: {}", self.kind.word(), describe(&error)));
    }

    /// Starts it again with the same data, on the same port; nothing happens when it runs.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&self) {
        let (kind, folder, ports, password) = (self.kind, self.folder.clone(), self.ports, self.password.clone());
        in_background(move || start(kind, &folder, ports, &password))
            .await
            .unwrap_or_else(|error| panic!("the {} does not start again: {}", self.kind.word(), describe(&error)));
    }

    fn process(&self) -> Process {
        Process::new(&self.folder)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.shared {
            return;
        }
        match self.process().end(true) {
            Ok(_) => drop(fs::remove_dir_all(&self.folder)),
            Err(error) => tracing::warn!(error = %describe(&error), "a test's broker was not removed"),
        }
    }
}

/// Stops all brokers of this machine user; returns how many ran.
pub(super) fn stop_all() -> Result<usize> {
    let mut stopped = 0;
    for folder in folders() {
        stopped += usize::from(Process::new(&folder).end(true)?);
    }
    Ok(stopped)
}

fn open(kind: Kind, shared: bool) -> Result<Broker> {
    let base = base_dir();
    make_base(&base)?;
    remove_orphans();
    let name = if shared {
        format!("shared-{}", kind.word())
    } else {
        format!("{}-{:08x}", std::process::id(), rand::random::<u32>())
    };
    let folder = base.join(name);
    files::make_dir(&folder)?;
    // Held until it answers: of processes that begin at once the first starts it for all.
    let _lock = files::lock(&files::sibling(&folder, ".lock"))?;
    let opened = open_in(kind, &folder, shared);
    if !shared {
        let _ = files::remove_file(&files::sibling(&folder, ".lock"));
    }
    opened
}

fn open_in(kind: Kind, folder: &Path, shared: bool) -> Result<Broker> {
    if let Some((ports, password)) = recorded(folder)?
        && Process::new(folder).runs()?
        && port::answers(ports.clients)
    {
        return Ok(Broker { kind, folder: folder.to_owned(), ports, password, shared });
    }
    Process::new(folder).end(true)?;
    let mut failed = None;
    for _ in 0..PORT_TRIES {
        // Not worth mending: what is left of an earlier day goes.
        files::remove_tree(folder)?;
        files::make_dir(folder)?;
        ServerUser::choose(None)?.give(folder)?;
        files::chmod(folder, 0o700)?;
        let (ports, password) = (free_ports()?, random_password());
        match start(kind, folder, ports, &password) {
            Ok(()) => {
                record(folder, ports, &password)?;
                return Ok(Broker { kind, folder: folder.to_owned(), ports, password, shared });
            }
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| Error::invalid("no ports were tried")))
}

fn start(kind: Kind, folder: &Path, ports: Ports, password: &str) -> Result<()> {
    let process = Process::new(folder);
    if process.runs()? {
        return Ok(());
    }
    let user = ServerUser::choose(None)?;
    let command = match kind {
        Kind::RabbitMq => rabbitmq::command(folder, ports, password, &user)?,
        Kind::Nats => nats::command(folder, ports, password, &user)?,
    };
    process.start(command, ports.clients)
}

fn free_ports() -> Result<Ports> {
    let clients = port::free_from(FIRST_PORT + rand::random::<u16>() % 9_000)?;
    let names = port::free_from(clients + 1)?;
    Ok(Ports { clients, names, nodes: port::free_from(names + 1)? })
}

fn record(folder: &Path, ports: Ports, password: &str) -> Result<()> {
    let text = format!("{} {} {} {password}", ports.clients, ports.names, ports.nodes);
    files::replace(&folder.join("broker"), text.as_bytes(), 0o600, None)
}

fn recorded(folder: &Path) -> Result<Option<(Ports, String)>> {
    let Some(text) = files::read_optional(&folder.join("broker"))? else { return Ok(None) };
    let mut words = text.split(' ');
    let mut number = || words.next().and_then(|word| word.parse().ok());
    let (Some(clients), Some(names), Some(nodes)) = (number(), number(), number()) else { return Ok(None) };
    Ok(words.next().map(|password| (Ports { clients, names, nodes }, password.to_owned())))
}

fn base_dir() -> PathBuf {
    PathBuf::from(format!("/var/tmp/pgfleet-broker-{}", current_uid()))
}

fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(base_dir()).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Brokers whose test process is dead; the folder's name says which one that was.
fn remove_orphans() {
    for folder in folders() {
        let name = folder.file_name().and_then(|name| name.to_str());
        let pid = name.and_then(|name| name.split_once('-')?.0.parse::<u32>().ok());
        if pid.is_some_and(|pid| !is_alive(pid)) && Process::new(&folder).end(true).is_ok() {
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

/// Looks where `PATH` leads, and then where distributions keep what an ordinary user's `PATH` leaves out.
fn find(program: &str, first: &[&str], last: &[&str], package: &str) -> Result<PathBuf> {
    let path = crate::binaries::Search::from_env().path;
    let folders = first.iter().map(PathBuf::from).chain(path).chain(last.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|program| program.is_file()).ok_or_else(|| {
        Error::invalid(format!("{program} is not installed (Debian, Ubuntu: apt-get install {package})"))
    })
}
