//! The inbox and its consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgfleet_events::{Message, Redrive, Subscription, Transport};
use pgfleet_events_postgres::inbox::{Begun, Consumer, ConsumerOptions, Failure, Handler, Inbox};
use pgfleet_postgres::pool::{Pool, Transaction};
use tokio::sync::Notify;

use crate::support::{Bench, Scripted, column, numbered, until};

/// Writes what it is given into a table, and fails when told to.
struct Note(Arc<AtomicBool>);

impl Handler<Transaction> for Note {
    async fn handle(&self, tx: &mut Transaction, message: &Message) -> Result<(), Failure> {
        let n: i64 = message.data.to()?;
        tx.execute("INSERT INTO effects (n, key) VALUES ($1, $2)", &[&n, &message.key.as_deref()]).await?;
        if n == 1 && !self.0.load(Ordering::Relaxed) {
            return Err("poison".into());
        }
        Ok(())
    }
}

const EFFECTS: &str = "CREATE TABLE effects (nr bigserial, n bigint, key text)";

fn options() -> ConsumerOptions {
    ConsumerOptions {
        poll: Duration::from_millis(20),
        backoff: (Duration::from_millis(10), Duration::from_millis(50)),
        rescan: Duration::from_millis(50),
        max_attempts: 3,
        ..ConsumerOptions::default()
    }
}

struct Working {
    consumer: Arc<Consumer<Pool>>,
    task: tokio::task::JoinHandle<()>,
    stop: Arc<Notify>,
}

impl Working {
    async fn start(bench: &Bench, transport: &Scripted, mended: &Arc<AtomicBool>) -> Self {
        let inbox = Inbox::new("public", "notifications");
        let consumer =
            Consumer::new(inbox, Arc::new(bench.pool.clone()), options()).on("Counted", Note(Arc::clone(mended)));
        let consumer = Arc::new(consumer);
        let subscriber = transport.subscribe(Subscription::new("notifications", ["*"])).await.unwrap();
        let stop = Arc::new(Notify::new());
        let (running, stopped) = (Arc::clone(&consumer), Arc::clone(&stop));
        let task = tokio::spawn(async move { running.run(subscriber, stopped.notified()).await });
        Self { consumer, task, stop }
    }

    async fn stop(mut self) {
        self.stop.notify_one();
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_message_that_comes_twice_has_its_effect_once() {
    let bench = Bench::new().await;
    bench.sql(EFFECTS).await;
    let transport = Scripted::default();
    let mended = Arc::new(AtomicBool::new(true));
    let working = Working::start(&bench, &transport, &mended).await;
    let _relay = bench.relay(&transport);
    for n in 0..20 {
        bench.publish(numbered(n)).await;
    }
    transport.wait_for(20).await;
    let again = transport.messages();
    transport.publish(&again).await.unwrap();
    until("all have come twice", async || working.consumer.stats().duplicates == 20).await;
    working.stop().await;
    assert_eq!(bench.sql("SELECT n FROM effects ORDER BY n").await.len(), 20);
}

#[tokio::test]
async fn a_poison_message_holds_its_key_only_and_is_retried_in_order() {
    let bench = Bench::new().await;
    bench.sql(EFFECTS).await;
    let transport = Scripted::default();
    let mended = Arc::new(AtomicBool::new(false));
    let working = Working::start(&bench, &transport, &mended).await;
    let _relay = bench.relay(&transport);
    let mut tx = bench.pool.begin().await.unwrap();
    let messages: Vec<_> = (0..20).map(|n| numbered(n).key(if n % 2 == 0 { "even" } else { "odd" })).collect();
    bench.outbox.publish_all(&mut tx, &messages).await.unwrap();
    tx.commit().await.unwrap();
    let inbox = Inbox::new("public", "notifications");
    until("it is given up", async || {
        let mut db = bench.pool.get().await.unwrap();
        let status = inbox.status(&mut db).await.unwrap();
        (status.dead, status.parked, status.parked_keys) == (1, 9, 1)
    })
    .await;
    assert_eq!(bench.sql("SELECT n FROM effects WHERE key = 'even' ORDER BY nr").await.len(), 10);
    assert_eq!(bench.sql("SELECT n FROM effects WHERE key = 'odd'").await.len(), 0);
    mended.store(true, Ordering::Relaxed);
    let mut db = bench.pool.get().await.unwrap();
    let retry = inbox.retry(&mut db, &Redrive::All).await.unwrap();
    assert_eq!((retry.messages, retry.keys), (1, 1));
    until("all are handled", async || bench.sql("SELECT n FROM effects").await.len() == 20).await;
    let odd = bench.sql("SELECT n FROM effects WHERE key = 'odd' ORDER BY nr").await;
    assert_eq!(odd, (0..20).filter(|n| n % 2 == 1).map(|n| n.to_string()).collect::<Vec<_>>());
    until("nothing is put aside", async || inbox.status(&mut db).await.unwrap().parked_keys == 0).await;
    assert!(working.consumer.stats().handled >= 20);
}

#[tokio::test]
async fn a_message_older_than_what_is_remembered_is_refused_and_kept() {
    let bench = Bench::new().await;
    bench.sql(EFFECTS).await;
    let transport = Scripted::default();
    let mended = Arc::new(AtomicBool::new(true));
    let working = Working::start(&bench, &transport, &mended).await;
    let day = Duration::from_hours(24);
    let message = |n: usize, time: std::time::SystemTime| {
        let new = numbered(n);
        Message {
            id: new.id,
            topic: "Counted".into(),
            kind: "Counted".into(),
            source: "trip".into(),
            time: time.into(),
            key: None,
            data: new.data,
            meta: new.meta,
        }
    };
    let now = std::time::SystemTime::now();
    let old = message(2, now - 9 * day);
    transport.publish(&[old.clone(), message(3, now - 6 * day), message(4, now + 3 * day)]).await.unwrap();
    until("two were refused", async || working.consumer.stats().dead == 2).await;
    assert_eq!(bench.sql("SELECT n FROM effects").await, ["3"]);
    let inbox = Inbox::new("public", "notifications");
    let mut db = bench.pool.begin().await.unwrap();
    assert_eq!(inbox.begin(&mut db, &old).await.unwrap(), Begun::Refused);
    inbox.retry(&mut db, &Redrive::Ids(vec![old.id])).await.unwrap();
    db.commit().await.unwrap();
    until("it was handled on demand", async || bench.sql("SELECT n FROM effects ORDER BY n").await == ["2", "3"]).await;
}

#[tokio::test]
async fn a_relay_and_a_consumer_with_nothing_to_do_ask_little() {
    let bench = Bench::new().await;
    // Two a second, and what beginning takes. The server's own vacuum is counted, too, if it comes just then,
    // and it does not come three times.
    let (time, few, mut counted) = (Duration::from_secs(6), 5..2 * 6 + 25, Vec::new());
    while counted.len() < 3 && !counted.iter().any(|asked| few.contains(asked)) {
        counted.push(asked_while_idle(&bench, time).await);
    }
    assert!(counted.iter().any(|asked| few.contains(asked)), "{counted:?}");
}

/// Counts the transactions of a relay and a consumer that have nothing to do.
async fn asked_while_idle(bench: &Bench, time: Duration) -> i64 {
    let transport = Scripted::default();
    // One session that looks: each of several would be counted with what it does to begin.
    let watch = bench.connect().await;
    let count = async || -> i64 {
        // What this session did is counted now, and not in a moment.
        column(&watch, "SELECT pg_stat_force_next_flush()").await;
        let sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
        column(&watch, sql).await[0].parse().unwrap()
    };
    let subscriber = transport.subscribe(Subscription::new("notifications", ["*"])).await.unwrap();
    // What those sessions did that made the tables is counted when they have ended, which may be later than now.
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
    let alone = async || column(&watch, others).await == ["1"];
    until("nobody else is there", alone).await;
    let before = count().await;
    // As they are by default, in sessions that end with them: what a session did is counted then at the latest.
    let pool = crate::support::pool(&bench.database.url());
    let relay = pgfleet_events_postgres::Relay::new(
        bench.outbox.clone(),
        &pool,
        Arc::new(transport.clone()),
        pgfleet_events_postgres::RelayOptions::default(),
    );
    let inbox = Inbox::new("public", "notifications");
    let consumer = Consumer::new(inbox, Arc::new(pool.clone()), ConsumerOptions::default());
    tokio::join!(relay.run(tokio::time::sleep(time)), consumer.run(subscriber, tokio::time::sleep(time)));
    drop((relay, consumer, pool));
    // Looking is counted, too, and so is counting: the end of the first time, and the beginning of the second.
    let looks = std::sync::atomic::AtomicI64::new(2);
    until("the sessions have ended", async || {
        looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        alone().await
    })
    .await;
    count().await - before - looks.into_inner()
}
