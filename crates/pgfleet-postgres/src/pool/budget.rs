//! One budget of connections for all pools of a server.
//!
//! A server allows so many connections, whoever opens them. So the pools of a process do not each have a limit alone:
//! they share one budget, and who needs a connection takes a *slot* of it before connecting. What is idle in one pool
//! is closed when another one needs the slot; who waits longest with the least gets the next one.
//!
//! Opening a connection costs as much as dozens of requests, so not every wait is a need. A pool without a connection
//! is given what is idle at once, and the spare one of a pool with several. A pool that has one gets on with it: it is
//! given more when slots are free, what others have not used for a while, or when it has waited for long.
//!
//! A slot comes back when the server has seen the end of its connection, not when a client was dropped: the server
//! never holds more than the budget.
//!
//! This file is bookkeeping under one short lock. It opens and closes nothing: what is to be closed is handed out to
//! be dropped outside of the lock, and comes back through [`Slot`].

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::oneshot;

use super::stats::{BudgetStats, Histogram, PoolStats};

/// For how long a pool may go on handing its connections to its own waiters while another pool has none: opening a
/// connection costs milliseconds, so changing hands at every return would only heat the server.
const QUANTUM: Duration = Duration::from_millis(20);

/// How long something must have been idle, and waited for, before it changes hands so that a pool has more than one:
/// what a tenant leaves is for the next tenant.
const REST: Duration = Duration::from_millis(100);

/// By how much longer a pool must have waited than another one with as many connections to be given one of those:
/// what it has may be in use for long.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a pool holds: one connection, or several that belong together.
pub trait Resource: Send + 'static {
    /// Returns whether it is of no more use.
    fn is_closed(&self) -> bool;

    /// Returns how many slots it occupies.
    fn slots(&self) -> usize {
        1
    }

    /// Gives itself back to whoever knows what it is.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// What has to be dropped once the lock is free: dropping closes connections, which gives slots back.
type Garbage = Vec<Box<dyn Resource>>;

/// The connections that this process may hold on one server.
///
/// Cheap to clone: clones share the budget.
#[derive(Clone)]
pub struct Budget(pub(super) Arc<Shared>);

pub(super) struct Shared {
    name: String,
    state: Mutex<State>,
}

struct State {
    limit: usize,
    /// Slots taken: opening, in use, idle and closing.
    open: usize,
    /// Slots that are on their way back because somebody needs them.
    leaving: usize,
    pools: Slab<Entry>,
    /// The pools that have waiters.
    waiting: BTreeSet<usize>,
    /// The idle resources of all pools by when they were put back.
    parked: BTreeMap<u64, usize>,
    sequence: u64,
    most_open: usize,
    stolen: u64,
    waits: Histogram,
}

/// One pool.
struct Entry {
    options: Limits,
    open: usize,
    /// The one put back last is at the end.
    idle: VecDeque<Parked>,
    waiters: VecDeque<Waiter>,
    leases: Slab<Lease>,
    /// Whether its handle is gone; the entry stays until its slots are back.
    gone: bool,
    counts: PoolStats,
}

/// What a pool asks of the budget.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) name: String,
    pub(super) max: usize,
    pub(super) min: usize,
    pub(super) idle_timeout: Duration,
    pub(super) held_warning: Duration,
}

struct Parked {
    sequence: u64,
    since: Instant,
    resource: Box<dyn Resource>,
}

struct Waiter {
    number: u64,
    since: Instant,
    answer: oneshot::Sender<Grant>,
}

struct Lease {
    place: &'static Location<'static>,
    since: Instant,
    warned: bool,
}

/// What a waiter gets.
enum Grant {
    Resource(Box<dyn Resource>),
    Slot(Slot),
}

/// The right to have one connection open; dropping it gives it back.
///
/// Goes to the task that drives the connection and is dropped there at its very end.
pub struct Slot {
    /// None when there is nothing to give back.
    shared: Option<Arc<Shared>>,
    pool: usize,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let garbage = {
            let mut state = shared.lock();
            state.open -= 1;
            state.leaving = state.leaving.saturating_sub(1);
            if let Some(entry) = state.pools.get_mut(self.pool) {
                entry.open -= 1;
            }
            state.forget_pool(self.pool);
            state.dispatch(&shared)
        };
        drop(garbage);
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stats = self.stats();
        write!(f, "Budget({}: {} of {})", self.0.name, stats.open, stats.limit)
    }
}

impl Budget {
    /// Makes a budget of `limit` connections for a server; `name` is how messages call it.
    ///
    /// A limit of 0 is taken as 1: nothing could ever be done with none.
    pub fn new(name: impl Into<String>, limit: usize) -> Self {
        let state = State {
            limit: limit.max(1),
            open: 0,
            leaving: 0,
            pools: Slab::new(),
            waiting: BTreeSet::new(),
            parked: BTreeMap::new(),
            sequence: 0,
            most_open: 0,
            stolen: 0,
            waits: Histogram::default(),
        };
        Self(Arc::new(Shared { name: name.into(), state: Mutex::new(state) }))
    }

    /// Returns the server's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Changes the limit. What is open above it is closed as it becomes idle.
    pub fn set_limit(&self, limit: usize) {
        let garbage = {
            let mut state = self.0.lock();
            state.limit = limit.max(1);
            state.dispatch(&self.0)
        };
        drop(garbage);
    }

    /// Returns what is open, idle and waited for now, and the waits so far.
    pub fn stats(&self) -> BudgetStats {
        let state = self.0.lock();
        BudgetStats {
            name: self.0.name.clone(),
            limit: state.limit,
            open: state.open,
            idle: state.parked.len(),
            waiting: state.waiting.iter().map(|pool| state.pools[*pool].waiters.len()).sum(),
            pools: state.pools.iter().filter(|(_, entry)| entry.open > 0).count(),
            most_open: state.most_open,
            stolen: state.stolen,
            waits: state.waits.clone(),
        }
    }

    /// Returns the same for each pool that holds or awaits something, or ever did.
    pub fn pools(&self) -> Vec<PoolStats> {
        let state = self.0.lock();
        state.pools.iter().filter(|(_, entry)| !entry.gone).map(|(_, entry)| entry.stats()).collect()
    }

    pub(super) fn add(&self, options: Limits) -> Membership {
        let entry = Entry {
            counts: PoolStats { name: options.name.clone(), max: options.max, ..PoolStats::default() },
            options,
            open: 0,
            idle: VecDeque::new(),
            waiters: VecDeque::new(),
            leases: Slab::new(),
            gone: false,
        };
        let pool = self.0.lock().pools.insert(entry);
        Membership { shared: self.0.clone(), pool }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is left whole by everything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pool's place in its budget; dropping it closes what is idle.
pub(super) struct Membership {
    shared: Arc<Shared>,
    pool: usize,
}

/// How a request for a connection was met.
pub(super) enum Acquired {
    /// Something idle, and its lease.
    Ready(Box<dyn Resource>, usize),
    /// Permission to open.
    Open(Slot),
    /// Nothing yet.
    Wait(Wait),
}

impl Membership {
    /// Takes something idle, or permission to open, or a place in the queue.
    pub(super) fn acquire(&self, place: &'static Location<'static>) -> Acquired {
        let mut garbage = Garbage::new();
        let mut state = self.shared.lock();
        let acquired = state.acquire(&self.shared, self.pool, place, &mut garbage);
        drop(state);
        drop(garbage);
        acquired
    }

    /// Notes that what was opened or waited for is now in use.
    pub(super) fn lease(&self, place: &'static Location<'static>, opened: bool) -> usize {
        let mut state = self.shared.lock();
        let entry = &mut state.pools[self.pool];
        entry.counts.opened += u64::from(opened);
        entry.lease(place)
    }

    /// Puts something back, or ends the lease of what is gone.
    pub(super) fn put(&self, resource: Option<Box<dyn Resource>>, lease: usize) {
        let garbage = {
            let mut state = self.shared.lock();
            state.end_lease(self.pool, lease);
            match resource {
                Some(resource) => state.put(&self.shared, self.pool, resource),
                None => Garbage::new(),
            }
        };
        drop(garbage);
    }

    /// Puts something in that was opened without being asked for.
    pub(super) fn park(&self, resource: Box<dyn Resource>) {
        let garbage = {
            let mut state = self.shared.lock();
            state.pools[self.pool].counts.opened += 1;
            state.put(&self.shared, self.pool, resource)
        };
        drop(garbage);
    }

    /// Takes up to `most` slots more when they are free and nobody waits for one.
    pub(super) fn more(&self, most: usize) -> Vec<Slot> {
        let mut state = self.shared.lock();
        let mut slots = Vec::new();
        while slots.len() < most && state.open < state.limit && state.waiting.is_empty() {
            let entry = &state.pools[self.pool];
            if entry.open >= entry.options.max {
                break;
            }
            slots.push(state.take_slot(&self.shared, self.pool));
        }
        slots
    }

    /// Closes what is idle.
    pub(super) fn flush(&self) {
        let garbage = self.shared.lock().take_idle(self.pool);
        drop(garbage);
    }

    /// Counts a request that was given up after its time-out.
    pub(super) fn count_timeout(&self) {
        self.shared.lock().pools[self.pool].counts.timeouts += 1;
    }

    pub(super) fn stats(&self) -> PoolStats {
        self.shared.lock().pools[self.pool].stats()
    }

    /// Says in words why there is nothing: for the error of who waited too long.
    pub(super) fn describe(&self) -> String {
        let state = self.shared.lock();
        let entry = &state.pools[self.pool];
        let mut text = format!("{} of this pool's {} are open", entry.open, entry.options.max);
        if let Some((_, lease)) = entry.leases.iter().min_by_key(|(_, lease)| lease.since) {
            let held = lease.since.elapsed().as_secs_f64();
            text.push_str(&format!(", the longest in use for {held:.1} s, taken at {}", lease.place));
        }
        let waiting: usize = state.waiting.iter().map(|pool| state.pools[*pool].waiters.len()).sum();
        text.push_str(&format!("; {} of the server's {} are open in all, {waiting} waiting", state.open, state.limit));
        text
    }

    /// Closes what was idle for long, names what is held for long, and says how many connections to open for the
    /// minimum: with a slot for each.
    pub(super) fn tend(&self, now: Instant) -> (Vec<Held>, Vec<Slot>) {
        let mut garbage = Garbage::new();
        let mut overdue = Vec::new();
        let mut slots = Vec::new();
        let mut state = self.shared.lock();
        state.close_idle(self.pool, now, &mut garbage);
        let entry = &mut state.pools[self.pool];
        for (_, lease) in &mut entry.leases {
            let held = now.saturating_duration_since(lease.since);
            if !lease.warned && held >= entry.options.held_warning {
                lease.warned = true;
                overdue.push(Held { place: lease.place, held });
            }
        }
        let missing = entry.options.min.min(entry.options.max).saturating_sub(entry.open);
        for _ in 0..missing {
            // Keeping connections ready is not worth a slot that somebody needs.
            if state.open >= state.limit || !state.waiting.is_empty() {
                break;
            }
            slots.push(state.take_slot(&self.shared, self.pool));
        }
        drop(state);
        drop(garbage);
        (overdue, slots)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let garbage = {
            let mut state = self.shared.lock();
            let entry = &mut state.pools[self.pool];
            entry.gone = true;
            // Whoever waits sees the channel closed.
            entry.waiters.clear();
            state.waiting.remove(&self.pool);
            let garbage = state.take_idle(self.pool);
            state.forget_pool(self.pool);
            garbage
        };
        drop(garbage);
    }
}

/// Something that is held for long.
pub(super) struct Held {
    pub(super) place: &'static Location<'static>,
    pub(super) held: Duration,
}

/// A place in the queue. Dropping it gives the place up, and what had come for it goes to the next.
pub(super) struct Wait {
    shared: Arc<Shared>,
    pool: usize,
    number: u64,
    since: Instant,
    answer: oneshot::Receiver<Grant>,
    answered: bool,
}

/// What a wait ended with.
pub(super) enum Answer {
    Resource(Box<dyn Resource>),
    Slot(Slot),
    /// The pool was closed.
    Closed,
}

impl Wait {
    /// Waits for its turn. Cancel safe.
    pub(super) async fn turn(&mut self) -> Answer {
        // What may change hands depends on time, too, and nothing else may happen until then.
        let answer = loop {
            if let Ok(answer) = tokio::time::timeout(REST, &mut self.answer).await {
                break answer;
            }
            let garbage = self.shared.lock().dispatch(&self.shared);
            drop(garbage);
        };
        self.answered = true;
        {
            let waited = self.since.elapsed();
            let mut state = self.shared.lock();
            state.waits.record(waited);
            if let Some(entry) = state.pools.get_mut(self.pool) {
                entry.counts.waits += 1;
                entry.counts.wait_time += waited;
            }
        }
        match answer {
            Ok(Grant::Resource(resource)) => Answer::Resource(resource),
            Ok(Grant::Slot(slot)) => Answer::Slot(slot),
            Err(_) => Answer::Closed,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        self.answer.close();
        let granted = self.answer.try_recv().ok();
        let garbage = {
            let mut state = self.shared.lock();
            let waited = self.since.elapsed();
            state.waits.record(waited);
            if let Some(entry) = state.pools.get_mut(self.pool) {
                entry.counts.waits += 1;
                entry.counts.wait_time += waited;
                entry.waiters.retain(|waiter| waiter.number != self.number);
                if entry.waiters.is_empty() {
                    state.waiting.remove(&self.pool);
                }
            }
            match granted {
                Some(Grant::Resource(resource)) => state.put(&self.shared, self.pool, resource),
                // Given back below, when the lock is free.
                Some(Grant::Slot(slot)) => {
                    drop(state);
                    drop(slot);
                    Garbage::new()
                }
                None => Garbage::new(),
            }
        };
        drop(garbage);
    }
}

impl Entry {
    fn lease(&mut self, place: &'static Location<'static>) -> usize {
        self.counts.taken += 1;
        self.leases.insert(Lease { place, since: Instant::now(), warned: false })
    }

    /// Whether a free slot would help one of its waiters.
    fn is_hungry(&self) -> bool {
        self.open < self.options.max && !self.waiters.is_empty()
    }

    fn stats(&self) -> PoolStats {
        PoolStats {
            open: self.open,
            idle: self.idle.len(),
            in_use: self.leases.len(),
            waiting: self.waiters.len(),
            ..self.counts.clone()
        }
    }
}

impl State {
    fn acquire(
        &mut self,
        shared: &Arc<Shared>,
        pool: usize,
        place: &'static Location<'static>,
        garbage: &mut Garbage,
    ) -> Acquired {
        let entry = &mut self.pools[pool];
        if entry.waiters.is_empty() {
            while let Some(parked) = entry.idle.pop_back() {
                self.parked.remove(&parked.sequence);
                if parked.resource.is_closed() {
                    garbage.push(parked.resource);
                    continue;
                }
                let lease = entry.lease(place);
                return Acquired::Ready(parked.resource, lease);
            }
            if entry.open < entry.options.max && self.open < self.limit {
                return Acquired::Open(self.take_slot(shared, pool));
            }
        }
        let (answer, receiver) = oneshot::channel();
        let since = Instant::now();
        self.sequence += 1;
        let number = self.sequence;
        self.pools[pool].waiters.push_back(Waiter { number, since, answer });
        self.waiting.insert(pool);
        garbage.extend(self.dispatch(shared));
        Acquired::Wait(Wait { shared: shared.clone(), pool, number, since, answer: receiver, answered: false })
    }

    fn take_slot(&mut self, shared: &Arc<Shared>, pool: usize) -> Slot {
        self.open += 1;
        self.most_open = self.most_open.max(self.open);
        self.pools[pool].open += 1;
        Slot { shared: Some(shared.clone()), pool }
    }

    fn end_lease(&mut self, pool: usize, lease: usize) {
        if let Some(entry) = self.pools.get_mut(pool)
            && let Some(lease) = entry.leases.try_remove(lease)
        {
            entry.counts.held_time += lease.since.elapsed();
        }
    }

    /// Gives what comes back to who waits for it, or keeps it; returns what has to be closed.
    fn put(&mut self, shared: &Arc<Shared>, pool: usize, resource: Box<dyn Resource>) -> Garbage {
        if resource.is_closed() || self.open > self.limit || self.pools[pool].gone {
            return vec![resource];
        }
        let entry = &self.pools[pool];
        let has_spare = |open: usize| open + 1 < entry.open;
        // As if somebody had come just now.
        let own = entry.waiters.front().map_or_else(Instant::now, |waiter| waiter.since);
        if let Some((open, since)) = self.neediest_but(pool) {
            let takes = match own.saturating_duration_since(since) {
                longer if open == 0 => has_spare(open) || entry.waiters.is_empty() || longer > QUANTUM,
                longer => has_spare(open) && longer > QUANTUM || open <= entry.open && longer > PATIENCE,
            };
            let (starving, entitled) = self.claims(Instant::now());
            if takes && self.leaving < if open == 0 { starving } else { entitled } {
                self.leaving += resource.slots();
                self.stolen += 1;
                return vec![resource];
            }
        }
        let mut resource = resource;
        while let Some(waiter) = self.pop_waiter(pool) {
            match waiter.answer.send(Grant::Resource(resource)) {
                Ok(()) => return Garbage::new(),
                Err(Grant::Resource(back)) => resource = back,
                Err(Grant::Slot(_)) => unreachable!("a resource was sent"),
            }
        }
        // Nothing is kept in a pool that keeps nothing.
        if self.pools[pool].options.idle_timeout.is_zero() {
            return vec![resource];
        }
        self.sequence += 1;
        let sequence = self.sequence;
        self.parked.insert(sequence, pool);
        self.pools[pool].idle.push_back(Parked { sequence, since: Instant::now(), resource });
        self.dispatch(shared)
    }

    /// Gives free slots to who waits, and takes idle connections away for the others.
    fn dispatch(&mut self, shared: &Arc<Shared>) -> Garbage {
        while self.open < self.limit {
            let Some(pool) = self.neediest() else { break };
            let Some(waiter) = self.pop_waiter(pool) else { continue };
            if waiter.answer.is_closed() {
                continue;
            }
            let slot = self.take_slot(shared, pool);
            if let Err(Grant::Slot(slot)) = waiter.answer.send(Grant::Slot(slot)) {
                // It gave up in this moment. The lock is held, so the slot is unmade by hand.
                self.open -= 1;
                self.pools[pool].open -= 1;
                slot.unmake();
            }
        }
        let mut garbage = Garbage::new();
        let now = Instant::now();
        let (starving, entitled) = self.claims(now);
        while self.leaving < entitled {
            let Some((_, pool)) = self.parked.first_key_value() else { break };
            // The oldest of a pool is at the front.
            let idle = &mut self.pools[*pool].idle;
            let rested = |parked: &Parked| now.saturating_duration_since(parked.since) >= REST;
            if self.leaving >= starving && !idle.front().is_some_and(rested) {
                break;
            }
            let Some(parked) = idle.pop_front() else { break };
            self.parked.pop_first();
            self.leaving += parked.resource.slots();
            self.stolen += 1;
            garbage.push(parked.resource);
        }
        garbage
    }

    fn pop_waiter(&mut self, pool: usize) -> Option<Waiter> {
        let waiters = &mut self.pools[pool].waiters;
        let waiter = waiters.pop_front();
        if waiters.is_empty() {
            self.waiting.remove(&pool);
        }
        waiter
    }

    /// How many idle connections may be closed for who waits: for pools that have none, and in all.
    fn claims(&self, now: Instant) -> (usize, usize) {
        let mut claims = (0, 0);
        for pool in &self.waiting {
            let entry = &self.pools[*pool];
            let Some(first) = entry.waiters.front() else { continue };
            let starving = usize::from(entry.open == 0);
            let entitled = if now.saturating_duration_since(first.since) >= REST {
                entry.waiters.len().min(entry.options.max.saturating_sub(entry.open))
            } else {
                starving
            };
            claims = (claims.0 + starving, claims.1 + entitled);
        }
        claims
    }

    /// The pool that has least and waits longest.
    fn neediest(&self) -> Option<usize> {
        let hungry = self.waiting.iter().copied().filter(|pool| self.pools[*pool].is_hungry());
        hungry.min_by_key(|pool| self.need(*pool))
    }

    fn neediest_but(&self, but: usize) -> Option<(usize, Instant)> {
        let hungry = self.waiting.iter().copied().filter(|pool| *pool != but && self.pools[*pool].is_hungry());
        hungry.filter_map(|pool| self.need(pool)).min()
    }

    fn need(&self, pool: usize) -> Option<(usize, Instant)> {
        let entry = &self.pools[pool];
        entry.waiters.front().map(|waiter| (entry.open, waiter.since))
    }

    /// Closes what was idle for longer than its pool allows, down to the minimum.
    fn close_idle(&mut self, pool: usize, now: Instant, garbage: &mut Garbage) {
        let entry = &mut self.pools[pool];
        let mut open = entry.open;
        while let Some(parked) = entry.idle.front() {
            let expired = now.saturating_duration_since(parked.since) >= entry.options.idle_timeout;
            if !parked.resource.is_closed() && (!expired || open <= entry.options.min) {
                break;
            }
            open = open.saturating_sub(parked.resource.slots());
            self.parked.remove(&parked.sequence);
            garbage.extend(entry.idle.pop_front().map(|parked| parked.resource));
        }
    }

    fn take_idle(&mut self, pool: usize) -> Garbage {
        let idle: Vec<Parked> = self.pools[pool].idle.drain(..).collect();
        let mut garbage = Garbage::new();
        for parked in idle {
            self.parked.remove(&parked.sequence);
            garbage.push(parked.resource);
        }
        garbage
    }

    fn forget_pool(&mut self, pool: usize) {
        if self.pools.get(pool).is_some_and(|entry| entry.gone && entry.open == 0) {
            self.pools.remove(pool);
        }
    }
}

impl Slot {
    /// Ends without giving anything back, for whoever holds the lock and has done that.
    fn unmake(mut self) {
        self.shared = None;
    }
}
