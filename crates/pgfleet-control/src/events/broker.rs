//! The broker of a solution.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use pgfleet_brokers::{BrokerKind, Options, connect};
use pgfleet_events::{InProcess, Transport};

use super::failed::failed;
use crate::error::{Error, ErrorKind};
use crate::manifest::{Broker, ChainTransport};
use crate::roles::Login;
use crate::solution::Solution;

impl Solution {
    /// Returns the broker that carries the services' messages; it connects when there is something to do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: the URL cannot be used, or the manifest names a broker that this process cannot reach.
    pub fn broker(&self) -> Result<Arc<dyn Transport>, Error> {
        let events = &self.manifest.events;
        let bus;
        let (kind, url) = match (events.broker, &events.url, self.manifest.bus()) {
            (Broker::Rabbitmq, Some(url), _) => (BrokerKind::RabbitMq, url),
            (Broker::Nats, Some(url), _) => (BrokerKind::Nats, url),
            (Broker::Postgres, _, Some(service)) => {
                bus = self.address(service, Login::App)?.expose_url();
                (BrokerKind::Postgres, &bus)
            }
            (Broker::InProcess, ..) => return Ok(self.in_process()),
            (broker, ..) => {
                let message = format!("there is no broker \"{}\" yet: no service has messages", broker.as_str());
                return Err(Error::new(ErrorKind::Configuration, message).hinted(
                    "leave `chain` in [events] at \"table\", or give a service the module `outbox` or `inbox`",
                ));
            }
        };
        let options = Options {
            name: self.manifest.solution.name.clone(),
            client: "pgfleet".to_owned(),
            schema: self.manifest.bus_schema().to_owned(),
            ..Options::default()
        };
        connect(kind, url, options).map_err(|error| Error::new(ErrorKind::Configuration, failed(&error).to_string()))
    }

    /// The transport within this process, the same for everybody in it who opens the solution.
    fn in_process(&self) -> Arc<dyn Transport> {
        static ALL: LazyLock<Mutex<HashMap<PathBuf, InProcess>>> = LazyLock::new(Mutex::default);
        // Held for a look or an insert, so that a panic leaves nothing half done.
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::new(all.entry(self.manifest.path.clone()).or_default().clone())
    }

    /// Returns the broker when it is to carry the messages by which tenants follow their services.
    pub(crate) fn chain_broker(&self) -> Result<Option<Arc<dyn Transport>>, Error> {
        match self.manifest.events.chain {
            ChainTransport::Table => Ok(None),
            ChainTransport::Broker => self.broker().map(Some),
        }
    }
}
