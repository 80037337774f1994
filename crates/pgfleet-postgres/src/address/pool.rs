//! How many connections an address is worth, and how long things on them may take.

use std::time::Duration;

use super::said::Said;
use super::words;
use crate::Error;

/// What a connection string says about pools and time-outs; nothing here has a default.
///
/// | | URL and `key=value` | Npgsql |
/// |---|---|---|
/// | `max` | `pool_max` | `Maximum Pool Size` |
/// | `min` | `pool_min` | `Minimum Pool Size` |
/// | `idle_timeout` | `idle_timeout` | `Connection Idle Lifetime` |
/// | `connect_timeout` | `connect_timeout` | `Timeout` |
/// | `command_timeout` | `command_timeout` | `Command Timeout` |
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolSettings {
    /// At most this many connections, at least 1.
    pub max: Option<u32>,
    /// So many are kept open when nobody needs them.
    pub min: Option<u32>,
    /// How long one more than `min` may be idle; zero closes it when it is given back, which is
    /// what Npgsql's `Pooling=false` says.
    pub idle_timeout: Option<Duration>,
    /// How long a host may take to answer; zero, as in libpq, is as if nothing was said.
    pub connect_timeout: Option<Duration>,
    /// How long a statement may take; zero is without limit.
    pub command_timeout: Option<Duration>,
}

impl PoolSettings {
    pub(super) fn of(said: &Said) -> Result<Self, Error> {
        let count = |key: &str| said.get(key).map(|text| words::number::<u32>(key, text)).transpose();
        let time = |key: &str| said.get(key).map(|text| words::duration(key, text)).transpose();
        let settings = Self {
            max: count("pool_max")?,
            min: count("pool_min")?,
            idle_timeout: time("idle_timeout")?,
            connect_timeout: connect_timeout(said)?,
            command_timeout: time("command_timeout")?,
        };
        match settings {
            Self { max: Some(0), .. } => Err(Error::address("pool_max must be at least 1")),
            Self { max: Some(max), min: Some(min), .. } if min > max => {
                Err(Error::address(format!("pool_min ({min}) is more than pool_max ({max})")))
            }
            settings => Ok(settings),
        }
    }
}

/// Whole seconds, as libpq reads them; none when it is zero or less.
fn connect_timeout(said: &Said) -> Result<Option<Duration>, Error> {
    let Some(text) = said.get("connect_timeout") else { return Ok(None) };
    let seconds: i64 = words::number("connect_timeout", text)?;
    Ok(u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs))
}
