//! Publishing in transactions of several libraries, and what is seen of them when.

use std::time::Duration;

use pgfleet_events_postgres::{Inbox, RelayOptions};
use pgfleet_local::testing::{OwnServer, TestServer};
use pgfleet_postgres::{Address, Purpose, connect};

use crate::support::{Bench, Scripted, numbered, options, pool, until};

#[tokio::test]
async fn the_clients_own_transactions_publish() {
    let bench = Bench::new().await;
    let transport = Scripted::default();
    let _relay = bench.relay(&transport);
    let mut client = bench.connect().await.into_client();
    let mut tx = client.transaction().await.unwrap();
    bench.outbox.publish(&mut tx, numbered(1)).await.unwrap();
    {
        let mut inner = tx.savepoint("sp").await.unwrap();
        bench.outbox.publish(&mut inner, numbered(2)).await.unwrap();
        inner.rollback().await.unwrap();
        let mut inner = tx.savepoint("sp").await.unwrap();
        bench.outbox.publish(&mut inner, numbered(3)).await.unwrap();
        inner.commit().await.unwrap();
    }
    tx.commit().await.unwrap();
    bench.outbox.publish(&mut client, numbered(4)).await.unwrap();
    transport.wait_for(3).await;
    assert_eq!(transport.data(), ["1", "3", "4"]);
}

#[cfg(feature = "sqlx")]
#[tokio::test]
async fn transactions_of_sqlx_publish_and_note_what_was_handled() {
    use pgfleet_events_postgres::Outbox;
    use pgfleet_events_postgres::inbox::Begun;
    use sqlx::Connection as _;

    let bench = Bench::new().await;
    let transport = Scripted::default();
    let _relay = bench.relay(&transport);
    let mut connection = sqlx::PgConnection::connect(&bench.database.url()).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    bench.outbox.publish(&mut tx, numbered(1).key("a")).await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    bench.outbox.publish(&mut *tx, numbered(2).key("a")).await.unwrap();
    bench.outbox.publish_all(&mut tx, &[numbered(3), numbered(4)]).await.unwrap();
    tx.commit().await.unwrap();
    transport.wait_for(3).await;
    assert_eq!(transport.data(), ["2", "3", "4"]);
    let inbox = Inbox::new("public", "notifications");
    let message = transport.messages().remove(0);
    for expected in [Begun::New, Begun::Duplicate] {
        let mut tx = connection.begin().await.unwrap();
        assert_eq!(inbox.begin(&mut tx, &message).await.unwrap(), expected);
        tx.commit().await.unwrap();
    }
    let error = Outbox::new("nowhere", "trip").publish(&mut connection, numbered(5)).await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn nobody_waits_for_a_strangers_transaction() {
    let bench = Bench::new().await;
    let elsewhere = Bench::new().await;
    let transport = Scripted::default();
    // Transactions that have an id: here, in another database, and one that only reads an old state.
    let stranger = bench.connect().await;
    stranger.execute_all("BEGIN; CREATE TABLE strange (id int)").await.unwrap();
    let other = elsewhere.connect().await;
    other.execute_all("BEGIN; CREATE TABLE strange (id int)").await.unwrap();
    let reader = bench.connect().await;
    reader.execute_all("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    // And one whose message comes later, with an older id and a lower number than those that are carried meanwhile.
    let mut late = bench.pool.begin().await.unwrap();
    bench.outbox.publish(&mut late, numbered(99)).await.unwrap();
    let _relay = bench.relay(&transport);
    for n in 0..20 {
        bench.publish(numbered(n)).await;
        bench.outbox.wake();
    }
    transport.wait_for(20).await;
    late.commit().await.unwrap();
    transport.wait_for(21).await;
    assert_eq!(transport.data().last().unwrap(), "99");
    assert!(!bench.outbox.status(&bench.pool).await.unwrap().horizon.is_empty());
    stranger.execute_all("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn a_long_window_is_carried_in_order_also_when_relays_die_in_it() {
    let bench = Bench::new().await;
    let messages: Vec<_> = (0..1_234).map(|n| numbered(n).key("a")).collect();
    for part in messages.chunks(100) {
        let mut tx = bench.pool.begin().await.unwrap();
        bench.outbox.publish_all(&mut tx, part).await.unwrap();
        tx.commit().await.unwrap();
    }
    let transport = Scripted::default();
    let small = RelayOptions { batch: 10, lease: Duration::from_millis(100), ..options() };
    for step in [100, 300, 550, 900] {
        let relay = bench.relay_with(&transport, small.clone());
        transport.wait_for(step).await;
        drop(relay);
    }
    let _relay = bench.relay_with(&transport, small);
    until("all are there", async || transport.data().iter().any(|data| data == "1233")).await;
    // Repeated ones aside, the order is the one in which they were committed.
    let mut next = 0;
    for data in transport.data() {
        let n: usize = data.parse().unwrap();
        assert!(n <= next, "{n} before {next}");
        next = next.max(n + 1);
    }
    assert_eq!(next, 1_234);
    until("the window is closed", async || bench.outbox.status(&bench.pool).await.unwrap().pending == 0).await;
}

/// Transactions draw their ids early, wait, insert, wait, and commit or roll back, few at a time; so ids, numbers and commits
/// are in different orders.
#[tokio::test]
async fn whatever_commits_when_arrives_once_and_in_order() {
    let bench = Bench::new().await;
    let transport = Scripted::default();
    let _relay = bench.relay_with(&transport, RelayOptions { batch: 7, poll: Duration::from_millis(1), ..options() });
    let writers = 6;
    let each = 60;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (pool, outbox) = (bench.pool.clone(), bench.outbox.clone());
        tasks.spawn(async move {
            let mut committed = 0;
            for n in 0..each {
                let mut tx = pool.begin().await.unwrap();
                if rand::random_bool(0.3) {
                    tx.query("SELECT pg_current_xact_id()::text", &[]).await.unwrap();
                    tokio::time::sleep(Duration::from_micros(rand::random_range(0..3_000))).await;
                }
                outbox.publish(&mut tx, numbered(n).key(format!("w{writer}"))).await.unwrap();
                tokio::time::sleep(Duration::from_micros(rand::random_range(0..3_000))).await;
                if rand::random_bool(0.1) {
                    tx.rollback().await.unwrap();
                } else {
                    tx.commit().await.unwrap();
                    committed += 1;
                }
            }
            committed
        });
    }
    let mut committed = 0;
    while let Some(count) = tasks.join_next().await {
        committed += count.unwrap();
    }
    until("nothing is pending", async || bench.outbox.status(&bench.pool).await.unwrap().sent == committed).await;
    let arrived = transport.messages();
    assert_eq!(arrived.len() as u64, committed);
    let ids: std::collections::HashSet<_> = arrived.iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), arrived.len());
    for writer in 0..writers {
        let key = format!("w{writer}");
        let of: Vec<usize> = arrived
            .iter()
            .filter(|message| message.key.as_deref() == Some(&*key))
            .map(|message| message.data.to().unwrap())
            .collect();
        assert!(of.is_sorted(), "{of:?}");
    }
}

#[tokio::test]
async fn a_role_that_may_only_read_and_write_rows_is_enough() {
    let bench = Bench::new().await;
    let role = format!("app_{}", bench.database.url().rsplit('/').next().unwrap().split('?').next().unwrap());
    bench
        .connect()
        .await
        .execute_all(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'app'; GRANT USAGE ON SCHEMA public TO {role}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; \
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}; CREATE TABLE effects (n bigint)"
        ))
        .await
        .unwrap();
    let url = bench.database.url();
    let rest = url.split_once('@').unwrap().1;
    let app = pool(&format!("postgresql://{role}:app@{rest}"));
    let transport = Scripted::answering(|message, attempt| match message.data.as_str() {
        "0" if attempt == 1 => Err(pgfleet_events::ErrorKind::Failed),
        _ => Ok(()),
    });
    let options = RelayOptions { rotate_at: 1, ..options() };
    let relay = pgfleet_events_postgres::Relay::new(
        bench.outbox.clone(),
        &app,
        std::sync::Arc::new(transport.clone()),
        options,
    );
    let relay = crate::support::Running::start(relay);
    let mut n = 0;
    until("slots were emptied", async || {
        let mut tx = app.begin().await.unwrap();
        bench.outbox.publish(&mut tx, numbered(n)).await.unwrap();
        tx.commit().await.unwrap();
        n += 1;
        relay.relay.stats().rotations >= 2
    })
    .await;
    transport.wait_for(n).await;
    let inbox = Inbox::new("public", "notifications");
    let mut tx = app.begin().await.unwrap();
    inbox.begin(&mut tx, &transport.messages()[0]).await.unwrap();
    tx.query("SELECT inbox_forget()", &[]).await.unwrap();
    tx.commit().await.unwrap();
    drop(relay);
    app.flush();
    bench.sql(&format!("DROP OWNED BY {role}")).await;
    bench.sql(&format!("DROP ROLE {role}")).await;
}

#[tokio::test]
async fn the_log_stays_small_and_has_no_dead_rows_while_a_snapshot_is_held() {
    let bench = Bench::new().await;
    let transport = Scripted::default();
    let holder = bench.connect().await;
    holder.execute_all("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class").await.unwrap();
    let relay = bench.relay_with(&transport, RelayOptions { rotate_at: 64 << 10, ..options() });
    let mut sent = 0;
    let mut most = 0;
    until("slots were emptied several times", async || {
        let messages: Vec<_> = (sent..sent + 500).map(numbered).collect();
        let mut tx = bench.pool.begin().await.unwrap();
        bench.outbox.publish_all(&mut tx, &messages).await.unwrap();
        tx.commit().await.unwrap();
        bench.outbox.wake();
        sent += 500;
        transport.wait_for(sent).await;
        most = most.max(bench.outbox.status(&bench.pool).await.unwrap().size);
        relay.relay.stats().rotations >= 4
    })
    .await;
    assert_eq!(transport.data().len(), sent);
    holder.execute_all("COMMIT").await.unwrap();
    bench.sql("SELECT pg_stat_force_next_flush()").await;
    let dead =
        bench.sql("SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE relname LIKE 'outbox_%'").await;
    assert_eq!(dead, ["0"]);
    let left = bench.outbox.status(&bench.pool).await.unwrap();
    assert!(left.size <= most, "{} of {most}", left.size);
}

#[tokio::test]
async fn after_a_restore_into_another_cluster_what_was_not_carried_is_carried() {
    let bench = Bench::new().await;
    let transport = Scripted::default();
    let relay = bench.relay(&transport);
    for n in 0..5 {
        bench.publish(numbered(n).key("a")).await;
    }
    transport.wait_for(5).await;
    relay.stop().await;
    // Not carried when the dump is made; and one of them waits.
    for n in 5..8 {
        bench.publish(numbered(n).key("a")).await;
    }
    bench.publish(numbered(8).delay(Duration::from_millis(500))).await;

    let other = OwnServer::start(|_| {}).await.unwrap();
    let url = other.superuser_url("postgres");
    let bin = TestServer::shared().await.bin_dir().to_owned();
    let file = tempfile::NamedTempFile::new().unwrap();
    let run = |program: &str, arguments: &[&str], url: &str| {
        let output = std::process::Command::new(bin.join(program))
            .args(arguments)
            .arg(file.path())
            .args(["--dbname", url])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run("pg_dump", &["--no-owner", "--file"], &bench.database.url());
    run("psql", &["--set", "ON_ERROR_STOP=1", "--quiet", "--file"], &url);

    let pool = pool(&url);
    // Published there before any relay has looked.
    let mut tx = pool.begin().await.unwrap();
    bench.outbox.publish(&mut tx, numbered(9).key("a")).await.unwrap();
    tx.commit().await.unwrap();
    let there = Scripted::default();
    let relay =
        pgfleet_events_postgres::Relay::new(bench.outbox.clone(), &pool, std::sync::Arc::new(there.clone()), options());
    let _relay = crate::support::Running::start(relay);
    there.wait_for(4).await;
    assert_eq!(there.data()[..4], ["5", "6", "7", "9"]);
    there.wait_for(5).await;
    let mut tx = pool.begin().await.unwrap();
    bench.outbox.publish(&mut tx, numbered(10).key("a")).await.unwrap();
    tx.commit().await.unwrap();
    there.wait_for(6).await;
    assert_eq!(there.data()[4..], ["8", "10"]);
    let connection = connect(&Address::parse(&url).unwrap(), &Purpose::new("test")).await.unwrap();
    assert_eq!(crate::support::column(&connection, "SELECT count(*) FROM outbox_parked_keys").await, ["0"]);
}
