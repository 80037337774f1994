//! One physical database that migrations run in.

use pgfleet_postgres::{Address, Identity, Purpose};

use crate::error::{Error, ErrorKind};
use crate::options::{Durability, Options};

/// One physical database and how to get into it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name in messages: `trip`, `trip/acme`.
    pub name: String,
    /// The role that migrates (owns what it makes).
    pub address: Address,
    /// A role that may create the database; none: a missing database is an error.
    pub admin: Option<Address>,
    /// The schema that unqualified names go to; none leaves the server's setting.
    pub schema: Option<String>,
    /// The tenant whose database it is, or under whose scope it is seeded; none is the host.
    pub tenant: Option<String>,
    /// Whether it is the host's database, since the tenant has none of its own: it can be seeded for
    /// the tenant, but is migrated as the host's only.
    pub shared: bool,
    /// Which database it is, where somebody has looked: it need not be asked again when it says so itself.
    pub known: Option<Identity>,
}

impl Target {
    /// Makes a target that creates its own database when it may.
    pub fn new(name: impl Into<String>, address: Address) -> Self {
        Self { name: name.into(), address, admin: None, schema: None, tenant: None, shared: false, known: None }
    }

    /// Makes it the target of a tenant that has this database for its own.
    #[must_use]
    pub fn of_tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self.shared = false;
        self
    }

    /// Makes it the target of a tenant that has no database of its own, and its rows in this one, the
    /// host's.
    #[must_use]
    pub fn shared_by(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self.shared = true;
        self
    }

    /// Returns the tenant whose rows are among those of others here.
    pub(crate) fn guest(&self) -> Option<&str> {
        self.tenant.as_deref().filter(|_| self.shared)
    }

    /// Refuses to change the schema of a database that is the host's, in the name of a tenant.
    pub(crate) fn refuse_shared(&self, verb: &str) -> Result<(), Error> {
        let Some(tenant) = self.guest() else { return Ok(()) };
        Err(Error::new(ErrorKind::Findings, format!("cannot {verb} {}", self.name))
            .cause(format!("{tenant} has no database of its own here"))
            .hinted("what belongs to all tenants is done in the host's database"))
    }

    /// Returns what the connection is for.
    ///
    /// Given at start-up, so that `RESET ALL` after a file that leaves settings behind comes back
    /// to these: no time-out but ours may end a migration, and `search_path` decides where
    /// unqualified names go.
    pub(crate) fn purpose(&self, options: &Options) -> Purpose {
        let mut purpose = Purpose::new(format!("pgfleet migrate {}", self.name))
            .setting("statement_timeout", "0")
            .setting("lock_timeout", "0")
            .setting("idle_in_transaction_session_timeout", "0")
            .setting("idle_session_timeout", "0")
            .setting("standard_conforming_strings", "on")
            .setting("client_encoding", "UTF8")
            // Else the statement of a run that was killed goes on, and keeps the lock, until the
            // server has something to say to it. Not every system can look; there it stays so.
            .wish("client_connection_check_interval", "10s");
        if options.durability != Durability::Each {
            purpose = purpose.setting("synchronous_commit", "off");
        }
        if let Some(schema) = self.schema.as_deref() {
            purpose = purpose.setting("search_path", search_path(schema));
        }
        purpose
    }
}

/// Returns the path for a schema of a service or module.
///
/// Extensions live in `public`, so that stays reachable behind it.
pub fn search_path(schema: &str) -> String {
    if schema == "public" { "public".to_owned() } else { format!("{}, public", pgfleet_postgres::quote_ident(schema)) }
}
