//! A bus database on PostgreSQL: a queue for each group that has subscribed.
//!
//! A message is put into the queues of all groups that want its topic, in one transaction: so it is confirmed when it is on
//! disk for all of them. The queues keep the order of a key, hand each message to one member at a time, and stay small.

mod item;
mod subscriber;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::{
    Answer, ConfigStore as _, Error, ErrorKind, Message, Published, QueueStore as _, StreamConfig, StreamKind,
    Subscriber, Subscription, Transport,
};
use pgfleet_events_postgres::{Store, module};
use pgfleet_migrate::{Set, SetPath, Target, run};
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions, Pooled};
use pgfleet_postgres::{Address, Error as PgError, Purpose, quote_ident};
use secrecy::{ExposeSecret as _, SecretString};

use crate::connect::Options;
use crate::topic;

/// How many connections a process has to the bus.
const CONNECTIONS: usize = 8;

/// The most messages put in by one statement; more go in several.
const BATCH: usize = 1_000;

/// The migration set of what the bus database has beside the module `event_streaming`, in the module's schema.
///
/// # Errors
///
/// None for the files as they are.
pub fn set(name: &str, schema: &str) -> Result<Set, pgfleet_migrate::Error> {
    let files = vec![(PathBuf::from("1_bus.sql"), include_bytes!("../../migrations/1_bus.sql").to_vec())];
    let mut set = Set::from_files(name, Path::new("bus"), files, None)?;
    // Beside the queues: that is the one schema of the bus that other services may use.
    set.schema = Some(schema.to_owned());
    Ok(set)
}

/// Makes the tables of a bus in the schema `event_streaming`, as provisioning does; for a database that pgfleet does not
/// provision.
///
/// # Errors
///
/// What migrating fails with.
pub async fn migrate(address: &Address) -> Result<(), pgfleet_migrate::Error> {
    let schema = module::EVENT_STREAMING;
    let path = SetPath::new(vec![module::event_streaming(schema)?], set("bus", schema)?)?;
    let options = pgfleet_migrate::Options::default();
    run::migrate(&Target::new("bus", address.clone()), &path, &options, &pgfleet_migrate::event::Silent).await?;
    Ok(())
}

/// The transport over a bus database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Postgres(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Systems that share a bus have different ones.
    bus: String,
    pool: Pool,
    store: Store,
    /// The table of who receives what, quoted.
    subscriptions: String,
}

impl Postgres {
    /// A transport over the bus in a database; it connects when there is something to do.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for what is no connection string.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new(url: &SecretString, options: &Options) -> Result<Self, Error> {
        let address = Address::parse(url.expose_secret()).map_err(|error| {
            Error::invalid("the URL of the bus database cannot be used")
                .with_hint("write it as postgresql://user:password@host:5432/database")
                .because(error)
        })?;
        let purpose = Purpose::new(format!("{} bus", options.client));
        let pooling = PoolOptions {
            max: CONNECTIONS,
            min: 0,
            command_timeout: Some(options.confirm_within),
            held_warning: Duration::from_mins(5),
            ..PoolOptions::default()
        };
        let pool = Pool::new(&Budget::new("bus", CONNECTIONS), address, purpose, pooling);
        let schema = options.schema.clone();
        let subscriptions = format!("{}.bus_subscriptions", quote_ident(&schema));
        let store = Store::new(pool.clone(), pgfleet_events_postgres::Options { schema, ..Default::default() });
        Ok(Self(Arc::new(Inner { bus: options.name.clone(), pool, store, subscriptions })))
    }
}

impl Inner {
    async fn connection(&self) -> Result<Pooled, Error> {
        self.pool.get().await.map_err(|error| failed("no connection to the bus", error))
    }

    fn queue(&self, group: &str) -> String {
        format!("{}.{group}", self.bus)
    }

    /// The groups with what they want. Read each time: what is published right after somebody has subscribed must reach him.
    async fn groups(&self) -> Result<Vec<(String, Vec<Arc<str>>)>, Error> {
        let db = self.connection().await?;
        let rows = db
            .query(
                &format!("SELECT \"group\", topics FROM {} WHERE bus = $1 ORDER BY 1", self.subscriptions),
                &[&self.bus],
            )
            .await
            .map_err(|error| failed("the subscriptions cannot be read", error))?;
        let read = rows.iter().map(|row| {
            let topics: Vec<String> = row.try_get(1)?;
            Ok((self.queue(row.try_get(0)?), topics.into_iter().map(Into::into).collect()))
        });
        read.collect::<Result<_, tokio_postgres::Error>>()
            .map_err(|error| Error::new(ErrorKind::Failed, "the subscriptions cannot be read").because(error))
    }

    async fn publish(&self, messages: &[Message]) -> Result<(), Error> {
        let groups = self.groups().await?;
        let mut wanted = Vec::new();
        for (queue, topics) in &groups {
            let items: Vec<_> =
                messages.iter().filter(|message| topic::fits_any(topics, &message.topic)).map(item::of).collect();
            if !items.is_empty() {
                wanted.push((queue, items));
            }
        }
        match wanted.len() {
            0 => {}
            1 => {
                for (queue, items) in wanted {
                    self.store.enqueue(queue, items).await?;
                }
            }
            _ => {
                let transaction =
                    self.pool.begin().await.map_err(|error| failed("no transaction on the bus", error))?;
                for (queue, items) in wanted {
                    self.store.enqueue_in(&transaction, queue, items).await?;
                }
                transaction.commit().await.map_err(|error| failed("the bus did not commit", error))?;
            }
        }
        Ok(())
    }
}

impl Transport for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn publish<'a>(&'a self, messages: &'a [Message]) -> Answer<'a, Vec<Published>> {
        Box::pin(async move {
            let mut answers: Vec<Published> = Vec::with_capacity(messages.len());
            for batch in messages.chunks(BATCH) {
                match self.0.publish(batch).await {
                    Ok(()) => answers.extend(batch.iter().map(|_| Ok(()))),
                    Err(error) if answers.is_empty() => return Err(error),
                    // What comes behind is not tried: it might overtake.
                    Err(error) => {
                        let rest = messages.len() - answers.len();
                        let text = error.to_string();
                        answers.push(Err(error));
                        answers.extend(
                            (1..rest).map(|_| {
                                Err(Error::new(ErrorKind::Unavailable, format!("behind another one: {text}")))
                            }),
                        );
                        break;
                    }
                }
            }
            Ok(answers)
        })
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<'_, Box<dyn Subscriber>> {
        Box::pin(async move {
            let queue = self.0.queue(&subscription.group);
            let mut config = StreamConfig::new(queue.as_str(), StreamKind::Queue);
            // Whoever receives decides when it is enough.
            config.max_attempts = 0;
            config.visibility = subscription.visibility;
            if self.0.store.config(&queue, StreamKind::Queue).await? != config {
                self.0.store.configure(&config).await?;
            }
            let topics: Vec<&str> = subscription.topics.iter().map(|topic| &**topic).collect();
            let db = self.0.connection().await?;
            db.execute(
                &format!(
                    "INSERT INTO {} AS s (bus, \"group\", topics) VALUES ($1, $2, $3) \
                     ON CONFLICT (bus, \"group\") DO UPDATE SET topics = excluded.topics WHERE s.topics <> excluded.topics",
                    self.0.subscriptions
                ),
                &[&self.0.bus, &&*subscription.group, &topics],
            )
            .await
            .map_err(|error| failed("cannot subscribe", error))?;
            Ok(Box::new(subscriber::Member::new(self.0.store.clone(), queue, subscription)) as Box<dyn Subscriber>)
        })
    }

    fn unsubscribe<'a>(&'a self, group: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let db = self.0.connection().await?;
            db.execute(
                &format!("DELETE FROM {} WHERE bus = $1 AND \"group\" = $2", self.0.subscriptions),
                &[&self.0.bus, &group],
            )
            .await
            .map_err(|error| failed("cannot unsubscribe", error))?;
            drop(db);
            self.0.store.purge(&self.0.queue(group), false).await?;
            Ok(())
        })
    }
}

fn failed(doing: &str, error: PgError) -> Error {
    let kind = if error.is_unreachable() { ErrorKind::Unavailable } else { ErrorKind::Failed };
    let (again, hint) = (error.is_retryable(), error.hint());
    let made = Error::new(kind, doing).retryable(again).because(error);
    match hint {
        Some(hint) => made.with_hint(hint),
        None => made,
    }
}
