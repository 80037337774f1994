//! Npgsql's form: `Host=postgres;Database=user;Username=app;Password=…;SSL Mode=Require`.
//!
//! Keys are Npgsql's, in any case and with or without spaces. Where its meaning changed between
//! versions, the safe reading is taken: `SSL Mode=Require` does not verify the server's certificate
//! since Npgsql 8, and did before; with `Trust Server Certificate=false` written beside it, somebody
//! has asked for it to be verified, and it is, as by `VerifyFull`.

use super::said::{self, Said};
use super::words;
use crate::Error;

/// How a key of Npgsql is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// As this parameter, with the same values.
    As(&'static str),
    /// As this parameter, whose words are written in lower case.
    Word(&'static str),
    /// A number of seconds.
    Seconds(&'static str),
    /// A setting of the session.
    Setting(&'static str),
    /// `true` or `false`, each with a meaning of its own, or a thing for itself.
    Special,
    /// Without effect here.
    Ignored,
    /// Would be wrong to ignore.
    Refused,
}
use Meaning::{As, Ignored, Refused, Seconds, Setting, Special, Word};

/// Keys as Npgsql's documentation writes them, then their other names.
const KEYS: &[(&str, Meaning, &[&str])] = &[
    ("Host", Special, &["Server"]),
    ("Port", As("port"), &[]),
    ("Database", As("dbname"), &["DB"]),
    ("Username", As("user"), &["User Name", "User Id", "User", "UID"]),
    ("Password", As("password"), &["PSW", "PWD"]),
    ("Passfile", As("passfile"), &[]),
    ("Options", Special, &[]),
    ("Search Path", Setting("search_path"), &[]),
    ("Timezone", Setting("TimeZone"), &[]),
    ("SSL Mode", Special, &[]),
    ("Trust Server Certificate", Special, &[]),
    ("SSL Negotiation", Word("sslnegotiation"), &[]),
    ("Root Certificate", As("sslrootcert"), &[]),
    ("SSL Certificate", As("sslcert"), &["Client Certificate"]),
    ("SSL Key", As("sslkey"), &["Client Certificate Key"]),
    ("Channel Binding", Word("channel_binding"), &[]),
    ("Target Session Attributes", Word("target_session_attrs"), &[]),
    ("Load Balance Hosts", Special, &[]),
    ("Timeout", Seconds("connect_timeout"), &[]),
    ("Command Timeout", Seconds("command_timeout"), &[]),
    ("Pooling", Special, &[]),
    ("Minimum Pool Size", As("pool_min"), &["Min Pool Size"]),
    ("Maximum Pool Size", As("pool_max"), &["Max Pool Size"]),
    ("Connection Idle Lifetime", Seconds("idle_timeout"), &[]),
    ("Keepalive", Special, &[]),
    ("Tcp Keepalive", Ignored, &[]),
    ("Tcp Keepalive Time", Seconds("keepalives_idle"), &[]),
    ("Tcp Keepalive Interval", Seconds("keepalives_interval"), &[]),
    ("Application Name", As("application_name"), &[]),
    ("GSS Encryption Mode", Word("gssencmode"), &[]),
    ("SSL Password", Refused, &[]),
    ("Check Certificate Revocation", Special, &[]),
    ("Require Auth", Refused, &[]),
    ("Replication Mode", Refused, &[]),
    ("Array Nullability Mode", Ignored, &[]),
    ("Auto Prepare Min Usages", Ignored, &[]),
    ("Cancellation Timeout", Ignored, &[]),
    ("Client Encoding", Ignored, &[]),
    ("Connection Lifetime", Ignored, &["Load Balance Timeout"]),
    ("Connection Pruning Interval", Ignored, &[]),
    ("Convert Infinity DateTime", Ignored, &[]),
    ("Encoding", Ignored, &[]),
    ("Enlist", Ignored, &[]),
    ("Host Recheck Seconds", Ignored, &[]),
    ("Include Error Detail", Ignored, &["Include Error Details"]),
    ("Include Failed Batched Command", Ignored, &[]),
    ("Include Realm", Ignored, &[]),
    ("Internal Command Timeout", Ignored, &[]),
    ("Kerberos Service Name", Ignored, &[]),
    ("Load Table Composites", Ignored, &[]),
    ("Log Parameters", Ignored, &[]),
    ("Max Auto Prepare", Ignored, &[]),
    ("Multiplexing", Ignored, &[]),
    ("No Reset On Close", Ignored, &[]),
    ("Persist Security Info", Ignored, &[]),
    ("Read Buffer Size", Ignored, &[]),
    ("Server Compatibility Mode", Ignored, &[]),
    ("Socket Receive Buffer Size", Ignored, &[]),
    ("Socket Send Buffer Size", Ignored, &[]),
    ("Use Ssl Stream", Ignored, &[]),
    ("Write Buffer Size", Ignored, &[]),
    ("Write Coalescing Buffer Threshold Bytes", Ignored, &[]),
];

/// A key without spaces, in lower case.
fn folded(key: &str) -> String {
    key.chars().filter(|c| !c.is_whitespace() && *c != '_').flat_map(char::to_lowercase).collect()
}

fn find(key: &str) -> Option<(&'static str, Meaning)> {
    let wanted = folded(key);
    let is = |name: &&str| folded(name) == wanted;
    KEYS.iter().find(|(name, _, others)| is(name) || others.iter().any(&is)).map(|(n, m, _)| (*n, *m))
}

/// Whether a text that is no URL is in this form.
///
/// libpq's pairs stand apart by white space, these by `;`; and libpq writes its keys in one way.
pub(super) fn is_npgsql(text: &str) -> bool {
    let first = text.split('=').next().unwrap_or_default().trim();
    if !said::KEYS.iter().any(|(key, _)| *key == first) {
        return find(first).is_some() || text.contains(';');
    }
    // `host=a;port=1` and not `host=a password=x;y`.
    text.split_once(';').is_some_and(|(pair, _)| {
        pair.split_once('=').is_some_and(|(_, value)| !value.contains('=') && !value.trim_start().starts_with('\''))
    })
}

/// Reads the whole text.
pub(super) fn read(text: &str) -> Result<Said, Error> {
    let mut reading = Reading::default();
    let mut before: Option<&'static str> = None;
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        if rest.is_empty() {
            return reading.finish();
        }
        let end = rest.find(['=', ';']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let (key, place) = (key.trim(), before.map_or("at its beginning".to_owned(), |key| format!("after `{key}`")));
        let Some(after) = after.strip_prefix('=') else {
            return Err(Error::address(if key.starts_with("...") || key.starts_with('…') {
                format!("the connection string is cut short: `{key}` {place} stands for what a document left out")
            } else if before == Some("Password") {
                "after `Password` comes what is no key: a value that contains `;` must be quoted".to_owned()
            } else {
                format!("a key has no value {place}")
            }));
        };
        let (value, after) = value(after)?;
        rest = after;
        match find(key) {
            Some((name, meaning)) => {
                reading.take(name, meaning, &value)?;
                before = Some(name);
            }
            // It may be a piece of the password.
            None if before == Some("Password") && !key.chars().all(|c| c.is_ascii_alphabetic() || c == ' ') => {
                return Err(Error::address(
                    "after `Password` comes what is no key: a value that contains `;` must be quoted",
                ));
            }
            None => return Err(said::unknown(key, KEYS.iter().map(|(name, ..)| *name))),
        }
    }
}

/// Reads a value, quoted or not; returns it and what follows.
fn value(text: &str) -> Result<(String, &str), Error> {
    let text = text.trim_start();
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
        let end = text.find(';').unwrap_or(text.len());
        return Ok((text[..end].trim_end().to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut rest = &text[1..];
    loop {
        let end = rest.find(quote).ok_or_else(|| Error::address("connection string not understood: open quote"))?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(quote) {
            // A quote inside is written twice.
            Some(more) => {
                value.push(quote);
                rest = more;
            }
            None => break,
        }
    }
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with(';') {
        return Err(Error::address("connection string not understood: after a quoted value `;` must follow"));
    }
    Ok((value, rest))
}

#[derive(Default)]
struct Reading {
    said: Said,
    options: Vec<String>,
    mode: Option<String>,
    trust: Option<bool>,
    hosts: Option<String>,
    unpooled: bool,
}

impl Reading {
    fn take(&mut self, name: &'static str, meaning: Meaning, value: &str) -> Result<(), Error> {
        match meaning {
            As(key) => self.said.set(key, value),
            Word(key) => self.said.take(key, &dashed(value))?,
            Seconds(key) => {
                if !value.is_empty() {
                    self.said.set(key, words::number::<u32>(name, value)?.to_string());
                }
            }
            Setting(key) => {
                let escaped = value.replace('\\', "\\\\").replace(' ', "\\ ");
                self.options.push(format!("-c {key}={escaped}"));
            }
            Ignored => {}
            Refused if value.is_empty() || value.eq_ignore_ascii_case("off") => {}
            Refused => return Err(Error::address(format!("`{name}` is not supported"))),
            Special => self.special(name, value)?,
        }
        Ok(())
    }

    fn special(&mut self, name: &'static str, value: &str) -> Result<(), Error> {
        match name {
            "Host" => self.hosts = Some(value.to_owned()),
            "Options" => self.options.push(value.to_owned()),
            "SSL Mode" => self.mode = Some(folded(value).replace('-', "")),
            "Trust Server Certificate" => self.trust = Some(switch(name, value)?),
            "Load Balance Hosts" if switch(name, value)? => self.said.set("load_balance_hosts", "random"),
            "Pooling" => self.unpooled = !switch(name, value)?,
            "Check Certificate Revocation" if switch(name, value)? => {
                return Err(Error::address(format!("`{name}` is not supported")));
            }
            // Npgsql sends a statement now and then; here the system asks for a sign of life.
            "Keepalive" if words::number::<u32>(name, value)? > 0 => self.said.set("keepalives_idle", value),
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Said, Error> {
        let verifies = matches!(self.mode.as_deref(), Some("verifyca" | "verifyfull"));
        if verifies && self.trust == Some(true) {
            return Err(Error::address(
                "`Trust Server Certificate=true` contradicts an `SSL Mode` that verifies the certificate",
            ));
        }
        let mode = match (self.mode.as_deref(), self.trust) {
            (Some("verifyca"), _) => Some("verify-ca"),
            (Some("verifyfull"), _) | (Some("require"), Some(false)) => Some("verify-full"),
            (Some(mode @ ("disable" | "allow" | "prefer" | "require")), _) => Some(mode),
            (None, _) => None,
            (Some(_), _) => {
                return Err(Error::address(
                    "unknown `SSL Mode` (Disable, Allow, Prefer, Require, VerifyCA, VerifyFull)",
                ));
            }
        };
        if let Some(mode) = mode {
            self.said.set("sslmode", mode);
        }
        if !self.options.is_empty() {
            self.said.set("options", self.options.join(" "));
        }
        if self.unpooled {
            // What is given back is closed.
            self.said.set("pool_min", "0");
            self.said.set("idle_timeout", "0");
        }
        if let Some(hosts) = self.hosts.take() {
            set_hosts(&mut self.said, &hosts)?;
        }
        Ok(self.said)
    }
}

/// `a:5433,b`: a port of their own for some; `Port` is that of the others.
fn set_hosts(said: &mut Said, text: &str) -> Result<(), Error> {
    let usual = said.get("port").unwrap_or_default().to_owned();
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for entry in text.split(',').map(str::trim) {
        let (host, port) = match entry.rsplit_once(':') {
            // An address of IPv6 has more of them.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.to_owned()),
            _ => (entry, usual.clone()),
        };
        if host.is_empty() {
            return Err(Error::address("`Host` names an empty host"));
        }
        if !port.is_empty() {
            words::number::<u16>("a port in `Host`", &port)?;
        }
        hosts.push(host.trim_start_matches('[').trim_end_matches(']').to_owned());
        ports.push(port);
    }
    said.set("host", hosts.join(","));
    if ports.iter().any(|port| *port != usual) {
        said.set("port", ports.join(","));
    }
    Ok(())
}

/// `PreferStandby` and `prefer-standby` are the same.
fn dashed(value: &str) -> String {
    let mut out = String::new();
    for (at, character) in value.trim().char_indices() {
        if character.is_ascii_uppercase() && at > 0 && !out.ends_with('-') {
            out.push('-');
        }
        out.extend(character.to_lowercase());
    }
    out
}

fn switch(name: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(Error::address(format!("`{name}` must be true or false"))),
    }
}
