//! The server settings that are ours, in a file of their own.
//!
//! `postgresql.conf` stays as initdb wrote it, plus one include at its end; what people add there
//! survives, and ours is written anew at every start.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::cluster::ClusterOptions;
use crate::error::{Error, Result};
use crate::files;
use crate::user::ServerUser;

const FILE: &str = "pgfleet.conf";

/// Settings that this crate must know to find its server again.
const RESERVED: [&str; 4] = ["port", "unix_socket_directories", "data_directory", "external_pid_file"];

/// Name to value, in the order of names.
pub(crate) type Settings = BTreeMap<String, String>;

/// The settings for a start.
pub(crate) fn for_start(options: &ClusterOptions, port: u16, socket_dir: &Path) -> Result<Settings> {
    let mut settings = Settings::new();
    let mut set = |name: &str, value: &str| {
        settings.insert(name.to_owned(), value.to_owned());
    };
    set("listen_addresses", "127.0.0.1");
    set("cluster_name", &options.name);
    set("shared_buffers", "128MB");
    set("timezone", "UTC");
    set("log_timezone", "UTC");
    set("log_min_duration_statement", "1000");
    // The log is pg_ctl's file; a collector would be one more process and a second place to look.
    set("logging_collector", "off");
    if cfg!(target_os = "linux") {
        // After a crash the default opens and syncs every file, minutes with hundreds of databases.
        set("recovery_init_sync_method", "syncfs");
    }
    if !options.durable {
        set("fsync", "off");
        set("synchronous_commit", "off");
        set("full_page_writes", "off");
        // Hundreds of short-lived databases would keep the launcher busy at the default minute.
        set("autovacuum_naptime", "5min");
        // Dropping a database makes a checkpoint, and tests drop one each.
        set("log_checkpoints", "off");
    }
    for (name, value) in &options.settings {
        let name = name.to_ascii_lowercase();
        if RESERVED.contains(&name.as_str()) {
            return Err(Error::invalid(format!("the setting {name} is managed by pgfleet")));
        }
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.$".contains(c)) {
            return Err(Error::invalid(format!("{name:?} is not the name of a server setting")));
        }
        settings.insert(name, value.clone());
    }
    settings.insert("port".to_owned(), port.to_string());
    settings.insert("unix_socket_directories".to_owned(), socket_dir.to_string_lossy().into_owned());
    let given = settings.get("max_connections").and_then(|value| value.parse().ok()).unwrap_or(0);
    let most = options.max_connections.max(given);
    settings.insert("max_connections".to_owned(), most.to_string());
    Ok(settings)
}

/// Writes the file; the server reads it at its start.
pub(crate) fn write(data_dir: &Path, settings: &Settings, user: &ServerUser) -> Result<()> {
    files::replace(&data_dir.join(FILE), render(settings).as_bytes(), 0o600, Some(user))
}

/// Adds the include to a fresh `postgresql.conf`; at its end, so that ours wins.
pub(crate) fn include(data_dir: &Path) -> Result<()> {
    let path = data_dir.join("postgresql.conf");
    OpenOptions::new()
        .append(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .and_then(|mut file| writeln!(file, "\ninclude_if_exists = '{FILE}'"))
        .map_err(|source| Error::io("write", &path, source))
}

/// Puts lines before those of a fresh `pg_hba.conf`: the first that fits a login counts.
pub(crate) fn allow(data_dir: &Path, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let path = data_dir.join("pg_hba.conf");
    let text = files::read_optional(&path)?.unwrap_or_default();
    // Written into the file that is there, which belongs to the server's user.
    OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .and_then(|mut file| write!(file, "{}\n{text}", lines.join("\n")))
        .map_err(|source| Error::io("write", &path, source))
}

/// What a running server lacks of what is asked now; `None` when nothing.
///
/// The file is written only right before a start, so it says what the server runs with. Fewer
/// connections than it has are no reason to restart it.
pub(crate) fn restart_needed(data_dir: &Path, asked: &Settings) -> Result<Option<String>> {
    let Some(text) = files::read_optional(&data_dir.join(FILE))? else { return Ok(None) };
    let running = parse(&text);
    let mut changes = Vec::new();
    for (name, value) in asked {
        let old = running.get(name);
        if old == Some(value) {
            continue;
        }
        if name == "max_connections" {
            let number = |value: &str| value.parse::<u32>().unwrap_or(0);
            if old.is_some_and(|old| number(old) >= number(value)) {
                continue;
            }
        }
        let old = old.map_or("the default", String::as_str);
        changes.push(format!("{name} is {old}, asked is {value}"));
    }
    for (name, old) in &running {
        if !asked.contains_key(name) {
            changes.push(format!("{name} is {old}, asked is the default"));
        }
    }
    Ok((!changes.is_empty()).then(|| changes.join("; ")))
}

fn render(settings: &Settings) -> String {
    let mut text = String::from("# Written by pgfleet at every start of the server; change the manifest instead.\n");
    for (name, value) in settings {
        let _ = writeln!(text, "{name} = {}", quote(value));
    }
    text
}

fn quote(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n");
    format!("'{escaped}'")
}

fn parse(text: &str) -> Settings {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, value)| (name.to_owned(), unquote(value)))
        .collect()
}

fn unquote(value: &str) -> String {
    let inner = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap_or(value);
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\'' || c == '\\') {
            (c, false) => text.push(c),
            (_, true) => match chars.next() {
                Some('n') if c == '\\' => text.push('\n'),
                Some(next) => text.push(next),
                None => {}
            },
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ClusterOptions {
        ClusterOptions::new("shop", "/nowhere", "pw")
    }

    #[test]
    fn values_come_back_as_they_were_written() {
        for value in ["a", "it's", r"a\b", "two\nlines", "", r"\'n"] {
            assert_eq!(unquote(&quote(value)), value);
        }
    }

    #[test]
    fn settings_that_would_hide_the_server_are_refused() {
        let mut options = options();
        options.settings.push(("Port".to_owned(), "1".to_owned()));
        assert!(for_start(&options, 1, Path::new("/s")).is_err());
    }

    #[test]
    fn connections_are_never_fewer_than_asked() {
        let mut options = options();
        options.max_connections = 200;
        options.settings.push(("max_connections".to_owned(), "20".to_owned()));
        let settings = for_start(&options, 1, Path::new("/s")).unwrap();
        assert_eq!(settings["max_connections"], "200");
    }

    #[test]
    fn a_restart_is_needed_for_more_connections_but_not_for_fewer() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options();
        let running = for_start(&options, 1, Path::new("/s")).unwrap();
        std::fs::write(folder.path().join(FILE), render(&running)).unwrap();
        options.max_connections -= 1;
        let fewer = for_start(&options, 1, Path::new("/s")).unwrap();
        assert_eq!(restart_needed(folder.path(), &fewer).unwrap(), None);
        options.max_connections += 100;
        let more = for_start(&options, 1, Path::new("/s")).unwrap();
        let reason = restart_needed(folder.path(), &more).unwrap().unwrap();
        assert!(reason.starts_with("max_connections is"), "{reason}");
    }
}
