//! A real primary with real streaming replicas: where reads and writes go, whatever happens to them.

use std::time::Duration;

use pgfleet_local::StopMode;
use pgfleet_local::testing::{OwnServer, Replica};
use pgfleet_postgres::pool::TransactionOptions;
use pgfleet_postgres::{Address, quote_literal};
use pgfleet_route::{Endpoints, Options, ReplicaOptions, Router, Scope, Session};

use crate::support::{open, until};

/// A primary, its replica, and a router for a role that may do what a service may.
struct Stage {
    primary: OwnServer,
    replica: Replica,
    router: Router,
}

impl Stage {
    async fn new(change: impl FnOnce(&mut ReplicaOptions)) -> Self {
        let primary = OwnServer::start(|_| {}).await.unwrap();
        let admin = open(&primary.superuser_url("postgres")).await;
        admin
            .execute_all(&format!(
                "CREATE ROLE app LOGIN PASSWORD {}; CREATE TABLE t (id int8 PRIMARY KEY, n int8 NOT NULL); \
                 INSERT INTO t VALUES (1, 0); GRANT ALL ON t TO app",
                quote_literal("x")
            ))
            .await
            .unwrap();
        let replica = primary.replica().await.unwrap();
        replica.caught_up().await.unwrap();
        let app = |url: &str| Address::parse(url).unwrap().with_user("app", Some("x".to_owned().into()));
        let mut options = Options::new(
            "trip",
            Endpoints {
                writer: app(&primary.superuser_url("postgres")),
                readers: vec![app(&replica.superuser_url("postgres"))],
            },
        );
        options.pool.min = 0;
        options.pool.connect_timeout = Duration::from_secs(5);
        options.replicas.interval = Duration::from_millis(50);
        change(&mut options.replicas);
        Self { primary, replica, router: Router::new(options) }
    }

    /// Writes a number, in a transaction or with one statement.
    async fn write(&self, number: i64) {
        if number % 2 == 0 {
            let tx = self.router.begin(None, TransactionOptions::default()).await.unwrap();
            tx.execute("UPDATE t SET n = $1", &[&number]).await.unwrap();
            tx.commit().await.unwrap();
        } else {
            let db = self.router.writer(None).await.unwrap();
            db.execute("UPDATE t SET n = $1", &[&number]).await.unwrap();
        }
    }

    /// Reads it; says also whether from the replica.
    async fn read(&self) -> (i64, bool) {
        let mut db = self.router.reader(None).await.unwrap();
        let number = db.query_one("SELECT n FROM t WHERE id = 1", &[]).await.unwrap().get(0);
        (number, db.is_replica())
    }

    async fn until_read_from_replica(&self, wanted: bool) {
        until("reads from the replica", || async { self.read().await.1 == wanted }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wrote_never_reads_older() {
    let stage = Stage::new(|_| {}).await;
    let session = Session::new();
    Scope::host()
        .with_session(session.clone())
        .run(Box::pin(async {
            let mut from_replica = 0;
            for number in 1..=80 {
                if number == 30 {
                    stage.replica.pause_replay().await.unwrap();
                }
                if number == 50 {
                    stage.replica.resume_replay().await.unwrap();
                }
                stage.write(number).await;
                // In several ways, and by somebody whom the token was sent to.
                let (read, on_replica) = stage.read().await;
                assert_eq!(read, number);
                from_replica += usize::from(on_replica);
                let tx = stage.router.reader(None).await.unwrap().begin().await.unwrap();
                assert_eq!(tx.query_one("SELECT n FROM t WHERE id = 1", &[]).await.unwrap().get::<_, i64>(0), number);
                let told = Session::parse(&session.to_string()).unwrap();
                let (read, _) = Scope::host().with_session(told).run(stage.read()).await;
                assert_eq!(read, number);
            }
            assert!(from_replica > 0, "the replica was never read");
        }))
        .await;
    // Who has not written may read older while replay is paused, and reads from the replica.
    stage.replica.caught_up().await.unwrap();
    stage.until_read_from_replica(true).await;
    stage.replica.pause_replay().await.unwrap();
    stage.write(1000).await;
    assert_eq!(stage.read().await, (80, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_is_not_read_until_it_is_near_again() {
    let stage = Stage::new(|options| options.max_lag = Duration::from_millis(400)).await;
    stage.until_read_from_replica(true).await;
    stage.replica.pause_replay().await.unwrap();
    stage.write(1).await;
    stage.until_read_from_replica(false).await;
    assert_eq!(stage.read().await, (1, false));
    let status = stage.router.replicas();
    assert!(status[0].banned.as_ref().unwrap().contains("behind"), "{status:?}");
    assert!(status[0].lag >= Duration::from_millis(400) && status[0].lag_bytes > Some(0), "{status:?}");
    stage.replica.resume_replay().await.unwrap();
    stage.until_read_from_replica(true).await;
    assert_eq!(stage.read().await, (1, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_alone_ban_as_well() {
    let stage = Stage::new(|options| options.max_lag_bytes = 100_000).await;
    stage.until_read_from_replica(true).await;
    stage.replica.pause_replay().await.unwrap();
    let db = stage.router.writer(None).await.unwrap();
    db.execute("INSERT INTO t SELECT i, i FROM generate_series(2, 5000) i", &[]).await.unwrap();
    stage.until_read_from_replica(false).await;
    stage.replica.resume_replay().await.unwrap();
    stage.until_read_from_replica(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_costs_no_read() {
    let stage = Stage::new(|_| {}).await;
    stage.until_read_from_replica(true).await;
    stage.write(7).await;
    stage.replica.kill().unwrap();
    for _ in 0..50 {
        assert_eq!(stage.read().await, (7, false));
    }
    assert!(stage.router.replicas()[0].banned.is_some());
    stage.replica.start().await.unwrap();
    stage.until_read_from_replica(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_cannot_write_wherever_they_are() {
    let stage = Stage::new(|_| {}).await;
    for on_replica in [true, false] {
        stage.until_read_from_replica(on_replica).await;
        let mut db = stage.router.reader(None).await.unwrap();
        let error = db.query("UPDATE t SET n = 99", &[]).await.unwrap_err();
        assert_eq!(error.postgres().unwrap().sql_state(), Some("25006"));
        stage.replica.kill().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_follow_the_primary() {
    let stage = Stage::new(|_| {}).await;
    let session = Session::new();
    Scope::host()
        .with_session(session.clone())
        .run(async {
            stage.write(1).await;
            let before = session.to_string();
            stage.replica.caught_up().await.unwrap();
            stage.primary.stop(StopMode::Immediate).unwrap();
            // Between the two there is nobody to write to, and reads go on.
            let failed = stage.router.writer(None).await.err().or({
                let db = stage.router.writer(None).await;
                db.err()
            });
            assert!(failed.is_none_or(|error| error.is_retryable()));
            stage.replica.promote().await.unwrap();
            until("the new primary takes writes", || async {
                match stage.router.writer(None).await {
                    Ok(db) => db.execute("UPDATE t SET n = 2", &[]).await.is_ok(),
                    Err(error) => {
                        assert!(error.is_retryable(), "{error}");
                        false
                    }
                }
            })
            .await;
            assert_eq!(stage.read().await.0, 2);
            // The token names the new timeline.
            let (old, new) = (before.split('-').nth(1).unwrap(), session.to_string());
            assert_ne!(new.split('-').nth(1).unwrap(), old, "{new}");
            stage.write(3).await;
            assert_eq!(stage.read().await.0, 3);
        })
        .await;
}
