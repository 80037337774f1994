//! Keeping everybody out of a database, and letting them in again.

use std::time::Duration;

use pgfleet_postgres::{Connection, Type, quote_ident, retry};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// How all sessions of a move are called.
pub(super) const APPLICATION: &str = "pgfleet move";

/// How long transactions that run may go on before they are ended.
const DRAIN: Duration = Duration::from_secs(3);

/// How often sessions are sent away; they may come again until they have seen that they may not.
const TRIES: u32 = 200;

/// Somebody who may connect; an empty name is everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grantee {
    role: String,
    grantable: bool,
}

/// A database that is fenced, seen by its server's administrator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fence<'a> {
    /// A connection of the administrator, to another database.
    pub(super) admin: &'a Connection,
    pub(super) database: &'a str,
    pub(super) oid: u32,
}

impl Fence<'_> {
    /// Reads who may connect.
    pub(super) async fn grantees(&self) -> Result<Vec<Grantee>, Error> {
        let rows = self
            .admin
            .query(
                "SELECT coalesce(r.rolname::text, ''), bool_or(a.is_grantable) FROM pg_catalog.pg_database d \
                 CROSS JOIN pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a \
                 LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee \
                 WHERE d.oid = $1 AND a.privilege_type = 'CONNECT' AND (a.grantee = 0 OR r.oid IS NOT NULL) \
                 GROUP BY 1 ORDER BY 1",
                &[(&self.oid, Type::OID)],
            )
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(rows.iter().map(|row| Grantee { role: row.get(0), grantable: row.get(1) }).collect())
    }

    /// Lets nobody in but the administrator, and ends the sessions that are there, also those that come
    /// in while this runs.
    pub(super) async fn close(&self) -> Result<(), Error> {
        self.drain().await?;
        self.revoke().await?;
        self.send_away().await
    }

    /// Returns whether nobody else may come in and nobody else is there.
    pub(super) async fn holds(&self) -> Result<bool, Error> {
        let admin = self.admin.address().user();
        let open = self.grantees().await?.iter().any(|grantee| grantee.role != admin);
        Ok(!open && self.strangers().await?.is_empty())
    }

    /// Lets in whoever could before, and the administrator only if it could.
    pub(super) async fn open(&self, before: &[Grantee]) -> Result<(), Error> {
        let mut sql = self.grants(before).await?;
        let admin = self.admin.address().user();
        if !names(before, admin) {
            let database = quote_ident(self.database);
            sql.push_str(&format!("REVOKE CONNECT ON DATABASE {database} FROM {}", quote_ident(admin)));
        }
        self.admin.execute_all(&sql).await.map_err(|error| self.failed(&error))
    }

    /// Lets those in as well who are named, and whom the server knows.
    pub(super) async fn admit(&self, named: &[Grantee]) -> Result<(), Error> {
        let named: Vec<Grantee> = named.iter().filter(|grantee| !grantee.role.is_empty()).cloned().collect();
        let sql = self.grants(&named).await?;
        self.admin.execute_all(&sql).await.map_err(|error| self.failed(&error))
    }

    async fn grants(&self, grantees: &[Grantee]) -> Result<String, Error> {
        let rows = self
            .admin
            .query("SELECT rolname::text FROM pg_catalog.pg_roles", &[])
            .await
            .map_err(|error| self.failed(&error))?;
        let known: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let database = quote_ident(self.database);
        let mut sql = String::new();
        for grantee in grantees.iter().filter(|g| g.role.is_empty() || known.contains(&g.role.as_str())) {
            let with = if grantee.grantable && !grantee.role.is_empty() { " WITH GRANT OPTION" } else { "" };
            sql.push_str(&format!("GRANT CONNECT ON DATABASE {database} TO {}{with}; ", named(&grantee.role)));
        }
        Ok(sql)
    }

    /// Takes the right to connect from everybody but the administrator.
    async fn revoke(&self) -> Result<(), Error> {
        let admin = self.admin.address().user();
        let present = self.grantees().await?;
        let others: Vec<String> = present.iter().filter(|g| g.role != admin).map(|g| named(&g.role)).collect();
        if others.is_empty() {
            return Ok(());
        }
        let database = quote_ident(self.database);
        // One text, so that it is one transaction.
        let sql = format!(
            "GRANT CONNECT ON DATABASE {database} TO {}; REVOKE CONNECT ON DATABASE {database} FROM {} CASCADE",
            quote_ident(admin),
            others.join(", ")
        );
        self.admin.execute_all(&sql).await.map_err(|error| {
            self.failed(&error).hinted(format!("the administrator's role {admin} must own the database"))
        })?;
        match self.grantees().await?.iter().find(|grantee| grantee.role != admin) {
            None => Ok(()),
            Some(left) => Err(self.cannot().cause(format!(
                "{} may still connect: somebody else than the owner granted it",
                if left.role.is_empty() { "everybody" } else { &left.role }
            ))),
        }
    }

    /// Waits a moment for transactions that run.
    async fn drain(&self) -> Result<(), Error> {
        let began = tokio::time::Instant::now();
        while began.elapsed() < DRAIN {
            let rows = self
                .admin
                .query(
                    "SELECT 1 FROM pg_catalog.pg_stat_activity WHERE datid = $1 AND pid <> pg_catalog.pg_backend_pid() \
                     AND backend_type = 'client backend' AND state <> 'idle' \
                     AND NOT pg_catalog.starts_with(application_name, $2) LIMIT 1",
                    &[(&self.oid, Type::OID), (&APPLICATION, Type::TEXT)],
                )
                .await
                .map_err(|error| self.failed(&error))?;
            if rows.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Ends all sessions but those of moves, until there is none.
    pub(super) async fn send_away(&self) -> Result<(), Error> {
        let mut left = Vec::new();
        for attempt in 1..=TRIES {
            // A session that is only just coming in was let in before the right was taken. It is not in
            // the list of sessions yet, but holds a lock on the database until it is.
            let arriving = self.is_anybody_arriving().await?;
            left = self.strangers().await?;
            if left.is_empty() && !arriving {
                return Ok(());
            }
            for (pid, role) in &left {
                self.end(*pid, role).await?;
            }
            tokio::time::sleep(retry::backoff(attempt, Duration::from_millis(5), Duration::from_millis(100))).await;
        }
        let mut error = self.cannot();
        for (pid, role) in left.iter().take(3) {
            error = error.cause(format!("a session of role {role} (pid {pid}) is still there, or comes again"));
        }
        Err(error.hinted("a superuser's sessions can be kept out by nobody: stop the program"))
    }

    async fn is_anybody_arriving(&self) -> Result<bool, Error> {
        let rows = self
            .admin
            .query(
                "SELECT 1 FROM pg_catalog.pg_locks WHERE locktype = 'object' AND database = 0 AND objid = $1 \
                 AND classid = 'pg_catalog.pg_database'::regclass AND mode = 'RowExclusiveLock' \
                 AND pid <> pg_catalog.pg_backend_pid() LIMIT 1",
                &[(&self.oid, Type::OID)],
            )
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(!rows.is_empty())
    }

    /// Lists the sessions that are not ours: process and role.
    async fn strangers(&self) -> Result<Vec<(i32, String)>, Error> {
        // What kind of process it is only its own role sees; those without a role are the server's own.
        let rows = self
            .admin
            .query(
                "SELECT pid, usename::text FROM pg_catalog.pg_stat_activity \
                 WHERE datid = $1 AND usename IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() \
                   AND coalesce(backend_type, 'client backend') = 'client backend' \
                   AND NOT (usename = current_user AND pg_catalog.starts_with(application_name, $2))",
                &[(&self.oid, Type::OID), (&APPLICATION, Type::TEXT)],
            )
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn end(&self, pid: i32, role: &str) -> Result<(), Error> {
        let end = format!("SELECT pg_catalog.pg_terminate_backend({pid})");
        match self.admin.execute_all(&end).await {
            Ok(()) => Ok(()),
            // An administrator that is no superuser ends the sessions of roles whose member it is.
            Err(error) if error.sql_state() == Some("42501") => {
                let (role, admin) = (quote_ident(role), quote_ident(self.admin.address().user()));
                let sql = format!("GRANT {role} TO {admin}; {end}; REVOKE {role} FROM {admin}");
                self.admin.execute_all(&sql).await.map_err(|error| self.failed(&error))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn cannot(&self) -> Error {
        let server = self.admin.address().server();
        Error::new(ErrorKind::Failed, format!("cannot keep everybody out of database {} on {server}", self.database))
    }

    fn failed(&self, error: &pgfleet_postgres::Error) -> Error {
        let server = self.admin.address().server();
        Error::postgres(format!("cannot keep everybody out of database {} on {server}", self.database), error)
    }
}

fn named(role: &str) -> String {
    if role.is_empty() { "PUBLIC".to_owned() } else { quote_ident(role) }
}

/// Reads the list that a move keeps.
pub(super) fn read(kept: Option<&serde_json::Value>) -> Vec<Grantee> {
    kept.and_then(|kept| serde_json::from_value(kept.clone()).ok()).unwrap_or_default()
}

/// Returns whether a role is among them.
pub(super) fn names(grantees: &[Grantee], role: &str) -> bool {
    grantees.iter().any(|grantee| grantee.role == role)
}
