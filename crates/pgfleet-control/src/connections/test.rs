//! Logging in to every place that a connection name leads to.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use pgfleet_postgres::{Address, Purpose, connect};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::{has_tenants, mapped, readable};
use crate::error::{Error, ErrorKind};
use crate::manifest::Service;
use crate::physical::{HostDatabase, Physical};
use crate::roles::Login;
use crate::solution::Solution;
use crate::tenants::Tenant;

/// How many logins are tried at a time.
const CONCURRENCY: usize = 8;

/// One login that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct Tested {
    /// The service.
    pub service: String,
    /// The tenant; none for the host.
    pub tenant: Option<String>,
    /// The connection name, or the string of a tenant (empty: the default).
    pub connection: String,
    /// What for: `app`, `migrator`, or `replica` for the application's reads.
    pub login: &'static str,
    /// Where, without a password.
    pub address: String,
    /// The server's version: `15.18`.
    pub version: Option<String>,
    /// How the connection is protected, as the server sees it.
    pub tls: Option<Tls>,
    /// Milliseconds from nothing to logged in.
    pub login_ms: Option<f64>,
    /// Milliseconds of one round trip.
    pub round_trip_ms: Option<f64>,
    /// Where it led.
    pub physical: Option<Physical>,
    /// Whether that is the recorded database; none when none is recorded.
    pub as_recorded: Option<bool>,
    /// Why it failed; none when it did not.
    pub error: Option<String>,
    /// Why, in the words of the server or the system.
    pub causes: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Tested {
    /// Returns whether the login worked and led where it should.
    pub fn is_good(&self) -> bool {
        self.error.is_none()
    }
}

/// The protection of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tls {
    /// Whether it is encrypted.
    pub on: bool,
    /// The protocol: `TLSv1.3`.
    pub protocol: Option<String>,
}

/// What is to be tried.
struct Trial {
    service: String,
    tenant: Option<String>,
    connection: String,
    login: &'static str,
    address: Result<Address, Error>,
    recorded: Option<Physical>,
    standby: bool,
}

impl Solution {
    /// Logs in wherever the connection names of these services lead: as application and as migrator,
    /// on replicas as well; with tenants, by their strings instead.
    ///
    /// # Errors
    ///
    /// Unknown names, keys that are not here, a control database or a server that cannot be asked as
    /// administrator. A login that fails is no error but part of the answer.
    pub async fn test_connections(&self, services: &[String], tenants: &[String]) -> Result<Vec<Tested>, Error> {
        let services = self.services(services)?;
        let mut trials = Vec::new();
        if tenants.is_empty() {
            let hosts = self.host_databases().await?;
            for service in &services {
                self.host_trials(service, &hosts, &mut trials);
            }
        } else {
            let all = self.tenants().await?;
            for name in tenants {
                let tenant = crate::tenants::find(&all, name)?;
                self.tenant_trials(tenant, &services, &mut trials).await?;
            }
        }
        Ok(stream::iter(trials).map(attempt).buffered(CONCURRENCY).collect().await)
    }

    fn host_trials(&self, service: &Service, hosts: &[HostDatabase], trials: &mut Vec<Trial>) {
        let recorded = |service: &Service| {
            hosts.iter().find(|host| host.service.as_deref() == Some(&*service.name)).map(|host| host.physical.clone())
        };
        let trial = |connection: &str, login, address, recorded, standby| Trial {
            service: service.name.clone(),
            tenant: None,
            connection: connection.to_owned(),
            login,
            address,
            recorded,
            standby,
        };
        for login in [Login::App, Login::Migrator] {
            let address = self.address(service, login);
            trials.push(trial(&service.name, login.word(), address, recorded(service), false));
        }
        for replica in &self.manifest.server_of(service).replicas {
            let address = self.address(service, Login::App).and_then(|main| {
                let replica = main.by_way_of(replica.expose_secret()).map_err(|error| {
                    Error::new(ErrorKind::Configuration, format!("server {}, `replicas`: {error}", service.server))
                })?;
                Ok(replica.with_database(&service.database).with_user(main.user(), main.password().cloned()))
            });
            trials.push(trial(&service.name, "replica", address, recorded(service), true));
        }
        for mapped in mapped(&self.manifest, service).into_iter().filter(|mapped| mapped.holder.name != service.name) {
            let address = self.guest_address(service, mapped.holder);
            trials.push(trial(mapped.name, "app", address, recorded(mapped.holder), false));
        }
    }

    async fn tenant_trials(
        &self,
        tenant: &Tenant,
        services: &[&Service],
        trials: &mut Vec<Trial>,
    ) -> Result<(), Error> {
        let strings = self.open_strings(tenant).await?;
        let has_own = |service: &Service| tenant.strings.iter().any(|string| string.connection == service.name);
        for service in services.iter().filter(|service| has_tenants(service)) {
            let allowed = readable(&self.manifest, service);
            for (string, text) in &strings {
                // A string that another of the tenant's takes the place of leads this service nowhere.
                let used = !string.connection.is_empty() || !has_own(service);
                if !used || !allowed.contains(string.connection.as_str()) {
                    continue;
                }
                let names = mapped(&self.manifest, service);
                let elsewhere = |connection: &str| {
                    names.iter().any(|mapped| {
                        mapped.holder.name != service.name && [mapped.name, &mapped.holder.name].contains(&connection)
                    })
                };
                let own = !elsewhere(&string.connection);
                let logins: &[Login] = if own { &[Login::App, Login::Migrator] } else { &[Login::App] };
                for login in logins {
                    let address = self.text_address(service, &string.server, text, &tenant.name, *login);
                    // A string that names its role names it for both.
                    let same = address.as_ref().is_ok_and(|address| {
                        string.server.is_empty()
                            && *login == Login::Migrator
                            && self.address(service, Login::Migrator).is_ok_and(|main| main.user() != address.user())
                    });
                    if same {
                        continue;
                    }
                    trials.push(Trial {
                        service: service.name.clone(),
                        tenant: Some(tenant.name.clone()),
                        connection: string.connection.clone(),
                        login: login.word(),
                        address,
                        recorded: string.physical.clone(),
                        standby: false,
                    });
                }
            }
        }
        Ok(())
    }
}

async fn attempt(trial: Trial) -> Tested {
    let mut tested = Tested {
        service: trial.service,
        tenant: trial.tenant,
        connection: trial.connection,
        login: trial.login,
        address: trial.address.as_ref().map(ToString::to_string).unwrap_or_default(),
        version: None,
        tls: None,
        login_ms: None,
        round_trip_ms: None,
        physical: None,
        as_recorded: None,
        error: None,
        causes: Vec::new(),
        hint: None,
    };
    let tried = match trial.address {
        Ok(address) => log_in(&address, trial.standby, &mut tested).await,
        Err(error) => Err(error),
    };
    if let Err(error) = tried {
        tested.error = Some(error.to_string());
        tested.causes = error.causes().to_vec();
        tested.hint = error.hint().map(str::to_owned);
    }
    tested.as_recorded = tested
        .physical
        .as_ref()
        .zip(trial.recorded.as_ref())
        .map(|(found, known)| found.system_identifier == known.system_identifier && found.oid == known.oid);
    if let (None, Some(false), Some(known)) = (&tested.error, tested.as_recorded, &trial.recorded) {
        tested.error = Some(format!(
            "it leads to another database than the recorded one ({}, oid {}, of system {})",
            known.database, known.oid, known.system_identifier
        ));
        tested.hint = tested.tenant.as_ref().map(|tenant| {
            format!("if that is what you want, have it looked at again: pgfleet tenant set-connection {tenant} …")
        });
    }
    tested
}

async fn log_in(address: &Address, standby: bool, tested: &mut Tested) -> Result<(), Error> {
    let failed = |error: &pgfleet_postgres::Error| Error::postgres("the login failed", error);
    let began = Instant::now();
    let connection = connect(address, &Purpose::new("pgfleet connection")).await.map_err(|error| failed(&error))?;
    tested.login_ms = Some(milliseconds(began.elapsed()));
    let began = Instant::now();
    let rows = connection
        .simple(
            // A migrator acts as the owner, which is not told of the migrator's session.
            "SET ROLE NONE; \
             SELECT pg_catalog.current_setting('server_version'), s.ssl, s.version, pg_catalog.pg_is_in_recovery() \
             FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_stat_ssl s ON s.pid = pg_catalog.pg_backend_pid()",
        )
        .await
        .map_err(|error| failed(&error))?;
    tested.round_trip_ms = Some(milliseconds(began.elapsed()));
    let text = |at: usize| rows.first().and_then(|row| row.get(at));
    tested.version = text(0).and_then(|version| version.split(' ').next()).map(str::to_owned);
    tested.tls = text(1).map(|on| Tls { on: on == "t", protocol: text(2).map(str::to_owned) });
    let is_standby = text(3) == Some("t");
    tested.physical = Some(Physical::of(&connection).await.map_err(|error| failed(&error))?);
    connection.close().await;
    match (standby, is_standby) {
        (false, true) => Err(Error::new(ErrorKind::Failed, "the server is a standby: nothing can be written there")
            .hinted("name the primary")),
        // In development both may be one server.
        _ => Ok(()),
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}
