//! A solution per test on a shared server, with names that nobody else has.

use std::path::PathBuf;
use std::sync::Arc;

use pgfleet_control::Solution;
use pgfleet_control::manifest::{Manifest, Sources};
use pgfleet_control::solution::Surroundings;
use pgfleet_local::testing::{TestDatabase, TestServer};
use pgfleet_migrate::event::Silent;
use pgfleet_postgres::{Address, Connection, Purpose, connect, quote_ident};

/// Who provisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admin {
    Superuser,
    /// May create databases and roles, and nothing else.
    Creator,
}

/// A solution of two services on a test server.
pub(crate) struct Town {
    pub(crate) server: TestServer,
    // Leftovers are swept by the prefix of its name.
    pub(crate) anchor: TestDatabase,
    pub(crate) folder: tempfile::TempDir,
    admin_url: String,
}

impl Town {
    pub(crate) async fn new(major: u32, admin: Admin) -> Self {
        let server = TestServer::shared_version(major).await;
        let anchor = server.database().await;
        let folder = tempfile::tempdir().unwrap();
        let admin_url = match admin {
            Admin::Superuser => server.superuser_url("postgres"),
            Admin::Creator => {
                let role = format!("{}_dba", anchor.name);
                let superuser = open(&server.superuser_url("postgres")).await;
                superuser
                    .execute_all(&format!(
                        "CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD 'secret'",
                        quote_ident(&role)
                    ))
                    .await
                    .unwrap();
                // Other tests close `postgres` to the public.
                superuser
                    .execute_all(&format!("GRANT CONNECT ON DATABASE postgres TO {}", quote_ident(&role)))
                    .await
                    .unwrap();
                format!("postgresql://{role}:secret@127.0.0.1:{}/postgres", server.port())
            }
        };
        let town = Self { server, anchor, folder, admin_url };
        town.write_manifest("", "");
        for service in ["trip", "user"] {
            let migrations = town.service_folder(service).join("migrations");
            std::fs::create_dir_all(&migrations).unwrap();
            let seeds = town.service_folder(service).join("seeds");
            std::fs::create_dir_all(&seeds).unwrap();
            std::fs::write(seeds.join("1_nothing.sql"), "select 1;").unwrap();
            std::fs::write(
                migrations.join("1_things.sql"),
                "create table things (id bigserial primary key, name text not null);",
            )
            .unwrap();
        }
        town
    }

    /// Returns the unique name of a service.
    pub(crate) fn service(&self, short: &str) -> String {
        format!("{}_{short}", self.anchor.name)
    }

    fn service_folder(&self, short: &str) -> PathBuf {
        self.folder.path().join("services").join(self.service(short))
    }

    /// Writes the manifest; `solution` and `trip` are added to their sections.
    pub(crate) fn write_manifest(&self, solution: &str, trip: &str) {
        let text = format!(
            "[solution]\nname = \"{anchor}\"\n{solution}\n[servers.main]\nurl = \"{url}\"\n\
             [control]\ndatabase = \"{anchor}_control\"\n[services.{t}]\n{trip}\n[services.{u}]\n",
            anchor = self.anchor.name,
            url = self.admin_url,
            t = self.service("trip"),
            u = self.service("user"),
        );
        std::fs::write(self.folder.path().join("pgfleet.toml"), text).unwrap();
    }

    /// Writes a whole manifest; `{}` stands for the prefix of all names, and the server and the control
    /// database are declared before it.
    pub(crate) fn write_whole_manifest(&self, solution: &str, text: &str) {
        let anchor = &self.anchor.name;
        let head = format!(
            "[solution]\nname = \"{anchor}\"\n{solution}\n[servers.main]\nurl = \"{}\"\n[control]\ndatabase = \"{anchor}_control\"\n",
            self.admin_url
        );
        std::fs::write(self.folder.path().join("pgfleet.toml"), head + &text.replace("{}", anchor)).unwrap();
    }

    /// The address that provisions.
    pub(crate) fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// Writes the manifest with these sections; `{}` stands for the prefix of all names.
    pub(crate) fn manifest(&self, sections: &str) {
        let anchor = &self.anchor.name;
        let head = format!(
            "[solution]\nname = \"{anchor}\"\nisolation = \"declared\"\n[servers.main]\nurl = \"{}\"\n\
             [control]\nserver = \"main\"\ndatabase = \"{anchor}_control\"\n",
            self.admin_url
        );
        std::fs::write(self.folder.path().join("pgfleet.toml"), head + &sections.replace("{}", anchor)).unwrap();
    }

    /// Makes a database that lets everybody in; returns its name.
    pub(crate) async fn database(&self, short: &str, template: Option<&str>) -> String {
        let name = self.service(short);
        let template = template.map(|template| format!(" TEMPLATE {}", quote_ident(template))).unwrap_or_default();
        let postgres = self.superuser("postgres").await;
        postgres.execute_all(&format!("CREATE DATABASE {}{template}", quote_ident(&name))).await.unwrap();
        name
    }

    /// Opens the solution anew, as another process would.
    pub(crate) async fn open(&self) -> Solution {
        self.try_open().await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()))
    }

    pub(crate) async fn try_open(&self) -> Result<Solution, pgfleet_control::Error> {
        self.open_with(&Surroundings::default()).await
    }

    pub(crate) async fn open_with(&self, surroundings: &Surroundings) -> Result<Solution, pgfleet_control::Error> {
        let sources = Sources { manifest: self.folder.path().join("pgfleet.toml"), ..Sources::default() };
        let loaded = Manifest::load(&sources).unwrap();
        Solution::open(loaded.manifest, surroundings).await
    }

    /// Provisions and returns the statements that ran.
    pub(crate) async fn provision(&self) -> Vec<String> {
        let done =
            self.open().await.provision(false).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
        done.into_iter().flat_map(|server| server.statements).map(|statement| statement.sql).collect()
    }

    /// Migrates everything.
    pub(crate) async fn migrate(&self) {
        let mut solution = self.open().await;
        let options = solution.options().clone();
        let reports =
            solution.migrate(&[], &std::collections::BTreeMap::new(), &options, 4, Arc::new(Silent)).await.unwrap();
        for report in reports {
            report.result.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
        }
    }

    /// Connects as the test server's superuser.
    pub(crate) async fn superuser(&self, database: &str) -> Connection {
        open(&self.server.superuser_url(database)).await
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

pub(crate) async fn open(url: &str) -> Connection {
    connect(&Address::parse(url).unwrap(), &Purpose::new("test")).await.unwrap()
}
