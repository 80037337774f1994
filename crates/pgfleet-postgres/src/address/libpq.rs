//! libpq's two forms: URLs and `key=value` pairs.

use super::said::Said;
use crate::Error;

/// What is said when nothing fits.
const EXPECTED: &str = "expected postgresql://user@host:port/database, key=value pairs, or Host=…;Database=…";

/// Whether a text is a URL.
pub(super) fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

fn misunderstood(why: &str) -> Error {
    Error::address(format!("connection string not understood: {why}"))
}

/// Reads `postgresql://user:password@host:port,host:port/database?key=value`.
pub(super) fn read_url(text: &str) -> Result<Said, Error> {
    let mut said = Said::default();
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let hosts = match authority.split_once('@') {
        Some((login, hosts)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            said.set("user", unpercent(user)?);
            said.set("password", unpercent(password)?);
            hosts
        }
        None => authority,
    };
    if hosts.contains('@') {
        return Err(misunderstood("two `@`; in a password, write it as %40"));
    }
    read_hosts(hosts, &mut said)?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    said.set("dbname", unpercent(path.strip_prefix('/').unwrap_or(path))?);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| misunderstood("a parameter has no value"))?;
        said.take(&unpercent(key)?, &unpercent(value)?)?;
    }
    Ok(said)
}

fn read_hosts(text: &str, said: &mut Said) -> Result<(), Error> {
    if text.is_empty() {
        return Ok(());
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for entry in text.split(',') {
        let (host, port) = match entry.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(|| misunderstood("`[` without `]`"))?;
                let port = rest.strip_prefix(':').unwrap_or(rest);
                if port.len() == rest.len() && !rest.is_empty() {
                    return Err(misunderstood("after `]` only `:port` may follow"));
                }
                (host, port)
            }
            None => entry.split_once(':').unwrap_or((entry, "")),
        };
        let port = unpercent(port)?;
        if !port.is_empty() && port.parse::<u16>().is_err() {
            return Err(misunderstood(
                "a port is not a number; in a password, write `:`, `/`, `?` and `@` as %3A, %2F, %3F, %40",
            ));
        }
        hosts.push(unpercent(host)?);
        ports.push(port);
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        said.set("host", hosts.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        said.set("port", ports.join(","));
    }
    Ok(())
}

/// Reads `key = 'va\'lue' key=value`.
pub(super) fn read_pairs(text: &str) -> Result<Said, Error> {
    let mut said = Said::default();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return Ok(said);
        }
        let mut key = String::new();
        while let Some(character) = characters.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(character);
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.next() != Some('=') {
            return Err(misunderstood(EXPECTED));
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        let quoted = characters.next_if_eq(&'\'').is_some();
        loop {
            match characters.peek() {
                None if quoted => return Err(misunderstood("open quote")),
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
        said.take(&key, &value)?;
    }
}

/// Writes pairs that [`read_pairs`] reads back.
pub(super) fn write_pair(text: &mut String, key: &str, value: &str) {
    text.push_str(&format!("{key}='{}' ", value.replace('\\', "\\\\").replace('\'', "\\'")));
}

pub(super) fn percent(text: &str) -> String {
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

fn unpercent(text: &str) -> Result<String, Error> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let hex = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
            let byte = hex.and_then(|two| u8::from_str_radix(two, 16).ok());
            out.push(
                byte.ok_or_else(|| misunderstood("after `%` two hexadecimal digits must follow; write `%` as %25"))?,
            );
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).map_err(|_| misunderstood("what is percent-encoded is not UTF-8"))
}
