//! What every command needs: the manifest, who works, how to talk, and Ctrl-C.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pgfleet_control::manifest::{self, Loaded, Manifest, Sources};
use pgfleet_control::program::Programs;
use pgfleet_control::services::Stopper;
use pgfleet_control::solution::{Next, Solution, Surroundings, wait_for_servers};
use pgfleet_migrate::options::{Stop, Who};

use crate::args::Global;
use crate::error::{CommandError, Exit};
use crate::talk::Talk;

/// The surroundings of one invocation.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) talk: Talk,
    pub(crate) stop: Stop,
    /// Whether a run is under way that ends by itself when asked to stop.
    pub(crate) orderly: Arc<AtomicBool>,
    /// The programs of services that were started; closed when the command is done.
    pub(crate) programs: Programs,
    /// The services that are run, when some are.
    pub(crate) serving: Serving,
}

/// The services that this process runs, and how it was asked to stop.
///
/// `up` sets it, the watcher of signals reads it; a signal that comes in between is not lost, since it
/// then ends the process as it would have before.
#[derive(Clone, Default)]
pub(crate) struct Serving(Arc<Mutex<(Option<Stopper>, bool)>>);

impl Serving {
    /// Asks the services to stop, the second time to be killed; says whether there are any.
    pub(crate) fn ask(&self, interrupted: bool, talk: &Talk) -> bool {
        let mut serving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stopper) = serving.0.clone() else { return false };
        serving.1 |= interrupted;
        if stopper.ask() {
            let again = if interrupted { "; again to kill them" } else { "" };
            talk.say(&format!("stopping the services{again}"));
        } else {
            stopper.kill();
        }
        true
    }
}

/// Marks that a run is under way that ends by itself when asked; until dropped.
pub(crate) struct Orderly(Arc<AtomicBool>);

impl Drop for Orderly {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        Self {
            talk: Talk::new(&global),
            global,
            stop: Stop::default(),
            orderly: Arc::default(),
            programs: Programs::default(),
            serving: Serving::default(),
        }
    }

    /// Says which services are run from now on; none any more.
    pub(crate) fn serve(&self, stopper: Option<Stopper>) {
        self.serving.0.lock().unwrap_or_else(PoisonError::into_inner).0 = stopper;
    }

    /// Whether Ctrl-C ended the services, and not `down`.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.serving.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Says that what follows ends in an orderly way when asked to stop.
    pub(crate) fn orderly(&self) -> Orderly {
        self.orderly.store(true, Ordering::SeqCst);
        Orderly(self.orderly.clone())
    }

    /// Loads the manifest; says which keys have no effect yet.
    pub(crate) fn load(&self) -> Result<Loaded, CommandError> {
        let loaded = Manifest::load(&self.sources()?)?;
        for note in &loaded.unused {
            self.talk.note(&note.to_string());
        }
        Ok(loaded)
    }

    fn sources(&self) -> Result<Sources, CommandError> {
        let manifest = match &self.global.manifest {
            Some(path) if path.is_dir() => path.join(manifest::FILE_NAME),
            Some(path) => path.clone(),
            None => find()?,
        };
        Ok(Self::sources_of(manifest, self.global.env.clone()))
    }

    /// Says from where a manifest is loaded.
    pub(crate) fn sources_of(manifest: PathBuf, env_name: Option<String>) -> Sources {
        Sources {
            manifest,
            env_name,
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, _)| name.starts_with("PGFLEET_"))
                .collect(),
            flags: Vec::new(),
        }
    }

    pub(crate) fn surroundings(&self) -> Surroundings {
        Surroundings {
            who: who(),
            key: secret("PGFLEET_KEY"),
            old_key: secret("PGFLEET_KEY_OLD"),
            stop: self.stop.clone(),
            programs: self.programs.clone(),
            next: Next::Anything,
        }
    }

    /// Loads the manifest and opens the solution with its servers running already.
    pub(crate) async fn open(&self) -> Result<Solution, CommandError> {
        Box::pin(self.open_in(self.surroundings())).await
    }

    /// Likewise, for something that is known.
    pub(crate) async fn open_for(&self, next: Next) -> Result<Solution, CommandError> {
        Box::pin(self.open_in(Surroundings { next, ..self.surroundings() })).await
    }

    async fn open_in(&self, surroundings: Surroundings) -> Result<Solution, CommandError> {
        let loaded = self.load()?;
        if self.global.wait {
            self.wait_for_servers(&loaded.manifest).await?;
        }
        Ok(Solution::open(loaded.manifest, &surroundings).await?)
    }

    /// Opens the solution and starts its local servers; waits for the others when told to.
    pub(crate) async fn start(&self, loaded: Loaded, wait: bool) -> Result<Solution, CommandError> {
        if wait {
            self.wait_for_servers(&loaded.manifest).await?;
        }
        Ok(Solution::start(loaded.manifest, &self.surroundings()).await?)
    }

    /// The control database is the first that is asked, before any database of a service.
    async fn wait_for_servers(&self, manifest: &Manifest) -> Result<(), CommandError> {
        let progress = self.talk.progress(manifest.servers.len(), "waiting");
        let waited = wait_for_servers(manifest, &progress).await;
        progress.finish();
        Ok(waited?)
    }
}

/// Reads a variable that holds a secret; an empty one is none.
fn secret(variable: &str) -> Option<secrecy::SecretString> {
    std::env::var(variable).ok().filter(|value| !value.is_empty()).map(Into::into)
}

/// Looks for the manifest here and in the folders above.
fn find() -> Result<PathBuf, CommandError> {
    let here = std::env::current_dir().map_err(|error| {
        CommandError::new(Exit::Configuration, "the present folder cannot be read").cause(error.to_string())
    })?;
    manifest::find(&here).ok_or_else(|| {
        CommandError::new(Exit::Configuration, format!("there is no {} here or above", manifest::FILE_NAME))
            .hinted("make one: pgfleet init, or name it: --manifest FILE")
    })
}

/// Returns who works, for the audit columns.
pub(crate) fn who() -> Who {
    Who::of_process()
}

/// Reads `NAME=VALUE` pairs.
pub(crate) fn properties(pairs: &[String]) -> Result<std::collections::BTreeMap<String, String>, CommandError> {
    pairs
        .iter()
        .map(|pair| match pair.split_once('=') {
            // A value given here would be passed over.
            Some((name, _)) if name == pgfleet_migrate::seed::TENANT => {
                Err(CommandError::new(Exit::Usage, format!("--property {name}: pgfleet sets it itself")))
            }
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(CommandError::new(Exit::Usage, format!("--property {pair}: expected NAME=VALUE"))),
        })
        .collect()
}
