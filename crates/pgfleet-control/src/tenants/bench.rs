//! The connections of one who works on tenants, and the tenant that he has for himself.
//!
//! One process at a time works on a tenant: it holds a lock in the control database as long as it lives.

use std::collections::HashMap;
use std::time::Duration;

use pgfleet_postgres::{Address, Connection, Purpose, connect, retry};

use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::solution::Solution;

/// First half of the locks on tenants, `pgfn` in ASCII; taken in the control database.
const HELD: i32 = 0x7067_666e;

/// How long to wait for another process that works on the same tenant.
const LOCK_TRIES: u32 = 1_200;

/// The connections of one who works on tenants: opened once, used for many of them.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The control database.
    pub(crate) catalogue: Catalogue,
    admins: HashMap<String, Admin>,
}

/// A connection to a server as its administrator.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) connection: Connection,
    /// Identifies the cluster.
    pub(crate) identifier: String,
}

impl Bench {
    /// Opens the control database, and with `copying` the server on which tenants are, when there is
    /// only one.
    ///
    /// # Errors
    ///
    /// The control database is not there yet, or a server cannot be reached.
    pub(crate) async fn open(solution: &Solution, copying: bool) -> Result<Self, Error> {
        let only = match &solution.manifest.tenants.servers[..] {
            [only] if copying => Some(only.as_str()),
            _ => None,
        };
        let (catalogue, admin) = futures_util::future::try_join(solution.tenant_catalogue(), async {
            let Some(server) = only else { return Ok(None) };
            let admin = match solution.take_admin(server) {
                Some(kept) => kept,
                None => Admin::open(solution, server).await?,
            };
            Ok(Some((server.to_owned(), admin)))
        })
        .await?;
        Ok(Self { catalogue, admins: admin.into_iter().collect() })
    }

    /// Returns one whose connections are alive.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(crate) async fn usable<'a>(
        bench: &'a mut Option<Self>,
        solution: &Solution,
        copying: bool,
    ) -> Result<&'a mut Self, Error> {
        let alive = |bench: &Self| !bench.catalogue.connection().is_closed();
        let usable = match bench.take() {
            Some(found) if alive(&found) => found,
            _ => Self::open(solution, copying).await?,
        };
        Ok(bench.insert(usable))
    }

    /// Connects to a server as its administrator, once.
    pub(crate) async fn admin(&mut self, solution: &Solution, server: &str) -> Result<&Admin, Error> {
        let alive = self.admins.get(server).is_some_and(|admin| !admin.connection.is_closed());
        if !alive {
            self.admins.insert(server.to_owned(), Admin::open(solution, server).await?);
        }
        Ok(&self.admins[server])
    }

    /// Returns the connection to a server, where there is one.
    pub(crate) fn known_admin(&self, server: &str) -> Option<&Admin> {
        self.admins.get(server)
    }

    /// Returns the control database and a server.
    pub(crate) async fn both(&mut self, solution: &Solution, server: &str) -> Result<(&Catalogue, &Admin), Error> {
        self.admin(solution, server).await?;
        Ok((&self.catalogue, &self.admins[server]))
    }

    /// Takes the tenant for this one alone, and waits while another has it.
    ///
    /// # Errors
    ///
    /// Another has had it for ten minutes.
    pub(crate) async fn hold(&self, tenant: &str) -> Result<(), Error> {
        for attempt in 1..=LOCK_TRIES {
            if self.try_hold(tenant).await? {
                return Ok(());
            }
            tokio::time::sleep(retry::backoff(attempt, Duration::from_millis(20), Duration::from_millis(500))).await;
        }
        Err(Error::new(ErrorKind::Failed, format!("cannot work on tenant {tenant}"))
            .cause("another process has been at it for ten minutes"))
    }

    /// Takes the tenant unless another has it.
    pub(crate) async fn try_hold(&self, tenant: &str) -> Result<bool, Error> {
        let sql = format!("SELECT pg_catalog.pg_try_advisory_lock({HELD}, {})", lock_key(tenant));
        let rows = self
            .catalogue
            .connection()
            .simple(&sql)
            .await
            .map_err(|error| Error::postgres(format!("cannot lock tenant {tenant}"), &error))?;
        Ok(rows.first().and_then(|row| row.get(0)) == Some("t"))
    }

    /// Lets others work on the tenant; closing the connection does, too.
    pub(crate) async fn release(&self, tenant: &str) {
        let sql = format!("SELECT pg_catalog.pg_advisory_unlock({HELD}, {})", lock_key(tenant));
        let _freed = self.catalogue.connection().simple(&sql).await;
    }

    /// Closes the connections.
    pub(crate) async fn close(self) {
        let admins = self.admins.into_values().map(|admin| admin.connection.close());
        futures_util::future::join(self.catalogue.close(), futures_util::future::join_all(admins)).await;
    }
}

impl Admin {
    async fn open(solution: &Solution, server: &str) -> Result<Self, Error> {
        let Some((_, found)) = solution.servers().find(|(name, _)| *name == server) else {
            return Err(Error::new(ErrorKind::Configuration, format!("there is no server `{server}` in the manifest"))
                .hinted("a tenant's database is there: put the server back, or move the tenant before taking it out"));
        };
        Self::connect(&found.admin, server).await
    }

    /// Connects to the server at this address.
    pub(crate) async fn connect(address: &Address, server: &str) -> Result<Self, Error> {
        let failed = |error: &pgfleet_postgres::Error| {
            Error::postgres(format!("cannot work on the tenants' databases of server {server}"), error)
        };
        let purpose = Purpose::new("pgfleet tenant").setting("lock_timeout", "60s").setting("statement_timeout", "0");
        let connection = connect(address, &purpose).await.map_err(|error| failed(&error))?;
        let identifier =
            pgfleet_postgres::identity::system_identifier(&connection).await.map_err(|error| failed(&error))?;
        Ok(Self { connection, identifier })
    }
}

fn lock_key(tenant: &str) -> i32 {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(tenant.as_bytes());
    i32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}
