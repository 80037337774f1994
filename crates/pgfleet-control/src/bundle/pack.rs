//! Makes bundles: reads the folders that the manifest names, and asks the services' programs.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

use futures_util::future::try_join_all;
use pgfleet_migrate::worker::Description;
use pgfleet_migrate::{Observer, Seeds, SetPath};
use pgfleet_sql::layout::{Layout, read_folder};

use crate::bundle::Bundle;
use crate::bundle::content::{Content, Files, Folder, History, Module, Service, TOOL};
use crate::error::{Error, ErrorKind};
use crate::jobs::{files_error, find_service, history_of, layout_of};
use crate::manifest::{self, Manifest};
use crate::modules::{builtin_folder, builtin_set, packed_history};
use crate::program::Programs;
use crate::solution::Solution;

impl Solution {
    /// Packs services with their modules; all when none is named.
    ///
    /// # Errors
    ///
    /// As [`Bundle::of`].
    pub async fn bundle(&self, names: &[String], observer: &Arc<dyn Observer>) -> Result<Bundle, Error> {
        Bundle::of(&self.manifest, names, self.programs(), observer).await
    }
}

impl Bundle {
    /// Packs the services of a manifest with their modules; all when none is named.
    ///
    /// Needs no server. Starts the programs of the services that have one; `observer` sees what they
    /// print.
    ///
    /// # Errors
    ///
    /// An unknown service; files that cannot be used; a program that cannot be used or was built from
    /// other files.
    pub async fn of(
        manifest: &Manifest,
        names: &[String],
        programs: &Programs,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        for name in names {
            find_service(manifest, name)?;
        }
        let chosen = |service: &&manifest::Service| names.is_empty() || names.contains(&service.name);
        let mut packer = Packer { manifest, content: Content::empty(&manifest.solution.name), notes: Vec::new() };
        // The bus is pgfleet's own: whoever uses the bundle has it.
        for service in manifest.declared_services().filter(chosen) {
            packer.add(service)?;
        }
        let Packer { content, notes, .. } = packer;
        let mut files = Self::new(content)?;
        let described = files.content.services.iter().map(|packed| async {
            let path = files.path(packed)?;
            described(manifest, &packed.name, path, programs, observer).await
        });
        let described = try_join_all(described).await?;
        for (service, description) in files.content.services.iter_mut().zip(described) {
            service.program = description;
        }
        Ok(Self { notes, ..Self::new(files.content)? })
    }
}

/// Asks a service's program what it has in it, when there is one; checks that all of it goes together.
async fn described(
    manifest: &Manifest,
    service: &str,
    files: SetPath,
    programs: &Programs,
    observer: &Arc<dyn Observer>,
) -> Result<Option<Description>, Error> {
    let path = find_service(manifest, service)?.program.as_ref();
    let Some(path) = path else {
        files.check().map_err(|error| files_error(&error))?;
        return Ok(None);
    };
    let asked = programs.of(service, path, observer).describe().await;
    match asked.and_then(|description| Ok((description.join(&files, path)?, description))) {
        Ok((_, description)) => Ok(Some((*description).clone())),
        Err(error) => Err(Error::of_program(format!("cannot pack {service}"), &error)),
    }
}

/// A bundle that is being filled.
struct Packer<'a> {
    manifest: &'a Manifest,
    content: Content,
    notes: Vec<String>,
}

impl Packer<'_> {
    fn add(&mut self, service: &manifest::Service) -> Result<(), Error> {
        let modules: Vec<_> =
            service.modules.iter().filter_map(|name| self.manifest.modules.get(name)).cloned().collect();
        for module in &modules {
            if !self.content.modules.contains_key(&module.name) {
                if let Some(builtin) = module.builtin {
                    self.add_builtin(builtin, module)?;
                    continue;
                }
                let files = self.files(
                    &module.name,
                    &module.migrations,
                    module.layout.as_deref(),
                    &module.seeds,
                    module.history.as_deref(),
                )?;
                let packed = Module { schema: module.schema.clone(), files };
                self.content.modules.insert(module.name.clone(), packed);
            }
        }
        let files = self.files(
            &service.name,
            &service.migrations,
            service.layout.as_deref(),
            &service.seeds,
            service.history.as_deref(),
        )?;
        self.content.services.push(Service {
            name: service.name.clone(),
            schema: service.schema.clone(),
            modules: modules.into_iter().map(|module| module.name).collect(),
            files,
            program: None,
        });
        Ok(())
    }

    /// Packs a module that is in this program: another version of it may have others.
    fn add_builtin(&mut self, builtin: manifest::Builtin, module: &manifest::Module) -> Result<(), Error> {
        let set = builtin_set(None, builtin, module, "")?;
        let files = Files {
            history: History::from(&packed_history(builtin, module, &set)),
            migrations: builtin_folder(builtin),
            seeds: builtin_folder(builtin),
        };
        let mut texts = BTreeMap::new();
        for migration in set.migrations.iter() {
            for script in std::iter::once(&migration.up).chain(&migration.down) {
                let name = script.path.file_name().map_or(script.path.as_path(), Path::new);
                texts.insert(text_of(name)?, script.text.clone());
            }
        }
        let folder = Folder::new(&files.migrations, Layout::Pgfleet, texts)?;
        self.content.migrations.insert(files.migrations.clone(), folder);
        self.content.seeds.insert(files.seeds.clone(), BTreeMap::new());
        let packed = Module { schema: module.schema.clone(), files };
        self.content.modules.insert(module.name.clone(), packed);
        Ok(())
    }

    fn files(
        &mut self,
        name: &str,
        migrations: &Path,
        layout: Option<&str>,
        seeds: &Path,
        history: Option<&str>,
    ) -> Result<Files, Error> {
        let files = Files {
            history: History::from(&history_of(name, history)),
            migrations: self.relative(migrations)?,
            seeds: self.relative(seeds)?,
        };
        if !self.content.migrations.contains_key(&files.migrations) {
            let (folder, notes) = read_migrations(name, migrations, &files.migrations, layout_of(layout)?)?;
            self.notes.extend(notes.into_iter().map(|note| format!("{name}: {note}")));
            self.content.migrations.insert(files.migrations.clone(), folder);
        }
        if !self.content.seeds.contains_key(&files.seeds) {
            let read = Seeds::read(seeds, BTreeMap::new()).map_err(|error| files_error(&error))?;
            let texts = read.files.iter().map(|file| (file.name.clone(), file.script.text.clone())).collect();
            self.content.seeds.insert(files.seeds.clone(), texts);
        }
        Ok(files)
    }

    /// A path as seen from the manifest, in the same form on every machine.
    fn relative(&self, path: &Path) -> Result<String, Error> {
        text_of(path.strip_prefix(&self.manifest.root).unwrap_or(path))
    }
}

impl Content {
    fn empty(solution: &str) -> Self {
        Self {
            solution: solution.to_owned(),
            tool: TOOL.to_owned(),
            services: Vec::new(),
            modules: BTreeMap::new(),
            migrations: BTreeMap::new(),
            seeds: BTreeMap::new(),
        }
    }
}

/// Reads a folder, with what is worth knowing about it.
fn read_migrations(
    set: &str,
    folder: &Path,
    name: &str,
    layout: Option<Layout>,
) -> Result<(Folder, Vec<String>), Error> {
    if !folder.exists() {
        // A service without migrations yet is one with nothing to do.
        let empty = Folder::new(name, layout.unwrap_or(Layout::Pgfleet), BTreeMap::new())?;
        return Ok((empty, vec![format!("{} does not exist", folder.display())]));
    }
    let unreadable =
        |cause: String| Error::new(ErrorKind::Failed, format!("cannot read the migrations of {set}")).cause(cause);
    let read = read_folder(folder, layout).map_err(|error| unreadable(error.to_string()).hinted(error.hint()))?;
    let mut files = BTreeMap::new();
    for path in &read.files {
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(format!("{}: {error}", path.display())))?;
        files.insert(text_of(path.strip_prefix(folder).unwrap_or(path))?, text);
    }
    Ok((Folder::new(name, read.layout, files)?, read.notes))
}

fn text_of(path: &Path) -> Result<String, Error> {
    let names = path.components().map(|part| match part {
        Component::RootDir => Some(""),
        part => part.as_os_str().to_str(),
    });
    names.collect::<Option<Vec<_>>>().map(|names| names.join("/")).ok_or_else(|| {
        Error::new(ErrorKind::Failed, format!("cannot pack {}", path.display()))
            .cause("the path is not UTF-8")
            .hinted("rename the file or folder")
    })
}
