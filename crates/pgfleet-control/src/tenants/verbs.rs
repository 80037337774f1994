//! What can be done with a tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pgfleet_migrate::Observer;
use pgfleet_postgres::{Connection, Type};
use secrecy::{ExposeSecret as _, SecretString};

use super::check::Tried;
use super::create::{Home, NewTenant, check_name, refuse_taken};
use super::replaced::Unled;
use super::{Tenant, TenantState, context, properties, string_name};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::seal::KeyRing;
use crate::solution::Solution;

/// A connection string that somebody gives a tenant.
#[derive(Debug, Clone)]
pub struct NewString {
    /// Which: empty is the default, else the name of a service or of a module's connection.
    pub connection: String,
    /// The string.
    pub text: SecretString,
}

/// How strings are taken.
#[derive(Debug, Clone, Copy)]
pub struct Choices {
    /// Whether they are tried before they are stored.
    pub check: bool,
    /// Whether the database may be another tenant's, too.
    pub shared: bool,
}

impl Default for Choices {
    fn default() -> Self {
        Self { check: true, shared: false }
    }
}

/// What came of a change.
#[derive(Debug, Clone)]
pub struct Done {
    /// The tenant as it is now.
    pub tenant: Tenant,
    /// Whether anything is different from before.
    pub changed: bool,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

impl Solution {
    /// Makes a tenant with the strings of databases that exist; without a string it lives in the
    /// services' own databases.
    ///
    /// # Errors
    ///
    /// A name that cannot be one or is taken; a string that leads nowhere, to a service's own database
    /// or to another tenant's. Nothing is stored then.
    pub async fn create_tenant(
        &self,
        name: &str,
        display_name: Option<&str>,
        strings: &[NewString],
        choices: Choices,
        observer: &Arc<dyn Observer>,
    ) -> Result<Done, Error> {
        check_name(name)?;
        let new = NewTenant {
            name: name.to_owned(),
            display_name: display_name.map(str::to_owned),
            properties: BTreeMap::new(),
            home: Home::Shared,
        };
        self.create_given(&new, strings, choices, observer).await
    }

    /// Makes a tenant that gets no database of its own.
    pub(super) async fn create_given(
        &self,
        new: &NewTenant,
        strings: &[NewString],
        choices: Choices,
        observer: &Arc<dyn Observer>,
    ) -> Result<Done, Error> {
        let name = &new.name;
        let catalogue = self.tenant_catalogue().await?;
        let taken = || {
            Error::new(ErrorKind::Failed, format!("there is a tenant {name} already"))
                .hinted(format!("see it: pgfleet tenant show {name}"))
        };
        if let Some(there) = self.read_tenants(catalogue.connection(), Some(name)).await?.pop() {
            refuse_taken(&there)?;
            return Err(taken());
        }
        let names: BTreeSet<String> = strings.iter().map(|string| string.connection.clone()).collect();
        if names.len() < strings.len() {
            return Err(Error::new(ErrorKind::Configuration, "one connection is given two strings"));
        }
        let tried = self.try_all(name, strings, &names, choices, observer).await?;
        let keys = self.keys()?;
        let properties = properties::seal(&keys, name, &new.properties)?;
        catalogue.begin().await?;
        let work = async {
            let connection = catalogue.connection();
            lock(connection).await?;
            let made = execute(
                connection,
                "INSERT INTO control.tenants (name, display_name, state) VALUES ($1, $2, 'active') \
                 ON CONFLICT (name) DO NOTHING",
                &[(name, Type::TEXT), (&new.display_name.as_ref().unwrap_or(name), Type::TEXT)],
            )
            .await?;
            if made == 0 {
                return Err(taken());
            }
            properties::store(connection, &keys, name, &properties).await?;
            self.store_all(connection, name, strings, &tried, choices).await?;
            let strings: Vec<_> =
                strings.iter().zip(&tried).map(|(string, tried)| (&string.connection, &tried.shown)).collect();
            let detail = serde_json::json!({ "strings": strings });
            catalogue.audit("tenant create", name, &detail, self.options()).await
        };
        let result = work.await;
        self.finish(catalogue, name, result, true, tried).await
    }

    /// Gives a tenant a string, in place of the one that it has, if any.
    ///
    /// A database that was made for it and to which no string leads any more is closed, and dropped after
    /// a while; until then [`restore_tenant`](Self::restore_tenant) leads the tenant back there.
    ///
    /// # Errors
    ///
    /// There is no such tenant; and as [`create_tenant`](Self::create_tenant).
    pub async fn set_connection(
        &self,
        name: &str,
        string: NewString,
        choices: Choices,
        observer: &Arc<dyn Observer>,
    ) -> Result<Done, Error> {
        let tenant = self.tenant(name).await?;
        let mut names: BTreeSet<String> = tenant.strings.iter().map(|string| string.connection.clone()).collect();
        names.insert(string.connection.clone());
        let strings = [string];
        let tried = self.try_all(name, &strings, &names, choices, observer).await?;
        let opened = self.open_strings(&tenant).await?;
        let before = opened.iter().find(|(known, _)| known.connection == strings[0].connection);
        let same = |known: &str, text: &SecretString| {
            known.is_empty() && text.expose_secret() == strings[0].text.expose_secret()
        };
        let changed = before.is_none_or(|(known, text)| !same(&known.server, text));
        let catalogue = self.tenant_catalogue().await?;
        catalogue.begin().await?;
        let work = async {
            let connection = catalogue.connection();
            lock(connection).await?;
            touch(connection, name).await?;
            self.store_all(connection, name, &strings, &tried, choices).await?;
            let detail = serde_json::json!({
                "connection": strings[0].connection,
                "before": before.map(|(known, _)| &known.shown),
                "after": tried[0].shown,
            });
            catalogue.audit("tenant set-connection", name, &detail, self.options()).await?;
            self.note_unled(&catalogue, name).await
        };
        let result = Box::pin(work).await;
        let unled = catalogue.end(result).await;
        self.finish_unled(catalogue, name, unled, changed, tried).await
    }

    /// Takes a string away from a tenant, whose connections then go where the next rule leads.
    ///
    /// What was made for it and is led to no more is closed, as with [`set_connection`](Self::set_connection).
    ///
    /// # Errors
    ///
    /// There is no such tenant. That it has no such string is none: nothing is changed then.
    pub async fn unset_connection(&self, name: &str, connection: &str) -> Result<Done, Error> {
        let tenant = self.tenant(name).await?;
        let before = tenant.strings.iter().find(|string| string.connection == connection);
        if before.is_none() && !connection.is_empty() {
            // A name that is no longer in the manifest may still have a string.
            crate::connections::holders(&self.manifest, connection)?;
        }
        let catalogue = self.tenant_catalogue().await?;
        catalogue.begin().await?;
        let work = async {
            let database = catalogue.connection();
            lock(database).await?;
            let removed = execute(
                database,
                "DELETE FROM control.tenant_strings WHERE tenant = $1 AND connection = $2",
                &[(&name, Type::TEXT), (&connection, Type::TEXT)],
            )
            .await?;
            if removed > 0 {
                touch(database, name).await?;
                let detail =
                    serde_json::json!({ "connection": connection, "before": before.map(|string| &string.shown) });
                catalogue.audit("tenant set-connection", name, &detail, self.options()).await?;
                return self.note_unled(&catalogue, name).await;
            }
            Ok(Unled::default())
        };
        let result = Box::pin(work).await;
        let unled = catalogue.end(result).await;
        self.finish_unled(catalogue, name, unled, before.is_some(), Vec::new()).await
    }

    /// Has services refuse a tenant (`enabled` false), or serve it again.
    ///
    /// # Errors
    ///
    /// There is no such tenant, or it is neither active nor disabled. That it is already as it should
    /// be is none.
    pub async fn enable_tenant(&self, name: &str, enabled: bool) -> Result<Done, Error> {
        let (from, to) = if enabled {
            (TenantState::Disabled, TenantState::Active)
        } else {
            (TenantState::Active, TenantState::Disabled)
        };
        let catalogue = self.tenant_catalogue().await?;
        catalogue.begin().await?;
        let work = async {
            let connection = catalogue.connection();
            lock(connection).await?;
            let state = self.read_tenant(connection, name).await?.state;
            if state == to {
                return Ok(false);
            }
            if state != from {
                let (state, from, to) = (state.word(), from.word(), to.word());
                let message = format!("tenant {name} is {state}: only one that is {from} can become {to}");
                return Err(Error::new(ErrorKind::Failed, message));
            }
            execute(
                connection,
                "UPDATE control.tenants SET state = $2, updated_at = now() WHERE name = $1",
                &[(&name, Type::TEXT), (&to.word(), Type::TEXT)],
            )
            .await?;
            let action = if enabled { "tenant enable" } else { "tenant disable" };
            catalogue.audit(action, name, &serde_json::json!({}), self.options()).await?;
            Ok(true)
        };
        let result = work.await;
        let changed = result.as_ref().is_ok_and(|changed| *changed);
        self.finish(catalogue, name, result.map(|_| ()), changed, Vec::new()).await
    }

    /// Tries all strings, or only reads them.
    async fn try_all(
        &self,
        tenant: &str,
        strings: &[NewString],
        names: &BTreeSet<String>,
        choices: Choices,
        observer: &Arc<dyn Observer>,
    ) -> Result<Vec<Tried>, Error> {
        // What can be said without asking anybody comes first.
        let users: Vec<_> =
            strings.iter().map(|string| self.users(&string.connection, names)).collect::<Result<_, _>>()?;
        for (string, users) in strings.iter().zip(&users) {
            self.look_at(tenant, string, users)?;
        }
        let hosts = if choices.check && !strings.is_empty() { self.host_databases().await? } else { Vec::new() };
        let mut tried = Vec::with_capacity(strings.len());
        for (string, users) in strings.iter().zip(&users) {
            tried.push(if choices.check {
                self.try_string(tenant, string, users, &hosts, observer).await?
            } else {
                self.look_at(tenant, string, users)?
            });
        }
        Ok(tried)
    }

    /// Stores strings and what services read of them; the lock is held.
    async fn store_all(
        &self,
        connection: &Connection,
        tenant: &str,
        strings: &[NewString],
        tried: &[Tried],
        choices: Choices,
    ) -> Result<(), Error> {
        if strings.is_empty() {
            return Ok(());
        }
        let keys = self.keys()?;
        for (string, tried) in strings.iter().zip(tried) {
            if !choices.shared {
                refuse_shared(connection, tenant, string, tried).await?;
            }
            store(connection, &keys, tenant, string, tried, choices, "").await?;
            if let Some(physical) = &tried.physical {
                // Who shares a database is seeded there, too: it is not where it was to be any more.
                execute(
                    connection,
                    "DELETE FROM control.targets WHERE system_identifier = $1 AND database_oid = $2 AND tenant NOT IN ('', $3)",
                    &[(&physical.system_identifier, Type::TEXT), (&physical.oid, Type::OID), (&tenant, Type::TEXT)],
                )
                .await?;
            }
        }
        self.share_missing(connection, tenant).await
    }

    /// Closes what no string leads to any more, and reads the tenant again.
    async fn finish_unled(
        &self,
        catalogue: Catalogue,
        name: &str,
        unled: Result<Unled, Error>,
        changed: bool,
        tried: Vec<Tried>,
    ) -> Result<Done, Error> {
        let notes = match unled {
            Ok(unled) => self.close_unled(name, unled).await,
            Err(error) => {
                catalogue.close().await;
                return Err(error);
            }
        };
        let tenant = self.read_tenant(catalogue.connection(), name).await;
        catalogue.close().await;
        let notes = tried.into_iter().flat_map(|tried| tried.notes).chain(notes).collect();
        Ok(Done { tenant: tenant?, changed, notes })
    }

    /// Ends the transaction and reads the tenant again.
    async fn finish(
        &self,
        catalogue: Catalogue,
        name: &str,
        result: Result<(), Error>,
        changed: bool,
        tried: Vec<Tried>,
    ) -> Result<Done, Error> {
        catalogue.end(result).await?;
        let tenant = self.read_tenant(catalogue.connection(), name).await;
        catalogue.close().await;
        let tenant = tenant?;
        Ok(Done { tenant, changed, notes: tried.into_iter().flat_map(|tried| tried.notes).collect() })
    }
}

/// Lets one change of tenants run at a time: two of them could each find a database free.
pub(crate) async fn lock(connection: &Connection) -> Result<(), Error> {
    connection
        .execute_all("LOCK TABLE control.tenant_strings IN SHARE ROW EXCLUSIVE MODE")
        .await
        .map_err(|error| Error::postgres("cannot change the tenants", &error))
}

/// Marks a tenant as changed; it may have gone since it was read, or be moved now.
pub(super) async fn touch(connection: &Connection, tenant: &str) -> Result<(), Error> {
    let sql = "UPDATE control.tenants SET updated_at = now() WHERE name = $1 RETURNING moving";
    let rows = connection
        .query(sql, &[(&tenant, Type::TEXT)])
        .await
        .map_err(|error| Error::postgres("cannot change the tenants", &error))?;
    match rows.first().map(|row| row.get(0)) {
        None => Err(Error::new(ErrorKind::Configuration, format!("there is no tenant `{tenant}` any more"))),
        Some(true) => Err(Error::new(ErrorKind::Failed, format!("tenant {tenant} is being moved"))
            .hinted(format!("look: pgfleet tenant move {tenant} --status"))),
        Some(false) => Ok(()),
    }
}

pub(super) async fn refuse_shared(
    connection: &Connection,
    tenant: &str,
    string: &NewString,
    tried: &Tried,
) -> Result<(), Error> {
    let Some(physical) = &tried.physical else { return Ok(()) };
    let rows = connection
        .query(
            "SELECT tenant, connection FROM control.tenant_strings WHERE tenant <> $1 AND system_identifier = $2 \
             AND (database_oid = $3 OR database = $4) ORDER BY tenant, connection LIMIT 1",
            &[
                (&tenant, Type::TEXT),
                (&physical.system_identifier, Type::TEXT),
                (&physical.oid, Type::OID),
                (&physical.database, Type::TEXT),
            ],
        )
        .await
        .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (other, connection): (&str, &str) = (row.get(0), row.get(1));
    let message = format!(
        "database {} on {} is tenant {other}'s already ({})",
        physical.database,
        tried.shown,
        string_name(connection)
    );
    Err(Error::new(ErrorKind::Failed, message).hinted(format!(
        "two tenants in one database see each other's rows unless the services keep them apart; if yours do, say \
         --shared{}",
        if string.connection.is_empty() { "" } else { " for this string" }
    )))
}

/// Stores a string; `server` is the one on which pgfleet made the database, empty for a string that was
/// given.
pub(super) async fn store(
    connection: &Connection,
    keys: &KeyRing,
    tenant: &str,
    string: &NewString,
    tried: &Tried,
    choices: Choices,
    server: &str,
) -> Result<(), Error> {
    let sealed = keys.seal(&string.text, &context(tenant, &string.connection))?;
    let physical = tried.physical.as_ref();
    let system_identifier = physical.map_or("", |physical| &physical.system_identifier);
    let database = physical.map_or("", |physical| &physical.database);
    let version = physical.and_then(|physical| i32::try_from(physical.server_version).ok());
    execute(
        connection,
        "INSERT INTO control.tenant_strings (tenant, connection, key_id, sealed, shown, system_identifier, database, \
           database_oid, server_version, checked_at, shared, server) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN $10 THEN now() END, $11, $12) \
         ON CONFLICT (tenant, connection) DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed, \
           shown = excluded.shown, system_identifier = excluded.system_identifier, database = excluded.database, \
           database_oid = excluded.database_oid, server_version = excluded.server_version, \
           checked_at = excluded.checked_at, shared = excluded.shared, server = excluded.server, changed_at = clock_timestamp()",
        &[
            (&tenant, Type::TEXT),
            (&string.connection, Type::TEXT),
            (&keys.id(), Type::TEXT),
            (&sealed, Type::BYTEA),
            (&tried.shown, Type::TEXT),
            (&system_identifier, Type::TEXT),
            (&database, Type::TEXT),
            (&physical.map(|physical| physical.oid), Type::OID),
            (&version, Type::INT4),
            (&physical.is_some(), Type::BOOL),
            (&choices.shared, Type::BOOL),
            (&server, Type::TEXT),
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn execute(
    connection: &Connection,
    sql: &str,
    values: &[(&(dyn pgfleet_postgres::ToSql + Sync), Type)],
) -> Result<u64, Error> {
    connection.execute(sql, values).await.map_err(|error| Error::postgres("cannot change the tenants", &error))
}
