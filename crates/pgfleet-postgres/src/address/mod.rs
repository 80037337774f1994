//! Where a database is and who connects to it, without ever showing the password.
//!
//! A connection string is read in three forms (libpq's URLs and pairs, Npgsql's pairs) into one:
//! parameters by libpq's names. What it does not say may come from the surroundings ([`Surroundings`])
//! or from another address ([`Address::by_way_of`]). Only then it is understood.

mod hosts;
mod libpq;
mod npgsql;
mod passfile;
mod pool;
mod said;
mod surroundings;
#[cfg(test)]
mod tests;
mod understood;
mod words;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

pub use self::pool::PoolSettings;
use self::said::{Said, Use};
pub use self::surroundings::Surroundings;
use self::understood::Understood;
pub use self::words::{SessionKind, TlsMode};
use crate::Error;
use crate::dial::{Target, To};

/// One database on one server (or the first that will do of several), with the role that connects.
///
/// Read from a libpq URL (`postgresql://user@host:5432/db?sslmode=require`), libpq's `key=value`
/// pairs, or Npgsql's form (`Host=host;Database=db;Username=user`). `Debug` and `Display` leave the
/// password out.
#[derive(Clone)]
pub struct Address {
    said: Said,
    /// Does not depend on database, role and password.
    understood: Arc<Understood>,
}

impl Address {
    /// Reads a connection string in any of its forms.
    ///
    /// `passfile=PATH` is read here, by libpq's rules, when no password is given. Nothing is taken
    /// from the environment; see [`Address::parse_with`].
    ///
    /// # Errors
    ///
    /// An address that cannot be understood; the message never repeats a value, since it may be a
    /// password.
    ///
    /// # Examples
    ///
    /// ```
    /// use pgfleet_postgres::Address;
    /// let address = Address::parse("postgresql://app:secret@db.local:5433/trip")?;
    /// assert_eq!(address.database(), "trip");
    /// assert_eq!(address.to_string(), "postgresql://app@db.local:5433/trip");
    /// let same = Address::parse("Host=db.local;Port=5433;Database=trip;Username=app;Password=secret")?;
    /// assert_eq!(same.to_string(), address.to_string());
    /// # Ok::<(), pgfleet_postgres::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_with(text, &Surroundings::default())
    }

    /// Reads a connection string, completed by what is around it: libpq's environment variables,
    /// password file, service file and certificates.
    ///
    /// # Errors
    ///
    /// As [`Address::parse`].
    pub fn parse_with(text: &str, surroundings: &Surroundings) -> Result<Self, Error> {
        let mut said = read(text)?;
        surroundings.complete(&mut said)?;
        surroundings.complete_files(&mut said);
        Self::of(said, surroundings.passfile().as_deref())
    }

    /// Understands what was said; looks up the password when there is none.
    fn of(mut said: Said, usual_passfile: Option<&Path>) -> Result<Self, Error> {
        let understood = Arc::new(Understood::of(&said)?);
        let passfile = said.remove("passfile");
        let mut address = Self { said, understood };
        if address.said.password().is_none() {
            let (named, path) = (passfile.is_some(), passfile.as_deref().map(Path::new).or(usual_passfile));
            if let Some(path) = path {
                let (targets, database) = (&address.understood.targets, address.database());
                let found = passfile::look_up(path, !named, targets, database, address.user())?;
                address.said.set_password(found);
            }
        }
        Ok(address)
    }

    /// Reads another way to the same data: what the text does not say, database, role and password
    /// included, is as in this address.
    ///
    /// Some things belong together: a text that names a host says where the server is, with the port
    /// (5432 when it names none); one that does not keeps hosts and ports, and may name another port.
    /// A text that names another role does not get this one's password and client certificate.
    ///
    /// # Errors
    ///
    /// As [`Address::parse`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pooler = pgfleet_postgres::Address::parse("postgresql://app:secret@pooler:6432/trip")?;
    /// let server = pooler.by_way_of("postgresql://db.local:5433")?;
    /// assert_eq!(server.to_string(), "postgresql://app@db.local:5433/trip");
    /// let tenant = pooler.by_way_of("dbname=acme")?;
    /// assert_eq!(tenant.to_string(), "postgresql://app@pooler:6432/acme");
    /// # Ok::<(), pgfleet_postgres::Error>(())
    /// ```
    pub fn by_way_of(&self, text: &str) -> Result<Self, Error> {
        let own = read(text)?;
        let names_host = own.says("host") || own.says("hostaddr");
        let same_role = own.get("user").is_none_or(|user| user == self.user());
        let other_mode = own.get("sslmode").is_some_and(|mode| mode != "verify-full");
        let (own_root, our_root) = (own.get("sslrootcert") == Some("system"), self.said.get("sslrootcert"));
        let mut said = own.clone();
        said.complete(&self.said, |key| match key {
            "host" | "hostaddr" | "port" => !names_host,
            "sslcert" | "sslkey" => same_role,
            // The system's authorities come with `verify-full` only.
            "sslmode" => !own_root,
            "sslrootcert" => !(other_mode && our_root == Some("system")),
            _ => true,
        });
        if !said.says("user") {
            said.set("user", self.user());
        }
        if !said.says("dbname") {
            said.set("dbname", self.database());
        }
        let mut other = Self::of(said, None)?;
        if other.password().is_none() && same_role {
            other.said.set_password(self.password().cloned());
        }
        Ok(other)
    }

    /// Makes the address of a server on this machine.
    pub fn local(port: u16, user: &str, password: SecretString, database: &str) -> Self {
        let mut said = Said::default();
        for (key, value) in [
            ("host", "127.0.0.1"),
            ("port", &*port.to_string()),
            ("user", user),
            ("dbname", database),
            ("sslmode", "disable"),
        ] {
            said.set(key, value);
        }
        said.set_password(Some(password));
        Self { said, understood: Arc::new(Understood::local(port)) }
    }

    /// Returns the same server and role with another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        let mut other = self.clone();
        other.said.set("dbname", database);
        other
    }

    /// Returns the same server and database with another role.
    #[must_use]
    pub fn with_user(&self, user: &str, password: Option<SecretString>) -> Self {
        let mut other = self.clone();
        if self.names_user() {
            // Without a name of its own, it is called as the role was.
            other.said.set("dbname", self.database());
        }
        other.said.set("user", user);
        other.said.set_password(password);
        other
    }

    /// Returns the database's name; the role's name when none was given, as libpq does.
    pub fn database(&self) -> &str {
        self.said.get("dbname").unwrap_or_else(|| self.user())
    }

    /// Returns the role's name.
    pub fn user(&self) -> &str {
        self.said.get("user").unwrap_or("postgres")
    }

    /// Returns whether the connection string, or what is around it, names a role.
    pub fn names_user(&self) -> bool {
        self.said.says("user")
    }

    /// Returns the password, still secret.
    pub fn password(&self) -> Option<&SecretString> {
        self.said.password()
    }

    /// Returns the TLS mode.
    pub fn tls_mode(&self) -> TlsMode {
        self.understood.tls
    }

    /// Returns the TLS parameters that libpq must be told, too, for the same protection.
    pub fn tls_parameters(&self) -> Vec<(&'static str, String)> {
        // What libpq does without being told.
        if matches!(self.tls_mode(), TlsMode::Disable | TlsMode::Prefer) {
            return Vec::new();
        }
        let mut parameters = vec![("sslmode", self.tls_mode().word().to_owned())];
        if let Some(path) = self.said.get("sslrootcert") {
            parameters.push(("sslrootcert", path.to_owned()));
        }
        parameters
    }

    /// Returns what is said about pools and time-outs.
    pub fn pool_settings(&self) -> PoolSettings {
        self.understood.pool
    }

    /// Returns the name that the connection string asks connections to bear; those of
    /// [`connect`](crate::connect()) bear the name of their purpose.
    pub fn application_name(&self) -> Option<&str> {
        self.said.get("application_name")
    }

    /// Returns the first host (a name, an IP address or a socket folder).
    pub fn host(&self) -> String {
        self.understood.targets[0].name.clone()
    }

    /// Returns the first port.
    pub fn port(&self) -> u16 {
        self.understood.targets[0].port
    }

    /// Returns `host:port` of the first host, the name of the server in messages.
    pub fn server(&self) -> String {
        self.understood.targets[0].label.clone()
    }

    /// Returns `host:port` of each host, in their order, for messages.
    pub fn servers(&self) -> String {
        let labels: Vec<&str> = self.understood.targets.iter().map(|target| target.label.as_str()).collect();
        labels.join(", ")
    }

    /// Returns the kind of server that will do.
    pub fn session_kind(&self) -> SessionKind {
        self.understood.kind
    }

    /// Returns the hosts to try, in their order; never none.
    pub(crate) fn targets(&self) -> &[Target] {
        &self.understood.targets
    }

    /// Returns the address as an URL *with* its password, for handing it to a program.
    ///
    /// It holds what libpq understands, of version 15 too: so not what is said about pools.
    pub fn expose_url(&self) -> SecretString {
        let password = match self.password() {
            Some(secret) => format!(":{}", libpq::percent(secret.expose_secret())),
            None => String::new(),
        };
        let elsewhere = ["user", "password", "dbname", "host", "hostaddr", "port", "sslmode", "sslrootcert"];
        let more = self.said.exposed().filter(|(key, how, value)| {
            *how == Use::Kept && !elsewhere.contains(key) && *value != SessionKind::PreferPrimary.word()
        });
        self.url(&password, more.map(|(key, _, value)| (key, value.to_owned())).collect()).into()
    }

    /// Returns all that [`parse`](Self::parse) took from the connection string and what was around
    /// it, *with* the password, as pairs that it reads back: for handing the same connection to
    /// another process of ours.
    pub fn expose_pairs(&self) -> SecretString {
        let mut text = String::new();
        for (key, _, value) in self.said.exposed() {
            libpq::write_pair(&mut text, key, value);
        }
        text.into()
    }

    fn url(&self, password: &str, more: Vec<(&'static str, String)>) -> String {
        let (user, database) = (libpq::percent(self.user()), libpq::percent(self.database()));
        let targets = self.targets();
        let list = |texts: Vec<String>| texts.join(",");
        let mut parameters: Vec<(&'static str, String)> = Vec::new();
        let place = if targets.iter().any(|target| matches!(target.to, To::Folder(_))) {
            parameters.push(("host", list(targets.iter().map(|target| target.name.clone()).collect())));
            parameters.push(("port", list(targets.iter().map(|target| target.port.to_string()).collect())));
            String::new()
        } else {
            if let (true, Some(addresses)) = (self.said.says("host"), self.said.get("hostaddr")) {
                parameters.push(("hostaddr", addresses.to_owned()));
            }
            list(targets.iter().map(Target::in_url).collect())
        };
        parameters.extend(self.tls_parameters());
        parameters.extend(more);
        let mut url = format!("postgresql://{user}{password}@{place}/{database}");
        for (at, (key, value)) in parameters.iter().enumerate() {
            url.push_str(&format!("{}{key}={}", if at == 0 { '?' } else { '&' }, libpq::percent(value)));
        }
        url
    }

    /// Returns the file of trusted authorities, or `system`.
    pub(crate) fn root_certificates(&self) -> Option<&Path> {
        self.said.get("sslrootcert").map(Path::new)
    }

    /// Returns whether TLS begins at once, without PostgreSQL's own question before it.
    pub(crate) fn is_direct(&self) -> bool {
        self.said.get("sslnegotiation") == Some("direct")
    }

    /// Returns the files of the client's certificate and its key.
    pub(crate) fn client_certificate(&self) -> (Option<&Path>, Option<&Path>) {
        (self.said.get("sslcert").map(Path::new), self.said.get("sslkey").map(Path::new))
    }

    /// Returns the client's configuration for one connection.
    pub(crate) fn config(&self, application: &str, options: &str) -> tokio_postgres::Config {
        let mut config = self.understood.config.clone();
        config.application_name(application).user(self.user());
        if let Some(database) = self.said.get("dbname") {
            config.dbname(database);
        }
        if let Some(password) = self.password() {
            config.password(password.expose_secret());
        }
        let merged = match self.said.get("options") {
            Some(own) if !options.is_empty() => format!("{own} {options}"),
            Some(own) => own.to_owned(),
            None => options.to_owned(),
        };
        if !merged.is_empty() {
            config.options(merged);
        }
        config
    }
}

/// Reads what a text says, in whichever form it is.
fn read(text: &str) -> Result<Said, Error> {
    let text = text.trim();
    if libpq::is_url(text) {
        libpq::read_url(text)
    } else if npgsql::is_npgsql(text) {
        npgsql::read(text)
    } else {
        libpq::read_pairs(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url("", Vec::new()))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}
