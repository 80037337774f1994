//! What a move and a rollout know of each other.
//!
//! A rollout takes no target of a tenant that is being moved: the round that would have taken it writes
//! that it is skipped. A move begins under a lock that no round runs beside, and refuses a database that a
//! rollout has taken. So nobody migrates a database after it was copied. When the move is over, in the same
//! transaction, what was skipped waits again, where the tenant's strings lead then; and a rollout does not
//! end while a move is alive, since it lists the tenants again at its end.

use pgfleet_postgres::Type;

use super::record::{Move, failed};
use super::run::Mover;
use super::source::Source;
use crate::error::{Error, ErrorKind};

/// First half of the locks of moves that somebody carries out, `pgfv` in ASCII; the other half is the
/// move's number. Taken in the control database, by the session that writes the move down.
const SPACE: i32 = 0x7067_6676;

/// Returns the query for the numbers of the moves that a process is at.
pub(crate) fn alive_sql() -> String {
    format!(
        "SELECT objid::bigint FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND classid = {SPACE} \
         AND objsubid = 2 AND granted AND database = (SELECT oid FROM pg_catalog.pg_database \
         WHERE datname = pg_catalog.current_database())"
    )
}

impl Mover<'_> {
    /// Has others see that somebody is at a move, as long as this process lives.
    ///
    /// That another process has the lock is no error: which of the two goes on is decided by the row.
    pub(super) async fn show_alive(&self, id: i64) -> Result<(), Error> {
        let sql = format!("SELECT pg_catalog.pg_try_advisory_lock({SPACE}, ($1 % 2147483648)::integer)");
        self.catalogue.connection().query(&sql, &[(&id, Type::INT8)]).await.map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Waits until no round of a rollout runs, and lets none run before the transaction is over.
    ///
    /// A round holds the same lock, and takes it before any other. One of a rollout that is written down
    /// beside this begins after it, and sees what is done here.
    async fn lock_rollouts(&self) -> Result<(), Error> {
        let sql = "SELECT 1 FROM control.rollouts WHERE state NOT IN ('done', 'cancelled') ORDER BY id FOR UPDATE";
        self.catalogue.connection().query(sql, &[]).await.map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Refuses while a rollout is about to work on the database.
    pub(super) async fn refuse_rollout(&self, source: &Source) -> Result<(), Error> {
        self.lock_rollouts().await?;
        let rows = self
            .catalogue
            .connection()
            .query(
                "SELECT r.id, r.state FROM control.rollouts r JOIN control.rollout_targets t ON t.rollout = r.id \
             WHERE t.server = $1 AND t.database = $2 AND (t.state = 'running' AND r.state NOT IN ('done', 'cancelled') \
               OR t.state = 'waiting' AND r.state IN ('planned', 'running')) LIMIT 1",
                &[(&source.server, Type::TEXT), (&source.database, Type::TEXT)],
            )
            .await
            .map_err(|error| failed(&error))?;
        let Some(row) = rows.first() else { return Ok(()) };
        let (id, state): (i64, &str) = (row.get(0), row.get(1));
        Err(Error::new(ErrorKind::Failed, format!("rollout {id} is to migrate database {}", source.database))
            .cause(format!("it is {state}"))
            .hinted(format!("wait until it is done, or: pgfleet rollout pause {id}")))
    }

    /// Has rollouts that are not over work on the tenant again, where its strings lead when the transaction
    /// is over: at `server` and `database`, in place of where they led when the move began.
    ///
    /// What was done stays so, and what failed failed: only the place is another one.
    pub(super) async fn return_targets(&self, work: &Move, server: &str, database: &str) -> Result<(), Error> {
        self.lock_rollouts().await?;
        let connection = self.catalogue.connection();
        connection
            .execute(
                "UPDATE control.rollout_targets t SET server = $3, database = $4 FROM control.rollouts r \
                 WHERE r.id = t.rollout AND r.state NOT IN ('done', 'cancelled') \
                   AND t.state IN ('waiting', 'failed', 'skipped') AND t.server = $1 AND t.database = $2 \
                   AND NOT EXISTS (SELECT FROM control.rollout_targets o WHERE o.rollout = t.rollout \
                     AND o.server = $3 AND o.database = $4)",
                &[
                    (&work.from_server, Type::TEXT),
                    (&work.from_database, Type::TEXT),
                    (&server, Type::TEXT),
                    (&database, Type::TEXT),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        connection
            .execute(
                "UPDATE control.rollout_targets t SET state = 'waiting', error = NULL, ended_at = NULL \
                 FROM control.rollouts r WHERE r.id = t.rollout AND r.state NOT IN ('done', 'cancelled') \
                   AND t.state = 'skipped' AND t.tenant = $1",
                &[(&work.tenant, Type::TEXT)],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }
}
