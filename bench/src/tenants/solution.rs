//! A solution with one service that has its data in tenants' databases.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Bench;
use crate::migrations::{self, Layout};
use crate::{timing, work};

/// The schema and the name of the service.
pub(super) const SERVICE: &str = "shop";

pub(super) struct Solution<'a> {
    name: String,
    program: &'a Path,
    folder: PathBuf,
    url: String,
    /// The number of the next migration.
    next: std::cell::Cell<usize>,
}

impl<'a> Solution<'a> {
    /// Writes a solution with fifty migrations and a seed, and provisions it.
    pub(super) fn make(bench: &Bench<'a>, name: &str) -> Result<Self> {
        let folder = work::empty(bench.work.join(format!("tenants-{name}")))?;
        let migrations = migrations::generate();
        migrations::write(&migrations, Layout::Numbered, &work::empty(folder.join("migrations"))?)?;
        let seeds = work::empty(folder.join("seeds"))?;
        fs::write(
            seeds.join("1_admin.sql"),
            "insert into item_01 (name) values (:'tenant' || ' ' || :'admin_email') on conflict do nothing;\n",
        )?;
        // One name in manifest, roles and databases, so that solutions do not meet on the server.
        let manifest = format!(
            "[solution]\nname = \"{name}\"\n[servers.main]\nurl = \"local\"\n[control]\ndatabase = \"{name}_control\"\n\
             [services.{name}_{SERVICE}]\nschema = \"{SERVICE}\"\nmigrations = \"migrations\"\nseeds = \"seeds\"\n\
             tenants = \"own\"\n[seeds.properties]\nadmin_email = \"admin@bench.example\"\n"
        );
        fs::write(folder.join("pgfleet.toml"), manifest)?;
        let next = std::cell::Cell::new(migrations.len() + 1);
        let solution = Self {
            name: name.to_owned(),
            program: &bench.options.pgfleet,
            folder,
            url: bench.server.url("postgres"),
            next,
        };
        timing::time(&mut solution.command(&["provision"]))?;
        timing::time(&mut solution.command(&["migrate"]))?;
        Ok(solution)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn control(&self) -> String {
        format!("{}_control", self.name)
    }

    /// The name of the service in the manifest.
    pub(super) fn service(&self) -> String {
        format!("{}_{SERVICE}", self.name)
    }

    /// The name of a tenant's database.
    pub(super) fn database(&self, tenant: &str) -> String {
        format!("{}_{}", self.name, tenant.replace('-', "_"))
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(args).current_dir(&self.folder).env("PGFLEET_SERVERS__MAIN__URL", &self.url);
        // The server is not the embedded one, so there must be a key.
        command.env("PGFLEET_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        command
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub(super) fn output(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output()?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The template's database.
    pub(super) fn template(&self) -> Result<String> {
        let text = self.output(&["tenant", "templates", "--json"])?;
        let (_, rest) = text.split_once("\"database\":").context("there is no template")?;
        let name = rest.trim_start().trim_start_matches('"');
        Ok(name.split('"').next().context("the template has no name")?.to_owned())
    }

    /// Writes names into a file that `tenant create --from` reads.
    pub(super) fn names(&self, file: &str, names: &[String]) -> Result<String> {
        let path = self.folder.join(file);
        fs::write(&path, names.join("\n") + "\n")?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Adds a migration; returns its number.
    pub(super) fn migration(&self, sql: impl Fn(usize) -> String) -> Result<usize> {
        let number = self.next.get();
        self.next.set(number + 1);
        fs::write(self.folder.join("migrations").join(format!("{number:04}_more.sql")), sql(number))?;
        Ok(number)
    }

    /// Adds a migration that every database takes; returns its number.
    pub(super) fn more(&self) -> Result<usize> {
        self.migration(|number| format!("ALTER TABLE item_01 ADD COLUMN more_{number} integer;\n"))
    }
}
