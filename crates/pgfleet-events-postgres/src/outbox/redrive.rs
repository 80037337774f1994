//! Having messages tried again that were given up.

use std::time::Duration;

use pgfleet_events::{Error, Redrive};
use pgfleet_postgres::pool::Pool;

use super::ledger::Cursor;
use super::publish::Outbox;
use crate::error::failed;

/// What became of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retry {
    /// How many messages are tried again.
    pub messages: u64,
    /// How many keys they are of.
    pub keys: u64,
}

impl Outbox {
    /// Has dead letters tried again, each key's in the order in which they were published, before what waits behind them.
    /// Their attempts begin anew, and they have no `deliver_within` any more. Keys that wait for a next try are tried at once
    /// when all are asked for.
    ///
    /// The relay that carries begins again with what it finds then, so messages that it was publishing may be published
    /// twice.
    ///
    /// # Errors
    ///
    /// What the database fails with; nothing was changed.
    pub async fn retry(&self, pool: &Pool, which: &Redrive) -> Result<Retry, Error> {
        let sql = &self.0.sql;
        let doing = |error| failed("cannot retry messages of the outbox", error);
        loop {
            let tx = pool.begin().await.map_err(doing)?;
            let newest = Cursor::newest(&tx, sql).await?.cursor;
            // What was put aside is the carrying relay's; this step takes it away from it until it has looked again.
            let mut next = Cursor { holder: String::new(), epoch: newest.epoch + 1, ..newest.clone() };
            match newest.step(&tx, sql, &mut next, Duration::ZERO).await {
                Ok(()) => {}
                Err(error) if error.is_fenced() => continue,
                Err(error) => return Err(error),
            }
            let (kind, key, ids) = match which {
                Redrive::All => ("all", "", Vec::new()),
                Redrive::Key(key) => ("key", &**key, Vec::new()),
                Redrive::Ids(ids) => ("ids", "", ids.iter().map(ToString::to_string).collect()),
            };
            let rows = tx.query(&sql.retry, &[&kind, &key, &ids]).await.map_err(doing)?;
            let mut retry = Retry::default();
            let (mut lanes, mut keys, mut errors) = (Vec::new(), Vec::<Option<String>>::new(), Vec::new());
            for row in &rows {
                lanes.push(row.get::<_, String>(0));
                keys.push(row.get(1));
                retry.messages += row.get::<_, String>(2).parse().unwrap_or(0);
                retry.keys += 1;
                errors.push(row.get::<_, String>(3));
            }
            tx.execute(&sql.retry_keys, &[&lanes, &keys, &errors]).await.map_err(doing)?;
            tx.commit().await.map_err(doing)?;
            self.wake();
            return Ok(retry);
        }
    }
}
