//! What is done for each message.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use pgfleet_migrate::{Observer, Options};
use pgfleet_postgres::Type;
use tokio::sync::Mutex;

use super::hook::{Hook, LIMIT};
use super::message::{
    AppliedDatabaseMigrations, ApplyDatabaseMigrations, Draft, Message, Received, TenantConnectionStringUpdated,
    TenantCreated,
};
use crate::catalogue::Catalogue;
use crate::connections::has_tenants;
use crate::error::Error;
use crate::fleet::Job;
use crate::manifest::Service;
use crate::plans::{Plans, Prints};
use crate::solution::Solution;
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
    /// What databases are to be brought to, by the services asked for.
    pub(super) plans: Mutex<HashMap<Vec<String>, Read<Plans>>>,
    /// The services' own databases.
    pub(super) hosts: Mutex<Option<Read<Vec<Job>>>>,
}

/// What was read, and when.
pub(super) type Read<T> = (Instant, Arc<T>);

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
        let always = self.solution.manifest.tenants.always_seed;
        let prints = if always {
            Prints::default()
        } else {
            self.plans(std::slice::from_ref(&service.name), received).await?.prints()
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
        self.seed_guests(&[], std::slice::from_ref(&service.name)).await?;
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
            self.seed_guests(std::slice::from_ref(tenant), &services).await?;
            return Ok(Handled::noted(format!("{tenant} lives in the service's own database")));
        };
        if target.physical.is_some() {
            return self.bring(&targets, &services, received).await.map(Handled::noted);
        }
        // Nobody knows yet whose database it is.
        let strings = strings_of(&catalogue, tenant).await?;
        let own = strings.keys().find(|connection| self.led(connection, &strings).contains(&service.name));
        if let Some(connection) = own {
            self.make(tenant, connection, &services, received).await?;
        }
        let targets = self.solution.targets_of_tenant(&catalogue, tenant).await?;
        self.bring(&targets, &services, received).await.map(Handled::noted)
    }

    /// A tenant was stored: its databases are made, if they are not, and brought to head.
    async fn created(&self, tenant: &str, received: &Received) -> Result<Handled, Error> {
        match self.state(tenant).await? {
            Some(TenantState::Requested | TenantState::Creating | TenantState::Failed) => {
                // Whoever asked for it may be at it still: this waits for him.
                let done = Box::pin(self.solution.go_on_with_tenant(tenant, &self.observer)).await?;
                return Ok(Handled::noted(if done.changed { "it was finished" } else { "nothing to do" }));
            }
            Some(TenantState::Active | TenantState::Disabled) => {}
            state => return Ok(Handled::noted(not_served(tenant, state))),
        }
        let catalogue = self.catalogue().await?;
        let strings = strings_of(&catalogue, tenant).await?;
        if strings.is_empty() {
            self.seed_guests(&[tenant.to_owned()], &[]).await?;
            return Ok(Handled::noted(format!("{tenant} lives in the services' own databases")));
        }
        // What pgfleet made was brought to head before anybody saw it.
        let given: Vec<&String> = strings.iter().filter(|(_, made)| !**made).map(|(name, _)| name).collect();
        if given.is_empty() {
            return Ok(Handled::noted("nothing to do"));
        }
        let mut led = Vec::new();
        for connection in given {
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
        if !strings.contains_key(connection) {
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

    /// Seeds tenants that have no database of their own.
    async fn seed_guests(&self, tenants: &[String], services: &[String]) -> Result<(), Error> {
        let catalogue = self.catalogue().await?;
        let seeding = self.solution.seed_guests(&catalogue, (tenants, services), &self.options, &self.observer);
        for guest in Box::pin(seeding).await? {
            if let Err(error) = guest.report.result {
                return Err(Error::of_run(format!("cannot seed {}/{}", guest.report.service, guest.tenant), &error));
            }
        }
        Ok(())
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
    fn led(&self, connection: &str, strings: &Strings) -> Vec<String> {
        let services = self.solution.manifest.services.iter().filter(|service| has_tenants(service));
        let led = services.filter(|service| {
            if connection.is_empty() { !strings.contains_key(&service.name) } else { service.name == connection }
        });
        led.map(|service| service.name.clone()).collect()
    }

    /// Says why nothing is done for a tenant, if nothing is.
    async fn is_not_served(&self, tenant: &str) -> Result<Option<String>, Error> {
        let state = self.state(tenant).await?;
        let served = matches!(state, Some(TenantState::Active | TenantState::Disabled));
        Ok((!served).then(|| not_served(tenant, state)))
    }

    /// Returns the state of a tenant; none when it has gone.
    async fn state(&self, tenant: &str) -> Result<Option<TenantState>, Error> {
        let catalogue = self.catalogue().await?;
        let rows = catalogue
            .connection()
            .query("SELECT state FROM control.tenants WHERE name = $1", &[(&tenant, Type::TEXT)])
            .await
            .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
        rows.first().map(|row| TenantState::read(row.get(0))).transpose()
    }

    /// Finds a service. That the manifest does not have it is an error: this process may have read it
    /// before it was changed.
    fn service(&self, name: &str) -> Result<&'a Service, Error> {
        crate::jobs::find_service(&self.solution.manifest, name)
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

/// The names of a tenant's strings, and whether pgfleet made what they lead to.
type Strings = BTreeMap<String, bool>;

async fn strings_of(catalogue: &Catalogue, tenant: &str) -> Result<Strings, Error> {
    let sql = "SELECT connection, server <> '' FROM control.tenant_strings WHERE tenant = $1";
    let rows = catalogue
        .connection()
        .query(sql, &[(&tenant, Type::TEXT)])
        .await
        .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn not_served(tenant: &str, state: Option<TenantState>) -> String {
    state.map_or_else(
        || format!("there is no tenant {tenant} any more"),
        |state| format!("{tenant} is {}", state.word()),
    )
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
