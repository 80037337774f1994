//! Where the server is, and the connection to it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::{self, context::ContextBuilder, stream};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use pgfleet_events::{Error, ErrorKind};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{Mutex, watch};

use super::{BROKER, names};
use crate::connect::Options;
use crate::error::unavailable;
use crate::pause::Pause;

/// How long the server may take to answer what is asked about streams and consumers.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How many confirmations may be outstanding.
const IN_FLIGHT: usize = 4_096;

pub(super) struct Link {
    servers: Vec<ServerAddr>,
    pub(super) options: Options,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    open: Option<Arc<Open>>,
    pause: Pause,
    /// When connecting may be tried again, and what it failed by.
    closed_until: Option<(Instant, String)>,
}

/// A connection; the client makes it again by itself when it is lost.
pub(super) struct Open {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    /// How often it was lost, and how often made.
    pub(super) changes: watch::Receiver<Changes>,
    pub(super) options: Options,
}

/// How often a connection was lost, and how often made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changes {
    pub(super) lost: u64,
    made: u64,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the addresses: they hold the password.
        f.debug_struct("Link").field("at", &self.at()).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(url: &SecretString, options: Options) -> Result<Self, Error> {
        let invalid = || {
            Error::invalid("the broker's URL is none of NATS")
                .with_hint("write it as nats://user:password@host:4222, or tls:// for TLS")
        };
        let servers: Vec<ServerAddr> = url
            .expose_secret()
            .split(',')
            // What the parser says may repeat the URL.
            .map(|server| server.trim().parse().map_err(|_| invalid()))
            .collect::<Result<_, Error>>()?;
        if !servers.iter().all(|server| matches!(server.scheme(), "nats" | "tls")) {
            return Err(invalid());
        }
        names::check_stream(&options.name)?;
        Ok(Self { servers, options, slot: Mutex::default() })
    }

    fn at(&self) -> String {
        let servers: Vec<String> =
            self.servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        servers.join(", ")
    }

    /// Returns the connection, made when there is none yet.
    pub(super) async fn open(&self) -> Result<Arc<Open>, Error> {
        let mut slot = self.slot.lock().await;
        if let Some(open) = &slot.open {
            return match open.client.connection_state() {
                State::Connected => Ok(open.clone()),
                _ => Err(self.away("the connection was lost")),
            };
        }
        if let Some((until, why)) = &slot.closed_until
            && *until > Instant::now()
        {
            return Err(self.away(why));
        }
        match self.connect().await {
            Ok(open) => {
                let open = Arc::new(open);
                slot.open = Some(open.clone());
                Ok(open)
            }
            Err(error) => {
                slot.closed_until = Some((Instant::now() + slot.pause.next(), error.to_string()));
                Err(error)
            }
        }
    }

    fn away(&self, why: &str) -> Error {
        unavailable(BROKER, &format!("not connected ({})", self.at()), why.to_owned())
    }

    async fn connect(&self) -> Result<Open, Error> {
        let (changed, changes) = watch::channel(Changes::default());
        let mut login = ConnectOptions::new();
        if let Some(server) = self.servers.iter().find(|server| server.has_user_pass()) {
            // A URL with a password only has an empty name.
            let user = decoded(server.username().unwrap_or_default());
            login = match server.password() {
                Some(password) => login.user_and_password(user, decoded(password)),
                None => login.token(user),
            };
        }
        let connecting = login
            .name(&self.options.client)
            .connection_timeout(ANSWER_WITHIN)
            .event_callback(move |event| {
                match event {
                    Event::Connected => changed.send_modify(|changes| changes.made += 1),
                    Event::Disconnected => changed.send_modify(|changes| changes.lost += 1),
                    _ => {}
                }
                tracing::debug!(%event, "NATS");
                std::future::ready(())
            })
            .connect(&self.servers[..]);
        let client = connecting.await.map_err(|error| {
            let refused = error.kind() == async_nats::ConnectErrorKind::AuthorizationViolation;
            let made = unavailable(BROKER, &format!("cannot connect ({})", self.at()), error);
            if !refused {
                return made;
            }
            Error::new(ErrorKind::Refused, format!("{BROKER}: {} does not let us in", self.at()))
                .with_hint("see whether user and password in the URL are right")
        })?;
        let jetstream = ContextBuilder::new()
            .timeout(ANSWER_WITHIN)
            .ack_timeout(self.options.confirm_within)
            .max_ack_inflight(IN_FLIGHT)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let open = Open { client, jetstream, changes, options: self.options.clone() };
        open.make_stream().await?;
        Ok(open)
    }
}

impl Open {
    /// Makes the stream, as far as it is not there.
    pub(super) async fn make_stream(&self) -> Result<stream::Stream, Error> {
        let name = &self.options.name;
        let config = stream::Config {
            name: name.clone(),
            subjects: vec![format!("{name}.>")],
            max_age: self.options.keep,
            duplicate_window: self.options.dedup_window.min(self.options.keep),
            num_replicas: self.options.replicas,
            ..stream::Config::default()
        };
        self.jetstream.get_or_create_stream(config).await.map_err(|error| {
            unavailable(BROKER, &format!("the stream {name} cannot be made"), error).with_hint(
                "see whether the server runs with JetStream (nats-server -js), and whether this user may use it",
            )
        })
    }
}

/// Undoes the percent-encoding of a part of a URL.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_decoded() {
        for (text, expected) in [("plain", "plain"), ("a%40b%2f", "a@b/"), ("50%", "50%"), ("%zz", "%zz")] {
            assert_eq!(decoded(text), expected);
        }
    }
}
