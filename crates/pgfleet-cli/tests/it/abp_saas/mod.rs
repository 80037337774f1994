//! The example `abp-saas`: five services, the modules that they share, and tenants.

mod host;
mod tenants;

use pgfleet_local::testing::OwnServer;

use crate::support::{Folder, Ran, column};

/// The example on a server of its own: its services have the names that they have in the manifest.
struct Abp {
    folder: Folder,
    server: OwnServer,
}

impl Abp {
    /// Writes the example, and makes its databases with everything in them.
    async fn up() -> Self {
        let mut folder = Folder::new();
        folder.pgfleet("init --template abp-saas").exits(0).says("next: pgfleet up");
        let server = OwnServer::start(|_| ()).await.unwrap();
        folder.set("PGFLEET_SERVERS__MAIN__URL", server.superuser_url("postgres"));
        let abp = Self { folder, server };
        abp.pgfleet("migrate").exits(0).says("5 databases: 5 changed, 0 up to date, 0 pending, 0 failed");
        abp
    }

    fn pgfleet(&self, line: &str) -> Ran {
        self.folder.pgfleet(line)
    }

    /// Asks a database as the superuser and returns the first column.
    async fn column(&self, database: &str, sql: &str) -> Vec<String> {
        column(&self.server.superuser_url(database), sql).await
    }

    /// Asks for one value.
    async fn one(&self, database: &str, sql: &str) -> String {
        let mut rows = self.column(database, sql).await;
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows.remove(0)
    }

    /// Everything that the seeds wrote, in one text: equal when no row, stamp or time changed.
    async fn seeded(&self) -> String {
        let mut all = String::new();
        for (database, tables) in [
            ("administration", &["permission.permissions", "permission.permission_grants", "language.languages"][..]),
            ("identity", &["identity.roles", "identity.users", "identity.user_roles"][..]),
            ("identity", &["identity.openiddict_scopes", "identity.openiddict_applications"][..]),
        ] {
            for table in tables {
                let rows =
                    format!("select coalesce(string_agg(t::text || xmin, ' ' order by t::text), '') from {table} t");
                all.push_str(&self.one(database, &rows).await);
                all.push('\n');
            }
        }
        all
    }
}
