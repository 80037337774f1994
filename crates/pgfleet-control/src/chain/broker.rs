//! Messages carried by a broker.
//!
//! What a broker cannot keep stays in the table: which messages are one, which was tried how often and waits for what, and
//! what was set aside until somebody starts it by hand. So the rows are what triggers made them, and the broker carries the
//! news of them to whoever handles messages:
//!
//! ```text
//! row, due and first of its target ──► published ──► broker ──► received ──► row taken ──► acknowledged
//! ```
//!
//! Whoever receives a message takes its row as [`TableTransport`] does, with the same lease, and tells the broker as soon
//! as he has it. One that comes twice, too late, or before its turn finds a row that cannot be taken, and is dropped. One
//! that a broker lost is published again after a minute. A second try is a second publication.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pgfleet_events::{
    Delivered, Error as EventError, Json, Message as Carried, Meta, Moment, Subscriber, Subscription,
    Transport as Broker,
};
use pgfleet_postgres::Type;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::message::{Draft, Received};
use super::table::TableTransport;
use super::transport::{Answer, Transport};
use crate::error::Error;
use crate::solution::Solution;

/// Where the messages go, and who receives them.
const TOPIC: &str = "pgfleet.chain";

/// How many messages are published at once.
const BATCH: i64 = 256;

/// After how long a message is published again that nobody has taken.
const LOST: &str = "1 minute";

/// How long the messages are waited for that are on their way: with nothing else to do, and beside other work.
const IDLE: Duration = Duration::from_secs(1);
const BUSY: Duration = Duration::from_millis(20);

/// A broker between the rows of `control.messages` and those who handle them.
#[derive(Debug)]
pub struct BrokerTransport {
    table: TableTransport,
    broker: Arc<dyn Broker>,
    /// Made when messages are first asked for; made anew after an error.
    subscriber: Mutex<Option<Box<dyn Subscriber>>>,
    /// How many messages are taken and not ended.
    out: AtomicUsize,
}

/// What is said of a row.
#[derive(Debug, Serialize, Deserialize)]
struct News {
    /// The cause, by which the row is found.
    id: String,
    /// What the message says, for whoever listens beside us.
    data: serde_json::Value,
}

impl BrokerTransport {
    /// Uses a broker, and the control database of a solution; connects when there is something to do.
    pub fn of(solution: &Solution, broker: Arc<dyn Broker>) -> Self {
        Self { table: TableTransport::of(solution), broker, subscriber: Mutex::default(), out: AtomicUsize::new(0) }
    }

    /// Publishes the rows that are due and the first of their targets; says whether any is on its way.
    async fn relay(&self) -> Result<bool, Error> {
        let rows = self
            .table
            .rows(
                &format!(
                    "WITH due AS (SELECT m.id FROM control.messages m \
                       WHERE m.state = 'waiting' AND m.not_before <= now() \
                         AND (m.published_at IS NULL OR m.published_at < now() - interval '{LOST}') AND NOT EXISTS ( \
                         SELECT FROM control.messages o WHERE o.target = m.target AND o.state IN ('waiting', 'running') \
                           AND (o.id < m.id OR o.state = 'running')) \
                       ORDER BY m.id LIMIT $1 FOR UPDATE OF m SKIP LOCKED) \
                     UPDATE control.messages m SET published_at = now() FROM due WHERE m.id = due.id \
                     RETURNING m.cause, m.kind, m.target, m.body::text, \
                       (extract(epoch FROM m.created_at) * 1000000)::bigint"
                ),
                &[(&BATCH, Type::INT8)],
            )
            .await?;
        let carried = rows.iter().map(|row| carried(row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)));
        let messages: Vec<Carried> = carried.collect::<Result<_, _>>()?;
        if !messages.is_empty() {
            let causes: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
            // What the broker has not got is published by whoever looks next.
            let published = match self.broker.publish(&messages).await {
                Ok(published) => published,
                Err(error) => {
                    self.take_back(&causes).await?;
                    return Err(unreachable(&error));
                }
            };
            let lost = published.iter().zip(&causes).filter(|(published, _)| published.is_err());
            let lost: Vec<&str> = lost.map(|(_, cause)| *cause).collect();
            if !lost.is_empty() {
                self.take_back(&lost).await?;
            }
            if let Some(Err(error)) = published.into_iter().find(Result::is_err) {
                return Err(unreachable(&error));
            }
        }
        let on_its_way = self
            .table
            .rows(
                "SELECT EXISTS (SELECT FROM control.messages WHERE state = 'waiting' AND published_at IS NOT NULL)",
                &[],
            )
            .await?;
        Ok(on_its_way.first().is_some_and(|row| row.get(0)))
    }

    /// Has messages published again that wait still.
    async fn take_back(&self, causes: &[&str]) -> Result<(), Error> {
        let causes: Vec<String> = causes.iter().map(|cause| (*cause).to_owned()).collect();
        self.table
            .rows(
                "UPDATE control.messages SET published_at = NULL WHERE cause = ANY ($1) AND state = 'waiting'",
                &[(&causes, Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(())
    }

    async fn delivered(&self, max: usize, most: Duration) -> Result<Vec<Delivered>, Error> {
        let mut held = self.subscriber.lock().await;
        let subscriber = match &mut *held {
            Some(subscriber) => subscriber,
            none => {
                let subscription = Subscription::new(TOPIC, [TOPIC]);
                none.insert(self.broker.subscribe(subscription).await.map_err(|error| unreachable(&error))?)
            }
        };
        let received = subscriber.receive(max, most).await;
        if received.is_err() {
            *held = None;
        }
        received.map_err(|error| unreachable(&error))
    }

    /// Tells the broker that what it delivered is with us, or nobody's any more.
    async fn acknowledge(&self, delivered: &[Delivered]) {
        if let Some(subscriber) = &mut *self.subscriber.lock().await
            && let Err(error) = subscriber.acknowledge(delivered).await
        {
            // They come again, and find rows that are taken or done.
            tracing::debug!(%error, "messages could not be acknowledged");
        }
    }

    async fn take(&self, max: usize) -> Result<Vec<Received>, Error> {
        // Before anything is published: from then on it is kept for us.
        self.delivered(0, Duration::ZERO).await?;
        self.table.take_from_the_dead_now().await?;
        let on_its_way = self.relay().await?;
        let most = match (on_its_way, self.out.load(Ordering::Relaxed)) {
            (true, 0) => IDLE,
            (true, _) => BUSY,
            (false, _) => Duration::ZERO,
        };
        if !on_its_way {
            return Ok(Vec::new());
        }
        let delivered = self.delivered(max, most).await?;
        if delivered.is_empty() {
            return Ok(Vec::new());
        }
        let news = delivered.iter().filter_map(|delivered| delivered.message.data.to::<News>().ok());
        let causes: Vec<String> = news.map(|news| news.id).collect();
        let taken = self.table.take(max, Some(&causes)).await?;
        let left: Vec<&str> = causes
            .iter()
            .map(String::as_str)
            .filter(|cause| taken.iter().all(|received| received.id != **cause))
            .collect();
        if !left.is_empty() {
            self.take_back(&left).await?;
        }
        self.acknowledge(&delivered).await;
        self.out.fetch_add(taken.len(), Ordering::Relaxed);
        Ok(taken)
    }

    fn ended<'a>(&'a self, answer: Answer<'a, bool>) -> Answer<'a, bool> {
        Box::pin(async move {
            let ended = answer.await;
            // Also of one that was lost: it is not with us any more.
            let _before = self.out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |out| out.checked_sub(1));
            ended
        })
    }
}

impl Transport for BrokerTransport {
    fn publish<'a>(&'a self, drafts: &'a [Draft]) -> Answer<'a, ()> {
        self.table.publish(drafts)
    }

    fn receive(&self, max: usize) -> Answer<'_, Vec<Received>> {
        Box::pin(self.take(max))
    }

    fn ack<'a>(&'a self, received: &'a Received, following: &'a [Draft], note: &'a str) -> Answer<'a, bool> {
        self.ended(self.table.ack(received, following, note))
    }

    fn retry<'a>(&'a self, received: &'a Received, delay: Duration, error: &'a str) -> Answer<'a, bool> {
        self.ended(self.table.retry(received, delay, error))
    }

    fn give_back<'a>(&'a self, received: &'a Received) -> Answer<'a, bool> {
        self.ended(self.table.give_back(received))
    }

    fn fail<'a>(&'a self, received: &'a Received, error: &'a str) -> Answer<'a, bool> {
        self.ended(self.table.fail(received, error))
    }

    fn tidy(&self) -> Answer<'_, ()> {
        self.table.tidy()
    }

    fn stop(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            *self.subscriber.lock().await = None;
            self.table.stop().await
        })
    }
}

/// Makes the message that tells of a row; each publication is one of its own, since the broker would drop a second try of
/// one id.
fn carried(cause: &str, kind: &str, target: &str, body: &str, created_micros: i64) -> Result<Carried, Error> {
    let said = |error: &EventError| Error::new(crate::error::ErrorKind::Failed, error.to_string());
    let data: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let tenant = data["tenant"].as_str().map(Into::into);
    Ok(Carried {
        id: uuid::Uuid::now_v7(),
        topic: TOPIC.into(),
        kind: kind.into(),
        source: "pgfleet".into(),
        time: Moment::from_micros(created_micros),
        key: Some(target.into()),
        data: Json::of(&News { id: cause.to_owned(), data }).map_err(|error| said(&error))?,
        meta: Meta { tenant, ..Meta::default() },
    })
}

fn unreachable(error: &EventError) -> Error {
    crate::events::failed(error).cause("the messages by which tenants follow are carried by the broker of [events]")
}
