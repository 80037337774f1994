//! What services may read of the tenants, and who may read it.
//!
//! A service asks two functions in the control database, as its application role. They answer by who
//! logged in, so a service sees its own rows and no table. Its strings are copies under a key that is
//! made from the solution's key and the service's name: who has one service's key opens nothing of
//! another.
//!
//! A string that somebody gave is handed on as it is. One of a database that pgfleet made is written out
//! for each service: see `expand`.

mod expand;

use std::collections::{BTreeMap, BTreeSet};

use pgfleet_postgres::{Address, Connection, Row, Type, quote_ident};
use secrecy::SecretString;

use self::expand::Expansions;
use crate::catalogue::Catalogue;
use crate::connections::{has_tenants, readable, tenant_services};
use crate::error::Error;
use crate::manifest::Service;
use crate::provision::Statement;
use crate::roles::{Login, Roles};
use crate::rotate;
use crate::seal::KeyRing;
use crate::solution::Solution;
use crate::tenants::context;

/// The functions that services may call.
const FUNCTIONS: [&str; 2] = ["pgfleet_directory.version()", "pgfleet_directory.tenants()"];

impl Solution {
    /// Returns what a service needs for reading its tenants: the control database as its own role, and
    /// its key (several, separated by commas, while the solution's is being changed).
    ///
    /// Empty for a service that has no data in tenants' databases.
    ///
    /// # Errors
    ///
    /// The service was not provisioned from here, or there is no key.
    pub fn tenant_variables(&self, service: &Service) -> Result<Vec<(String, SecretString)>, Error> {
        if !has_tenants(service) {
            return Ok(Vec::new());
        }
        let key = self.keys()?.of_service(&service.name)?.expose_text();
        Ok(vec![
            (service.variable("CONTROL_URL"), self.directory_address(service)?.expose_url()),
            (service.variable("KEY"), key),
        ])
    }

    /// Returns the address by which a service reaches the control database.
    ///
    /// # Errors
    ///
    /// As [`address`](Self::address).
    pub fn directory_address(&self, service: &Service) -> Result<Address, Error> {
        let control = &self.manifest.control;
        let (role, credential) = self.login(&control.server, service, Login::App)?;
        let way = &self.server(&control.server).services;
        Ok(way.with_database(&control.database).with_user(&role, Some(credential.password.clone())))
    }

    /// Makes what services may read of the tenants what it should be: who may ask, which strings
    /// there are for whom, and under which key everything is.
    ///
    /// Returns the statements, or with `dry_run` those that would run. One transaction: who dies in
    /// between has changed nothing.
    pub(crate) async fn share_strings(&mut self, dry_run: bool) -> Result<Vec<Statement>, Error> {
        let control = &self.manifest.control;
        let admin = &self.server(&control.server).admin;
        let Some(catalogue) = Catalogue::open_if_there(admin, &control.database).await? else {
            return Ok(self.statements(self.first_grants(), &[]));
        };
        let shared = self.share_in(&catalogue, dry_run).await;
        catalogue.close().await;
        shared
    }

    async fn share_in(&mut self, catalogue: &Catalogue, dry_run: bool) -> Result<Vec<Statement>, Error> {
        if !catalogue.has_tenants().await? {
            return Ok(self.statements(self.first_grants(), &[]));
        }
        let connection = catalogue.connection();
        // A look without the lock: most of the time nothing is to be done.
        let mut plan = self.plan(connection).await?;
        if plan.is_empty() || dry_run {
            return Ok(self.statements(plan.grants.clone(), &plan.notes()));
        }
        catalogue.begin().await?;
        let work = async {
            let lock = "LOCK TABLE control.service_roles, control.tenant_strings IN SHARE ROW EXCLUSIVE MODE";
            connection.execute_all(lock).await.map_err(|error| failed(&error))?;
            // Another provisioner may have done it while we waited, or handed out a new password.
            self.reread_credentials().await?;
            plan = self.plan(connection).await?;
            for grant in &plan.grants {
                connection.execute_all(grant).await.map_err(|error| failed(&error))?;
            }
            let mut done = serde_json::Map::new();
            if plan.reseal.any() {
                let resealed = rotate::reseal(connection, &self.keys()?, self.credential_keys().is_some()).await?;
                done.insert("sealed_anew".to_owned(), resealed.into());
            }
            self.write_roles(connection).await?;
            if plan.strings {
                let (added, removed) = self.share_all(connection).await?;
                done.insert("strings_shared".to_owned(), added.into());
                done.insert("strings_taken_back".to_owned(), removed.into());
            }
            done.insert("statements".to_owned(), plan.grants.clone().into());
            catalogue.audit("share", "tenants", &done.into(), self.options()).await
        };
        let result = work.await;
        catalogue.end(result).await?;
        Ok(self.statements(plan.grants.clone(), &plan.notes()))
    }

    /// Finds what is not as it should be.
    async fn plan(&self, connection: &Connection) -> Result<Plan, Error> {
        let wanted: BTreeMap<String, String> =
            tenant_services(&self.manifest).map(|service| (app_role(service), service.name.clone())).collect();
        let known = read_roles(connection).await?;
        let grantees = read_grantees(connection).await?;
        let mut grants: Vec<String> = Vec::new();
        for role in wanted.keys() {
            let quoted = quote_ident(role);
            if !grantees.contains(&(String::new(), role.clone())) {
                grants.push(format!("GRANT USAGE ON SCHEMA pgfleet_directory TO {quoted}"));
            }
            for function in FUNCTIONS {
                if !grantees.contains(&(function.to_owned(), role.clone())) {
                    grants.push(format!("GRANT EXECUTE ON FUNCTION {function} TO {quoted}"));
                }
            }
        }
        // Of roles that nobody knows here somebody else has decided.
        for (what, role) in grantees.iter().filter(|(_, role)| known.contains_key(role) && !wanted.contains_key(role)) {
            let thing = if what.is_empty() {
                "ALL ON SCHEMA pgfleet_directory".to_owned()
            } else {
                format!("ALL ON FUNCTION {what}")
            };
            grants.push(format!("REVOKE {thing} FROM {}", quote_ident(role)));
        }
        let nobody = wanted.is_empty() && known.is_empty();
        let credentials = self.credential_keys().is_some();
        // Where nothing is sealed no key is made.
        let reseal = if nobody && !credentials && !rotate::has_properties(connection).await? {
            rotate::Stale::default()
        } else {
            rotate::stale(connection, self.keys()?.id(), credentials).await?
        };
        let strings = !nobody && self.is_unshared(connection).await?;
        Ok(Plan { grants, roles: wanted != known, strings, reseal })
    }

    /// The grants of a control database that is not there yet.
    fn first_grants(&self) -> Vec<String> {
        let roles = tenant_services(&self.manifest).map(|service| quote_ident(&app_role(service)));
        roles
            .flat_map(|role| {
                let usage = format!("GRANT USAGE ON SCHEMA pgfleet_directory TO {role}");
                let execute = FUNCTIONS.map(|function| format!("GRANT EXECUTE ON FUNCTION {function} TO {role}"));
                std::iter::once(usage).chain(execute)
            })
            .collect()
    }

    fn statements(&self, grants: Vec<String>, notes: &[&str]) -> Vec<Statement> {
        let database = &self.manifest.control.database;
        let notes = notes.iter().map(|note| (*note).to_owned());
        grants.into_iter().chain(notes).map(|sql| Statement { database: Some(database.clone()), sql }).collect()
    }

    async fn write_roles(&self, connection: &Connection) -> Result<(), Error> {
        let (roles, services): (Vec<String>, Vec<&str>) =
            tenant_services(&self.manifest).map(|service| (app_role(service), service.name.as_str())).unzip();
        for sql in [
            "DELETE FROM control.service_roles WHERE (role, service) NOT IN \
             (SELECT * FROM unnest($1::text[], $2::text[]))",
            "INSERT INTO control.service_roles (role, service) SELECT * FROM unnest($1::text[], $2::text[]) \
             ON CONFLICT (role) DO UPDATE SET service = excluded.service",
        ] {
            connection
                .execute(sql, &[(&roles, Type::TEXT_ARRAY), (&services, Type::TEXT_ARRAY)])
                .await
                .map_err(|error| failed(&error))?;
        }
        // Rows of services that left stay, so that a version never goes back.
        connection
            .execute(
                "INSERT INTO control.directory (service) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING",
                &[(&services, Type::TEXT_ARRAY)],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }
}

/// What is not as it should be.
#[derive(Debug)]
struct Plan {
    grants: Vec<String>,
    /// Whether the table of roles is another one.
    roles: bool,
    /// Whether a service lacks a string or has one too many.
    strings: bool,
    /// What is under an old key.
    reseal: rotate::Stale,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.grants.is_empty() && !self.roles && !self.strings && !self.reseal.any()
    }

    /// What is done beside the grants, as statements that show what they are about.
    fn notes(&self) -> Vec<&'static str> {
        let mut notes = Vec::new();
        notes.extend(self.reseal.credentials.then_some("UPDATE control.credentials SET key_id = …, sealed = '***'"));
        notes.extend(self.reseal.strings.then_some("UPDATE control.tenant_strings SET key_id = …, sealed = '***'"));
        let properties = "UPDATE control.tenant_properties SET key_id = …, sealed = '***'";
        notes.extend(self.reseal.properties.then_some(properties));
        notes.extend(self.roles.then_some("INSERT INTO control.service_roles …"));
        notes.extend(self.strings.then_some("INSERT INTO control.service_strings …"));
        notes
    }
}

/// The role that a service's application logs in as, or is a member of.
fn app_role(service: &Service) -> String {
    Roles::of(&service.name).app
}

async fn read_roles(connection: &Connection) -> Result<BTreeMap<String, String>, Error> {
    let rows = connection
        .query("SELECT role, service FROM control.service_roles", &[])
        .await
        .map_err(|error| failed(&error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Reads who has a right in the schema of services; the schema itself is the empty name.
async fn read_grantees(connection: &Connection) -> Result<BTreeSet<(String, String)>, Error> {
    let rows = connection
        .query(
            "SELECT '', r.rolname::text FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a \
             JOIN pg_catalog.pg_roles r ON r.oid = a.grantee \
             WHERE n.nspname = 'pgfleet_directory' AND a.grantee <> n.nspowner AND a.privilege_type = 'USAGE' \
             UNION ALL \
             SELECT 'pgfleet_directory.' || p.proname || '()', r.rolname::text \
             FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a \
             JOIN pg_catalog.pg_roles r ON r.oid = a.grantee \
             WHERE p.pronamespace = 'pgfleet_directory'::regnamespace AND a.grantee <> p.proowner",
            &[],
        )
        .await
        .map_err(|error| failed(&error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Which service reads which strings, under which key.
struct Wanted {
    services: Vec<String>,
    connections: Vec<String>,
    keys: Vec<String>,
    rings: BTreeMap<String, KeyRing>,
    expansions: Expansions,
}

impl Wanted {
    fn of(solution: &Solution) -> Result<Self, Error> {
        let keys = solution.keys()?;
        let mut wanted = Self {
            services: Vec::new(),
            connections: Vec::new(),
            keys: Vec::new(),
            rings: BTreeMap::new(),
            expansions: Expansions::of(solution),
        };
        for service in tenant_services(&solution.manifest) {
            let ring = keys.of_service(&service.name)?;
            for connection in readable(&solution.manifest, service) {
                wanted.services.push(service.name.clone());
                wanted.connections.push(connection.to_owned());
                wanted.keys.push(ring.id().to_owned());
            }
            wanted.rings.insert(service.name.clone(), ring);
        }
        Ok(wanted)
    }

    /// The columns, to be bound.
    fn values(&self) -> [(&(dyn pgfleet_postgres::ToSql + Sync), Type); 6] {
        [
            &self.services,
            &self.connections,
            &self.keys,
            &self.expansions.services,
            &self.expansions.servers,
            &self.expansions.fingerprints,
        ]
        .map(|column| (column as &(dyn pgfleet_postgres::ToSql + Sync), Type::TEXT_ARRAY))
    }
}

/// The strings that a service lacks, or has under another key or from before they were changed.
const MISSING: &str = "FROM control.tenant_strings s \
    JOIN unnest($1::text[], $2::text[], $3::text[]) AS w (service, connection, key_id) USING (connection) \
    LEFT JOIN unnest($4::text[], $5::text[], $6::text[]) AS f (service, server, fingerprint) \
      ON f.service = w.service AND f.server = s.server \
    LEFT JOIN control.service_strings h ON h.tenant = s.tenant AND h.service = w.service AND h.connection = s.connection \
    WHERE (h.tenant IS NULL OR h.key_id <> w.key_id OR h.changed_at <> s.changed_at)";

/// The strings that a service has, written out for a server that has another address now, or for another
/// password. Those on a server that the manifest has no longer stay as they are: nobody knows better.
const ELSEWHERE_NOW: &str = " OR h.fingerprint <> f.fingerprint";

/// The strings that a service has and should not.
const SURPLUS: &str = "FROM control.service_strings h WHERE NOT EXISTS \
    (SELECT FROM unnest($1::text[], $2::text[], $3::text[]) AS w (service, connection, key_id) \
     WHERE w.service = h.service AND w.connection = h.connection)";

impl Solution {
    async fn is_unshared(&self, connection: &Connection) -> Result<bool, Error> {
        let wanted = Wanted::of(self)?;
        let sql = format!("SELECT EXISTS (SELECT {MISSING}{ELSEWHERE_NOW}) OR EXISTS (SELECT {SURPLUS})");
        let rows = connection.query(&sql, &wanted.values()).await.map_err(|error| failed(&error))?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Gives services the strings that they lack and takes back those that are not theirs; returns how
    /// many of each.
    async fn share_all(&self, connection: &Connection) -> Result<(usize, u64), Error> {
        let sharing = self.sharing()?;
        let removed = connection
            .execute(&format!("DELETE {SURPLUS}"), &sharing.wanted.values())
            .await
            .map_err(|error| failed(&error))?;
        let missing = sharing.find(connection, None).await?;
        sharing.sealed(self, &missing)?.store(connection).await?;
        Ok((missing.len(), removed))
    }

    /// Gives services the strings of a tenant that they lack, in the transaction that stored those.
    ///
    /// # Errors
    ///
    /// One on a server that the manifest does not name, or where the service has no password yet: without
    /// it the service would take the tenant for one without a database.
    pub(crate) async fn share_missing(&self, connection: &Connection, tenant: &str) -> Result<(), Error> {
        let sharing = self.sharing()?;
        let missing = sharing.missing(connection, tenant).await?;
        sharing.sealed(self, &missing)?.store(connection).await
    }

    /// Returns what sharing strings needs to know: who reads which, under which key.
    pub(crate) fn sharing(&self) -> Result<Sharing, Error> {
        Ok(Sharing { wanted: Wanted::of(self)?, keys: self.keys()? })
    }
}

/// Giving services the strings that they lack: found, sealed under each one's key, and stored.
pub(crate) struct Sharing {
    wanted: Wanted,
    keys: KeyRing,
}

/// Strings for services, sealed: a column for each of a row's values.
#[derive(Default)]
pub(crate) struct Shared {
    tenants: Vec<String>,
    services: Vec<String>,
    connections: Vec<String>,
    keys: Vec<String>,
    texts: Vec<Vec<u8>>,
    fingerprints: Vec<String>,
}

impl Sharing {
    /// Finds the strings of a tenant that a service lacks.
    pub(crate) async fn missing(&self, connection: &Connection, tenant: &str) -> Result<Vec<Row>, Error> {
        self.find(connection, Some(tenant)).await
    }

    async fn find(&self, connection: &Connection, tenant: Option<&str>) -> Result<Vec<Row>, Error> {
        let more = if tenant.is_some() { " AND s.tenant = $7" } else { ELSEWHERE_NOW };
        let sql = format!("SELECT s.tenant, s.connection, s.key_id, s.sealed, w.service, s.server {MISSING}{more}");
        let mut values = self.wanted.values().to_vec();
        if let Some(tenant) = &tenant {
            values.push((tenant, Type::TEXT));
        }
        connection.query(&sql, &values).await.map_err(|error| failed(&error))
    }

    /// Seals what was found for the services.
    pub(crate) fn sealed(&self, solution: &Solution, missing: &[Row]) -> Result<Shared, Error> {
        let mut shared = Shared::default();
        for row in missing {
            let (tenant, name, service): (&str, &str, &str) = (row.get(0), row.get(1), row.get(4));
            let context = context(tenant, name);
            let text = self.keys.open(row.get(2), row.get(3), &context)?;
            let (text, fingerprint) = self.wanted.expansions.expand(solution, service, row.get(5), text, tenant)?;
            let ring = &self.wanted.rings[service];
            shared.texts.push(ring.seal(&text, &context)?);
            shared.fingerprints.push(fingerprint.to_owned());
            shared.keys.push(ring.id().to_owned());
            shared.tenants.push(tenant.to_owned());
            shared.services.push(service.to_owned());
            shared.connections.push(name.to_owned());
        }
        Ok(shared)
    }
}

impl Shared {
    /// Stores them, in the transaction that stored the strings.
    pub(crate) async fn store(&self, connection: &Connection) -> Result<(), Error> {
        if self.tenants.is_empty() {
            return Ok(());
        }
        connection
            .execute(
                "INSERT INTO control.service_strings (tenant, service, connection, key_id, sealed, changed_at, \
                   fingerprint) \
                 SELECT g.tenant, g.service, g.connection, g.key_id, g.sealed, s.changed_at, g.fingerprint \
                 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::text[]) \
                   AS g (tenant, service, connection, key_id, sealed, fingerprint) \
                 JOIN control.tenant_strings s ON s.tenant = g.tenant AND s.connection = g.connection \
                 ON CONFLICT (tenant, service, connection) DO UPDATE SET key_id = excluded.key_id, \
                   sealed = excluded.sealed, changed_at = excluded.changed_at, fingerprint = excluded.fingerprint",
                &[
                    (&self.tenants, Type::TEXT_ARRAY),
                    (&self.services, Type::TEXT_ARRAY),
                    (&self.connections, Type::TEXT_ARRAY),
                    (&self.keys, Type::TEXT_ARRAY),
                    (&self.texts, Type::BYTEA_ARRAY),
                    (&self.fingerprints, Type::TEXT_ARRAY),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }
}

fn failed(error: &pgfleet_postgres::Error) -> Error {
    Error::postgres("cannot share the tenants' strings with the services", error)
}

/// Reads what a service is given, as the service itself does; for tests and for explaining.
///
/// # Errors
///
/// The role may not ask, or a key is missing.
pub async fn read_as_service(
    connection: &Connection,
    keys: &KeyRing,
) -> Result<Vec<(String, String, Option<(String, SecretString)>)>, Error> {
    let rows = connection
        .query("SELECT tenant, state, connection, sealed, key_id FROM pgfleet_directory.tenants()", &[])
        .await
        .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let (tenant, state, name): (String, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
        let string = match name {
            Some(name) => {
                let text = keys.open(row.get(4), row.get(3), &context(&tenant, &name))?;
                Some((name, text))
            }
            None => None,
        };
        all.push((tenant, state, string));
    }
    Ok(all)
}
