//! What a connection string means: hosts, TLS, time limits.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslMode, SslNegotiation};

use super::pool::PoolSettings;
use super::said::Said;
use super::words::{SessionKind, TlsMode, choice, number};
use crate::Error;
use crate::dial::{Target, To};

/// Where an address leads and how, without database, role and password.
pub(super) struct Understood {
    /// Never empty.
    pub(super) targets: Vec<Target>,
    pub(super) tls: TlsMode,
    pub(super) kind: SessionKind,
    pub(super) pool: PoolSettings,
    /// Everything else.
    pub(super) config: tokio_postgres::Config,
}

impl Understood {
    pub(super) fn of(said: &Said) -> Result<Self, Error> {
        let targets = targets(said)?;
        let tls = tls(said, &targets)?;
        let pool = PoolSettings::of(said)?;
        let mut config = usual(tls);
        if let Some(limit) = pool.connect_timeout {
            config.connect_timeout(limit);
        }
        let time = |key: &str, unit: fn(u64) -> Duration| -> Result<Option<Duration>, Error> {
            let Some(text) = said.get(key) else { return Ok(None) };
            let count: i64 = number(key, text)?;
            Ok(u64::try_from(count).ok().filter(|count| *count > 0).map(unit))
        };
        if let Some(limit) = time("tcp_user_timeout", Duration::from_millis)? {
            config.tcp_user_timeout(limit);
        }
        if let Some(text) = said.get("keepalives") {
            config.keepalives(number::<u64>("keepalives", text)? != 0);
        }
        if let Some(idle) = time("keepalives_idle", Duration::from_secs)? {
            config.keepalives_idle(idle);
        }
        if let Some(interval) = time("keepalives_interval", Duration::from_secs)? {
            config.keepalives_interval(interval);
        }
        if let Some(text) = said.get("keepalives_count") {
            config.keepalives_retries(number("keepalives_count", text)?);
        }
        if let Some(text) = said.get("channel_binding") {
            let words = [
                ("disable", ChannelBinding::Disable),
                ("prefer", ChannelBinding::Prefer),
                ("require", ChannelBinding::Require),
            ];
            config.channel_binding(choice("channel_binding", text, &words)?);
        }
        if let Some(text) = said.get("load_balance_hosts") {
            let words = [("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)];
            config.load_balance_hosts(choice("load_balance_hosts", text, &words)?);
        }
        if let Some(text) = said.get("sslnegotiation") {
            let words = [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];
            let negotiation = choice("sslnegotiation", text, &words)?;
            if negotiation == SslNegotiation::Direct && tls == TlsMode::Prefer {
                return Err(Error::address("sslnegotiation=direct needs sslmode=require or better"));
            }
            config.ssl_negotiation(negotiation);
        }
        let kind = said.get("target_session_attrs").map_or(Ok(SessionKind::Any), SessionKind::parse)?;
        Ok(Self { targets, tls, kind, pool, config })
    }

    /// What is known of a server on this machine.
    pub(super) fn local(port: u16) -> Self {
        Self {
            targets: vec![Target::new("127.0.0.1", To::Ip(IpAddr::from([127, 0, 0, 1])), port)],
            tls: TlsMode::Disable,
            kind: SessionKind::Any,
            pool: PoolSettings::default(),
            config: usual(TlsMode::Disable),
        }
    }
}

/// What holds when nothing is said.
fn usual(tls: TlsMode) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.keepalives_idle(Duration::from_mins(1));
    config.ssl_mode(match tls {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        _ => SslMode::Require,
    });
    config
}

fn targets(said: &Said) -> Result<Vec<Target>, Error> {
    let list = |key: &str| -> Vec<&str> {
        said.get(key).map_or_else(Vec::new, |text| text.split(',').map(str::trim).collect())
    };
    let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = hosts.len().max(addresses.len()).max(1);
    let fits = |length: usize| length == 0 || length == count;
    if !fits(hosts.len()) || !fits(addresses.len()) || !(fits(ports.len()) || ports.len() == 1) {
        return Err(Error::address("the lists of hosts, addresses and ports are not equally long"));
    }
    (0..count)
        .map(|at| {
            let port = match ports.get(at).or(ports.first()).copied().unwrap_or_default() {
                "" => 5432,
                text => {
                    number::<u16>("port", text).map_err(|_| Error::address("a port is not a number up to 65535"))?
                }
            };
            let host = hosts.get(at).copied().unwrap_or_default();
            let address = addresses.get(at).copied().unwrap_or_default();
            if host.contains(|c: char| c.is_whitespace() || ";='\"".contains(c)) && !host.starts_with('/') {
                return Err(Error::address("a host's name contains what no name contains"));
            }
            if !address.is_empty() {
                let ip: IpAddr = address.parse().map_err(|_| Error::address("hostaddr is not an IP address"))?;
                let name = if host.is_empty() { address } else { host };
                return Ok(Target::new(name, To::Ip(ip), port));
            }
            let host = if host.is_empty() { "localhost" } else { host };
            Ok(match host.parse() {
                Ok(ip) => Target::new(host, To::Ip(ip), port),
                Err(_) if host.starts_with('/') => Target::new(host, To::Folder(PathBuf::from(host)), port),
                Err(_) => Target::new(host, To::Name(host.to_owned()), port),
            })
        })
        .collect()
}

/// How much TLS; the system's authorities are trusted for nothing less than `verify-full`, as in libpq.
fn tls(said: &Said, targets: &[Target]) -> Result<TlsMode, Error> {
    let by_system = said.get("sslrootcert") == Some("system");
    let mode = match said.get("sslmode") {
        Some(text) => TlsMode::parse(text)?,
        None if by_system => TlsMode::VerifyFull,
        None => TlsMode::Prefer,
    };
    if by_system && mode != TlsMode::VerifyFull {
        return Err(Error::address("sslrootcert=system needs sslmode=verify-full"));
    }
    // A socket needs none.
    let sockets = targets.iter().all(|target| matches!(target.to, To::Folder(_)));
    Ok(if sockets { TlsMode::Disable } else { mode })
}
