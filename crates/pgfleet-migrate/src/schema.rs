//! Recording schema changes in Rust: plain SQL, the builders of sea-query, and helpers for what
//! every table needs.

use std::fmt::Write as _;

use pgfleet_postgres::name::{LONGEST, short_name};
use pgfleet_postgres::{quote_ident, quote_literal};
use sea_query::{PostgresQueryBuilder, SchemaStatementBuilder};

/// Records the statements of a [`SchemaMigration`](crate::code::SchemaMigration).
///
/// Names given to the helpers are folded to lower case, as the server folds unquoted ones;
/// [`names_as_written`](Self::names_as_written) keeps them.
///
/// ```
/// use pgfleet_migrate::schema::{ForeignKey, OnDelete, Schema};
///
/// let mut schema = Schema::default();
/// schema.standard_table("trips", "driver_id varchar(50) NOT NULL");
/// schema.index("trips", &["driver_id"]);
/// schema.foreign_key(ForeignKey::new("trips", "driver_id", "drivers").on_delete(OnDelete::Cascade));
/// schema.sql("COMMENT ON TABLE trips IS 'what a driver offers'");
/// assert!(schema.text().contains(r#"CREATE INDEX IF NOT EXISTS "ix_trips_driver_id" ON "trips" ("driver_id");"#));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Schema {
    annotations: String,
    statements: String,
    as_written: bool,
}

/// What happens to a row whose referenced row is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDelete {
    /// The deletion is refused.
    #[default]
    NoAction,
    /// It is deleted, too.
    Cascade,
    /// Its column becomes NULL.
    SetNull,
    /// Its column becomes the default.
    SetDefault,
}

impl OnDelete {
    fn sql(self) -> &'static str {
        match self {
            Self::NoAction => "NO ACTION",
            Self::Cascade => "CASCADE",
            Self::SetNull => "SET NULL",
            Self::SetDefault => "SET DEFAULT",
        }
    }
}

/// An index to be made if it is not there.
#[derive(Debug, Clone)]
pub struct Index {
    table: String,
    columns: Vec<String>,
    unique: bool,
    name: Option<String>,
}

impl Index {
    /// An index on columns of a table, named `ix_<table>_<columns>`.
    pub fn new(table: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { table: table.to_owned(), columns, unique: false, name: None }
    }

    /// Makes it unique.
    #[must_use]
    pub fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    /// Gives it a name, which is kept as written.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// A foreign key to be made if it is not there.
#[derive(Debug, Clone)]
pub struct ForeignKey {
    table: String,
    columns: Vec<String>,
    referenced: String,
    keys: Vec<String>,
    on_delete: OnDelete,
    name: Option<String>,
}

impl ForeignKey {
    /// A foreign key from a column to the `id` of another table, named `fk_<table>_<referenced>`.
    pub fn new(table: &str, column: &str, referenced: &str) -> Self {
        Self {
            table: table.to_owned(),
            columns: vec![column.to_owned()],
            referenced: referenced.to_owned(),
            keys: vec!["id".to_owned()],
            on_delete: OnDelete::default(),
            name: None,
        }
    }

    /// Sets the columns, where there are several.
    #[must_use]
    pub fn columns(mut self, columns: &[&str]) -> Self {
        self.columns = columns.iter().map(|&column| column.to_owned()).collect();
        self
    }

    /// Sets the referenced columns, where it is not `id`.
    #[must_use]
    pub fn references(mut self, keys: &[&str]) -> Self {
        self.keys = keys.iter().map(|&key| key.to_owned()).collect();
        self
    }

    /// Sets what happens when the referenced row is deleted; the default refuses the deletion.
    #[must_use]
    pub fn on_delete(mut self, on_delete: OnDelete) -> Self {
        self.on_delete = on_delete;
        self
    }

    /// Gives it a name, which is kept as written; two keys between the same tables need one.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl Schema {
    /// Keeps the names of what follows as they are written; names that are made begin with `IX_`
    /// and `FK_`.
    pub fn names_as_written(&mut self) -> &mut Self {
        self.as_written = true;
        self
    }

    /// Says that another set's migration must be applied before.
    pub fn requires(&mut self, set: &str, version: &str) -> &mut Self {
        self.annotate(&format!("requires {set}@{version}"))
    }

    /// Says that the statements run one by one, without a transaction.
    pub fn no_transaction(&mut self) -> &mut Self {
        self.annotate("no-transaction")
    }

    fn annotate(&mut self, annotation: &str) -> &mut Self {
        // Writing into a string cannot fail.
        let _ = writeln!(self.annotations, "-- pgfleet: {annotation}");
        self
    }

    /// Records SQL as it is: one statement or several.
    pub fn sql(&mut self, sql: &str) -> &mut Self {
        self.statements.push_str(sql.trim().trim_end_matches(';'));
        // The line break ends a comment on the last line.
        let last_is_comment = sql.trim_end().lines().next_back().is_some_and(|line| line.contains("--"));
        self.statements.push_str(if last_is_comment { "\n;\n" } else { ";\n" });
        self
    }

    /// Records a statement of sea-query.
    pub fn statement(&mut self, statement: &impl SchemaStatementBuilder) -> &mut Self {
        let sql = statement.to_string(PostgresQueryBuilder);
        self.sql(&sql)
    }

    /// Records a table with the standard columns and more: `id varchar(50)` as its key,
    /// `created_at` and `updated_at`, `is_deleted` and `deleted_at`.
    ///
    /// `columns`: what stands between the parentheses of `CREATE TABLE`; may be empty.
    pub fn standard_table(&mut self, table: &str, columns: &str) -> &mut Self {
        let mut between = columns.trim().trim_end_matches(',').to_owned();
        if !between.is_empty() {
            between = format!("    {between},\n");
        }
        let table = self.qualified(table);
        self.sql(&format!(
            "CREATE TABLE {table} (\n    id varchar(50) PRIMARY KEY,\n{between}    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,\n    \
             updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,\n    is_deleted boolean NOT NULL DEFAULT false,\n    deleted_at timestamptz\n)"
        ))
    }

    /// Records an index on columns, made if it is not there, named `ix_<table>_<columns>`.
    pub fn index(&mut self, table: &str, columns: &[&str]) -> &mut Self {
        self.add_index(Index::new(table, columns))
    }

    /// Records a unique index on columns, made if it is not there, named `ix_<table>_<columns>`.
    pub fn unique_index(&mut self, table: &str, columns: &[&str]) -> &mut Self {
        self.add_index(Index::new(table, columns).unique())
    }

    /// Records an index, made if it is not there.
    pub fn add_index(&mut self, index: Index) -> &mut Self {
        let made = format!("{}_{}_{}", self.prefix("ix"), last_part(&index.table), index.columns.join("_"));
        let name = self.name(index.name, &made);
        let unique = if index.unique { "UNIQUE " } else { "" };
        let (table, columns) = (self.qualified(&index.table), self.list(&index.columns));
        self.sql(&format!("CREATE {unique}INDEX IF NOT EXISTS {} ON {table} ({columns})", quote_ident(&name)))
    }

    /// Records a foreign key, made if the table has none of its name.
    pub fn foreign_key(&mut self, key: ForeignKey) -> &mut Self {
        let made = format!("{}_{}_{}", self.prefix("fk"), last_part(&key.table), last_part(&key.referenced));
        let name = self.name(key.name, &made);
        let (table, referenced) = (self.qualified(&key.table), self.qualified(&key.referenced));
        let (columns, keys) = (self.list(&key.columns), self.list(&key.keys));
        let add = format!(
            "ALTER TABLE {table} ADD CONSTRAINT {} FOREIGN KEY ({columns}) REFERENCES {referenced} ({keys}) ON DELETE {}",
            quote_ident(&name),
            key.on_delete.sql()
        );
        self.sql(&format!(
            "DO $do$\nBEGIN\n    IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conrelid = {}::regclass AND conname = {}) THEN\n        \
             {add};\n    END IF;\nEND $do$",
            quote_literal(&table),
            quote_literal(&name)
        ))
    }

    /// Returns what is recorded so far.
    pub fn text(&self) -> String {
        format!("{}{}", self.annotations, self.statements)
    }

    pub(crate) fn into_text(self) -> String {
        if self.statements.is_empty() { String::new() } else { self.text() }
    }

    fn prefix(&self, prefix: &str) -> String {
        if self.as_written { prefix.to_ascii_uppercase() } else { prefix.to_owned() }
    }

    /// A name that somebody chose, or the one that is made.
    fn name(&self, chosen: Option<String>, made: &str) -> String {
        match chosen {
            Some(chosen) => chosen,
            None => self.fold(&if made.len() > LONGEST { short_name(made, "") } else { made.to_owned() }),
        }
    }

    fn fold(&self, name: &str) -> String {
        if self.as_written { name.to_owned() } else { name.to_lowercase() }
    }

    /// `table` or `schema.table`, quoted.
    fn qualified(&self, name: &str) -> String {
        name.split('.').map(|part| quote_ident(&self.fold(part))).collect::<Vec<_>>().join(".")
    }

    fn list(&self, names: &[String]) -> String {
        names.iter().map(|name| quote_ident(&self.fold(name))).collect::<Vec<_>>().join(", ")
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use sea_query::{Alias, ColumnDef, Table};

    use super::*;

    #[test]
    fn names_are_folded_or_kept_as_written() {
        let mut schema = Schema::default();
        schema.unique_index("Drivers", &["PhoneNumber"]);
        assert_eq!(
            schema.text(),
            "CREATE UNIQUE INDEX IF NOT EXISTS \"ix_drivers_phonenumber\" ON \"drivers\" (\"phonenumber\");\n"
        );
        let mut schema = Schema::default();
        schema.names_as_written().index("Drivers", &["IsDeleted", "IsActive"]);
        schema.foreign_key(ForeignKey::new("Trips", "DriverId", "Drivers").references(&["Id"]));
        let text = schema.text();
        assert!(
            text.contains("\"IX_Drivers_IsDeleted_IsActive\" ON \"Drivers\" (\"IsDeleted\", \"IsActive\")"),
            "{text}"
        );
        assert!(text.contains("ADD CONSTRAINT \"FK_Trips_Drivers\" FOREIGN KEY (\"DriverId\")"), "{text}");
        assert!(text.contains("REFERENCES \"Drivers\" (\"Id\") ON DELETE NO ACTION"), "{text}");
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let name = |last: &str| {
            let mut schema = Schema::default();
            schema.index(&"t".repeat(50), &["a_rather_long_column", last]);
            schema.text().split('"').nth(1).unwrap().to_owned()
        };
        assert_eq!((name("x").len(), name("y").len()), (LONGEST, LONGEST));
        assert_ne!(name("x"), name("y"));
        let mut schema = Schema::default();
        schema.add_index(Index::new("t", &["a"]).named("My index"));
        assert!(schema.text().contains("\"My index\" ON \"t\""));
    }

    #[test]
    fn statements_of_others_are_recorded_whole() {
        let mut schema = Schema::default();
        let mut table = Table::create();
        table.table(Alias::new("seats")).col(ColumnDef::new(Alias::new("id")).big_integer().primary_key());
        schema.requires("identity", "3").statement(&table).sql("select 1 -- the end");
        assert_eq!(
            schema.text(),
            "-- pgfleet: requires identity@3\nCREATE TABLE \"seats\" ( \"id\" bigint PRIMARY KEY );\nselect 1 -- the end\n;\n"
        );
        assert_eq!(Schema::default().into_text(), "");
    }
}
