//! (f) From a transaction of one service to a transaction of another: outbox, relay, broker, inbox, against the bare chain
//! without them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pgfleet::messages::{Failure, Handle, Message, MessageBody, NewMessage};
use pgfleet::{Module, Service, Tx};
use pgfleet_events::{Json, Meta, Moment, Subscription, Transport};
use pgfleet_local::testing::Broker;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::store::Plain;
use super::{Bench, DATA};
use crate::report::Report;

const GOAL: f64 = 1.5;
const RELAY_GOAL: f64 = 2.0;

/// How many are sent one after the other.
const ONE_BY_ONE: usize = 300;

/// How many lie in the outbox when the relay's rate is measured.
const MANY: usize = 20_000;

const WRITE: &str = "INSERT INTO effects (id) VALUES ($1)";

#[derive(Serialize, Deserialize)]
struct Booked {
    number: u64,
    note: String,
}

impl MessageBody for Booked {
    const KIND: &'static str = "Booked";
}

/// Writes a row, and says so; what it says may be before the commit by a moment, as in the bare chain.
struct Write(mpsc::UnboundedSender<u64>);

impl Handle<Booked> for Write {
    async fn handle(&self, tx: &mut Tx, booked: Booked, message: &Message) -> Result<(), Failure> {
        tx.execute(WRITE, &[&message.id.to_string()]).await?;
        self.0.send(booked.number)?;
        Ok(())
    }
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let Bench { options, server, runtime } = bench;
    server.create(&["messages_bus".to_owned()])?;
    let bus = server.url("messages_bus");
    runtime.block_on(pgfleet_brokers::postgres::migrate(&pgfleet_postgres::Address::parse(&bus)?))?;
    // Durable, as everything here.
    let (rabbitmq, nats) = runtime.block_on(async { (Broker::rabbitmq().await, Broker::nats().await) });
    let transports = [("postgres", bus), ("rabbitmq", rabbitmq.url()), ("nats", nats.url())];
    for (word, url) in transports {
        let connect = |name: &str| {
            let options = pgfleet_brokers::Options { name: name.to_owned(), ..pgfleet_brokers::Options::default() };
            pgfleet_brokers::connect(word.parse()?, &url.clone().into(), options)
        };
        let (mut whole, mut bare, mut relayed, mut published) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..=options.rounds.min(5) {
            let name = format!("{word}{round}");
            let databases = [format!("{name}_from"), format!("{name}_to")];
            server.create(&databases)?;
            let [from, to] = databases.map(|database| server.url(&database));
            server.execute(&format!("{name}_to"), &["CREATE TABLE effects (id text)".to_owned()])?;
            server.execute(&format!("{name}_from"), &["CREATE TABLE effects (id text)".to_owned()])?;
            let (services, bus) = (connect(&name)?, connect(&format!("{name}bare"))?);
            let one_by_one = options.times(ONE_BY_ONE);
            let many = options.times(MANY);
            let what = || format!("{word}, round {round}");
            let measured = runtime.block_on(async {
                let whole = through(&from, &to, services.clone(), one_by_one).await.with_context(what)?;
                let bare = chain(&from, &to, &bus, one_by_one).await?;
                let published = rate(&bus, many).await?;
                let relayed = relay(&from, services, many).await?;
                anyhow::Ok((whole, bare, relayed, published))
            })?;
            server.drop(&[format!("{name}_from"), format!("{name}_to")])?;
            if round > 0 {
                whole.push(measured.0);
                bare.push(measured.1);
                relayed.push(measured.2);
                published.push(measured.3);
            }
        }
        let case = format!("(f) {word}: outbox to inbox, one at a time, p50");
        report.compare_each(&case, ("", &whole), ("limit: commit, publish, deliver, commit", &bare), 1, Some(GOAL));
        let case = format!("(f) {word}: relay");
        let each = u32::try_from(options.times(MANY))?;
        report.compare_each(&case, ("", &relayed), ("limit: publish in batches", &published), each, Some(RELAY_GOAL));
    }
    Ok(())
}

fn middle(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("nothing was measured")
}

/// Two services: from before the first one's transaction until the second one's handler.
async fn through(from: &str, to: &str, transport: Arc<dyn Transport>, messages: usize) -> Result<Duration> {
    let (said, mut heard) = mpsc::unbounded_channel();
    let second = Service::builder("second").module(Module::inbox()).handle(Write(said));
    let second = second.url(to).migrator_url(to).transport(transport.clone()).start().await?;
    let first = Service::builder("first").module(Module::outbox());
    let first = first.url(from).migrator_url(from).transport(transport).start().await?;
    let mut times = Vec::new();
    for number in 0..messages + 20 {
        let began = Instant::now();
        let mut tx = first.begin().await?;
        tx.execute(WRITE, &[&number.to_string()]).await?;
        first.outbox().publish(&mut tx, &Booked { number: number as u64, note: DATA.to_owned() }).await?;
        tx.commit().await?;
        let limit = Duration::from_secs(30);
        let got = tokio::time::timeout(limit, heard.recv()).await.context("a message does not come")?;
        ensure!(got == Some(number as u64), "{got:?} instead of {number}");
        if number >= 20 {
            times.push(began.elapsed());
        }
    }
    first.shutdown().await;
    second.shutdown().await;
    middle(times)
}

fn message(number: usize) -> Result<Message> {
    let body = Booked { number: number as u64, note: DATA.to_owned() };
    Ok(Message {
        id: NewMessage::of("Booked", &body)?.id,
        topic: "Booked".into(),
        kind: "Booked".into(),
        source: "first".into(),
        time: Moment::now(),
        key: None,
        data: Json::of(&body)?,
        meta: Meta::default(),
    })
}

/// The bare chain: commit, publish with confirm, deliver, commit.
async fn chain(from: &str, to: &str, transport: &Arc<dyn Transport>, messages: usize) -> Result<Duration> {
    let (first, second) = (Plain::open(from, &[WRITE]).await?, Plain::open(to, &[WRITE]).await?);
    let mut subscriber = transport.subscribe(Subscription::new("second", ["Booked"])).await?;
    let mut times = Vec::new();
    for number in 0..messages + 20 {
        let began = Instant::now();
        first.client().batch_execute("BEGIN").await?;
        first.query(WRITE, &[&number.to_string()]).await?;
        first.client().batch_execute("COMMIT").await?;
        for published in transport.publish(&[message(number)?]).await? {
            published?;
        }
        let mut delivered = Vec::new();
        while delivered.is_empty() {
            delivered = subscriber.receive(1, Duration::from_secs(30)).await?;
        }
        second.client().batch_execute("BEGIN").await?;
        second.query(WRITE, &[&delivered[0].message.id.to_string()]).await?;
        second.client().batch_execute("COMMIT").await?;
        let took = began.elapsed();
        subscriber.acknowledge(&delivered).await?;
        if number >= 20 {
            times.push(took);
        }
    }
    middle(times)
}

/// What the transport takes in batches of a thousand.
async fn rate(transport: &Arc<dyn Transport>, messages: usize) -> Result<Duration> {
    let all: Vec<Message> = (0..messages).map(message).collect::<Result<_>>()?;
    let began = Instant::now();
    for batch in all.chunks(1_000) {
        for published in transport.publish(batch).await? {
            published?;
        }
    }
    Ok(began.elapsed())
}

/// How long a relay needs for what lies in the outbox when it begins.
async fn relay(from: &str, transport: Arc<dyn Transport>, messages: usize) -> Result<Duration> {
    let idle = Service::builder("first").module(Module::outbox()).url(from).migrator_url(from).start().await?;
    let bodies: Vec<Booked> =
        (0..messages).map(|number| Booked { number: number as u64, note: DATA.to_owned() }).collect();
    for batch in bodies.chunks(1_000) {
        let mut tx = idle.begin().await?;
        idle.outbox().publish_all(&mut tx, batch).await?;
        tx.commit().await?;
    }
    let began = Instant::now();
    let carrying = Service::builder("first").module(Module::outbox()).url(from).migrator_url(from);
    let carrying = carrying.transport(transport).start().await?;
    loop {
        let sent: usize = carrying
            .message_metrics()
            .lines()
            .filter(|line| line.starts_with("pgfleet_outbox_sent_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .sum();
        if sent >= messages {
            break;
        }
        ensure!(began.elapsed() < Duration::from_mins(2), "{sent} of {messages} were carried");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    carrying.shutdown().await;
    Ok(took)
}
