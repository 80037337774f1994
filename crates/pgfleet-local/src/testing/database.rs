//! A database of a test's own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::server::TestServer;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// An empty database that lives as long as this value.
///
/// When the value is dropped, a thread of its own removes the database, together with the sessions
/// still in it; dropping waits for nothing. What a dead process leaves behind is removed by the
/// next one. Databases and roles whose names begin with this one's name belong to the test too.
#[derive(Debug)]
#[must_use = "the database is removed when this value is dropped"]
pub struct TestDatabase {
    /// The database's name: lower case, needs no quoting, at most 40 bytes.
    pub name: String,
    server: TestServer,
}

impl TestDatabase {
    pub(super) fn new(name: String, server: TestServer) -> Self {
        Self { name, server }
    }

    /// The superuser's URL of this database, with the password.
    pub fn url(&self) -> String {
        self.server.superuser_url(&self.name)
    }

    /// The server it is on.
    pub fn server(&self) -> &TestServer {
        &self.server
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        self.server.discard(&self.name);
    }
}

/// A name that says when and by whom it was made, for whoever cleans up.
pub(super) fn unique_name() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("t_{seconds}_{}_{number}_{:04x}", std::process::id(), rand::random::<u16>())
}

/// When and by which process a name was made; `None` for names that are not ours.
pub(super) fn origin(name: &str) -> Option<(u64, u32)> {
    let mut parts = name.strip_prefix("t_")?.split('_');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_short_and_tell_their_origin() {
        let (first, second) = (unique_name(), unique_name());
        assert_ne!(first, second);
        assert!(first.len() <= 40, "{first}");
        assert_eq!(origin(&first).unwrap().1, std::process::id());
        assert_eq!(origin(&format!("{first}_tenant_a")).unwrap().1, std::process::id());
        assert_eq!(origin("template1"), None);
        assert_eq!(origin("t_shirts"), None);
    }
}
