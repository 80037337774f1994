//! What a connection string says, whatever its form: libpq's names with their texts.

use std::collections::BTreeMap;

use secrecy::SecretString;

use crate::Error;

/// Parameters by libpq's names; ours for what libpq has no name for.
#[derive(Clone, Default)]
pub(super) struct Said {
    values: BTreeMap<&'static str, String>,
    password: Option<SecretString>,
}

/// What is done with a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Kept, and told to other programs.
    Kept,
    /// Kept; libpq, or an older one, does not know it.
    Ours,
    /// Without effect here.
    Ignored,
    /// Would be wrong to ignore.
    Refused,
}

/// Every parameter of libpq, and ours.
pub(super) const KEYS: &[(&str, Use)] = &[
    ("user", Use::Kept),
    ("password", Use::Kept),
    ("dbname", Use::Kept),
    ("host", Use::Kept),
    ("hostaddr", Use::Kept),
    ("port", Use::Kept),
    ("passfile", Use::Kept),
    ("service", Use::Kept),
    ("options", Use::Kept),
    ("connect_timeout", Use::Kept),
    ("tcp_user_timeout", Use::Kept),
    ("keepalives", Use::Kept),
    ("keepalives_idle", Use::Kept),
    ("keepalives_interval", Use::Kept),
    ("keepalives_count", Use::Kept),
    ("target_session_attrs", Use::Kept),
    ("channel_binding", Use::Kept),
    ("sslmode", Use::Kept),
    ("sslrootcert", Use::Kept),
    ("sslcert", Use::Kept),
    ("sslkey", Use::Kept),
    ("application_name", Use::Kept),
    ("load_balance_hosts", Use::Ours),
    ("sslnegotiation", Use::Ours),
    ("pool_max", Use::Ours),
    ("pool_min", Use::Ours),
    ("idle_timeout", Use::Ours),
    ("command_timeout", Use::Ours),
    ("fallback_application_name", Use::Ignored),
    ("client_encoding", Use::Ignored),
    ("gssencmode", Use::Ignored),
    ("gsslib", Use::Ignored),
    ("krbsrvname", Use::Ignored),
    ("sslcompression", Use::Ignored),
    ("sslsni", Use::Ignored),
    ("sslcertmode", Use::Refused),
    ("sslcrl", Use::Refused),
    ("sslcrldir", Use::Refused),
    ("sslpassword", Use::Refused),
    ("ssl_min_protocol_version", Use::Refused),
    ("ssl_max_protocol_version", Use::Refused),
    ("require_auth", Use::Refused),
    ("requirepeer", Use::Refused),
    ("replication", Use::Refused),
];

impl Said {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    pub(super) fn says(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub(super) fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    pub(super) fn set_password(&mut self, password: Option<SecretString>) {
        self.password = password;
    }

    /// Keeps a parameter under the name that is in [`KEYS`]; what is empty was not said, as in libpq.
    pub(super) fn set(&mut self, key: &'static str, value: impl Into<String>) {
        let value = value.into();
        if key == "password" {
            self.password = (!value.is_empty()).then(|| value.into());
        } else if value.is_empty() {
            self.values.remove(key);
        } else {
            self.values.insert(key, value);
        }
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<String> {
        self.values.remove(key)
    }

    /// Takes a parameter as it was written.
    ///
    /// # Errors
    ///
    /// A key that nobody knows, with the nearest one that is known; one that would have to have an
    /// effect and has none. Never the value.
    pub(super) fn take(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let key = match key {
            // What the client library calls it.
            "keepalives_retries" => "keepalives_count",
            // As in libpq, for URLs of JDBC.
            "ssl" if value == "true" => return self.take("sslmode", "require"),
            other => other,
        };
        let Some((known, how)) = KEYS.iter().find(|(known, _)| *known == key) else {
            return Err(unknown(key, KEYS.iter().map(|(known, _)| *known)));
        };
        match how {
            Use::Kept | Use::Ours => self.set(known, value),
            Use::Ignored if *known == "gssencmode" && value == "require" => {
                return Err(Error::address("gssencmode=require is not supported"));
            }
            Use::Ignored => {}
            Use::Refused if value.is_empty() => {}
            Use::Refused => return Err(Error::address(format!("`{known}` is not supported"))),
        }
        Ok(())
    }

    /// Fills in, key by key, what this does not say.
    pub(super) fn complete(&mut self, other: &Self, wanted: impl Fn(&str) -> bool) {
        for (key, value) in &other.values {
            if wanted(key) && !self.says(key) {
                self.values.insert(key, value.clone());
            }
        }
    }

    /// Returns names and values with the password, in the order of [`KEYS`].
    pub(super) fn exposed(&self) -> impl Iterator<Item = (&'static str, Use, &str)> {
        KEYS.iter().filter_map(|(key, how)| {
            let value = match *key {
                "password" => self.password.as_ref().map(secrecy::ExposeSecret::expose_secret),
                key => self.get(key),
            };
            Some((*key, *how, value?))
        })
    }
}

/// The error for a key that nobody knows.
pub(super) fn unknown<'k>(key: &str, known: impl Iterator<Item = &'k str>) -> Error {
    let near = known.map(|known| (strsim::jaro_winkler(&key.to_lowercase(), &known.to_lowercase()), known));
    let best = near.filter(|(like, _)| *like > 0.8).max_by(|one, other| one.0.total_cmp(&other.0));
    Error::address(match best {
        Some((_, best)) => format!("unknown key `{key}` in the connection string; did you mean `{best}`?"),
        None => format!("unknown key `{key}` in the connection string"),
    })
}
