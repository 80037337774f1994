//! How a tenant comes to life: its databases are copied, migrated and seeded, and then it is active.
//!
//! Every step can be done again. What is there is known by the rows that were written before it and by
//! the mark on the database, so whoever dies leaves a tenant that the next one goes on with.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use pgfleet_migrate::options::Durability;
use pgfleet_migrate::{Observer, Options, Outcome};
use pgfleet_postgres::Type;
use tokio::sync::Mutex;

use super::bench::{Admin, Bench};
use super::life::Half;
use super::verbs::execute;
use super::{OwnDatabase, TenantState};
use crate::catalogue::Catalogue;
use crate::connections::tenant_services;
use crate::error::{Error, ErrorKind};
use crate::fleet::{self, Work};
use crate::physical::Physical;
use crate::plans::Plans;
use crate::solution::Solution;
use crate::standing::Standing;
use crate::targets::{FleetTarget, TargetKind};
use crate::templates::{Shape, Template};

/// How often a tenant is brought to files that became newer while it was made.
const HEADS: u32 = 3;

/// A database that is as it should be.
#[derive(Debug)]
pub(crate) struct Made {
    /// Which one it is.
    pub(crate) physical: Physical,
    /// Its size when it was copied.
    pub(crate) bytes: i64,
    /// The print that it is at.
    pub(crate) print: String,
    /// Where its services stand.
    pub(crate) standings: Vec<Standing>,
}

/// What bringing a database to the files led to.
struct Brought {
    /// The print that it is at.
    print: String,
    /// Where its services stand.
    standings: Vec<Standing>,
    /// Whether something was done, so that all that was done in the cluster before is on disk.
    on_disk: bool,
}

/// What those who make tenants share: the files, and the templates that are at them.
pub(crate) struct Workshop<'a> {
    pub(super) solution: &'a Solution,
    observer: Arc<dyn Observer>,
    options: Options,
    plans: RwLock<Arc<Plans>>,
    /// By server and shape; looked at once.
    templates: Mutex<HashMap<(String, String), Template>>,
}

impl<'a> Workshop<'a> {
    /// Reads the files of the services that have data in tenants' databases.
    ///
    /// # Errors
    ///
    /// Files that cannot be used.
    pub(crate) async fn of(solution: &'a Solution, observer: &Arc<dyn Observer>) -> Result<Self, Error> {
        // What is in a copy was announced when the template was made, or is of nobody's concern.
        let options = Options { announcer: None, to: None, set: None, ..solution.options().clone() };
        let plans = RwLock::new(Arc::new(read_plans(solution, observer).await?));
        Ok(Self { solution, observer: observer.clone(), options, plans, templates: Mutex::default() })
    }

    fn plans(&self) -> Arc<Plans> {
        self.plans.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again.
    async fn read_again(&self) -> Result<(), Error> {
        let plans = Arc::new(read_plans(self.solution, &self.observer).await?);
        *self.plans.write().unwrap_or_else(PoisonError::into_inner) = plans;
        self.templates.lock().await.clear();
        Ok(())
    }

    /// Makes what a tenant lacks, and then brings it into the state `to`; returns what is worth knowing.
    /// The tenant is held.
    ///
    /// # Errors
    ///
    /// A server refuses, a seed fails: a tenant that was being made is `failed` then, and says why.
    pub(crate) async fn finish(&self, bench: &mut Bench, half: Half, to: TenantState) -> Result<Vec<String>, Error> {
        let result = Box::pin(self.all_steps(bench, &half, to)).await;
        if let Err(error) = &result
            && error.kind() != ErrorKind::Stopped
        {
            // Should this fail, too, the tenant is half-made still, and the error is told all the same.
            let _kept = set_failed(&bench.catalogue, &half.name, error).await;
        }
        result
    }

    async fn all_steps(&self, bench: &mut Bench, half: &Half, to: TenantState) -> Result<Vec<String>, Error> {
        let mut made = Vec::with_capacity(half.databases.len());
        for own in &half.databases {
            made.push(self.make_database(bench, &half.name, own, &half.values).await?);
        }
        for _ in 0..HEADS {
            if self.activate(bench, half, &made, to).await? {
                return Ok(Vec::new());
            }
            // Somebody brought the templates to other files since they were copied.
            self.read_again().await?;
            for (own, made) in half.databases.iter().zip(&mut made) {
                let physical = made.physical.clone();
                let brought = self.bring(&half.name, own, physical, &half.values).await?;
                (made.print, made.standings) = (brought.print, brought.standings);
            }
        }
        Err(Error::new(ErrorKind::Failed, format!("tenant {} cannot become active", half.name))
            .cause("its databases are at other files than the templates, which another process keeps at its own")
            .hinted(format!(
                "where those files are: pgfleet tenant migrate {}; a rollout that is under way may come first",
                half.name
            )))
    }

    /// Makes one database of a tenant: a copy of the template, at the head of the files, seeded.
    ///
    /// What is there of it already is gone on with.
    ///
    /// # Errors
    ///
    /// The database is somebody else's, or was made before and is gone; the server refuses; a migration
    /// or a seed fails.
    ///
    /// # Cancel safety
    ///
    /// Calling it again goes on.
    pub(crate) async fn make_database(
        &self,
        bench: &mut Bench,
        tenant: &str,
        own: &OwnDatabase,
        values: &BTreeMap<String, String>,
    ) -> Result<Made, Error> {
        let shape = Shape::of(&self.solution.manifest, &own.services);
        bench.admin(self.solution, &own.server).await?;
        let template = self.template(bench, &own.server, &shape).await?;
        let admin = bench.admin(self.solution, &own.server).await?;
        if let Some(oid) = own.oid {
            refuse_gone(admin, tenant, own, oid).await?;
        }
        let from = (&template, &shape);
        let copied = self.solution.copy(&admin.connection, from, tenant, &own.database, true).await?;
        let physical = Physical {
            system_identifier: admin.identifier.clone(),
            database: own.database.clone(),
            oid: copied.oid,
            server_version: admin.connection.server_version(),
        };
        let brought = self.bring(tenant, own, physical.clone(), values).await?;
        if !brought.on_disk && !self.activation_covers(&own.server) {
            // That it is open, and for whom, waited for what would be done in it.
            pgfleet_migrate::run::flush(&admin.connection).await.map_err(|error| {
                Error::postgres(format!("cannot make database {} of tenant {tenant}", own.database), &error)
            })?;
        }
        let Brought { print, standings, .. } = brought;
        Ok(Made { physical, bytes: template.bytes, print, standings })
    }

    /// Connects to the servers of databases that are about to be made; what fails is told when they are.
    pub(crate) async fn admins(&self, bench: &mut Bench, databases: &[OwnDatabase]) {
        for own in databases {
            let _told_later = bench.admin(self.solution, &own.server).await;
        }
    }

    /// Looks for the templates of databases that are about to be made; what fails is told when they are.
    pub(crate) async fn look_ahead(&self, bench: &Bench, databases: &[OwnDatabase]) {
        for own in databases {
            let shape = Shape::of(&self.solution.manifest, &own.services);
            let _told_later = self.template(bench, &own.server, &shape).await;
        }
    }

    /// Returns the template of a shape, at the head of the files: looked for on the server once.
    async fn template(&self, bench: &Bench, server: &str, shape: &Shape) -> Result<Template, Error> {
        // Held while one is made: the others need the same.
        let mut known = self.templates.lock().await;
        let key = (server.to_owned(), shape.name());
        if let Some(template) = known.get(&key) {
            return Ok(template.clone());
        }
        let plans = self.plans();
        let (catalogue, place) = (&bench.catalogue, (server, shape));
        let template = match bench.known_admin(server) {
            Some(admin) => {
                let admin = &admin.connection;
                let made = self.solution.ensure_template_by(catalogue, admin, place, &plans, &self.observer);
                Box::pin(made).await?
            }
            None => Box::pin(self.solution.ensure_template(catalogue, server, shape, &plans, &self.observer)).await?,
        };
        known.insert(key, template.clone());
        Ok(template)
    }

    /// Whether what is done on a server is on disk when a tenant is active: the control database is in the same
    /// cluster, and the commit that makes the tenant active waits for the disk.
    fn activation_covers(&self, server: &str) -> bool {
        self.solution.manifest.control.server == server
    }

    /// Migrates and seeds each service in a tenant's database.
    async fn bring(
        &self,
        tenant: &str,
        own: &OwnDatabase,
        physical: Physical,
        values: &BTreeMap<String, String>,
    ) -> Result<Brought, Error> {
        let plans = self.plans();
        let mut target = FleetTarget::on(TargetKind::Tenant, &own.server, &own.database, tenant, &own.services);
        target.physical = Some(physical);
        let print = plans.prints().of(own.services.iter().map(String::as_str)).ok_or_else(|| {
            Error::new(ErrorKind::Failed, format!("there is no plan for all services of {}", own.database))
        })?;
        let mut brought = Brought { print, standings: Vec::with_capacity(own.services.len()), on_disk: false };
        for service in &own.services {
            let job = self.solution.job(&plans, &target, service, values)?;
            // Where there are seeds there is something to do in a new database.
            let lock_first = job.path.sets().iter().any(|set| !set.seeds.files.is_empty());
            let mut options = Options { lock_first, ..self.options.clone() };
            if self.activation_covers(&own.server) && options.durability == Durability::Run {
                options.durability = Durability::Later;
            }
            let reports = fleet::run_all(vec![job], Work::Migrate, &options, 1, self.observer.clone()).await;
            for report in reports {
                match &report.result {
                    Err(error) => {
                        let message = format!("cannot migrate and seed {}", target.name(service));
                        return Err(Error::of_run(message, error));
                    }
                    // What a run does is on disk when it is done, and what was done before it with it.
                    Ok(done) => {
                        brought.on_disk |= done.outcome == Outcome::Applied && options.durability != Durability::Later;
                    }
                }
                let print = plans.get(service).map(|plan| plan.print.as_str());
                brought.standings.push(Standing::of(&target, &report, print));
            }
        }
        Ok(brought)
    }
}

async fn read_plans(solution: &Solution, observer: &Arc<dyn Observer>) -> Result<Plans, Error> {
    let names: Vec<String> = tenant_services(&solution.manifest).map(|service| service.name.clone()).collect();
    if names.is_empty() {
        // No name would mean all services.
        return Ok(Plans::default());
    }
    solution.plans(&names, observer).await
}

/// Refuses to make a database anew that was made before and is not there: what was in it is lost, and an
/// empty one in its place would hide that.
async fn refuse_gone(admin: &Admin, tenant: &str, own: &OwnDatabase, oid: u32) -> Result<(), Error> {
    let rows = admin
        .connection
        .query("SELECT oid FROM pg_catalog.pg_database WHERE datname = $1", &[(&own.database, Type::TEXT)])
        .await
        .map_err(|error| Error::postgres(format!("cannot look for database {}", own.database), &error))?;
    let found: Option<u32> = rows.first().map(|row| row.get(0));
    if found == Some(oid) && (own.system_identifier.is_empty() || own.system_identifier == admin.identifier) {
        return Ok(());
    }
    let why = match found {
        None => format!("it is not on server {}", own.server),
        Some(_) => format!("another database of this name is on server {}", own.server),
    };
    Err(Error::new(ErrorKind::Failed, format!("database {} of tenant {tenant} is gone", own.database))
        .cause(why)
        .hinted("restore it from a backup; or make an empty one: pgfleet tenant mend --make"))
}

/// Notes why making a tenant failed.
async fn set_failed(catalogue: &Catalogue, tenant: &str, error: &Error) -> Result<(), Error> {
    let text = std::iter::once(error.to_string()).chain(error.causes().iter().cloned()).collect::<Vec<_>>();
    execute(
        catalogue.connection(),
        "UPDATE control.tenants SET state = 'failed', error = $2, updated_at = now() \
         WHERE name = $1 AND state IN ('requested', 'creating')",
        &[(&tenant, Type::TEXT), (&text.join(": "), Type::TEXT)],
    )
    .await?;
    Ok(())
}
