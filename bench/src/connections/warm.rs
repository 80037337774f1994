//! A connection that is there already, and one `SELECT 1` on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pgfleet_postgres::Address;
use pgfleet_postgres::Purpose;
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
use pgfleet_route::Router;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, Statement};

use super::options::Options;
use super::setting::{self, APPLICATION, CONTROL};
use crate::report::Report;
use crate::server::Server;

const SQL: &str = "SELECT 1";
const GOAL: f64 = 1.25;

/// Requests of a turn, all tasks together.
const REQUESTS: u32 = 8_000;

/// Somebody who is measured.
enum Contender {
    Router(Router),
    Pool(Pool),
    Peer(deadpool_postgres::Pool),
    /// No pool at all: what the client library needs.
    Limit(Client, Statement),
}

impl Contender {
    async fn request(&self) -> Result<()> {
        let one: i32 = match self {
            Self::Router(router) => router.writer(None).await?.query_one(SQL, &[]).await?.get(0),
            Self::Pool(pool) => pool.get().await?.query_one(SQL, &[]).await?.get(0),
            Self::Peer(pool) => {
                let db = pool.get().await?;
                let statement = db.prepare_cached(SQL).await?;
                db.query_one(&statement, &[]).await?.get(0)
            }
            Self::Limit(client, statement) => client.query_one(statement, &[]).await?.get(0),
        };
        ensure!(one == 1, "SELECT 1 is {one}");
        Ok(())
    }
}

pub(super) fn measure(options: &Options, runtime: &Runtime, server: &Server, report: &mut Report) -> Result<()> {
    let url = server.url(CONTROL);
    let address = Address::parse(&url)?;
    let _inside = runtime.enter();
    let max = PoolOptions::default().max;
    let budget = Budget::new("bench", max);
    let (client, connection) = runtime.block_on(tokio_postgres::connect(&url, NoTls))?;
    runtime.spawn(connection);
    let statement = runtime.block_on(client.prepare(SQL))?;
    let contenders: Vec<Arc<Contender>> = [
        Contender::Router(setting::router(address.clone())),
        Contender::Pool(Pool::new(&budget, address, Purpose::new(APPLICATION), PoolOptions::default())),
        Contender::Peer(setting::peer(&url, max)?),
        Contender::Limit(client, statement),
    ]
    .map(Arc::new)
    .into();
    for tasks in [1, 8] {
        let requests = options.times(REQUESTS);
        let times = setting::rounds(options.rounds, contenders.len(), |who| {
            runtime.block_on(turn(&contenders[who], tasks, requests / tasks))
        })?;
        let case = format!("(a) warm connection, one SELECT 1, {tasks} at once: ");
        let [router, pool, peer, limit] = &times[..] else { unreachable!("four take turns") };
        let peer = ("deadpool-postgres", peer.as_slice());
        report.compare_each(&case, ("router", router), peer, requests, Some(GOAL));
        report.compare_each(&case, ("pool", pool), peer, requests, Some(GOAL));
        // One connection for all: it has what nobody with several can have.
        let limit = ("limit: one connection, no pool", limit.as_slice());
        report.compare_each(&case, ("pool", pool), limit, requests, None);
    }
    Ok(())
}

async fn turn(contender: &Arc<Contender>, tasks: u32, requests: u32) -> Result<Duration> {
    let began = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let contender = contender.clone();
            tokio::spawn(async move {
                for _ in 0..requests {
                    contender.request().await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(began.elapsed())
}
