//! How a tenant comes to life: its databases are copied, migrated and seeded, and then it is active.
//!
//! Every step can be done again. What is there is known by the rows that were written before it and by
//! the mark on the database, so whoever dies leaves a tenant that the next one goes on with. One
//! process at a time works on a tenant: it holds a lock in the control database as long as it lives.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgfleet_migrate::options::Durability;
use pgfleet_migrate::{Observer, Options, Outcome};
use pgfleet_postgres::{Address, Connection, Purpose, Type, connect, retry};
use secrecy::SecretString;
use tokio::sync::Mutex;

use super::check::Tried;
use super::verbs::{execute, store};
use super::{Choices, Done, NewString, OwnDatabase, Tenant, TenantState, properties};
use crate::catalogue::Catalogue;
use crate::connections::tenant_services;
use crate::error::{Error, ErrorKind};
use crate::fleet::{self, Work};
use crate::physical::Physical;
use crate::plans::Plans;
use crate::roles::Login;
use crate::solution::Solution;
use crate::standing::Standing;
use crate::targets::{FleetTarget, TargetKind};
use crate::templates::{Shape, Template};

/// First half of the locks on tenants, `pgfn` in ASCII; taken in the control database.
const HELD: i32 = 0x7067_666e;

/// How long to wait for another process that works on the same tenant.
const LOCK_TRIES: u32 = 1_200;

/// How often a tenant is brought to files that became newer while it was made.
const HEADS: u32 = 3;

/// A tenant that is to be finished.
#[derive(Debug)]
pub(crate) struct Half {
    /// Its name.
    pub(crate) name: String,
    /// Its databases.
    pub(crate) databases: Vec<OwnDatabase>,
    /// Its strings that lead elsewhere: they were given, and stay.
    pub(crate) given: BTreeSet<String>,
    /// What its seeds are given.
    pub(crate) values: BTreeMap<String, String>,
}

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

/// The connections of one who works on tenants: opened once, used for many of them.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The control database.
    pub(crate) catalogue: Catalogue,
    admins: HashMap<String, Admin>,
}

/// A connection to a server as its administrator.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) connection: Connection,
    /// Identifies the cluster.
    pub(crate) identifier: String,
}

impl Bench {
    /// Opens the control database, and with `copying` the server on which tenants are, when there is
    /// only one.
    ///
    /// # Errors
    ///
    /// The control database is not there yet, or a server cannot be reached.
    pub(crate) async fn open(solution: &Solution, copying: bool) -> Result<Self, Error> {
        let only = match &solution.manifest.tenants.servers[..] {
            [only] if copying => Some(only.as_str()),
            _ => None,
        };
        let (catalogue, admin) = futures_util::future::try_join(solution.tenant_catalogue(), async {
            let Some(server) = only else { return Ok(None) };
            let admin = match solution.take_admin(server) {
                Some(kept) => kept,
                None => Admin::open(solution, server).await?,
            };
            Ok(Some((server.to_owned(), admin)))
        })
        .await?;
        Ok(Self { catalogue, admins: admin.into_iter().collect() })
    }

    /// Returns one whose connections are alive.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(crate) async fn usable<'a>(
        bench: &'a mut Option<Self>,
        solution: &Solution,
        copying: bool,
    ) -> Result<&'a mut Self, Error> {
        let alive = |bench: &Self| !bench.catalogue.connection().is_closed();
        let usable = match bench.take() {
            Some(found) if alive(&found) => found,
            _ => Self::open(solution, copying).await?,
        };
        Ok(bench.insert(usable))
    }

    /// Connects to a server as its administrator, once.
    pub(crate) async fn admin(&mut self, solution: &Solution, server: &str) -> Result<&Admin, Error> {
        let alive = self.admins.get(server).is_some_and(|admin| !admin.connection.is_closed());
        if !alive {
            self.admins.insert(server.to_owned(), Admin::open(solution, server).await?);
        }
        Ok(&self.admins[server])
    }

    /// Returns the control database and a server.
    pub(crate) async fn both(&mut self, solution: &Solution, server: &str) -> Result<(&Catalogue, &Admin), Error> {
        self.admin(solution, server).await?;
        Ok((&self.catalogue, &self.admins[server]))
    }

    /// Takes the tenant for this one alone, and waits while another has it.
    ///
    /// # Errors
    ///
    /// Another has had it for ten minutes.
    pub(crate) async fn hold(&self, tenant: &str) -> Result<(), Error> {
        for attempt in 1..=LOCK_TRIES {
            if self.try_hold(tenant).await? {
                return Ok(());
            }
            tokio::time::sleep(retry::backoff(attempt, Duration::from_millis(20), Duration::from_millis(500))).await;
        }
        Err(Error::new(ErrorKind::Failed, format!("cannot work on tenant {tenant}"))
            .cause("another process has been at it for ten minutes"))
    }

    /// Takes the tenant unless another has it.
    pub(crate) async fn try_hold(&self, tenant: &str) -> Result<bool, Error> {
        let sql = format!("SELECT pg_catalog.pg_try_advisory_lock({HELD}, {})", lock_key(tenant));
        let rows = self
            .catalogue
            .connection()
            .simple(&sql)
            .await
            .map_err(|error| Error::postgres(format!("cannot lock tenant {tenant}"), &error))?;
        Ok(rows.first().and_then(|row| row.get(0)) == Some("t"))
    }

    /// Lets others work on the tenant; closing the connection does, too.
    pub(crate) async fn release(&self, tenant: &str) {
        let sql = format!("SELECT pg_catalog.pg_advisory_unlock({HELD}, {})", lock_key(tenant));
        let _freed = self.catalogue.connection().simple(&sql).await;
    }

    /// Closes the connections.
    pub(crate) async fn close(self) {
        let admins = self.admins.into_values().map(|admin| admin.connection.close());
        futures_util::future::join(self.catalogue.close(), futures_util::future::join_all(admins)).await;
    }
}

impl Admin {
    async fn open(solution: &Solution, server: &str) -> Result<Self, Error> {
        let Some((_, found)) = solution.servers().find(|(name, _)| *name == server) else {
            return Err(Error::new(ErrorKind::Configuration, format!("there is no server `{server}` in the manifest"))
                .hinted("a tenant's database is there: put the server back, or move the tenant before taking it out"));
        };
        Self::connect(&found.admin, server).await
    }

    /// Connects to the server at this address.
    pub(crate) async fn connect(address: &Address, server: &str) -> Result<Self, Error> {
        let failed = |error: &pgfleet_postgres::Error| {
            Error::postgres(format!("cannot work on the tenants' databases of server {server}"), error)
        };
        let purpose = Purpose::new("pgfleet tenant").setting("lock_timeout", "60s").setting("statement_timeout", "0");
        let connection = connect(address, &purpose).await.map_err(|error| failed(&error))?;
        let identifier =
            pgfleet_postgres::identity::system_identifier(&connection).await.map_err(|error| failed(&error))?;
        Ok(Self { connection, identifier })
    }
}

fn lock_key(tenant: &str) -> i32 {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(tenant.as_bytes());
    i32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// What those who make tenants share: the files, and the templates that are at them.
pub(crate) struct Workshop<'a> {
    solution: &'a Solution,
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
        let template = match bench.admins.get(server) {
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

    /// Makes a tenant active, in one transaction, when its databases are at the head of this moment;
    /// says whether they are. `to` may be that it is disabled, as it was before it was deleted.
    async fn activate(&self, bench: &Bench, half: &Half, made: &[Made], to: TenantState) -> Result<bool, Error> {
        let catalogue = &bench.catalogue;
        let connection = catalogue.connection();
        let work = async {
            let sharing = self.solution.sharing()?;
            let ((), is_head, (), known, missing) = tokio::try_join!(
                catalogue.begin(),
                self.is_head(connection, half, made),
                self.open_all(connection, half, made),
                set_state(connection, &half.name, to),
                sharing.missing(connection, &half.name),
            )?;
            if !is_head {
                return Ok(false);
            }
            if known == 0 {
                let message = format!("tenant {} is being moved, or is gone", half.name);
                return Err(Error::new(ErrorKind::Failed, message)
                    .hinted(format!("look: pgfleet tenant move {} --status", half.name)));
            }
            let shared = sharing.sealed(self.solution, &missing)?;
            let standings: Vec<Standing> = made.iter().flat_map(|made| made.standings.clone()).collect();
            let names: Vec<&str> = half.databases.iter().map(|own| own.database.as_str()).collect();
            let detail = serde_json::json!({ "databases": names });
            let action = format!("tenant {}", to.word());
            // After a statement that failed the commit is none, and the error of that statement says so.
            tokio::try_join!(
                shared.store(connection),
                catalogue.record_standings(&standings),
                catalogue.audit(&action, &half.name, &detail, self.solution.options()),
                catalogue.commit(false),
            )?;
            Ok(true)
        };
        match Box::pin(work).await {
            Ok(true) => Ok(true),
            // Nothing of it stays.
            Ok(false) => catalogue.roll_back().await.map(|()| false),
            Err(error) => catalogue.end(Err(error)).await,
        }
    }

    /// Compares the databases with the templates as they are now.
    ///
    /// Whoever rolls files out brings the templates to them first, and looks for tenants last: rows that
    /// are locked here until the tenant is active let it see the tenant, or us the new template.
    async fn is_head(&self, connection: &Connection, half: &Half, made: &[Made]) -> Result<bool, Error> {
        let servers: Vec<&str> = half.databases.iter().map(|own| own.server.as_str()).collect();
        let shapes: Vec<String> =
            half.databases.iter().map(|own| Shape::of(&self.solution.manifest, &own.services).name()).collect();
        let rows = connection
            .query(
                "SELECT t.server, t.shape, t.plan FROM control.templates t \
                 WHERE (t.server, t.shape) IN (SELECT * FROM unnest($1::text[], $2::text[])) FOR SHARE",
                &[(&servers, Type::TEXT_ARRAY), (&shapes, Type::TEXT_ARRAY)],
            )
            .await
            .map_err(|error| Error::postgres("cannot read the templates in the control database", &error))?;
        let plans: HashMap<(&str, &str), &str> =
            rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
        let at_head = |at: usize| plans.get(&(servers[at], shapes[at].as_str())) == Some(&made[at].print.as_str());
        Ok((0..made.len()).all(at_head))
    }

    /// Stores the strings that lead to a tenant's databases, and that those are open.
    async fn open_all(&self, connection: &Connection, half: &Half, made: &[Made]) -> Result<(), Error> {
        let keys = self.solution.keys()?;
        let each = half.databases.iter().zip(made).map(|(own, made)| {
            let given = half.given.contains(&own.connection);
            let string = if given { None } else { Some(self.string_to(&half.name, own, &made.physical)?) };
            Ok::<_, Error>((own, made, string))
        });
        let all = each.collect::<Result<Vec<_>, Error>>()?;
        let stores = all.iter().map(|(own, made, string)| {
            let keys = &keys;
            let stored = async move {
                let Some((string, tried)) = string else { return Ok(()) };
                store(connection, keys, &half.name, string, tried, Choices::default(), &own.server).await
            };
            futures_util::future::try_join(stored, set_open(connection, own, made))
        });
        futures_util::future::try_join_all(stores).await?;
        Ok(())
    }

    /// Makes the string that leads to a tenant's own database.
    fn string_to(&self, tenant: &str, own: &OwnDatabase, physical: &Physical) -> Result<(NewString, Tried), Error> {
        let text = SecretString::from(format!("dbname='{}'", own.database.replace('\\', "\\\\").replace('\'', "\\'")));
        let service = own.services.first().ok_or_else(|| {
            Error::new(ErrorKind::Failed, format!("database {} of tenant {tenant} is for no service", own.database))
        })?;
        let service = crate::jobs::find_service(&self.solution.manifest, service)?;
        let address = self.solution.text_address(service, &own.server, &text, tenant, Login::App)?;
        let shown = super::check::shown(&address, &text);
        let tried = Tried { shown, physical: Some(physical.clone()), notes: Vec::new() };
        Ok((NewString { connection: own.connection.clone(), text }, tried))
    }
}

impl Solution {
    /// Goes on with a tenant that was asked for and is not active yet: makes its databases, migrates and
    /// seeds them, and makes it active. One that needs nothing is left as it is.
    ///
    /// # Errors
    ///
    /// There is no such tenant, or it is on its way out; and as [`create_tenants`](Self::create_tenants).
    ///
    /// # Cancel safety
    ///
    /// Calling it again goes on.
    pub async fn go_on_with_tenant(&self, name: &str, observer: &Arc<dyn Observer>) -> Result<Done, Error> {
        let mut bench = Bench::open(self, false).await?;
        let done = Box::pin(self.go_on(&mut bench, None, name, observer)).await;
        bench.close().await;
        done
    }

    /// Goes on with a tenant; the files are read when there is something to do and nobody has.
    pub(crate) async fn go_on(
        &self,
        bench: &mut Bench,
        workshop: Option<&Workshop<'_>>,
        name: &str,
        observer: &Arc<dyn Observer>,
    ) -> Result<Done, Error> {
        bench.hold(name).await?;
        let work = async {
            let tenant = self.read_tenant(bench.catalogue.connection(), name).await?;
            match tenant.state {
                TenantState::Active | TenantState::Disabled => {
                    return Ok(Done { tenant, changed: false, notes: Vec::new() });
                }
                TenantState::Requested | TenantState::Creating | TenantState::Failed => {}
                TenantState::Deleting | TenantState::Quarantined => {
                    let message = format!("tenant {name} is {}: there is nothing to go on with", tenant.state.word());
                    return Err(Error::new(ErrorKind::Failed, message)
                        .hinted(format!("have it back: pgfleet tenant restore {name}")));
                }
            }
            let half = self.take_up(&bench.catalogue, tenant).await?;
            let notes = match workshop {
                Some(workshop) => workshop.finish(bench, half, TenantState::Active).await?,
                None => Workshop::of(self, observer).await?.finish(bench, half, TenantState::Active).await?,
            };
            let tenant = self.read_tenant(bench.catalogue.connection(), name).await?;
            Ok(Done { tenant, changed: true, notes })
        };
        let done = Box::pin(work).await;
        bench.release(name).await;
        done
    }

    /// Notes that making a tenant is tried again.
    pub(super) async fn take_up(&self, catalogue: &Catalogue, tenant: Tenant) -> Result<Half, Error> {
        let connection = catalogue.connection();
        execute(
            connection,
            "UPDATE control.tenants SET state = 'creating', attempts = attempts + 1, updated_at = now() \
             WHERE name = $1",
            &[(&tenant.name, Type::TEXT)],
        )
        .await?;
        let values = properties::read(connection, &self.keys()?, &tenant.name).await?;
        Ok(Half { name: tenant.name, databases: tenant.databases, given: BTreeSet::new(), values })
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

/// Brings a tenant that is not being moved into a state; says how many there are.
async fn set_state(connection: &Connection, tenant: &str, to: TenantState) -> Result<u64, Error> {
    execute(
        connection,
        "UPDATE control.tenants SET state = $2, error = NULL, updated_at = now() WHERE name = $1 AND NOT moving",
        &[(&tenant, Type::TEXT), (&to.word(), Type::TEXT)],
    )
    .await
}

/// Notes that a database is open, and which one it is.
async fn set_open(connection: &Connection, own: &OwnDatabase, made: &Made) -> Result<u64, Error> {
    execute(
        connection,
        "UPDATE control.tenant_databases SET state = 'open', system_identifier = $3, database_oid = $4, \
           bytes = $5, closed_at = NULL, drop_after = NULL WHERE server = $1 AND database = $2",
        &[
            (&own.server, Type::TEXT),
            (&own.database, Type::TEXT),
            (&made.physical.system_identifier, Type::TEXT),
            (&made.physical.oid, Type::OID),
            (&made.bytes, Type::INT8),
        ],
    )
    .await
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
