//! The history table of a set: its name, its columns and the statements that write it.

use pgfleet_postgres::quote::quote_qualified;
use pgfleet_postgres::quote_literal;
use pgfleet_sql::layout::Layout;
use pgfleet_sql::version::Version;

use crate::options::Who;

/// The schema that holds pgfleet's own tables in a target.
pub const SCHEMA: &str = "pgfleet";

/// Which program writes the rows.
pub(crate) const TOOL: &str = concat!("pgfleet ", env!("CARGO_PKG_VERSION"));

/// Where the history of a set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryTable {
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The set, as recorded in `pgfleet.attempts`.
    pub set: String,
}

impl HistoryTable {
    /// Returns the default history of a set: `pgfleet.<set>_migrations`.
    pub fn of_set(set: &str) -> Self {
        let table = pgfleet_postgres::name::short_name(set, "_migrations");
        Self { schema: SCHEMA.to_owned(), table, set: set.to_owned() }
    }

    /// Returns the history of a module whose tables are beside a service's own:
    /// `pgfleet.<service>_<module>_migrations`. Several services may have the module in one database, each its own.
    pub fn of_module(service: &str, module: &str) -> Self {
        let table = pgfleet_postgres::name::short_name(&format!("{service}_{module}"), "_migrations");
        Self { schema: SCHEMA.to_owned(), table, set: module.to_owned() }
    }

    /// Returns a history at a place of the user's choice.
    pub fn at(set: &str, schema: &str, table: &str) -> Self {
        Self { schema: schema.to_owned(), table: table.to_owned(), set: set.to_owned() }
    }

    /// Returns the quoted, qualified name.
    pub fn quoted(&self) -> String {
        quote_qualified(&self.schema, &self.table)
    }

    /// Returns the quoted name of the table that records this set's seeds.
    pub(crate) fn seeds_quoted(&self) -> String {
        quote_qualified(SCHEMA, &pgfleet_postgres::name::short_name(&self.set, "_seeds"))
    }

    /// Returns the quoted name of the table that records this set's seeds for each tenant that has no
    /// database of its own.
    ///
    /// A table of its own: what ran for the host is looked up without the rows of all tenants, and
    /// an older program beside this one knows `_seeds` as it is.
    pub(crate) fn seeds_by_tenant_quoted(&self) -> String {
        quote_qualified(SCHEMA, &pgfleet_postgres::name::short_name(&self.set, "_seeds_by_tenant"))
    }

    /// Returns the quoted name of the table that keeps where this set's backfills stand.
    pub(crate) fn backfills_quoted(&self) -> String {
        quote_qualified(SCHEMA, &pgfleet_postgres::name::short_name(&self.set, "_backfills"))
    }

    /// Returns the statements that make the schemas which the tables are in.
    pub(crate) fn create_schemas_sql(&self) -> String {
        let mut sql = format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA};");
        if self.schema != SCHEMA {
            sql.push_str(&format!("CREATE SCHEMA IF NOT EXISTS {};", pgfleet_postgres::quote_ident(&self.schema)));
        }
        sql
    }

    /// Returns the statement that makes the history.
    pub(crate) fn create_history_sql(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (
                version     text PRIMARY KEY,
                description text NOT NULL DEFAULT '',
                checksum    text,
                raw_hash    text,
                sql         text,
                down        text,
                applied_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
                applied_by  text NOT NULL DEFAULT session_user,
                os_user     text,
                host        text,
                tool        text,
                run         uuid,
                took_ms     double precision,
                announced_at timestamptz
             );",
            self.quoted()
        )
    }

    /// Returns the statements that add to a history which somebody else made what it lacks; `has` are
    /// the names of its columns.
    ///
    /// Rows that are there get no values: nobody knows who wrote them, and when.
    pub(crate) fn add_columns_sql(&self, has: &[&str]) -> String {
        let lacks: Vec<_> = COLUMNS.iter().filter(|(name, ..)| !has.contains(name)).collect();
        if lacks.is_empty() {
            return String::new();
        }
        let mut parts: Vec<String> =
            lacks.iter().map(|(name, kind, _)| format!("ADD COLUMN IF NOT EXISTS {name} {kind}")).collect();
        let defaults = lacks.iter().filter(|(.., default)| !default.is_empty());
        parts.extend(defaults.map(|(name, _, default)| format!("ALTER COLUMN {name} SET DEFAULT {default}")));
        format!("ALTER TABLE {} {};", self.quoted(), parts.join(", "))
    }

    /// Returns the statement that makes the record of seeds.
    pub(crate) fn create_seeds_sql(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (
                name        text PRIMARY KEY,
                checksum    text NOT NULL,
                applied_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
                applied_by  text NOT NULL DEFAULT session_user,
                os_user     text,
                host        text,
                tool        text,
                run         uuid,
                took_ms     double precision
             );",
            self.seeds_quoted()
        )
    }

    /// Returns the statement that makes the record of seeds by tenant.
    pub(crate) fn create_seeds_by_tenant_sql(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (
                tenant      text NOT NULL,
                name        text NOT NULL,
                checksum    text NOT NULL,
                applied_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
                applied_by  text NOT NULL DEFAULT session_user,
                os_user     text,
                host        text,
                tool        text,
                run         uuid,
                took_ms     double precision,
                PRIMARY KEY (tenant, name)
             );",
            self.seeds_by_tenant_quoted()
        )
    }

    /// Returns the statement that makes the table of where backfills stand.
    pub(crate) fn create_backfills_sql(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (
                version     text PRIMARY KEY,
                revision    integer NOT NULL,
                cursor      jsonb NOT NULL,
                rows        bigint NOT NULL,
                batches     bigint NOT NULL,
                began_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
                moved_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
                os_user     text,
                host        text,
                tool        text,
                run         uuid
             );",
            self.backfills_quoted()
        )
    }

    /// Returns the statement that keeps where a backfill goes on.
    pub(crate) fn move_backfill_sql(&self, standing: &crate::store::Standing, who: &Who, run: &str) -> String {
        format!(
            "INSERT INTO {} (version, revision, cursor, rows, batches, os_user, host, tool, run) \
             VALUES ({}, {}, {}, {}, {}, {}) \
             ON CONFLICT (version) DO UPDATE SET cursor = excluded.cursor, rows = excluded.rows, \
             batches = excluded.batches, moved_at = pg_catalog.clock_timestamp(), os_user = excluded.os_user, \
             host = excluded.host, tool = excluded.tool, run = excluded.run",
            self.backfills_quoted(),
            quote_literal(&standing.version),
            standing.revision,
            quote_literal(&standing.cursor),
            standing.rows,
            standing.batches,
            provenance(who, run),
        )
    }

    /// Returns the statement that forgets where a backfill stood.
    pub(crate) fn end_backfill_sql(&self, version: &str) -> String {
        format!("DELETE FROM {} WHERE version = {}", self.backfills_quoted(), quote_literal(version))
    }

    /// Returns the statement that notes that a run's rows were announced.
    pub(crate) fn announced_sql(&self, run: &str) -> String {
        format!(
            "UPDATE {} SET announced_at = pg_catalog.clock_timestamp() WHERE run = {}::uuid AND announced_at IS NULL",
            self.quoted(),
            quote_literal(run)
        )
    }
}

/// Name, type and default of the columns that a history has beside its version.
const COLUMNS: [(&str, &str, &str); 13] = [
    ("description", "text", "''"),
    ("checksum", "text", ""),
    ("raw_hash", "text", ""),
    ("sql", "text", ""),
    ("down", "text", ""),
    ("applied_at", "timestamptz", "pg_catalog.clock_timestamp()"),
    ("applied_by", "text", "session_user"),
    ("os_user", "text", ""),
    ("host", "text", ""),
    ("tool", "text", ""),
    ("run", "uuid", ""),
    ("took_ms", "double precision", ""),
    ("announced_at", "timestamptz", ""),
];

/// Returns the statement that takes back the rights to write tables that default rights gave to
/// others than their owner: who may write a history can forge it.
pub(crate) fn protect_sql(tables: &[String]) -> String {
    let tables: Vec<String> = tables.iter().map(|table| format!("{}::regclass", quote_literal(table))).collect();
    format!(
        "DO $pgfleet$
         DECLARE entry record;
         BEGIN
            FOR entry IN
                SELECT DISTINCT c.oid::regclass AS relation, a.grantee
                FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) a
                WHERE c.oid IN ({})
                  AND pg_catalog.pg_get_userbyid(c.relowner) = current_user AND a.grantee NOT IN (0, c.relowner)
                  AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
            LOOP
                EXECUTE pg_catalog.format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON %s FROM %s',
                                          entry.relation, entry.grantee::regrole);
            END LOOP;
         END $pgfleet$;",
        tables.join(", ")
    )
}

/// The table of failures.
pub(crate) const ATTEMPTS: &str = "pgfleet.attempts";

/// The statement that makes the table of failures, shared by the sets of one database.
pub(crate) const CREATE_ATTEMPTS: &str = "CREATE TABLE IF NOT EXISTS pgfleet.attempts (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        set_name    text NOT NULL,
        action      text NOT NULL,
        outcome     text NOT NULL,
        version     text NOT NULL,
        description text NOT NULL DEFAULT '',
        statement_number integer,
        statement   text,
        place       text,
        sql_state   text,
        message     text,
        at          timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
        by_role     text NOT NULL DEFAULT session_user,
        os_user     text,
        host        text,
        tool        text,
        run         uuid,
        checksum    text,
        invalid_indexes oid[]
     );";

/// Returns the statement that makes of a journal the row of a failure.
pub(crate) fn end_journal_sql(
    id: &str,
    failure: &crate::failure::Failure,
    outcome: &str,
    who: &Who,
    run: &str,
) -> String {
    format!(
        "UPDATE pgfleet.attempts SET outcome = {}, statement_number = {}, statement = {}, place = {}, \
         sql_state = {}, message = {}, at = pg_catalog.clock_timestamp(), by_role = session_user, \
         (os_user, host, tool, run) = ({}) WHERE id = {id}",
        quote_literal(outcome),
        failure.statement_number,
        quote_literal(&failure.statement),
        quote_literal(&failure.place),
        quote_literal(&failure.sql_state),
        quote_literal(&failure.message),
        provenance(who, run),
    )
}

/// Adds to a table of failures what the first ones did not have.
pub(crate) const ALTER_ATTEMPTS: &str = "ALTER TABLE pgfleet.attempts ADD COLUMN IF NOT EXISTS checksum text, \
     ADD COLUMN IF NOT EXISTS invalid_indexes oid[];";

/// One row of the history, without the applied text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The version as recorded; `R__<description>` for a repeatable.
    pub version: String,
    /// The description.
    pub description: String,
    /// Token checksum; empty for a row written by hand.
    pub checksum: String,
    /// Hash of the file's bytes; empty for a row written by hand.
    pub raw_hash: String,
    /// When it was applied, in UTC.
    pub applied_at: String,
    /// Whether a down text is recorded.
    pub reversible: bool,
    /// The run that applied it; empty for a row written by hand.
    pub run: String,
    /// Whether it was announced.
    pub announced: bool,
}

impl Row {
    /// Returns whether this is a repeatable's row.
    pub fn is_repeatable(&self) -> bool {
        self.version.starts_with("R__")
    }

    /// Returns the version as the layout compares it, none for a repeatable or what cannot be read.
    pub fn parsed(&self, layout: Layout) -> Option<Version> {
        if self.is_repeatable() { None } else { layout.version(&self.version).ok() }
    }
}

/// What the record of one applied file holds.
pub(crate) struct Record<'a> {
    pub(crate) version: &'a str,
    pub(crate) description: &'a str,
    pub(crate) checksum: &'a str,
    pub(crate) raw_hash: &'a str,
    pub(crate) sql: &'a str,
    pub(crate) down: Option<&'a str>,
}

/// Milliseconds since the step began, in SQL.
///
/// The setting is made at the start of the step; a file that resets everything loses it, then the
/// time of the whole message stands in.
const TOOK_MS: &str = "(extract(epoch FROM pg_catalog.clock_timestamp()) - coalesce(\
    nullif(pg_catalog.current_setting('pgfleet.started', true), '')::double precision, \
    extract(epoch FROM pg_catalog.statement_timestamp())::double precision)) * 1000";

/// Who, where, with what and in which run, as SQL values.
fn provenance(who: &Who, run: &str) -> String {
    format!(
        "{}, {}, {}, {}::uuid",
        quote_literal(&who.user),
        quote_literal(&who.host),
        quote_literal(TOOL),
        quote_literal(run)
    )
}

impl HistoryTable {
    /// Returns the statement that records an applied migration; `again` replaces a repeatable's row.
    pub(crate) fn insert_sql(&self, record: &Record<'_>, who: &Who, run: &str, again: bool) -> String {
        let on_conflict = if again {
            " ON CONFLICT (version) DO UPDATE SET description = excluded.description, checksum = excluded.checksum, \
             raw_hash = excluded.raw_hash, sql = excluded.sql, applied_at = excluded.applied_at, \
             applied_by = session_user, os_user = excluded.os_user, host = excluded.host, tool = excluded.tool, \
             run = excluded.run, took_ms = excluded.took_ms, announced_at = NULL"
        } else {
            ""
        };
        format!(
            "INSERT INTO {} (version, description, checksum, raw_hash, sql, down, applied_at, os_user, host, tool, run, \
             took_ms) VALUES ({}, {}, {}, {}, {}, {}, pg_catalog.clock_timestamp(), {}, {TOOK_MS}){on_conflict}",
            self.quoted(),
            quote_literal(record.version),
            quote_literal(record.description),
            quote_literal(record.checksum),
            quote_literal(record.raw_hash),
            quote_literal(record.sql),
            record.down.map_or_else(|| "NULL".to_owned(), quote_literal),
            provenance(who, run),
        )
    }

    /// Returns the statements that forget a reverted migration and keep the deed in `attempts`.
    ///
    /// Four statements in the down's own transaction: the history says what is, `attempts` what was
    /// done, and seeds and repeatables run again, since what they wrote or made may be gone with a table.
    pub(crate) fn revert_sql(&self, version: &str, description: &str, who: &Who, run: &str) -> String {
        format!(
            "DELETE FROM {} WHERE version = {} OR pg_catalog.starts_with(version::text, 'R__'); DELETE FROM {}; \
             {}; {}",
            self.quoted(),
            quote_literal(version),
            self.seeds_quoted(),
            self.forget_seeds_by_tenant_sql(),
            self.deed_sql("revert", version, description, "", who, run),
        )
    }

    /// Returns the statement that forgets what ran for tenants; most databases have no record of it.
    fn forget_seeds_by_tenant_sql(&self) -> String {
        let table = self.seeds_by_tenant_quoted();
        let delete = format!(
            "BEGIN IF pg_catalog.to_regclass({}) IS NOT NULL THEN DELETE FROM {table}; END IF; END",
            quote_literal(&table)
        );
        format!("DO {}", quote_literal(&delete))
    }

    /// Returns the statement that forgets that a file without a transaction stopped in the middle.
    pub(crate) fn clear_sql(&self, version: &str) -> String {
        format!(
            "DELETE FROM pgfleet.attempts WHERE set_name = {} AND version = {} AND outcome = 'interrupted'",
            quote_literal(&self.set),
            quote_literal(version),
        )
    }

    /// Returns the statement that keeps in `attempts` what was done to the history.
    pub(crate) fn deed_sql(
        &self,
        action: &str,
        version: &str,
        description: &str,
        message: &str,
        who: &Who,
        run: &str,
    ) -> String {
        format!(
            "INSERT INTO pgfleet.attempts (set_name, action, outcome, version, description, message, os_user, host, \
             tool, run) VALUES ({}, {}, 'done', {}, {}, nullif({}, ''), {})",
            quote_literal(&self.set),
            quote_literal(action),
            quote_literal(version),
            quote_literal(description),
            quote_literal(message),
            provenance(who, run),
        )
    }

    /// Returns the statement that takes the present file for what was applied.
    pub(crate) fn accept_sql(&self, recorded: &str, record: &Record<'_>) -> String {
        format!(
            "UPDATE {} SET checksum = {}, raw_hash = {}, sql = {}, down = {} WHERE version = {}",
            self.quoted(),
            quote_literal(record.checksum),
            quote_literal(record.raw_hash),
            quote_literal(record.sql),
            record.down.map_or_else(|| "NULL".to_owned(), quote_literal),
            quote_literal(recorded),
        )
    }

    /// Returns the statement that removes the record of an applied migration.
    pub(crate) fn delete_sql(&self, recorded: &str) -> String {
        format!("DELETE FROM {} WHERE version = {}", self.quoted(), quote_literal(recorded))
    }

    /// Returns the statement that begins the journal of a file without a transaction; its row tells
    /// the journal's id, when it began, and which indexes were invalid before.
    pub(crate) fn journal_sql(&self, begun: &crate::failure::Failure, checksum: &str, who: &Who, run: &str) -> String {
        format!(
            "WITH before AS (SELECT coalesce(pg_catalog.array_agg(indexrelid), '{{}}') AS indexes \
             FROM pg_catalog.pg_index WHERE NOT indisvalid) \
             INSERT INTO pgfleet.attempts (set_name, action, outcome, version, description, statement_number, message, \
             os_user, host, tool, run, checksum, invalid_indexes) \
             SELECT {}, {}, 'interrupted', {}, {}, {}, {}, {}, {}, before.indexes FROM before \
             RETURNING id, extract(epoch FROM at), \
             coalesce(nullif(pg_catalog.array_to_string(invalid_indexes, ','), ''), '0')",
            quote_literal(&self.set),
            quote_literal(&begun.action),
            quote_literal(&begun.version),
            quote_literal(&begun.description),
            begun.statement_number,
            quote_literal(&begun.message),
            provenance(who, run),
            quote_literal(checksum),
        )
    }

    /// Returns the statement that records a seed; `guest` is the tenant for which it ran in the host's
    /// database.
    pub(crate) fn seed_sql(&self, name: &str, checksum: &str, guest: Option<&str>, who: &Who, run: &str) -> String {
        let (table, key, tenant) = match guest {
            None => (self.seeds_quoted(), "name", String::new()),
            Some(guest) => (self.seeds_by_tenant_quoted(), "tenant, name", format!("{}, ", quote_literal(guest))),
        };
        format!(
            "INSERT INTO {table} ({key}, checksum, applied_at, os_user, host, tool, run, took_ms) \
             VALUES ({tenant}{}, {}, pg_catalog.clock_timestamp(), {}, {TOOK_MS}) \
             ON CONFLICT ({key}) DO UPDATE SET checksum = excluded.checksum, applied_at = excluded.applied_at, \
             applied_by = session_user, os_user = excluded.os_user, host = excluded.host, tool = excluded.tool, \
             run = excluded.run, took_ms = excluded.took_ms",
            quote_literal(name),
            quote_literal(checksum),
            provenance(who, run),
        )
    }

    /// Returns the statement that records a failure.
    pub(crate) fn failure_sql(&self, failure: &crate::failure::Failure, outcome: &str, who: &Who, run: &str) -> String {
        format!(
            "INSERT INTO pgfleet.attempts (set_name, action, outcome, version, description, statement_number, \
             statement, place, sql_state, message, os_user, host, tool, run) \
             VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
            quote_literal(&self.set),
            quote_literal(&failure.action),
            quote_literal(outcome),
            quote_literal(&failure.version),
            quote_literal(&failure.description),
            failure.statement_number,
            quote_literal(&failure.statement),
            quote_literal(&failure.place),
            quote_literal(&failure.sql_state),
            quote_literal(&failure.message),
            provenance(who, run),
        )
    }
}
