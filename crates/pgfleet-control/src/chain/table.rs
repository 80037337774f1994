//! Messages in a table of the control database.
//!
//! Triggers write them in the transaction that causes them, so there is no message without its cause
//! and no cause without its message. A lease is the life of the session that took the message: see
//! [`crate::worker`].

use std::time::{Duration, Instant};

use pgfleet_postgres::{Address, Row, ToSql, Type};
use tokio::sync::{Mutex, MutexGuard};

use super::message::{Draft, Message, Received};
use super::transport::{Answer, Transport};
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::solution::Solution;
use crate::worker::{self, Worker, alive_sql};

/// How often a message is taken by workers that die over it, before it is set aside.
const DEATHS: i32 = 10;

/// For how long messages that are done are kept: so long a cause is known again.
const KEPT: &str = "30 days";

/// The table `control.messages`.
#[derive(Debug)]
pub struct TableTransport {
    admin: Address,
    database: String,
    session: Mutex<Option<Session>>,
}

#[derive(Debug)]
struct Session {
    catalogue: Catalogue,
    worker: Worker,
}

impl TableTransport {
    /// Uses the control database of a solution; connects when there is something to do.
    pub fn of(solution: &Solution) -> Self {
        let control = &solution.manifest.control;
        let admin = solution.server(&control.server).admin.clone();
        Self { admin, database: control.database.clone(), session: Mutex::new(None) }
    }

    /// Returns the open session; a new one, with a new number, when the old one is lost: what that had
    /// taken has gone back then.
    async fn session(&self) -> Result<Held<'_>, Error> {
        let mut held = self.session.lock().await;
        if held.as_ref().is_none_or(|session| session.catalogue.connection().is_closed()) {
            *held = None;
            let purpose = worker::purpose("pgfleet messages");
            let catalogue = Catalogue::open_for(&self.admin, &self.database, &purpose).await?;
            let worker = Worker::begin(&catalogue).await?;
            *held = Some(Session { catalogue, worker });
        }
        Ok(Held(held))
    }

    /// Gives back what workers had that died.
    async fn take_from_the_dead(&self, session: &Session) -> Result<(), Error> {
        let sql = format!(
            "UPDATE control.messages SET worker = NULL, state = CASE WHEN taken < {DEATHS} THEN 'waiting' ELSE 'failed' END, \
             error = CASE WHEN taken < {DEATHS} THEN error ELSE 'whoever handled it has died, ' || taken || ' times' END, \
             ended_at = CASE WHEN taken < {DEATHS} THEN NULL ELSE now() END, published_at = NULL \
             WHERE state = 'running' AND (worker IS NULL OR worker NOT IN ({}))",
            alive_sql()
        );
        session.catalogue.connection().execute(&sql, &[]).await.map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Gives back what workers had that died.
    pub(super) async fn take_from_the_dead_now(&self) -> Result<(), Error> {
        let held = self.session().await?;
        self.take_from_the_dead(held.get()?).await
    }

    /// Asks something of the control database.
    pub(super) async fn rows(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        let held = self.session().await?;
        held.get()?.catalogue.connection().query(sql, values).await.map_err(|error| failed(&error))
    }

    /// Takes messages that are due; of these causes only, when they are named.
    pub(super) async fn take(&self, max: usize, only: Option<&[String]>) -> Result<Vec<Received>, Error> {
        let held = self.session().await?;
        let session = held.get()?;
        self.take_from_the_dead(session).await?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let taken = session
            .catalogue
            .connection()
            .query(
                "WITH due AS (SELECT m.id FROM control.messages m \
                   WHERE m.state = 'waiting' AND m.not_before <= now() \
                     AND ($3::text[] IS NULL OR m.cause = ANY ($3)) AND NOT EXISTS ( \
                     SELECT FROM control.messages o WHERE o.target = m.target AND o.state IN ('waiting', 'running') \
                       AND (o.id < m.id OR o.state = 'running')) \
                   ORDER BY m.id LIMIT $2 FOR UPDATE OF m SKIP LOCKED) \
                 UPDATE control.messages m SET state = 'running', worker = $1, taken = m.taken + 1 FROM due \
                 WHERE m.id = due.id AND m.state = 'waiting' \
                 RETURNING m.id, m.cause, m.kind, m.body::text, m.attempts, \
                   greatest(extract(epoch FROM clock_timestamp() - greatest(m.created_at, m.not_before)), 0)::float8",
                &[(&session.worker.number, Type::INT4), (&max, Type::INT8), (&only, Type::TEXT_ARRAY)],
            )
            .await;
        let now = Instant::now();
        let rows = match taken {
            Ok(rows) => rows,
            // Somebody took another message of the same target at this moment.
            Err(error) if error.sql_state() == Some("23505") => Vec::new(),
            Err(error) => return Err(failed(&error)),
        };
        let mut received = Vec::with_capacity(rows.len());
        for row in &rows {
            let (receipt, attempts): (i64, i32) = (row.get(0), row.get(4));
            match Message::read(row.get(2), row.get(3)) {
                Ok(message) => received.push(Received {
                    id: row.get(1),
                    message,
                    attempt: u32::try_from(attempts).unwrap_or_default() + 1,
                    due: now.checked_sub(Duration::from_secs_f64(row.get(5))).unwrap_or(now),
                    receipt,
                    lease: i64::from(session.worker.number),
                }),
                // Written by another version of pgfleet: it must keep nobody else from his messages.
                Err(error) => {
                    let (sql, lease) = (FAIL, i64::from(session.worker.number));
                    self.change(session, sql, receipt, lease, &format!("{error}: {}", error.causes().join(": ")))
                        .await?;
                }
            }
        }
        received.sort_by_key(|received| received.receipt);
        Ok(received)
    }

    /// Changes a message that is ours still; says whether it was.
    async fn change(&self, session: &Session, sql: &str, receipt: i64, lease: i64, text: &str) -> Result<bool, Error> {
        let sql = format!("UPDATE control.messages {sql} WHERE id = $1 AND worker = $2::bigint AND state = 'running'");
        let changed = session
            .catalogue
            .connection()
            .execute(&sql, &[(&receipt, Type::INT8), (&lease, Type::INT8), (&text, Type::TEXT)])
            .await
            .map_err(|error| failed(&error))?;
        Ok(changed > 0)
    }

    async fn changed(&self, sql: &str, received: &Received, text: &str) -> Result<bool, Error> {
        let held = self.session().await?;
        self.change(held.get()?, sql, received.receipt, received.lease, text).await
    }
}

/// The session, locked for one question.
struct Held<'a>(MutexGuard<'a, Option<Session>>);

impl Held<'_> {
    fn get(&self) -> Result<&Session, Error> {
        self.0
            .as_ref()
            .ok_or_else(|| Error::new(crate::error::ErrorKind::Stopped, "the messages are no longer handled"))
    }
}

const FAIL: &str = "SET state = 'failed', worker = NULL, attempts = attempts + 1, error = $3, ended_at = now()";

/// Columns of drafts, to be bound.
struct Columns {
    kinds: Vec<&'static str>,
    causes: Vec<String>,
    targets: Vec<String>,
    bodies: Vec<String>,
}

impl Columns {
    fn of(drafts: &[Draft]) -> Self {
        Self {
            kinds: drafts.iter().map(|draft| draft.message.kind()).collect(),
            causes: drafts.iter().map(|draft| draft.id.clone()).collect(),
            targets: drafts.iter().map(|draft| draft.message.subject()).collect(),
            bodies: drafts.iter().map(|draft| draft.message.data().to_string()).collect(),
        }
    }

    fn values(&self) -> [(&(dyn pgfleet_postgres::ToSql + Sync), Type); 4] {
        [
            (&self.kinds, Type::TEXT_ARRAY),
            (&self.causes, Type::TEXT_ARRAY),
            (&self.targets, Type::TEXT_ARRAY),
            (&self.bodies, Type::TEXT_ARRAY),
        ]
    }
}

impl Transport for TableTransport {
    fn publish<'a>(&'a self, drafts: &'a [Draft]) -> Answer<'a, ()> {
        Box::pin(async move {
            let held = self.session().await?;
            held.get()?
                .catalogue
                .connection()
                .execute(
                    "INSERT INTO control.messages (kind, cause, target, body) SELECT d.kind, d.cause, d.target, d.body::jsonb \
                     FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS d (kind, cause, target, body) \
                     ON CONFLICT (cause) DO NOTHING",
                    &Columns::of(drafts).values(),
                )
                .await
                .map_err(|error| failed(&error))?;
            Ok(())
        })
    }

    fn receive(&self, max: usize) -> Answer<'_, Vec<Received>> {
        Box::pin(self.take(max, None))
    }

    fn ack<'a>(&'a self, received: &'a Received, following: &'a [Draft], note: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let held = self.session().await?;
            let columns = Columns::of(following);
            let mut values = columns.values().to_vec();
            values.extend([
                (&received.receipt as &(dyn pgfleet_postgres::ToSql + Sync), Type::INT8),
                (&received.lease, Type::INT8),
                (&note, Type::TEXT),
            ]);
            // One statement is one transaction.
            let rows = held
                .get()?
                .catalogue
                .connection()
                .query(
                    "WITH acked AS (UPDATE control.messages SET state = 'done', worker = NULL, error = NULL, note = $7, \
                         ended_at = now() WHERE id = $5 AND worker = $6::bigint AND state = 'running' RETURNING id), \
                     added AS (INSERT INTO control.messages (kind, cause, target, body) \
                         SELECT d.kind, d.cause, d.target, d.body::jsonb \
                         FROM acked, unnest($1::text[], $2::text[], $3::text[], $4::text[]) \
                           AS d (kind, cause, target, body) ON CONFLICT (cause) DO NOTHING) \
                     SELECT count(*) FROM acked",
                    &values,
                )
                .await
                .map_err(|error| failed(&error))?;
            Ok(rows.first().is_some_and(|row| row.get::<_, i64>(0) > 0))
        })
    }

    fn retry<'a>(&'a self, received: &'a Received, delay: Duration, error: &'a str) -> Answer<'a, bool> {
        let sql = format!(
            "SET state = 'waiting', worker = NULL, published_at = NULL, attempts = attempts + 1, error = $3, \
             not_before = now() + {} * interval '1 millisecond'",
            delay.as_millis()
        );
        Box::pin(async move { self.changed(&sql, received, error).await })
    }

    fn give_back<'a>(&'a self, received: &'a Received) -> Answer<'a, bool> {
        Box::pin(self.changed(
            "SET state = 'waiting', worker = NULL, published_at = NULL, taken = taken - 1, note = nullif($3, '')",
            received,
            "",
        ))
    }

    fn fail<'a>(&'a self, received: &'a Received, error: &'a str) -> Answer<'a, bool> {
        Box::pin(self.changed(FAIL, received, error))
    }

    fn tidy(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let held = self.session().await?;
            let sql =
                format!("DELETE FROM control.messages WHERE state = 'done' AND ended_at < now() - interval '{KEPT}'");
            held.get()?.catalogue.connection().execute(&sql, &[]).await.map_err(|error| failed(&error))?;
            Ok(())
        })
    }

    fn stop(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Some(session) = self.session.lock().await.take() {
                session.catalogue.close().await;
            }
            Ok(())
        })
    }
}

pub(super) fn failed(error: &pgfleet_postgres::Error) -> Error {
    Error::postgres("cannot read or write the messages in the control database", error)
}
