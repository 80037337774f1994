//! What the cases share: runtime, control database, routers, the peer's pools, and turns.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use pgfleet_postgres::Address;
use pgfleet_route::{DirectoryOptions, Endpoints, Opener, Options, Router};
use secrecy::SecretString;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use crate::server::Server;

pub(crate) const THREADS: usize = 2;

/// Tenants that a service knows.
pub(super) const KNOWN: usize = 10_000;

/// The database that names the tenants; also the service's own.
pub(super) const CONTROL: &str = "control";

/// How sessions of both are called.
pub(super) const APPLICATION: &str = "bench";

pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?)
}

/// Makes a control database that knows 10,000 tenants, as services see it.
pub(super) fn control(server: &Server) -> Result<()> {
    server.create(&[CONTROL.to_owned()])?;
    let statements = [
        "CREATE SCHEMA pgfleet_directory".to_owned(),
        "CREATE FUNCTION pgfleet_directory.version() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'".to_owned(),
        format!(
            "CREATE FUNCTION pgfleet_directory.tenants() \
             RETURNS TABLE (tenant text, state text, connection text, sealed bytea, key_id text) LANGUAGE sql AS \
             $$ SELECT 't' || i, 'active', '', convert_to('dbname=tenant_' || i, 'UTF8'), '' \
                FROM generate_series(0, {}) i $$",
            KNOWN - 1
        ),
    ];
    server.execute(CONTROL, &statements)
}

/// Nothing is sealed: opening is not what is measured.
struct Open;

impl Opener for Open {
    fn open(&self, sealed: &[u8], _: &str, _: &str) -> Result<SecretString, String> {
        Ok(String::from_utf8_lossy(sealed).into_owned().into())
    }
}

/// A router as a service has it, with the defaults.
pub(super) fn router(main: impl Into<Endpoints>) -> Router {
    Router::new(Options::new(APPLICATION, main))
}

/// A router that knows 10,000 tenants.
pub(super) async fn with_tenants(url: &str, budget: Option<usize>) -> Result<Router> {
    let address = Address::parse(url)?;
    let mut options = Options::new(APPLICATION, address.clone());
    options.budget = budget;
    options.directory = Some(DirectoryOptions { address, opener: Arc::new(Open), interval: Duration::from_hours(1) });
    let router = Router::new(options);
    router.refresh().await?;
    anyhow::ensure!(router.tenants().len() == KNOWN, "{} tenants are known", router.tenants().len());
    Ok(router)
}

/// The peer's pool of one database.
pub(super) fn peer(url: &str, max: usize) -> Result<deadpool_postgres::Pool> {
    let mut config: tokio_postgres::Config = url.parse()?;
    config.application_name(APPLICATION);
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    deadpool_postgres::Pool::builder(manager).max_size(max).build().context("the peer makes no pool")
}

/// Has each of `all` take a turn in each round, in changing order; the first round warms up.
pub(super) fn rounds(
    count: usize,
    all: usize,
    mut turn: impl FnMut(usize) -> Result<Duration>,
) -> Result<Vec<Vec<Duration>>> {
    let mut times = vec![Vec::new(); all];
    for round in 0..=count {
        for place in 0..all {
            let who = (round + place) % all;
            let took = turn(who)?;
            if round > 0 {
                times[who].push(took);
            }
        }
    }
    Ok(times)
}
