//! The relays of a process: one for the service's own database, and one for each tenant's in which something is published.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgfleet_events::Transport;
use pgfleet_events_postgres::{Outbox, Relay, RelayOptions};
use pgfleet_postgres::pool::Pool;
use pgfleet_route::{Place, Router};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Scope;

/// How soon after a statement its commit is looked for, and how long: doubled each time.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(512);

/// For how long the relay of a tenant's database stays when nothing is published there.
const LINGER: Duration = Duration::from_mins(5);

/// How often the next tenant's database is looked at for what a process left behind that is gone.
const ROUND: Duration = Duration::from_secs(2);

/// Carries messages of all databases of a service.
#[derive(Debug)]
pub(super) struct Relays {
    pub(super) schema: String,
    pub(super) service: String,
    pub(super) router: Router,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) options: RelayOptions,
    pub(super) stop: watch::Receiver<bool>,
    running: Mutex<HashMap<Arc<str>, Running>>,
}

/// A relay that runs, for a place.
#[derive(Debug)]
struct Running {
    outbox: Outbox,
    relay: Relay,
    /// Somebody published and has not committed yet, as far as is known.
    expected: Arc<Notify>,
    last: Arc<Mutex<Instant>>,
    tasks: [JoinHandle<()>; 2],
}

impl Relays {
    pub(super) fn new(
        schema: String,
        service: String,
        router: Router,
        transport: Arc<dyn Transport>,
        options: RelayOptions,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { schema, service, router, transport, options, stop, running: Mutex::default() }
    }

    /// Begins the relay of a scope's database, should there be none.
    pub(super) fn begin(self: &Arc<Self>, scope: &Scope) {
        self.with(scope, |_| {});
    }

    /// Has the relay of a scope's database look around until the transaction that published there is committed.
    ///
    /// For transactions of the client libraries: nobody tells when that is. A look is a cheap question, and
    /// there are ten of them within a second at most, for all that is published meanwhile.
    pub(super) fn expect_commit(self: &Arc<Self>, scope: &Scope) {
        self.with(scope, |running| running.expected.notify_one());
    }

    pub(super) fn wake(self: &Arc<Self>, scope: &Scope) {
        self.with(scope, |running| running.outbox.wake());
    }

    fn with(self: &Arc<Self>, scope: &Scope, work: impl FnOnce(&Running)) {
        // Who could publish there could resolve it.
        let Ok(place) = scope.clone().run_sync(|| self.router.resolve(None)) else { return };
        self.at(&place, work);
    }

    /// Does something with the relay of a place, which is begun when there is none.
    fn at(self: &Arc<Self>, place: &Arc<Place>, work: impl FnOnce(&Running)) {
        if *self.stop.borrow() {
            return;
        }
        let name: Arc<str> = place.address().to_string().into();
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = all.entry(name.clone()).or_insert_with(|| self.start(name, place));
        *running.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        work(running);
    }

    /// Begins to carry what is published in the service's own database.
    pub(super) fn begin_main(self: &Arc<Self>) {
        self.begin(&Scope::host());
    }

    fn start(self: &Arc<Self>, name: Arc<str>, place: &Arc<Place>) -> Running {
        let outbox = Outbox::new(&self.schema, self.service.as_str());
        let relay = Relay::new(outbox.clone(), place.pool(), self.transport.clone(), self.options.clone());
        let expected = Arc::new(Notify::new());
        let last = Arc::new(Mutex::new(Instant::now()));
        let is_main = Arc::ptr_eq(place, &self.main());
        let carrying = {
            let (this, relay, last, mut stop) = (self.clone(), relay.clone(), last.clone(), self.stop.clone());
            tokio::spawn(async move {
                let idle = async {
                    if is_main {
                        pending::<()>().await;
                    }
                    lingered(&relay, &last).await;
                };
                let stopped = async {
                    // An error is the service that is gone.
                    let _gone = stop.wait_for(|stop| *stop).await;
                };
                relay
                    .run(async {
                        tokio::select! {
                            () = idle => {}
                            () = stopped => {}
                        }
                    })
                    .await;
                this.end(&name);
            })
        };
        let looking = {
            let (outbox, expected, relay) = (outbox.clone(), expected.clone(), relay.clone());
            tokio::spawn(async move {
                loop {
                    expected.notified().await;
                    look_for(&outbox, &relay).await;
                }
            })
        };
        Running { outbox, relay, expected, last, tasks: [carrying, looking] }
    }

    fn main(&self) -> Arc<Place> {
        // The host's place is there without asking anybody.
        Scope::host().run_sync(|| self.router.resolve(None)).unwrap_or_else(|_| unreachable!("the host has a database"))
    }

    /// Forgets a relay that has ended.
    fn end(&self, name: &str) {
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = all.remove(name) {
            running.tasks[1].abort();
        }
    }

    /// Looks at one tenant's database after the other, and begins a relay where something lies.
    pub(super) async fn go_round(self: Arc<Self>) {
        let outbox = Outbox::new(&self.schema, self.service.as_str());
        let mut stop = self.stop.clone();
        loop {
            let places = self.router.elsewhere();
            for (_, place) in &places {
                if self.pause(&mut stop, ROUND).await {
                    return;
                }
                // What cannot be looked at now is looked at in the next round.
                if self.has_left_over(&outbox, place.pool()).await {
                    self.at(place, |running| running.outbox.wake());
                }
            }
            if places.is_empty() && self.pause(&mut stop, ROUND).await {
                return;
            }
        }
    }

    async fn has_left_over(&self, outbox: &Outbox, pool: &Pool) -> bool {
        match outbox.status(pool).await {
            Ok(status) => status.has_work(),
            Err(error) => {
                tracing::debug!(target: "pgfleet::outbox", %error, database = pool.address().database(), "not looked at");
                false
            }
        }
    }

    /// Waits; says whether it is time to end.
    async fn pause(&self, stop: &mut watch::Receiver<bool>, pause: Duration) -> bool {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => true,
            () = tokio::time::sleep(pause) => false,
        }
    }

    /// Waits until all relays have ended, which they do when told to stop.
    pub(super) async fn ended(&self) {
        let running: Vec<Running> = {
            let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            all.drain().map(|(_, running)| running).collect()
        };
        for Running { tasks: [carrying, looking], .. } in running {
            looking.abort();
            // One that panicked has said so.
            let _ended = carrying.await;
        }
    }

    /// What all relays have done, by database.
    pub(super) fn stats(&self) -> Vec<(Arc<str>, pgfleet_events_postgres::outbox::RelayStats)> {
        let all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stats: Vec<_> = all.iter().map(|(name, running)| (name.clone(), running.relay.stats())).collect();
        stats.sort_by(|a, b| a.0.cmp(&b.0));
        stats
    }
}

/// Has the relay look, again and again with longer pauses, until it has carried something or a second is over.
async fn look_for(outbox: &Outbox, relay: &Relay) {
    let before = relay.stats().sent;
    let mut pause = FIRST_LOOK;
    while pause <= LAST_LOOK {
        tokio::time::sleep(pause).await;
        outbox.wake();
        if relay.stats().sent > before {
            return;
        }
        pause *= 2;
    }
}

/// Waits until nothing was published, nor carried, for a while.
async fn lingered(relay: &Relay, last: &Mutex<Instant>) {
    let mut sent = relay.stats().sent;
    loop {
        let until = *last.lock().unwrap_or_else(PoisonError::into_inner) + LINGER;
        tokio::time::sleep_until(until).await;
        let now = relay.stats().sent;
        if *last.lock().unwrap_or_else(PoisonError::into_inner) + LINGER <= Instant::now() {
            if now == sent {
                return;
            }
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        sent = now;
    }
}
