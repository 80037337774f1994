//! Tenants with databases of their own, made quickly.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgfleet_control::catalogue::Catalogue;
use pgfleet_control::rollouts::{Ask, Begun, Ended, Go, Progress, Rollout, RolloutState};
use pgfleet_control::solution::Surroundings;
use pgfleet_control::templates::Shape;
use pgfleet_control::{Error, Solution};
use pgfleet_local::testing::OwnServer;
use pgfleet_postgres::{Connection, Purpose, Type, connect};

use crate::support::{Admin, Town, open};
use crate::tenants::silent;

/// The service `trip` has data in tenants' databases, `user` has not.
const SERVICES: &str = "[services.{}_trip]\nserver = \"main\"\ntenants = \"own\"\nschema = \"trips\"\n\
                        [services.{}_user]\nserver = \"main\"\n\
                        [migrations]\nmin_retry_wait = \"10ms\"\nmax_retry_wait = \"20ms\"\n";

/// A town with tenants.
pub(crate) struct Fleet {
    pub(crate) town: Town,
    pub(crate) control: Connection,
}

impl Fleet {
    /// Makes one whose tenants `t000`, `t001`, … have a database each, at the head of the files.
    pub(crate) async fn new(count: usize) -> Self {
        Self::with(count, "").await
    }

    /// Makes one with more in its manifest.
    pub(crate) async fn with(count: usize, sections: &str) -> Self {
        let town = Town::new(15, Admin::Superuser).await;
        town.manifest(&format!("{SERVICES}{sections}"));
        let control = town.server.superuser_url(&town.service("control"));
        Self::of(town, count, &control).await
    }

    /// Makes one whose control database is on a server of its own.
    pub(crate) async fn controlled_by(own: &OwnServer, count: usize) -> Self {
        let town = Town::new(15, Admin::Superuser).await;
        let anchor = &town.anchor.name;
        let text = format!(
            "[solution]\nname = \"{anchor}\"\n[servers.main]\nurl = \"{}\"\n[servers.other]\nurl = \"{}\"\n\
             [control]\nserver = \"other\"\ndatabase = \"{anchor}_control\"\n{}",
            town.admin_url(),
            own.superuser_url("postgres"),
            SERVICES.replace("{}", anchor)
        );
        std::fs::write(town.folder.path().join("pgfleet.toml"), text).unwrap();
        let control = own.superuser_url(&town.service("control"));
        Self::of(town, count, &control).await
    }

    async fn of(town: Town, count: usize, control: &str) -> Self {
        town.provision().await;
        town.migrate().await;
        let fleet = Self { town, control: open(control).await };
        fleet.add_tenants(0..count, "main").await;
        fleet
    }

    /// Makes tenants with databases on a server.
    pub(crate) async fn add_tenants(&self, numbers: std::ops::Range<usize>, server: &str) {
        let made = self.copies(numbers, server).await;
        self.point(&made, server).await;
    }

    /// Copies the template for tenants; nobody knows of the databases yet.
    pub(crate) async fn copies(&self, numbers: std::ops::Range<usize>, server: &str) -> Vec<(String, u32)> {
        let solution = self.town.open().await;
        let control = solution.server(&solution.manifest.control.server).admin.clone();
        let catalogue = Catalogue::open(&control, &solution.manifest.control.database).await.unwrap();
        let shape = Shape::all(&solution.manifest, &[]).unwrap()[0].1.clone();
        let plans = solution.plans(&[], &silent()).await.unwrap();
        let template = solution.ensure_template(&catalogue, server, &shape, &plans, &silent()).await.unwrap();
        let names: Vec<String> = numbers.map(|number| format!("t{number:03}")).collect();
        let rest = Mutex::new(names);
        let made = Mutex::new(Vec::new());
        let copies = (0..4).map(async |_| {
            let admin = connect(&solution.server(server).admin, &Purpose::new("test")).await.unwrap();
            loop {
                let Some(name) = rest.lock().unwrap().pop() else { break };
                let database = self.town.service(&name);
                let copied = solution.copy_template(&admin, &template, &shape, &name, &database).await.unwrap();
                made.lock().unwrap().push((name, copied.oid));
            }
        });
        futures_util::future::join_all(copies).await;
        catalogue.close().await;
        made.into_inner().unwrap()
    }

    /// Writes tenants down whose strings lead to databases of their names.
    pub(crate) async fn point(&self, made: &[(String, u32)], server: &str) {
        let solution = self.town.open().await;
        let keys = solution.keys().unwrap();
        let connection = connect(&solution.server(server).admin, &Purpose::new("test")).await.unwrap();
        let identifier = connection.simple("select system_identifier from pg_control_system()").await.unwrap();
        let names: Vec<&String> = made.iter().map(|(name, _)| name).collect();
        let oids: Vec<u32> = made.iter().map(|(_, oid)| *oid).collect();
        let databases: Vec<String> = names.iter().map(|name| self.town.service(name)).collect();
        let seal = |(name, database): (&&String, &String)| {
            keys.seal(&format!("dbname={database}").into(), &format!("tenant/{name}/")).unwrap()
        };
        let sealed: Vec<Vec<u8>> = names.iter().zip(&databases).map(seal).collect();
        self.control
            .execute(
                "WITH n AS (SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::oid[]) AS n (name, database, sealed, oid)), \
                 t AS (INSERT INTO control.tenants (name, display_name, state) SELECT name, name, 'active' FROM n) \
                 INSERT INTO control.tenant_strings (tenant, connection, key_id, sealed, shown, server, system_identifier, \
                   database, database_oid, server_version, checked_at) \
                 SELECT name, '', $5, sealed, database, $6, $7, database, oid, 150000, now() FROM n",
                &[
                    (&names, Type::TEXT_ARRAY),
                    (&databases, Type::TEXT_ARRAY),
                    (&sealed, Type::BYTEA_ARRAY),
                    (&oids, Type::OID_ARRAY),
                    (&keys.id(), Type::TEXT),
                    (&server, Type::TEXT),
                    (&identifier[0].get(0).unwrap(), Type::TEXT),
                ],
            )
            .await
            .unwrap();
    }

    /// Writes a migration of `trip`.
    pub(crate) fn migration(&self, name: &str, sql: &str) -> PathBuf {
        let folder = self.town.folder.path().join("services").join(self.town.service("trip")).join("migrations");
        let path = folder.join(name);
        std::fs::write(&path, sql).unwrap();
        path
    }

    /// Begins, or joins, what `ask` says.
    pub(crate) async fn begin(&self, ask: &Ask) -> Result<(Arc<Solution>, Begun), Error> {
        self.begin_with(ask, &Surroundings::default()).await
    }

    pub(crate) async fn begin_with(
        &self,
        ask: &Ask,
        surroundings: &Surroundings,
    ) -> Result<(Arc<Solution>, Begun), Error> {
        let mut solution = self.town.open_with(surroundings).await.unwrap();
        let options = solution.options().clone();
        let begun = solution.begin_rollout(ask, &options, &silent()).await?;
        Ok((Arc::new(solution), begun))
    }

    /// Runs a rollout of what is to be done, to its end.
    pub(crate) async fn roll_out(&self, ask: &Ask) -> Result<Rollout, Error> {
        let (solution, begun) = self.begin(ask).await?;
        Ok(work(&solution, begun).await.unwrap()?.rollout)
    }

    /// Has the control database know where every tenant stands.
    pub(crate) async fn verified(self) -> Self {
        let rollout = self.roll_out(&Ask::default()).await.unwrap();
        assert_eq!(rollout.state, RolloutState::Done);
        self
    }

    /// Asks the control database and returns the first column.
    pub(crate) async fn column(&self, sql: &str) -> Vec<String> {
        let rows =
            self.control.simple(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}: {:?}", error.server()));
        rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
    }

    /// Asks a tenant's database and returns the first column.
    pub(crate) async fn tenant(&self, tenant: &str, sql: &str) -> Vec<String> {
        let connection = self.town.superuser(&self.town.service(tenant)).await;
        let rows = connection.simple(sql).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.server()));
        connection.close().await;
        rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
    }

    /// The versions in a tenant's history, in order.
    pub(crate) async fn versions(&self, tenant: &str) -> Vec<String> {
        let trip = self.town.service("trip");
        self.tenant(tenant, &format!("select version from pgfleet.\"{trip}_migrations\" order by version::int")).await
    }
}

/// How tests work on a rollout.
pub(crate) fn go(solution: &Solution) -> Go {
    Go {
        options: solution.options().clone(),
        observer: silent(),
        progress: Arc::new(|_: &Progress| {}),
        properties: BTreeMap::new(),
        patience: Duration::from_mins(1),
    }
}

/// Works on a rollout in a task of its own.
pub(crate) fn work(solution: &Arc<Solution>, begun: Begun) -> tokio::task::JoinHandle<Result<Ended, Error>> {
    let Begun::Rollout { id, plans, .. } = begun else { panic!("{begun:?}") };
    let (solution, go) = (solution.clone(), go(solution));
    tokio::spawn(async move { solution.work_on_rollout(id, plans, go).await })
}
