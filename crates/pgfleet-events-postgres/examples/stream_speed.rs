//! Measures streams beside the plainest SQL with the same indexes and the same durability, in one run.
//!
//! `cargo run --release -p pgfleet-events-postgres --example stream_speed`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgfleet_events::{Expected, Filter, NewEvent, Position, StreamStore as _};
use pgfleet_events_postgres::{Options, Store, module};
use pgfleet_local::testing::OwnServer;
use pgfleet_migrate::event::Silent;
use pgfleet_migrate::{Target, run};
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
use pgfleet_postgres::{Address, Purpose};

const STREAMS: u64 = 1_000;
const DATA: &str =
    r#"{"seat":12,"trip":"0192c5f8-0000-7000-8000-000000000000","note":"window seat, near the driver please"}"#;

fn event() -> NewEvent {
    NewEvent::new("SeatBooked", pgfleet_events::Json::trusted(DATA))
}

/// Runs tasks for a time; each returns how many events it wrote. Returns events a second.
async fn rate<F, Fut>(tasks: u64, time: Duration, write: F) -> f64
where
    F: Fn(u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = u64> + Send,
{
    let count = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let (write, count) = (write.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                while began.elapsed() < time {
                    count.fetch_add(write(task).await, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in running {
        task.await.expect("a writer");
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let written = count.load(Ordering::Relaxed) as f64;
    written / began.elapsed().as_secs_f64()
}

/// The limit: one INSERT, versions known beforehand.
async fn limit(pool: Pool, next: Arc<AtomicU64>, batch: u64) -> u64 {
    let number = next.fetch_add(1, Ordering::Relaxed);
    let db = pool.get().await.expect("a connection");
    let stream = format!("raw-{}", number % STREAMS);
    let first = i64::try_from(number / STREAMS * batch + 1).expect("a version");
    let data: Vec<&str> = (0..batch).map(|_| DATA).collect();
    db.execute(
        "INSERT INTO event_streaming.raw (stream, version, type, data, id, part) \
         SELECT $1, $2 + o - 1, 'SeatBooked', d::jsonb, gen_random_uuid(), 1 \
         FROM unnest($3::text[]) WITH ORDINALITY AS u (d, o)",
        &[&stream, &first, &data],
    )
    .await
    .expect("an insert");
    batch
}

async fn ours(store: Store, next: Arc<AtomicU64>, batch: u64) -> u64 {
    let number = next.fetch_add(1, Ordering::Relaxed);
    let events = (0..batch).map(|_| event()).collect();
    store.append(&format!("s-{batch}-{}", number % STREAMS), Expected::Any, events).await.expect("an append");
    batch
}

#[tokio::main]
async fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let server = OwnServer::start(|options| {
        options.durable = true;
        options.settings.push(("shared_buffers".to_owned(), "512MB".to_owned()));
    })
    .await
    .expect("a server");
    let url = server.superuser_url("postgres");
    let address = Address::parse(&url).expect("an address");
    let set = module::event_streaming("event_streaming").expect("a set");
    let target = Target::new("speed", address.clone());
    run::migrate(&target, &set.into(), &pgfleet_migrate::Options::default(), &Silent).await.expect("tables");
    let budget = Budget::new("speed", 80);
    let pool = Pool::new(&budget, address, Purpose::new("speed"), PoolOptions { max: 70, ..PoolOptions::default() });
    let writers = std::env::args().nth(2).and_then(|writers| writers.parse().ok());
    let options = Options::default();
    let store = Store::new(pool.clone(), Options { writers: writers.unwrap_or(options.writers), ..options });
    pool.get()
        .await
        .expect("a connection")
        .batch(
            "CREATE TABLE event_streaming.raw (LIKE event_streaming.events INCLUDING ALL); \
             ALTER TABLE event_streaming.raw ALTER xid SET DEFAULT pg_current_xact_id(), \
             ALTER at SET DEFAULT clock_timestamp(), ALTER seq SET DEFAULT nextval('event_streaming.events_seq')",
        )
        .await
        .expect("the limit's table");
    let time = Duration::from_secs(2);
    let (raw, own) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (raw1, own1) = (Arc::new(AtomicU64::new(100_000_000)), Arc::new(AtomicU64::new(0)));
    for round in 0..rounds {
        let (p, n) = (pool.clone(), Arc::clone(&raw));
        let limit_100 = rate(4, time, move |_| limit(p.clone(), Arc::clone(&n), 100)).await;
        let (s, n) = (store.clone(), Arc::clone(&own));
        let ours_100 = rate(4, time, move |_| ours(s.clone(), Arc::clone(&n), 100)).await;
        let (p, n) = (pool.clone(), Arc::clone(&raw1));
        let limit_1 = rate(8, time, move |_| limit(p.clone(), Arc::clone(&n), 1)).await;
        let (s, n) = (store.clone(), Arc::clone(&own1));
        let ours_1 = rate(8, time, move |_| ours(s.clone(), Arc::clone(&n), 1)).await;
        let (s, n) = (store.clone(), Arc::clone(&own1));
        let ours_64 = rate(64, time, move |_| ours(s.clone(), Arc::clone(&n), 1)).await;
        println!(
            "round {round}: batch 100: limit {limit_100:.0} ours {ours_100:.0} ({:.2}); batch 1: limit {limit_1:.0} \
             ours {ours_1:.0} ({:.2}); 64 tasks {ours_64:.0} ({:.2})",
            ours_100 / limit_100,
            ours_1 / limit_1,
            ours_64 / limit_1
        );
    }
    pool.get().await.expect("a connection").batch("VACUUM ANALYZE event_streaming.events").await.expect("a vacuum");
    let began = Instant::now();
    store.head().await.expect("ticks");
    println!("ticks made in {:.2} s", began.elapsed().as_secs_f64());
    for round in 0..rounds {
        let began = Instant::now();
        let (mut after, mut count) = (0_i64, 0_u64);
        let db = pool.get().await.expect("a connection");
        loop {
            let rows = db
                .query(
                    "SELECT stream, version, seq, at, id, type, data::text, correlation_id, causation_id, traceparent, \
                     tracestate, tenant, headers::text FROM event_streaming.events WHERE seq > $1 ORDER BY seq LIMIT 1000",
                    &[&after],
                )
                .await
                .expect("rows");
            let Some(last) = rows.last() else { break };
            after = last.get(2);
            // As a user has it in the end.
            let texts: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(6))).collect();
            count += texts.len() as u64;
        }
        drop(db);
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let limit = count as f64 / began.elapsed().as_secs_f64();
        let began = Instant::now();
        let (mut after, mut read) = (Position::START, 0_u64);
        loop {
            let page = store.read_all(after, 1_000, &Filter::default()).await.expect("a page");
            read += page.events.len() as u64;
            after = page.next;
            if page.at_end {
                break;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let ours = read as f64 / began.elapsed().as_secs_f64();
        assert_eq!(read, count, "all events are read");
        println!("round {round}: read {count}: limit {limit:.0} ours {ours:.0} ({:.2})", ours / limit);
    }
}
