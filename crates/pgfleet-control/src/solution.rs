//! A solution in work: its servers, its passwords, and what is done over all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgfleet_local::Running;
use pgfleet_migrate::options::{self, Who};
use pgfleet_migrate::{Event, Observer, Options};
use pgfleet_postgres::{Address, ErrorKind as PgErrorKind};
use secrecy::{ExposeSecret as _, SecretString};

use crate::announcer::{self, ControlAnnouncer};
use crate::bundle::Bundle;
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::fleet::{self, TargetReport, Work};
use crate::jobs::base_options;
use crate::local::local_server;
use crate::manifest::{Manifest, Server, ServerUrl, Service};
use crate::place::Place;
use crate::program::Programs;
use crate::provision::budget::Capacity;
use crate::provision::run::{end_strangers, missing_credentials};
use crate::provision::{DesiredServer, Provisioned, provision_server};
use crate::roles::{Login, Roles};
use crate::seal::{self, KeyRing, SealKey};
use crate::tenants::Admin;
use crate::vault::{self, Credential, Keeper, SecretsFile, Vault};

/// How a solution is opened; what the caller knows of its surroundings.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Who works, for the audit columns.
    pub who: Who,
    /// The encryption key (`PGFLEET_KEY`), for solutions whose control database is on a real server.
    pub key: Option<SecretString>,
    /// The keys that it replaced (`PGFLEET_KEY_OLD`), separated by commas.
    pub old_key: Option<SecretString>,
    /// Asks everything that runs to stop.
    pub stop: options::Stop,
    /// The programs of services that were started; the caller closes them at the end.
    pub programs: Programs,
    /// What is done next: what that begins with is opened at once, and stays open until then.
    pub next: Next,
}

/// What is done next with a solution that is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Next {
    /// Nothing that is known.
    #[default]
    Anything,
    /// Databases are migrated: the control database is asked before and after.
    Migrations,
    /// Tenants' databases are made: the server on which they are is needed, too.
    Copies,
}

/// One server that answers.
#[derive(Debug, Clone)]
pub struct ConnectedServer {
    /// The administrator's address, on the server itself: where pgfleet's own work is done.
    pub admin: Address,
    /// The same where services connect, which may be a pooler.
    pub services: Address,
    /// The local server; none for a remote one.
    pub local: Option<Running>,
}

/// A solution whose servers are known.
#[derive(Debug)]
pub struct Solution {
    /// What the manifest declares.
    pub manifest: Manifest,
    place: Place,
    servers: BTreeMap<String, ConnectedServer>,
    vault: Vault,
    options: Options,
    keys: Option<KeyRing>,
    programs: Programs,
    /// Where the sets are taken from instead of from the folders.
    bundle: Option<Arc<Bundle>>,
    /// How many connections the servers take that were looked at.
    capacities: BTreeMap<String, Capacity>,
    /// What was opened for who comes next.
    kept: Mutex<Box<Kept>>,
}

/// For how long the control database is kept open for who comes next. Behind it something may have closed the
/// connection without telling us.
const FRESH: Duration = Duration::from_secs(20);

/// Connections that are open already.
#[derive(Debug, Default)]
struct Kept {
    /// What comes.
    next: Next,
    /// The control database, since when it waits, and whether it has the tables for tenants.
    control: Option<(Catalogue, Instant, bool)>,
    /// Servers, as their administrator.
    admins: BTreeMap<String, Admin>,
}

impl Solution {
    /// Opens a solution and starts its local servers.
    ///
    /// # Errors
    ///
    /// A local server that cannot be found, fetched or started; a folder that cannot be written.
    pub async fn start(manifest: Manifest, surroundings: &Surroundings) -> Result<Self, Error> {
        Self::open_with(manifest, surroundings, true).await
    }

    /// Opens a solution whose local servers run already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreachable`] for a local server that is stopped.
    pub async fn open(manifest: Manifest, surroundings: &Surroundings) -> Result<Self, Error> {
        Self::open_with(manifest, surroundings, false).await
    }

    async fn open_with(manifest: Manifest, surroundings: &Surroundings, start: bool) -> Result<Self, Error> {
        let place = Place::of(&manifest.root);
        let file = SecretsFile::new(&place);
        let mut servers = BTreeMap::new();
        let mut vault = file.read()?;
        for server in manifest.servers.values() {
            let connected = match &server.url {
                ServerUrl::Remote(url) => {
                    let services = remote_address(server, url)?;
                    ConnectedServer { admin: direct_address(server, &services)?, services, local: None }
                }
                ServerUrl::Local => local_server(&manifest, server, &place, &file, &mut vault, start).await?,
            };
            servers.insert(server.name.clone(), connected);
        }
        let options = base_options(&manifest, surroundings);
        let keys = if uses_file(&manifest) { None } else { Some(key_ring(&manifest, &place, surroundings)?) };
        let programs = surroundings.programs.clone();
        let capacities = BTreeMap::new();
        let kept = Mutex::new(Box::new(Kept { next: surroundings.next, ..Kept::default() }));
        let mut solution =
            Self { manifest, place, servers, vault, options, keys, programs, bundle: None, capacities, kept };
        match surroundings.next {
            Next::Copies => Box::pin(solution.open_ahead()).await?,
            next => Box::pin(solution.read_credentials(next == Next::Migrations)).await?,
        }
        Ok(solution)
    }

    /// Reads the credentials, and opens beside that the server on which tenants are, when there is only one.
    async fn open_ahead(&mut self) -> Result<(), Error> {
        let only = match &self.manifest.tenants.servers[..] {
            [only] => self.servers.get(only).map(|server| (only.clone(), server.admin.clone())),
            _ => None,
        };
        let admin = async {
            let (name, address) = only?;
            // Who needs it tries again, and says what is wrong.
            let admin = Admin::connect(&address, &name).await.ok()?;
            Some((name, admin))
        };
        let (control, admin) = futures_util::future::join(self.read_control(true), admin).await;
        let (vault, control) = control?;
        self.learn(&vault);
        self.keep_control(control);
        self.lock_kept().admins = admin.into_iter().collect();
        Ok(())
    }

    fn lock_kept(&self) -> std::sync::MutexGuard<'_, Box<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the control database, or takes it as it was left open, and says whether it has the tables for
    /// tenants; none when it is not made yet.
    ///
    /// # Errors
    ///
    /// It is another solution's, or cannot be reached.
    pub(crate) async fn open_control(&self) -> Result<Option<(Catalogue, bool)>, Error> {
        let kept = self.lock_kept().control.take();
        if let Some((catalogue, since, knows_tenants)) = kept
            && since.elapsed() < FRESH
            && !catalogue.connection().is_closed()
        {
            return Ok(Some((catalogue, knows_tenants)));
        }
        let control = &self.manifest.control;
        let opened = Catalogue::open_if_there(&self.server(&control.server).admin, &control.database).await?;
        let Some(catalogue) = opened else { return Ok(None) };
        Catalogue::refuse_foreign(catalogue.connection(), &self.manifest.solution.name).await?;
        let knows_tenants = catalogue.has_tenants().await?;
        Ok(Some((catalogue, knows_tenants)))
    }

    /// Whether databases are migrated next.
    pub(crate) fn expects_migrations(&self) -> bool {
        self.lock_kept().next == Next::Migrations
    }

    /// Leaves the control database open for who comes next, with whether it has the tables for tenants.
    pub(crate) fn keep_control(&self, control: Option<(Catalogue, bool)>) {
        self.lock_kept().control = control.map(|(catalogue, knows_tenants)| (catalogue, Instant::now(), knows_tenants));
    }

    /// Takes the connection to a server that was opened ahead.
    pub(crate) fn take_admin(&self, server: &str) -> Option<Admin> {
        self.lock_kept().admins.remove(server).filter(|admin| !admin.connection.is_closed())
    }

    /// Returns the options of the manifest's `[migrations]`.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the programs of services that were started.
    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Returns the bundle that the sets are taken from; none when they are read from the folders.
    pub fn used_bundle(&self) -> Option<&Bundle> {
        self.bundle.as_deref()
    }

    pub(crate) fn set_bundle(&mut self, bundle: Arc<Bundle>) {
        self.bundle = Some(bundle);
    }

    /// Returns the keys that seal what is in the control database; a local solution's is made on
    /// first use.
    ///
    /// # Errors
    ///
    /// The state folder cannot be written, or holds what is no key.
    pub fn keys(&self) -> Result<KeyRing, Error> {
        match &self.keys {
            Some(keys) => Ok(keys.clone()),
            None => vault::local_keys(&SecretsFile::new(&self.place)),
        }
    }

    /// Returns the keys when credentials are in the control database, too.
    pub(crate) fn credential_keys(&self) -> Option<&KeyRing> {
        self.keys.as_ref()
    }

    /// Returns the state folder.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns a server's administrator and local state.
    pub fn server(&self, name: &str) -> &ConnectedServer {
        &self.servers[name]
    }

    /// Returns all servers.
    pub fn servers(&self) -> impl Iterator<Item = (&str, &ConnectedServer)> {
        self.servers.iter().map(|(name, server)| (name.as_str(), server))
    }

    /// Returns the address of a service's database for one of its roles: the migrator's on the server
    /// itself, that of the others where services connect.
    ///
    /// # Errors
    ///
    /// No password is known yet: the service was not provisioned from here.
    pub fn address(&self, service: &Service, login: Login) -> Result<Address, Error> {
        let (role, credential) = self.login(&service.server, service, login)?;
        let way = self.way(service, login);
        Ok(way.with_database(&service.database).with_user(&role, Some(credential.password.clone())))
    }

    /// Returns the role of a login that is handed out on a server, with its password.
    pub(crate) fn login(&self, server: &str, service: &Service, login: Login) -> Result<(String, &Credential), Error> {
        let roles = Roles::of(&service.name);
        let found = self.vault.active(server, &roles, login);
        found.map(|(role, credential)| (role.to_owned(), credential)).ok_or_else(|| {
            Error::new(ErrorKind::Configuration, format!("there is no password for role {}", roles.login(login)))
                .hinted("make it: pgfleet provision")
        })
    }

    /// Returns the address of another service's database for a service that uses one of its modules.
    ///
    /// # Errors
    ///
    /// No password is known yet.
    pub fn guest_address(&self, guest: &Service, owner: &Service) -> Result<Address, Error> {
        let (role, credential) = self.login(&owner.server, guest, Login::App)?;
        let way = self.way(owner, Login::App);
        Ok(way.with_database(&owner.database).with_user(&role, Some(credential.password.clone())))
    }

    /// By which address a role of a service connects: a pooler does not keep what a migration needs.
    fn way(&self, service: &Service, login: Login) -> &Address {
        let server = &self.servers[&service.server];
        if login == Login::Migrator { &server.admin } else { &server.services }
    }

    /// Returns the known password of a role, for login tests.
    pub(crate) fn credential(&self, server: &str, role: &str) -> Option<&Credential> {
        self.vault.get(server, role)
    }

    /// Returns a connection string that can be pasted and holds no secret.
    pub fn pasteable(&self, service: &Service, login: Login) -> String {
        let way = self.way(service, login);
        let roles = Roles::of(&service.name);
        let active = self.vault.active(&service.server, &roles, login);
        let role = active.map_or_else(|| roles.login(login).to_owned(), |(role, _)| role.to_owned());
        let quote = |text: &str| {
            let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:".contains(c));
            if plain { text.to_owned() } else { format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")) }
        };
        let mut text = format!(
            "host={} port={} dbname={} user={} passfile={}",
            quote(&way.host()),
            way.port(),
            quote(&service.database),
            quote(&role),
            quote(&self.place.passfile().display().to_string())
        );
        for (name, value) in way.tls_parameters() {
            text.push_str(&format!(" {name}={}", quote(&value)));
        }
        text
    }

    /// Reads the credentials that are in the control database, when that is where they are.
    async fn read_credentials(&mut self, keep: bool) -> Result<(), Error> {
        let (vault, control) = self.read_control(keep).await?;
        self.learn(&vault);
        self.keep_control(control);
        Ok(())
    }

    fn learn(&mut self, vault: &Vault) {
        for (server, role, credential) in vault.iter() {
            self.vault.set(server, role, credential.clone());
        }
    }

    /// Reads the credentials that are in the control database, when that is where they are; with `keep` the
    /// connection stays open.
    async fn read_control(&self, keep: bool) -> Result<(Vault, Option<(Catalogue, bool)>), Error> {
        let Some(keys) = self.keys.clone() else { return Ok((Vault::default(), None)) };
        let control = &self.manifest.control;
        let opened = Catalogue::open_if_there(&self.servers[&control.server].admin, &control.database).await?;
        // Not provisioned yet.
        let Some(catalogue) = opened else { return Ok((Vault::default(), None)) };
        let connection = catalogue.connection();
        let read = futures_util::future::try_join3(
            Catalogue::refuse_foreign(connection, &self.manifest.solution.name),
            vault::read_sealed(connection, &keys),
            async { if keep { catalogue.has_tenants().await } else { Ok(false) } },
        );
        let read = read.await;
        if !keep {
            catalogue.close().await;
            return Ok((read?.1, None));
        }
        let ((), vault, knows_tenants) = read?;
        Ok((vault, Some((catalogue, knows_tenants))))
    }

    /// Returns where the credentials are kept.
    pub(crate) fn keeper(&self) -> Keeper {
        let control = &self.manifest.control;
        let address = || self.servers[&control.server].admin.with_database(&control.database);
        Keeper { file: SecretsFile::new(&self.place), control: self.keys.clone().map(|keys| (address(), keys)) }
    }

    /// Reads the credentials anew, as they are now.
    pub(crate) async fn reread_credentials(&mut self) -> Result<(), Error> {
        self.vault = self.keeper().read().await?;
        self.write_passfile()
    }

    /// Writes into the control database what was done with a role.
    pub(crate) async fn note(&self, action: &str, service: &str, server: &str, role: &str) -> Result<(), Error> {
        let control = &self.manifest.control;
        let catalogue = Catalogue::open(&self.servers[&control.server].admin, &control.database).await?;
        let detail = serde_json::json!({ "server": server, "role": role });
        let noted = catalogue.audit(action, service, &detail, &self.options).await;
        catalogue.close().await;
        noted
    }

    /// Returns the known passwords.
    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Returns how many connections a server takes, when it was looked at.
    pub(crate) fn capacity(&self, server: &str) -> Option<Capacity> {
        self.capacities.get(server).copied()
    }

    /// Makes passwords for the login roles that have none and keeps them, before any role gets one:
    /// a process that dies in between leaves a password that nobody uses, not a role that nobody
    /// can enter.
    async fn make_credentials(&mut self) -> Result<(), Error> {
        let mut missing = Vec::new();
        for name in self.servers.keys() {
            let desired = DesiredServer::of(&self.manifest, name);
            missing.extend(missing_credentials(&desired, &self.vault).into_iter().map(|role| (name.clone(), role)));
        }
        if !missing.is_empty() {
            if let Some(keys) = self.keys.clone() {
                let control = &self.manifest.control;
                let catalogue = Catalogue::open(&self.servers[&control.server].admin, &control.database).await?;
                for (server, role) in &missing {
                    let credential = Credential::generate();
                    vault::store_sealed(catalogue.connection(), &keys, server, role, &credential).await?;
                }
                catalogue.close().await;
                self.read_credentials(false).await?;
            } else {
                let (vault, ()) = SecretsFile::new(&self.place).update(|vault| {
                    for (server, role) in &missing {
                        if vault.get(server, role).is_none() {
                            vault.set(server, role, Credential::generate());
                        }
                    }
                })?;
                self.vault = vault;
            }
        }
        self.write_passfile()
    }

    /// Writes the password file that pasted connection strings point to, when it is not right.
    ///
    /// # Errors
    ///
    /// The state folder cannot be written.
    pub fn write_passfile(&self) -> Result<(), Error> {
        let hosts = self.servers.iter().map(|(name, server)| {
            let mut ways = vec![(server.services.host(), server.services.port())];
            let direct = (server.admin.host(), server.admin.port());
            if !ways.contains(&direct) {
                ways.push(direct);
            }
            (name.clone(), ways)
        });
        self.place.make()?;
        SecretsFile::new(&self.place).write_passfile(&self.vault, &hosts.collect())
    }

    /// Makes every server what the manifest says: control database, roles, databases, rights.
    ///
    /// Returns what was done on each server; with `dry_run`, what would be done.
    pub async fn provision(&mut self, dry_run: bool) -> Result<Vec<Provisioned>, Error> {
        let control = self.manifest.control.clone();
        let control_admin = self.servers[&control.server].admin.clone();
        if !dry_run {
            let name = self.manifest.solution.name.clone();
            Catalogue::make(&control_admin, &control.database, &name, &self.options).await?;
            self.make_credentials().await?;
        }
        let mut all = Vec::new();
        if dry_run && let Some(planned) = Catalogue::planned(&control_admin, &control.database).await? {
            all.push(Provisioned::of_control(&control.server, planned));
        }
        for (name, server) in &self.servers {
            let desired = DesiredServer::of(&self.manifest, name);
            let keeper = self.keeper();
            let provisioned = provision_server(&server.admin, &desired, &self.vault, &keeper, dry_run).await?;
            self.capacities.insert(name.clone(), provisioned.capacity);
            if !dry_run && !provisioned.statements.is_empty() {
                end_strangers(&server.admin, &desired).await?;
                let catalogue = Catalogue::open(&control_admin, &control.database).await?;
                catalogue.record_server(&desired, &server.admin, &provisioned, &self.options).await?;
                catalogue.close().await;
            }
            all.push(provisioned);
        }
        let shared = self.share_strings(dry_run).await?;
        if let Some(provisioned) = all.iter_mut().rfind(|provisioned| provisioned.server == control.server) {
            provisioned.statements.extend(shared);
        }
        Ok(all)
    }

    /// Migrates and seeds; a database or role that is missing is provisioned first.
    pub async fn migrate(
        &mut self,
        names: &[String],
        properties: &BTreeMap<String, String>,
        options: &Options,
        concurrency: usize,
        observer: Arc<dyn Observer>,
    ) -> Result<Vec<TargetReport>, Error> {
        self.check_programs(names, &observer).await?;
        let known = self.services(names)?.iter().all(|service| self.address(service, Login::Migrator).is_ok());
        let looking = options.look_only || options.dry_run;
        if !known && !looking {
            self.provision(false).await?;
        }
        let jobs = self.prepared(names, properties, &observer).await?;
        let announcing;
        let options = if looking {
            options
        } else {
            // Where tenants are always seeded they follow each run, also one that applied nothing.
            let always_seed = options.always_seed || self.manifest.tenants.always_seed;
            announcing = Options { always_seed, ..self.announcing(options) };
            &announcing
        };
        let mut reports = fleet::run_all(jobs, Work::Migrate, options, concurrency, observer.clone()).await;
        if !looking {
            let again: BTreeSet<String> =
                reports.iter().filter(|report| not_provisioned(report)).map(|report| report.service.clone()).collect();
            if !again.is_empty() {
                self.provision(false).await?;
                let names: Vec<String> = again.iter().cloned().collect();
                let jobs = self.prepared(&names, properties, &observer).await?;
                let redone = fleet::run_all(jobs, Work::Migrate, options, concurrency, observer).await;
                for report in redone {
                    if let Some(place) = reports.iter_mut().find(|old| old.service == report.service) {
                        *place = report;
                    }
                }
            }
        }
        Ok(reports)
    }

    /// Seeds where no migration is pending.
    pub async fn seed(
        &self,
        names: &[String],
        properties: &BTreeMap<String, String>,
        options: &Options,
        concurrency: usize,
        observer: Arc<dyn Observer>,
    ) -> Result<Vec<TargetReport>, Error> {
        let jobs = self.prepared(names, properties, &observer).await?;
        Ok(fleet::run_all(jobs, Work::Seed, &self.announcing(options), concurrency, observer).await)
    }

    /// Has what is applied announced to the control database.
    pub(crate) fn announcing(&self, options: &Options) -> Options {
        let control = &self.manifest.control;
        let admin = self.servers[&control.server].admin.clone();
        let announcer = ControlAnnouncer::new(admin, &control.database, &self.manifest.solution.name, options);
        announcer::announcing(options, announcer)
    }

    /// Goes back in one service's database.
    pub async fn revert(
        &self,
        service: &str,
        goal: pgfleet_migrate::revert::Goal,
        options: &Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Vec<TargetReport>, Error> {
        let jobs = self.prepared(&[service.to_owned()], &BTreeMap::new(), &observer).await?;
        Ok(fleet::run_all(jobs, Work::Revert(goal), options, 1, observer).await)
    }

    /// Writes the outcome of a run into the control database.
    ///
    /// # Errors
    ///
    /// The control database cannot be written; the work itself is done and recorded in the targets.
    pub async fn record(&self, action: &str, reports: &[TargetReport]) -> Result<(), Error> {
        if reports.iter().all(|report| !report.changed()) {
            return Ok(());
        }
        let control = &self.manifest.control;
        let catalogue = Catalogue::open(&self.servers[&control.server].admin, &control.database).await?;
        let recorded = catalogue.record_targets(action, reports, &control.server, &self.options).await;
        catalogue.close().await;
        recorded
    }
}

/// Whether a target failed because its database or role is not there or its password is not set.
pub(crate) fn not_provisioned(report: &TargetReport) -> bool {
    let Err(error) = &report.result else { return false };
    error.postgres().is_some_and(|error| {
        matches!(error.kind(), PgErrorKind::DatabaseMissing | PgErrorKind::Denied)
            // A database that is closed while somebody else makes it.
            || error.sql_state() == Some("55000")
    })
}

/// Waits until the servers that are not ours to start answer, as often and as long as the manifest
/// says.
///
/// # Errors
///
/// A URL that cannot be used, or a server that still does not answer at the end. What a server that
/// answers refuses is left to the work itself, which can say more about it.
pub async fn wait_for_servers(manifest: &Manifest, observer: &dyn Observer) -> Result<(), Error> {
    let (attempts, delay) = (manifest.migrations.wait_attempts, manifest.migrations.wait_delay);
    for server in manifest.servers.values() {
        let ServerUrl::Remote(url) = &server.url else { continue };
        let admin = direct_address(server, &remote_address(server, url)?)?;
        let mut attempt = 1;
        loop {
            match pgfleet_postgres::connect(&admin, &pgfleet_postgres::Purpose::new("pgfleet wait")).await {
                Ok(connection) => connection.close().await,
                Err(error) if error.is_unreachable() => {
                    if attempt >= attempts {
                        return Err(Error::postgres(format!("server {} does not answer", server.name), &error));
                    }
                    let reason =
                        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                    observer.event(&server.name, &Event::Waiting { attempt, attempts, reason });
                    tokio::time::sleep(delay).await;
                    attempt += 1;
                    continue;
                }
                Err(_) => {}
            }
            break;
        }
    }
    Ok(())
}

fn remote_address(server: &Server, url: &SecretString) -> Result<Address, Error> {
    Address::parse(url.expose_secret())
        .map_err(|error| Error::new(ErrorKind::Configuration, format!("server {}: {error}", server.name)))
}

/// The server's own address; the one that services use where the manifest names no other.
fn direct_address(server: &Server, services: &Address) -> Result<Address, Error> {
    let Some(direct) = &server.direct else { return Ok(services.clone()) };
    services
        .by_way_of(direct.expose_secret())
        .map_err(|error| Error::new(ErrorKind::Configuration, format!("server {}, `direct`: {error}", server.name)))
}

/// Whether passwords are kept in the file beside the manifest.
fn uses_file(manifest: &Manifest) -> bool {
    matches!(manifest.servers[&manifest.control.server].url, ServerUrl::Local)
}

/// Finds the encryption keys: the present one, and those that it replaced.
fn key_ring(manifest: &Manifest, place: &Place, surroundings: &Surroundings) -> Result<KeyRing, Error> {
    let current = seal_key(manifest, place, surroundings)?;
    let old = match (&surroundings.old_key, &manifest.control.old_key_file) {
        (Some(keys), _) => seal::parse_list(keys)?,
        (None, Some(path)) => seal::parse_list(&read_key(path)?)?,
        (None, None) => Vec::new(),
    };
    Ok(KeyRing::new(current, old))
}

fn read_key(path: &std::path::Path) -> Result<SecretString, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorKind::Configuration, format!("cannot read the key file {}", path.display()))
            .cause(error.to_string())
    })?;
    Ok(text.into())
}

/// Finds the encryption key: the caller's, the manifest's key file, or one made for this checkout.
fn seal_key(manifest: &Manifest, place: &Place, surroundings: &Surroundings) -> Result<SealKey, Error> {
    if let Some(key) = &surroundings.key {
        return SealKey::parse(key);
    }
    if let Some(path) = &manifest.control.key_file {
        return SealKey::parse(&read_key(path)?);
    }
    let path = place.folder().join("key");
    if let Ok(text) = std::fs::read_to_string(&path) {
        return SealKey::parse(&text.into());
    }
    if manifest.env != "dev" {
        return Err(Error::new(ErrorKind::Configuration, "there is no key to encrypt the credentials with")
            .hinted("set PGFLEET_KEY or `key_file` in [control]; make one: openssl rand -base64 32"));
    }
    let _lock = place.lock()?;
    if let Ok(text) = std::fs::read_to_string(&path) {
        return SealKey::parse(&text.into());
    }
    let key = SealKey::generate()?;
    crate::place::write_private(&path, key.expose_secret())?;
    SealKey::parse(&key)
}
