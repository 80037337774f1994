//! Another client library's pool under the same budget.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::budget::{Acquired, Answer, Budget, Membership, Resource, Slot};
use super::options::PoolOptions;
use crate::{Error, ErrorKind};

/// How often an idle one is looked at.
const TEND: Duration = Duration::from_secs(1);

/// A pool of another client library.
pub trait Foreign: Clone + Send + Sync + 'static {
    /// Closes all its connections; returns when the server was told.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// The place of another client library's pool in a budget.
///
/// That library opens its connections itself, so it gets slots first: one at least, up to the options' `max` when they
/// are free, and is made with that many. They are its own until nobody uses it and it is idle or its slots are needed
/// elsewhere; then it is closed, and made anew for the next who asks.
#[derive(Clone)]
pub struct ForeignPool<T: Foreign>(Arc<Inner<T>>);

struct Inner<T: Foreign> {
    membership: Membership,
    options: PoolOptions,
    name: String,
    current: Mutex<Option<Current<T>>>,
    /// Held while one is made.
    making: tokio::sync::Mutex<()>,
}

/// The pool that is in use, and by how many.
struct Current<T: Foreign> {
    held: Box<Held<T>>,
    users: usize,
    lease: usize,
}

/// A pool with its slots.
struct Held<T: Foreign> {
    pool: Option<T>,
    slots: Vec<Slot>,
}

impl<T: Foreign> Resource for Held<T> {
    fn is_closed(&self) -> bool {
        self.pool.is_none()
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl<T: Foreign> Drop for Held<T> {
    fn drop(&mut self) {
        let slots = std::mem::take(&mut self.slots);
        if let (Some(pool), Ok(runtime)) = (self.pool.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                pool.close().await;
                drop(slots);
            });
        }
    }
}

impl<T: Foreign> fmt::Debug for ForeignPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ForeignPool").field(&self.0.membership.stats()).finish()
    }
}

impl<T: Foreign> ForeignPool<T> {
    /// Makes a place in the budget; takes no slot yet.
    pub fn new(budget: &Budget, name: impl Into<String>, options: PoolOptions) -> Self {
        let name = name.into();
        let membership = budget.add(PoolOptions { min: 0, ..options.clone() }.limits(&name));
        let making = tokio::sync::Mutex::new(());
        Self(Arc::new(Inner { membership, options, name, current: Mutex::new(None), making }))
    }

    /// Lends the pool; `make` makes one of so many connections when there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exhausted`] when no slot came free within `connect_timeout`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives its place in the queue to the next.
    #[track_caller]
    pub fn get<'a, F>(&'a self, make: F) -> impl Future<Output = Result<Lent<T>, Error>> + Send + use<'a, T, F>
    where
        F: FnOnce(u32) -> T + Send + 'a,
    {
        let place = Location::caller();
        async move {
            if let Some(lent) = self.lent() {
                return Ok(lent);
            }
            let limit = self.0.options.connect_timeout;
            match tokio::time::timeout(limit, self.make(make, place)).await {
                Ok(lent) => lent,
                Err(_) => Err(self.exhausted()),
            }
        }
    }

    /// Lends the one that is in use; none when nobody uses one.
    pub fn lent(&self) -> Option<Lent<T>> {
        let mut current = self.current();
        let current = current.as_mut()?;
        current.users += 1;
        Some(Lent { pool: current.held.pool.clone()?, of: self.clone() })
    }

    async fn make(&self, make: impl FnOnce(u32) -> T, place: &'static Location<'static>) -> Result<Lent<T>, Error> {
        let _one = self.0.making.lock().await;
        if let Some(lent) = self.lent() {
            return Ok(lent);
        }
        let membership = &self.0.membership;
        let found = match membership.acquire(place) {
            Acquired::Ready(resource, lease) => Ok((resource, lease)),
            Acquired::Open(slot) => Err(slot),
            Acquired::Wait(mut wait) => match wait.turn().await {
                Answer::Resource(resource) => Ok((resource, membership.lease(place, false))),
                Answer::Slot(slot) => Err(slot),
                Answer::Closed => return Err(self.exhausted()),
            },
        };
        let (held, lease) = match found {
            Ok((resource, lease)) => match resource.into_any().downcast::<Held<T>>() {
                Ok(held) => (held, lease),
                Err(_) => unreachable!("a pool of this kind holds itself"),
            },
            Err(slot) => {
                let mut slots = vec![slot];
                slots.extend(membership.more(self.0.options.max.saturating_sub(1)));
                let pool = make(u32::try_from(slots.len()).unwrap_or(u32::MAX));
                let held = Box::new(Held { pool: Some(pool), slots });
                let weak = Arc::downgrade(&self.0);
                tokio::spawn(async move {
                    while let Some(inner) = weak.upgrade() {
                        // Warnings of long use are for connections; a pool may be lent for ever.
                        let _ = inner.membership.tend(Instant::now());
                        if inner.membership.stats().open == 0 {
                            return;
                        }
                        drop(inner);
                        tokio::time::sleep(TEND).await;
                    }
                });
                (held, membership.lease(place, true))
            }
        };
        let Some(pool) = held.pool.clone() else { return Err(self.exhausted()) };
        *self.current() = Some(Current { held, users: 1, lease });
        Ok(Lent { pool, of: self.clone() })
    }

    fn current(&self) -> MutexGuard<'_, Option<Current<T>>> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exhausted(&self) -> Error {
        self.0.membership.count_timeout();
        Error::with_source(
            ErrorKind::Exhausted,
            format!("no connection for {} within {} s", self.0.name, self.0.options.connect_timeout.as_secs_f64()),
            self.0.membership.describe(),
        )
    }
}

/// A pool that is lent; dropping it gives it back.
///
/// Clones of the pool itself should not outlive this: it may be closed for the sake of others.
pub struct Lent<T: Foreign> {
    pool: T,
    of: ForeignPool<T>,
}

impl<T: Foreign> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&self.of).finish()
    }
}

impl<T: Foreign> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.pool
    }
}

impl<T: Foreign> Drop for Lent<T> {
    fn drop(&mut self) {
        let ended = {
            let mut current = self.of.current();
            match current.as_mut() {
                Some(used) if used.users > 1 => {
                    used.users -= 1;
                    None
                }
                _ => current.take(),
            }
        };
        if let Some(ended) = ended {
            self.of.0.membership.put(Some(ended.held), ended.lease);
        }
    }
}
