//! What the processes do. Each says what it has done on its standard output, line by line, and ends when its standard input
//! does: nothing is left when whoever started it is gone.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use pgfleet::messages::{Failure, Handle, Message, MessageBody};
use pgfleet::{Module, Service, Tx};
use pgfleet_events::{Answer, Subscriber, Subscription, Transport};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::place::{FROM, TO};

/// Tasks of a publisher; each has keys of its own, so that what it has committed is the order of a key.
const TASKS: u64 = 4;
const KEYS: u64 = 64;

/// How long each of them waits between two transactions: what comes is more than a trickle, and less than the machine
/// takes when half of it is being started again.
const PAUSE: std::ops::Range<u64> = 5..40;

/// How long a message may be out with a consumer: less than a server is away, so that others get it in the meantime.
const VISIBILITY: Duration = Duration::from_secs(3);

#[derive(Serialize, Deserialize)]
struct Booked {
    key: String,
    number: i64,
}

impl MessageBody for Booked {
    const KIND: &'static str = "Booked";

    fn key(&self) -> Option<String> {
        Some(self.key.clone())
    }
}

/// Plays a part until standard input ends.
pub(crate) fn play(args: &[&str]) -> Result<()> {
    let [part, number, database, broker, bus] = args else { bail!("a part needs five arguments") };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        // An error is an end, too.
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        let _gone = ended.send(());
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let number: u64 = number.parse().context("a part's number")?;
        let work = async {
            match *part {
                "publisher" => publish(number, database).await,
                "relay" => relay(database, broker, bus).await,
                "consumer" => consume(database, broker, bus).await,
                _ => bail!("there is no part {part}"),
            }
        };
        tokio::select! {
            ended = work => ended,
            _ = end => Ok(()),
        }
    })
}

/// Says a line. Who is not heard is about to end.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Commits bookings, each with a message.
async fn publish(number: u64, database: &str) -> Result<()> {
    // Without a transport: somebody else carries.
    let service = Service::builder(FROM).module(Module::outbox()).url(database).migrator_url(database).start().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let service = service.clone();
        tasks.spawn(async move {
            let mut random: StdRng = rand::make_rng();
            loop {
                let key = format!("k{}", (number * TASKS + task) * KEYS + random.random_range(0..KEYS));
                // Whether it was committed is read again the next time.
                if let Ok(Some(last)) = book(&service, &key, &mut random).await {
                    say(&format!("committed {key} {last}"));
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(PAUSE))).await;
            }
        });
    }
    // None of them ends but by a panic.
    tasks.join_next().await.context("there are no tasks")??;
    Ok(())
}

/// The next bookings of a key, in one transaction, which is rolled back now and then. Returns the number of the last one.
async fn book(service: &Service, key: &str, random: &mut StdRng) -> Result<Option<i64>> {
    let mut tx = service.begin().await?;
    let rows = tx.query("SELECT coalesce(max(number), 0) FROM bookings WHERE key = $1", &[&key]).await?;
    let before: i64 = rows.first().context("no number")?.get(0);
    let last = before + random.random_range(1..=5);
    let booked: Vec<Booked> = (before + 1..=last).map(|number| Booked { key: key.to_owned(), number }).collect();
    for booking in &booked {
        // What a process that was killed has begun may be committed at this moment: then this one is a second of its number.
        tx.execute("INSERT INTO bookings (key, number) VALUES ($1, $2)", &[&booking.key, &booking.number]).await?;
    }
    service.outbox().publish_all(&mut tx, &booked).await?;
    if random.random_bool(0.1) {
        tokio::time::sleep(Duration::from_millis(random.random_range(1..30))).await;
    }
    if random.random_bool(0.05) {
        tx.rollback().await?;
        return Ok(None);
    }
    tx.commit().await?;
    Ok(Some(last))
}

async fn relay(database: &str, broker: &str, bus: &str) -> Result<()> {
    let relay = Service::builder(FROM).module(Module::outbox()).url(database).migrator_url(database);
    let relay = relay.transport(transport(broker, bus)?).relay(|options| {
        // Of this run's measure: who carries is killed every few seconds.
        options.lease = Duration::from_secs(2);
        options.poll = Duration::from_millis(200);
        options.backoff = (Duration::from_millis(50), Duration::from_secs(1));
        options.rotate_at = 1 << 20;
    });
    tell(&relay.start().await?).await
}

async fn consume(database: &str, broker: &str, bus: &str) -> Result<()> {
    let consumer = Service::builder(TO).module(Module::inbox()).handle(Note).url(database).migrator_url(database);
    let consumer = consumer.transport(transport(broker, bus)?).consumer(|options| {
        options.backoff = (Duration::from_millis(50), Duration::from_secs(1));
        options.rescan = Duration::from_secs(2);
    });
    tell(&consumer.start().await?).await
}

/// Says what the service has counted, as often as it changes.
async fn tell(service: &Service) -> Result<()> {
    let mut said = String::new();
    loop {
        let counts = service.message_metrics();
        for line in counts.lines().filter(|line| !line.starts_with('#')) {
            let counter = line.split('{').next().zip(line.rsplit(' ').next());
            if let Some((name, value)) = counter.filter(|_| !said.contains(line)) {
                say(&format!("counted {name} {value}"));
            }
        }
        said = counts;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The effect of a message: a row. Some fail, and are tried again.
struct Note;

impl Handle<Booked> for Note {
    async fn handle(&self, tx: &mut Tx, booked: Booked, _: &Message) -> Result<(), Failure> {
        tx.execute("INSERT INTO effects (key, number) VALUES ($1, $2)", &[&booked.key, &booked.number]).await?;
        if rand::random_bool(0.0005) {
            return Err("bad luck".into());
        }
        Ok(())
    }
}

fn transport(broker: &str, bus: &str) -> Result<Arc<dyn Transport>> {
    let options = pgfleet_brokers::Options { name: "kills".to_owned(), ..pgfleet_brokers::Options::default() };
    Ok(Arc::new(Impatient(pgfleet_brokers::connect(broker.parse()?, &bus.to_owned().into(), options)?)))
}

/// A transport whose messages are not out for long.
#[derive(Debug)]
struct Impatient(Arc<dyn Transport>);

impl Transport for Impatient {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn publish<'a>(&'a self, messages: &'a [Message]) -> Answer<'a, Vec<pgfleet_events::Published>> {
        self.0.publish(messages)
    }

    fn subscribe(&self, mut subscription: Subscription) -> Answer<'_, Box<dyn Subscriber>> {
        subscription.visibility = VISIBILITY;
        self.0.subscribe(subscription)
    }

    fn unsubscribe<'a>(&'a self, group: &'a str) -> Answer<'a, ()> {
        self.0.unsubscribe(group)
    }
}
