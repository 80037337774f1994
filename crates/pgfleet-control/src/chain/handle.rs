//! What is done for each message.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgfleet_migrate::{Observer, Options, Outcome};
use pgfleet_postgres::Type;
use tokio::sync::Mutex;

use super::hook::{Hook, LIMIT};
use super::message::{
    AppliedDatabaseMigrations, ApplyDatabaseMigrations, Draft, Message, Received, TenantConnectionStringUpdated,
    TenantCreated,
};
use crate::catalogue::Catalogue;
use crate::connections::has_tenants;
use crate::error::{Error, ErrorKind};
use crate::fleet::{self, Job, TargetReport, Work};
use crate::manifest::Service;
use crate::plans::{Plans, Prints};
use crate::solution::Solution;
use crate::standing::Standing;
use crate::targets::FleetTarget;
use crate::tenants::{TenantState, string_name};

/// What handling a message led to.
#[derive(Debug, Default)]
pub(super) struct Handled {
    /// What was done, or why nothing was.
    pub(super) note: String,
    /// What follows.
    pub(super) following: Vec<Draft>,
}

impl Handled {
    fn noted(note: impl Into<String>) -> Self {
        Self { note: note.into(), following: Vec::new() }
    }
}

/// Handles the messages of a solution, several at a time.
pub(super) struct Handler<'a> {
    pub(super) solution: &'a Solution,
    /// Of the runs: announced to the control database, tried once.
    pub(super) options: Options,
    pub(super) observer: Arc<dyn Observer>,
    /// The names of the variables that a hook would inherit.
    pub(super) surroundings: Vec<String>,
    catalogue: Mutex<Option<Arc<Catalogue>>>,
    /// What databases are to be brought to, by the services asked for, and since when it is known.
    plans: Mutex<HashMap<Vec<String>, (Instant, Arc<Plans>)>>,
    /// The services' own databases, and since when they are known.
    pub(super) hosts: Mutex<Option<(Instant, Arc<Vec<Job>>)>>,
}

impl<'a> Handler<'a> {
    pub(super) fn new(solution: &'a Solution, options: &Options, observer: Arc<dyn Observer>) -> Self {
        // Trying again is the message's business.
        let options = Options {
            max_tries: 1,
            always_seed: solution.manifest.tenants.always_seed,
            ..solution.announcing(options)
        };
        Self {
            solution,
            options,
            observer,
            surroundings: Vec::new(),
            catalogue: Mutex::default(),
            plans: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    /// Handles one message.
    pub(super) async fn handle(&self, received: &Received) -> Result<Handled, Error> {
        match &received.message {
            Message::AppliedDatabaseMigrations(message) => self.applied(message, received).await,
            Message::ApplyDatabaseMigrations(message) => self.apply(message, received).await,
            Message::TenantCreated(TenantCreated { tenant }) => self.created(tenant, received).await,
            Message::TenantConnectionStringUpdated(message) => self.updated(message, received).await,
        }
    }

    /// Closes what is open.
    pub(super) async fn close(self) {
        if let Some(catalogue) = self.catalogue.into_inner().and_then(Arc::into_inner) {
            catalogue.close().await;
        }
    }

    /// A host was migrated: the tenants that are behind are to follow, one message each.
    async fn applied(&self, message: &AppliedDatabaseMigrations, received: &Received) -> Result<Handled, Error> {
        let service = self.service(&message.service)?;
        if !has_tenants(service) {
            return Ok(Handled::noted("the service has no data in tenants' databases"));
        }
        let catalogue = self.catalogue().await?;
        if let Some((rollout, state)) = unfinished_rollout(&catalogue, &service.name).await? {
            return Ok(Handled::noted(format!("rollout {rollout}, which is {state}, brings the tenants there")));
        }
        // Where everybody is to be seeded, nobody is where he should be.
        let (prints, always) = match self.solution.manifest.tenants.always_seed {
            true => (Prints::default(), true),
            false => (self.plans(std::slice::from_ref(&service.name), received).await?.prints(), false),
        };
        let verify_after = self.solution.manifest.tenants.verify_after;
        let stale = self.solution.stale_tenants(&catalogue, &prints, verify_after).await?.stale;
        let tenants = stale.into_iter().filter(|(_, of)| *of == service.name).map(|(tenant, _)| tenant);
        let following: Vec<Draft> = tenants
            .map(|tenant| Draft {
                id: format!("{}/{tenant}", received.id),
                message: Message::ApplyDatabaseMigrations(ApplyDatabaseMigrations {
                    service: service.name.clone(),
                    tenant: Some(tenant),
                }),
            })
            .collect();
        let note = match (following.len(), always) {
            (0, _) => "no tenant is behind".to_owned(),
            (1, false) => "one tenant follows".to_owned(),
            (count, false) => format!("{count} tenants follow"),
            (count, true) => format!("{count} tenants follow: they are always seeded"),
        };
        Ok(Handled { note, following })
    }

    /// One service in one database is to be migrated and seeded.
    async fn apply(&self, message: &ApplyDatabaseMigrations, received: &Received) -> Result<Handled, Error> {
        let service = self.service(&message.service)?;
        let services = [service.name.clone()];
        let Some(tenant) = &message.tenant else {
            let targets = self.solution.host_targets(&services)?;
            return self.bring(&targets, &services, received).await.map(Handled::noted);
        };
        if let Some(why) = self.is_not_served(tenant).await? {
            return Ok(Handled::noted(why));
        }
        let catalogue = self.catalogue().await?;
        let targets = self.solution.targets_of_tenant(&catalogue, tenant).await?;
        let Some(target) = targets.iter().find(|target| target.services.contains(&service.name)) else {
            return Ok(Handled::noted(format!("{tenant} lives in the service's own database")));
        };
        if target.physical.is_some() {
            return self.bring(&targets, &services, received).await.map(Handled::noted);
        }
        // Nobody knows yet whose database it is.
        let strings = strings_of(&catalogue, tenant).await?;
        let own = strings.iter().find(|connection| self.led(connection, &strings).contains(&service.name));
        if let Some(connection) = own {
            self.make(tenant, connection, &services, received).await?;
        }
        let targets = self.solution.targets_of_tenant(&catalogue, tenant).await?;
        self.bring(&targets, &services, received).await.map(Handled::noted)
    }

    /// A tenant was stored: its databases are made, if they are not, and brought to head.
    async fn created(&self, tenant: &str, received: &Received) -> Result<Handled, Error> {
        if let Some(why) = self.is_not_served(tenant).await? {
            return Ok(Handled::noted(why));
        }
        let catalogue = self.catalogue().await?;
        let strings = strings_of(&catalogue, tenant).await?;
        if strings.is_empty() {
            return Ok(Handled::noted(format!("{tenant} lives in the services' own databases")));
        }
        let mut led = Vec::new();
        for connection in &strings {
            let services = self.led(connection, &strings);
            self.make(tenant, connection, &services, received).await?;
            led.extend(services);
        }
        let targets = self.solution.targets_of_tenant(&catalogue, tenant).await?;
        self.bring(&targets, &led, received).await.map(Handled::noted)
    }

    /// A string was changed: what it leads to is made, if it can be, and brought to head; then the hook.
    async fn updated(&self, message: &TenantConnectionStringUpdated, received: &Received) -> Result<Handled, Error> {
        let TenantConnectionStringUpdated { tenant, connection } = message;
        if let Some(why) = self.is_not_served(tenant).await? {
            return Ok(Handled::noted(why));
        }
        let catalogue = self.catalogue().await?;
        let strings = strings_of(&catalogue, tenant).await?;
        if !strings.contains(connection) {
            return Ok(Handled::noted(format!("{} was taken away since", string_name(connection))));
        }
        let led = self.led(connection, &strings);
        self.make(tenant, connection, &led, received).await?;
        let targets = self.solution.targets_of_tenant(&catalogue, tenant).await?;
        let mut note = self.bring(&targets, &led, received).await?;
        if let Some(command) = &self.solution.manifest.tenants.after_connection_string_updated {
            let folder = &self.solution.manifest.root;
            let hook = Hook { command, folder, surroundings: &self.surroundings, limit: LIMIT };
            hook.run(tenant, connection, &self.options.stop).await?;
            note.push_str("; the command was run");
        }
        Ok(Handled::noted(note))
    }

    /// Makes what a tenant's string leads to, and looks at it, when nobody has yet.
    async fn make(&self, tenant: &str, connection: &str, led: &[String], received: &Received) -> Result<(), Error> {
        if led.is_empty() {
            return Ok(());
        }
        let catalogue = self.catalogue().await?;
        let targets = self.solution.targets_of_tenant(&catalogue, tenant).await?;
        for target in targets.iter().filter(|target| target.services.iter().any(|service| led.contains(service))) {
            let plans = self.plans(&target.services, received).await?;
            self.solution.make_missing(target, connection, &plans, &self.observer).await?;
        }
        self.solution.look_at_unseen(tenant, connection, &self.observer).await
    }

    /// Returns the services whose data one of a tenant's strings leads.
    fn led(&self, connection: &str, strings: &[String]) -> Vec<String> {
        let services = self.solution.manifest.services.iter().filter(|service| has_tenants(service));
        let led = services.filter(|service| {
            if connection.is_empty() { !strings.contains(&service.name) } else { service.name == connection }
        });
        led.map(|service| service.name.clone()).collect()
    }

    /// Migrates and seeds services in databases, one after the other, and records where they stand.
    async fn bring(&self, targets: &[FleetTarget], services: &[String], received: &Received) -> Result<String, Error> {
        let mut notes = Vec::new();
        let mut failed = None;
        for target in targets {
            let here: Vec<String> =
                target.services.iter().filter(|service| services.contains(service)).cloned().collect();
            if here.is_empty() {
                continue;
            }
            let plans = self.plans(&here, received).await?;
            let catalogue = self.catalogue().await?;
            let values = self.solution.seed_values(&catalogue, &target.tenant).await?;
            let jobs = here.iter().map(|service| self.solution.job(&plans, target, service, &values));
            let jobs: Vec<Job> = jobs.collect::<Result<_, _>>()?;
            let reports = fleet::run_all(jobs, Work::Migrate, &self.options, 1, self.observer.clone()).await;
            self.record(&catalogue, target, &plans, &reports).await?;
            for report in reports {
                let name = target.name(&report.service);
                match &report.result {
                    Ok(done) => notes.push(format!("{name}: {}", said(done))),
                    Err(error) => {
                        failed =
                            failed.or_else(|| Some(Error::of_run(format!("cannot migrate and seed {name}"), error)))
                    }
                }
            }
        }
        match failed {
            Some(error) if self.options.stop.is_asked() => Err(Error::new(ErrorKind::Stopped, error.to_string())),
            Some(error) => Err(error),
            None if notes.is_empty() => Ok("it leads no service's data".to_owned()),
            None => Ok(notes.join("; ")),
        }
    }

    async fn record(
        &self,
        catalogue: &Catalogue,
        target: &FleetTarget,
        plans: &Plans,
        reports: &[TargetReport],
    ) -> Result<(), Error> {
        // What was stopped says nothing of where it stands.
        let told = reports.iter().filter(|report| report.result.is_ok() || !self.options.stop.is_asked());
        let standings: Vec<Standing> = told
            .clone()
            .map(|report| Standing::of(target, report, plans.get(&report.service).map(|plan| plan.print.as_str())))
            .collect();
        catalogue.record_standings(&standings).await?;
        for report in told.filter(|report| report.changed()) {
            let subject = target.name(&report.service);
            catalogue.audit("migrate", &subject, &report.audit_detail(), &self.options).await?;
        }
        Ok(())
    }

    /// Says why nothing is done for a tenant, if nothing is.
    async fn is_not_served(&self, tenant: &str) -> Result<Option<String>, Error> {
        let catalogue = self.catalogue().await?;
        let rows = catalogue
            .connection()
            .query("SELECT state FROM control.tenants WHERE name = $1", &[(&tenant, Type::TEXT)])
            .await
            .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
        let Some(state) = rows.first().map(|row| row.get::<_, &str>(0)) else {
            return Ok(Some(format!("there is no tenant {tenant} any more")));
        };
        let served = [TenantState::Active, TenantState::Disabled].iter().any(|known| known.word() == state);
        Ok((!served).then(|| format!("{tenant} is {state}")))
    }

    /// Finds a service. That the manifest does not have it is an error: this process may have read it
    /// before it was changed.
    fn service(&self, name: &str) -> Result<&'a Service, Error> {
        crate::jobs::find_service(&self.solution.manifest, name)
    }

    /// Returns what services' databases are to be brought to, as it is since the message is due.
    async fn plans(&self, services: &[String], received: &Received) -> Result<Arc<Plans>, Error> {
        // Those who come together wait for the first and share what it read.
        let mut known = self.plans.lock().await;
        let now = Instant::now();
        if let Some((since, plans)) = known.get(services)
            && now.duration_since(*since) < received.age
        {
            return Ok(plans.clone());
        }
        let plans = Arc::new(self.solution.plans(services, &self.observer).await?);
        known.insert(services.to_vec(), (now, plans.clone()));
        Ok(plans)
    }

    /// Returns the open control database; opened anew when the connection is lost.
    pub(super) async fn catalogue(&self) -> Result<Arc<Catalogue>, Error> {
        let mut open = self.catalogue.lock().await;
        if let Some(catalogue) = open.as_ref().filter(|catalogue| !catalogue.connection().is_closed()) {
            return Ok(catalogue.clone());
        }
        let catalogue = Arc::new(self.solution.tenant_catalogue().await?);
        *open = Some(catalogue.clone());
        Ok(catalogue)
    }
}

/// Lists the names of a tenant's strings.
async fn strings_of(catalogue: &Catalogue, tenant: &str) -> Result<Vec<String>, Error> {
    let rows = catalogue
        .connection()
        .query("SELECT connection FROM control.tenant_strings WHERE tenant = $1", &[(&tenant, Type::TEXT)])
        .await
        .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Finds an unfinished rollout that has databases of tenants with a service among its targets.
async fn unfinished_rollout(catalogue: &Catalogue, service: &str) -> Result<Option<(i64, String)>, Error> {
    let rows = catalogue
        .connection()
        .query(
            "SELECT r.id, r.state FROM control.rollouts r WHERE r.state IN ('planned', 'running', 'paused', 'halted') \
             AND EXISTS (SELECT FROM control.rollout_targets t WHERE t.rollout = r.id AND t.kind = 'tenant' \
                         AND $1 = ANY (t.services)) ORDER BY r.id LIMIT 1",
            &[(&service, Type::TEXT)],
        )
        .await
        .map_err(|error| Error::postgres("cannot read the rollouts", &error))?;
    Ok(rows.first().map(|row| (row.get(0), row.get(1))))
}

/// Says how a run ended.
fn said(report: &pgfleet_migrate::Report) -> String {
    match report.outcome {
        Outcome::Applied => {
            let seeded = match report.seeded.len() {
                0 => String::new(),
                count => format!(", seeded {count}"),
            };
            format!("applied {}{seeded}", report.applied.len())
        }
        _ => "nothing to do".to_owned(),
    }
}

/// Returns how long to wait before the next try.
pub(super) fn wait(options: &Options) -> Duration {
    pgfleet_postgres::retry::between(options.min_retry_wait, options.max_retry_wait)
}

impl Solution {
    /// Returns what a tenant's seeds are given.
    pub(crate) async fn seed_values(
        &self,
        _catalogue: &Catalogue,
        _tenant: &str,
    ) -> Result<BTreeMap<String, String>, Error> {
        Ok(BTreeMap::new())
    }
}
