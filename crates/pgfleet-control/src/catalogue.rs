//! The control database: made by our own engine, written after the deed, never believed blindly.

use std::path::PathBuf;

use pgfleet_migrate::{Options, Set, Target, event::Silent, run};
use pgfleet_postgres::{Address, Connection, Purpose, Type, connect};
use pgfleet_sql::layout::{Kind, MigrationFile, Script};

use crate::error::{Error, ErrorKind};
use crate::fleet::TargetReport;
use crate::provision::{DesiredServer, Provisioned};

/// The name of the control database's migration set.
pub const SET: &str = "control";

/// The control database's migrations, in order.
const MIGRATIONS: &[(&str, &str, &str)] = &[
    ("1", "catalogue", include_str!("../migrations/001_catalogue.sql")),
    ("2", "applied", include_str!("../migrations/002_applied.sql")),
    ("3", "tenants", include_str!("../migrations/003_tenants.sql")),
    ("4", "fleet", include_str!("../migrations/004_fleet.sql")),
    ("5", "published", include_str!("../migrations/005_published.sql")),
    ("6", "same database", include_str!("../migrations/006_same_database.sql")),
];

/// Returns the control database's own migration set.
fn set() -> Result<Set, Error> {
    let mut migrations = Vec::with_capacity(MIGRATIONS.len());
    for (version, description, sql) in MIGRATIONS {
        let version = version
            .parse()
            .map_err(|_| Error::new(ErrorKind::Failed, format!("built-in migration {version} has no number")))?;
        migrations.push(MigrationFile {
            version,
            description: (*description).to_owned(),
            up: Script::from_text(PathBuf::from(format!("control/{description}.sql")), (*sql).to_owned()),
            down: None,
            annotations: pgfleet_sql::annotation::Annotations::default(),
            down_annotations: pgfleet_sql::annotation::Annotations::default(),
            kind: Kind::Forward,
        });
    }
    Ok(Set::from_migrations(SET, migrations))
}

/// The comment that marks a control database.
fn mark(solution: &str) -> String {
    format!("pgfleet: control database of solution {solution}")
}

/// The statements that close a new control database to others and mark it.
fn close_sql(database: &str, solution: &str) -> [String; 2] {
    let name = pgfleet_postgres::quote_ident(database);
    [
        format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
        format!("COMMENT ON DATABASE {name} IS {}", pgfleet_postgres::quote_literal(&mark(solution))),
    ]
}

/// An open control database.
#[derive(Debug)]
pub struct Catalogue {
    connection: Connection,
}

impl Catalogue {
    /// Makes the control database and brings it to the version of this program.
    ///
    /// Closed to everybody but the administrator before anything is in it. Returns what was
    /// applied.
    pub async fn make(
        admin: &Address,
        database: &str,
        solution: &str,
        options: &Options,
    ) -> Result<Vec<String>, Error> {
        let mut target = Target::new("control", admin.with_database(database));
        target.admin = Some(admin.clone());
        let options =
            Options { to: None, set: None, announcer: None, dry_run: false, look_only: false, ..options.clone() };
        let report = run::migrate(&target, &set()?.into(), &options, &Silent)
            .await
            .map_err(|error| Error::of_run(format!("cannot make the control database {database}"), &error))?;
        if report.created {
            let connection = connect(admin, &Purpose::new("pgfleet control"))
                .await
                .map_err(|error| Error::postgres("cannot close the control database to others", &error))?;
            for sql in close_sql(database, solution) {
                connection
                    .execute_all(&sql)
                    .await
                    .map_err(|error| Error::postgres("cannot close the control database to others", &error))?;
            }
            connection.close().await;
        }
        Ok(report.applied)
    }

    /// Returns the statements that would make the control database; none when it is there.
    pub(crate) async fn planned(admin: &Address, database: &str) -> Result<Option<Vec<String>>, Error> {
        let purpose = Purpose::new("pgfleet control");
        match connect(&admin.with_database(database), &purpose).await {
            Ok(connection) => {
                connection.close().await;
                Ok(None)
            }
            Err(error) if error.kind() == pgfleet_postgres::ErrorKind::DatabaseMissing => {
                let name = pgfleet_postgres::quote_ident(database);
                Ok(Some(vec![format!("CREATE DATABASE {name}"), format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC")]))
            }
            Err(error) => Err(Error::postgres("cannot look at the control database", &error)),
        }
    }

    /// Refuses a control database that another solution made.
    pub(crate) async fn refuse_foreign(connection: &Connection, solution: &str) -> Result<(), Error> {
        let rows = connection
            .simple(
                "SELECT coalesce(pg_catalog.shobj_description(oid, 'pg_database'), '') FROM pg_catalog.pg_database \
                 WHERE datname = pg_catalog.current_database()",
            )
            .await
            .map_err(|error| Error::postgres("cannot look at the control database", &error))?;
        let comment = rows.first().and_then(|row| row.get(0)).unwrap_or_default();
        if comment.is_empty() || comment == mark(solution) {
            return Ok(());
        }
        let name = connection.address().database();
        Err(Error::new(ErrorKind::Configuration, format!("the control database {name} is taken: {comment}"))
            .hinted("name another one: database = \"…\" in [control]"))
    }

    /// Opens the control database.
    pub async fn open(admin: &Address, database: &str) -> Result<Self, Error> {
        Self::open_for(admin, database, &Purpose::new("pgfleet control")).await
    }

    /// Opens the control database for a purpose.
    pub(crate) async fn open_for(admin: &Address, database: &str, purpose: &Purpose) -> Result<Self, Error> {
        let connection = connect(&admin.with_database(database), purpose)
            .await
            .map_err(|error| Error::postgres("cannot open the control database", &error))?;
        Ok(Self { connection })
    }

    /// Opens the control database; none when it is not made yet.
    pub(crate) async fn open_if_there(admin: &Address, database: &str) -> Result<Option<Self>, Error> {
        match connect(&admin.with_database(database), &Purpose::new("pgfleet control")).await {
            Ok(connection) => Ok(Some(Self { connection })),
            Err(error) if error.kind() == pgfleet_postgres::ErrorKind::DatabaseMissing => Ok(None),
            Err(error) => Err(Error::postgres("cannot open the control database", &error)),
        }
    }

    /// Returns whether this control database has the tables for tenants.
    pub(crate) async fn has_tenants(&self) -> Result<bool, Error> {
        let rows = self
            .connection
            .simple("SELECT pg_catalog.to_regclass('control.rollouts') IS NOT NULL")
            .await
            .map_err(|error| Error::postgres("cannot look at the control database", &error))?;
        Ok(rows.first().and_then(|row| row.get(0)) == Some("t"))
    }

    /// Begins a transaction, which [`end`](Self::end) ends.
    pub(crate) async fn begin(&self) -> Result<(), Error> {
        self.connection
            .execute_all("BEGIN")
            .await
            .map_err(|error| Error::postgres("cannot write to the control database", &error))
    }

    /// Commits what went well, and takes back what did not.
    pub(crate) async fn end<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        let sql = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.connection.execute_all(sql).await;
        let value = result?;
        ended.map_err(|error| Error::postgres("cannot write to the control database", &error))?;
        Ok(value)
    }

    /// Commits; `unhurried` without waiting for the disk, where a later commit in the same cluster does.
    ///
    /// To be sent right behind the statements of the transaction: what failed there has it end without a
    /// trace, and without an error of this one.
    pub(crate) async fn commit(&self, unhurried: bool) -> Result<(), Error> {
        let sql = if unhurried { "SET LOCAL synchronous_commit = off; COMMIT" } else { "COMMIT" };
        self.connection
            .execute_all(sql)
            .await
            .map_err(|error| Error::postgres("cannot write to the control database", &error))
    }

    /// Takes back what the transaction did.
    pub(crate) async fn roll_back(&self) -> Result<(), Error> {
        self.connection
            .execute_all("ROLLBACK")
            .await
            .map_err(|error| Error::postgres("cannot write to the control database", &error))
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.connection.close().await;
    }

    /// Records what provisioning a server did.
    pub async fn record_server(
        &self,
        desired: &DesiredServer,
        address: &Address,
        provisioned: &Provisioned,
        options: &Options,
    ) -> Result<(), Error> {
        let failed = |error: pgfleet_postgres::Error| Error::postgres("cannot write to the control database", &error);
        let version = i32::try_from(provisioned.version).unwrap_or(0);
        self.connection
            .execute(
                "INSERT INTO control.servers (name, address, system_identifier, version) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (name) DO UPDATE SET address = excluded.address, \
                 system_identifier = excluded.system_identifier, version = excluded.version, seen_at = now()",
                &[
                    (&desired.server, Type::TEXT),
                    (&address.server(), Type::TEXT),
                    (&provisioned.system_identifier, Type::TEXT),
                    (&version, Type::INT4),
                ],
            )
            .await
            .map_err(failed)?;
        let databases = desired.databases.iter().map(|database| ("database", &database.name, &database.service));
        let roles = desired.residents.iter().flat_map(|resident| {
            let roles = &resident.roles;
            let all = [&roles.owner, &roles.migrator, &roles.app, &roles.readonly];
            all.map(|role| ("role", role, &resident.service))
        });
        for (kind, name, service) in databases.chain(roles) {
            self.connection
                .execute(
                    "INSERT INTO control.provisioned (server, kind, name, service) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (server, kind, name) DO UPDATE SET service = excluded.service, seen_at = now()",
                    &[(&desired.server, Type::TEXT), (&kind, Type::TEXT), (name, Type::TEXT), (service, Type::TEXT)],
                )
                .await
                .map_err(failed)?;
        }
        let statements: Vec<&str> = provisioned.statements.iter().map(|statement| statement.sql.as_str()).collect();
        self.audit("provision", &desired.server, &serde_json::json!({ "statements": statements }), options).await
    }

    /// Records where the targets of a run stand now; `here` is the server that this database is on,
    /// the only one whose oids can be read from here.
    pub async fn record_targets(
        &self,
        action: &str,
        reports: &[TargetReport],
        here: &str,
        options: &Options,
    ) -> Result<(), Error> {
        for target in reports {
            let (version, state, error) = target.catalogue_row();
            self.connection
                .execute(
                    "INSERT INTO control.targets (server, database, service, set_name, version, state, error, \
                       system_identifier, database_oid) \
                     SELECT $1, $2, $3, $4, $5, $6, $7, s.system_identifier, \
                       (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = $2 AND $1 = $8) \
                     FROM control.servers s WHERE s.name = $1 \
                     ON CONFLICT (server, database, set_name) DO UPDATE SET version = excluded.version, \
                       state = excluded.state, error = excluded.error, verified_at = now(), \
                       system_identifier = excluded.system_identifier, database_oid = excluded.database_oid",
                    &[
                        (&target.server, Type::TEXT),
                        (&target.database, Type::TEXT),
                        (&target.service, Type::TEXT),
                        (&target.service, Type::TEXT),
                        (&version, Type::TEXT),
                        (&state, Type::TEXT),
                        (&error, Type::TEXT),
                        (&here, Type::TEXT),
                    ],
                )
                .await
                .map_err(|error| Error::postgres("cannot write to the control database", &error))?;
            if target.changed() {
                let detail = target.audit_detail();
                self.audit(action, &target.service, &detail, options).await?;
            }
        }
        Ok(())
    }

    /// Writes one line of the audit.
    pub(crate) async fn audit(
        &self,
        action: &str,
        subject: &str,
        detail: &serde_json::Value,
        options: &Options,
    ) -> Result<(), Error> {
        let detail = detail.to_string();
        self.connection
            .execute(
                "INSERT INTO control.audit (os_user, host, action, subject, detail) \
                 VALUES ($1, $2, $3, $4, $5::text::jsonb)",
                &[
                    (&options.who.user, Type::TEXT),
                    (&options.who.host, Type::TEXT),
                    (&action, Type::TEXT),
                    (&subject, Type::TEXT),
                    (&detail, Type::TEXT),
                ],
            )
            .await
            .map_err(|error| Error::postgres("cannot write to the control database", &error))?;
        Ok(())
    }
}
