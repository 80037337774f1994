//! What an address takes from around it: libpq's environment variables and files.
//!
//! Nothing here reads the environment: the edge of a program hands it in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::said::Said;
use crate::Error;

/// Variables and the parameters that they stand for.
const VARIABLES: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSERVICE", "service"),
    ("PGOPTIONS", "options"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
];

/// The environment that an address is read in: what it does not say may be said here.
///
/// What the connection string says comes first, then the variables (`PGHOST`, `PGPASSWORD` and the
/// others of libpq), then the files in the home folder (`~/.pgpass`, `~/.postgresql/root.crt`,
/// `postgresql.crt` and `postgresql.key`). `PGAPPNAME` is not among them: connections are named by
/// what they are for. `PGHOSTADDR` counts only where the string names no host, and `PGPORT` only
/// where it names no port.
///
/// # Examples
///
/// ```
/// use pgfleet_postgres::address::{Address, Surroundings};
/// let variables = |name: &str| (name == "PGHOST").then(|| "db.local".to_owned());
/// let address = Address::parse_with("postgresql:///trip", &Surroundings::from_variables(variables))?;
/// assert_eq!(address.host(), "db.local");
/// # Ok::<(), pgfleet_postgres::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Surroundings {
    values: BTreeMap<&'static str, String>,
    home: Option<PathBuf>,
    service_file: Option<PathBuf>,
    user: Option<String>,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Among the values may be a password.
        f.debug_struct("Surroundings").field("home", &self.home).field("user", &self.user).finish_non_exhaustive()
    }
}

impl Surroundings {
    /// Asks for libpq's variables and `HOME`.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let said = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = said("HOME").map(PathBuf::from);
        let service_file = said("PGSERVICEFILE").map(PathBuf::from);
        Self {
            values: VARIABLES.iter().filter_map(|(name, key)| Some((*key, said(name)?))).collect(),
            service_file: service_file.or_else(|| home.as_ref().map(|home| home.join(".pg_service.conf"))),
            home,
            user: None,
        }
    }

    /// Adds the role that connects when nothing names one: for libpq the name of the user who runs
    /// the program.
    #[must_use]
    pub fn with_user(mut self, name: impl Into<String>) -> Self {
        self.user = Some(name.into());
        self
    }

    /// Fills in what was not said.
    pub(super) fn complete(&self, said: &mut Said) -> Result<(), Error> {
        let service = said.remove("service").or_else(|| self.values.get("service").cloned());
        if let Some(name) = service {
            self.complete_from_service(&name, said)?;
        }
        let (names_host, names_address) = (said.says("host"), said.says("hostaddr"));
        for (key, value) in &self.values {
            let skipped = match *key {
                "service" => true,
                "host" => names_address,
                "hostaddr" => names_host,
                "password" | "passfile" => said.password().is_some() || said.says("passfile"),
                _ => false,
            };
            if !skipped && !said.says(key) {
                said.set(key, value.clone());
            }
        }
        if let (false, Some(user)) = (said.says("user"), &self.user) {
            said.set("user", user.clone());
        }
        Ok(())
    }

    /// Fills in what the section of a service says in `pg_service.conf`.
    fn complete_from_service(&self, name: &str, said: &mut Said) -> Result<(), Error> {
        let path = self.service_file.as_ref().ok_or_else(|| {
            Error::address("`service` is not read here: write out what it stands for, or set PGSERVICEFILE")
        })?;
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::address(format!("cannot read service file {}: {error}", path.display())))?;
        let header = format!("[{name}]");
        let mut lines = text.lines().map(str::trim).skip_while(|line| *line != header);
        if lines.next().is_none() {
            return Err(Error::address(format!("there is no service `{name}` in {}", path.display())));
        }
        let mut section = Said::default();
        for line in lines.take_while(|line| !line.starts_with('[')) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| {
                Error::address(format!("a line of service `{name}` in {} has no `=`", path.display()))
            })?;
            section.take(key.trim(), value.trim())?;
        }
        if said.password().is_none() && !said.says("passfile") {
            said.set_password(section.password().cloned());
        }
        let (names_host, names_address) = (said.says("host"), said.says("hostaddr"));
        said.complete(&section, |key| match key {
            "service" => false,
            "host" => !names_address,
            "hostaddr" => !names_host,
            _ => true,
        });
        Ok(())
    }

    /// Returns the password file that is looked into when no other is named.
    pub(super) fn passfile(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".pgpass"))
    }

    /// Fills in the files of `~/.postgresql` that are there.
    pub(super) fn complete_files(&self, said: &mut Said) {
        let Some(home) = &self.home else { return };
        let folder = home.join(".postgresql");
        let mut fill = |key: &'static str, name: &str| {
            let path = folder.join(name);
            if !said.says(key) && path.is_file() {
                said.set(key, path.display().to_string());
            }
        };
        fill("sslrootcert", "root.crt");
        if folder.join("postgresql.key").is_file() {
            fill("sslcert", "postgresql.crt");
            fill("sslkey", "postgresql.key");
        }
    }
}
