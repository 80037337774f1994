//! Where every service stands in every database, as the control database remembers it.
//!
//! A memo, never the truth: a row carries which database it was written about, and says nothing of
//! another one under the same name, nothing of other files, and nothing after `verify_after`. Whoever
//! changes a target by other means than migrating takes its rows away in the same action.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use pgfleet_migrate::State;
use pgfleet_postgres::{Connection, Purpose, ToSql, Type, connect};
use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::connections::tenant_services;
use crate::error::Error;
use crate::fleet::{TargetReport, TargetState};
use crate::plans::Prints;
use crate::solution::Solution;
use crate::targets::FleetTarget;

/// Where one service stands in one database.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// The server's name in the manifest, or `host:port`.
    pub server: String,
    /// The database.
    pub database: String,
    /// The service.
    pub service: String,
    /// The tenant; empty for a host. Of several that share the database, the first.
    pub tenant: String,
    /// Which cluster it was; empty when nobody looked.
    pub system_identifier: String,
    /// Which database it was.
    pub database_oid: Option<u32>,
    /// The newest version of the service's own set; when it failed, the one before.
    pub version: Option<String>,
    /// The state.
    pub state: TargetState,
    /// Why it failed.
    pub error: Option<String>,
    /// The print of the plan that it was brought to.
    #[serde(skip)]
    pub plan: Option<String>,
    /// How many migrations and seeds were pending.
    pub pending: u32,
    /// How many applied migrations are not what the files say.
    pub drift: u32,
    /// The rollout that did it.
    pub rollout: Option<i64>,
    /// Seconds since somebody looked; none in a record that is about to be written.
    pub age: Option<u64>,
}

impl Standing {
    /// Makes the record of what work on a target led to; `print` is that of the plan it was for.
    pub fn of(target: &FleetTarget, report: &TargetReport, print: Option<&str>) -> Self {
        let (version, _, error) = report.catalogue_row();
        let state = report.state();
        let physical = target.physical.as_ref();
        let done = report.result.as_ref().ok();
        let differs = |state: State| matches!(state, State::Edited | State::Missing | State::Ahead | State::OutOfOrder);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            server: target.server.clone(),
            database: target.database.clone(),
            service: report.service.clone(),
            tenant: target.tenant.clone(),
            system_identifier: physical.map(|physical| physical.system_identifier.clone()).unwrap_or_default(),
            database_oid: physical.map(|physical| physical.oid),
            version,
            state,
            error,
            plan: (state == TargetState::Current).then(|| print.map(str::to_owned)).flatten(),
            pending: done.map_or(0, |done| count(done.pending.len() + done.pending_seeds.len())),
            drift: done.map_or(0, |done| count(done.entries.iter().filter(|entry| differs(entry.state)).count())),
            rollout: None,
            age: None,
        }
    }
}

/// Which tenants' databases somebody has to look at.
#[derive(Debug, Clone, Default)]
pub struct Stale {
    /// How many pairs of service and tenant have a database of the tenant's own.
    pub targets: usize,
    /// The tenants that are being moved, which nobody migrates meanwhile, and are not known to be at these plans.
    pub moving: Vec<String>,
    /// Tenant and service of those that are not known to be at these plans.
    pub stale: Vec<(String, String)>,
}

impl Catalogue {
    /// Writes where targets stand now, in one statement.
    ///
    /// # Errors
    ///
    /// The control database cannot be written; the targets are as they are.
    pub async fn record_standings(&self, standings: &[Standing]) -> Result<(), Error> {
        if standings.is_empty() {
            return Ok(());
        }
        let column = |of: fn(&Standing) -> &str| standings.iter().map(of).collect::<Vec<&str>>();
        let number = |of: fn(&Standing) -> u32| {
            standings.iter().map(|standing| i32::try_from(of(standing)).unwrap_or(i32::MAX)).collect::<Vec<i32>>()
        };
        let versions: Vec<Option<&str>> = standings.iter().map(|s| s.version.as_deref()).collect();
        let errors: Vec<Option<&str>> = standings.iter().map(|s| s.error.as_deref()).collect();
        let plans: Vec<Option<&str>> = standings.iter().map(|s| s.plan.as_deref()).collect();
        let oids: Vec<Option<u32>> = standings.iter().map(|s| s.database_oid).collect();
        let rollouts: Vec<Option<i64>> = standings.iter().map(|s| s.rollout).collect();
        self.connection()
            .execute(
                "INSERT INTO control.targets AS t (server, database, service, set_name, tenant, system_identifier, \
                   database_oid, version, state, error, plan, pending, drift, rollout) \
                 SELECT DISTINCT ON (server, database, service) server, database, service, service, tenant, identifier, \
                   oid, version, state, error, plan, pending, drift, rollout \
                 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::oid[], $7::text[], \
                   $8::text[], $9::text[], $10::text[], $11::int[], $12::int[], $13::bigint[]) WITH ORDINALITY \
                   AS n (server, database, service, tenant, identifier, oid, version, state, error, plan, pending, \
                         drift, rollout, at) \
                 ORDER BY server, database, service, at DESC \
                 ON CONFLICT (server, database, set_name) DO UPDATE SET service = excluded.service, \
                   tenant = excluded.tenant, \
                   system_identifier = CASE WHEN excluded.system_identifier = '' THEN t.system_identifier \
                                            ELSE excluded.system_identifier END, \
                   database_oid = coalesce(excluded.database_oid, t.database_oid), \
                   version = coalesce(excluded.version, t.version), state = excluded.state, error = excluded.error, \
                   plan = excluded.plan, pending = excluded.pending, drift = excluded.drift, \
                   rollout = coalesce(excluded.rollout, t.rollout), verified_at = now()",
                &[
                    (&column(|s| &s.server), Type::TEXT_ARRAY),
                    (&column(|s| &s.database), Type::TEXT_ARRAY),
                    (&column(|s| &s.service), Type::TEXT_ARRAY),
                    (&column(|s| &s.tenant), Type::TEXT_ARRAY),
                    (&column(|s| &s.system_identifier), Type::TEXT_ARRAY),
                    (&oids, Type::OID_ARRAY),
                    (&versions, Type::TEXT_ARRAY),
                    (&column(|s| s.state.word()), Type::TEXT_ARRAY),
                    (&errors, Type::TEXT_ARRAY),
                    (&plans, Type::TEXT_ARRAY),
                    (&number(|s| s.pending), Type::INT4_ARRAY),
                    (&number(|s| s.drift), Type::INT4_ARRAY),
                    (&rollouts, Type::INT8_ARRAY),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Takes away what is known of a database, since something else than a migration changed it.
    ///
    /// # Errors
    ///
    /// The control database cannot be written.
    pub async fn forget_standings(&self, server: &str, database: &str) -> Result<(), Error> {
        self.connection()
            .execute(
                "DELETE FROM control.targets WHERE server = $1 AND database = $2",
                &[(&server, Type::TEXT), (&database, Type::TEXT)],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Reads where everything stands: hosts first, then by tenant and service.
    ///
    /// # Errors
    ///
    /// The control database cannot be read.
    pub async fn standings(&self) -> Result<Vec<Standing>, Error> {
        read(self.connection(), None).await
    }
}

/// Reads where everything stands, or everything of one tenant: hosts first, then by tenant and service.
pub(crate) async fn read(connection: &Connection, tenant: Option<&str>) -> Result<Vec<Standing>, Error> {
    let rows = connection
        .query(
            "SELECT server, database, service, tenant, system_identifier, database_oid, version, state, error, plan, \
                 pending, drift, rollout, greatest(extract(epoch FROM now() - verified_at), 0)::bigint \
                 FROM control.targets WHERE $1 IS NULL OR tenant = $1 ORDER BY tenant, service, server, database",
            &[(&tenant, Type::TEXT)],
        )
        .await
        .map_err(|error| failed(&error))?;
    let unsigned = |number: i32| u32::try_from(number).unwrap_or_default();
    let mut standings = Vec::with_capacity(rows.len());
    for row in rows {
        standings.push(Standing {
            server: row.get(0),
            database: row.get(1),
            service: row.get(2),
            tenant: row.get(3),
            system_identifier: row.get(4),
            database_oid: row.get(5),
            version: row.get(6),
            state: TargetState::of_word(row.get(7)),
            error: row.get(8),
            plan: row.get(9),
            pending: unsigned(row.get(10)),
            drift: unsigned(row.get(11)),
            rollout: row.get(12),
            age: u64::try_from(row.get::<_, i64>(13)).ok(),
        });
    }
    Ok(standings)
}

/// The service and the string by which each tenant's data of it is reached, and what is known of it there.
///
/// A string of the service's own goes before the default one.
pub(crate) const REACHED: &str = "FROM control.tenants n CROSS JOIN unnest($1::text[], $2::text[]) AS w (service, plan) \
    JOIN LATERAL (SELECT s.* FROM control.tenant_strings s WHERE s.tenant = n.name \
        AND s.connection IN ('', w.service) ORDER BY s.connection DESC LIMIT 1) s ON true \
    LEFT JOIN control.targets t ON t.system_identifier = s.system_identifier AND t.system_identifier <> '' \
        AND t.database_oid = s.database_oid AND t.service = w.service";

/// Of these, the tenants that have somebody to serve.
pub(crate) const SERVED: &str = "n.state IN ('active', 'disabled')";

impl Solution {
    /// Finds the tenants' databases that are not known to be at these plans, without looking at them: one
    /// question to the control database, and one to each server about which databases it has.
    ///
    /// Everything is stale whose print is not known.
    ///
    /// # Errors
    ///
    /// The control database cannot be read.
    pub async fn stale_tenants(
        &self,
        catalogue: &Catalogue,
        prints: &Prints,
        verify_after: Duration,
    ) -> Result<Stale, Error> {
        let services: Vec<&str> = tenant_services(&self.manifest).map(|service| service.name.as_str()).collect();
        let plans: Vec<&str> = services.iter().map(|service| prints.get(service).unwrap_or_default()).collect();
        let seconds = i64::try_from(verify_after.as_secs()).unwrap_or(i64::MAX);
        let sql = format!(
            "SELECT n.name, w.service, n.moving, \
               t.state = 'current' AND t.plan = w.plan AND w.plan <> '' \
                 AND t.verified_at > now() - $3::bigint * interval '1 second', \
               s.server = '', s.system_identifier, coalesce(s.database_oid, 0::oid) \
             {REACHED} WHERE {SERVED}"
        );
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&services, Type::TEXT_ARRAY), (&plans, Type::TEXT_ARRAY), (&seconds, Type::INT8)];
        // The servers are asked meanwhile. Which ones comes first: the answers come in the order of the questions.
        let known = catalogue.connection().query(&sql, &values);
        let (present, rows) = futures_util::future::join(self.present_databases(catalogue), known).await;
        let mut found = Stale::default();
        for row in rows.map_err(|error| failed(&error))? {
            let moving: bool = row.get(2);
            // One that is being moved may be on its way; where a string was given, nobody asks the server.
            let is_there = moving || row.get(4) || present.contains(&(row.get(5), row.get(6)));
            let is_stale = row.get::<_, Option<bool>>(3) != Some(true) || !is_there;
            if !moving {
                found.targets += 1;
            }
            if !is_stale {
                continue;
            }
            if moving {
                found.moving.push(row.get(0));
            } else {
                found.stale.push((row.get(0), row.get(1)));
            }
        }
        found.moving.sort_unstable();
        found.moving.dedup();
        Ok(found)
    }

    /// Lists which databases the solution's servers have, as far as they answer: one that was dropped
    /// behind our back, or made again, is not what is remembered of it.
    async fn present_databases(&self, catalogue: &Catalogue) -> HashSet<(String, u32)> {
        // Not being able to look is no error here: what is not known to be there is stale, so it is looked at, and a
        // control database that is gone fails the question beside this one.
        let used = catalogue
            .connection()
            .query("SELECT DISTINCT server FROM control.tenant_strings WHERE server <> ''", &[])
            .await
            .unwrap_or_default();
        let used: Vec<String> = used.iter().map(|row| row.get(0)).collect();
        let looks =
            self.servers().filter(|(name, _)| used.iter().any(|server| server == name)).map(async |(_, server)| {
                let connection = connect(&server.admin, &Purpose::new("pgfleet migrate")).await.ok()?;
                let identifier = pgfleet_postgres::identity::system_identifier(&connection).await.ok()?;
                let rows =
                    connection.query("SELECT oid FROM pg_catalog.pg_database WHERE datallowconn", &[]).await.ok();
                Some(rows?.iter().map(|row| (identifier.clone(), row.get(0))).collect::<Vec<_>>())
            });
        futures_util::future::join_all(looks).await.into_iter().flatten().flatten().collect()
    }
}

/// Counts standings by state.
pub fn by_state(standings: &[Standing]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for standing in standings {
        *counts.entry(standing.state.word()).or_default() += 1;
    }
    counts
}

fn failed(error: &pgfleet_postgres::Error) -> Error {
    Error::postgres("cannot read or write where the targets stand in the control database", error)
}
