//! From what a service says and its environment to its router.

use std::sync::Arc;
use std::time::Duration;

use pgfleet_migrate::{Options as RunOptions, SetPath, run};
use pgfleet_postgres::pool::PoolOptions;
use pgfleet_postgres::{Address, Purpose};
use pgfleet_route::{DirectoryOptions, Endpoints, Keys, Options, Other, Router};
use secrecy::SecretString;

use crate::builder::Builder;
use crate::connections::HasMigrations;
use crate::environment::{address, number, parse, read_host, text, variable};
use crate::error::Error;

/// How often the control database is asked whether a tenant changed.
const TENANTS_INTERVAL: Duration = Duration::from_secs(5);

/// Whose database a connection name is in.
struct Held {
    service: String,
    url: Option<String>,
    has_tenants: bool,
}

impl Builder {
    /// Makes the router; connects to nothing.
    pub(crate) fn router(&mut self, name: &str, main: &Address, path: &SetPath) -> Result<Router, Error> {
        let mut options = Options::new(name, Endpoints { writer: main.clone(), readers: self.readers(name, main)? });
        let mut purpose = Purpose::new(name);
        if let Some(schema) = &self.schema {
            purpose = purpose.setting("search_path", pgfleet_migrate::target::search_path(schema));
        }
        options.purpose = purpose;
        let mut usual = PoolOptions::default();
        let from = variable(name, "POOL");
        if let Some(said) = text(&from) {
            usual = pool_options(&usual, &parse(&from, &said)?);
        }
        // What the connection string itself says is nearer.
        options.pool = pool_options(&usual, main);
        if let Some(max) = number("DB_MAX_CONNECTIONS")? {
            options.pool.max = max;
            options.pool.min = options.pool.min.min(max);
        }
        for change in self.pool.drain(..) {
            (change.0)(&mut options.pool);
        }
        options.tenant_pool = PoolOptions {
            command_timeout: options.pool.command_timeout,
            connect_timeout: options.pool.connect_timeout,
            ..PoolOptions::for_tenants()
        };
        for change in self.tenant_pool.drain(..) {
            (change.0)(&mut options.tenant_pool);
        }
        options.budget = match self.budget {
            Some(said) => Some(said),
            None => number(&variable(name, "BUDGET"))?,
        };
        options.replicas = self.replicas.clone();
        self.names(name, &mut options)?;
        options.directory = self.directory(name)?;
        if options.directory.is_some() {
            options.ready = Some(Arc::new(HasMigrations {
                service: name.to_owned(),
                path: path.clone(),
                schema: self.schema.clone(),
                options: RunOptions { wait_attempts: 1, max_tries: 1, announcer: None, ..run::looking(&self.options) },
            }));
        }
        Ok(Router::new(options))
    }

    /// The replicas.
    fn readers(&self, name: &str, main: &Address) -> Result<Vec<Address>, Error> {
        let from = variable(name, "READ_URL");
        let said = text(&from);
        let (what, urls): (String, Vec<&str>) = if self.read_urls.is_empty() {
            (from, said.as_deref().unwrap_or_default().split_whitespace().collect())
        } else {
            (format!("the read_url of {name}"), self.read_urls.iter().map(String::as_str).collect())
        };
        let mut readers = Vec::new();
        for url in urls {
            readers.push(parse(&what, url)?);
        }
        if readers.is_empty() {
            readers.extend(read_host(main)?);
        }
        Ok(readers)
    }

    /// The connection names.
    fn names(&self, name: &str, options: &mut Options) -> Result<(), Error> {
        let listed = text(&variable(name, "CONNECTIONS")).unwrap_or_default();
        let listed = listed.split(',').map(str::trim).filter(|part| !part.is_empty());
        let mut names: Vec<(String, Option<Held>)> = Vec::new();
        for (connection, other) in &self.connections {
            let other = other.as_ref().map(|(service, url)| Held {
                service: service.clone(),
                url: Some(url.clone()),
                has_tenants: true,
            });
            names.push((connection.clone(), other));
        }
        for part in listed {
            // `name`; `name@service` in that service's database; `name@service/host` where that has no tenants.
            let (connection, held) = part.split_once('@').map_or((part, None), |(left, right)| (left, Some(right)));
            let held = held.map(|held| {
                let (service, has_tenants) =
                    held.strip_suffix("/host").map_or((held, true), |service| (service, false));
                Held { service: service.to_owned(), url: None, has_tenants }
            });
            if !names.iter().any(|(known, other)| known == connection && other.is_some()) {
                names.retain(|(known, _)| known != connection);
                names.push((connection.to_owned(), held));
            }
        }
        for (connection, held) in names {
            let from = variable(name, &format!("CONNECTION_{}_URL", crate::environment::upper(&connection)));
            let said = address(&from)?;
            let Some(Held { service, url, has_tenants }) = held else {
                match said {
                    // Whose it is is not said; its own name stands for that.
                    Some(address) => options.others.push(Other {
                        service: connection.clone(),
                        name: connection,
                        endpoints: address.into(),
                        has_tenants: true,
                    }),
                    None => options.own.push(connection),
                }
                continue;
            };
            let address = match (said, url) {
                (Some(address), _) => address,
                (None, Some(url)) => parse(&format!("the url of connection {connection}"), &url)?,
                (None, None) => {
                    return Err(Error::configuration(format!("{name} has no connection string for {connection}"))
                        .hinted(format!("set {from}: it is in the database of {service}")));
                }
            };
            options.others.push(Other { name: connection, service, endpoints: address.into(), has_tenants });
        }
        Ok(())
    }

    /// Where the tenants are read.
    fn directory(&self, name: &str) -> Result<Option<DirectoryOptions>, Error> {
        let (url, key) = (variable(name, "CONTROL_URL"), variable(name, "KEY"));
        let (address, secret) = match &self.tenants {
            Some((url, secret)) => {
                (Some(parse(&format!("the control database of {name}"), url)?), Some(secret.clone()))
            }
            None => (address(&url)?, text(&key).map(SecretString::from)),
        };
        match (address, secret) {
            (None, _) => Ok(None),
            (Some(_), None) => Err(Error::configuration(format!("{name} cannot read its tenants"))
                .cause(format!("{url} is set, and {key} is not"))
                .hinted("both are in what `pgfleet up` gives a service with tenants = \"own\"")),
            (Some(address), Some(secret)) => {
                let keys =
                    Keys::parse(&secret).map_err(|why| Error::configuration(format!("cannot use {key}")).cause(why))?;
                Ok(Some(DirectoryOptions { address, opener: Arc::new(keys), interval: TENANTS_INTERVAL }))
            }
        }
    }
}

/// What a connection string says about its pool, over what is usual.
fn pool_options(usual: &PoolOptions, address: &Address) -> PoolOptions {
    let said = address.pool_settings();
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let max = said.max.map_or(usual.max, count);
    PoolOptions {
        max,
        min: said.min.map_or(usual.min, count).min(max),
        idle_timeout: said.idle_timeout.unwrap_or(usual.idle_timeout),
        connect_timeout: said.connect_timeout.unwrap_or(usual.connect_timeout),
        // Zero is without limit.
        command_timeout: said
            .command_timeout
            .map_or(usual.command_timeout, |limit| (!limit.is_zero()).then_some(limit)),
        ..usual.clone()
    }
}
