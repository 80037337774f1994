//! Many tenants with databases of their own, a tenth of them busy at a time, and few connections.
//!
//! In the tests 120 tenants; `cargo xtask soak` makes 500, of which 50 are busy at a time, with 60 connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgfleet_local::testing::OwnServer;
use pgfleet_postgres::Address;
use pgfleet_postgres::pool::{Budget, PoolOptions};
use pgfleet_route::{DirectoryOptions, Opener, Options, Router, Scope};
use secrecy::SecretString;

use crate::support::open;

/// How many tenants there are, how many are busy at a time, and the budget.
fn sizes() -> (usize, usize, usize) {
    let is_soak = std::env::var_os("PGFLEET_SOAK_ROUNDS").is_some();
    if is_soak { (500, 50, 60) } else { (120, 20, 24) }
}

struct Open;

impl Opener for Open {
    fn open(&self, sealed: &[u8], _: &str, _: &str) -> Result<SecretString, String> {
        Ok(String::from_utf8_lossy(sealed).into_owned().into())
    }
}

/// Makes the databases, four at a time, and a control database that names them.
async fn fleet(server: &OwnServer, tenants: usize) {
    let control = open(&server.superuser_url("postgres")).await;
    control
        .execute_all(&format!(
            "CREATE SCHEMA pgfleet_directory; \
             CREATE FUNCTION pgfleet_directory.version() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'; \
             CREATE FUNCTION pgfleet_directory.tenants() \
               RETURNS TABLE (tenant text, state text, connection text, sealed bytea, key_id text) LANGUAGE sql AS \
               $$ SELECT 't' || i, 'active', '', convert_to('dbname=tenant_' || i, 'UTF8'), '' \
                  FROM generate_series(0, {}) i $$",
            tenants - 1
        ))
        .await
        .unwrap();
    let makers = (0..4).map(|maker| async move {
        let admin = open(&server.superuser_url("postgres")).await;
        for tenant in (maker..tenants).step_by(4) {
            // Copied as files: that is quick where nothing is made durable.
            let sql = format!("CREATE DATABASE tenant_{tenant} TEMPLATE template0 STRATEGY FILE_COPY");
            admin.execute_all(&sql).await.unwrap();
        }
    });
    futures_util::future::join_all(makers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tenants_share_few_connections() {
    let (tenants, busy_at_once, limit) = sizes();
    let server = OwnServer::start(|options| options.max_connections = 80).await.unwrap();
    fleet(&server, tenants).await;
    let mut options = Options::new("trip", Address::parse(&server.superuser_url("postgres")).unwrap());
    options.budget = Some(limit);
    options.tenant_pool = PoolOptions { idle_timeout: Duration::from_secs(5), ..PoolOptions::for_tenants() };
    options.directory = Some(DirectoryOptions {
        address: Address::parse(&server.superuser_url("postgres")).unwrap(),
        opener: Arc::new(Open),
        interval: Duration::from_mins(1),
    });
    let router = Router::new(options);
    router.refresh().await.unwrap();
    assert_eq!(router.tenants().len(), tenants);

    let running = Arc::new(AtomicBool::new(true));
    let watch = open(&server.superuser_url("postgres")).await;
    let counting = {
        let running = running.clone();
        tokio::spawn(async move {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'trip'";
            let mut most = 0;
            while running.load(Ordering::Relaxed) {
                most = most.max(watch.simple(sql).await.unwrap()[0].get(0).unwrap().parse::<usize>().unwrap());
            }
            most
        })
    };
    let turns: Arc<Vec<AtomicUsize>> = Arc::new((0..tenants).map(|_| AtomicUsize::new(0)).collect());
    let longest = Arc::new(std::sync::Mutex::new(Duration::ZERO));
    // Fifty tenants are busy at a time, each with two requests at once; then others.
    let busy = (0..busy_at_once).map(|worker| {
        let (router, turns, longest) = (router.clone(), turns.clone(), longest.clone());
        tokio::spawn(async move {
            for tenant in (worker..tenants).step_by(busy_at_once) {
                let requests = (0..2).map(|_| {
                    let (router, turns, longest) = (router.clone(), turns.clone(), longest.clone());
                    Scope::tenant(format!("t{tenant}")).run(async move {
                        for _ in 0..2 {
                            let began = Instant::now();
                            let db = router.writer(None).await.unwrap();
                            let waited = began.elapsed();
                            let row = db.query_one("SELECT current_database()::text", &[]).await.unwrap();
                            assert_eq!(row.get::<_, &str>(0), format!("tenant_{tenant}"));
                            turns[tenant].fetch_add(1, Ordering::Relaxed);
                            let mut longest = longest.lock().unwrap();
                            *longest = waited.max(*longest);
                        }
                    })
                });
                futures_util::future::join_all(requests).await;
            }
        })
    });
    for worker in futures_util::future::join_all(busy).await {
        worker.unwrap();
    }
    running.store(false, Ordering::Relaxed);
    let most = counting.await.unwrap();
    assert!(most <= limit, "{most} connections at the server");
    assert!(turns.iter().all(|turns| turns.load(Ordering::Relaxed) == 4), "{turns:?}");
    let longest = *longest.lock().unwrap();
    assert!(longest < Duration::from_secs(15), "somebody waited for {longest:?}");
    let stats = router.budgets().iter().map(Budget::stats).max_by_key(|stats| stats.most_open).unwrap();
    assert!(stats.most_open > busy_at_once / 2 && stats.waiting == 0, "{stats:?}");
}
