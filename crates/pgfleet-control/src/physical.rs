//! Which physical database a connection string leads to, whatever the string looks like.

use pgfleet_postgres::identity::system_identifier;
use pgfleet_postgres::{Connection, Identity, Purpose, Type, connect};
use serde::Serialize;

use crate::error::Error;
use crate::solution::Solution;

/// A database as the server itself knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Physical {
    /// Identifies the cluster; `host:port` where the server does not tell.
    pub system_identifier: String,
    /// The database's name.
    pub database: String,
    /// The database's oid.
    pub oid: u32,
    /// The server's version as a number: 150020; 0 when it was not asked.
    pub server_version: u32,
}

impl Physical {
    /// Returns it as the server itself would say it.
    pub(crate) fn into_identity(self) -> Identity {
        let Self { system_identifier, database, oid, server_version } = self;
        Identity { system_identifier, database, oid, server_version }
    }

    /// Returns whether two records mean one database: of one cluster, with the same oid or the same
    /// name.
    ///
    /// Either will do. A database that was renamed since it was recorded is still the same, and one
    /// that took the name of another is where the other's string leads now.
    pub fn is_same(&self, other: &Self) -> bool {
        self.system_identifier == other.system_identifier && (self.oid == other.oid || self.database == other.database)
    }

    /// Asks a connection where it is.
    ///
    /// # Errors
    ///
    /// The connection is lost, or the server does not say.
    pub async fn of(connection: &Connection) -> Result<Self, pgfleet_postgres::Error> {
        let Identity { system_identifier, database, oid, server_version } = Identity::of(connection).await?;
        Ok(Self { system_identifier, database, oid, server_version })
    }
}

/// A database of the solution itself.
#[derive(Debug, Clone, Serialize)]
pub struct HostDatabase {
    /// The service; none for the control database.
    pub service: Option<String>,
    /// The server's name.
    pub server: String,
    /// The database.
    pub physical: Physical,
}

impl Solution {
    /// Finds the services' own databases and the control database; those that are not there yet are
    /// left out.
    ///
    /// # Errors
    ///
    /// A server that cannot be reached or read.
    pub async fn host_databases(&self) -> Result<Vec<HostDatabase>, Error> {
        let mut found = Vec::new();
        for (name, server) in self.servers() {
            let mut wanted: Vec<(String, Option<String>)> = self
                .manifest
                .services
                .iter()
                .filter(|service| service.server == name)
                .map(|service| (service.database.clone(), Some(service.name.clone())))
                .collect();
            if self.manifest.control.server == name {
                wanted.push((self.manifest.control.database.clone(), None));
            }
            let failed = |error: &pgfleet_postgres::Error| {
                Error::postgres(format!("cannot look for the databases of server {name}"), error)
            };
            let purpose = Purpose::new("pgfleet connection");
            let connection = connect(&server.admin, &purpose).await.map_err(|error| failed(&error))?;
            let system_identifier = system_identifier(&connection).await.map_err(|error| failed(&error))?;
            let names: Vec<&str> = wanted.iter().map(|(database, _)| database.as_str()).collect();
            let rows = connection
                .query(
                    "SELECT datname::text, oid, current_setting('server_version_num')::int FROM pg_catalog.pg_database \
                     WHERE datname = ANY ($1)",
                    &[(&names, Type::TEXT_ARRAY)],
                )
                .await
                .map_err(|error| failed(&error))?;
            connection.close().await;
            for row in rows {
                let (database, oid, version): (String, u32, i32) = (row.get(0), row.get(1), row.get(2));
                let service =
                    wanted.iter().find(|(name, _)| *name == database).and_then(|(_, service)| service.clone());
                let physical = Physical {
                    system_identifier: system_identifier.clone(),
                    database,
                    oid,
                    server_version: u32::try_from(version).unwrap_or_default(),
                };
                found.push(HostDatabase { service, server: name.to_owned(), physical });
            }
        }
        Ok(found)
    }
}
