//! A database of a test's own.

use super::server::TestServer;

/// An empty database that lives as long as this value.
///
/// When the value is dropped, the database is removed in the background, together with the sessions
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
        self.server.databases().discard(&self.name);
    }
}
