//! What a guest reaches inside a database that it is let in to: looked up, and tried.

use std::collections::BTreeSet;

use pgfleet_postgres::{Connection, Error, quote_ident};

use super::{Finding, Pair};

/// A module's tables are read one by one, and all the others tried, as the guest itself.
///
/// `schemas` are those of the declared modules.
pub(super) async fn probe(
    connection: &Connection,
    pair: &Pair,
    schemas: &BTreeSet<&str>,
) -> Result<Vec<Finding>, Error> {
    let rows = connection
        .simple(
            "SELECT n.nspname, c.relname, c.relkind = 'S', \
                    (pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND CASE WHEN c.relkind = 'S' \
                        THEN pg_catalog.has_sequence_privilege(c.oid, 'USAGE, SELECT, UPDATE') \
                        ELSE pg_catalog.has_table_privilege(c.oid, \
                               'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') \
                          OR pg_catalog.has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES') END)::int, \
                    EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) a WHERE a.grantee = 0)::int \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
               AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
                               AND d.objid = c.oid AND d.deptype = 'e') \
             ORDER BY 1, 2",
        )
        .await?;
    let mut findings = Vec::new();
    for row in &rows {
        let (schema, name) = (row.get(0).unwrap_or_default(), row.get(1).unwrap_or_default());
        let (sequence, listed) = (row.get(2) == Some("t"), row.get(3) == Some("1"));
        let declared = schemas.contains(schema);
        let table = format!("{schema}.{name}");
        // A sequence is no secret, and trying one would change it.
        let reads = if sequence { None } else { reads(connection, schema, name).await };
        let message = match (declared, reads) {
            (true, Some(false)) => {
                format!("role {} cannot read {table} of database {}, which is declared", pair.role, pair.database)
            }
            (false, Some(true)) => {
                format!("role {} reads {table} of database {}, which is not declared", pair.role, pair.database)
            }
            (false, _) if listed => {
                format!("role {} has rights on {table} of database {}, which is not declared", pair.role, pair.database)
            }
            _ => continue,
        };
        findings.push(Finding {
            server: pair.server.clone(),
            public_database: None,
            message,
            // What everybody may is the owner's affair; provisioning takes back what was given to the guest.
            hint: if !declared && row.get(4) == Some("1") {
                format!("REVOKE ALL ON {}.{} FROM PUBLIC", quote_ident(schema), quote_ident(name))
            } else {
                "pgfleet provision".to_owned()
            },
        });
    }
    Ok(findings)
}

/// Tries to read a table; none when the answer says nothing about rights (a lock, a broken view).
async fn reads(connection: &Connection, schema: &str, name: &str) -> Option<bool> {
    let sql = format!("SELECT FROM {}.{} LIMIT 0", quote_ident(schema), quote_ident(name));
    match connection.simple(&sql).await {
        Ok(_) => Some(true),
        Err(error) if error.sql_state() == Some("42501") => Some(false),
        Err(_) => None,
    }
}
