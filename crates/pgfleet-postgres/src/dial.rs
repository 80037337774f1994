//! Getting through to one of an address's hosts, as libpq does.
//!
//! Hosts are tried in the order of the list (in any order with `load_balance_hosts=random`), a name
//! at each of its addresses, each with `connect_timeout` for itself. The next one is tried when
//! nobody answers, when the connection breaks before the login is done, when the server is starting
//! or stopping (57P03), and when the server is not of the kind that `target_session_attrs` asks for.
//! A server that answers otherwise ends the search, as in libpq: a wrong password is not tried at
//! the next host, and a certificate that is not trusted is no reason to talk to somebody else.
//!
//! Two things differ from libpq: a connection that breaks while logging in goes on to the next host
//! (it may be a proxy without a server behind it), and a server of the wrong kind goes on to the next
//! address of the same name (a name may stand for all servers of a cluster).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::config::{LoadBalanceHosts, SslMode};
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::address::{SessionKind, TlsMode};
use crate::cancel::Way;
use crate::line::{Endpoint, Gone, Guard, Line, TcpOptions};
use crate::{Address, Error, ErrorKind};

/// How long one address of a host may take when the connection string does not say; if there is but
/// one host, to take the connection, since there is nobody to go on to: a pooler may wait for its
/// server before it lets one in.
const HOST_LIMIT: Duration = Duration::from_secs(10);

/// How long all may take in that case.
const TOTAL_LIMIT: Duration = Duration::from_secs(20);

/// How long the end of a refused connection is waited for before the next one is tried.
const REFUSED_LIMIT: Duration = Duration::from_millis(500);

/// One entry of an address's list of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port`, for messages.
    pub(crate) label: String,
    /// The name that the server's certificate is checked against.
    pub(crate) name: String,
    pub(crate) to: To,
    pub(crate) port: u16,
}

impl Target {
    pub(crate) fn new(name: &str, to: To, port: u16) -> Self {
        Self { label: format!("{name}:{port}"), name: name.to_owned(), to, port }
    }

    /// Writes it as URLs have it.
    pub(crate) fn in_url(&self) -> String {
        if self.name.contains(':') { format!("[{}]:{}", self.name, self.port) } else { self.label.clone() }
    }
}

/// How a host is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    Name(String),
    Ip(IpAddr),
    /// The folder of the socket.
    Folder(PathBuf),
}

/// An open connection.
pub(crate) struct Dialed {
    pub(crate) client: Client,
    /// Ends when the server has let go of the connection.
    pub(crate) driver: JoinHandle<()>,
    pub(crate) way: Arc<Way>,
    /// The host that was reached, for messages.
    pub(crate) label: String,
    pub(crate) facts: Facts,
}

/// What a server tells when one logs in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// 150018 is 15.18; 0 when it was not told.
    pub(crate) version: u32,
    pub(crate) in_recovery: Option<bool>,
    pub(crate) read_only: Option<bool>,
}

/// Connects to the first host that will do.
///
/// # Errors
///
/// When only one host was tried, or one has refused us, its own error; else one that names each host
/// and why it was not taken.
pub(crate) async fn dial(
    address: &Address,
    config: &tokio_postgres::Config,
    guard: Option<Guard>,
) -> Result<Dialed, Error> {
    let dialer = Dialer::new(address, config, guard)?;
    let Some(limit) = dialer.total else { return dialer.run().await };
    match tokio::time::timeout(limit, dialer.run()).await {
        Ok(dialed) => dialed,
        Err(_) => Err(dialer.unanswered(&address.server(), limit)),
    }
}

struct Dialer<'a> {
    address: &'a Address,
    config: &'a tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
    tcp: TcpOptions,
    /// For each address of a host, to take the connection.
    dial_limit: Duration,
    /// For each address of a host, in all.
    limit: Duration,
    total: Option<Duration>,
    guard: Option<Guard>,
}

/// Why an address was not taken.
struct Failure {
    error: Error,
    /// Whether the next one is tried.
    next: bool,
}

impl<'a> Dialer<'a> {
    fn new(address: &'a Address, config: &'a tokio_postgres::Config, guard: Option<Guard>) -> Result<Self, Error> {
        let tls = match address.tls_mode() {
            TlsMode::Disable => None,
            _ => Some(crate::tls::connector(address)?),
        };
        let keepalive = config.get_keepalives().then(|| {
            let mut keepalive = socket2::TcpKeepalive::new().with_time(config.get_keepalives_idle());
            if let Some(interval) = config.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = config.get_keepalives_retries() {
                keepalive = keepalive.with_retries(retries);
            }
            keepalive
        });
        let said = config.get_connect_timeout().copied();
        Ok(Self {
            address,
            config,
            tls,
            tcp: TcpOptions { keepalive, user_timeout: config.get_tcp_user_timeout().copied() },
            dial_limit: said.unwrap_or(HOST_LIMIT),
            limit: said.unwrap_or(if address.targets().len() == 1 { TOTAL_LIMIT } else { HOST_LIMIT }),
            total: said.is_none().then_some(TOTAL_LIMIT),
            guard,
        })
    }

    fn shuffles(&self) -> bool {
        self.config.get_load_balance_hosts() == LoadBalanceHosts::Random
    }

    async fn run(&self) -> Result<Dialed, Error> {
        let mut targets = self.address.targets().to_vec();
        if self.shuffles() {
            targets.shuffle(&mut rand::rng());
        }
        // `prefer-standby` goes through the list twice, as in libpq.
        let passes = match self.address.session_kind() {
            SessionKind::PreferStandby => vec![SessionKind::Standby, SessionKind::Any],
            SessionKind::PreferPrimary => vec![SessionKind::Primary, SessionKind::Any],
            kind => vec![kind],
        };
        let mut failures: Vec<(String, Error)> = Vec::new();
        for kind in passes {
            failures.clear();
            for target in &targets {
                let endpoints = match self.endpoints(target).await {
                    Ok(endpoints) => endpoints,
                    Err(error) => {
                        failures.push((target.label.clone(), error));
                        continue;
                    }
                };
                for endpoint in endpoints {
                    match self.attempt(target, &endpoint, kind).await {
                        Ok(dialed) => return Ok(dialed),
                        Err(Failure { error, next: false }) => return Err(error),
                        Err(Failure { error, next: true }) => failures.push((target.label.clone(), error)),
                    }
                }
            }
        }
        Err(self.nobody(failures))
    }

    /// Finds the addresses of a host.
    async fn endpoints(&self, target: &Target) -> Result<Vec<Endpoint>, Error> {
        let name = match &target.to {
            To::Ip(ip) => return Ok(vec![Endpoint::Tcp(SocketAddr::new(*ip, target.port))]),
            To::Folder(folder) => return Ok(vec![Endpoint::Unix(folder.join(format!(".s.PGSQL.{}", target.port)))]),
            To::Name(name) => name,
        };
        let found =
            match tokio::time::timeout(self.dial_limit, tokio::net::lookup_host((name.as_str(), target.port))).await {
                Ok(found) => found.map_err(|error| self.error(&target.label, error))?,
                Err(_) => {
                    return Err(
                        self.error(&target.label, format!("its name was not found within {}", show(self.dial_limit)))
                    );
                }
            };
        let mut endpoints: Vec<Endpoint> = found.map(Endpoint::Tcp).collect();
        if endpoints.is_empty() {
            return Err(self.error(&target.label, "its name stands for no address"));
        }
        if self.shuffles() {
            endpoints.shuffle(&mut rand::rng());
        }
        Ok(endpoints)
    }

    /// Logs in at one address of a host, and looks whether the server will do.
    async fn attempt(&self, target: &Target, to: &Endpoint, kind: SessionKind) -> Result<Dialed, Failure> {
        let mut gone = None;
        match tokio::time::timeout(self.limit, self.log_in(target, to, kind, &mut gone)).await {
            Ok(Err(failure)) => {
                // Not two connections at once for one that is asked for.
                if let Some(gone) = gone {
                    let _given_up = tokio::time::timeout(REFUSED_LIMIT, gone).await;
                }
                Err(failure)
            }
            Ok(Ok(dialed)) => Ok(dialed),
            Err(_) => Err(Failure { error: self.unanswered(&target.label, self.limit), next: true }),
        }
    }

    async fn log_in(
        &self,
        target: &Target,
        to: &Endpoint,
        kind: SessionKind,
        refused: &mut Option<Gone>,
    ) -> Result<Dialed, Failure> {
        let tls = self.tls.clone().filter(|_| matches!(to, Endpoint::Tcp(_)));
        let tried_tls = tls.is_some();
        let mut opened = self.open(target, to, tls).await?;
        if let Err(first) = &mut opened
            && tried_tls
            && self.address.tls_mode() == TlsMode::Prefer
            && is_about_tls(&first.error)
        {
            // As in libpq: what prefers TLS goes on without it where it does not come about, or where
            // the server lets nobody in by it. If that fails, too, the first error says more.
            let _given_up = tokio::time::timeout(REFUSED_LIMIT, &mut first.gone).await;
            match self.open(target, to, None).await? {
                Ok(plain) => opened = Ok(plain),
                // The first line is gone, and its end must not be waited for again.
                Err(second) => first.gone = second.gone,
            }
        }
        let Opened { client, mut facts, driver, way } = match opened {
            Ok(opened) => opened,
            Err(Refused { error, gone }) => {
                *refused = Some(gone);
                let next = goes_on(&error);
                return Err(Failure { error: Error::from_client(error, self.doing(&target.label), true), next });
            }
        };
        let refusal = match facts.ask(kind, &client).await {
            Ok(()) => facts.refusal(kind).map(|why| Failure { error: self.error(&target.label, why), next: true }),
            Err(error) => {
                let next = goes_on(&error);
                Some(Failure { error: Error::from_client(error, self.doing(&target.label), true), next })
            }
        };
        if let Some(failure) = refusal {
            drop(client);
            let _ended = driver.await;
            return Err(failure);
        }
        Ok(Dialed { client, driver, way, label: target.label.clone(), facts })
    }

    /// Opens a line and logs in on it; the outer error is that there is no line.
    async fn open(
        &self,
        target: &Target,
        to: &Endpoint,
        tls: Option<MakeRustlsConnect>,
    ) -> Result<Result<Opened, Refused>, Failure> {
        let opening = Line::open(to, &self.tcp, self.guard.clone());
        let (line, gone) = match tokio::time::timeout(self.dial_limit, opening).await {
            Ok(opened) => opened.map_err(|error| Failure { error: self.error(&target.label, error), next: true })?,
            Err(_) => return Err(Failure { error: self.unanswered(&target.label, self.dial_limit), next: true }),
        };
        let way = Arc::new(Way {
            to: to.clone(),
            tcp: self.tcp.clone(),
            name: target.name.clone(),
            tls,
            news: Notify::new(),
        });
        Ok(match way.tls() {
            Some(tls) => start(self.config, line, tls, gone, way).await,
            None => start(self.config.clone().ssl_mode(SslMode::Disable), line, NoTls, gone, way).await,
        })
    }

    fn doing(&self, server: &str) -> String {
        format!("cannot connect to database {} on {server} as {}", self.address.database(), self.address.user())
    }

    fn error(&self, server: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::with_source(ErrorKind::Unreachable, self.doing(server), why)
    }

    fn unanswered(&self, server: &str, limit: Duration) -> Error {
        self.error(server, format!("no answer within {}", show(limit)))
    }

    /// Makes one error of why nobody was taken.
    fn nobody(&self, mut failures: Vec<(String, Error)>) -> Error {
        // A name's addresses mostly fail in the same way.
        let mut reasons: Vec<String> = Vec::new();
        for (label, error) in &failures {
            let reason = format!("{label}: {}", why(error));
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        if reasons.len() <= 1 {
            return failures.pop().map_or_else(|| Error::address("the address names no host"), |(_, error)| error);
        }
        let unavailable = failures.iter().all(|(_, error)| error.kind() == ErrorKind::Unavailable);
        let kind = if unavailable { ErrorKind::Unavailable } else { ErrorKind::Unreachable };
        Error::with_source(kind, self.doing(&self.address.servers()), reasons.join("; "))
    }
}

/// Logged in.
struct Opened {
    client: Client,
    facts: Facts,
    driver: JoinHandle<()>,
    way: Arc<Way>,
}

/// Not logged in.
struct Refused {
    error: tokio_postgres::Error,
    gone: Gone,
}

/// Logs in on a line, and has its messages carried.
async fn start<T>(
    config: &tokio_postgres::Config,
    line: Line,
    tls: T,
    gone: Gone,
    way: Arc<Way>,
) -> Result<Opened, Refused>
where
    T: TlsConnect<Line>,
    T::Stream: Send + 'static,
{
    match config.connect_raw(line, tls).await {
        Ok((client, connection)) => {
            let facts = Facts::of(|name| connection.parameter(name));
            let driver = tokio::spawn(crate::connect::drive(connection, gone, way.clone()));
            Ok(Opened { client, facts, driver, way })
        }
        Err(error) => Err(Refused { error, gone }),
    }
}

/// Whether a login failed because of TLS: its handshake, or a server that wants none (28000).
fn is_about_tls(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        Some(server) => server.code().code() == "28000",
        None => is_of_rustls(error),
    }
}

/// What TLS has to say comes as an I/O error.
fn is_of_rustls(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>()?.get_ref())
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

/// Says why, without what we were doing.
fn why(error: &Error) -> String {
    match (error.server(), std::error::Error::source(error)) {
        (Some(server), _) => server.message.clone(),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}

fn show(limit: Duration) -> String {
    if limit.subsec_millis() == 0 { format!("{} s", limit.as_secs()) } else { format!("{} ms", limit.as_millis()) }
}

/// Whether the next host is tried after an error of a login.
fn goes_on(error: &tokio_postgres::Error) -> bool {
    if let Some(server) = error.as_db_error() {
        return server.code().code() == "57P03";
    }
    let by_network = std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
    error.is_closed() || (by_network && !is_of_rustls(error))
}

impl Facts {
    fn of<'p>(parameter: impl Fn(&str) -> Option<&'p str>) -> Self {
        let flag = |name| parameter(name).map(|value| value == "on");
        Self {
            version: parameter("server_version").map_or(0, version),
            in_recovery: flag("in_hot_standby"),
            read_only: flag("default_transaction_read_only"),
        }
    }

    /// Asks for what was not told and is needed: poolers do not pass everything on.
    async fn ask(&mut self, kind: SessionKind, client: &Client) -> Result<(), tokio_postgres::Error> {
        let told = match kind {
            SessionKind::Any => true,
            SessionKind::ReadWrite | SessionKind::ReadOnly => self.in_recovery.is_some() && self.read_only.is_some(),
            _ => self.in_recovery.is_some(),
        };
        if told {
            return Ok(());
        }
        let sql = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'";
        for message in client.simple_query(sql).await? {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                self.in_recovery = Some(row.get(0) == Some("t"));
                self.read_only = Some(row.get(1) == Some("t"));
            }
        }
        Ok(())
    }

    /// Says why such a server will not do.
    fn refusal(self, kind: SessionKind) -> Option<String> {
        let standby = self.in_recovery.unwrap_or_default();
        let read_only = standby || self.read_only.unwrap_or_default();
        let is = match kind {
            SessionKind::ReadWrite if standby => "a standby, which takes no writes",
            SessionKind::ReadWrite if read_only => "read-only by default",
            SessionKind::ReadOnly if !read_only => "not read-only",
            SessionKind::Primary if standby => "a standby",
            SessionKind::Standby if !standby => "not a standby",
            _ => return None,
        };
        Some(format!("the server is {is}, and target_session_attrs is {}", kind.word()))
    }
}

/// Reads `15.18 (Debian …)` as 150018 and `19beta1` as 190000.
fn version(text: &str) -> u32 {
    let number = |text: &str| -> u32 {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().unwrap_or_default()
    };
    let (major, minor) = text.split_once('.').unwrap_or((text, ""));
    number(major) * 10_000 + number(minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        for (text, number) in
            [("15.18 (Debian 15.18-0+deb12u1)", 150_018), ("18.6", 180_006), ("19beta1", 190_000), ("", 0)]
        {
            assert_eq!(version(text), number, "{text}");
        }
    }

    #[test]
    fn a_kind_of_server_is_told_from_the_others() {
        let server = |in_recovery, read_only| Facts {
            version: 150_018,
            in_recovery: Some(in_recovery),
            read_only: Some(read_only),
        };
        let (primary, fenced, standby) = (server(false, false), server(false, true), server(true, false));
        for (kind, takes) in [
            (SessionKind::Any, [true, true, true]),
            (SessionKind::ReadWrite, [true, false, false]),
            (SessionKind::ReadOnly, [false, true, true]),
            (SessionKind::Primary, [true, true, false]),
            (SessionKind::Standby, [false, false, true]),
        ] {
            let taken = [primary, fenced, standby].map(|facts| facts.refusal(kind).is_none());
            assert_eq!(taken, takes, "{kind:?}");
        }
    }
}
