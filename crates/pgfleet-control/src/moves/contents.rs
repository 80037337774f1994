//! What is in a database: how many rows each table has, a hash over them, where sequences stand.

use std::collections::{BTreeMap, BTreeSet};

use pgfleet_postgres::{Address, Connection, Purpose, connect};
use serde::{Deserialize, Serialize};

use super::fence::APPLICATION;
use super::shape;

/// How many tables one statement reads.
const TABLES_AT_ONCE: usize = 40;

/// How many differences are said.
const SAID: usize = 8;

/// What values look like does not depend on the server's settings.
const SETTINGS: &str = "SET LOCAL search_path = ''; SET LOCAL datestyle = 'ISO, MDY'; SET LOCAL intervalstyle = 'postgres'; \
    SET LOCAL timezone = 'UTC'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; \
    SET LOCAL lc_monetary = 'C'; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0";

/// What is in a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    /// By table: how many rows, and the sum of their hashes, which does not depend on their order.
    pub(super) tables: BTreeMap<String, (i64, String)>,
    /// By sequence: its last value, and whether that was handed out.
    pub(super) sequences: BTreeMap<String, (i64, bool)>,
    /// How many large objects, and the sum of their hashes.
    pub(super) large_objects: (i64, String),
    /// Everything else, one line per thing.
    #[serde(skip)]
    pub(super) shape: BTreeSet<String>,
}

impl Contents {
    /// Reads a database as its administrator, in one snapshot; `exact` compares what only servers of one
    /// version write in the same words.
    pub(super) async fn read(admin: &Address, database: &str, exact: bool) -> Result<Self, pgfleet_postgres::Error> {
        let purpose = Purpose::new(APPLICATION).setting("default_transaction_read_only", "on");
        let connection = connect(&admin.with_database(database), &purpose).await?;
        connection.execute_all(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {SETTINGS}")).await?;
        let contents = Self {
            tables: tables(&connection).await?,
            sequences: sequences(&connection).await?,
            large_objects: large_objects(&connection).await?,
            shape: shape::read(&connection, exact).await?,
        };
        connection.close().await;
        Ok(contents)
    }

    /// Says how another one differs; nothing when it does not.
    pub(super) fn differences(&self, other: &Self, (here, there): (&str, &str)) -> Vec<String> {
        let mut said = Vec::new();
        for name in keys(&self.tables, &other.tables) {
            match (self.tables.get(name), other.tables.get(name)) {
                (Some(one), Some(two)) if one == two => {}
                (Some(_), None) => said.push(format!("table {name} is not in {there}")),
                (None, _) => said.push(format!("table {name} is not in {here}")),
                (Some((one, _)), Some((two, _))) if one != two => {
                    said.push(format!("table {name}: {one} rows in {here}, {two} in {there}"));
                }
                (Some((rows, one)), Some((_, two))) => {
                    said.push(format!(
                        "table {name}: {rows} rows in both, but not the same (hashes {one} in {here}, {two} in {there})"
                    ));
                }
            }
        }
        for name in keys(&self.sequences, &other.sequences) {
            let (one, two) = (self.sequences.get(name), other.sequences.get(name));
            if one != two {
                let at = |value: Option<&(i64, bool)>| value.map_or("not there".to_owned(), |(at, _)| at.to_string());
                said.push(format!("sequence {name}: {} in {here}, {} in {there}", at(one), at(two)));
            }
        }
        if self.large_objects != other.large_objects {
            let (one, two) = (self.large_objects.0, other.large_objects.0);
            said.push(format!("large objects: {one} in {here}, {two} in {there}, or not the same"));
        }
        let only = |one: &Self, two: &Self, place: &str| {
            one.shape.difference(&two.shape).map(|line| format!("only in {place}: {line}")).collect::<Vec<_>>()
        };
        said.extend(only(self, other, here));
        said.extend(only(other, self, there));
        if said.len() > SAID {
            let more = said.len() - SAID;
            said.truncate(SAID);
            said.push(format!("and {more} more"));
        }
        said
    }
}

fn keys<'a, T>(one: &'a BTreeMap<String, T>, two: &'a BTreeMap<String, T>) -> BTreeSet<&'a String> {
    one.keys().chain(two.keys()).collect()
}

/// Lists relations of one kind, in the words that name them in SQL; those of extensions are left out.
async fn relations(connection: &Connection, kind: &str) -> Result<Vec<String>, pgfleet_postgres::Error> {
    let rows = connection
        .simple(&format!(
            "SELECT c.oid::regclass FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = '{kind}' AND c.relpersistence <> 't' \
               AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)' \
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = c.tableoid AND e.objid = c.oid \
                               AND e.deptype = 'e') ORDER BY 1"
        ))
        .await?;
    Ok(rows.iter().filter_map(|row| row.get(0)).map(str::to_owned).collect())
}

async fn tables(connection: &Connection) -> Result<BTreeMap<String, (i64, String)>, pgfleet_postgres::Error> {
    let mut found = BTreeMap::new();
    let names = relations(connection, "r").await?;
    for chunk in names.chunks(TABLES_AT_ONCE) {
        // The whole row, also where a column is called like the table.
        let parts: Vec<String> = chunk
            .iter()
            .map(|name| {
                format!(
                    "SELECT {}, pg_catalog.count(*), coalesce(pg_catalog.sum(pg_catalog.hashtextextended(\
                     (pgfleet_row.*)::text COLLATE \"C\", 0)::numeric), 0) FROM ONLY {name} AS pgfleet_row",
                    pgfleet_postgres::quote_literal(name)
                )
            })
            .collect();
        for row in connection.simple(&parts.join(" UNION ALL ")).await? {
            let text = |at: usize| row.get(at).unwrap_or_default().to_owned();
            found.insert(text(0), (text(1).parse().unwrap_or_default(), text(2)));
        }
    }
    Ok(found)
}

async fn sequences(connection: &Connection) -> Result<BTreeMap<String, (i64, bool)>, pgfleet_postgres::Error> {
    let mut found = BTreeMap::new();
    let names = relations(connection, "S").await?;
    for chunk in names.chunks(TABLES_AT_ONCE) {
        let parts: Vec<String> = chunk
            .iter()
            .map(|name| format!("SELECT {}, last_value, is_called FROM {name}", pgfleet_postgres::quote_literal(name)))
            .collect();
        for row in connection.simple(&parts.join(" UNION ALL ")).await? {
            let last = row.get(1).and_then(|text| text.parse().ok()).unwrap_or_default();
            found.insert(row.get(0).unwrap_or_default().to_owned(), (last, row.get(2) == Some("t")));
        }
    }
    Ok(found)
}

async fn large_objects(connection: &Connection) -> Result<(i64, String), pgfleet_postgres::Error> {
    let rows = connection
        .simple(
            "SELECT pg_catalog.count(*), coalesce(pg_catalog.sum(pg_catalog.hashtextextended(oid || ' ' || \
             pg_catalog.encode(pg_catalog.sha256(pg_catalog.lo_get(oid)), 'hex'), 0)::numeric), 0) \
             FROM pg_catalog.pg_largeobject_metadata",
        )
        .await?;
    let text = |at: usize| rows.first().and_then(|row| row.get(at)).unwrap_or_default().to_owned();
    Ok((text(0).parse().unwrap_or_default(), text(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(tables: &[(&str, i64, &str)], shape: &[&str]) -> Contents {
        Contents {
            tables: tables.iter().map(|(name, rows, hash)| ((*name).to_owned(), (*rows, (*hash).to_owned()))).collect(),
            sequences: BTreeMap::new(),
            large_objects: (0, "0".to_owned()),
            shape: shape.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn a_difference_is_said_with_table_and_numbers() {
        let one = contents(&[("a", 3, "7"), ("b", 2, "5"), ("c", 1, "1")], &["index x", "index y"]);
        let two = contents(&[("a", 2, "7"), ("b", 2, "6"), ("c", 1, "1")], &["index y", "index z"]);
        assert_eq!(
            one.differences(&two, ("main/acme", "second/acme")),
            [
                "table a: 3 rows in main/acme, 2 in second/acme",
                "table b: 2 rows in both, but not the same (hashes 5 in main/acme, 6 in second/acme)",
                "only in main/acme: index x",
                "only in second/acme: index z",
            ]
        );
        assert!(one.differences(&one.clone(), ("x", "y")).is_empty());
    }
}
