//! Trying a connection string before it is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pgfleet_migrate::{Observer, Target, run};
use pgfleet_postgres::{Address, ErrorKind as PgErrorKind, Purpose, connect, quote_ident};
use secrecy::{ExposeSecret as _, SecretString};

use super::verbs::NewString;
use super::{completed, string_name};
use crate::connections::{has_tenants, holders, tenant_services};
use crate::error::{Error, ErrorKind};
use crate::fleet::{self, TargetState, Work};
use crate::manifest::{Service, TenantDatabases};
use crate::physical::{HostDatabase, Physical};
use crate::roles::Login;
use crate::solution::Solution;

/// What trying a string found.
#[derive(Debug)]
pub(super) struct Tried {
    /// The part that holds no secret.
    pub(super) shown: String,
    /// Where it leads; none when it was not tried.
    pub(super) physical: Option<Physical>,
    /// What is worth knowing.
    pub(super) notes: Vec<String>,
}

impl Solution {
    /// Returns the services whose connections one of a tenant's strings leads, when the tenant has
    /// strings of these names.
    ///
    /// # Errors
    ///
    /// A name that is no service's nor mapped to one, or one whose service has no data in tenants'
    /// databases.
    pub(super) fn users(&self, connection: &str, strings: &BTreeSet<String>) -> Result<Vec<&Service>, Error> {
        if connection.is_empty() {
            let all: Vec<&Service> = tenant_services(&self.manifest).collect();
            if all.is_empty() {
                return Err(Error::new(ErrorKind::Configuration, "no service has data in tenants' databases")
                    .hinted("say which have: tenants = \"own\" in their sections of the manifest"));
            }
            let users: Vec<&Service> = all.into_iter().filter(|service| !strings.contains(&service.name)).collect();
            if users.len() > 1 && self.manifest.tenants.databases == TenantDatabases::PerService {
                let names: Vec<&str> = users.iter().map(|service| service.name.as_str()).collect();
                let message = format!("a default string would lead {} into one database", names.join(" and "));
                return Err(Error::new(ErrorKind::Configuration, message).hinted(
                    "give each service a string of its own, or say databases = \"one\" in [tenants] and give each a \
                     schema",
                ));
            }
            return Ok(users);
        }
        let holders = holders(&self.manifest, connection)?;
        let users: Vec<&Service> = holders.iter().copied().filter(|service| has_tenants(service)).collect();
        if !users.is_empty() {
            return Ok(users);
        }
        let holder = holders.first().map_or(connection, |holder| &holder.name);
        let message = format!("service {holder} has no data in tenants' databases");
        Err(Error::new(ErrorKind::Configuration, message).hinted(format!(
            "a string for {connection} would lead nowhere; if it has, say tenants = \"own\" in [services.{holder}]"
        )))
    }

    /// Reads a string without trying it.
    pub(super) fn look_at(&self, tenant: &str, string: &NewString, users: &[&Service]) -> Result<Tried, Error> {
        let main = match users.first().map_or_else(|| tenant_services(&self.manifest).next(), |user| Some(*user)) {
            Some(user) => self.address(user, Login::App)?,
            None => return Err(Error::new(ErrorKind::Configuration, "no service has data in tenants' databases")),
        };
        let address = completed(&main, &string.text, tenant)?;
        Ok(Tried { shown: shown(&address, &string.text), physical: None, notes: Vec::new() })
    }

    /// Tries a string as every service that it leads: logs in as the service's application, finds out
    /// which database it is, and looks where the service's schema stands there.
    pub(super) async fn try_string(
        &self,
        tenant: &str,
        string: &NewString,
        users: &[&Service],
        hosts: &[HostDatabase],
        observer: &Arc<dyn Observer>,
    ) -> Result<Tried, Error> {
        let mut tried = self.look_at(tenant, string, users)?;
        // A string that names its role is the same for all of them.
        let mut known: BTreeMap<String, Physical> = BTreeMap::new();
        for service in users {
            let address = completed(&self.address(service, Login::App)?, &string.text, tenant)?;
            let physical = match known.get(&address.to_string()) {
                Some(physical) => physical.clone(),
                None => match log_in(&address, tenant, &string.connection, &mut tried.notes).await {
                    Ok(physical) => physical,
                    Err(error) => {
                        // Behind a closed door of our own there is more to say than that it is closed.
                        if let Some(physical) = self.as_administrator(&address).await {
                            refuse_host(&physical, users, hosts)?;
                        }
                        return Err(error);
                    }
                },
            };
            known.insert(address.to_string(), physical.clone());
            if let Some(first) = tried.physical.as_ref().filter(|first| !first.is_same(&physical)) {
                let message =
                    format!("{} leads different services to different databases", string_name(&string.connection));
                return Err(Error::new(ErrorKind::Failed, message)
                    .cause(format!("one is {}, the other {}", first.database, physical.database))
                    .hinted("give the services strings of their own"));
            }
            refuse_host(&physical, users, hosts)?;
            tried.physical = Some(physical);
            tried.notes.extend(self.schema_notes(tenant, service, &address, observer).await);
        }
        Ok(tried)
    }

    /// Finds out which database it is where one of our administrators gets in.
    async fn as_administrator(&self, address: &Address) -> Option<Physical> {
        for (_, server) in self.servers() {
            let admin = address.with_user(server.admin.user(), server.admin.password().cloned());
            if let Ok(session) = connect(&admin, &Purpose::new("pgfleet tenant")).await {
                let physical = Physical::of(&session).await.ok();
                session.close().await;
                return physical;
            }
        }
        None
    }

    /// Looks where a service's schema stands in a tenant's database. Not being able to look keeps no
    /// string from being stored: the service says so itself when it is asked for the tenant.
    async fn schema_notes(
        &self,
        tenant: &str,
        service: &Service,
        address: &Address,
        observer: &Arc<dyn Observer>,
    ) -> Vec<String> {
        let name = format!("{}/{tenant}", service.name);
        let cannot = |why: &str| vec![format!("{name}: cannot see where the schema stands: {why}")];
        let prepared = self.prepared(std::slice::from_ref(&service.name), &BTreeMap::new(), observer).await;
        let mut jobs = match prepared {
            Ok(jobs) => jobs,
            Err(error) => return cannot(&error.to_string()),
        };
        for job in &mut jobs {
            let schema = job.target.schema.clone();
            // The application may read the histories, and is whom the string is for.
            job.target = Target::new(&name, address.clone());
            job.target.schema = schema;
        }
        let options = run::looking(self.options());
        let reports = fleet::run_all(jobs, Work::Migrate, &options, 1, observer.clone()).await;
        let mut notes = Vec::new();
        for report in reports {
            match (&report.result, report.state()) {
                (Ok(done), TargetState::Behind) if !done.pending.is_empty() => {
                    let have = done.to.as_deref().unwrap_or("nothing");
                    let need = done.pending.last().map_or("", String::as_str);
                    notes.push(format!(
                        "{name} is behind: has {have}, needs {need} ({} pending); the service refuses the tenant until \
                         it is migrated",
                        done.pending.len()
                    ));
                }
                (Ok(done), TargetState::Failed | TargetState::Interrupted) => {
                    let why = done.blocked.clone().unwrap_or_else(|| report.state().word().to_owned());
                    notes.push(format!("{name} cannot be migrated as it is: {why}"));
                }
                (Ok(_), _) => {}
                (Err(error), _) => {
                    let why = error.causes().into_iter().next().unwrap_or_else(|| error.to_string());
                    notes.extend(cannot(&why));
                }
            }
        }
        notes
    }
}

/// Logs in and finds out which database it is.
async fn log_in(address: &Address, tenant: &str, connection: &str, notes: &mut Vec<String>) -> Result<Physical, Error> {
    let doing = format!("tenant {tenant}: {} does not lead to a database", string_name(connection));
    let failed = |error: &pgfleet_postgres::Error| {
        let own = Error::postgres(&doing, error);
        match error.kind() {
            PgErrorKind::DatabaseMissing => {
                own.hinted("make the database first, or name one that is there; --no-check stores the string unseen")
            }
            PgErrorKind::Denied if error.sql_state() == Some("42501") => own.hinted(format!(
                "as the database's owner: GRANT CONNECT ON DATABASE {} TO {}",
                quote_ident(address.database()),
                quote_ident(address.user())
            )),
            PgErrorKind::Denied => own.hinted(format!(
                "role {} must be able to log in there; a string may name role and password itself",
                address.user()
            )),
            _ if error.sql_state() == Some("55000") => own.hinted(format!(
                "nobody can connect to it; one that was this tenant's comes back with: pgfleet tenant restore {tenant}"
            )),
            PgErrorKind::Unreachable => own.hinted("is the host right? --no-check stores the string unseen"),
            _ => own,
        }
    };
    let session = connect(address, &Purpose::new("pgfleet tenant")).await.map_err(|error| failed(&error))?;
    let physical = Physical::of(&session).await.map_err(|error| failed(&error))?;
    let standby = session.simple("SELECT pg_catalog.pg_is_in_recovery()").await.map_err(|error| failed(&error))?;
    session.close().await;
    if standby.first().and_then(|row| row.get(0)) == Some("t") {
        notes.push(format!("{} is a standby: nothing can be written there", address.server()));
    }
    Ok(physical)
}

/// Refuses the database of a service that the string is not for, and the control database.
pub(super) fn refuse_host(physical: &Physical, users: &[&Service], hosts: &[HostDatabase]) -> Result<(), Error> {
    let Some(host) = hosts.iter().find(|host| host.physical.is_same(physical)) else { return Ok(()) };
    let owner = match &host.service {
        // Where the tenant would live without a string.
        Some(service) if !users.is_empty() && users.iter().all(|user| user.name == *service) => return Ok(()),
        Some(service) => format!("the host database of service {service}"),
        None => "the control database".to_owned(),
    };
    let message = format!("database {} is {owner}: it cannot be a tenant's", physical.database);
    Err(Error::new(ErrorKind::Failed, message)
        .hinted("a tenant without a string lives in the services' own databases; leave the string out"))
}

/// Renders the part of a string that holds no secret; the role only where the string names one.
pub(crate) fn shown(address: &Address, text: &SecretString) -> String {
    let whole = address.to_string();
    let names_user = Address::parse(text.expose_secret()).is_ok_and(|given| given.names_user());
    let behind = whole.strip_prefix("postgresql://").and_then(|rest| rest.split_once('@'));
    match behind {
        Some((_, rest)) if !names_user => format!("postgresql://{rest}"),
        _ => whole,
    }
}
