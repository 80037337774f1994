//! The server that tests are run on.

use std::sync::Arc;

use pgfleet_local::testing::{Databases, TestServer};
use pgfleet_postgres::{Address, Connection, Purpose, connect};
use tokio::sync::OnceCell;

use crate::environment::{address, parse};
use crate::error::Error;

/// Says on which server test databases are made.
const URL: &str = "PGFLEET_TEST_URL";

/// Says that databases of failed tests stay.
const KEEP: &str = "PGFLEET_TEST_KEEP";

static SERVER: OnceCell<Arc<Server>> = OnceCell::const_new();

#[derive(Debug)]
pub(super) struct Server {
    /// One of its databases, in which nothing is changed.
    pub(super) address: Address,
    pub(super) databases: Databases,
    /// Whether it is the one of this machine's user, with nothing on it but tests.
    pub(super) is_local: bool,
}

impl Server {
    /// The server of this process.
    pub(super) async fn get() -> Result<Arc<Self>, Error> {
        SERVER.get_or_try_init(async || Self::find().await.map(Arc::new)).await.cloned()
    }

    async fn find() -> Result<Self, Error> {
        if let Some(address) = address(URL)? {
            let own = address.clone();
            let databases = Databases::on(move || {
                let address = own.clone();
                async move {
                    let opened = connect(&address, &Purpose::new("pgfleet test")).await;
                    opened.map(Connection::into_client).map_err(|error| format!("{:#}", Error::from(error)))
                }
            });
            return Ok(Self { address, databases, is_local: false });
        }
        let server = TestServer::shared().await;
        let address = parse("the test server", &server.superuser_url("postgres"))?;
        Ok(Self { address, databases: server.databases().clone(), is_local: true })
    }
}

/// Whether databases of failed tests stay.
pub(super) fn keeps() -> bool {
    std::env::var(KEEP).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}
