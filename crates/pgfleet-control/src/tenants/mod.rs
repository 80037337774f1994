//! Tenants: who they are, where their data is, and the strings that lead there.
//!
//! Every change of a tenant is one transaction in the control database: the tenant, its strings under
//! the solution's key, the copies that services read under keys of their own, and a row in the audit.
//! Strings are tried before they are stored, so what stands there has led somewhere once.

mod activation;
mod bench;
mod check;
mod closing;
mod create;
mod dropping;
mod guests;
mod life;
mod migrate;
mod orphans;
mod placement;
pub(crate) mod properties;
mod read;
mod remove;
mod replaced;
mod restore;
pub(crate) mod sharers;
mod unseen;
mod verbs;
mod workshop;

use pgfleet_postgres::Address;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::physical::Physical;
use crate::standing::Standing;

pub(crate) use bench::Admin;
pub(crate) use check::shown;
pub use create::{Home, NewTenant};
pub use dropping::Dropped;
pub use guests::GuestReport;
pub use orphans::{Finding, Kind, Mending};
pub(crate) use read::{ALL_STRINGS, strings_of_one};
pub use remove::{Keep, Removed};
pub(crate) use verbs::lock;
pub use verbs::{Choices, Done, NewString};

/// The longest name of a tenant: one part of a host name.
const LONGEST: usize = 63;

/// The words for a tenant's state, a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantState {
    /// Asked for; nothing is made yet.
    Requested,
    /// Its databases are being made.
    Creating,
    /// Services serve it.
    Active,
    /// Services refuse it; its data stays.
    Disabled,
    /// Its databases are being removed.
    Deleting,
    /// Deleted; its databases are closed and not dropped yet.
    Quarantined,
    /// Making or removing it failed.
    Failed,
}

impl TenantState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Requested,
        Self::Creating,
        Self::Active,
        Self::Disabled,
        Self::Deleting,
        Self::Quarantined,
        Self::Failed,
    ];

    /// Returns the word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Creating => "creating",
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Deleting => "deleting",
            Self::Quarantined => "quarantined",
            Self::Failed => "failed",
        }
    }

    /// Reads the word.
    pub(crate) fn read(word: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|state| state.word() == word).ok_or_else(|| {
            Error::new(ErrorKind::Failed, format!("a tenant is in state `{word}`, which this version does not know"))
        })
    }
}

/// A tenant as the control database has it.
#[derive(Debug, Clone, Serialize)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
    /// Its state.
    pub state: TenantState,
    /// When it was made, in UTC.
    pub created_at: String,
    /// When it was changed last, in UTC.
    pub updated_at: String,
    /// Why making or removing it failed.
    pub error: Option<String>,
    /// How often that was tried.
    pub attempts: u32,
    /// Its strings, the default first.
    pub strings: Vec<TenantString>,
    /// The databases that pgfleet made for it.
    pub databases: Vec<OwnDatabase>,
    /// The names of the properties that its seeds are given.
    pub properties: Vec<String>,
    /// Where each service stands in its databases, as it is remembered.
    pub standings: Vec<Standing>,
}

/// A database that pgfleet made for a tenant, or is about to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnDatabase {
    /// The server.
    pub server: String,
    /// The database.
    pub database: String,
    /// The string that leads there: empty for the default, else the service's.
    pub connection: String,
    /// The services in it.
    pub services: Vec<String>,
    /// `requested`, `creating`, `open`, `closed` or `dropping`.
    pub state: String,
    /// Since when nobody can connect, in UTC.
    pub closed_at: Option<String>,
    /// When it may be dropped, in UTC.
    pub drop_after: Option<String>,
    /// Its oid, once it was made.
    #[serde(skip)]
    pub oid: Option<u32>,
    /// The cluster, once it was made.
    #[serde(skip)]
    pub system_identifier: String,
}

/// One connection string of a tenant, without its secret.
#[derive(Debug, Clone, Serialize)]
pub struct TenantString {
    /// Which: empty is the default, else the name of a service or of a module's connection.
    pub connection: String,
    /// The part that holds no secret.
    pub shown: String,
    /// The database that it led to; none when nobody looked.
    pub physical: Option<Physical>,
    /// When somebody looked, in UTC.
    pub checked_at: Option<String>,
    /// Whether another tenant may have the same database.
    pub shared: bool,
    /// The solution's server on which pgfleet made the database; empty for a string that was given.
    pub server: String,
    /// The other strings that lead to the same database.
    pub same_as: Vec<SameAs>,
    /// The services that read it.
    pub readers: Vec<String>,
}

/// Another string that leads to the same database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SameAs {
    /// The tenant, which may be the same one.
    pub tenant: String,
    /// Which of its strings.
    pub connection: String,
}

/// Says what is wrong with the name of a tenant.
///
/// A name is part of host names (`acme.example.org`), headers and paths, so it is what is safe in all
/// of them: 1 to 63 small letters, digits and hyphens, no hyphen at either end.
///
/// ```
/// use pgfleet_control::tenants::name_mistake;
/// assert_eq!(name_mistake("acme-2"), None);
/// assert_eq!(name_mistake("Acme"), Some("has a capital letter; write acme".to_owned()));
/// ```
pub fn name_mistake(name: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() {
        return Some("is empty".to_owned());
    }
    if name.len() > LONGEST {
        return Some(format!("is longer than {LONGEST} characters ({})", name.chars().count()));
    }
    if name.chars().any(|c| c.is_ascii_uppercase()) && name.to_ascii_lowercase().chars().all(fits) {
        return Some(format!("has a capital letter; write {}", name.to_ascii_lowercase()));
    }
    if let Some(other) = name.chars().find(|c| !fits(*c)) {
        return Some(format!("holds `{}`; small letters, digits and hyphens are allowed", other.escape_debug()));
    }
    (name.starts_with('-') || name.ends_with('-')).then(|| "begins or ends with a hyphen".to_owned())
}

/// Finds a tenant.
pub(crate) fn find<'a>(tenants: &'a [Tenant], name: &str) -> Result<&'a Tenant, Error> {
    let names = || tenants.iter().map(|tenant| tenant.name.as_str()).collect::<Vec<_>>();
    tenants.iter().find(|tenant| tenant.name == name).ok_or_else(|| unknown(&names(), name))
}

fn unknown(names: &[&str], name: &str) -> Error {
    Error::new(ErrorKind::Configuration, format!("there is no tenant `{name}`"))
        .hinted(crate::connections::near(name, names))
}

/// Completes a tenant's string by a service's own: what it does not say is as there.
pub(crate) fn completed(main: &Address, text: &SecretString, tenant: &str) -> Result<Address, Error> {
    main.by_way_of(text.expose_secret()).map_err(|error| {
        Error::new(ErrorKind::Configuration, format!("a connection string of tenant {tenant} cannot be used"))
            .cause(error.to_string())
            .hinted("write postgresql://host/database, or dbname=DATABASE for one on the service's own server")
    })
}

/// What a sealed string is bound to, so that rows cannot be swapped.
pub(crate) fn context(tenant: &str, connection: &str) -> String {
    format!("tenant/{tenant}/{connection}")
}

/// What a sealed seed property is bound to.
pub(crate) fn property_context(tenant: &str, name: &str) -> String {
    format!("tenant/{tenant}/property/{name}")
}

/// Returns the words for one of a tenant's strings.
pub fn string_name(connection: &str) -> String {
    if connection.is_empty() { "its default string".to_owned() } else { format!("its string for {connection}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_one_is_told_why() {
        assert_eq!(name_mistake(&"a".repeat(63)), None);
        for (name, why) in [
            ("", "is empty"),
            ("-acme", "begins or ends with a hyphen"),
            ("acme-", "begins or ends with a hyphen"),
            ("AC me", "holds `A`"),
            ("acme.org", "holds `.`"),
            ("acme/x", "holds `/`"),
            ("größe", "holds `ö`"),
            ("Acme", "write acme"),
        ] {
            let mistake = name_mistake(name).unwrap_or_default();
            assert!(mistake.contains(why), "{name}: {mistake}");
        }
        assert!(name_mistake(&"a".repeat(64)).is_some());
    }
}
