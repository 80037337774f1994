//! Queues: claims over a log that is only inserted into.
//!
//! The statements are functions of the database (`migrations/event_streaming/*_queue*.sql`), where what they rely on is
//! said; here is what calls them in one round trip each.

mod acks;
mod manage;
mod put;
mod receipt;
mod rows;
mod settle;
mod signal;
mod sql;
mod store;
mod take;
mod takes;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pgfleet_events::Error;
use pgfleet_postgres::pool::Pooled;
use tokio::sync::OnceCell;

use self::acks::Acks;
use self::signal::Signals;
use self::sql::Sql;
use self::takes::Takes;
use self::worker::Worker;
use crate::error::failed;
use crate::store::Inner;

/// What a store keeps about its queues.
#[derive(Debug)]
pub(crate) struct Queues {
    sql: Sql,
    known: Mutex<HashMap<Arc<str>, Arc<Known>>>,
    /// Whether it was looked whether the database is where it was.
    sealed: OnceCell<()>,
    acks: Acks,
    takes: Takes,
    signals: Signals,
    worker: Worker,
}

/// A queue as the database knows it.
#[derive(Debug, Clone)]
struct Known {
    name: Arc<str>,
    id: i32,
    lanes: i32,
    key_lanes: i32,
    priorities: Vec<i16>,
}

impl Queues {
    pub(crate) fn new(schema: &str) -> Self {
        Self {
            sql: Sql::new(schema),
            known: Mutex::default(),
            sealed: OnceCell::new(),
            acks: Acks::default(),
            takes: Takes::default(),
            signals: Signals::default(),
            worker: Worker::default(),
        }
    }

    fn known(&self, queue: &str) -> Option<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(queue).map(Arc::clone)
    }
}

impl Inner {
    /// Returns a connection to tables that belong to the cluster that they are in.
    async fn queue_connection(&self) -> Result<Pooled, Error> {
        let db = self.pool.get().await.map_err(|error| failed("no connection to the store", error))?;
        self.queues
            .sealed
            .get_or_try_init(async || {
                db.query_one(&self.queues.sql.seal, &[])
                    .await
                    .map(|_| ())
                    .map_err(|error| failed("the queues could not be fitted to the cluster", error))
            })
            .await?;
        Ok(db)
    }

    /// Finds a queue; none where it does not exist.
    async fn find_queue(&self, db: &Pooled, queue: &str) -> Result<Option<Arc<Known>>, Error> {
        match self.queues.known(queue) {
            Some(known) => Ok(Some(known)),
            None => self.open_queue(db, queue, false, &[], false).await,
        }
    }

    /// Makes a queue, or what it does not have yet: a priority, lanes for keys.
    async fn open_queue(
        &self,
        db: &Pooled,
        queue: &str,
        make: bool,
        priorities: &[i16],
        keys: bool,
    ) -> Result<Option<Arc<Known>>, Error> {
        let row = db
            .query_opt(&self.queues.sql.open, &[&queue, &make, &priorities, &keys])
            .await
            .map_err(|error| failed(format!("queue {queue} could not be opened"), error))?;
        let Some(row) = row else { return Ok(None) };
        let name: Arc<str> = Arc::from(queue);
        let known = Arc::new(Known {
            name: Arc::clone(&name),
            id: row.get(0),
            lanes: row.get(1),
            key_lanes: row.get(2),
            priorities: row.get(3),
        });
        self.queues.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::clone(&known));
        Ok(Some(known))
    }
}
