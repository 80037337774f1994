//! Holding what a move is about: sessions, the old database's lock, the row.

use std::time::Duration;

use pgfleet_postgres::lock::{self, LockKey};
use pgfleet_postgres::{Connection, Type, quote_ident, retry};

use super::copy::oid_of;
use super::fence::Fence;
use super::record::{Move, MoveState, failed};
use super::run::Mover;
use super::source::Source;
use crate::error::{Error, ErrorKind};
use crate::physical::Physical;

/// How long to wait for a migration of the database that is to be moved.
const LOCK_TRIES: u32 = 60;

/// The sessions of a move.
pub(super) struct Hands {
    /// The administrator on the old server.
    pub(super) from: Connection,
    /// The administrator on the new server.
    pub(super) to: Connection,
    /// A session in the old database; holds the lock that migrations take.
    pub(super) source: Connection,
}

impl Hands {
    pub(super) fn old<'a>(&'a self, work: &'a Move) -> Fence<'a> {
        Fence { admin: &self.from, database: &work.from_database, oid: work.from_oid }
    }

    pub(super) fn at_new<'a>(&'a self, work: &'a Move) -> Fence<'a> {
        Fence { admin: &self.to, database: &work.to_database, oid: work.to_oid.unwrap_or_default() }
    }

    pub(super) async fn close(self) {
        for connection in [self.source, self.to, self.from] {
            connection.close().await;
        }
    }
}

impl Mover<'_> {
    /// Opens the sessions of a move and takes the old database's lock, so that nobody migrates it.
    pub(super) async fn hands(&self, from: &str, database: &str, to: &str) -> Result<Hands, Error> {
        let source = self.session(from, Some(database)).await?;
        let hands = Hands { from: self.session(from, None).await?, to: self.session(to, None).await?, source };
        let failed =
            |error: &pgfleet_postgres::Error| Error::postgres(format!("cannot lock database {database}"), error);
        for attempt in 1..=LOCK_TRIES {
            if lock::try_lock(&hands.source, LockKey::Migrate).await.map_err(|error| failed(&error))? {
                return Ok(hands);
            }
            tokio::time::sleep(retry::backoff(attempt, Duration::from_millis(20), Duration::from_millis(250))).await;
        }
        let mut error = Error::new(ErrorKind::Failed, format!("cannot lock database {database}"));
        if let Ok(Some(holder)) = lock::holder(&hands.source, LockKey::Migrate).await {
            error = error.cause(format!("a migration or another move holds it: {holder}"));
        }
        Err(error.hinted("wait for it"))
    }

    pub(super) async fn take_hands(&self, work: &Move) -> Result<Hands, Error> {
        let hands = self.hands(&work.from_server, &work.from_database, &work.to_server).await?;
        let there = Physical::of(&hands.source)
            .await
            .map_err(|error| Error::postgres(format!("cannot look at database {}", work.from_database), &error))?;
        if (there.oid, &there.system_identifier) == (work.from_oid, &work.from_identifier) {
            return Ok(hands);
        }
        hands.close().await;
        Err(Error::new(ErrorKind::Failed, format!("{} is not the database that was being moved", work.from()))
            .cause("it was made anew, or the server is another one"))
    }

    /// Takes up a move that another process left; `begin` is the state of one that had failed.
    pub(super) async fn take_up(&self, work: &mut Move, begin: MoveState) -> Result<(), Error> {
        self.catalogue.begin().await?;
        let steps = async {
            crate::tenants::lock(self.catalogue.connection()).await?;
            let now = self.catalogue.lock_move(work).await?;
            if now.state.is_over() || now.state == MoveState::Switched {
                let message = format!("the move of tenant {} is {} since a moment", work.tenant, now.state.word());
                return Err(Error::new(ErrorKind::Failed, message));
            }
            *work = now;
            self.show_alive(work.id).await?;
            if begin == MoveState::Failed {
                work.state = begin;
            } else {
                if work.state == MoveState::Failed {
                    self.check_unchanged(&work.tenant, &Source::of(work)).await?;
                    work.state = begin;
                }
                self.refuse_rollout(&Source::of(work)).await?;
                self.set_moving(&work.tenant, true).await?;
            }
            self.catalogue
                .connection()
                .execute("UPDATE control.moves SET attempt = attempt + 1 WHERE id = $1", &[(&work.id, Type::INT8)])
                .await
                .map_err(|error| failed(&error))?;
            work.attempt += 1;
            work.error = None;
            self.catalogue.advance_move(work).await
        };
        let result = steps.await;
        self.catalogue.end(result).await
    }

    /// Forgets the new database of a move, or keeps the one that was kept for as long as it was to be.
    pub(super) async fn give_up_destination(&self, work: &Move) -> Result<(), Error> {
        let sql = match work.kept {
            Some(_) => {
                "UPDATE control.tenant_databases SET state = 'closed', \
               drop_after = now() + least($3, 3000000000) * interval '1 second' WHERE server = $1 AND database = $2"
            }
            None => {
                "DELETE FROM control.tenant_databases WHERE server = $1 AND database = $2 AND $3::bigint IS NOT NULL"
            }
        };
        self.catalogue
            .connection()
            .execute(
                sql,
                &[(&work.to_server, Type::TEXT), (&work.to_database, Type::TEXT), (&work.keep_seconds, Type::INT8)],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Says that a tenant is being moved, or is not any more.
    pub(super) async fn set_moving(&self, tenant: &str, moving: bool) -> Result<(), Error> {
        self.catalogue
            .connection()
            .execute(
                "UPDATE control.tenants SET moving = $2, updated_at = now() WHERE name = $1",
                &[(&tenant, Type::TEXT), (&moving, Type::BOOL)],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }
}

/// Closes the new database, as one is that was kept; one that is not there is closed.
pub(super) async fn shut(hands: &Hands, work: &Move) -> Result<(), Error> {
    let failed = |error: &pgfleet_postgres::Error| {
        Error::postgres(format!("cannot close database {} on server {}", work.to_database, work.to_server), error)
    };
    let there = oid_of(&hands.to, &work.to_database).await.map_err(|error| failed(&error))?;
    if there.is_none() || there != work.to_oid {
        return Ok(());
    }
    hands.at_new(work).close().await?;
    let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", quote_ident(&work.to_database));
    hands.to.execute_all(&sql).await.map_err(|error| failed(&error))?;
    hands.at_new(work).send_away().await
}
