//! Manifests written into a folder, loaded, and what comes out.

mod events;
mod layering;
mod mistakes;
mod production;
mod reading;

use std::path::Path;

use super::{Errors, Loaded, Manifest, Sources};

/// A folder with files, and what else a manifest is loaded from.
struct Case {
    folder: tempfile::TempDir,
    sources: Sources,
}

/// A solution with this `pgfleet.toml`.
fn solution(text: &str) -> Case {
    let folder = tempfile::Builder::new().prefix("solution").tempdir().unwrap();
    let sources = Sources { manifest: folder.path().join("pgfleet.toml"), ..Sources::default() };
    Case { folder, sources }.file("pgfleet.toml", text)
}

impl Case {
    fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn env(mut self, name: &str) -> Self {
        self.sources.env_name = Some(name.into());
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.variables.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, path: &str, value: &str) -> Self {
        self.sources.flags.push((path.into(), value.into()));
        self
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn load(&self) -> Loaded {
        Manifest::load(&self.sources).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn errors(&self) -> Errors {
        Manifest::load(&self.sources).expect_err("the manifest is wrong")
    }

    /// The errors as they are printed.
    fn printed(&self) -> String {
        self.errors().to_string()
    }
}
