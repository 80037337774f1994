//! Fifty small migrations: the same SQL for everybody, in everybody's own layout.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

/// What a service has after its first year.
const COUNT: usize = 50;

/// The kinds of a group, in order: they build on each other.
const STEPS: usize = 5;

/// How a tool names its files.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layout {
    /// `0001_x.sql`: pgfleet and sqlx.
    Numbered,
    /// `V1__x.sql`: refinery.
    Versioned,
}

pub(crate) struct Migration {
    number: usize,
    description: String,
    sql: String,
}

pub(crate) fn generate() -> Vec<Migration> {
    (0..COUNT).map(migration).collect()
}

fn migration(index: usize) -> Migration {
    let table = format!("item_{:02}", index / STEPS + 1);
    let (what, sql) = match index % STEPS {
        0 => (
            "create",
            format!(
                "CREATE TABLE {table} (\n    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n    \
                 name text NOT NULL,\n    created_at timestamptz NOT NULL DEFAULT now()\n);\n"
            ),
        ),
        1 => (
            "extend",
            format!(
                "ALTER TABLE {table} ADD COLUMN price numeric(10, 2);\n\
                 ALTER TABLE {table} ADD COLUMN state text NOT NULL DEFAULT 'new';\n"
            ),
        ),
        2 => ("index", format!("CREATE INDEX ix_{table}_name ON {table} (name);\n")),
        3 => (
            "fill",
            format!(
                "INSERT INTO {table} (name, price) VALUES\n    \
                 ('first', 1.00),\n    ('second', 2.50),\n    ('third; with a semicolon', 3.75);\n"
            ),
        ),
        _ => (
            "constrain",
            format!("ALTER TABLE {table} ADD CONSTRAINT ck_{table}_price CHECK (price IS NULL OR price >= 0);\n"),
        ),
    };
    Migration { number: index + 1, description: format!("{what}_{table}"), sql }
}

/// Writes the files of one tool.
pub(crate) fn write(migrations: &[Migration], layout: Layout, folder: &Path) -> Result<()> {
    for Migration { number, description, sql } in migrations {
        let name = match layout {
            Layout::Numbered => format!("{number:04}_{description}.sql"),
            Layout::Versioned => format!("V{number}__{description}.sql"),
        };
        fs::write(folder.join(name), sql)?;
    }
    Ok(())
}

/// All of it as one text: with psql's `-c` one message, which the server runs as one transaction.
pub(crate) fn in_one_transaction(migrations: &[Migration]) -> String {
    migrations.iter().map(|migration| migration.sql.as_str()).collect()
}

/// Reads the history as somebody would who only wants to know whether there is something to do.
pub(crate) const LOOK: &str = "SELECT version, description, checksum, raw_hash, applied_at FROM history";

/// One message with a transaction and a history row for each; on disk when the last commit returns.
///
/// The history has the columns and the index of pgfleet's, and as there only the last commit waits for the disk, which
/// brings all earlier ones along.
pub(crate) fn in_transactions_with_history(migrations: &[Migration]) -> String {
    let mut text = "SET synchronous_commit = off;\n\
        BEGIN;\n\
        CREATE TABLE history (version text PRIMARY KEY, description text NOT NULL DEFAULT '', checksum text, \
        raw_hash text, sql text, down text, applied_at timestamptz NOT NULL DEFAULT clock_timestamp(), \
        applied_by text NOT NULL DEFAULT session_user, os_user text, host text, tool text, run uuid, \
        took_ms double precision, announced_at timestamptz);\n\
        COMMIT;\n"
        .to_owned();
    for (at, Migration { number, description, sql }) in migrations.iter().enumerate() {
        let durable = if at + 1 == migrations.len() { "SET LOCAL synchronous_commit = on;\n" } else { "" };
        // As long as the real ones; the limit has no need to compute them.
        let (hash, quoted) = ("0".repeat(64), sql.replace('\'', "''"));
        let _ = write!(
            text,
            "BEGIN;\n{durable}{sql}INSERT INTO history (version, description, checksum, raw_hash, sql, os_user, host, \
             tool, run, took_ms) VALUES ('{number:04}', '{description}', 'v1:{hash}', '{hash}', '{quoted}', 'somebody', \
             'somewhere', 'limit', '00000000-0000-0000-0000-000000000000', 0.5);\nCOMMIT;\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_the_same_fifty() {
        let migrations = generate();
        assert_eq!(migrations.len(), COUNT);
        let names: std::collections::BTreeSet<_> = migrations.iter().map(|one| &one.description).collect();
        assert_eq!(names.len(), COUNT);
        let text = in_transactions_with_history(&migrations);
        assert_eq!(text.matches("COMMIT;").count(), COUNT + 1);
        assert_eq!(text.matches("synchronous_commit = on").count(), 1);
        // One argument of a program holds no more.
        assert!(text.len() < 128 * 1024, "{}", text.len());
    }
}
