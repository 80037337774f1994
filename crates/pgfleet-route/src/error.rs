//! Why a request got no connection.

use std::fmt;

use pgfleet_postgres::Error as PgError;

use crate::rules::RuleError;

/// Why a request got no connection, or its statement failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no such tenant.
    UnknownTenant {
        /// The name that was asked for.
        tenant: String,
    },
    /// The tenant may not be served.
    TenantDisabled {
        /// The tenant.
        tenant: String,
        /// Its state: disabled, deleting, quarantined.
        state: String,
    },
    /// The tenant's database is being made, or is behind what the service needs.
    TenantNotReady {
        /// The tenant.
        tenant: String,
        /// Where it stands: a version, or the state of the tenant.
        have: String,
        /// What the service needs.
        need: String,
    },
    /// The tenants are not known yet, since the control database was never reached.
    TenantsUnknown {
        /// Why it was not reached.
        source: PgError,
    },
    /// A tenant's connection string cannot be used.
    TenantString {
        /// The tenant.
        tenant: String,
        /// What is wrong, without the string.
        reason: String,
    },
    /// The service has no connection of this name.
    Name(RuleError),
    /// The database could not be reached, or refused a statement.
    Postgres(PgError),
}

impl Error {
    /// Returns whether the same may succeed when it is tried again later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TenantNotReady { .. } | Self::TenantsUnknown { .. } => true,
            Self::Postgres(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Returns what an HTTP service answers: 404, 403, 503 or 500.
    pub fn status(&self) -> u16 {
        match self {
            Self::UnknownTenant { .. } => 404,
            Self::TenantDisabled { .. } => 403,
            _ if self.is_retryable() => 503,
            _ => 500,
        }
    }

    /// Returns the database's error, when there is one.
    pub fn postgres(&self) -> Option<&PgError> {
        match self {
            Self::Postgres(error) | Self::TenantsUnknown { source: error } => Some(error),
            _ => None,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownTenant { tenant } => {
                Some(format!("list them: pgfleet tenant list; make it: pgfleet tenant create {tenant}"))
            }
            Self::TenantDisabled { tenant, .. } => Some(format!("look: pgfleet tenant show {tenant}")),
            Self::TenantNotReady { tenant, .. } => Some(format!("look: pgfleet status --tenant {tenant}")),
            Self::TenantString { tenant, .. } => Some(format!("set it anew: pgfleet tenant set-connection {tenant}")),
            Self::Name(error) => Some(error.hint()),
            Self::TenantsUnknown { source } | Self::Postgres(source) => source.hint(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTenant { tenant } => write!(f, "there is no tenant {tenant}"),
            Self::TenantDisabled { tenant, state } => write!(f, "tenant {tenant} is {state}"),
            Self::TenantNotReady { tenant, have, need } => {
                write!(f, "tenant {tenant} is not ready: it is at {have}, and {need} is needed")
            }
            Self::TenantsUnknown { .. } => {
                f.write_str("the tenants are not known: the control database was not reached")
            }
            Self::TenantString { tenant, reason } => {
                write!(f, "the connection string of tenant {tenant} cannot be used: {reason}")
            }
            Self::Name(error) => error.fmt(f),
            Self::Postgres(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TenantsUnknown { source } => Some(source),
            // Its own text is what is shown; what is below it is the cause.
            Self::Postgres(error) => std::error::Error::source(error),
            _ => None,
        }
    }
}

impl From<PgError> for Error {
    fn from(error: PgError) -> Self {
        Self::Postgres(error)
    }
}

impl From<RuleError> for Error {
    fn from(error: RuleError) -> Self {
        Self::Name(error)
    }
}
