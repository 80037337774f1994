//! Reading and making the history in a target.

use futures_util::{StreamExt as _, pin_mut};
use pgfleet_postgres::{Connection, Error, SimpleQueryMessage};

use crate::history::{ALTER_ATTEMPTS, HistoryTable, Row, SCHEMA, create_attempts_sql};

/// Whether the table of failures has the columns that it did not have from the beginning. Asked
/// first, since only the table's owner may add them.
const HAS_COLUMNS: &str = "EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attname = 'invalid_indexes' \
     AND attrelid = pg_catalog.to_regclass('pgfleet.attempts'))";

/// What one look at a target's history found.
#[derive(Debug, Default, Clone)]
pub(crate) struct Look {
    /// Applied migrations and repeatables; none when there is no history table.
    pub(crate) rows: Option<Vec<Row>>,
    /// Names and checksums of seeds that ran.
    pub(crate) seeds: Vec<(String, String)>,
}

/// Reads the history and the seeds in one round trip; a table that does not exist is an answer.
pub(crate) async fn look(connection: &Connection, table: &HistoryTable, with_seeds: bool) -> Result<Look, Error> {
    let mut sql = format!(
        "SELECT version, description, coalesce(checksum, ''), coalesce(raw_hash, ''), \
         pg_catalog.to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
         (down IS NOT NULL)::int FROM {}",
        table.quoted()
    );
    if with_seeds {
        sql.push_str(&format!("; SELECT name, checksum FROM {}", table.seeds_quoted()));
    }
    let mut found = Look::default();
    let mut rows = Vec::new();
    let mut finished = 0;
    let stream = connection.stream(&sql).await?;
    pin_mut!(stream);
    while let Some(message) = stream.next().await {
        match message {
            Ok(SimpleQueryMessage::Row(row)) => {
                let text = |at: usize| row.get(at).unwrap_or_default().to_owned();
                if finished == 0 {
                    rows.push(Row {
                        version: text(0),
                        description: text(1),
                        checksum: text(2),
                        raw_hash: text(3),
                        applied_at: text(4),
                        reversible: row.get(5) == Some("1"),
                    });
                } else {
                    found.seeds.push((text(0), text(1)));
                }
            }
            Ok(SimpleQueryMessage::CommandComplete(_)) => {
                if finished == 0 {
                    found.rows = Some(std::mem::take(&mut rows));
                }
                finished += 1;
            }
            Ok(_) => {}
            Err(error) => {
                let error = connection.error(error);
                // The tables are made together, but a history of the user's choice may be older
                // than the seeds' table.
                if matches!(error.sql_state(), Some("42P01" | "3F000")) {
                    return Ok(found);
                }
                return Err(error);
            }
        }
    }
    Ok(found)
}

/// Makes the schema that unqualified names go to: without it they would go to the next one in the
/// path and nobody would notice.
pub(crate) async fn ensure_schema(connection: &Connection, schema: &str) -> Result<(), Error> {
    let wanted = pgfleet_postgres::quote_literal(schema);
    let rows = connection.simple(&format!("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = {wanted}")).await?;
    if rows.is_empty() {
        connection.execute_all(&format!("CREATE SCHEMA {}", pgfleet_postgres::quote_ident(schema))).await?;
    }
    Ok(())
}

/// Makes the tables that are not there; called under the lock only.
///
/// Also beside a history that exists: one of the user's choice may have come without the rest.
pub(crate) async fn ensure(connection: &Connection, table: &HistoryTable, has_history: bool) -> Result<(), Error> {
    if has_history {
        let seeds = pgfleet_postgres::quote_literal(&table.seeds_quoted());
        let rows = connection
            .simple(&format!(
                "SELECT pg_catalog.to_regclass('pgfleet.attempts') IS NOT NULL \
                 AND pg_catalog.to_regclass({seeds}) IS NOT NULL AND {HAS_COLUMNS}"
            ))
            .await?;
        if rows.first().and_then(|row| row.get(0)) == Some("t") {
            return Ok(());
        }
    }
    let schemas = if table.schema == SCHEMA { vec![SCHEMA] } else { vec![SCHEMA, table.schema.as_str()] };
    let wanted: Vec<String> = schemas.iter().map(|schema| pgfleet_postgres::quote_literal(schema)).collect();
    let rows = connection
        .simple(&format!(
            "SELECT (SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname IN ({})), \
             pg_catalog.to_regclass('pgfleet.attempts') IS NOT NULL, {HAS_COLUMNS}",
            wanted.join(", ")
        ))
        .await?;
    let answer = rows.first();
    let schemas_exist = answer.and_then(|row| row.get(0)) == Some(schemas.len().to_string().as_str());
    let attempts_exist = answer.and_then(|row| row.get(1)) == Some("t");
    let mut sql = table.create_sql(schemas_exist);
    if !attempts_exist {
        // After the schema, which the first part makes.
        sql.push_str(&create_attempts_sql());
    } else if answer.and_then(|row| row.get(2)) != Some("t") {
        sql.push_str(ALTER_ATTEMPTS);
    }
    connection.execute_all(&sql).await
}

/// Returns the names of the histories in the target, for the hint when none was named.
pub(crate) async fn histories(connection: &Connection) -> Result<Vec<String>, Error> {
    let rows = connection
        .simple(
            "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = 'pgfleet' AND c.relkind = 'r' AND c.relname LIKE '%\\_migrations' ORDER BY 1",
        )
        .await?;
    Ok(rows.iter().filter_map(|row| row.get(0)).map(|name| name.trim_end_matches("_migrations").to_owned()).collect())
}

/// Returns which files without a transaction stopped in the middle, and at which statement.
pub(crate) async fn interrupted(connection: &Connection, table: &HistoryTable) -> Result<Vec<(String, i32)>, Error> {
    let sql = "SELECT version, max(coalesce(statement_number, 0)) FROM pgfleet.attempts \
               WHERE set_name = $1 AND outcome = 'interrupted' GROUP BY version";
    let rows = connection.query(sql, &[(&table.set, pgfleet_postgres::Type::TEXT)]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// One file without a transaction that stopped in the middle.
pub(crate) struct Stopped {
    /// The row of `pgfleet.attempts` that says so.
    pub(crate) id: String,
    /// `apply` or `revert`.
    pub(crate) action: String,
    /// The version as recorded.
    pub(crate) version: String,
    /// The description.
    pub(crate) description: String,
    /// The statement that did not finish, counted from 1.
    pub(crate) statement: i32,
    /// The checksum of the text that stopped; empty when it is not known.
    pub(crate) checksum: String,
    /// Oids of the indexes that were invalid before, with commas between them.
    pub(crate) invalid: String,
    /// What failed; empty when the connection was lost.
    pub(crate) message: String,
}

/// Returns what stopped in the middle.
pub(crate) async fn stopped(connection: &Connection, table: &HistoryTable) -> Result<Vec<Stopped>, Error> {
    let sql = "SELECT DISTINCT ON (version) id::text, action, version, description, \
                 coalesce(statement_number, 0), coalesce(checksum, ''), \
                 coalesce(nullif(pg_catalog.array_to_string(invalid_indexes, ','), ''), '0'), \
                 CASE WHEN coalesce(sql_state, '') <> '' THEN coalesce(message, '') ELSE '' END \
               FROM pgfleet.attempts WHERE set_name = $1 AND outcome = 'interrupted' ORDER BY version, id DESC";
    let rows = connection.query(sql, &[(&table.set, pgfleet_postgres::Type::TEXT)]).await?;
    Ok(rows
        .iter()
        .map(|row| Stopped {
            id: row.get(0),
            action: row.get(1),
            version: row.get(2),
            description: row.get(3),
            statement: row.get(4),
            checksum: row.get(5),
            invalid: row.get(6),
            message: row.get(7),
        })
        .collect())
}

/// Returns the applied text and the down text of one migration.
pub(crate) async fn texts(
    connection: &Connection,
    table: &HistoryTable,
    version: &str,
) -> Result<Option<(String, Option<String>)>, Error> {
    let sql = format!("SELECT coalesce(sql, ''), down FROM {} WHERE version = $1", table.quoted());
    let rows = connection.query(&sql, &[(&version, pgfleet_postgres::Type::TEXT)]).await?;
    Ok(rows.first().map(|row| (row.get(0), row.get(1))))
}

/// Ends a run's deferred durability: one commit that waits for the disk, with something in it to
/// wait for.
pub(crate) async fn flush(connection: &Connection) -> Result<(), Error> {
    connection
        .execute_all(
            "BEGIN; SELECT pg_catalog.set_config('synchronous_commit', 'on', true), \
             pg_catalog.pg_logical_emit_message(true, 'pgfleet', 'flush'); COMMIT",
        )
        .await
}
