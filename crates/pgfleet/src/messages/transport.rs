//! Which broker a service's messages travel by.

use std::sync::Arc;

use pgfleet_brokers::{BrokerKind, Options};
use pgfleet_events::Transport;
use secrecy::SecretString;

use crate::environment::{text, variable};
use crate::error::Error;

/// Makes the transport that the environment names; none where it names none.
pub(super) fn of_environment(service: &str) -> Result<Option<Arc<dyn Transport>>, Error> {
    let (broker, url) = (variable(service, "EVENTS_BROKER"), variable(service, "EVENTS_URL"));
    let Some(word) = text(&broker) else { return Ok(None) };
    let unusable = |from: &str, error: &pgfleet_events::Error| {
        let own = Error::configuration(format!("cannot use {from}")).cause(error.to_string());
        match error.hint() {
            Some(hint) => own.hinted(hint),
            None => own,
        }
    };
    let kind: BrokerKind = word.trim().parse().map_err(|error| unusable(&broker, &error))?;
    let where_it_is = SecretString::from(text(&url).unwrap_or_default());
    let mut options = Options { client: service.to_owned(), ..Options::default() };
    // The solution's: all services of one must say the same, and those of others on the same broker something else.
    if let Some(name) = text(&variable(service, "EVENTS_NAME")) {
        options.name = name;
    }
    if let Some(schema) = text(&variable(service, "EVENTS_SCHEMA")) {
        options.schema = schema;
    }
    pgfleet_brokers::connect(kind, &where_it_is, options).map(Some).map_err(|error| unusable(&url, &error))
}
