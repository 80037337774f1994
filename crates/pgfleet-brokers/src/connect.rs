//! A transport from what is configured.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::{Error, Transport};
use secrecy::SecretString;

/// Which broker carries the messages between services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    /// RabbitMQ.
    RabbitMq,
    /// NATS JetStream.
    Nats,
    /// A bus database on PostgreSQL.
    Postgres,
}

impl BrokerKind {
    /// Returns its word in configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::RabbitMq => "rabbitmq",
            Self::Nats => "nats",
            Self::Postgres => "postgres",
        }
    }
}

impl FromStr for BrokerKind {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        match word {
            "rabbitmq" => Ok(Self::RabbitMq),
            "nats" => Ok(Self::Nats),
            "postgres" => Ok(Self::Postgres),
            "in-process" => Err(Error::invalid("the broker within one process is made by the program itself")
                .with_hint("pass `InProcess::new()` to `Builder::transport`")),
            _ => Err(Error::invalid(format!("{word:?} is no broker")).with_hint("one of: postgres, rabbitmq, nats")),
        }
    }
}

/// How a transport behaves. The defaults are for production.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name under which it lives on the broker: exchange and beginning of queues (RabbitMQ), stream and beginning of
    /// subjects (NATS), beginning of queues (PostgreSQL). Systems that share a broker have different ones.
    pub name: String,
    /// What the broker shows for connections of this process.
    pub client: String,
    /// How long the broker may take to confirm a batch.
    pub confirm_within: Duration,
    /// PostgreSQL: the schema of the bus database's tables.
    pub schema: String,
    /// RabbitMQ: how often members share their group's partitions out anew.
    pub balance_every: Duration,
    /// RabbitMQ: quorum queues, which a cluster replicates; otherwise classic ones.
    pub quorum: bool,
    /// NATS: how long the server knows the ids of messages and leaves out those that come twice. Beyond it the inbox does.
    pub dedup_window: Duration,
    /// NATS: how long messages are kept for groups that do not fetch them.
    pub keep: Duration,
    /// NATS: on how many servers of a cluster the stream is kept.
    pub replicas: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "pgfleet".to_owned(),
            client: "pgfleet".to_owned(),
            confirm_within: Duration::from_secs(30),
            schema: pgfleet_events_postgres::module::EVENT_STREAMING.to_owned(),
            balance_every: Duration::from_secs(1),
            quorum: true,
            dedup_window: Duration::from_mins(2),
            keep: Duration::from_hours(7 * 24),
            replicas: 1,
        }
    }
}

/// Makes the transport that is configured.
///
/// # Errors
///
/// [`Invalid`](pgfleet_events::ErrorKind::Invalid) for a URL of another broker.
pub fn connect(kind: BrokerKind, url: &SecretString, options: Options) -> Result<Arc<dyn Transport>, Error> {
    match kind {
        BrokerKind::Postgres => Ok(Arc::new(crate::Postgres::new(url, &options)?)),
        #[cfg(feature = "rabbitmq")]
        BrokerKind::RabbitMq => Ok(Arc::new(crate::RabbitMq::new(url, options)?)),
        #[cfg(not(feature = "rabbitmq"))]
        BrokerKind::RabbitMq => Err(not_built_in(kind)),
        #[cfg(feature = "nats")]
        BrokerKind::Nats => Ok(Arc::new(crate::Nats::new(url, options)?)),
        #[cfg(not(feature = "nats"))]
        BrokerKind::Nats => Err(not_built_in(kind)),
    }
}

#[cfg(not(all(feature = "rabbitmq", feature = "nats")))]
fn not_built_in(kind: BrokerKind) -> Error {
    let word = kind.word();
    Error::new(pgfleet_events::ErrorKind::Refused, format!("this program was built without {word}"))
        .with_hint(format!("build it with the feature {word} of pgfleet-brokers"))
}
