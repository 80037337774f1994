//! Where a database is and who connects to it, without ever showing the password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use crate::Error;

/// One database on one server, with the role that connects.
///
/// Read from a libpq URL (`postgresql://user@host:5432/db?sslmode=require`) or libpq's
/// `key=value` form. `Debug` and `Display` leave the password out.
#[derive(Clone)]
pub struct Address {
    config: tokio_postgres::Config,
    password: Option<SecretString>,
    tls: TlsMode,
    root_certificates: Option<PathBuf>,
}

/// How much TLS protects the connection, as libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never TLS.
    Disable,
    /// TLS when the server offers it, unverified.
    Prefer,
    /// Always TLS, unverified.
    Require,
    /// Always TLS; the certificate must be signed by a trusted authority.
    VerifyCa,
    /// Always TLS; signed by a trusted authority and issued for this host.
    VerifyFull,
}

impl TlsMode {
    fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "disable" => Self::Disable,
            // `allow` tries plain text first; with nothing verified `prefer` is never worse.
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            other => {
                return Err(Error::address(format!(
                    "unknown sslmode `{other}` (disable, prefer, require, verify-ca, verify-full)"
                )));
            }
        })
    }
}

impl Address {
    /// Reads a libpq URL or `key=value` string.
    ///
    /// `passfile=PATH` is read here, by libpq's rules, when no password is given.
    ///
    /// # Errors
    ///
    /// An address that cannot be understood; the message never repeats the text, since it may hold
    /// a password.
    ///
    /// # Examples
    ///
    /// ```
    /// let address = pgfleet_postgres::Address::parse("postgresql://app:secret@db.local:5433/trip")?;
    /// assert_eq!(address.database(), "trip");
    /// assert_eq!(address.to_string(), "postgresql://app@db.local:5433/trip");
    /// # Ok::<(), pgfleet_postgres::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::read(text).map(|(address, _)| address)
    }

    /// Reads an address; says also whether it names a TLS mode.
    fn read(text: &str) -> Result<(Self, bool), Error> {
        let mut taken = Taken::default();
        let rest = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            take_from_url(text, &mut taken)
        } else {
            take_from_pairs(text, &mut taken)?
        };
        let mut config: tokio_postgres::Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            Error::address(format!(
                "connection string not understood: {}",
                cause.unwrap_or_else(|| "expected postgresql://user@host:port/database".to_owned())
            ))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        let mut address = Self {
            password: config.get_password().map(|bytes| String::from_utf8_lossy(bytes).into_owned().into()),
            config,
            tls: taken.mode.as_deref().map_or(Ok(TlsMode::Prefer), TlsMode::parse)?,
            root_certificates: taken.root,
        };
        if address.is_socket() {
            address.tls = TlsMode::Disable;
        }
        if address.password.is_none()
            && let Some(path) = taken.passfile
        {
            address.read_passfile(&path)?;
        }
        Ok((address, taken.mode.is_some()))
    }

    /// Reads another way to the same server: what the text does not say, database, role and password
    /// included, is as in this address.
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
    /// # Ok::<(), pgfleet_postgres::Error>(())
    /// ```
    pub fn by_way_of(&self, text: &str) -> Result<Self, Error> {
        let (mut other, says_tls) = Self::read(text)?;
        if !says_tls {
            other.tls = if other.is_socket() { TlsMode::Disable } else { self.tls };
        }
        if other.root_certificates.is_none() {
            other.root_certificates.clone_from(&self.root_certificates);
        }
        if !other.names_user() || (other.password.is_none() && other.user() == self.user()) {
            let password = other.password.take().or_else(|| self.password.clone());
            other = other.with_user(self.user(), password);
        }
        if other.config.get_dbname().is_none() {
            other.config.dbname(self.database());
        }
        if let (None, Some(options)) = (other.config.get_options(), self.config.get_options()) {
            other.config.options(options);
        }
        if let (None, Some(limit)) = (other.config.get_connect_timeout(), self.config.get_connect_timeout()) {
            other.config.connect_timeout(*limit);
        }
        Ok(other)
    }

    /// Makes the address of a server on this machine.
    pub fn local(port: u16, user: &str, password: SecretString, database: &str) -> Self {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user(user).dbname(database);
        Self { config, password: None, tls: TlsMode::Disable, root_certificates: None }.with_user(user, Some(password))
    }

    /// Returns the same server and role with another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        let mut other = self.clone();
        other.config.dbname(database);
        other
    }

    /// Returns the same server and database with another role.
    #[must_use]
    pub fn with_user(&self, user: &str, password: Option<SecretString>) -> Self {
        let mut other = self.clone();
        other.config.user(user);
        other.config.password(password.as_ref().map_or("", |secret| secret.expose_secret()));
        other.password = password;
        other
    }

    /// Returns the database's name; the role's name when none was given, as libpq does.
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_else(|| self.user())
    }

    /// Returns the role's name.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or("postgres")
    }

    /// Returns whether the connection string names a role.
    pub fn names_user(&self) -> bool {
        self.config.get_user().is_some()
    }

    /// Returns the password, still secret.
    pub fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// Returns the TLS mode.
    pub fn tls_mode(&self) -> TlsMode {
        self.tls
    }

    /// Returns the TLS parameters that libpq must be told, too, for the same protection.
    pub fn tls_parameters(&self) -> Vec<(&'static str, String)> {
        // What libpq does without being told.
        if matches!(self.tls, TlsMode::Disable | TlsMode::Prefer) {
            return Vec::new();
        }
        let mut parameters = vec![("sslmode", self.tls.word().to_owned())];
        if let Some(path) = &self.root_certificates {
            parameters.push(("sslrootcert", path.display().to_string()));
        }
        parameters
    }

    /// Returns the first host (a name, an IP address or a socket folder).
    pub fn host(&self) -> String {
        match self.config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(name)) => name.clone(),
            Some(tokio_postgres::config::Host::Unix(path)) => path.display().to_string(),
            None => self.config.get_hostaddrs().first().map_or_else(String::new, ToString::to_string),
        }
    }

    /// Returns the first port.
    pub fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }

    /// Returns `host:port`, the name of the server in messages.
    pub fn server(&self) -> String {
        format!("{}:{}", self.host(), self.port())
    }

    /// Returns the address as an URL *with* its password, for handing it to a program.
    pub fn expose_url(&self) -> SecretString {
        let password = match &self.password {
            Some(secret) => format!(":{}", percent(secret.expose_secret())),
            None => String::new(),
        };
        self.url(&password).into()
    }

    /// Returns all that [`parse`](Self::parse) took from the connection string, *with* the password,
    /// as pairs that it reads back: for handing the same connection to another process of ours.
    pub fn expose_pairs(&self) -> SecretString {
        use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, SslNegotiation, TargetSessionAttrs};
        let config = &self.config;
        let list = |texts: Vec<String>| (!texts.is_empty()).then(|| texts.join(","));
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs().to_string());
        let hosts = config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let pairs = [
            ("user", config.get_user().map(str::to_owned)),
            ("password", self.password.as_ref().map(|secret| secret.expose_secret().to_owned())),
            ("dbname", config.get_dbname().map(str::to_owned)),
            ("options", config.get_options().map(str::to_owned)),
            ("host", list(hosts.collect())),
            ("hostaddr", list(config.get_hostaddrs().iter().map(ToString::to_string).collect())),
            ("port", list(config.get_ports().iter().map(ToString::to_string).collect())),
            ("connect_timeout", seconds(config.get_connect_timeout().copied())),
            ("tcp_user_timeout", seconds(config.get_tcp_user_timeout().copied())),
            ("keepalives", (!config.get_keepalives()).then(|| "0".to_owned())),
            ("keepalives_interval", seconds(config.get_keepalives_interval())),
            ("keepalives_retries", config.get_keepalives_retries().map(|count| count.to_string())),
            (
                "target_session_attrs",
                match config.get_target_session_attrs() {
                    TargetSessionAttrs::ReadWrite => Some("read-write".to_owned()),
                    TargetSessionAttrs::ReadOnly => Some("read-only".to_owned()),
                    _ => None,
                },
            ),
            (
                "channel_binding",
                match config.get_channel_binding() {
                    ChannelBinding::Disable => Some("disable".to_owned()),
                    ChannelBinding::Require => Some("require".to_owned()),
                    _ => None,
                },
            ),
            (
                "load_balance_hosts",
                matches!(config.get_load_balance_hosts(), LoadBalanceHosts::Random).then(|| "random".to_owned()),
            ),
            (
                "sslnegotiation",
                matches!(config.get_ssl_negotiation(), SslNegotiation::Direct).then(|| "direct".to_owned()),
            ),
            ("sslmode", Some(self.tls.word().to_owned())),
            ("sslrootcert", self.root_certificates.as_ref().map(|path| path.display().to_string())),
        ];
        let mut text = String::new();
        for (name, value) in pairs {
            let Some(value) = value else { continue };
            text.push_str(&format!("{name}='{}' ", value.replace('\\', "\\\\").replace('\'', "\\'")));
        }
        text.into()
    }

    fn url(&self, password: &str) -> String {
        let database = percent(self.database());
        let user = percent(self.user());
        if self.is_socket() {
            return format!(
                "postgresql://{user}{password}@/{database}?host={}&port={}",
                percent(&self.host()),
                self.port()
            );
        }
        let host = self.host();
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let mut url = format!("postgresql://{user}{password}@{host}:{}/{database}", self.port());
        for (at, (name, value)) in self.tls_parameters().iter().enumerate() {
            url.push_str(&format!("{}{name}={}", if at == 0 { '?' } else { '&' }, percent(value)));
        }
        url
    }

    fn is_socket(&self) -> bool {
        matches!(self.config.get_hosts().first(), Some(tokio_postgres::config::Host::Unix(_)))
    }

    pub(crate) fn root_certificates(&self) -> Option<&PathBuf> {
        self.root_certificates.as_ref()
    }

    /// Returns the client's configuration for one connection.
    pub(crate) fn config(&self, application: &str, options: &str) -> tokio_postgres::Config {
        let mut config = self.config.clone();
        config.application_name(application);
        if config.get_user().is_none() {
            config.user(self.user());
        }
        let merged = match config.get_options() {
            Some(own) if !options.is_empty() => format!("{own} {options}"),
            Some(own) => own.to_owned(),
            None => options.to_owned(),
        };
        if !merged.is_empty() {
            config.options(merged);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        config.keepalives_idle(Duration::from_mins(1));
        config.ssl_mode(match self.tls {
            TlsMode::Disable => tokio_postgres::config::SslMode::Disable,
            TlsMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            _ => tokio_postgres::config::SslMode::Require,
        });
        config
    }

    /// Takes the password from a password file: `host:port:database:user:password` lines, `*`
    /// matches everything, `\` escapes.
    fn read_passfile(&mut self, path: &PathBuf) -> Result<(), Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::address(format!("cannot read passfile {}: {error}", path.display())))?;
        let wanted = [self.host(), self.port().to_string(), self.database().to_owned(), self.user().to_owned()];
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let fields = passfile_fields(line);
            if fields.len() == 5 && fields[..4].iter().zip(&wanted).all(|(field, want)| field == "*" || field == want) {
                self.config.password(&fields[4]);
                self.password = Some(fields[4].clone().into());
                break;
            }
        }
        Ok(())
    }
}

fn passfile_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let last = fields.len() - 1;
        match character {
            '\\' => fields[last].extend(characters.next()),
            ':' if fields.len() < 5 => fields.push(String::new()),
            other => fields[last].push(other),
        }
    }
    fields
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url(""))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Parameters that the client library does not know, taken out before it sees the text.
#[derive(Default)]
struct Taken {
    mode: Option<String>,
    root: Option<PathBuf>,
    passfile: Option<PathBuf>,
}

impl Taken {
    /// Keeps the parameter when it is one of ours.
    fn take(&mut self, key: &str, value: &str) -> bool {
        match key {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" => self.root = Some(PathBuf::from(value)),
            "passfile" => self.passfile = Some(PathBuf::from(value)),
            _ => return false,
        }
        true
    }
}

fn take_from_url(text: &str, taken: &mut Taken) -> String {
    let Some((base, query)) = text.split_once('?') else { return text.to_owned() };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            !taken.take(key, &unpercent(value))
        })
        .collect();
    if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) }
}

/// Splits libpq's `key = 'va\'lue'` pairs and puts those back together that are not ours.
fn take_from_pairs(text: &str, taken: &mut Taken) -> Result<String, Error> {
    let mut rest = String::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return Ok(rest);
        }
        let mut key = String::new();
        while let Some(character) = characters.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(character);
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.next() != Some('=') {
            return Err(Error::address(
                "connection string not understood: expected postgresql://user@host:port/database or key=value pairs",
            ));
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        let quoted = characters.next_if_eq(&'\'').is_some();
        loop {
            match characters.peek() {
                None if quoted => return Err(Error::address("connection string not understood: open quote")),
                None => break,
                Some('\'') if quoted => {
                    characters.next();
                    break;
                }
                Some(c) if !quoted && c.is_whitespace() => break,
                Some('\\') => {
                    characters.next();
                    value.extend(characters.next());
                }
                Some(_) => value.extend(characters.next()),
            }
        }
        if !taken.take(&key, &value) {
            let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
            rest.push_str(&format!("{key}='{escaped}' "));
        }
    }
}

fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unpercent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match (bytes[at], hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_never_shows() {
        for text in ["postgresql://u:s3cret@h/d", "host=h user=u password='s3cret' dbname=d"] {
            let address = Address::parse(text).unwrap();
            assert!(!format!("{address} {address:?}").contains("s3cret"));
            assert_eq!(address.password().unwrap().expose_secret(), "s3cret");
        }
    }

    #[test]
    fn an_error_does_not_repeat_the_text() {
        let error = Address::parse("postgresql://u:s3cret@h:port/d").unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn sslmode_is_read_from_both_forms() {
        let url = Address::parse("postgresql://h/d?sslmode=verify-full&connect_timeout=3").unwrap();
        assert_eq!(url.tls_mode(), TlsMode::VerifyFull);
        let pairs = Address::parse("host=h dbname=d sslmode=disable").unwrap();
        assert_eq!(pairs.tls_mode(), TlsMode::Disable);
        assert!(Address::parse("host=h sslmode=perhaps").is_err());
    }

    #[test]
    fn what_is_handed_on_keeps_the_protection() {
        let address = Address::parse("postgresql://u@h/d?sslmode=verify-full&sslrootcert=/a b/ca.pem").unwrap();
        let again = Address::parse(address.expose_url().expose_secret()).unwrap();
        assert_eq!(again.tls_parameters(), address.tls_parameters());
        assert_eq!(again.tls_mode(), TlsMode::VerifyFull);
    }

    #[test]
    fn exposed_url_reads_back_with_odd_characters() {
        let address = Address::local(5433, "o'\"r der", "p@ss:/?#%".to_owned().into(), "my db");
        let again = Address::parse(address.expose_url().expose_secret()).unwrap();
        assert_eq!(again.user(), "o'\"r der");
        assert_eq!(again.database(), "my db");
        assert_eq!(again.password().unwrap().expose_secret(), "p@ss:/?#%");
    }

    #[test]
    fn another_way_says_only_what_is_different() {
        let pooler = "postgresql://u:p%40ss@pooler:6432/d?sslmode=verify-full&sslrootcert=/ca.pem&connect_timeout=3";
        let pooler = Address::parse(pooler).unwrap();
        let verified = "postgresql://u@h:5433/d?sslmode=verify-full&sslrootcert=%2Fca.pem";
        let required = "postgresql://v@h:5432/d?sslmode=require&sslrootcert=%2Fca.pem";
        for (text, url, password, tls) in [
            ("postgresql://h:5433", verified, Some("p@ss"), TlsMode::VerifyFull),
            ("host=h port=5433", verified, Some("p@ss"), TlsMode::VerifyFull),
            ("postgresql://u@h/e?sslmode=disable", "postgresql://u@h:5432/e", Some("p@ss"), TlsMode::Disable),
            ("postgresql://v:q@h?sslmode=require", required, Some("q"), TlsMode::Require),
            ("postgresql://v@h?sslmode=disable", "postgresql://v@h:5432/d", None, TlsMode::Disable),
            ("host=/run/pg port=6000", "postgresql://u@/d?host=%2Frun%2Fpg&port=6000", Some("p@ss"), TlsMode::Disable),
        ] {
            let other = pooler.by_way_of(text).unwrap();
            assert_eq!(other.to_string(), url, "{text}");
            assert_eq!(other.password().map(secrecy::ExposeSecret::expose_secret), password, "{text}");
            assert_eq!(other.config("", "").get_password(), password.map(str::as_bytes), "{text}");
            assert_eq!(other.tls_mode(), tls, "{text}");
            assert_eq!(other.config.get_connect_timeout(), Some(&Duration::from_secs(3)), "{text}");
        }
        assert!(pooler.by_way_of("postgresql://h:port").is_err());
    }

    #[test]
    fn what_another_process_of_ours_gets_is_the_same_connection() {
        for text in [
            "postgresql://o'%5Cr:p'%5C%20w@h1:5432,h2:5433/my%20db?sslmode=verify-full&sslrootcert=/a b/ca.pem&options=-c%20a%3Db",
            "host=/run/pg user=u dbname=d connect_timeout=3 target_session_attrs=read-write keepalives=0",
            "hostaddr=127.0.0.1 port=6000 user=u sslmode=disable channel_binding=disable load_balance_hosts=random",
            "postgresql://h",
        ] {
            let address = Address::parse(text).unwrap();
            let again = Address::parse(address.expose_pairs().expose_secret()).unwrap();
            // The client's own parser compares what it was told, passwords included.
            assert_eq!(again.config, address.config, "{text}");
            assert_eq!((again.tls, again.root_certificates()), (address.tls, address.root_certificates()), "{text}");
            let secret = |address: &Address| address.password().map(|secret| secret.expose_secret().to_owned());
            assert_eq!(secret(&again), secret(&address), "{text}");
        }
    }

    #[test]
    fn passfile_fields_respect_escapes() {
        assert_eq!(passfile_fields(r"h:5432:*:a\:b:p:w\\"), ["h", "5432", "*", "a:b", "p:w\\"]);
    }
}
