//! The manifest: what a solution declares, read from `pgfleet.toml` and the layers over it.
//!
//! [`Manifest::load`] lays defaults, `pgfleet.toml`, `pgfleet.<env>.toml`, environment variables and flags over each
//! other and checks the result. It finds all errors in one pass, each with its line. One table of keys (`schema`) is
//! behind parsing, defaults, environment variables, `config show` and the reference. Nothing here reads the process
//! environment or connects anywhere; values that may be secrets cannot be displayed.

mod build;
mod builtin;
mod bus;
mod connections;
mod diagnostic;
mod file;
mod layers;
mod model;
mod name;
mod overrides;
mod reference;
mod schema;
mod secret;
mod settings;
#[cfg(test)]
mod tests;
mod validate;
mod value;
mod word;

use std::path::{Path, PathBuf};

pub use builtin::Builtin;
pub use connections::Leads;
pub use diagnostic::{Diagnostic, Errors};
pub use model::{
    Backup, Broker, Budget, ChainTransport, Concurrently, Control, Durability, Events, Isolation, Lint, Manifest,
    Migrations, Module, OnAhead, OnChanged, OnMissing, OnOutOfOrder, Placement, Pool, RetryOn, Rollouts, Server,
    ServerUrl, Service, Solution, StreamPlace, TenantDatabases, TenantUse, Tenants, Uses,
};
pub use name::{LONGEST_IDENTIFIER, env_name, short_name};
pub use reference::reference_markdown;
pub use settings::{Origin, Row, Settings};
pub use value::parse_duration;

use layers::Layers;

/// The name of the manifest's file.
pub const FILE_NAME: &str = "pgfleet.toml";

/// From where a manifest is loaded. The caller hands in the environment, so that this module need not read it.
#[derive(Clone, Default)]
pub struct Sources {
    /// The manifest's file.
    pub manifest: PathBuf,
    /// The environment of `--env`; else `PGFLEET_ENV` of `variables` counts, else it is `dev`.
    pub env_name: Option<String>,
    /// Environment variables; only `PGFLEET_ENV` and `PGFLEET_<SECTION>__<KEY>` are looked at.
    pub variables: Vec<(String, String)>,
    /// Settings from flags, as path (`services.trip.database`) and text.
    pub flags: Vec<(String, String)>,
}

/// What loading a manifest gives.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked manifest.
    pub manifest: Manifest,
    /// All settings with their origin, without secrets.
    pub settings: Settings,
    /// Notes about keys that were set and have no effect.
    pub unused: Vec<Diagnostic>,
}

impl Manifest {
    /// Loads and checks a manifest.
    ///
    /// # Errors
    ///
    /// Returns everything that is wrong with the files, the variables and the flags. When a file cannot be parsed at
    /// all, only that is reported, because the rest would follow from it.
    pub fn load(sources: &Sources) -> Result<Loaded, Errors> {
        let env = environment(sources).map_err(|error| Errors::new(vec![error]))?;
        let path = std::path::absolute(&sources.manifest).unwrap_or_else(|_| sources.manifest.clone());
        let root = path.parent().unwrap_or(Path::new("/")).to_owned();

        let mut errors = Vec::new();
        let mut layers = Layers::default();
        if !add_files(&mut layers, &path, &env, &mut errors) {
            return Err(Errors::new(errors));
        }
        layers.assume_server();
        overrides::add_variables(&mut layers, &sources.variables, &mut errors);
        overrides::add_flags(&mut layers, &sources.flags, &mut errors);
        layers.complete(&root);

        let mut manifest = build::build(&layers, &path, &root, &env);
        validate::validate(&layers, &manifest, &mut errors);
        if !errors.is_empty() {
            return Err(Errors::new(errors));
        }
        let unused = validate::without_effect(&layers, &manifest);
        // Nobody declares the bus: what is checked is what was written.
        bus::add(&mut manifest);
        Ok(Loaded { settings: layers.settings(), unused, manifest })
    }
}

/// Looks for the manifest in a folder and its parents.
pub fn find(start_dir: &Path) -> Option<PathBuf> {
    let start = std::path::absolute(start_dir).ok()?;
    start.ancestors().map(|folder| folder.join(FILE_NAME)).find(|path| path.is_file())
}

/// Returns the name of the environment; it becomes part of a file's name.
fn environment(sources: &Sources) -> Result<String, Diagnostic> {
    let variable = || sources.variables.iter().find(|(name, _)| name == "PGFLEET_ENV").map(|(_, value)| value.clone());
    let name = sources.env_name.clone().or_else(variable).filter(|name| !name.is_empty());
    let Some(name) = name else { return Ok("dev".into()) };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.chars().all(fits) {
        Ok(name)
    } else {
        let message = format!("`{}` cannot be the name of an environment", name.escape_debug());
        Err(Diagnostic::new(message).hinted("use letters, digits, `-` and `_`"))
    }
}

/// Lays the two files over each other. Returns false when one could not be parsed.
fn add_files(layers: &mut Layers, path: &Path, env: &str, errors: &mut Vec<Diagnostic>) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let overlay = path.with_file_name(format!("{stem}.{env}.toml"));
    let mut parsed = true;
    for (file, required) in [(path, true), (&overlay, false)] {
        match file::read(file) {
            Ok(Some(text)) => parsed &= file::add(layers, file, text, errors),
            Ok(None) if required => {
                let error = Diagnostic::new(format!("there is no manifest at {}", file.display()));
                errors.push(error.hinted("make one: pgfleet init"));
                return false;
            }
            Ok(None) => {}
            Err(error) => {
                errors.push(error);
                parsed = false;
            }
        }
    }
    parsed
}
