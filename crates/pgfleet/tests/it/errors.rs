//! What went wrong in a database, as the error of a service and as what its clients are told.

use pgfleet::http::Problem;
use pgfleet::values::{Retry, Table};
use pgfleet::{Error, ErrorKind};

use crate::values_support::both;

const TABLE: &str = "CREATE TABLE drivers (id bigint PRIMARY KEY, phone text CONSTRAINT uq_phone UNIQUE, \
                     version bigint NOT NULL DEFAULT 1, is_deleted boolean NOT NULL DEFAULT false, \
                     updated_at timestamptz)";
const INSERT: &str = "INSERT INTO drivers (id, phone) VALUES ($1, 'x')";

#[tokio::test]
async fn a_violated_constraint_has_its_name_with_every_client() {
    let both = both(TABLE).await;
    both.client.execute(INSERT, &[&1_i64]).await.unwrap();
    let ours = Error::from(both.client.execute(INSERT, &[&2_i64]).await.unwrap_err());
    let of_sqlx = Error::from(sqlx::query(INSERT).bind(2_i64).execute(&both.pool).await.unwrap_err());
    for error in [ours, of_sqlx] {
        assert_eq!((error.sql_state(), error.constraint()), (Some("23505"), Some("uq_phone")));
        assert_eq!((error.kind(), error.status()), (ErrorKind::Statement, 500));
        assert!(format!("{error:#}").contains("duplicate key value"), "{error:#}");
    }
}

#[tokio::test]
async fn trouble_of_sqlx_that_can_pass_is_told_from_what_cannot() {
    let both = both(TABLE).await;
    let raised = |code: &str| format!("DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$");
    for (code, passes) in [("40001", true), ("40P01", true), ("22012", false)] {
        let sql = sqlx::AssertSqlSafe(raised(code));
        let error = Error::from(sqlx::query(sql).execute(&both.pool).await.unwrap_err());
        assert_eq!((error.sql_state(), error.is_retryable()), (Some(code), passes));
    }
    let missing = Error::from(sqlx::query("SELECT 1 WHERE false").fetch_one(&both.pool).await.unwrap_err());
    assert!(!missing.is_retryable() && missing.database().is_none(), "{missing:#}");
    let row = both.client.query_one("SELECT 'x'::text", &[]).await.unwrap();
    let wrong = Error::from(row.try_get::<_, i64>(0).unwrap_err());
    assert!(!wrong.is_retryable() && !wrong.causes().is_empty(), "{wrong:#}");
    both.pool.close().await;
    let closed = Error::from(sqlx::query("SELECT 1").execute(&both.pool).await.unwrap_err());
    assert_eq!((closed.kind(), closed.status()), (ErrorKind::Connection, 503));
}

#[tokio::test]
async fn work_that_ends_in_a_problem_is_done_again_when_another_one_was_in_its_way() {
    let both = both(TABLE).await;
    let mut tries = Retry::default().tries();
    let mut failures = vec!["40001", "40P01"];
    let done: Result<i32, Problem> = loop {
        let mut tx = both.pool.begin().await.unwrap();
        let work: Result<i32, Problem> = async {
            if let Some(code) = failures.pop() {
                let sql = sqlx::AssertSqlSafe(format!("DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$"));
                sqlx::query(sql).execute(&mut *tx).await?;
            }
            Ok(7)
        }
        .await;
        if let Some(done) = tries.end(tx, work).await {
            break done;
        }
    };
    assert_eq!((done.unwrap(), tries.done()), (7, 3));
}

#[tokio::test]
async fn a_client_that_was_too_late_learns_the_present_version() {
    const DRIVERS: Table = Table::new("drivers").versioned();
    let both = both(TABLE).await;
    both.client.execute(INSERT, &[&1_i64]).await.unwrap();
    let row = both.client.query_opt(&*DRIVERS.look(), &[&1_i64]).await.unwrap();
    let problem = Problem::from(DRIVERS.updated(row.as_ref(), 7).unwrap_err());
    assert_eq!(problem.status(), 409);
    let body: serde_json::Value = serde_json::from_str(problem.response::<String>().body()).unwrap();
    assert_eq!(body["version"], 1);
    let gone = Problem::from(DRIVERS.updated(None::<&tokio_postgres::Row>, 7).unwrap_err());
    assert_eq!(gone.status(), 404);
}
