//! Outboxes and inboxes.

use pgfleet_events::{Error as EventError, Redrive};
use pgfleet_events_postgres::outbox::{DeadOutboxMessage, Holder, horizon};
use pgfleet_events_postgres::{Inbox, Outbox};
use serde::Serialize;

use super::database::EventDatabase;
use super::failed::failed;
use super::stream::millis;
use crate::error::Error;

/// How many parked keys and dead letters are listed.
const LISTED: u32 = 100;

/// How an outbox is, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct OutboxShown {
    /// The service.
    pub service: String,
    /// The tenant whose database it is in.
    pub tenant: Option<String>,
    /// Messages that no relay has come to yet: the lag.
    pub pending: u64,
    /// How old the oldest of them is, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// Messages that wait for their time.
    pub delayed: u64,
    /// Messages that were put aside.
    pub parked: u64,
    /// Keys that were put aside.
    pub parked_keys: u64,
    /// Messages that were given up.
    pub dead: u64,
    /// Messages that were carried, since the outbox was made.
    pub sent: u64,
    /// Whether a relay carries.
    pub carried: bool,
    /// How often one took over.
    pub epoch: u64,
    /// The size of the log, in bytes.
    pub size: u64,
    /// Keys that were put aside, the longest there first.
    pub keys: Vec<KeyShown>,
    /// Messages that were given up, the oldest first.
    pub dead_letters: Vec<DeadOutboxShown>,
    /// What keeps old rows alive on the server.
    pub held_by: Vec<Held>,
}

/// A key that was put aside.
#[derive(Debug, Clone, Serialize)]
pub struct KeyShown {
    /// The key; none for a message without one.
    pub key: Option<String>,
    /// How often its first message was tried.
    pub attempts: u64,
    /// When it is tried again; none when it waits for its dead letter.
    pub next_try: Option<String>,
    /// Since when.
    pub since: String,
    /// Why.
    pub last_error: String,
    /// How many messages wait.
    pub messages: u64,
}

/// A message that was given up.
#[derive(Debug, Clone, Serialize)]
pub struct DeadOutboxShown {
    /// Its id.
    pub id: String,
    /// Where it was to go.
    pub topic: String,
    /// The name of its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its key.
    pub key: Option<String>,
    /// How often it was tried.
    pub attempts: u64,
    /// Why it was given up.
    pub reason: String,
    /// When.
    pub dead_at: String,
}

/// Somebody for whose sake the server keeps old rows.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// `transaction`, `prepared transaction`, `replication slot` or `standby`.
    pub kind: String,
    /// Who.
    pub who: String,
    /// How many transactions ago it began.
    pub transactions: i64,
    /// Since when, in milliseconds; not known of slots.
    pub since_ms: Option<u64>,
}

/// How an inbox is, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct InboxShown {
    /// The service.
    pub service: String,
    /// The tenant whose database it is in.
    pub tenant: Option<String>,
    /// Who consumes.
    pub consumer: String,
    /// Messages that it remembers.
    pub remembered: u64,
    /// Messages that were put aside.
    pub parked: u64,
    /// Keys that were put aside.
    pub parked_keys: u64,
    /// How long the longest of them has been there, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// Messages that were given up.
    pub dead: u64,
    /// Keys that were put aside, the longest there first.
    pub keys: Vec<KeyShown>,
    /// What keeps old rows alive on the server.
    pub held_by: Vec<Held>,
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OutboxRetried {
    /// Messages.
    pub messages: u64,
    /// The keys that they are of.
    pub keys: u64,
}

impl EventDatabase {
    fn outbox(&self) -> Outbox {
        Outbox::new(&self.schema, self.service.as_str())
    }

    /// Returns how the outbox is.
    ///
    /// # Errors
    ///
    /// The database cannot be reached, or its outbox was not made yet.
    pub async fn outbox_status(&self) -> Result<OutboxShown, Error> {
        let outbox = self.outbox();
        let said = |error: EventError| failed(&error);
        let status = outbox.status(self.pool()).await.map_err(said)?;
        let keys = outbox.parked_keys(self.pool(), LISTED).await.map_err(said)?;
        let dead = outbox.dead_letters(self.pool(), LISTED).await.map_err(said)?;
        Ok(OutboxShown {
            service: self.service.clone(),
            tenant: self.tenant.clone(),
            pending: status.pending,
            oldest_ms: status.oldest.map(millis),
            delayed: status.delayed,
            parked: status.parked,
            parked_keys: status.parked_keys,
            dead: status.dead,
            sent: status.sent,
            carried: status.carried,
            epoch: status.epoch,
            size: status.size,
            keys: keys
                .into_iter()
                .map(|key| KeyShown {
                    key: key.key,
                    attempts: key.attempts,
                    next_try: key.next_try.map(|at| at.to_string()),
                    since: key.since.to_string(),
                    last_error: key.last_error,
                    messages: key.messages,
                })
                .collect(),
            dead_letters: dead.into_iter().map(DeadOutboxShown::from).collect(),
            held_by: self.held_by().await?,
        })
    }

    /// Has messages of the outbox tried again that were given up.
    ///
    /// # Errors
    ///
    /// As [`outbox_status`](Self::outbox_status).
    pub async fn outbox_retry(&self, which: &Redrive) -> Result<OutboxRetried, Error> {
        let retried = self.outbox().retry(self.pool(), which).await.map_err(|error| failed(&error))?;
        Ok(OutboxRetried { messages: retried.messages, keys: retried.keys })
    }

    /// Returns how the inbox of a consumer is; of the service itself when none is named.
    ///
    /// # Errors
    ///
    /// The database cannot be reached, or its inbox was not made yet.
    pub async fn inbox_status(&self, consumer: Option<&str>) -> Result<InboxShown, Error> {
        let inbox = Inbox::new(&self.schema, consumer.unwrap_or(&self.service));
        let said = |error: EventError| failed(&error);
        let mut db = self.pooled().await?;
        let status = inbox.status(&mut db).await.map_err(said)?;
        let keys = inbox.parked_keys(&mut db, LISTED).await.map_err(said)?;
        Ok(InboxShown {
            service: self.service.clone(),
            tenant: self.tenant.clone(),
            consumer: inbox.consumer().to_owned(),
            remembered: status.remembered,
            parked: status.parked,
            parked_keys: status.parked_keys,
            oldest_ms: status.oldest.map(millis),
            dead: status.dead,
            keys: keys
                .into_iter()
                .map(|key| KeyShown {
                    key: key.key,
                    attempts: key.attempts,
                    next_try: key.next_try.map(|at| at.to_string()),
                    since: key.since.to_string(),
                    last_error: key.last_error,
                    messages: key.messages,
                })
                .collect(),
            held_by: self.held_by().await?,
        })
    }

    /// Returns what keeps old rows alive on the server, the oldest first.
    ///
    /// # Errors
    ///
    /// The database cannot be reached.
    pub async fn held_by(&self) -> Result<Vec<Held>, Error> {
        let get = self.overseer().get().await;
        let db = get.map_err(|error| {
            Error::postgres(format!("cannot ask the server of {} what holds old rows", self.service), &error)
        })?;
        let holders = horizon(&db).await.map_err(|error| failed(&error))?;
        Ok(holders.iter().map(Held::from).collect())
    }

    async fn pooled(&self) -> Result<pgfleet_postgres::pool::Pooled, Error> {
        let get = self.pool().get().await;
        get.map_err(|error| Error::postgres(format!("cannot connect to the database of {}", self.service), &error))
    }
}

impl From<&Holder> for Held {
    fn from(holder: &Holder) -> Self {
        Self {
            kind: holder.kind.clone(),
            who: holder.who.clone(),
            transactions: holder.transactions,
            since_ms: holder.since.map(millis),
        }
    }
}

impl From<DeadOutboxMessage> for DeadOutboxShown {
    fn from(dead: DeadOutboxMessage) -> Self {
        Self {
            id: dead.id,
            topic: dead.topic,
            kind: dead.kind,
            key: dead.key,
            attempts: dead.attempts,
            reason: dead.reason,
            dead_at: dead.dead_at.to_string(),
        }
    }
}
