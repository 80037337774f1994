//! Stores and peers in databases of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pgfleet_events_postgres::{Store, module};
use pgfleet_migrate::{SetPath, Target, event::Silent, run};
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
use pgfleet_postgres::{Address, Purpose};
use tokio_postgres::{Client, NoTls, Statement, types::ToSql};

use super::Bench;

/// The version of the peer that is measured.
pub(super) const PGMQ: &str = "1.13.0";

/// Likewise of the peers of streams.
pub(super) const EMMETT: &str = "0.42.0";
pub(super) const MESSAGE_DB: &str = "1.3.1";

/// How many connections everybody has.
const CONNECTIONS: usize = 80;

/// Makes an empty database with the tables of a set.
pub(super) async fn migrated(url: &str, set: pgfleet_migrate::Set) -> Result<()> {
    let path: SetPath = set.into();
    let options = pgfleet_migrate::Options { max_tries: 1, ..pgfleet_migrate::Options::default() };
    run::migrate(&Target::new("bench", Address::parse(url)?), &path, &options, &Silent).await?;
    Ok(())
}

pub(super) fn pool(url: &str) -> Result<Pool> {
    let budget = Budget::new("bench", CONNECTIONS);
    let options =
        PoolOptions { max: CONNECTIONS, min: 0, idle_timeout: Duration::from_hours(1), ..PoolOptions::default() };
    Ok(Pool::new(&budget, Address::parse(url)?, Purpose::new("bench"), options))
}

/// Makes a database with our streams and queues in it.
pub(super) fn ours(bench: &Bench<'_>, database: &str) -> Result<Arc<Store>> {
    bench.server.create(&[database.to_owned()])?;
    let url = bench.server.url(database);
    bench.runtime.block_on(async {
        migrated(&url, module::event_streaming(module::EVENT_STREAMING)?).await?;
        Ok(Arc::new(Store::new(pool(&url)?, pgfleet_events_postgres::Options::default())))
    })
}

/// Makes a database with the peer's queue in it.
pub(super) fn pgmq(bench: &Bench<'_>, database: &str) -> Result<()> {
    with_schema(bench, database, &bench.options.pgmq)?;
    bench.server.execute(database, &["SELECT pgmq.create('bench')".to_owned()])
}

/// Makes a database with a peer's schema in it, as it is published.
pub(super) fn with_schema(bench: &Bench<'_>, database: &str, schema: &Path) -> Result<()> {
    bench.server.create(&[database.to_owned()])?;
    let schema = std::fs::read_to_string(schema).with_context(|| format!("cannot read {}", schema.display()))?;
    bench.server.execute(database, &[schema.trim_end().trim_end_matches(';').to_owned()])
}

/// Connections of somebody who has no pool: one for each worker, with its statements prepared.
pub(super) struct Plain {
    client: Client,
    statements: BTreeMap<&'static str, Statement>,
}

impl Plain {
    pub(super) async fn open(url: &str, statements: &[&'static str]) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let mut prepared = BTreeMap::new();
        for sql in statements {
            prepared.insert(*sql, client.prepare(sql).await.with_context(|| format!("cannot prepare {sql}"))?);
        }
        Ok(Self { client, statements: prepared })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<tokio_postgres::Row>> {
        let statement = self.statements.get(sql).context("not prepared")?;
        Ok(self.client.query(statement, values).await?)
    }
}
