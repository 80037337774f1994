//! Reading and making the history in a target.

use futures_util::{StreamExt as _, pin_mut};
use pgfleet_postgres::{Connection, Error, SimpleQueryMessage};

use crate::history::{ALTER_ATTEMPTS, ATTEMPTS, CREATE_ATTEMPTS, HistoryTable, Row, SCHEMA, protect_sql};

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
    /// Which tables of ours are there as they should be.
    pub(crate) there: There,
}

/// What a look has seen to be there, so that nobody has to ask again before it is written to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct There {
    /// The history, with the columns that are read.
    history: bool,
    /// The record of seeds that was asked for.
    seeds: bool,
}

impl There {
    /// Whether [`ensure`] would find nothing to do.
    pub(crate) fn suffices(self, table: &HistoryTable, beside: Beside) -> bool {
        // One of the user's choice may lack columns that are only written.
        self.history
            && table.schema == SCHEMA
            && (self.seeds || !(beside.seeds || beside.seeds_by_tenant))
            && !beside.attempts
            && !beside.backfills
    }
}

/// Which record of seeds is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Record<'a> {
    /// That of the database.
    Whole,
    /// That of a tenant among others.
    Guest(&'a str),
}

/// Reads the histories and seeds of a path: one message for each set, sent together.
pub(crate) async fn look_all(
    connection: &Connection,
    path: &crate::path::SetPath,
    seeds: Option<Record<'_>>,
) -> Result<Vec<Look>, Error> {
    let looks =
        path.sets().iter().map(|set| look(connection, &set.history, seeds.filter(|_| !set.seeds.files.is_empty())));
    futures_util::future::try_join_all(looks).await
}

/// Reads the history and the seeds in one round trip; a table that does not exist is an answer.
///
/// A history that somebody else made may lack columns; it is read in a second one.
pub(crate) async fn look(
    connection: &Connection,
    table: &HistoryTable,
    seeds: Option<Record<'_>>,
) -> Result<Look, Error> {
    let whole = format!(
        "SELECT version, description, checksum, raw_hash, \
         pg_catalog.to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
         down IS NOT NULL, run, announced_at IS NOT NULL FROM {}",
        table.quoted()
    );
    match read(connection, table, seeds, whole).await {
        // 42703: no such column. As JSON a row has those that there are.
        Err(error) if error.sql_state() == Some("42703") => {
            let present = format!(
                "SELECT h.version, j->>'description', j->>'checksum', j->>'raw_hash', \
                 pg_catalog.to_char((j->>'applied_at')::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
                 j->>'down' IS NOT NULL, j->>'run', j->>'announced_at' IS NOT NULL \
                 FROM {} h, pg_catalog.to_jsonb(h) j",
                table.quoted()
            );
            let looked = read(connection, table, seeds, present).await?;
            Ok(Look { there: There::default(), ..looked })
        }
        looked => looked,
    }
}

/// Reads a history by this statement, and the seeds.
async fn read(
    connection: &Connection,
    table: &HistoryTable,
    seeds: Option<Record<'_>>,
    mut sql: String,
) -> Result<Look, Error> {
    match seeds {
        None => {}
        Some(Record::Whole) => sql.push_str(&format!("; SELECT name, checksum FROM {}", table.seeds_quoted())),
        Some(Record::Guest(tenant)) => sql.push_str(&format!(
            "; SELECT name, checksum FROM {} WHERE tenant = {}",
            table.seeds_by_tenant_quoted(),
            pgfleet_postgres::quote_literal(tenant)
        )),
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
                        reversible: row.get(5) == Some("t"),
                        run: text(6),
                        announced: row.get(7) == Some("t"),
                    });
                } else {
                    found.seeds.push((text(0), text(1)));
                }
            }
            Ok(SimpleQueryMessage::CommandComplete(_)) => {
                if finished == 0 {
                    found.rows = Some(std::mem::take(&mut rows));
                    found.there.history = true;
                } else {
                    found.there.seeds = true;
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

/// Which tables beside the history are needed.
///
/// Each table costs a database that is migrated for the first time as much as a small migration, so
/// that what is not needed is not made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Beside {
    /// The record of seeds.
    pub(crate) seeds: bool,
    /// The record of seeds by tenant.
    pub(crate) seeds_by_tenant: bool,
    /// The table of failures, which is the journal of files without a transaction, too.
    pub(crate) attempts: bool,
    /// Where backfills stand.
    pub(crate) backfills: bool,
}

impl Beside {
    /// What going back and mending write to.
    pub(crate) const REPAIR: Self = Self { seeds: true, seeds_by_tenant: false, attempts: true, backfills: false };
}

/// Makes the tables that are needed and not there; called under the lock only.
///
/// Also beside a history that exists: one of the user's choice may have come without the rest.
pub(crate) async fn ensure(connection: &Connection, table: &HistoryTable, beside: Beside) -> Result<(), Error> {
    let schemas = if table.schema == SCHEMA { vec![SCHEMA] } else { vec![SCHEMA, table.schema.as_str()] };
    let wanted: Vec<String> = schemas.iter().map(|schema| pgfleet_postgres::quote_literal(schema)).collect();
    let there = |name: &str| format!("pg_catalog.to_regclass({}) IS NOT NULL", pgfleet_postgres::quote_literal(name));
    let columns = format!(
        "(SELECT pg_catalog.string_agg(attname, ',') FROM pg_catalog.pg_attribute \
         WHERE attrelid = pg_catalog.to_regclass({}) AND attnum > 0 AND NOT attisdropped)",
        pgfleet_postgres::quote_literal(&table.quoted())
    );
    let rows = connection
        .simple(&format!(
            "SELECT (SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname IN ({})) = {}, {}, {}, {}, {HAS_COLUMNS}, \
             EXISTS (SELECT FROM pg_catalog.pg_default_acl), {}, {columns}, {}",
            wanted.join(", "),
            schemas.len(),
            there(&table.quoted()),
            there(&table.seeds_quoted()),
            there(ATTEMPTS),
            there(&table.backfills_quoted()),
            there(&table.seeds_by_tenant_quoted()),
        ))
        .await?;
    let yes = |at: usize| rows.first().and_then(|row| row.get(at)) == Some("t");
    let mut sql = String::new();
    let mut made = Vec::new();
    // `IF NOT EXISTS` asks for the right to create even when there is nothing to create.
    if !yes(0) {
        sql.push_str(&table.create_schemas_sql());
    }
    if !yes(1) {
        sql.push_str(&table.create_history_sql());
        made.push(table.quoted());
    } else if let Some(columns) = rows.first().and_then(|row| row.get(7)) {
        let columns: Vec<&str> = columns.split(',').collect();
        sql.push_str(&table.add_columns_sql(&columns));
    }
    if beside.seeds && !yes(2) {
        sql.push_str(&table.create_seeds_sql());
        made.push(table.seeds_quoted());
    }
    if beside.seeds_by_tenant && !yes(8) {
        sql.push_str(&table.create_seeds_by_tenant_sql());
        made.push(table.seeds_by_tenant_quoted());
    }
    if beside.attempts && !yes(3) {
        sql.push_str(CREATE_ATTEMPTS);
        made.push(ATTEMPTS.to_owned());
    } else if beside.attempts && !yes(4) {
        sql.push_str(ALTER_ATTEMPTS);
    }
    if beside.backfills && !yes(6) {
        sql.push_str(&table.create_backfills_sql());
        made.push(table.backfills_quoted());
    }
    // Rights that nobody gave by default need not be taken back.
    if yes(5) && !made.is_empty() {
        sql.push_str(&protect_sql(&made));
    }
    if sql.is_empty() { Ok(()) } else { connection.execute_all(&sql).await }
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

/// Reads the table of failures; that it is not there means that nothing failed.
async fn of_attempts(
    connection: &Connection,
    sql: &str,
    table: &HistoryTable,
) -> Result<Vec<tokio_postgres::Row>, Error> {
    match connection.query(sql, &[(&table.set, pgfleet_postgres::Type::TEXT)]).await {
        Err(error) if matches!(error.sql_state(), Some("42P01" | "3F000")) => Ok(Vec::new()),
        read => read,
    }
}

/// Returns which files without a transaction stopped in the middle, and at which statement.
pub(crate) async fn interrupted(connection: &Connection, table: &HistoryTable) -> Result<Vec<(String, i32)>, Error> {
    let sql = "SELECT version, max(coalesce(statement_number, 0)) FROM pgfleet.attempts \
               WHERE set_name = $1 AND outcome = 'interrupted' GROUP BY version";
    let rows = of_attempts(connection, sql, table).await?;
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
    let rows = of_attempts(connection, sql, table).await?;
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

/// Where a backfill stands that is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The version.
    pub(crate) version: String,
    /// The revision of the code that began it.
    pub(crate) revision: i32,
    /// Where to go on, as JSON; none before the first batch.
    pub(crate) cursor: String,
    /// Rows done.
    pub(crate) rows: i64,
    /// Batches done.
    pub(crate) batches: i64,
}

/// Returns where the unfinished backfills of a set stand.
pub(crate) async fn standing(connection: &Connection, table: &HistoryTable) -> Result<Vec<Standing>, Error> {
    let sql = format!(
        "SELECT version, revision, cursor::text, rows, batches FROM {} ORDER BY version",
        table.backfills_quoted()
    );
    let rows = match connection.query(&sql, &[]).await {
        // Made with the first backfill.
        Err(error) if matches!(error.sql_state(), Some("42P01" | "3F000")) => return Ok(Vec::new()),
        read => read?,
    };
    Ok(rows
        .iter()
        .map(|row| Standing {
            version: row.get(0),
            revision: row.get(1),
            cursor: row.get(2),
            rows: row.get(3),
            batches: row.get(4),
        })
        .collect())
}

/// Returns the applied text and the down text of one migration.
pub(crate) async fn texts(
    connection: &Connection,
    table: &HistoryTable,
    version: &str,
) -> Result<Option<(String, Option<String>)>, Error> {
    let sql = format!("SELECT coalesce(sql, ''), down FROM {} WHERE version::text = $1", table.quoted());
    let rows = connection.query(&sql, &[(&version, pgfleet_postgres::Type::TEXT)]).await?;
    Ok(rows.first().map(|row| (row.get(0), row.get(1))))
}

/// Puts on disk what was committed in the cluster without waiting for that: one commit that waits, with
/// something in it to wait for.
///
/// # Errors
///
/// The connection is lost; what was committed may be on disk or not.
pub async fn flush(connection: &Connection) -> Result<(), Error> {
    connection
        .execute_all(
            "BEGIN; SELECT pg_catalog.set_config('synchronous_commit', 'on', true), \
             pg_catalog.pg_logical_emit_message(true, 'pgfleet', 'flush'); COMMIT",
        )
        .await
}
