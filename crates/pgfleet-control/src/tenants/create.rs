//! Asking for tenants: who they are and where they live is written down before anything is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgfleet_migrate::Observer;
use pgfleet_postgres::name::short_name;
use pgfleet_postgres::{Connection, Type};
use pgfleet_sql::checksum::raw_hash;
use secrecy::SecretString;

use super::bench::Bench;
use super::life::Half;
use super::placement::{Load, Policy, loads, place};
use super::verbs::lock;
use super::workshop::Workshop;
use super::{Choices, Done, NewString, OwnDatabase, Tenant, TenantState, name_mistake, properties, unknown};
use crate::catalogue::Catalogue;
use crate::connections::tenant_services;
use crate::error::{Error, ErrorKind};
use crate::seal::KeyRing;
use crate::solution::Solution;
use crate::templates::Shape;

/// A tenant that somebody asks for.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// Its name.
    pub name: String,
    /// Its name for people; its name when there is none.
    pub display_name: Option<String>,
    /// What its seeds are given; of passwords, names that end in `password`, the hash is kept.
    pub properties: BTreeMap<String, SecretString>,
    /// Where its data is.
    pub home: Home,
}

/// Where a new tenant's data is.
#[derive(Debug, Clone)]
pub enum Home {
    /// In databases of its own, which are made.
    Own {
        /// For these services; for all that have data in tenants' databases when none is named.
        services: Vec<String>,
        /// On this server; where the placement of `[tenants]` says when none is named.
        server: Option<String>,
    },
    /// In databases that exist.
    Given {
        /// The strings that lead there.
        strings: Vec<NewString>,
        /// How they are taken.
        choices: Choices,
    },
    /// In the services' own databases.
    Shared,
}

/// What is there when a tenant is asked for.
struct Found {
    /// A tenant of this name.
    there: Option<Tenant>,
    /// What is on the servers.
    loads: BTreeMap<String, Load>,
    /// Names of databases that are taken.
    taken: BTreeSet<String>,
}

/// Finds out whether there is a tenant of this name.
async fn is_there(connection: &Connection, name: &str) -> Result<bool, Error> {
    let rows = connection.query("SELECT 1 FROM control.tenants WHERE name = $1", &[(&name, Type::TEXT)]).await;
    rows.map(|rows| !rows.is_empty()).map_err(|error| Error::postgres("cannot read the tenants", &error))
}

impl Solution {
    /// Makes tenants, `concurrency` at a time, and returns what came of each, in their order; `each` is
    /// told as soon as one is done.
    ///
    /// A tenant in databases of its own gets copies of the templates, which are made or brought to the
    /// files first; then its seeds run, and it becomes active. Asking again for one that was left
    /// half-made goes on with it.
    ///
    /// # Errors
    ///
    /// Of all: the control database is not there, or files or programs cannot be used. Of each: a name
    /// that cannot be one or is taken; another request than the one that is under way; a server that
    /// refuses; a seed that fails. Such a tenant is `failed`, and says why.
    ///
    /// # Cancel safety
    ///
    /// Tenants that were not finished stay half-made; asking again goes on with them.
    pub async fn create_tenants(
        &self,
        tenants: &[NewTenant],
        concurrency: usize,
        observer: &Arc<dyn Observer>,
        each: &(dyn Fn(usize, &Result<Done, Error>) + Sync),
    ) -> Result<Vec<Result<Done, Error>>, Error> {
        let needs_copies = tenants.iter().any(|tenant| self.shapes_of(tenant).is_ok_and(|shapes| !shapes.is_empty()));
        let (bench, workshop) = futures_util::future::try_join(Bench::open(self, needs_copies), async {
            if needs_copies { Workshop::of(self, observer).await.map(Some) } else { Ok(None) }
        })
        .await?;
        let next = AtomicUsize::new(0);
        let work = |first: Option<Bench>| {
            let (next, workshop) = (&next, workshop.as_ref());
            async move {
                let (mut bench, mut done) = (first, Vec::new());
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(tenant) = tenants.get(at) else { break };
                    let made = async {
                        let bench = Bench::usable(&mut bench, self, needs_copies).await?;
                        self.create_one(bench, workshop, tenant, observer).await
                    };
                    let made = Box::pin(made).await;
                    each(at, &made);
                    done.push((at, made));
                }
                // Nothing is held any more: nobody needs to wait until the server has let go of it.
                drop(bench);
                done
            }
        };
        let workers = concurrency.clamp(1, tenants.len().max(1));
        let first = std::iter::once(Some(bench)).chain(std::iter::repeat_with(|| None)).take(workers);
        let mut all: Vec<_> = futures_util::future::join_all(first.map(work)).await.into_iter().flatten().collect();
        all.sort_by_key(|(at, _)| *at);
        Ok(all.into_iter().map(|(_, made)| made).collect())
    }

    async fn create_one(
        &self,
        bench: &mut Bench,
        workshop: Option<&Workshop<'_>>,
        new: &NewTenant,
        observer: &Arc<dyn Observer>,
    ) -> Result<Done, Error> {
        if self.options().stop.is_asked() {
            return Err(Error::new(ErrorKind::Stopped, format!("stopped before tenant {}", new.name)));
        }
        check_name(&new.name)?;
        properties::check(&new.properties)?;
        match (&new.home, workshop) {
            (Home::Given { strings, choices }, _) => self.create_given(new, strings, *choices, observer).await,
            (Home::Own { .. }, Some(workshop)) if !self.shapes_of(new)?.is_empty() => {
                self.create_own(bench, workshop, new).await
            }
            (Home::Own { .. }, None) if !self.shapes_of(new)?.is_empty() => {
                Err(Error::new(ErrorKind::Failed, "the templates were not read"))
            }
            (Home::Own { .. } | Home::Shared, _) => {
                let mut done = self.create_given(new, &[], Choices::default(), observer).await?;
                done.notes.extend(self.seeded_among_others(&bench.catalogue, &new.name, observer).await);
                Ok(done)
            }
        }
    }

    /// Runs the seeds of a tenant without a database in the services' own; returns what went wrong, which
    /// does not unmake the tenant.
    async fn seeded_among_others(
        &self,
        catalogue: &Catalogue,
        tenant: &str,
        observer: &Arc<dyn Observer>,
    ) -> Vec<String> {
        let names: Vec<String> = tenant_services(&self.manifest).map(|service| service.name.clone()).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let work = async {
            let plans = self.plans(&names, observer).await?;
            let values = self.seed_values(catalogue, tenant).await?;
            self.seed_shared(tenant, &plans, &names, &values, self.options(), observer).await
        };
        let failed = |why: &str| format!("its seeds did not run: {why}; run them: pgfleet tenant migrate {tenant}");
        match Box::pin(work).await {
            Err(error) => vec![failed(&error.to_string())],
            Ok(reports) => {
                let errors = reports.iter().filter_map(|report| report.result.as_ref().err());
                errors.map(|error| failed(&format!("{error}: {}", error.causes().join(": ")))).collect()
            }
        }
    }

    /// Returns the shapes of the databases that a tenant is to get; none when it gets none.
    fn shapes_of(&self, new: &NewTenant) -> Result<Vec<(String, Shape)>, Error> {
        match &new.home {
            Home::Own { services, .. } => Shape::all(&self.manifest, services),
            Home::Given { .. } | Home::Shared => Ok(Vec::new()),
        }
    }

    /// Makes a tenant in databases of its own, or goes on with one that was left half-made.
    async fn create_own(&self, bench: &mut Bench, workshop: &Workshop<'_>, new: &NewTenant) -> Result<Done, Error> {
        let keys = self.keys()?;
        let properties = properties::seal(&keys, &new.name, &new.properties)?;
        let found = self.hold_and_look(bench, new).await?;
        let made = async {
            let half = self.ask(bench, workshop, new, found, (&keys, &properties)).await?;
            workshop.finish(bench, half, TenantState::Active).await
        };
        let made = Box::pin(made).await;
        // Sent together: the tenant is read as it is when it is free.
        let (tenant, ()) = futures_util::future::join(
            self.read_tenants(bench.catalogue.connection(), Some(&new.name)),
            bench.release(&new.name),
        )
        .await;
        let notes = made?;
        let tenant = tenant?.pop().ok_or_else(|| unknown(&[], &new.name))?;
        Ok(Done { tenant, changed: true, notes })
    }

    /// Takes the tenant for this one alone, begins a transaction, and reads under the lock on tenants what
    /// is there already. Mostly nobody else is at it: so all of that is sent together.
    ///
    /// With an error the tenant is free and the transaction is over.
    async fn hold_and_look(&self, bench: &Bench, new: &NewTenant) -> Result<Found, Error> {
        let catalogue = &bench.catalogue;
        let (held, found) =
            futures_util::future::join(bench.try_hold(&new.name), self.begin_and_look(catalogue, new)).await;
        let found = match held {
            Ok(true) => found,
            Ok(false) => {
                // Whoever has it must not wait for our lock on tenants.
                catalogue.roll_back().await?;
                bench.hold(&new.name).await?;
                self.begin_and_look(catalogue, new).await
            }
            // Whether it is held is not known: it is let go below.
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => Ok(found),
            Err(error) => {
                let ended = catalogue.end(Err(error)).await;
                bench.release(&new.name).await;
                ended
            }
        }
    }

    async fn begin_and_look(&self, catalogue: &Catalogue, new: &NewTenant) -> Result<Found, Error> {
        let connection = catalogue.connection();
        let names = self.names_for(&new.name, &self.shapes_of(new)?);
        let ((), (), is_there, loads, taken) = tokio::try_join!(
            catalogue.begin(),
            lock(connection),
            is_there(connection, &new.name),
            loads(connection),
            self.taken(connection, &names),
        )?;
        // What is known of one costs five statements, and mostly there is none.
        let there = if is_there { self.read_tenants(connection, Some(&new.name)).await?.pop() } else { None };
        Ok(Found { there, loads, taken })
    }

    /// Writes down that a tenant is wanted, and ends the transaction; takes what is there of one that was
    /// asked for before. The tenant is held.
    async fn ask(
        &self,
        bench: &mut Bench,
        workshop: &Workshop<'_>,
        new: &NewTenant,
        found: Found,
        (keys, properties): (&KeyRing, &properties::Sealed<'_>),
    ) -> Result<Half, Error> {
        let is_new = found.there.is_none();
        let work = async {
            if let Some(there) = found.there {
                let stored = properties::read(bench.catalogue.connection(), keys, &new.name).await?;
                self.same_request(new, &there, &stored)?;
                return Ok((there.databases, stored));
            }
            let databases = self.named(new, &found.loads, &found.taken)?;
            Ok((databases, properties.values.clone()))
        };
        let (databases, values) = match Box::pin(work).await {
            Ok(found) => found,
            Err(error) => return bench.catalogue.end(Err(error)).await,
        };
        let written = if is_new {
            // What tenants' databases are copied from is looked for in the meantime.
            workshop.admins(bench, &databases).await;
            let insert = self.insert(bench, new, &databases, (keys, properties));
            let (written, _looked) = futures_util::future::join(insert, workshop.look_ahead(bench, &databases)).await;
            written
        } else {
            bench.catalogue.end(Ok(())).await
        };
        written?;
        Ok(Half { name: new.name.clone(), databases, given: BTreeSet::new(), values })
    }

    /// Stores a new tenant with its databases and properties, and ends the transaction.
    async fn insert(
        &self,
        bench: &Bench,
        new: &NewTenant,
        databases: &[OwnDatabase],
        (keys, properties): (&KeyRing, &properties::Sealed<'_>),
    ) -> Result<(), Error> {
        let catalogue = &bench.catalogue;
        let connection = catalogue.connection();
        // All are on one server. Who gets no database does not come here; without one no row is written that names it.
        let server = databases.first().map(|own| own.server.as_str()).unwrap_or_default();
        let names: Vec<&str> = databases.iter().map(|database| database.database.as_str()).collect();
        let connections: Vec<&str> = databases.iter().map(|database| database.connection.as_str()).collect();
        let services: Vec<String> = databases.iter().map(|database| database.services.join(",")).collect();
        let store = async {
            connection
                .execute(
                    "WITH t AS (INSERT INTO control.tenants (name, display_name, state, attempts) \
                                VALUES ($1, $2, 'creating', 1) RETURNING name) \
                     INSERT INTO control.tenant_databases (server, database, tenant, connection, services, state) \
                     SELECT $3, g.database, t.name, g.connection, string_to_array(g.services, ','), 'requested' \
                     FROM t, unnest($4::text[], $5::text[], $6::text[]) AS g (database, connection, services)",
                    &[
                        (&new.name, Type::TEXT),
                        (&new.display_name.as_deref().unwrap_or(&new.name), Type::TEXT),
                        (&server, Type::TEXT),
                        (&names, Type::TEXT_ARRAY),
                        (&connections, Type::TEXT_ARRAY),
                        (&services, Type::TEXT_ARRAY),
                    ],
                )
                .await
                .map_err(|error| Error::postgres(format!("cannot store tenant {}", new.name), &error))
        };
        let made: Vec<_> = databases.iter().map(|database| (&database.database, &database.services)).collect();
        let detail = serde_json::json!({
            "server": server, "databases": made, "properties": new.properties.keys().collect::<Vec<_>>(),
        });
        // Of the same cluster is what comes next, and waits for the disk: so nothing there is without its row.
        let unhurried = server == self.manifest.control.server;
        // After a statement that failed the commit is none, and the error of that statement says so.
        let done = tokio::try_join!(
            store,
            properties::store(connection, keys, &new.name, properties),
            catalogue.audit("tenant create", &new.name, &detail, self.options()),
            catalogue.commit(unhurried),
        );
        match done {
            Ok(_) => Ok(()),
            Err(error) => catalogue.end(Err(error)).await,
        }
    }

    /// The names that a tenant's databases may get: each with the one that it gets where that is taken.
    fn names_for(&self, tenant: &str, shapes: &[(String, Shape)]) -> Vec<[String; 2]> {
        let solution = &self.manifest.solution.name;
        shapes.iter().map(|(connection, _)| database_names(solution, connection, tenant)).collect()
    }

    /// Finds out which of these names are taken in the solution.
    async fn taken(&self, connection: &Connection, names: &[[String; 2]]) -> Result<BTreeSet<String>, Error> {
        let all: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
        let rows = connection
            .query(
                "SELECT database FROM control.tenant_databases WHERE database = ANY ($1) \
                 UNION SELECT database FROM control.templates WHERE database = ANY ($1)",
                &[(&all, Type::TEXT_ARRAY)],
            )
            .await
            .map_err(|error| Error::postgres("cannot read which databases there are", &error))?;
        let mut taken: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        taken.extend(self.manifest.services.iter().map(|service| service.database.clone()));
        taken.insert(self.manifest.control.database.clone());
        Ok(taken)
    }

    /// Places a tenant's databases, and names them so that each is free in the solution.
    fn named(
        &self,
        new: &NewTenant,
        loads: &BTreeMap<String, Load>,
        taken: &BTreeSet<String>,
    ) -> Result<Vec<OwnDatabase>, Error> {
        let Home::Own { server, .. } = &new.home else {
            return Err(Error::new(ErrorKind::Failed, format!("tenant {} gets no databases of its own", new.name)));
        };
        let server = place(Policy::of(&self.manifest.tenants), loads, server.as_deref())?;
        let shapes = self.shapes_of(new)?;
        let free = |names: [String; 2]| {
            let [short, long] = names;
            if taken.contains(&short) { long } else { short }
        };
        let names = self.names_for(&new.name, &shapes);
        let databases = names.into_iter().zip(shapes).map(|(names, (connection, shape))| OwnDatabase {
            server: server.clone(),
            database: free(names),
            connection,
            services: shape.services().to_vec(),
            state: "requested".to_owned(),
            closed_at: None,
            drop_after: None,
            oid: None,
            system_identifier: String::new(),
        });
        Ok(databases.collect())
    }

    /// Refuses a name that is taken, and another request than the one that a half-made tenant is of.
    fn same_request(&self, new: &NewTenant, there: &Tenant, stored: &BTreeMap<String, String>) -> Result<(), Error> {
        refuse_taken(there)?;
        let name = &new.name;
        let other = |what: &str| {
            Error::new(ErrorKind::Failed, format!("tenant {name} was asked for with {what}, and is half-made")).hinted(
                format!(
                    "go on as it was asked for: pgfleet tenant migrate {name}; or: pgfleet tenant delete {name} --now"
                ),
            )
        };
        if new.display_name.as_ref().is_some_and(|display| *display != there.display_name) {
            return Err(other("another display name"));
        }
        let wanted: BTreeSet<(String, Vec<String>)> =
            self.shapes_of(new)?.into_iter().map(|(name, shape)| (name, shape.services().to_vec())).collect();
        let have: BTreeSet<(String, Vec<String>)> =
            there.databases.iter().map(|own| (own.connection.clone(), own.services.clone())).collect();
        if wanted != have {
            return Err(other("databases for other services"));
        }
        if let Home::Own { server: Some(server), .. } = &new.home
            && there.databases.iter().any(|own| own.server != *server)
        {
            return Err(other("another server"));
        }
        match properties::difference(&new.properties, stored) {
            Some(property) => Err(other(&format!("another value of {property}"))),
            None => Ok(()),
        }
    }
}

/// Refuses a name that cannot be a tenant's.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    match name_mistake(name) {
        Some(mistake) => {
            let message = format!("`{}` cannot be the name of a tenant: it {mistake}", name.escape_debug());
            Err(Error::new(ErrorKind::Configuration, message))
        }
        None => Ok(()),
    }
}

/// Refuses the name of a tenant that is there, unless it is half-made.
pub(super) fn refuse_taken(there: &Tenant) -> Result<(), Error> {
    let name = &there.name;
    let taken = Error::new(ErrorKind::Failed, format!("there is a tenant {name} already"));
    match there.state {
        TenantState::Requested | TenantState::Creating | TenantState::Failed if !there.databases.is_empty() => Ok(()),
        TenantState::Quarantined | TenantState::Deleting => Err(taken
            .cause(format!("it is {}: its name can be used again when its databases are dropped", there.state.word()))
            .hinted(format!("have it back: pgfleet tenant restore {name}; or: pgfleet tenant delete {name} --now"))),
        _ => Err(taken.hinted(format!("see it: pgfleet tenant show {name}"))),
    }
}

/// Returns the name of a tenant's database, and the one that it gets where that is taken.
///
/// `connection` is the string that leads there: empty for a database of all services.
fn database_names(solution: &str, connection: &str, tenant: &str) -> [String; 2] {
    let owner = if connection.is_empty() { solution } else { connection };
    let base = format!("{owner}_{tenant}").replace('-', "_");
    let hash = raw_hash(format!("{solution}/{connection}/{tenant}").as_bytes());
    [short_name(&base, ""), short_name(&base, &format!("_{}", &hash[..8]))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_called_as_the_solution_or_the_service_and_the_tenant() {
        assert_eq!(database_names("shop", "", "acme-2")[0], "shop_acme_2");
        assert_eq!(database_names("my-shop", "orders", "acme")[0], "orders_acme");
        let (one, other) = (database_names("s", "a", "b-c"), database_names("s", "a_b", "c"));
        assert_eq!(one[0], other[0], "two that would be one");
        assert_ne!(one[1], other[1]);
        let long = database_names(&"s".repeat(40), "", &"t".repeat(63));
        assert!(long.iter().all(|name| name.len() <= 63), "{long:?}");
        assert_ne!(long[0], database_names(&"s".repeat(40), "", &"t".repeat(62))[0]);
    }
}
