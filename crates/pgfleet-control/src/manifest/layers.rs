//! The layers laid over each other: for each path the value that wins, and where it was set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Place};
use super::name::{dotted, short_name};
use super::schema::{self, KEYS, Key, Preset, Secrecy};
use super::secret::{shown_property, shown_url};
use super::settings::{Origin, Row, Settings};
use super::value::{Value, write_list};
use super::word::TenantUse;

/// Where a value was set, with the column that [`Origin`] leaves out.
#[derive(Clone)]
pub(super) enum Setter {
    Default,
    File(Place),
    Env(String),
    Flag(String),
}

pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) setter: Setter,
}

/// A table that the files declare: a service or a server.
pub(super) struct Declared {
    pub(super) name: String,
    /// None for the server that is there when none is declared.
    pub(super) place: Option<Place>,
}

/// What was set so far. Layers are added from the weakest to the strongest; a later one replaces.
#[derive(Default)]
pub(super) struct Layers {
    entries: BTreeMap<Vec<String>, Entry>,
    tables: BTreeMap<Vec<String>, Place>,
    pub(super) services: Vec<Declared>,
    pub(super) modules: Vec<Declared>,
    pub(super) servers: Vec<Declared>,
}

impl Layers {
    pub(super) fn set(&mut self, path: Vec<String>, value: Value, setter: Setter) {
        self.entries.insert(path, Entry { value, setter });
    }

    /// Notes a table; the overlay may name one again.
    pub(super) fn open_table(&mut self, path: &[String], place: Place) {
        let declared = match path {
            [section, _] if section == "services" => Some(&mut self.services),
            [section, _] if section == "modules" => Some(&mut self.modules),
            [section, _] if section == "servers" => Some(&mut self.servers),
            _ => None,
        };
        if let Some(declared) = declared
            && !declared.iter().any(|table| table.name == path[1])
        {
            declared.push(Declared { name: path[1].clone(), place: Some(place.clone()) });
        }
        self.tables.entry(path.to_owned()).or_insert(place);
    }

    /// Returns the names that stand directly below an open table, such as the services or the properties.
    pub(super) fn names<S: AsRef<str>>(&self, table: &[S]) -> Vec<&str> {
        let declared = match table {
            [section] if section.as_ref() == "services" => &self.services,
            [section] if section.as_ref() == "modules" => &self.modules,
            [section] if section.as_ref() == "servers" => &self.servers,
            _ => {
                let table: Vec<String> = table.iter().map(|segment| segment.as_ref().to_owned()).collect();
                let below = self.entries.range(table.clone()..).take_while(|(path, _)| path.starts_with(&table));
                let names = below.filter(|(path, _)| path.len() == table.len() + 1);
                return names.map(|(path, _)| path[table.len()].as_str()).collect();
            }
        };
        declared.iter().map(|table| table.name.as_str()).collect()
    }

    pub(super) fn get<S: AsRef<str>>(&self, path: &[S]) -> Option<&Entry> {
        let path: Vec<String> = path.iter().map(|segment| segment.as_ref().to_owned()).collect();
        self.entries.get(&path)
    }

    /// Makes the diagnostic about the value at a path: at its place in a file, or naming the variable that set it.
    pub(super) fn about<S: AsRef<str>>(&self, path: &[S], message: impl Into<String>) -> Diagnostic {
        let message = message.into();
        match self.get(path).map(|entry| &entry.setter) {
            Some(Setter::File(place)) => Diagnostic::new(message).at(place),
            Some(Setter::Env(variable)) => Diagnostic::new(format!("{message} (set by {variable})")),
            Some(Setter::Flag(flag)) => Diagnostic::new(format!("{message} (set by the flag for {flag})")),
            // A default is wrong only through what the table around it says.
            Some(Setter::Default) | None => match self.place_of_table(path) {
                Some(place) => Diagnostic::new(message).at(place),
                None => Diagnostic::new(message),
            },
        }
    }

    /// Returns where a value was set, or where its service or server was declared.
    pub(super) fn place<S: AsRef<str>>(&self, path: &[S]) -> Option<&Place> {
        match self.get(path).map(|entry| &entry.setter) {
            Some(Setter::File(place)) => Some(place),
            _ => self.place_of_table(path),
        }
    }

    /// Returns where the innermost table around a path was opened.
    fn place_of_table<S: AsRef<str>>(&self, path: &[S]) -> Option<&Place> {
        let path: Vec<String> = path.iter().map(|segment| segment.as_ref().to_owned()).collect();
        (1..=path.len()).rev().find_map(|depth| self.tables.get(&path[..depth]))
    }

    /// Declares a server `main` when the files declare none, before variables are read: they may give it a URL.
    pub(super) fn assume_server(&mut self) {
        if self.servers.is_empty() {
            self.servers.push(Declared { name: "main".into(), place: None });
        }
    }

    /// Fills in the defaults of all keys, so that whoever reads afterwards finds what holds.
    pub(super) fn complete(&mut self, root: &Path) {
        for key in KEYS {
            for path in self.concrete(key) {
                if self.get(&path).is_some() {
                    continue;
                }
                let value = match key.default {
                    Preset::Unset => None,
                    Preset::Is(text) => key.kind.read_text(text).ok(),
                    Preset::Made(_) => self.made(&path, root),
                };
                if let Some(value) = value {
                    self.set(path, value, Setter::Default);
                }
            }
        }
    }

    /// Makes a default of other settings; those stand before it in the table of keys, so they are complete.
    fn made(&self, path: &[String], root: &Path) -> Option<Value> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let text = match path[..] {
            ["tenants", "servers"] => return Some(Value::List(self.servers_with_tenants())),
            ["rollouts", "concurrency"] => return Some(self.get(&["migrations", "concurrency"])?.value.clone()),
            ["solution", "name"] => root.file_name().map(|name| name.to_string_lossy().into_owned()),
            ["control", "server"] | ["services", _, "server"] => match &self.servers[..] {
                [only] => Some(only.name.clone()),
                _ => None,
            },
            ["events", "server"] => match &self.servers[..] {
                [only] => Some(only.name.clone()),
                _ => match self.get(&["control", "server"]).map(|entry| &entry.value) {
                    Some(Value::Text(server)) => Some(server.clone()),
                    _ => None,
                },
            },
            ["services", name, "database"] => Some(short_name(name)),
            [section @ ("services" | "modules"), name, folder] => Some(format!("{section}/{name}/{folder}")),
            _ => None,
        };
        text.map(Value::Text)
    }

    /// Returns the servers of the services that have data in tenants' databases, in the order of the services.
    fn servers_with_tenants(&self) -> Vec<String> {
        let text = |service: &str, key| match self.get(&["services", service, key]).map(|entry| &entry.value) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let services = self.names(&["services"]).into_iter();
        let own = services.filter(|name| text(name, "tenants").as_deref() == Some(TenantUse::Own.as_str()));
        let mut servers: Vec<String> = Vec::new();
        for server in own.filter_map(|name| text(name, "server")) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        servers
    }

    /// Returns the paths for which a key stands here: one for each service or server, or the names that were set.
    pub(super) fn concrete(&self, key: &Key) -> Vec<Vec<String>> {
        let mut paths = vec![Vec::new()];
        for segment in key.segments() {
            paths = paths
                .into_iter()
                .flat_map(|path: Vec<String>| {
                    let names = if segment == "*" { self.names(&path) } else { vec![segment] };
                    names.into_iter().map(|name| [&path[..], &[name.to_owned()]].concat()).collect::<Vec<_>>()
                })
                .collect();
        }
        paths
    }

    /// Returns all settings in the order of the schema, service by service.
    pub(super) fn settings(&self) -> Settings {
        let mut rows = Vec::new();
        for path in self.paths_in_order() {
            let (Some(entry), Some(key)) = (self.get(&path), schema::leaf(&path)) else { continue };
            let name = path.last().map_or("", String::as_str);
            let value = match (key.secrecy, &entry.value) {
                (Secrecy::Url, Value::List(urls)) => {
                    write_list(&urls.iter().map(|url| shown_url(url)).collect::<Vec<_>>())
                }
                (Secrecy::Url, value) => shown_url(&value.to_string()),
                (Secrecy::ByName, value) => shown_property(name, &value.to_string()),
                (Secrecy::Open, value) => value.to_string(),
            };
            rows.push(Row { path: dotted(&path), value, origin: entry.setter.origin() });
        }
        Settings { rows }
    }

    /// Returns a note for each key that someone set although nothing reads it yet.
    pub(super) fn unused(&self) -> Vec<Diagnostic> {
        let mut notes = Vec::new();
        for path in self.paths_in_order() {
            let (Some(entry), Some(key)) = (self.get(&path), schema::leaf(&path)) else { continue };
            if key.unused && !entry.setter.is_default() {
                notes.push(self.about(&path, format!("`{}` has no effect in this version", dotted(&path))));
            }
        }
        notes
    }

    fn paths_in_order(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let mut begin = 0;
        while let Some(first) = KEYS.get(begin) {
            let section = first.segments().next();
            let end = begin + KEYS[begin..].iter().take_while(|key| key.segments().next() == section).count();
            let mut of_section: Vec<_> = KEYS[begin..end].iter().flat_map(|key| self.concrete(key)).collect();
            if let Some(name @ ("services" | "servers" | "modules")) = section {
                let names = self.names(&[name]);
                // Stable: within one service the order of the schema stays.
                of_section.sort_by_cached_key(|path| names.iter().position(|name| *name == path[1]));
            }
            paths.append(&mut of_section);
            begin = end;
        }
        paths
    }
}

impl Setter {
    pub(super) fn is_default(&self) -> bool {
        matches!(self, Self::Default)
    }

    fn origin(&self) -> Origin {
        match self {
            Self::Default => Origin::Default,
            Self::File(place) => Origin::File { path: PathBuf::from(&*place.file), line: place.line },
            Self::Env(variable) => Origin::Env { variable: variable.clone() },
            Self::Flag(path) => Origin::Flag(path.clone()),
        }
    }
}
