//! Relays and consumers that die, pause, or lose the database.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pgfleet_events::{Answer, ErrorKind, Message, Published, Subscriber, Subscription, Transport};
use pgfleet_events_postgres::inbox::{Consumer, ConsumerOptions, Failure, Handler};
use pgfleet_events_postgres::{Inbox, Relay, RelayOptions};
use pgfleet_postgres::pool::{Pool, Transaction};

use crate::support::{Bench, Running, Scripted, numbered, options, until};

/// Counts what it is given, fails now and then, and panics twice.
struct Count(Arc<AtomicU32>);

impl Handler<Transaction> for Count {
    async fn handle(&self, tx: &mut Transaction, message: &Message) -> Result<(), Failure> {
        let n: i64 = message.data.to()?;
        tx.execute("INSERT INTO effects (n, key) VALUES ($1, $2)", &[&n, &message.key.as_deref()]).await?;
        if rand::random_bool(0.0005) {
            return Err("bad luck".into());
        }
        let worse = n % 5_000 == 2_500 && self.0.fetch_add(1, Ordering::Relaxed) < 2;
        assert!(!worse, "worse luck");
        Ok(())
    }
}

fn consumer(pool: &Pool, panics: &Arc<AtomicU32>) -> Consumer<Pool> {
    let options = ConsumerOptions {
        batch: 100,
        poll: Duration::from_millis(5),
        backoff: (Duration::from_millis(5), Duration::from_millis(20)),
        rescan: Duration::from_millis(100),
        max_attempts: 100,
        ..ConsumerOptions::default()
    };
    Consumer::new(Inbox::new("public", "notifications"), Arc::new(pool.clone()), options)
        .on("Counted", Count(Arc::clone(panics)))
}

async fn killed_all_the_time(bench: Bench, count: usize) {
    const KEYS: usize = 37;
    bench.sql("CREATE TABLE effects (nr bigserial, n bigint, key text)").await;
    // The broker refuses one in a thousand, and is away one time in fifty.
    let away = AtomicBool::new(false);
    let transport = Scripted::answering(move |message, attempt| {
        if attempt == 1 && message.data.as_str().ends_with("77") {
            away.store(rand::random_bool(0.2), Ordering::Relaxed);
        }
        if away.load(Ordering::Relaxed) && rand::random_bool(0.5) {
            away.store(false, Ordering::Relaxed);
            return Err(ErrorKind::Unavailable);
        }
        if rand::random_bool(0.001) { Err(ErrorKind::Failed) } else { Ok(()) }
    });
    let first = transport.subscribe(Subscription::new("notifications", ["*"])).await.unwrap();
    drop(first);
    let done = Arc::new(AtomicBool::new(false));
    let panics = Arc::new(AtomicU32::new(0));
    let short = RelayOptions { batch: 40, lease: Duration::from_millis(50), max_attempts: 100, ..options() };
    // Two relays and two consumers, each ended at a random moment and begun anew.
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (pool, outbox, transport, done, short) =
            (bench.pool.clone(), bench.outbox.clone(), transport.clone(), Arc::clone(&done), short.clone());
        workers.spawn(async move {
            let relay = Relay::new(outbox, &pool, Arc::new(transport), short);
            // Who gets nowhere in his life has a longer one next time: a machine can be slow.
            let mut slow = 1;
            while !done.load(Ordering::Relaxed) {
                let (life, before) = (Duration::from_millis(rand::random_range(50..500)), relay.stats().sent);
                let _ended = tokio::time::timeout(life * slow, relay.run(std::future::pending())).await;
                slow = if relay.stats().sent == before { (slow * 2).min(16) } else { 1 };
            }
        });
    }
    for _ in 0..2 {
        let (pool, transport, done, panics) =
            (bench.pool.clone(), transport.clone(), Arc::clone(&done), Arc::clone(&panics));
        workers.spawn(async move {
            let consumer = consumer(&pool, &panics);
            let mut slow = 1;
            while !done.load(Ordering::Relaxed) {
                let subscriber = transport.subscribe(Subscription::new("notifications", ["*"])).await.unwrap();
                let (life, before) =
                    (Duration::from_millis(rand::random_range(50..500)), consumer.stats().transactions);
                let _ended = tokio::time::timeout(life * slow, consumer.run(subscriber, std::future::pending())).await;
                slow = if consumer.stats().transactions == before { (slow * 2).min(16) } else { 1 };
            }
        });
    }
    let inbox = Inbox::new("public", "notifications");
    let deadline = std::time::Instant::now() + Duration::from_secs(250);
    let mut db = bench.pool.get().await.unwrap();
    let (mut count, mut published) = (count, 0);
    loop {
        for first in (published..count).step_by(20) {
            let messages: Vec<_> = (first..first + 20).map(|n| numbered(n).key(format!("k{}", n % KEYS))).collect();
            let mut tx = bench.pool.begin().await.unwrap();
            bench.outbox.publish_all(&mut tx, &messages).await.unwrap();
            tx.commit().await.unwrap();
            bench.outbox.wake();
        }
        published = count;
        loop {
            let effects: i64 = db.query_one("SELECT count(*) FROM effects", &[]).await.unwrap().get(0);
            if effects >= i64::try_from(count).unwrap() {
                break;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{effects} effects, {:?}, {:?}",
                bench.outbox.status(&bench.pool).await,
                inbox.status(&mut db).await
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // A fast machine can bring all of them between two deaths: then nothing was proven yet.
        if transport.messages().len() > count {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "nothing of {count} was repeated");
        count += 500;
    }
    done.store(true, Ordering::Relaxed);
    workers.join_all().await;
    let counts = bench.sql("SELECT count(*) || ' of ' || count(DISTINCT n) FROM effects").await;
    assert_eq!(counts, [format!("{count} of {count}")]);
    let out_of_order = bench
        .sql("SELECT count(*) FROM (SELECT n, lag(n) OVER (PARTITION BY key ORDER BY nr) before FROM effects) o WHERE n < before")
        .await;
    assert_eq!(out_of_order, ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_ten_thousand_has_its_effect_once_and_in_order() {
    killed_all_the_time(Bench::new().await, 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_two_thousand_has_its_effect_once_and_in_order_on_18() {
    killed_all_the_time(Bench::new_on(18).await, 2_000).await;
}

/// Holds the whole thread while it publishes, as a process that is stopped.
#[derive(Debug, Clone, Default)]
struct Frozen {
    inner: Scripted,
    state: Arc<(Mutex<(bool, bool)>, Condvar)>,
}

impl Transport for Frozen {
    fn name(&self) -> &'static str {
        "frozen"
    }

    fn publish<'a>(&'a self, messages: &'a [Message]) -> Answer<'a, Vec<Published>> {
        let (state, thawed) = &*self.state;
        let mut state = state.lock().unwrap();
        state.0 = true;
        while !state.1 {
            state = thawed.wait(state).unwrap();
        }
        drop(state);
        self.inner.publish(messages)
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<'_, Box<dyn Subscriber>> {
        self.inner.subscribe(subscription)
    }

    fn unsubscribe<'a>(&'a self, group: &'a str) -> Answer<'a, ()> {
        self.inner.unsubscribe(group)
    }
}

#[tokio::test]
async fn a_relay_that_was_stopped_and_wakes_after_another_took_over_changes_nothing() {
    let bench = Bench::new().await;
    let arrived = Scripted::answering(|message, _| match message.data.as_str() {
        "1" => Err(ErrorKind::Failed),
        _ => Ok(()),
    });
    let frozen = Frozen { inner: arrived.clone(), ..Frozen::default() };
    bench.publish(numbered(0).key("a")).await;
    bench.publish(numbered(1).key("a")).await;
    let (url, outbox, transport) = (bench.database.url(), bench.outbox.clone(), frozen.clone());
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let relay = Relay::new(outbox, &crate::support::pool(&url), Arc::new(transport), options());
            send.send(relay.clone()).unwrap();
            let watched = relay.clone();
            let overtaken = async move {
                while watched.stats().fenced == 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            relay.run(overtaken).await;
        });
    });
    let stopped = receive.recv().unwrap();
    until("it is in the middle of it", async || frozen.state.0.lock().unwrap().0).await;
    let second = bench.relay(&arrived);
    until("another one took over", async || second.relay.stats().parked == 1).await;
    let before = bench.sql("SELECT lane || attempts FROM outbox_parked_keys").await;
    assert_eq!(before.len(), 1);
    second.stop().await;
    let cursor = bench.sql("SELECT max(n) FROM outbox_cursor").await;
    let parked = bench.sql("SELECT count(*) FROM outbox_parked").await;
    // Nobody carries any more, and still the first one's step does not fit.
    {
        let (state, thawed) = &*frozen.state;
        state.lock().unwrap().1 = true;
        thawed.notify_all();
    }
    thread.join().unwrap();
    assert_eq!(stopped.stats().fenced, 1);
    assert_eq!(stopped.stats().sent, 0);
    assert_eq!(bench.sql("SELECT count(*) FROM outbox_parked").await, parked);
    let after: i64 = bench.sql("SELECT max(n) FROM outbox_cursor").await[0].parse().unwrap();
    assert!(after >= cursor[0].parse().unwrap());
}

#[tokio::test]
async fn a_broker_that_is_away_costs_no_attempts() {
    let bench = Bench::new().await;
    let here = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&here);
    let transport =
        Scripted::answering(
            move |_, _| {
                if seen.load(Ordering::Relaxed) { Ok(()) } else { Err(ErrorKind::Unavailable) }
            },
        );
    let relay = bench.relay_with(&transport, RelayOptions { max_attempts: 2, ..options() });
    for n in 0..10 {
        bench.publish(numbered(n)).await;
    }
    until("it was tried often", async || relay.relay.stats().outages > 4).await;
    here.store(true, Ordering::Relaxed);
    transport.wait_for(10).await;
    let status = bench.outbox.status(&bench.pool).await.unwrap();
    assert_eq!((status.parked, status.dead, relay.relay.stats().parked), (0, 0, 0));
}

#[tokio::test]
async fn what_a_crash_of_the_server_forgot_is_carried_again() {
    let mut server = pgfleet_local::testing::OwnServer::start(|_| {}).await.unwrap();
    let url = server.superuser_url("postgres");
    crate::support::migrate(&url).await;
    // The servers of tests forget what was committed unless they are told not to; the relay's commits may be forgotten.
    let pool = crate::support::durable_pool(&url);
    let outbox = pgfleet_events_postgres::Outbox::new("public", "trip");
    let transport = Scripted::answering(|message, attempt| {
        let n: u64 = message.data.to().unwrap();
        if n % 10 == 3 && attempt < 3 { Err(ErrorKind::Failed) } else { Ok(()) }
    });
    let relay = Relay::new(outbox.clone(), &pool, Arc::new(transport.clone()), options());
    let _relay = Running::start(relay);
    let mut n = 0;
    for _round in 0..3 {
        let mut published = 0;
        while published < 60 {
            let publish = async {
                let mut tx = pool.begin().await?;
                outbox.publish(&mut tx, numbered(n).key(format!("k{}", n % 5))).await.unwrap();
                tx.commit().await
            };
            publish.await.unwrap();
            outbox.wake();
            n += 1;
            published += 1;
        }
        server.stop(pgfleet_local::StopMode::Immediate).unwrap();
        server.ensure_running().unwrap();
        pool.flush();
    }
    let all = async || {
        let ids: std::collections::HashSet<_> = transport.messages().iter().map(|message| message.id).collect();
        ids.len() == n
    };
    until("all have arrived", all).await;
    for key in 0..5 {
        let mut next = key;
        for message in transport.messages() {
            let at: usize = message.data.to().unwrap();
            if at % 5 == key {
                assert!(at <= next, "{at} before {next}");
                next = next.max(at + 5);
            }
        }
    }
}
