//! Transactions that are done again.

use std::sync::Arc;
use std::time::Duration;

use pgfleet::values::{CommitError, Retry};
use tokio::sync::Barrier;
use tokio_postgres::{Client, IsolationLevel};

use crate::support::database;
use crate::values_support::{Both, both, chain, client};

/// Errors as services have them: one that shows itself, and one that hands on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the transaction was not ended")]
    Commit(#[from] CommitError),
    #[error("the database refused")]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    #[error("no seat is left")]
    Full,
}

/// Short waits, since nobody is in the way for long.
fn quick() -> Retry {
    Retry::default().waits(Duration::from_millis(1), Duration::from_millis(20))
}

const SEATS: &str =
    "CREATE TABLE seats (id int PRIMARY KEY, taken int NOT NULL DEFAULT 0); INSERT INTO seats VALUES (1), (2)";

/// Fails with that SQLSTATE, as long as it is asked to.
async fn fail(tx: &tokio_postgres::Transaction<'_>, code: &str) -> Result<(), Error> {
    tx.execute("INSERT INTO seats SELECT max(id) + 1 FROM seats", &[]).await?;
    let sql = format!("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$");
    Ok(tx.batch_execute(&sql).await?)
}

async fn count(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM seats", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_fails_for_good_is_tried_as_often_as_said() {
    let Both { mut client, database: _database, .. } = both(SEATS).await;
    for (policy, code, expected) in [
        (quick(), "40001", 5),
        (quick(), "40P01", 5),
        (quick().most(2), "40001", 2),
        (quick().most(0), "40001", 1),
        (quick(), "55P03", 1),
        (quick().on_lock_timeout(), "55P03", 5),
        (quick(), "23505", 1),
        (quick(), "57014", 1),
    ] {
        let mut tries = policy.tries();
        let error = loop {
            let tx = client.transaction().await.unwrap();
            let result = fail(&tx, code).await;
            if let Some(done) = tries.end(tx, result).await {
                break done.unwrap_err();
            }
        };
        assert_eq!(tries.done(), expected, "{code}");
        match error {
            Error::Postgres(error) => assert_eq!(error.code().unwrap().code(), code),
            other => panic!("{other}"),
        }
        assert_eq!(count(&client).await, 2, "rolled back");
    }
}

#[tokio::test]
async fn an_error_of_ones_own_is_rolled_back_and_not_tried_again() {
    let Both { mut client, pool, database: _database } = both(SEATS).await;
    let mut tries = quick().tries();
    let tx = client.transaction().await.unwrap();
    tx.execute("INSERT INTO seats VALUES (3)", &[]).await.unwrap();
    let done = tries.end(tx, Err::<(), _>(Error::Full)).await;
    assert!(matches!(done, Some(Err(Error::Full))));
    let tx = pool.begin().await.unwrap();
    assert!(matches!(tries.end(tx, Err::<(), _>(Error::Full)).await, Some(Err(Error::Full))));
    assert_eq!((count(&client).await, tries.done()), (2, 2));
}

/// Takes the next seat in a serializable transaction; says which one, and how often that was tried. The first try waits
/// for another one twice: when it has read, and when it has written.
async fn take(mut client: Client, policy: Retry, meet: Arc<Barrier>) -> Result<(i64, u32), Error> {
    let mut tries = policy.tries();
    let id = loop {
        let tx = client.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
        let result = next_seat(&tx, (tries.done() == 0).then_some(&*meet)).await;
        if let Some(done) = tries.end(tx, result).await {
            break done?;
        }
    };
    Ok((id, tries.done()))
}

async fn next_seat(tx: &tokio_postgres::Transaction<'_>, meet: Option<&Barrier>) -> Result<i64, Error> {
    let taken: i64 = tx.query_one("SELECT sum(taken) FROM seats", &[]).await?.get(0);
    if let Some(meet) = meet {
        meet.wait().await;
    }
    // Each session has a row of its own, or they would wait for each other.
    tx.execute("UPDATE seats SET taken = 1 WHERE id = current_setting('test.seat')::int", &[]).await?;
    if let Some(meet) = meet {
        meet.wait().await;
    }
    Ok(taken)
}

async fn two_takers(policy: Retry) -> Vec<Result<(i64, u32), Error>> {
    let database = database().await;
    client(&database).await.batch_execute(SEATS).await.unwrap();
    let meet = Arc::new(Barrier::new(2));
    let mut tasks = tokio::task::JoinSet::new();
    for seat in 1..=2 {
        let client = client(&database).await;
        client.batch_execute(&format!("SET test.seat = {seat}")).await.unwrap();
        // In tasks of their own, as handlers of a web server are.
        tasks.spawn(take(client, policy, Arc::clone(&meet)));
    }
    tasks.join_all().await
}

#[tokio::test]
async fn of_two_that_do_not_fit_together_one_is_done_again() {
    let results = two_takers(quick()).await;
    let mut results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    results.sort_unstable();
    // One after the other: the second has seen what the first did.
    assert_eq!(results, [(0, 1), (1, 2)]);
}

#[tokio::test]
async fn a_commit_that_the_server_refuses_is_known_to_have_failed() {
    let results = two_takers(quick().most(1)).await;
    let (done, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), failed.len()), (1, 1));
    let Some(Err(Error::Commit(error))) = failed.into_iter().next() else { panic!("not the commit") };
    assert!(!error.is_unknown());
    let text = chain(&error);
    assert!(text.starts_with("the transaction was not committed: ") && text.contains("could not serialize"), "{text}");
}

/// Locks two rows, in the given order; the first try waits for another one in between.
async fn lock_both(pool: sqlx::PgPool, order: [i32; 2], meet: Arc<Barrier>) -> Result<u32, Error> {
    let mut tries = quick().tries();
    loop {
        let mut tx = pool.begin().await?;
        let is_first = tries.done() == 0;
        let result = async {
            sqlx::query("SET LOCAL deadlock_timeout = '20ms'").execute(&mut *tx).await?;
            for (at, id) in order.iter().enumerate() {
                sqlx::query("UPDATE seats SET taken = taken + 1 WHERE id = $1").bind(id).execute(&mut *tx).await?;
                if is_first && at == 0 {
                    meet.wait().await;
                }
            }
            Ok::<(), Error>(())
        };
        let result = result.await;
        if let Some(done) = tries.end(tx, result).await {
            done?;
            return Ok(tries.done());
        }
    }
}

#[tokio::test]
async fn a_deadlock_ends_with_both_done() {
    let Both { client, pool, database: _database } = both(SEATS).await;
    let meet = Arc::new(Barrier::new(2));
    let tasks = [[1, 2], [2, 1]].map(|order| tokio::spawn(lock_both(pool.clone(), order, Arc::clone(&meet))));
    let mut tried = Vec::new();
    for task in tasks {
        tried.push(task.await.unwrap().unwrap());
    }
    assert!(tried.iter().sum::<u32>() >= 3, "there was no deadlock: {tried:?}");
    let taken: i64 = client.query_one("SELECT sum(taken) FROM seats", &[]).await.unwrap().get(0);
    assert_eq!(taken, 4);
}

#[tokio::test]
async fn a_lock_that_is_given_back_is_had_by_the_next_try() {
    let Both { mut client, pool, database: _database } = both(SEATS).await;
    let mut holder = Some(pool.begin().await.unwrap());
    sqlx::query("SELECT FROM seats WHERE id = 1 FOR UPDATE").execute(&mut **holder.as_mut().unwrap()).await.unwrap();
    let mut tries = quick().on_lock_timeout().tries();
    let taken: i32 = loop {
        let tx = client.transaction().await.unwrap();
        let sql = "SELECT taken FROM seats WHERE id = 1 FOR UPDATE NOWAIT";
        let result = tx.query_one(sql, &[]).await.map(|row| row.get(0)).map_err(Error::from);
        if let Some(done) = tries.end(tx, result).await {
            break done.unwrap();
        }
        if let Some(holder) = holder.take() {
            holder.commit().await.unwrap();
        }
    };
    assert_eq!((taken, tries.done()), (0, 2));
}

/// Ends the session while it commits.
const DIES: &str = "CREATE TABLE seats (id int PRIMARY KEY); \
    CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); RETURN NULL; END $$; \
    CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON seats DEFERRABLE INITIALLY DEFERRED \
    FOR EACH ROW EXECUTE FUNCTION die()";

fn assert_unknown(done: Option<Result<(), Error>>) {
    let Some(Err(Error::Commit(error))) = done else { panic!("{done:?}") };
    assert!(error.is_unknown());
    assert!(error.to_string().contains("nobody knows"), "{error}");
}

#[tokio::test]
async fn a_connection_that_is_lost_at_the_commit_leaves_it_open() {
    let Both { mut client, pool, database } = both(DIES).await;
    let mut tries = quick().tries();
    let tx = client.transaction().await.unwrap();
    tx.execute("INSERT INTO seats VALUES (1)", &[]).await.unwrap();
    assert_unknown(tries.end(tx, Ok(())).await);

    let mut tx = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO seats VALUES (1)").execute(&mut *tx).await.unwrap();
    assert_unknown(tries.end(tx, Ok(())).await);

    // Gone already when it was asked to commit, and nothing says why.
    let mut client = crate::values_support::client(&database).await;
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let tx = client.transaction().await.unwrap();
    sqlx::query("SELECT pg_terminate_backend($1, 10000)").bind(backend).execute(&pool).await.unwrap();
    assert_unknown(tries.end(tx, Ok(())).await);
    assert_eq!(tries.done(), 3);
}
