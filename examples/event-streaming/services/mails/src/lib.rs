//! The mails service: a queue of mails, and who sends them. Each order that was placed becomes a message in the queue, in
//! the transaction that notes the order as handled; a mail that cannot be sent is tried again, and set aside in the end.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pgfleet::events::{ConfigStore as _, Delivery, Nack, NewItem, QueueStore as _, Store, StreamConfig, StreamKind};
use pgfleet::messages::{Failure, Handle, Message, MessageBody};
use pgfleet::{Builder, Module, Service, Tx};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

const QUEUE: &str = "mails";

/// How long sending one may take, before it is handed to somebody else.
const VISIBILITY: Duration = Duration::from_secs(30);

/// What this service reads of the orders service's message.
#[derive(Debug, Serialize, Deserialize)]
struct OrderPlaced {
    order: String,
    email: String,
}

impl MessageBody for OrderPlaced {
    const KIND: &'static str = "OrderPlaced";
}

/// Puts a mail into the queue for each order. The store is there when the service has started.
struct Enqueue(Arc<OnceLock<Store>>);

impl Handle<OrderPlaced> for Enqueue {
    async fn handle(&self, tx: &mut Tx, placed: OrderPlaced, _: &Message) -> Result<(), Failure> {
        // A failure: the message comes again.
        let store = self.0.get().ok_or("the service is still starting")?;
        let mail = NewItem::of("Mail", &placed)?.key(placed.email);
        store.enqueue_in(tx, QUEUE, vec![mail]).await?;
        Ok(())
    }
}

/// What the service needs of its database, which somebody has to migrate before it starts.
pub fn service() -> Builder {
    Service::builder("mails")
        .module(Module::event_streaming())
        .module(Module::inbox())
        .migrations(pgfleet::migrations!("migrations"))
        .auto_migrate(false)
}

/// Migrates by hand, and says to which version: `mails migrate`.
///
/// # Errors
///
/// Why it cannot.
pub async fn migrate() -> Result<(), Box<dyn Error>> {
    let service = Box::pin(service().without_keeper().start()).await?;
    let report = service.migrate().await?;
    let version = service.current_version().await?.unwrap_or_default();
    tracing::info!(applied = report.applied.len(), version, "mails is migrated");
    service.shutdown().await;
    Ok(())
}

/// Sends until SIGTERM or Ctrl-C.
///
/// # Errors
///
/// Why it cannot start, or go on.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let store = Arc::new(OnceLock::new());
    let builder = service().refuse_pending(true).handle(Enqueue(store.clone()));
    let service = Box::pin(builder.start()).await?;
    // A mail that was not sent twice is a dead letter; `pgfleet queue redrive mails` puts it back.
    let config =
        StreamConfig { max_attempts: 2, visibility: VISIBILITY, ..StreamConfig::new(QUEUE, StreamKind::Queue) };
    service.events()?.configure(&config).await?;
    let on_postgres = service.event_store()?.clone();
    store.get_or_init(|| on_postgres);
    tokio::select! {
        ended = work(&service) => ended?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    service.shutdown().await;
    Ok(())
}

/// Sends what there is, and waits for more; what may pass is waited out.
async fn work(service: &Service) -> Result<(), pgfleet::Error> {
    loop {
        match round(service).await {
            Ok(()) => {}
            Err(error) if error.is_retryable() => {
                tracing::warn!("no mails can be sent: {error:#}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn round(service: &Service) -> Result<(), pgfleet::Error> {
    let events = service.events()?;
    let mails = events.dequeue(QUEUE, "mails", 10, VISIBILITY).await?;
    if mails.is_empty() {
        events.wait(QUEUE, Duration::from_secs(5)).await?;
    }
    for mail in mails {
        match send(service, &mail).await? {
            Ok(()) => events.acknowledge(&[mail.receipt]).await?,
            Err(why) => {
                let again = Nack::later(Duration::from_millis(200), why);
                events.negative_acknowledge(&[mail.receipt], &again).await?
            }
        };
    }
    Ok(())
}

/// Sends a mail; says why it cannot be sent. One that comes again, since the acknowledgement was lost, is not sent again.
async fn send(service: &Service, mail: &Delivery) -> Result<Result<(), String>, pgfleet::Error> {
    let placed: OrderPlaced = mail.data.to()?;
    if !placed.email.contains('@') {
        return Ok(Err(format!("{} is no address", placed.email)));
    }
    let sql = "INSERT INTO sent (id, order_id, address) VALUES ($1::text::uuid, $2, $3) ON CONFLICT (id) DO NOTHING";
    let writer = service.writer().await?;
    writer.execute(sql, &[&mail.id.to_string(), &placed.order, &placed.email]).await?;
    tracing::info!(order = placed.order, to = placed.email, attempt = mail.attempt, "sent");
    Ok(Ok(()))
}
