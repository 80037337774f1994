//! What a string leads to that was stored without a look: making it where we may, and looking then.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgfleet_migrate::Observer;
use pgfleet_postgres::{Address, Connection, ErrorKind as PgErrorKind, Purpose, Type, connect, quote_ident};

use super::check::{Tried, refuse_host};
use super::verbs::{NewString, execute, lock, refuse_shared};
use super::{find, string_name};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::physical::Physical;
use crate::plans::Plans;
use crate::roles::{Login, Roles};
use crate::solution::Solution;
use crate::targets::FleetTarget;
use crate::templates::Shape;
use pgfleet_postgres::identity::system_identifier;

impl Solution {
    /// Makes the database of a tenant that one of its strings leads to, when it is not there; says
    /// whether it was made.
    ///
    /// On a server of the solution it is a copy of the template, with the rights of every database that
    /// pgfleet makes; where the string names a role of its own, that role makes it.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or the role may not make it.
    ///
    /// # Cancel safety
    ///
    /// Whoever stops leaves no database, or one that the next call finishes.
    pub(crate) async fn make_missing(
        &self,
        target: &FleetTarget,
        connection: &str,
        plans: &Plans,
        observer: &Arc<dyn Observer>,
    ) -> Result<bool, Error> {
        let Some(first) = target.services.first() else { return Ok(false) };
        let service = crate::jobs::find_service(&self.manifest, first)?;
        let address = self.migrator_address(target, first)?;
        let failed = |error: &pgfleet_postgres::Error| {
            Error::postgres(format!("cannot make database {} of tenant {}", target.database, target.tenant), error)
        };
        match connect(&address, &Purpose::new("pgfleet tenant")).await {
            Ok(session) => {
                session.close().await;
                return Ok(false);
            }
            Err(error) if error.kind() == PgErrorKind::DatabaseMissing => {}
            // Closed, since somebody died while making it: to be finished, where it is ours.
            Err(error) if error.sql_state() == Some("55000") => {}
            // Whoever uses it next can say more about it.
            Err(_) => return Ok(false),
        }
        let ours = Roles::of(&service.name).both(Login::Migrator).contains(&address.user());
        match self.servers().find(|(name, _)| *name == target.server).filter(|_| ours) {
            Some((_, server)) => {
                let admin =
                    connect(&server.admin, &Purpose::new("pgfleet tenant")).await.map_err(|error| failed(&error))?;
                let copied = Box::pin(self.copy_for(&admin, target, connection, plans, observer)).await;
                admin.close().await;
                copied
            }
            None => create_as_told(&address).await.map_err(|error| {
                failed(&error).hinted(format!("make it: CREATE DATABASE {}", quote_ident(&target.database)))
            }),
        }
    }

    async fn copy_for(
        &self,
        admin: &Connection,
        target: &FleetTarget,
        connection: &str,
        plans: &Plans,
        observer: &Arc<dyn Observer>,
    ) -> Result<bool, Error> {
        let shape = Shape::of(&self.manifest, &target.services);
        // A connection of its own: who makes a template holds a lock on it.
        let catalogue = self.tenant_catalogue().await?;
        let write = |error: &pgfleet_postgres::Error| Error::postgres("cannot write to the control database", error);
        let work = async {
            let key: [(&(dyn pgfleet_postgres::ToSql + Sync), Type); 3] =
                [(&target.server, Type::TEXT), (&target.database, Type::TEXT), (&target.tenant, Type::TEXT)];
            let rows = catalogue
                .connection()
                .query(
                    "INSERT INTO control.tenant_databases AS d (server, database, tenant, connection, services, state) \
                     VALUES ($1, $2, $3, $4, $5, 'creating') \
                     ON CONFLICT (server, database) DO UPDATE SET services = excluded.services \
                       WHERE d.tenant = excluded.tenant \
                     RETURNING 1",
                    &[
                        key[0].clone(),
                        key[1].clone(),
                        key[2].clone(),
                        (&connection, Type::TEXT),
                        (&target.services, Type::TEXT_ARRAY),
                    ],
                )
                .await
                .map_err(|error| write(&error))?;
            if rows.is_empty() {
                let message = format!("database {} on server {} is another tenant's", target.database, target.server);
                return Err(Error::new(ErrorKind::Failed, message).hinted("name another database in the string"));
            }
            let template = self.ensure_template(&catalogue, &target.server, &shape, plans, observer).await?;
            let copied = self.copy_template(admin, &template, &shape, &target.tenant, &target.database).await?;
            let identifier = system_identifier(admin).await.map_err(|error| write(&error))?;
            catalogue
                .connection()
                .execute(
                    "UPDATE control.tenant_databases SET state = 'open', system_identifier = $4, database_oid = $5, \
                     closed_at = NULL, drop_after = NULL \
                     WHERE server = $1 AND database = $2 AND tenant = $3",
                    &[
                        key[0].clone(),
                        key[1].clone(),
                        key[2].clone(),
                        (&identifier, Type::TEXT),
                        (&copied.oid, Type::OID),
                    ],
                )
                .await
                .map_err(|error| write(&error))?;
            Ok(copied.made)
        };
        let made = Box::pin(work).await;
        catalogue.close().await;
        made
    }

    /// Looks where one of a tenant's strings leads that was stored without a look, as
    /// [`set_connection`](Self::set_connection) does, and stores it with the string.
    ///
    /// # Errors
    ///
    /// It leads nowhere, to a service's own database, or to another tenant's.
    pub(crate) async fn look_at_unseen(
        &self,
        name: &str,
        connection: &str,
        observer: &Arc<dyn Observer>,
    ) -> Result<(), Error> {
        let tenant = find(&self.tenants().await?, name)?.clone();
        let names: BTreeSet<String> = tenant.strings.iter().map(|string| string.connection.clone()).collect();
        let opened = self.open_strings(&tenant).await?;
        let Some((known, text)) = opened.into_iter().find(|(known, _)| known.connection == connection) else {
            return Err(Error::new(ErrorKind::Failed, format!("{} was taken away", string_name(connection))));
        };
        if known.physical.is_some() {
            return Ok(());
        }
        let users = self.users(connection, &names)?;
        let hosts = self.host_databases().await?;
        let string = NewString { connection: connection.to_owned(), text };
        let tried = self.try_string(name, &string, &users, &hosts, observer).await?;
        let Some(physical) = &tried.physical else { return Ok(()) };
        let version = i32::try_from(physical.server_version).ok();
        let catalogue = self.tenant_catalogue().await?;
        catalogue.begin().await?;
        let work = async {
            lock(catalogue.connection()).await?;
            if !known.shared {
                refuse_shared(catalogue.connection(), name, &string, &tried).await?;
            }
            catalogue
                .connection()
                .execute(
                    "UPDATE control.tenant_strings SET system_identifier = $4, database = $5, database_oid = $6, \
                     server_version = $7, checked_at = now() \
                     WHERE tenant = $1 AND connection = $2 AND shown = $3 AND checked_at IS NULL",
                    &[
                        (&name, Type::TEXT),
                        (&connection, Type::TEXT),
                        (&known.shown, Type::TEXT),
                        (&physical.system_identifier, Type::TEXT),
                        (&physical.database, Type::TEXT),
                        (&physical.oid, Type::OID),
                        (&version, Type::INT4),
                    ],
                )
                .await
                .map_err(|error| Error::postgres("cannot change the tenants", &error))?;
            Ok(())
        };
        let result = work.await;
        let result = catalogue.end(result).await;
        catalogue.close().await;
        result
    }

    /// Looks which database a target is to which strings lead that were stored unseen, and stores it with
    /// them, so that what becomes of the database is known to be about it.
    ///
    /// None when it cannot be looked at: who is to work there says why.
    ///
    /// # Errors
    ///
    /// It is a service's own database, or another tenant's; nothing may be done there in this tenant's
    /// name.
    pub(crate) async fn see(&self, catalogue: &Catalogue, target: &FleetTarget) -> Result<Option<Physical>, Error> {
        let Some(service) = target.services.first() else { return Ok(None) };
        let address = self.migrator_address(target, service)?;
        let Ok(session) = connect(&address, &Purpose::new("pgfleet tenant")).await else { return Ok(None) };
        let seen = Physical::of(&session).await;
        session.close().await;
        let Ok(physical) = seen else { return Ok(None) };
        refuse_host(&physical, &[], &self.host_databases().await?)?;
        catalogue.begin().await?;
        let work = async {
            let connection = catalogue.connection();
            lock(connection).await?;
            for unseen in &target.unseen {
                let string = NewString { connection: unseen.connection.clone(), text: String::new().into() };
                let shown = unseen.shown.clone();
                let tried = Tried { shown, physical: Some(physical.clone()), notes: Vec::new() };
                if !unseen.shared {
                    refuse_shared(connection, &unseen.tenant, &string, &tried).await?;
                }
                execute(
                    connection,
                    "UPDATE control.tenant_strings SET system_identifier = $4, database = $5, database_oid = $6, \
                       server_version = $7, checked_at = now() WHERE tenant = $1 AND connection = $2 \
                       AND changed_at = $3::text::timestamptz AND system_identifier = ''",
                    &[
                        (&unseen.tenant, Type::TEXT),
                        (&unseen.connection, Type::TEXT),
                        (&unseen.changed_at, Type::TEXT),
                        (&physical.system_identifier, Type::TEXT),
                        (&physical.database, Type::TEXT),
                        (&physical.oid, Type::OID),
                        (&i32::try_from(physical.server_version).ok(), Type::INT4),
                    ],
                )
                .await?;
            }
            Ok(())
        };
        let result = Box::pin(work).await;
        catalogue.end(result).await.map(|()| Some(physical))
    }
}

/// Makes a database as the role that a string names.
async fn create_as_told(address: &Address) -> Result<bool, pgfleet_postgres::Error> {
    let session = connect(&address.with_database("postgres"), &Purpose::new("pgfleet tenant")).await?;
    let created = session.execute_all(&format!("CREATE DATABASE {}", quote_ident(address.database()))).await;
    session.close().await;
    match created {
        Ok(()) => Ok(true),
        // Made by somebody else at the same moment.
        Err(error) if matches!(error.sql_state(), Some("42P04" | "23505")) => Ok(false),
        Err(error) => Err(error),
    }
}
