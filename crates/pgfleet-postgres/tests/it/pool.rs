//! Pools on real servers: what they keep, what they share, and what they never hand on.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgfleet_local::testing::{PoolMode, Pooler, Proxy, TestDatabase, TestServer, Weather};
use pgfleet_postgres::lsn::Token;
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions, Statements, TransactionOptions};
use pgfleet_postgres::{Address, Connection, ErrorKind, Purpose, connect, quote_ident};

/// A database, a name that its connections bear, and one connection to look from.
struct Stage {
    database: TestDatabase,
    name: String,
    watch: Connection,
}

impl Stage {
    async fn new() -> Self {
        let database = TestServer::shared().await.database().await;
        let watch = connect(&Address::parse(&database.url()).unwrap(), &Purpose::new("watch")).await.unwrap();
        Self { name: format!("pool {}", database.name), database, watch }
    }

    fn pool(&self, budget: &Budget, options: PoolOptions) -> Pool {
        Pool::new(budget, Address::parse(&self.database.url()).unwrap(), Purpose::new(&self.name), options)
    }

    async fn number(&self, sql: &str) -> i64 {
        self.watch.simple(sql).await.unwrap()[0].get(0).unwrap().parse().unwrap()
    }

    /// How many sessions the server has of this stage's pools.
    async fn sessions(&self) -> i64 {
        self.number(&format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'", self.name)).await
    }

    async fn until(&self, what: &str, sql: &str, wanted: i64) {
        let began = Instant::now();
        loop {
            let found = self.number(sql).await;
            if found == wanted {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{what}: {found} instead of {wanted}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The processes of the sessions, with commas between them.
    async fn pids(&self) -> String {
        let sql = format!(
            "SELECT coalesce(string_agg(pid::text, ','), '') FROM pg_stat_activity WHERE application_name = '{}'",
            self.name
        );
        self.watch.simple(&sql).await.unwrap()[0].get(0).unwrap().to_owned()
    }

    async fn until_sessions(&self, wanted: i64) {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'", self.name);
        self.until("sessions", &sql, wanted).await;
    }
}

/// Waits until no more than this is open: what is closed gives its slot back a moment later.
async fn until_settled(budget: &Budget, open: usize) {
    let began = Instant::now();
    while budget.stats().open != open {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", budget.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn small(max: usize) -> PoolOptions {
    PoolOptions { max, min: 0, ..PoolOptions::default() }
}

#[tokio::test]
async fn a_connection_is_used_again_and_its_statements_are_prepared_once() {
    let stage = Stage::new().await;
    let budget = Budget::new("test", 10);
    let pool = stage.pool(&budget, small(3));
    let mut pids = HashSet::new();
    for at in 0..5_i64 {
        let db = pool.get().await.unwrap();
        assert!(db.is_named());
        let row = db.query_one("SELECT $1::int8 + 1, pg_backend_pid()", &[&at]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), at + 1);
        pids.insert(row.get::<_, i32>(1));
    }
    assert_eq!(pids.len(), 1);
    let db = pool.get().await.unwrap();
    let count = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::int8 + 1%'";
    assert_eq!(db.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 1);
    let stats = pool.stats();
    assert_eq!((stats.open, stats.in_use, stats.opened, stats.taken), (1, 1, 1, 6));
}

#[tokio::test]
async fn preparing_can_be_turned_off() {
    let stage = Stage::new().await;
    let budget = Budget::new("test", 10);
    let pool = stage.pool(&budget, PoolOptions { statements: Statements::Off, ..small(1) });
    let db = pool.get().await.unwrap();
    for _ in 0..3 {
        assert_eq!(db.query_one("SELECT $1::text || 'b'", &[&"a"]).await.unwrap().get::<_, &str>(0), "ab");
    }
    assert_eq!(db.query_one("SELECT count(*) FROM pg_prepared_statements", &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn statements_work_behind_a_pooler_in_both_modes() {
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        let stage = Stage::new().await;
        stage
            .watch
            .execute_all("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE t (id int8, m mood)")
            .await
            .unwrap();
        let pooler = Pooler::start(&stage.database.url(), |options| {
            options.mode = mode;
            // Fewer sessions than clients: in transaction mode statements of one client run in several of them.
            options.pool_size = if mode == PoolMode::Transaction { 2 } else { 8 };
        })
        .await;
        let budget = Budget::new("test", 6);
        let address = Address::parse(&pooler.url(&stage.database.url())).unwrap();
        let pool = Pool::new(&budget, address, Purpose::new("behind"), small(6));
        let tasks = (0..6_i64).map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for round in 0..20_i64 {
                    let db = pool.get().await.unwrap();
                    assert!(!db.is_named());
                    let id = task * 100 + round;
                    let done = db.execute("INSERT INTO t VALUES ($1, $2::text::mood)", &[&id, &"ok"]).await.unwrap();
                    assert_eq!(done, 1);
                    let row = db.query_one("SELECT m::text FROM t WHERE id = $1", &[&id]).await.unwrap();
                    assert_eq!(row.get::<_, &str>(0), "ok");
                    let tx = db.begin(TransactionOptions::default()).await.unwrap();
                    tx.execute("UPDATE t SET m = 'sad' WHERE id = $1", &[&id]).await.unwrap();
                    if round % 2 == 0 { tx.commit().await.unwrap() } else { drop(tx) }
                }
            })
        });
        futures_util::future::join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
        assert_eq!(stage.number("SELECT count(*) FROM t").await, 120, "{mode:?}");
        assert_eq!(stage.number("SELECT count(*) FROM t WHERE m = 'sad'").await, 60, "{mode:?}");
    }
}

#[tokio::test]
async fn a_table_that_changes_its_columns_breaks_no_prepared_statement() {
    let stage = Stage::new().await;
    stage.watch.execute_all("CREATE TABLE t (id int8); INSERT INTO t VALUES (1)").await.unwrap();
    let budget = Budget::new("test", 10);
    let pool = stage.pool(&budget, small(1));
    let db = pool.get().await.unwrap();
    assert_eq!(db.query_one("SELECT * FROM t", &[]).await.unwrap().len(), 1);
    stage.watch.execute_all("ALTER TABLE t ADD COLUMN more text").await.unwrap();
    assert_eq!(db.query_one("SELECT * FROM t", &[]).await.unwrap().len(), 2);
    // In a transaction the first one fails, and the next one works.
    let tx = db.begin(TransactionOptions::default()).await.unwrap();
    stage.watch.execute_all("ALTER TABLE t ADD COLUMN yet text").await.unwrap();
    let error = tx.query("SELECT * FROM t", &[]).await.unwrap_err();
    assert_eq!(error.sql_state(), Some("0A000"));
    drop(tx);
    let db = pool.get().await.unwrap();
    assert_eq!(db.query_one("SELECT * FROM t", &[]).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_transaction_ends_with_its_value() {
    let stage = Stage::new().await;
    stage.watch.execute_all("CREATE TABLE t (id int8 UNIQUE DEFERRABLE INITIALLY DEFERRED)").await.unwrap();
    let budget = Budget::new("test", 10);
    let pool = stage.pool(&budget, small(1));
    let tx = pool.begin().await.unwrap();
    tx.execute("INSERT INTO t VALUES ($1)", &[&1_i64]).await.unwrap();
    drop(tx);
    assert_eq!(stage.number("SELECT count(*) FROM t").await, 0, "dropped");
    let tx = pool.begin().await.unwrap();
    tx.execute("INSERT INTO t VALUES ($1)", &[&1_i64]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.number("SELECT count(*) FROM t").await, 1);
    // What fails at the commit says so, and what failed before cannot be committed.
    let tx = pool.begin().await.unwrap();
    tx.execute("INSERT INTO t VALUES ($1)", &[&1_i64]).await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err().sql_state(), Some("23505"));
    let tx = pool.begin().await.unwrap();
    tx.execute("INSERT INTO t VALUES ($1)", &[&2_i64]).await.unwrap();
    tx.query("SELECT 1 / 0", &[]).await.unwrap_err();
    assert_eq!(tx.commit().await.unwrap_err().sql_state(), Some("25P02"));
    assert_eq!(stage.number("SELECT count(*) FROM t").await, 1);
    // All that on one connection, which is none the worse for it.
    assert_eq!(pool.stats().opened, 1);
    let db = pool.get().await.unwrap();
    assert_eq!(db.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn what_comes_after_a_commit_comes_after_none_that_is_refused() {
    let stage = Stage::new().await;
    stage.watch.execute_all("CREATE TABLE t (id int8 UNIQUE DEFERRABLE INITIALLY DEFERRED)").await.unwrap();
    let budget = Budget::new("test", 10);
    let pool = stage.pool(&budget, small(1));
    let said = Arc::new(Mutex::new(Vec::new()));
    let begin = async || {
        let mut tx = pool.begin().await.unwrap();
        for word in ["first", "second"] {
            let said = Arc::clone(&said);
            tx.after_commit(Box::new(move || said.lock().unwrap().push(word)));
        }
        tx.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
        tx
    };
    drop(begin().await);
    begin().await.rollback().await.unwrap();
    assert!(said.lock().unwrap().is_empty());
    begin().await.commit().await.unwrap();
    assert_eq!(std::mem::take(&mut *said.lock().unwrap()), ["first", "second"]);
    // Refused by the deferred constraint.
    begin().await.commit().await.unwrap_err();
    assert!(begin().await.commit_and_look().await.0.is_err());
    assert!(said.lock().unwrap().is_empty());
    stage.watch.execute_all("DELETE FROM t").await.unwrap();
    begin().await.commit_with_token().await.unwrap();
    assert_eq!(*said.lock().unwrap(), ["first", "second"]);
}

#[tokio::test]
async fn a_request_that_was_given_up_is_cancelled_and_its_connection_not_handed_on() {
    let stage = Stage::new().await;
    let budget = Budget::new("test", 2);
    let pool = stage.pool(&budget, small(2));
    for in_transaction in [false, true] {
        let began = Instant::now();
        let given_up = async {
            if in_transaction {
                pool.begin().await.unwrap().batch("SELECT pg_sleep(60)").await
            } else {
                pool.get().await.unwrap().batch("SELECT pg_sleep(60)").await
            }
        };
        let sleeps = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' \
                              AND state = 'active' AND query LIKE '%pg_sleep%'",
            stage.name
        );
        tokio::select! {
            ended = given_up => panic!("{ended:?}"),
            () = stage.until("sleeping", &sleeps, 1) => {}
        }
        let db = pool.get().await.unwrap();
        assert_eq!(db.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
        stage.until("cancelled", &sleeps, 0).await;
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    stage.until_sessions(1).await;
}

#[tokio::test]
async fn who_waits_too_long_is_told_who_holds_the_connections() {
    let stage = Stage::new().await;
    let budget = Budget::new("test", 10);
    let pool = stage.pool(&budget, PoolOptions { connect_timeout: Duration::from_millis(200), ..small(1) });
    let held = pool.get().await.unwrap();
    let line = line!() - 1;
    let error = pool.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.is_retryable());
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.starts_with("1 of this pool's 1 are open"), "{why}");
    assert!(why.contains(&format!("{}:{line}:", file!())), "{why}");
    assert_eq!((pool.stats().timeouts, pool.stats().waiting, budget.stats().waiting), (1, 0, 0));
    drop(held);
    pool.get().await.unwrap();
}

#[tokio::test]
async fn a_statement_ends_at_its_time_out() {
    let stage = Stage::new().await;
    let budget = Budget::new("test", 10);
    let pool = stage.pool(&budget, PoolOptions { command_timeout: Some(Duration::from_millis(300)), ..small(1) });
    let db = pool.get().await.unwrap();
    let began = Instant::now();
    let error = db.batch("SELECT pg_sleep(60)").await.unwrap_err();
    assert_eq!(error.sql_state(), Some("57014"));
    assert!(began.elapsed() < Duration::from_secs(5));
    // The server ended it; the connection is as good as before.
    assert_eq!(db.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    drop(db);
    assert_eq!(pool.stats().opened, 1);
}

#[tokio::test]
async fn time_outs_hold_on_a_network_that_stalls() {
    let server = TestServer::shared().await;
    let database = server.database().await;
    let proxy = Proxy::start(server.port()).await;
    let through = format!("host=127.0.0.1 port={}", proxy.port());
    let address = Address::parse(&database.url()).unwrap().by_way_of(&through).unwrap();
    let limit = Duration::from_secs(1);
    let budget = Budget::new("test", 1);
    let options = PoolOptions { command_timeout: Some(limit), connect_timeout: limit, ..small(1) };
    let pool = Pool::new(&budget, address, Purpose::new("stalled"), options);
    let db = pool.get().await.unwrap();
    db.query("SELECT 1", &[]).await.unwrap();
    proxy.set(Weather::Stalled);
    let began = Instant::now();
    let error = db.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() < limit + Duration::from_secs(1), "{:?}", began.elapsed());
    drop(db);
    // Neither can a new one be had, and that is said in time as well.
    let began = Instant::now();
    assert!(pool.get().await.is_err());
    assert!(began.elapsed() < limit + Duration::from_secs(1), "{:?}", began.elapsed());
    proxy.set(Weather::Fair);
    let began = Instant::now();
    while pool.get().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the slot was lost: {:?}", budget.stats());
    }
}

#[tokio::test]
async fn idle_connections_are_closed_down_to_the_minimum() {
    let stage = Stage::new().await;
    let budget = Budget::new("test", 10);
    let options = PoolOptions { min: 1, idle_timeout: Duration::from_millis(200), ..small(4) };
    let pool = stage.pool(&budget, options);
    let all = futures_util::future::join_all((0..4).map(|_| pool.get())).await;
    assert_eq!(stage.sessions().await, 4);
    drop(all);
    stage.until_sessions(1).await;
    until_settled(&budget, 1).await;
    // One that is lost is opened again before anybody asks. The one that is ended is there a little longer.
    let lost = stage.pids().await;
    stage
        .watch
        .execute_all(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
            stage.name
        ))
        .await
        .unwrap();
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND pid <> ALL ('{{{lost}}}')",
        stage.name
    );
    stage.until("new sessions", &sql, 1).await;
    let db = pool.get().await.unwrap();
    assert_eq!(db.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test]
async fn a_server_that_is_full_is_waited_for() {
    let stage = Stage::new().await;
    let role = format!("{}_limited", stage.database.name);
    let quoted = quote_ident(&role);
    stage.watch.execute_all(&format!("CREATE ROLE {quoted} LOGIN PASSWORD 'x' CONNECTION LIMIT 1")).await.unwrap();
    let address = Address::parse(&stage.database.url()).unwrap().with_user(&role, Some("x".to_owned().into()));
    let other = connect(&address, &Purpose::new("other")).await.unwrap();
    let budget = Budget::new("test", 10);
    let pool = Pool::new(&budget, address.clone(), Purpose::new("limited"), small(4));
    let waits = tokio::spawn(async move { pool.get().await.map(|_| ()) });
    let full = Pool::new(
        &budget,
        address,
        Purpose::new("limited"),
        PoolOptions { connect_timeout: Duration::from_millis(300), ..small(4) },
    );
    assert_eq!(full.get().await.unwrap_err().kind(), ErrorKind::Exhausted);
    assert!(!waits.is_finished());
    other.close().await;
    waits.await.unwrap().unwrap();
    drop(full);
    let began = Instant::now();
    while stage.watch.execute_all(&format!("DROP ROLE {quoted}")).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

/// Many pools, one budget: never more at the server, nobody starves, everything is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pools_never_hold_more_than_their_budget() {
    const POOLS: usize = 40;
    const LIMIT: usize = 6;
    let stage = Stage::new().await;
    let budget = Budget::new("test", LIMIT);
    let pools: Vec<Pool> = (0..POOLS).map(|_| stage.pool(&budget, small(3))).collect();
    let running = Arc::new(AtomicBool::new(true));
    let most = {
        let (running, name, url) = (running.clone(), stage.name.clone(), stage.database.url());
        tokio::spawn(async move {
            let watch = connect(&Address::parse(&url).unwrap(), &Purpose::new("count")).await.unwrap();
            let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
            let mut most = 0;
            while running.load(Ordering::Relaxed) {
                let count: usize = watch.simple(&sql).await.unwrap()[0].get(0).unwrap().parse().unwrap();
                most = most.max(count);
            }
            most
        })
    };
    let done: Vec<Arc<AtomicUsize>> = (0..POOLS).map(|_| Arc::default()).collect();
    let tasks: Vec<_> = (0..POOLS * 3)
        .map(|task| {
            let (pool, done, running) = (pools[task % POOLS].clone(), done[task % POOLS].clone(), running.clone());
            tokio::spawn(async move {
                while running.load(Ordering::Relaxed) {
                    let db = pool.get().await.unwrap();
                    db.query_one("SELECT 1", &[]).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // Until the slowest pool has had ten turns.
    let began = Instant::now();
    while done.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap() < 10 {
        assert!(began.elapsed() < Duration::from_mins(1), "a pool starves: {done:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.store(false, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let most = most.await.unwrap();
    assert!(most <= LIMIT, "{most} sessions at the server");
    let stats = budget.stats();
    assert_eq!((stats.most_open, stats.waiting), (LIMIT, 0));
    assert!(stats.waits.count() > 0 && stats.stolen > 0);
    let idle = stats.idle;
    until_settled(&budget, idle).await;
}

#[tokio::test]
async fn what_is_idle_goes_to_who_needs_it_at_once() {
    let stage = Stage::new().await;
    let budget = Budget::new("test", 2);
    let (one, two) = (stage.pool(&budget, small(2)), stage.pool(&budget, small(2)));
    drop(futures_util::future::join_all([one.get(), one.get()]).await);
    assert_eq!(one.stats().idle, 2);
    let held = two.get().await.unwrap();
    assert_eq!((one.stats().open, two.stats().open, budget.stats().stolen), (1, 1, 1));
    drop(held);
    // A pool that is dropped gives all back.
    drop(one);
    stage.until_sessions(1).await;
    until_settled(&budget, 1).await;
}

#[tokio::test]
async fn dropped_waiters_lose_nothing() {
    let stage = Stage::new().await;
    let budget = Budget::new("test", 2);
    let pool = stage.pool(&budget, small(2));
    let other = stage.pool(&budget, small(2));
    for round in 0..40 {
        let held = [pool.get().await.unwrap(), pool.get().await.unwrap()];
        let mut waits: Vec<_> = (0..6)
            .map(|at| {
                let pool = if at % 2 == 0 { pool.clone() } else { other.clone() };
                tokio::spawn(async move { pool.get().await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        if round % 2 == 0 {
            waits[0].abort();
        }
        drop(held);
        waits[3].abort();
        if round % 3 == 0 {
            waits[5].abort();
        }
        for wait in waits.drain(..) {
            if let Ok(taken) = wait.await {
                taken.unwrap();
            }
        }
    }
    assert_eq!((budget.stats().waiting, pool.stats().in_use, other.stats().in_use), (0, 0, 0));
    let idle = budget.stats().idle;
    until_settled(&budget, idle).await;
    stage.until_sessions(i64::try_from(idle).unwrap()).await;
}

#[tokio::test]
async fn a_commit_says_what_a_reader_must_have_seen() {
    let stage = Stage::new().await;
    stage.watch.execute_all("CREATE TABLE t (id int8)").await.unwrap();
    let budget = Budget::new("test", 2);
    let pool = stage.pool(&budget, small(2));
    let before = pool.get().await.unwrap().token().await.unwrap();
    let tx = pool.begin().await.unwrap();
    tx.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    let token = tx.commit_with_token().await.unwrap();
    assert_eq!((token.system, token.timeline), (before.system, before.timeline));
    assert!(token.lsn > before.lsn, "{token} after {before}");
    assert_eq!(token.later(before), token);
    assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
    let system = stage.number("SELECT system_identifier FROM pg_control_system()").await;
    assert_eq!(token.system, system.cast_unsigned());
}

/// What is prepared on the way must not let the second request overtake the first.
#[tokio::test]
async fn what_is_asked_with_a_statement_keeps_its_place() {
    let stage = Stage::new().await;
    stage.watch.execute_all("CREATE TABLE t (id int8)").await.unwrap();
    let budget = Budget::new("test", 1);
    for statements in [Statements::Named, Statements::Unnamed, Statements::Off] {
        let pool = stage.pool(&budget, PoolOptions { statements, ..small(1) });
        let db = pool.get().await.unwrap();
        // Now the position is prepared, and what is written below is not.
        let before = db.token().await.unwrap();
        let insert = "INSERT INTO t SELECT generate_series(1, 10000)";
        let (touched, token) = db.execute_and_look(insert, &[]).await.unwrap();
        let wrote = token.unwrap().lsn.0 - before.lsn.0;
        assert!(touched == 10_000 && wrote > 300_000, "{statements:?}: {wrote} bytes");
        let (rows, token) = db.query_and_look(&format!("{insert} RETURNING id"), &[]).await.unwrap();
        let wrote = token.unwrap().lsn.0 - before.lsn.0;
        assert!(rows.len() == 10_000 && wrote > 600_000, "{statements:?}: {wrote} bytes");

        let clock = "SELECT extract(epoch FROM clock_timestamp())::float8 AS now";
        db.query(clock, &[]).await.unwrap();
        let question = ("SELECT extract(epoch FROM clock_timestamp())::float8", &[][..]);
        let (first, second) = db.query_behind(question, clock, &[]).await.unwrap();
        let (first, second): (f64, f64) = (first[0].get(0), second.unwrap()[0].get(0));
        assert!(first < second, "{statements:?}: {first} and {second}");
        // The statement's failure is not the question's.
        let (answer, failed) = db.query_behind(("SELECT 1", &[]), "SELECT 1 / 0", &[]).await.unwrap();
        assert_eq!((answer.len(), failed.unwrap_err().sql_state()), (1, Some("22012")));
        let (answer, failed) = db.query_behind(("SELECT 1", &[]), "SELECT * FROM nowhere", &[]).await.unwrap();
        assert_eq!((answer.len(), failed.unwrap_err().sql_state()), (1, Some("42P01")));
    }
}
