//! The databases made for a tenant to which no string leads any more, since it was given others.
//!
//! They are closed like those of a tenant that is deleted: in the transaction that changes the strings it
//! is written down, then the server is told. A process that dies between the two leaves a row that says
//! `closed` and a database that is open: `mend_tenants` finds and closes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgfleet_migrate::Observer;
use pgfleet_postgres::{Connection, Row, Type};

use super::bench::Bench;
use super::closing::Closed;
use super::life::Half;
use super::verbs::{execute, lock, touch};
use super::workshop::Workshop;
use super::{Done, Keep, OwnDatabase, Tenant, TenantState, properties};
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::solution::Solution;

/// An open database of tenant `$1`: whether a string of its own leads there, which other tenant's does,
/// and whether one that nobody has looked at is for a database of that name.
const LED: &str = "SELECT d.server, d.database, \
      EXISTS (SELECT FROM control.tenant_strings s WHERE s.tenant = d.tenant AND s.system_identifier = d.system_identifier \
        AND (s.database_oid = d.database_oid OR s.database = d.database)), \
      (SELECT min(s.tenant) FROM control.tenant_strings s WHERE s.tenant <> d.tenant \
        AND s.system_identifier = d.system_identifier \
        AND (s.database_oid = d.database_oid OR s.database = d.database)), \
      EXISTS (SELECT FROM control.tenant_strings s WHERE s.system_identifier = '' \
        AND split_part(regexp_replace(s.shown, '[?].*$', ''), '/', 4) = d.database) \
    FROM control.tenant_databases d \
    WHERE d.tenant = $1 AND d.state = 'open' AND d.system_identifier <> '' ORDER BY d.server, d.database";

/// A closed database of tenant `$1` that a move did not leave behind, the one closed last first.
const REPLACED: &str = "SELECT d.server, d.database FROM control.tenant_databases d \
    WHERE d.tenant = $1 AND d.state = 'closed' \
      AND NOT coalesce((SELECT (m.from_server, m.from_database) = (d.server, d.database) FROM control.moves m \
        WHERE m.tenant = d.tenant AND m.state IN ('switched', 'done') \
          AND ((m.from_server, m.from_database) = (d.server, d.database) \
            OR (m.to_server, m.to_database) = (d.server, d.database)) ORDER BY m.id DESC LIMIT 1), false) \
    ORDER BY d.closed_at DESC, d.server, d.database";

/// What became of a tenant's databases when its strings changed.
#[derive(Debug, Default)]
pub(super) struct Unled {
    /// Server and name of those that are to be closed.
    pub(super) closed: Vec<(String, String)>,
    /// What is worth knowing of the others.
    pub(super) notes: Vec<String>,
}

impl Solution {
    /// Writes down, in the transaction that changed a tenant's strings, that the databases are closed to
    /// which none leads any more. The lock on tenants is held.
    ///
    /// One that another tenant's string leads to becomes that tenant's; one that a string may lead to
    /// which nobody looked at stays as it is.
    pub(super) async fn note_unled(&self, catalogue: &Catalogue, tenant: &str) -> Result<Unled, Error> {
        let connection = catalogue.connection();
        let failed = |error: &pgfleet_postgres::Error| Error::postgres("cannot read the tenants", error);
        let mut unled = Unled::default();
        let keep = i64::try_from(self.manifest.tenants.drop_after.as_secs()).unwrap_or(i64::MAX);
        for row in connection.query(LED, &[(&tenant, Type::TEXT)]).await.map_err(|error| failed(&error))? {
            let (server, database): (String, String) = (row.get(0), row.get(1));
            let (own, other, unseen): (bool, Option<String>, bool) = (row.get(2), row.get(3), row.get(4));
            let key: [(&(dyn pgfleet_postgres::ToSql + Sync), Type); 2] =
                [(&server, Type::TEXT), (&database, Type::TEXT)];
            let [at, named] = key.clone();
            if own {
                continue;
            }
            if let Some(other) = other {
                let sql = "UPDATE control.tenant_databases SET tenant = $3 WHERE server = $1 AND database = $2";
                execute(connection, sql, &[at, named, (&other, Type::TEXT)]).await?;
                unled
                    .notes
                    .push(format!("database {database} on {server} is tenant {other}'s now, whose string leads there"));
                continue;
            }
            if unseen {
                unled.notes.push(format!(
                    "database {database} on {server} stays open: a string that was stored unseen may lead there"
                ));
                continue;
            }
            execute(
                connection,
                "UPDATE control.tenant_databases SET state = 'closed', closed_at = now(), \
                   drop_after = now() + least($3::bigint, 3000000000) * interval '1 second' \
                 WHERE server = $1 AND database = $2",
                &[at, named, (&keep, Type::INT8)],
            )
            .await?;
            catalogue.forget_standings(&server, &database).await?;
            // A rollout that was to migrate it has nothing to do there any more.
            let [at, named] = key;
            execute(
                connection,
                "UPDATE control.rollout_targets t SET state = 'skipped', error = 'no string leads there any more', \
                   ended_at = clock_timestamp() FROM control.rollouts r WHERE r.id = t.rollout \
                   AND r.state NOT IN ('done', 'cancelled') AND t.state = 'waiting' AND t.server = $1 AND t.database = $2",
                &[at, named],
            )
            .await?;
            let detail = serde_json::json!({ "server": server, "database": database });
            catalogue.audit("tenant close", tenant, &detail, self.options()).await?;
            unled.closed.push((server, database));
        }
        Ok(unled)
    }

    /// Closes what [`note_unled`](Self::note_unled) has written down, and returns what is worth knowing.
    ///
    /// What cannot be closed is no error: the strings are changed, and `mend_tenants` closes it.
    pub(super) async fn close_unled(&self, tenant: &str, unled: Unled) -> Vec<String> {
        let Unled { closed, mut notes } = unled;
        if closed.is_empty() {
            return notes;
        }
        let work = async {
            let mut bench = Bench::open(self, false).await?;
            let held = async {
                bench.hold(tenant).await?;
                let closing = Box::pin(self.close_held(&mut bench, tenant, &closed)).await;
                bench.release(tenant).await;
                closing
            };
            let held = held.await;
            bench.close().await;
            held
        };
        match Box::pin(work).await {
            Ok(said) => notes.extend(said),
            Err(error) => notes.push(format!(
                "{error}: {}; nothing leads there any more, and this closes it: pgfleet tenant mend",
                error.causes().join(": ")
            )),
        }
        notes
    }

    /// Closes databases of a tenant that is held, as far as they are to be closed still.
    pub(super) async fn close_held(
        &self,
        bench: &mut Bench,
        tenant: &str,
        closed: &[(String, String)],
    ) -> Result<Vec<String>, Error> {
        // Gone with it, when somebody has deleted it since.
        let Some(found) = self.read_tenants(bench.catalogue.connection(), Some(tenant)).await?.pop() else {
            return Ok(Vec::new());
        };
        let mut said = Vec::new();
        for own in found.databases.iter().filter(|own| own.state == "closed") {
            if !closed.iter().any(|(server, database)| own.server == *server && own.database == *database) {
                continue;
            }
            let place = format!("database {} on {}", own.database, own.server);
            said.push(match self.close_own(bench, tenant, own, Keep::AsConfigured).await? {
                Closed::Shut(after) => format!(
                    "{place} is closed, since no string leads there any more{}; have it back: pgfleet tenant restore \
                     {tenant}",
                    after.map(|after| format!(", and is dropped after {after}")).unwrap_or_default()
                ),
                Closed::NotThere => format!("{place} was not there any more"),
                Closed::Foreign(_) => format!("{place} is not ours any more, and stays as it is"),
            });
        }
        Ok(said)
    }

    /// Closes the databases of a tenant that is held to which no string leads.
    pub(super) async fn close_all_unled(&self, bench: &mut Bench, tenant: &str) -> Result<Vec<String>, Error> {
        bench.catalogue.begin().await?;
        let work = async {
            lock(bench.catalogue.connection()).await?;
            touch(bench.catalogue.connection(), tenant).await?;
            self.note_unled(&bench.catalogue, tenant).await
        };
        let result = Box::pin(work).await;
        let Unled { closed, mut notes } = bench.catalogue.end(result).await?;
        notes.extend(Box::pin(self.close_held(bench, tenant, &closed)).await?);
        Ok(notes)
    }

    /// Leads a tenant that is held and served back to the databases that other strings have replaced.
    pub(super) async fn lead_back(
        &self,
        bench: &mut Bench,
        tenant: Tenant,
        observer: &Arc<dyn Observer>,
    ) -> Result<Done, Error> {
        let name = tenant.name.clone();
        let databases = replaced(bench.catalogue.connection(), &tenant).await?;
        if databases.is_empty() {
            return Ok(Done { tenant, changed: false, notes: Vec::new() });
        }
        // Refuses one that is being moved.
        touch(bench.catalogue.connection(), &name).await?;
        for own in &databases {
            keep(bench.catalogue.connection(), own).await?;
        }
        let back: BTreeSet<&str> = databases.iter().map(|own| own.connection.as_str()).collect();
        let strings = tenant.strings.iter().map(|string| &string.connection);
        let given = strings.filter(|connection| !back.contains(connection.as_str())).cloned().collect();
        let mut notes: Vec<String> = databases
            .iter()
            .map(|own| format!("its string leads to {} on {} again", own.database, own.server))
            .collect();
        let values = properties::read(bench.catalogue.connection(), &self.keys()?, &name).await?;
        let to = if tenant.state == TenantState::Disabled { TenantState::Disabled } else { TenantState::Active };
        let half = Half { name: name.clone(), given, databases, values };
        notes.extend(Workshop::of(self, observer).await?.finish(bench, half, to).await?);
        // What the strings led to until now may have been made for it, too.
        notes.extend(self.close_all_unled(bench, &name).await?);
        let tenant = self.read_tenant(bench.catalogue.connection(), &name).await?;
        Ok(Done { tenant, changed: true, notes })
    }
}

/// Notes that a closed database is wanted back: from here on it is not dropped, whatever happens to us.
pub(super) async fn keep(connection: &Connection, own: &OwnDatabase) -> Result<(), Error> {
    execute(
        connection,
        "UPDATE control.tenant_databases SET drop_after = NULL WHERE server = $1 AND database = $2 AND state = 'closed'",
        &[(&own.server, Type::TEXT), (&own.database, Type::TEXT)],
    )
    .await?;
    Ok(())
}

/// Finds the databases of a tenant that other strings have replaced: for each string the last one.
async fn replaced(connection: &Connection, tenant: &Tenant) -> Result<Vec<OwnDatabase>, Error> {
    let rows = connection
        .query(REPLACED, &[(&tenant.name, Type::TEXT)])
        .await
        .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
    let mut seen = BTreeSet::new();
    let of_row = |row: &Row| {
        let (server, database): (&str, &str) = (row.get(0), row.get(1));
        tenant.databases.iter().find(|own| own.server == server && own.database == database).cloned()
    };
    Ok(rows.iter().filter_map(of_row).filter(|own| seen.insert(own.connection.clone())).collect())
}

/// Returns those of a deleted tenant's databases that its strings led to; one that was never finished has
/// no string yet.
pub(super) fn led(tenant: &Tenant) -> Vec<OwnDatabase> {
    let leads = |own: &&OwnDatabase| {
        let of = tenant.strings.iter().find(|string| string.connection == own.connection);
        let to = |string: &super::TenantString| {
            string.physical.as_ref().is_some_and(|physical| {
                physical.system_identifier == own.system_identifier
                    && (Some(physical.oid) == own.oid || physical.database == own.database)
            })
        };
        of.is_none() || tenant.strings.iter().any(to)
    };
    tenant.databases.iter().filter(leads).cloned().collect()
}
