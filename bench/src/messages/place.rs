//! The servers of a run.

use anyhow::{Context as _, Result};
use pgfleet_local::testing::{Broker, OwnServer};
use pgfleet_postgres::{Address, Connection, Purpose, connect};

/// The two services; their databases have their names.
pub(super) const FROM: &str = "trips";
pub(super) const TO: &str = "notifications";

/// What carries the messages.
pub(super) enum Bus {
    Postgres(Box<OwnServer>),
    Broker(Broker),
}

impl Bus {
    pub(super) async fn start(transport: &str) -> Result<Self> {
        Ok(match transport {
            "rabbitmq" => Self::Broker(Broker::rabbitmq().await),
            "nats" => Self::Broker(Broker::nats().await),
            _ => {
                let server = durable().await?;
                pgfleet_brokers::postgres::migrate(&Address::parse(&server.superuser_url("postgres"))?).await?;
                Self::Postgres(Box::new(server))
            }
        })
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.superuser_url("postgres"),
            Self::Broker(broker) => broker.url(),
        }
    }

    pub(super) async fn kill(&self) -> Result<()> {
        match self {
            Self::Postgres(server) => server.kill()?,
            Self::Broker(broker) => broker.kill().await,
        }
        Ok(())
    }

    pub(super) async fn start_again(&mut self) -> Result<()> {
        match self {
            Self::Postgres(server) => drop(server.ensure_running()?),
            Self::Broker(broker) => broker.start().await,
        }
        Ok(())
    }
}

/// A server that keeps what it said was committed, as those of tests otherwise need not.
pub(super) async fn durable() -> Result<OwnServer> {
    Ok(OwnServer::start(|options| options.durable = true).await?)
}

/// The databases of both services, with their own tables.
pub(super) async fn databases(server: &OwnServer) -> Result<()> {
    let all = open(&server.superuser_url("postgres")).await?;
    for (name, table) in [
        (FROM, "CREATE TABLE bookings (key text, number bigint, PRIMARY KEY (key, number))"),
        // No key forbids a second effect: that would hide what is to be found.
        (TO, "CREATE TABLE effects (nr bigserial PRIMARY KEY, key text, number bigint)"),
    ] {
        all.simple(&format!("CREATE DATABASE {name}")).await?;
        open(&server.superuser_url(name)).await?.simple(table).await?;
    }
    Ok(())
}

pub(super) async fn open(url: &str) -> Result<Connection> {
    Ok(connect(&Address::parse(url)?, &Purpose::new("bench")).await?)
}

/// The one number that a query gives.
pub(super) async fn number(url: &str, sql: &str) -> Result<i64> {
    let rows = open(url).await?.query(sql, &[]).await?;
    Ok(rows.first().context("no row")?.get(0))
}
