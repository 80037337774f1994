//! How a pool behaves.

use std::time::Duration;

use super::budget::Limits;

/// How a pool behaves.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Most connections.
    pub max: usize,
    /// Connections kept open; as far as the budget has slots that nobody waits for.
    pub min: usize,
    /// When an idle connection is closed.
    pub idle_timeout: Duration,
    /// How long getting a connection may take: waiting for a slot, connecting, and waiting out a full server.
    pub connect_timeout: Duration,
    /// How long a statement may take; none for as long as it takes.
    pub command_timeout: Option<Duration>,
    /// How old a connection may become; it is closed when it comes back older.
    pub max_lifetime: Duration,
    /// When a connection in use is warned of, with the place that took it.
    pub held_warning: Duration,
    /// How statements are prepared.
    pub statements: Statements,
    /// From when a statement is logged as slow.
    pub slow: Duration,
}

/// How statements are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Statements {
    /// [`Named`](Self::Named) on the server itself, [`Unnamed`](Self::Unnamed) where a pooler is seen in between.
    #[default]
    Auto,
    /// Once per connection, by name.
    Named,
    /// Once per connection as to the types of their values; then in one round trip without a name, which works behind
    /// every pooler.
    Unnamed,
    /// Anew each time.
    Off,
}

impl Default for PoolOptions {
    /// For the main database of a service: at most 20, at least 5, idle for 30 s, 20 s to connect, 30 s for a statement.
    fn default() -> Self {
        Self {
            max: 20,
            min: 5,
            idle_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(20),
            command_timeout: Some(Duration::from_secs(30)),
            max_lifetime: Duration::from_hours(1),
            held_warning: Duration::from_secs(30),
            statements: Statements::Auto,
            slow: Duration::from_secs(1),
        }
    }
}

impl PoolOptions {
    /// For the database of one tenant among many: at most 4, none kept open.
    #[must_use]
    pub fn for_tenants() -> Self {
        Self { max: 4, min: 0, ..Self::default() }
    }

    pub(super) fn limits(&self, name: &str) -> Limits {
        Limits {
            name: name.to_owned(),
            max: self.max.max(1),
            min: self.min,
            idle_timeout: self.idle_timeout,
            held_warning: self.held_warning,
        }
    }
}
