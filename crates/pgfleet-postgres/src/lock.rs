//! Session advisory locks that are polled for, verified, and whose holder can be named.
//!
//! A blocked `pg_advisory_lock` is a transaction with a snapshot; `CREATE INDEX CONCURRENTLY` in the
//! holder waits for it, it waits for the holder, and the server kills the waiter as a deadlock's
//! victim. So nothing here ever blocks inside the server: `pg_try_advisory_lock`, then a pause.
//!
//! Advisory locks are per database: one key serves every database, and a lock that is meant for the
//! whole server must be taken in one agreed database.

use futures_util::future::{join, try_join};
use serde::{Deserialize, Serialize};

use crate::{Connection, Error, session};

/// First half of every key, `pgfl` in ASCII, to stay clear of other users of advisory locks.
const SPACE: i32 = 0x7067_666c;

/// What a lock protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKey {
    /// Migrating, seeding, reverting one database.
    Migrate,
    /// Provisioning one server; taken in the administrator's database.
    Provision,
    /// Sweeping or building templates of test databases.
    Template,
}

impl LockKey {
    fn number(self) -> i32 {
        match self {
            Self::Migrate => 1,
            Self::Provision => 2,
            Self::Template => 3,
        }
    }
}

/// Who holds a lock that we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The backend's process id on the server.
    pub pid: i32,
    /// Its `application_name`.
    pub application: String,
    /// Its role; empty when we may not see it.
    pub user: String,
    /// How long it has been connected, in seconds.
    pub since_seconds: i64,
    /// What it runs, cut to 200 characters; empty when we may not see it.
    pub query: String,
}

impl Holder {
    /// Reads pid, application, role, seconds and query from a row.
    fn from_row(row: &tokio_postgres::SimpleQueryRow) -> Self {
        let text = |at: usize| row.get(at).unwrap_or_default().to_owned();
        Self {
            pid: text(0).parse().unwrap_or_default(),
            application: text(1),
            user: text(2),
            since_seconds: text(3).parse().unwrap_or_default(),
            query: text(4),
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {}", self.pid)?;
        let known: Vec<String> = [
            (!self.application.is_empty()).then(|| self.application.clone()),
            (!self.user.is_empty()).then(|| format!("role {}", self.user)),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !known.is_empty() {
            write!(f, " ({})", known.join(", "))?;
        }
        if self.since_seconds > 0 {
            write!(f, " for {} s", self.since_seconds)?;
        }
        Ok(())
    }
}

/// Tries to take the lock; returns at once.
///
/// The lock belongs to the session: it is free when the connection ends, however it ends. So it is
/// asked for only in a session that is ours: behind a pooler in transaction mode it would stay with
/// a session that somebody else is given next. Afterwards a second message looks whether this very
/// session holds it.
///
/// Where something stands between us and the server, whether it keeps sessions is proven once per
/// connection; the connection's settings are then in force, too.
///
/// # Errors
///
/// [`crate::ErrorKind::Pooler`] when the connection has no session for itself; no lock is left behind.
pub async fn try_lock(connection: &Connection, key: LockKey) -> Result<bool, Error> {
    Ok(try_lock_and_read(connection, key, || std::future::ready(())).await?.is_some())
}

/// Tries to take the lock, and reads something behind it in the same round trip; none when the lock was not granted.
///
/// `read` must send its statements when it is first polled: what it gives was read under the lock then. It may run twice.
///
/// # Errors
///
/// As [`try_lock`]. What `read` fails with is part of what it gives.
pub async fn try_lock_and_read<T, F>(
    connection: &Connection,
    key: LockKey,
    read: impl Fn() -> F,
) -> Result<Option<T>, Error>
where
    F: Future<Output = T>,
{
    let number = key.number();
    let (mut asked, mut found) = join(ask(connection, number), read()).await;
    if asked.as_ref().is_ok_and(|(answer, _)| *answer == Answer::NotOurs) && connection.proven().is_none() {
        session::prove(connection).await?;
        (asked, found) = join(ask(connection, number), read()).await;
    }
    match asked? {
        (Answer::NotOurs, _) => Err(session::refused(connection, "its session was changed")),
        (Answer::Refused, _) => Ok(None),
        (Answer::Granted, false) => Err(session::refused(connection, "the lock was granted to another session")),
        (Answer::Granted, true) => Ok(Some(found)),
    }
}

/// What asking for the lock led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Somebody else has it.
    Refused,
    Granted,
    /// The session is not the one that we logged in to, so it was not asked for.
    NotOurs,
}

/// Asks for the lock if this is a session of ours, and right behind it whether this session holds it.
async fn ask(connection: &Connection, number: i32) -> Result<(Answer, bool), Error> {
    let sql = format!(
        "SELECT CASE WHEN {} THEN pg_catalog.pg_try_advisory_lock({SPACE}, {number})::int ELSE 2 END",
        connection.ours_sql()
    );
    // A message of its own: a pooler may give it to another session, and that is what is to be found out. Who has a lock
    // is granted it again, and nobody else is; `pg_locks` would say it, too, and costs a session that is just made three
    // times as much. The file of a table lies in the folder of this database.
    let look = format!(
        "SELECT CASE WHEN pg_catalog.pg_try_advisory_lock({SPACE}, {number}) \
         THEN pg_catalog.pg_advisory_unlock({SPACE}, {number})::int ELSE 0 END, \
         pg_catalog.pg_relation_filepath('pg_catalog.pg_class')"
    );
    // No answer is an error: it must not pass for one that says that somebody else has the lock.
    let (asked, looked) = try_join(session::first(connection, &sql), session::first(connection, &look)).await?;
    // Not known, it is asked for where it is needed.
    if let Some(oid) = looked.get(1).and_then(database_of) {
        connection.set_database_oid(oid);
    }
    let answer = match asked.get(0) {
        Some("0") => Answer::Refused,
        Some("1") => Answer::Granted,
        Some("2") => Answer::NotOurs,
        _ => return Err(session::refused(connection, "the answer is to another question")),
    };
    Ok((answer, looked.get(0) == Some("1")))
}

/// The oid of the database in whose folder a file is: `base/16384/1259`, or
/// `pg_tblspc/16385/PG_15_202209061/16384/1259` where it is in a tablespace of its own.
fn database_of(file: &str) -> Option<u32> {
    file.rsplit('/').nth(1)?.parse().ok()
}

/// Frees the lock; says whether it was ours.
pub async fn unlock(connection: &Connection, key: LockKey) -> Result<bool, Error> {
    let rows =
        connection.simple(&format!("SELECT pg_catalog.pg_advisory_unlock({SPACE}, {})::int", key.number())).await?;
    Ok(rows.first().and_then(|row| row.get(0)) == Some("1"))
}

/// Returns who holds the lock in this connection's database, if anybody does.
pub async fn holder(connection: &Connection, key: LockKey) -> Result<Option<Holder>, Error> {
    let rows = connection
        .simple(&format!(
            "SELECT l.pid, coalesce(a.application_name, ''), coalesce(a.usename, ''), \
                    coalesce(extract(epoch FROM now() - a.backend_start)::bigint, 0), coalesce(left(a.query, 200), '') \
             FROM pg_catalog.pg_locks l \
             JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database() \
             LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'advisory' AND l.classid = {SPACE} AND l.objid = {} AND l.objsubid = 2 AND l.granted",
            key.number()
        ))
        .await?;
    Ok(rows.first().map(Holder::from_row))
}

/// Describes the sessions that block a backend, for the report of a lock time-out.
///
/// Asked from another connection, or from the same one between two tries; empty when nothing blocks
/// any more.
pub async fn blockers(connection: &Connection) -> Result<Vec<Holder>, Error> {
    // After a lock time-out we no longer wait, so `pg_blocking_pids` says nothing: name the oldest
    // other sessions of this database that are inside a transaction and hold relation locks. Of
    // other roles' sessions we may see the process and the role only.
    let rows = connection
        .simple(
            "SELECT DISTINCT a.pid, coalesce(a.application_name, ''), coalesce(a.usename, ''), \
                    coalesce(extract(epoch FROM now() - a.xact_start)::bigint, 0) AS since, \
                    coalesce(left(a.query, 200), '') \
             FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'relation' AND l.granted AND a.datname = pg_catalog.current_database() \
               AND l.relation >= 16384 AND a.pid <> pg_catalog.pg_backend_pid() AND (a.xact_start IS NOT NULL OR a.query = '<insufficient privilege>') \
             ORDER BY since DESC LIMIT 3",
        )
        .await?;
    Ok(rows.iter().map(Holder::from_row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_which_database_it_is_of() {
        assert_eq!(database_of("base/16384/1259"), Some(16_384));
        assert_eq!(database_of("pg_tblspc/16385/PG_15_202209061/16386/1259"), Some(16_386));
        assert_eq!(database_of("1259"), None);
        assert_eq!(database_of("global/1259"), None);
    }
}
