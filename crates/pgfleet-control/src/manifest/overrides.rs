//! The layers that are no files: environment variables and flags.

use super::diagnostic::Diagnostic;
use super::layers::{Layers, Setter};
use super::name::{closest, did_you_mean, dotted, env_name};
use super::schema::{self, KEYS};

/// Variables that give a service its connection strings, for this service name.
pub(super) fn connection_variables(service: &str) -> [String; 2] {
    let name = env_name(service);
    [format!("PGFLEET_{name}_URL"), format!("PGFLEET_{name}_MIGRATOR_URL")]
}

/// All variables that a service of this name is handed, but for those of its connection names.
pub(super) fn service_variables(service: &str) -> Vec<String> {
    let name = env_name(service);
    let others =
        ["READ_URL", "CONTROL_URL", "KEY", "CONNECTIONS", "POOL", "SCHEMA", "BUDGET", "EVENTS_BROKER", "EVENTS_URL"];
    connection_variables(service).into_iter().chain(others.map(|what| format!("PGFLEET_{name}_{what}"))).collect()
}

/// Lays `PGFLEET_<SECTION>__<KEY>` over the files.
pub(super) fn add_variables(layers: &mut Layers, variables: &[(String, String)], errors: &mut Vec<Diagnostic>) {
    let connections: Vec<_> = layers.services.iter().flat_map(|table| connection_variables(&table.name)).collect();
    for (variable, text) in variables {
        let Some(rest) = variable.strip_prefix("PGFLEET_") else { continue };
        // `a--b` makes PGFLEET_A__B_URL, which looks like an override and is none.
        if !rest.contains("__") || connections.contains(variable) {
            continue;
        }
        match resolve(layers, rest, &mut Vec::new()) {
            Some(path) => set(layers, path, text, variable, Setter::Env(variable.clone()), errors),
            None => errors.push(unknown_variable(layers, variable, rest)),
        }
    }
}

/// Lays flags, given as path and text, over everything.
pub(super) fn add_flags(layers: &mut Layers, flags: &[(String, String)], errors: &mut Vec<Diagnostic>) {
    for (flag, text) in flags {
        let path: Option<Vec<String>> =
            toml_edit::Key::parse(flag).ok().map(|keys| keys.iter().map(|key| key.get().to_owned()).collect());
        let path = path.unwrap_or_default();
        if schema::leaf(&path).is_none() {
            let known: Vec<_> = KEYS.iter().flat_map(|key| layers.concrete(key)).map(|path| dotted(&path)).collect();
            let hint = did_you_mean(flag, known.iter().map(String::as_str));
            errors.push(Diagnostic { hint, ..Diagnostic::new(format!("there is no setting `{flag}`")) });
        } else if let Some(name) = undeclared(layers, &path) {
            let hint = did_you_mean(name, layers.names(&path[..1]));
            let message = format!("`{flag}`: [{}] is not declared", dotted(&path[..2]));
            errors.push(Diagnostic { hint, ..Diagnostic::new(message) });
        } else {
            set(layers, path, text, flag, Setter::Flag(flag.clone()), errors);
        }
    }
}

fn undeclared<'a>(layers: &Layers, path: &'a [String]) -> Option<&'a str> {
    let name = path.get(1)?;
    let declarable = matches!(path[0].as_str(), "services" | "servers" | "modules");
    (declarable && !layers.names(&path[..1]).contains(&name.as_str())).then_some(name.as_str())
}

fn set(layers: &mut Layers, path: Vec<String>, text: &str, name: &str, by: Setter, errors: &mut Vec<Diagnostic>) {
    let Some(key) = schema::leaf(&path) else { return };
    match key.kind.read_text(text) {
        Ok(value) => layers.set(path, value, by),
        Err(refusal) => {
            let message = format!("{name} {}", refusal.message);
            errors.push(Diagnostic { hint: refusal.hint, ..Diagnostic::new(message) });
        }
    }
}

/// Finds the path that a variable means.
///
/// It cannot be split at `__`: a service's own name may hold that. So the names that are possible at each step are
/// tried, the longest first.
fn resolve(layers: &Layers, rest: &str, table: &mut Vec<String>) -> Option<Vec<String>> {
    let mut names: Vec<String> = schema::children(table).into_iter().map(str::to_owned).collect();
    if schema::is_open(table) {
        names.extend(layers.names(table).into_iter().map(str::to_owned));
    }
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        let Some(tail) = rest.strip_prefix(env_name(&name).as_str()) else { continue };
        table.push(name);
        let path = match tail.strip_prefix("__") {
            _ if tail.is_empty() && schema::leaf(table).is_some() => Some(table.clone()),
            Some(tail) if schema::is_table(table) => resolve(layers, tail, table),
            _ => None,
        };
        table.pop();
        if path.is_some() {
            return path;
        }
    }
    // Tables of free names, such as properties, take names that no file mentions. Services must be declared.
    let free = [table.as_slice(), &[rest.to_lowercase()]].concat();
    (schema::leaf(&free).is_some() && schema::is_open(table) && !rest.is_empty()).then_some(free)
}

fn unknown_variable(layers: &Layers, variable: &str, rest: &str) -> Diagnostic {
    let message = match rest.split_once("__") {
        Some((section @ ("SERVICES" | "SERVERS"), tail)) => {
            let section = section.to_lowercase();
            let declared = layers.names(&[&section]);
            let noun = section.trim_end_matches('s');
            if declared.iter().any(|name| tail.starts_with(&format!("{}__", env_name(name)))) {
                format!("{variable} names no key of a {noun}")
            } else {
                format!("{variable} names no declared {noun}")
            }
        }
        _ => format!("{variable} names no key of the manifest"),
    };
    let known: Vec<String> = KEYS.iter().flat_map(|key| layers.variables(key)).collect();
    let hint = closest(variable, known.iter().map(String::as_str)).map(|name| format!("did you mean {name}?"));
    Diagnostic { hint, ..Diagnostic::new(message) }
}

impl Layers {
    fn variables(&self, key: &schema::Key) -> Vec<String> {
        let variable = |path: Vec<String>| {
            let names: Vec<_> = path.iter().map(|segment| env_name(segment)).collect();
            format!("PGFLEET_{}", names.join("__"))
        };
        self.concrete(key).into_iter().map(variable).collect()
    }
}
