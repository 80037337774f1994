//! A database per test, and a transport that a test can have fail.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use pgfleet_events::{
    Answer, Delivered, Error, ErrorKind, Message, NewMessage, Published, Subscriber, Subscription, Transport,
};
use pgfleet_events_postgres::{Outbox, Relay, RelayOptions, module};
use pgfleet_local::testing::{TestDatabase, TestServer};
use pgfleet_migrate::{Event, Observer, Options, SetPath, Target, run};
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
use pgfleet_postgres::{Address, Connection, Purpose, connect};
use tokio::sync::Notify;

struct Quiet;

impl Observer for Quiet {
    fn event(&self, _target: &str, _event: &Event) {}
}

/// A service's database with outbox and inbox, and a pool.
pub(crate) struct Bench {
    pub(crate) database: TestDatabase,
    pub(crate) pool: Pool,
    pub(crate) outbox: Outbox,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::on(&TestServer::shared().await).await
    }

    pub(crate) async fn new_on(major: u32) -> Self {
        Self::on(&TestServer::shared_version(major).await).await
    }

    async fn on(server: &TestServer) -> Self {
        let database = server.database().await;
        migrate(&database.url()).await;
        let pool = pool(&database.url());
        Self { pool, outbox: Outbox::new("public", "trip"), database }
    }

    pub(crate) async fn publish(&self, message: NewMessage) {
        let mut tx = self.pool.begin().await.unwrap();
        self.outbox.publish(&mut tx, message).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) fn relay(&self, transport: &Scripted) -> Running {
        self.relay_with(transport, options())
    }

    pub(crate) fn relay_with(&self, transport: &Scripted, options: RelayOptions) -> Running {
        let relay = Relay::new(self.outbox.clone(), &self.pool, Arc::new(transport.clone()), options);
        Running::start(relay)
    }

    pub(crate) async fn sql(&self, sql: &str) -> Vec<String> {
        column(&self.connect().await, sql).await
    }

    pub(crate) async fn connect(&self) -> Connection {
        connect(&Address::parse(&self.database.url()).unwrap(), &Purpose::new("test")).await.unwrap()
    }
}

pub(crate) async fn column(connection: &Connection, sql: &str) -> Vec<String> {
    let rows = connection.simple(sql).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
}

pub(crate) async fn migrate(url: &str) {
    let mut target = Target::new("trip", Address::parse(url).unwrap());
    target.schema = Some("public".to_owned());
    for set in [module::outbox().unwrap(), module::inbox().unwrap()] {
        let path: SetPath = set.into();
        run::migrate(&target, &path, &Options::default(), &Quiet).await.unwrap();
    }
}

pub(crate) fn pool(url: &str) -> Pool {
    pool_for(url, Purpose::new("test"))
}

pub(crate) fn durable_pool(url: &str) -> Pool {
    pool_for(url, Purpose::new("test").setting("synchronous_commit", "on"))
}

fn pool_for(url: &str, purpose: Purpose) -> Pool {
    let budget = Budget::new("test", 20);
    let options = PoolOptions { min: 0, ..PoolOptions::default() };
    Pool::new(&budget, Address::parse(url).unwrap(), purpose, options)
}

/// What tests run a relay with: quick to look, to take over and to try again.
pub(crate) fn options() -> RelayOptions {
    RelayOptions {
        poll: Duration::from_millis(20),
        lease: Duration::from_millis(600),
        backoff: (Duration::from_millis(10), Duration::from_millis(50)),
        ..RelayOptions::default()
    }
}

/// A relay that runs until it is dropped, as if its process were killed.
pub(crate) struct Running {
    pub(crate) relay: Relay,
    task: tokio::task::JoinHandle<()>,
    stop: Arc<Notify>,
}

impl Running {
    pub(crate) fn start(relay: Relay) -> Self {
        let stop = Arc::new(Notify::new());
        let (running, stopped) = (relay.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move { running.run(stopped.notified()).await });
        Self { relay, task, stop }
    }

    pub(crate) async fn stop(mut self) {
        self.stop.notify_one();
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Script = dyn Fn(&Message, u32) -> Result<(), ErrorKind> + Send + Sync;

/// A transport in memory, with groups, order per key, and answers that a test decides.
#[derive(Clone, Default)]
pub(crate) struct Scripted(Arc<State>);

#[derive(Default)]
struct State {
    log: Mutex<Vec<Message>>,
    tries: Mutex<HashMap<uuid::Uuid, u32>>,
    script: OnceLock<Box<Script>>,
    groups: Mutex<HashMap<Arc<str>, Group>>,
    arrived: Notify,
    /// Answers are held back while it is locked.
    pub(crate) gate: tokio::sync::RwLock<()>,
}

#[derive(Default)]
struct Group {
    waiting: VecDeque<(Message, u32, Instant)>,
    out: Vec<(Message, u32, u64)>,
    next: u64,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

impl Scripted {
    /// A transport that answers as the closure says, given a message and which try it is.
    pub(crate) fn answering(script: impl Fn(&Message, u32) -> Result<(), ErrorKind> + Send + Sync + 'static) -> Self {
        let this = Self::default();
        assert!(this.0.script.set(Box::new(script)).is_ok());
        this
    }

    /// What it took, as data, in order.
    pub(crate) fn data(&self) -> Vec<String> {
        self.0.log.lock().unwrap().iter().map(|message| message.data.to_string()).collect()
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.0.log.lock().unwrap().clone()
    }

    pub(crate) fn gate(&self) -> &tokio::sync::RwLock<()> {
        &self.0.gate
    }

    pub(crate) async fn wait_for(&self, count: usize) {
        until(&format!("{count} messages have arrived"), async || self.0.log.lock().unwrap().len() >= count).await;
    }
}

impl Transport for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn publish<'a>(&'a self, messages: &'a [Message]) -> Answer<'a, Vec<Published>> {
        Box::pin(async move {
            let mut failed = std::collections::HashSet::new();
            let mut answers = Vec::new();
            for message in messages {
                let attempt = {
                    let mut tries = self.0.tries.lock().unwrap();
                    let tries = tries.entry(message.id).or_insert(0);
                    *tries += 1;
                    *tries
                };
                let verdict = self.0.script.get().map_or(Ok(()), |script| script(message, attempt));
                if message.key.as_ref().is_some_and(|key| failed.contains(key)) {
                    answers.push(Err(Error::new(ErrorKind::Failed, "an earlier one of its key failed")));
                    continue;
                }
                match verdict {
                    Ok(()) => {
                        self.0.log.lock().unwrap().push(message.clone());
                        for group in self.0.groups.lock().unwrap().values_mut() {
                            group.waiting.push_back((message.clone(), 1, Instant::now()));
                        }
                        answers.push(Ok(()));
                    }
                    Err(kind) => {
                        failed.extend(message.key.clone());
                        answers.push(Err(Error::new(kind, "refused by the test")));
                    }
                }
            }
            self.0.arrived.notify_waiters();
            let _open = self.0.gate.read().await;
            Ok(answers)
        })
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<'_, Box<dyn Subscriber>> {
        Box::pin(async move {
            self.0.groups.lock().unwrap().entry(subscription.group.clone()).or_default();
            let member: Box<dyn Subscriber> =
                Box::new(Member { transport: self.clone(), group: subscription.group, mine: Vec::new() });
            Ok(member)
        })
    }

    fn unsubscribe<'a>(&'a self, group: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.0.groups.lock().unwrap().remove(group);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct Member {
    transport: Scripted,
    group: Arc<str>,
    mine: Vec<u64>,
}

impl Member {
    fn on<T>(&mut self, work: impl FnOnce(&mut Group, &mut Vec<u64>) -> T) -> T {
        let mut groups = self.transport.0.groups.lock().unwrap();
        work(groups.get_mut(&self.group).unwrap(), &mut self.mine)
    }

    fn take(&mut self, max: usize) -> Vec<Delivered> {
        self.on(|group, mine| {
            let mut taken = Vec::new();
            let mut blocked: std::collections::HashSet<_> =
                group.out.iter().filter_map(|(message, ..)| message.key.clone()).collect();
            let mine_now: std::collections::HashSet<_> = mine.iter().copied().collect();
            blocked
                .retain(|key| !group.out.iter().any(|(m, _, id)| mine_now.contains(id) && m.key.as_ref() == Some(key)));
            let mut at = 0;
            while at < group.waiting.len() && taken.len() < max {
                let (message, attempt, ready) = &group.waiting[at];
                let key = message.key.clone();
                if *ready > Instant::now() || key.as_ref().is_some_and(|key| blocked.contains(key)) {
                    blocked.extend(key);
                    at += 1;
                    continue;
                }
                let attempt = *attempt;
                let (message, ..) = group.waiting.remove(at).unwrap();
                group.next += 1;
                let receipt = group.next;
                mine.push(receipt);
                group.out.push((message.clone(), attempt, receipt));
                taken.push(Delivered { message, attempt, receipt: receipt.to_string().into() });
            }
            taken
        })
    }

    fn back(group: &mut Group, receipt: u64, delay: Duration) {
        if let Some(at) = group.out.iter().position(|(.., id)| *id == receipt) {
            let (message, attempt, _) = group.out.remove(at);
            group.waiting.push_front((message, attempt + 1, Instant::now() + delay));
        }
    }
}

impl Subscriber for Member {
    fn receive(&mut self, max: usize, most: Duration) -> Answer<'_, Vec<Delivered>> {
        Box::pin(async move {
            let deadline = Instant::now() + most;
            loop {
                let taken = self.take(max);
                let left = deadline.saturating_duration_since(Instant::now());
                if !taken.is_empty() || left.is_zero() {
                    return Ok(taken);
                }
                let transport = self.transport.clone();
                let _woken =
                    tokio::time::timeout(left.min(Duration::from_millis(5)), transport.0.arrived.notified()).await;
            }
        })
    }

    fn acknowledge<'a>(&'a mut self, delivered: &'a [Delivered]) -> Answer<'a, ()> {
        Box::pin(async move {
            let done: Vec<u64> = delivered.iter().map(|one| one.receipt.parse().unwrap()).collect();
            self.on(|group, mine| {
                group.out.retain(|(.., id)| !done.contains(id));
                mine.retain(|id| !done.contains(id));
            });
            Ok(())
        })
    }

    fn give_back<'a>(&'a mut self, delivered: &'a Delivered, delay: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let receipt = delivered.receipt.parse().unwrap();
            self.on(|group, mine| {
                Self::back(group, receipt, delay);
                mine.retain(|id| *id != receipt);
            });
            Ok(())
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mine = std::mem::take(&mut self.mine);
        let mut groups = self.transport.0.groups.lock().unwrap();
        if let Some(group) = groups.get_mut(&self.group) {
            for receipt in mine.into_iter().rev() {
                Self::back(group, receipt, Duration::ZERO);
            }
        }
    }
}

/// A message whose data is a number.
pub(crate) fn numbered(n: usize) -> NewMessage {
    NewMessage::of("Counted", &n).unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
