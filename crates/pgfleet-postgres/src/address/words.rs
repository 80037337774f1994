//! The words that a connection string may use.

use std::time::Duration;

use crate::Error;

/// How much TLS protects the connection, as libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never TLS.
    Disable,
    /// TLS when the server offers it, unverified.
    Prefer,
    /// Always TLS; unverified when no file of trusted authorities is named, else as
    /// [`TlsMode::VerifyCa`].
    Require,
    /// Always TLS; the certificate must be signed by a trusted authority.
    VerifyCa,
    /// Always TLS; signed by a trusted authority and issued for this host.
    VerifyFull,
}

impl TlsMode {
    /// Returns the word of `sslmode`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "disable" => Self::Disable,
            // `allow` tries plain text first; with nothing verified `prefer` is never worse.
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(Error::address("unknown sslmode (disable, prefer, require, verify-ca, verify-full)"));
            }
        })
    }
}

/// Which servers of a list will do, as libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SessionKind {
    /// Each.
    #[default]
    Any,
    /// One that takes writes by default.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
    /// A standby when there is one, else each.
    PreferStandby,
    /// A primary when there is one, else each. Npgsql's word; libpq does not know it.
    PreferPrimary,
}

impl SessionKind {
    const ALL: [Self; 7] = [
        Self::Any,
        Self::ReadWrite,
        Self::ReadOnly,
        Self::Primary,
        Self::Standby,
        Self::PreferStandby,
        Self::PreferPrimary,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
            Self::PreferPrimary => "prefer-primary",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|kind| kind.word() == text).ok_or_else(|| {
            Error::address(
                "unknown target_session_attrs (any, read-write, read-only, primary, standby, prefer-standby)",
            )
        })
    }
}

/// Reads one of two or three words.
pub(super) fn choice<T>(key: &str, text: &str, words: &[(&str, T)]) -> Result<T, Error>
where
    T: Copy,
{
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Error::address(format!("unknown {key} ({})", words.join(", ")))
    })
}

/// Reads a whole number.
pub(super) fn number<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, Error> {
    text.trim().parse().map_err(|_| Error::address(format!("{key} must be a whole number")))
}

/// Reads `30`, `30s`, `500ms` or `5min`; a bare number is seconds.
pub(super) fn duration(key: &str, text: &str) -> Result<Duration, Error> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let bad = || Error::address(format!("{key} must be a number of seconds, or one with a unit: 30s, 500ms, 5min"));
    let count: u64 = digits.parse().map_err(|_| bad())?;
    match unit.trim() {
        "" | "s" => Ok(Duration::from_secs(count)),
        "ms" => Ok(Duration::from_millis(count)),
        "min" => count.checked_mul(60).map(Duration::from_secs).ok_or_else(bad),
        _ => Err(bad()),
    }
}
