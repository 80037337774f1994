//! Where the broker is, and connections to it.

use std::fmt;
use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use pgfleet_events::{Error, ErrorKind};
use secrecy::{ExposeSecret as _, SecretString};

use super::BROKER;
use crate::connect::Options;
use crate::error::unavailable;

/// How long making a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How soon a connection is known to be dead that does not say so, in seconds; the broker's own 60 are too long for a
/// consumer whose partitions others wait for.
const HEARTBEAT: u16 = 10;

pub(super) struct Link {
    uri: AMQPUri,
    pub(super) options: Options,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URI: it holds the password.
        f.debug_struct("Link").field("at", &self.at()).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(url: &SecretString, options: Options) -> Result<Self, Error> {
        // What the parser says may repeat the URL.
        let mut uri: AMQPUri = url.expose_secret().parse().map_err(|_| {
            Error::invalid("the broker's URL is none of RabbitMQ")
                .with_hint("write it as amqp://user:password@host:5672/vhost, or amqps:// for TLS")
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self { uri, options })
    }

    /// Returns host and port, for messages.
    pub(super) fn at(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// Connects, for what the broker shows beside the connection.
    pub(super) async fn connect(&self, what: &str) -> Result<Connection, Error> {
        let name = format!("{} {what}", self.options.client);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connecting = Connection::connect_uri(self.uri.clone(), properties);
        match tokio::time::timeout(CONNECT_WITHIN, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.failed("cannot connect", error)),
            Err(late) => Err(unavailable(BROKER, &format!("{} does not answer", self.at()), late)),
        }
    }

    /// Says what went wrong, and whether trying again can help.
    pub(super) fn failed(&self, doing: &str, error: lapin::Error) -> Error {
        let doing = format!("{doing} ({})", self.at());
        let code = match error.kind() {
            lapin::ErrorKind::ProtocolError(error) => error.get_id(),
            _ => 0,
        };
        let (kind, hint) = match code {
            403 => (ErrorKind::Refused, "see whether user and password are right and may use this virtual host"),
            406 => (
                ErrorKind::Refused,
                "a queue or exchange of this name exists and is another; remove it, or choose another name in [events]",
            ),
            530 => {
                (ErrorKind::Refused, "the virtual host at the end of the URL does not exist or is not for this user")
            }
            _ => return unavailable(BROKER, &doing, error),
        };
        Error::new(kind, format!("{BROKER}: {doing}")).with_hint(hint).because(error)
    }
}
