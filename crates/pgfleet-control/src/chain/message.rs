//! The messages by which tenants follow their services.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// A service's own database was migrated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedDatabaseMigrations {
    /// The service.
    pub service: String,
    /// Its database.
    pub database: String,
    /// The newest version of the service's own set before; none in an empty database.
    pub from: Option<String>,
    /// The newest version after.
    pub to: Option<String>,
    /// The run that did it.
    pub run: String,
}

/// A database is to be migrated and seeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyDatabaseMigrations {
    /// The service.
    pub service: String,
    /// The tenant whose database of that service it is; none is the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// A tenant was stored; its databases may not be there yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantCreated {
    /// The tenant.
    pub tenant: String,
}

/// A tenant was given a string, in place of another or in addition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantConnectionStringUpdated {
    /// The tenant.
    pub tenant: String,
    /// Which: empty is the default, else the name of a service or of a module's connection.
    pub connection: String,
}

/// Something that happened, or is to happen. As JSON it has the fields `type` and `data` of a
/// CloudEvent.
///
/// ```
/// use pgfleet_control::chain::{Message, TenantCreated};
/// let message = Message::TenantCreated(TenantCreated { tenant: "acme".to_owned() });
/// let json = serde_json::json!({ "type": "TenantCreated", "data": { "tenant": "acme" } });
/// assert_eq!(serde_json::to_value(&message).unwrap(), json);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Message {
    /// A service's own database was migrated.
    AppliedDatabaseMigrations(AppliedDatabaseMigrations),
    /// A database is to be migrated and seeded.
    ApplyDatabaseMigrations(ApplyDatabaseMigrations),
    /// A tenant was stored.
    TenantCreated(TenantCreated),
    /// A tenant was given a string.
    TenantConnectionStringUpdated(TenantConnectionStringUpdated),
}

impl Message {
    /// Returns the name of its type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AppliedDatabaseMigrations(_) => "AppliedDatabaseMigrations",
            Self::ApplyDatabaseMigrations(_) => "ApplyDatabaseMigrations",
            Self::TenantCreated(_) => "TenantCreated",
            Self::TenantConnectionStringUpdated(_) => "TenantConnectionStringUpdated",
        }
    }

    /// Returns what is worked on, one message at a time: `trip`, `trip/acme`, `acme`.
    pub fn subject(&self) -> String {
        match self {
            Self::AppliedDatabaseMigrations(AppliedDatabaseMigrations { service, .. })
            | Self::ApplyDatabaseMigrations(ApplyDatabaseMigrations { service, tenant: None }) => service.clone(),
            Self::ApplyDatabaseMigrations(ApplyDatabaseMigrations { service, tenant: Some(tenant) }) => {
                format!("{service}/{tenant}")
            }
            Self::TenantCreated(TenantCreated { tenant })
            | Self::TenantConnectionStringUpdated(TenantConnectionStringUpdated { tenant, .. }) => tenant.clone(),
        }
    }

    /// Returns its data as JSON.
    pub(crate) fn data(&self) -> serde_json::Value {
        let mut whole = serde_json::to_value(self).unwrap_or_default();
        whole["data"].take()
    }

    /// Reads a message of its type's name and its data.
    pub(crate) fn read(kind: &str, data: &str) -> Result<Self, Error> {
        let unreadable = |error: serde_json::Error| {
            Error::new(ErrorKind::Failed, format!("a message {kind} cannot be read")).cause(error.to_string())
        };
        let data: serde_json::Value = serde_json::from_str(data).map_err(unreadable)?;
        serde_json::from_value(serde_json::json!({ "type": kind, "data": data })).map_err(unreadable)
    }
}

/// A message about to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// What caused it: a second message of the same cause is the same message, and is dropped.
    pub id: String,
    /// What it says.
    #[serde(flatten)]
    pub message: Message,
}

/// A message that somebody took to handle it.
#[derive(Debug, Clone)]
pub struct Received {
    /// What caused it.
    pub id: String,
    /// What it says.
    pub message: Message,
    /// Which try this is, counted from 1.
    pub attempt: u32,
    /// When it became due: what was read since then is new enough for it.
    pub due: Instant,
    /// What the transport knows it by.
    pub receipt: i64,
    /// Whose it is; a transport refuses whoever has lost it since.
    pub lease: i64,
}

/// A message that was tried as often as may be, and waits for somebody to start it by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedMessage {
    /// What caused it.
    pub id: String,
    /// What it says.
    #[serde(flatten)]
    pub message: Message,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed the last time.
    pub error: String,
    /// Since when, in UTC.
    pub since: String,
}

impl FailedMessage {
    /// Returns the tenant that it is about; none for a service's own database.
    pub fn tenant(&self) -> Option<&str> {
        match &self.message {
            Message::AppliedDatabaseMigrations(_) => None,
            Message::ApplyDatabaseMigrations(message) => message.tenant.as_deref(),
            Message::TenantCreated(message) => Some(&message.tenant),
            Message::TenantConnectionStringUpdated(message) => Some(&message.tenant),
        }
    }
}
