//! A solution that takes its sets from a bundle instead of from folders.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use pgfleet_migrate::worker::Program;
use pgfleet_migrate::{Error as MigrateError, ErrorKind as MigrateKind, Observer, SetPath};

use crate::bundle::Bundle;
use crate::bundle::content::History;
use crate::error::{Error, ErrorKind};
use crate::jobs::history_of;
use crate::manifest::Manifest;
use crate::solution::Solution;

impl Solution {
    /// Takes the sets from a bundle from here on.
    ///
    /// Services that are not in it are then none of those that "all" means.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: it is another solution's, or the manifest says otherwise which
    /// services and modules there are, or where their tables and histories are.
    pub fn use_bundle(&mut self, bundle: Bundle) -> Result<(), Error> {
        bundle.check(&self.manifest)?;
        self.set_bundle(Arc::new(bundle));
        Ok(())
    }

    /// Checks that the programs which a bundle's services need are there, and are those that it was
    /// made with; without a bundle there is nothing to check.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] with each service that cannot be worked on.
    pub(crate) async fn check_programs(&self, names: &[String], observer: &Arc<dyn Observer>) -> Result<(), Error> {
        if self.used_bundle().is_none() {
            return Ok(());
        }
        let checked = self.services(names)?.into_iter().map(async |service| {
            let files = Arc::new(self.path(service, &BTreeMap::new(), &mut std::collections::HashMap::new())?);
            Ok::<_, Error>(self.completed(service, &files, observer).await.err())
        });
        let checked = join_all(checked).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        refuse_all(checked.into_iter().flatten())
    }
}

/// Makes one refusal of all: a rollout begins everywhere or nowhere.
pub(crate) fn refuse_all(refusals: impl IntoIterator<Item = MigrateError>) -> Result<(), Error> {
    let mut refusals = refusals.into_iter();
    let Some(first) = refusals.next() else { return Ok(()) };
    let mut error = Error::of_program("cannot migrate from the bundle; nothing was touched", &first);
    for other in refusals {
        error = error.cause(other.to_string());
        for cause in other.causes() {
            error = error.cause(cause);
        }
    }
    Err(error)
}

impl Bundle {
    /// Checks that a manifest is the one of this bundle, as far as it decides what is applied where.
    fn check(&self, manifest: &Manifest) -> Result<(), Error> {
        let content = &self.content;
        if content.solution != manifest.solution.name {
            return Err(Error::new(ErrorKind::Configuration, "cannot use the bundle")
                .cause(format!(
                    "it is of the solution {}, and {} is of {}",
                    content.solution,
                    manifest.path.display(),
                    manifest.solution.name
                ))
                .hinted("a bundle belongs to one solution; make one of this: pgfleet bundle"));
        }
        let mut found = Differences(Vec::new());
        for packed in &content.services {
            let name = &packed.name;
            let Some(service) = manifest.service(name) else {
                found.0.push(format!("the service {name} is in the bundle and not in the manifest"));
                continue;
            };
            let modules = service.modules.iter().filter(|module| manifest.modules.contains_key(*module));
            let modules: Vec<&str> = modules.map(String::as_str).collect();
            found.of("modules", name, &packed.modules.join(", "), &modules.join(", "));
            found.of("schema", name, &packed.schema, &service.schema);
            found.history(name, &packed.files.history, service.history.as_deref());
        }
        for (name, packed) in &content.modules {
            // A module that the manifest lacks is missing among those of a service, too.
            let Some(module) = manifest.modules.get(name) else { continue };
            let word = |schema: &Option<String>| schema.clone().unwrap_or_else(|| "the service's".to_owned());
            found.of("schema", name, &word(&packed.schema), &word(&module.schema));
            // That of a module of the program's own follows from the service.
            if module.builtin.is_none() || module.history.is_some() {
                found.history(name, &packed.files.history, module.history.as_deref());
            }
        }
        if found.0.is_empty() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Configuration, "cannot use the bundle: it was made with another manifest")
            .cause(manifest.path.display().to_string());
        Err(found.0.into_iter().fold(error, Error::cause).hinted("use the manifest of the same commit as the bundle"))
    }

    /// Completes a service's path with what only its program has, and says whether the program must
    /// run; then it is asked whether it still is the one that was recorded.
    pub(crate) async fn completed(
        &self,
        service: &str,
        files: &Arc<SetPath>,
        program: Option<Arc<Program>>,
    ) -> Result<(Arc<SetPath>, Option<Arc<Program>>), MigrateError> {
        let Some(recorded) = self.program(service) else { return Ok((files.clone(), None)) };
        let path = recorded.join(files, Path::new("the bundle"))?;
        if !path.needs_program() {
            return Ok((Arc::new(path), None));
        }
        let program = program.ok_or_else(|| {
            MigrateError::new(MigrateKind::Program, format!("cannot migrate {service}: part of it is Rust"))
                .cause("its code is in the service's program, which the manifest does not name")
                .hinted(format!("deploy the program and name it: `program = \"…\"` in [services.{service}]"))
        })?;
        program.describe().await?.check(recorded, program.path())?;
        Ok((Arc::new(path), Some(program)))
    }
}

/// Where the bundle and the manifest say different things.
struct Differences(Vec<String>);

impl Differences {
    fn of(&mut self, what: &str, name: &str, bundle: &str, manifest: &str) {
        if bundle != manifest {
            let word = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
            self.0.push(format!("{what} of {name}: {} in the bundle, {} here", word(bundle), word(manifest)));
        }
    }

    fn history(&mut self, name: &str, packed: &History, history: Option<&str>) {
        let word = |history: &History| format!("{}.{}", history.schema, history.table);
        self.of("history", name, &word(packed), &word(&History::from(&history_of(name, history))));
    }
}
