//! Pools that are lent to sqlx, where connections are few.

use std::time::Duration;

use pgfleet::{Scope, Service, Session};
use pgfleet_local::testing::OwnServer;
use sqlx::Connection as _;

use crate::support::{TWO, database, service};

#[tokio::test]
async fn pools_that_write_and_read_leave_each_other_room() {
    for budget in [5, 8, 10, 20] {
        let database = database().await;
        let service = service(&database, TWO).budget(budget).start().await.unwrap();
        // Held, as under a load that does not end.
        let (writes, reads) = (service.sqlx().await.unwrap(), service.sqlx_reader().await.unwrap());
        for pool in [&writes, &reads] {
            pool.acquire().await.unwrap().ping().await.unwrap();
        }
        let more = async {
            let again = service.sqlx_reader().await.unwrap();
            sqlx::query("SELECT 1").execute(&*again).await.unwrap();
            service.writer().await.unwrap().execute("INSERT INTO trips VALUES (1)", &[]).await.unwrap();
            service.reader().await.unwrap().query("SELECT 1", &[]).await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(5), more)
            .await
            .unwrap_or_else(|_| panic!("nothing of {budget} is left"));
        let (writes, reads) = (writes.options().get_max_connections(), reads.options().get_max_connections());
        let half = u32::try_from(budget / 2).unwrap();
        assert!(writes < half && reads < half, "{writes} and {reads} of {budget}");
    }
}

#[tokio::test]
async fn those_who_come_at_first_and_at_once_leave_sqlx_its_connections() {
    let database = database().await;
    let service = service(&database, TWO).budget(25).start().await.unwrap();
    let ask = |number: usize| {
        let service = service.clone();
        tokio::spawn(async move {
            let pool = if number.is_multiple_of(2) { service.sqlx().await } else { service.sqlx_reader().await };
            let pool = pool.unwrap();
            sqlx::query("SELECT pg_sleep(0.05)").execute(&*pool).await.unwrap();
            pool.options().get_max_connections()
        })
    };
    let asked: Vec<_> = (0..40).map(ask).collect();
    for pool in asked {
        assert!(pool.await.unwrap() >= 5, "{}", service.pool_metrics());
    }
}

#[tokio::test]
async fn who_wrote_with_sqlx_reads_it_also_from_a_replica() {
    let primary = OwnServer::start(|_| {}).await.unwrap();
    let replica = primary.replica().await.unwrap();
    let url = primary.superuser_url("postgres");
    let service = Service::builder("trip").migrations(TWO).url(&url).migrator_url(&url);
    let service = service.read_url(replica.superuser_url("postgres")).start().await.unwrap();
    replica.caught_up().await.unwrap();
    let mut on_replica = 0;
    Scope::host()
        .with_session(Session::new())
        .run(Box::pin(async {
            for number in 1..=40_i64 {
                match number {
                    20 => replica.pause_replay().await.unwrap(),
                    30 => replica.resume_replay().await.unwrap(),
                    _ => {}
                }
                let writes = service.sqlx().await.unwrap();
                sqlx::query("INSERT INTO trips VALUES ($1)").bind(number).execute(&*writes).await.unwrap();
                writes.note_write().await;
                drop(writes);
                let reads = service.sqlx_reader().await.unwrap();
                let sql = "SELECT count(*), pg_is_in_recovery() FROM trips";
                let (count, is_replica): (i64, bool) = sqlx::query_as(sql).fetch_one(&*reads).await.unwrap();
                assert_eq!(count, number, "older than what was written");
                on_replica += i32::from(is_replica);
            }
        }))
        .await;
    assert!(on_replica > 0, "no replica was read");
    let reads = service.sqlx_reader().await.unwrap();
    let error = sqlx::query("DELETE FROM trips").execute(&*reads).await.unwrap_err();
    assert_eq!(pgfleet::Error::from(error).sql_state(), Some("25006"));
}
