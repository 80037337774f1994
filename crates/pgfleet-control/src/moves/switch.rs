//! The moment at which a tenant's strings lead to the new database, and what comes behind it.

use pgfleet_postgres::{Connection, Type, quote_ident};
use secrecy::SecretString;

use super::copy::oid_of;
use super::fence::Fence;
use super::record::{Move, MoveState, failed};
use super::run::Mover;
use crate::connections::{holders, tenant_services};
use crate::error::{Error, ErrorKind};
use crate::physical::Physical;
use crate::roles::Login;
use crate::tenants::context;

impl Mover<'_> {
    /// Has the strings lead to the new database: one transaction, before which nobody and after which
    /// everybody is led there.
    pub(super) async fn switch(&self, work: &mut Move, physical: &Physical) -> Result<(), Error> {
        let catalogue = self.catalogue;
        catalogue.begin().await?;
        let steps = async {
            let connection = catalogue.connection();
            crate::tenants::lock(connection).await?;
            let now = catalogue.lock_move(work).await?;
            if now.state != MoveState::Comparing {
                let message = format!("the move of tenant {} is {}", work.tenant, now.state.word());
                return Err(Error::new(ErrorKind::Failed, message));
            }
            for name in &work.connections {
                self.lead(connection, work, name, physical).await?;
            }
            self.solution.share_missing(connection, &work.tenant).await?;
            self.note_databases(connection, work, physical).await?;
            self.return_targets(work, &work.to_server, &work.to_database).await?;
            // What is known of the old database holds for the new one: they were compared.
            let sql = "DELETE FROM control.targets WHERE server = $3 AND database = $4 AND ($1, $2) <> ($3, $4)";
            connection.execute(sql, &places(work)).await.map_err(|error| failed(&error))?;
            let [one, two, three, four] = places(work);
            connection
                .execute(
                    "UPDATE control.targets SET server = $3, database = $4, system_identifier = $5, database_oid = $6 \
                     WHERE server = $1 AND database = $2",
                    &[one, two, three, four, (&physical.system_identifier, Type::TEXT), (&physical.oid, Type::OID)],
                )
                .await
                .map_err(|error| failed(&error))?;
            self.set_moving(&work.tenant, false).await?;
            work.state = MoveState::Switched;
            catalogue.advance_move(work).await?;
            let detail = serde_json::json!({
                "move": work.id, "from": work.from(), "to": work.to(), "contents": work.contents,
            });
            catalogue.audit("tenant moved", &work.tenant, &detail, self.solution.options()).await
        };
        let result = Box::pin(steps).await;
        catalogue.end(result).await
    }

    /// Has one string lead to the new database.
    async fn lead(&self, connection: &Connection, work: &Move, name: &str, physical: &Physical) -> Result<(), Error> {
        let keys = self.solution.keys()?;
        let database = work.to_database.replace('\\', "\\\\").replace('\'', "\\'");
        let text = SecretString::from(format!("dbname='{database}'"));
        let holder = if name.is_empty() {
            tenant_services(&self.solution.manifest).find(|service| work.services.contains(&service.name))
        } else {
            holders(&self.solution.manifest, name)?.first().copied()
        };
        let holder = holder.ok_or_else(|| {
            Error::new(ErrorKind::Configuration, format!("no service reads the strings of tenant {}", work.tenant))
        })?;
        let address = self.solution.text_address(holder, &work.to_server, &text, &work.tenant, Login::App)?;
        let shown = crate::tenants::shown(&address, &text);
        let sealed = keys.seal(&text, &context(&work.tenant, name))?;
        let version = i32::try_from(physical.server_version).ok();
        connection
            .execute(
                "UPDATE control.tenant_strings SET key_id = $3, sealed = $4, shown = $5, server = $6, \
                   system_identifier = $7, database = $8, database_oid = $9, server_version = $10, checked_at = now(), \
                   changed_at = clock_timestamp() WHERE tenant = $1 AND connection = $2",
                &[
                    (&work.tenant, Type::TEXT),
                    (&name, Type::TEXT),
                    (&keys.id(), Type::TEXT),
                    (&sealed, Type::BYTEA),
                    (&shown, Type::TEXT),
                    (&work.to_server, Type::TEXT),
                    (&physical.system_identifier, Type::TEXT),
                    (&physical.database, Type::TEXT),
                    (&physical.oid, Type::OID),
                    (&version, Type::INT4),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }

    async fn note_databases(&self, connection: &Connection, work: &Move, physical: &Physical) -> Result<(), Error> {
        connection
            .execute(
                "UPDATE control.tenant_databases SET state = 'open', system_identifier = $3, database_oid = $4, \
                   closed_at = NULL, drop_after = NULL WHERE server = $1 AND database = $2",
                &[
                    (&work.to_server, Type::TEXT),
                    (&work.to_database, Type::TEXT),
                    (&physical.system_identifier, Type::TEXT),
                    (&physical.oid, Type::OID),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        connection
            .execute(
                "UPDATE control.tenant_databases SET state = 'closed', closed_at = now(), \
                   drop_after = now() + least($3, 3000000000) * interval '1 second' WHERE server = $1 AND database = $2",
                &[
                    (&work.from_server, Type::TEXT),
                    (&work.from_database, Type::TEXT),
                    (&work.keep_seconds, Type::INT8),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Closes the old database, which nothing leads to any more, and ends the move.
    ///
    /// One that pgfleet did not make stays as it is: closed to everybody but the administrator.
    pub(super) async fn leave(&self, work: &mut Move, from: &Connection) -> Result<(), Error> {
        let failed = |error: &pgfleet_postgres::Error| {
            Error::postgres(
                format!("cannot close database {} on server {}", work.from_database, work.from_server),
                error,
            )
            .hinted(format!(
                "tenant {} is served from {} now; the same command goes on",
                work.tenant,
                work.to()
            ))
        };
        let there = oid_of(from, &work.from_database).await.map_err(|error| failed(&error))?;
        if work.from_own && there == Some(work.from_oid) {
            let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", quote_ident(&work.from_database));
            match from.execute_all(&sql).await {
                Ok(()) => {
                    let fence = Fence { admin: from, database: &work.from_database, oid: work.from_oid };
                    fence.send_away().await?;
                }
                // It was dropped at this moment: nothing is kept for no time.
                Err(error) if error.sql_state() == Some("3D000") => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        work.state = MoveState::Done;
        self.catalogue.advance_move(work).await
    }
}

/// The old and the new place, to be bound.
fn places(work: &Move) -> [(&(dyn pgfleet_postgres::ToSql + Sync), Type); 4] {
    [
        (&work.from_server, Type::TEXT),
        (&work.from_database, Type::TEXT),
        (&work.to_server, Type::TEXT),
        (&work.to_database, Type::TEXT),
    ]
}
