//! What is on one server, read from its catalogs.

use std::collections::{BTreeMap, BTreeSet};

use pgfleet_postgres::{Connection, Error, SimpleQueryRow, quote_literal};

use super::budget::Capacity;
use super::desired::Guest;

/// Roles, memberships and databases of a server, as far as they concern us.
#[derive(Debug, Clone, Default)]
pub struct ServerState {
    /// Whether we are a superuser.
    pub superuser: bool,
    /// Our own role.
    pub admin: String,
    /// The server's version as a number: 150020.
    pub version: u32,
    /// Identifies the cluster; empty when we may not read it.
    pub system_identifier: String,
    /// The roles that we asked about and that exist.
    pub roles: BTreeMap<String, RoleState>,
    /// Memberships that touch these roles: (member, group), with who granted them.
    pub memberships: BTreeMap<(String, String), Vec<String>>,
    /// All databases that take connections or are ours.
    pub databases: BTreeMap<String, DatabaseState>,
    /// Settings of roles in databases: (role, database or empty) to `name=value` entries.
    pub settings: BTreeMap<(String, String), Vec<String>>,
    /// All roles that the solution made, also those of services that it has no longer.
    pub family: BTreeSet<String>,
    /// How many connections the server takes.
    pub capacity: Capacity,
}

impl ServerState {
    /// Returns the value of a role's setting, everywhere or in one database.
    pub fn setting(&self, role: &str, database: Option<&str>, name: &str) -> Option<&str> {
        let entries = self.settings.get(&(role.to_owned(), database.unwrap_or_default().to_owned()))?;
        entries.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }
}

/// One role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleState {
    /// Whether it may log in.
    pub login: bool,
    /// Rights over the whole server that none of ours has: superuser, createdb, createrole,
    /// replication, bypassrls.
    pub powers: Vec<String>,
    /// The most connections; -1 without a limit.
    pub limit: i64,
    /// Its comment.
    pub comment: String,
    /// Its password's verifier; none when we may not see it.
    pub verifier: Option<String>,
    /// Whether we may act as it, with its rights.
    pub acts: bool,
    /// Whether we may let ourselves act as it.
    pub grantable: bool,
}

/// One database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseState {
    /// Its owner.
    pub owner: String,
    /// Its oid.
    pub oid: u32,
    /// Whether it takes connections.
    pub open: bool,
    /// Who may do what: (grantee, privilege); the empty grantee is PUBLIC.
    pub acl: BTreeSet<(String, String)>,
    /// Its comment.
    pub comment: String,
}

/// What is inside one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentState {
    /// Schemas with their owner and rights: (grantee, privilege).
    pub schemas: BTreeMap<String, (String, BTreeSet<(String, String)>)>,
    /// Default rights on what an owner will make: (owner, schema or empty, kind, grantee, privilege).
    pub defaults: BTreeSet<(String, String, String, String, String)>,
    /// Extensions.
    pub extensions: BTreeSet<String>,
    /// Tables and sequences whose rights are missing: (owner, schema, grantee, kind).
    pub lacking: BTreeSet<(String, String, String, String)>,
    /// Histories outside of pgfleet's own schema: (schema, table).
    pub histories: BTreeSet<(String, String)>,
    /// Rights of other services' roles on tables and sequences: (schema, grantee, kind, right).
    pub strays: BTreeSet<(String, String, String, String)>,
}

fn text(row: &SimpleQueryRow, at: usize) -> String {
    row.get(at).unwrap_or_default().to_owned()
}

/// Reads a server: a handful of queries on its catalogs.
///
/// `family` is how the comments of the solution's roles begin.
pub async fn read_server(connection: &Connection, roles: &[String], family: &str) -> Result<ServerState, Error> {
    let names: Vec<String> = roles.iter().map(|role| quote_literal(role)).collect();
    let names = if names.is_empty() { "''".to_owned() } else { names.join(", ") };
    let mut state = ServerState::default();
    let rows = connection
        .simple(
            "SELECT current_user, rolsuper::int, current_setting('server_version_num') \
             FROM pg_catalog.pg_roles WHERE rolname = current_user",
        )
        .await?;
    if let Some(row) = rows.first() {
        state.admin = text(row, 0);
        state.superuser = row.get(1) == Some("1");
        state.version = text(row, 2).parse().unwrap_or(0);
    }
    let rows = connection
        .simple(
            "SELECT pg_catalog.current_setting('max_connections')::int, \
                    pg_catalog.current_setting('superuser_reserved_connections')::int \
                    + coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0)",
        )
        .await?;
    if let Some(row) = rows.first() {
        let number = |at: usize| text(row, at).parse().unwrap_or(0);
        state.capacity = Capacity { all: number(0), reserved: number(1) };
    }
    let rows = connection
        .simple(&format!(
            "SELECT r.rolname FROM pg_catalog.pg_roles r \
             WHERE pg_catalog.starts_with(pg_catalog.shobj_description(r.oid, 'pg_authid'), {})",
            quote_literal(family)
        ))
        .await?;
    state.family = rows.iter().map(|row| text(row, 0)).collect();
    state.system_identifier = pgfleet_postgres::identity::system_identifier(connection).await?;
    // Only a superuser sees verifiers; for others the view shows asterisks.
    let (source, verifier) =
        if state.superuser { ("pg_catalog.pg_authid", "r.rolpassword") } else { ("pg_catalog.pg_roles", "NULL::text") };
    // Before 16 the right to make roles is the right to grant them all; since then only who made a
    // role may.
    let (acts, grantable) = if state.version >= 160_000 {
        (
            "pg_catalog.pg_has_role(r.oid, 'SET') AND pg_catalog.pg_has_role(r.oid, 'USAGE')",
            "pg_catalog.pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION')",
        )
    } else {
        ("pg_catalog.pg_has_role(r.oid, 'USAGE')", "true")
    };
    let rows = connection
        .simple(&format!(
            "SELECT r.rolname, r.rolcanlogin::int, \
                    concat_ws(',', CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, \
                              CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, \
                              CASE WHEN r.rolreplication THEN 'REPLICATION' END, \
                              CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END), \
                    coalesce(pg_catalog.shobj_description(r.oid, 'pg_authid'), ''), {verifier}, \
                    ({acts})::int, ({grantable})::int, r.rolconnlimit \
             FROM {source} r WHERE r.rolname IN ({names})"
        ))
        .await?;
    for row in &rows {
        let powers = text(row, 2).split(',').filter(|power| !power.is_empty()).map(str::to_owned).collect();
        let role = RoleState {
            login: row.get(1) == Some("1"),
            powers,
            limit: text(row, 7).parse().unwrap_or(-1),
            comment: text(row, 3),
            verifier: row.get(4).map(str::to_owned),
            acts: row.get(5) == Some("1"),
            grantable: row.get(6) == Some("1"),
        };
        state.roles.insert(text(row, 0), role);
    }
    let rows = connection
        .simple(&format!(
            "SELECT m.rolname, g.rolname, pg_catalog.pg_get_userbyid(a.grantor) FROM pg_catalog.pg_auth_members a \
             JOIN pg_catalog.pg_roles m ON m.oid = a.member JOIN pg_catalog.pg_roles g ON g.oid = a.roleid \
             WHERE m.rolname IN ({names}) OR g.rolname IN ({names})"
        ))
        .await?;
    for row in &rows {
        state.memberships.entry((text(row, 0), text(row, 1))).or_default().push(text(row, 2));
    }
    read_databases(connection, &mut state).await?;
    let rows = connection
        .simple(&format!(
            "SELECT r.rolname, coalesce(d.datname, ''), s.entry FROM pg_catalog.pg_db_role_setting c \
             JOIN pg_catalog.pg_roles r ON r.oid = c.setrole LEFT JOIN pg_catalog.pg_database d ON d.oid = c.setdatabase, \
             LATERAL unnest(c.setconfig) AS s(entry) WHERE r.rolname IN ({names})"
        ))
        .await?;
    for row in &rows {
        state.settings.entry((text(row, 0), text(row, 1))).or_default().push(text(row, 2));
    }
    Ok(state)
}

async fn read_databases(connection: &Connection, state: &mut ServerState) -> Result<(), Error> {
    let rows = connection
        .simple(
            "SELECT d.datname, o.rolname, d.oid, d.datallowconn::int, \
                    coalesce(pg_catalog.shobj_description(d.oid, 'pg_database'), '') \
             FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles o ON o.oid = d.datdba",
        )
        .await?;
    for row in &rows {
        let database = DatabaseState {
            owner: text(row, 1),
            oid: text(row, 2).parse().unwrap_or(0),
            open: row.get(3) == Some("1"),
            acl: BTreeSet::new(),
            comment: text(row, 4),
        };
        state.databases.insert(text(row, 0), database);
    }
    let rows = connection
        .simple(
            "SELECT d.datname, coalesce(g.rolname, ''), a.privilege_type \
             FROM pg_catalog.pg_database d, \
             LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a \
             LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee",
        )
        .await?;
    for row in &rows {
        if let Some(database) = state.databases.get_mut(row.get(0).unwrap_or_default()) {
            database.acl.insert((text(row, 1), text(row, 2)));
        }
    }
    Ok(())
}

/// Reads one database.
pub async fn read_content(connection: &Connection) -> Result<ContentState, Error> {
    let mut state = ContentState::default();
    let rows = connection
        .simple(
            "SELECT n.nspname, o.rolname, coalesce(g.rolname, ''), coalesce(a.privilege_type, '') \
             FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner \
             LEFT JOIN LATERAL pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a ON true \
             LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee \
             WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
        )
        .await?;
    for row in &rows {
        let entry = state.schemas.entry(text(row, 0)).or_insert_with(|| (text(row, 1), BTreeSet::new()));
        entry.1.insert((text(row, 2), text(row, 3)));
    }
    let rows = connection
        .simple(
            "SELECT o.rolname, coalesce(n.nspname, ''), d.defaclobjtype, coalesce(g.rolname, ''), a.privilege_type \
             FROM pg_catalog.pg_default_acl d JOIN pg_catalog.pg_roles o ON o.oid = d.defaclrole \
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace, \
             LATERAL pg_catalog.aclexplode(d.defaclacl) a LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee",
        )
        .await?;
    state.defaults =
        rows.iter().map(|row| (text(row, 0), text(row, 1), text(row, 2), text(row, 3), text(row, 4))).collect();
    let rows = connection.simple("SELECT extname FROM pg_catalog.pg_extension").await?;
    state.extensions = rows.iter().map(|row| text(row, 0)).collect();
    Ok(state)
}

/// Whether a table is the history of a set, by its columns: only its owner writes it, and nobody lacks a right on it.
const IS_HISTORY: &str = "(SELECT count(*) = 3 FROM pg_catalog.pg_attribute h WHERE h.attrelid = c.oid \
                          AND h.attname IN ('raw_hash', 'took_ms', 'announced_at') AND NOT h.attisdropped)";

/// Finds the histories outside of pgfleet's own schema.
pub async fn read_histories(connection: &Connection) -> Result<BTreeSet<(String, String)>, Error> {
    let rows = connection
        .simple(&format!(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND n.nspname NOT IN ('pgfleet', 'information_schema') AND n.nspname !~ '^pg_' \
               AND {IS_HISTORY}"
        ))
        .await?;
    Ok(rows.iter().map(|row| (text(row, 0), text(row, 1))).collect())
}

/// Finds what exists without the rights that it should have: made before the default rights were.
pub async fn read_lacking(
    connection: &Connection,
    owner: &str,
    app: &str,
    readonly: &str,
) -> Result<BTreeSet<(String, String, String, String)>, Error> {
    let (owner, app, readonly) = (quote_literal(owner), quote_literal(app), quote_literal(readonly));
    let rows = connection
        .simple(&format!(
            "SELECT DISTINCT o.rolname, n.nspname, g.name, CASE WHEN c.relkind = 'S' THEN 'SEQUENCES' ELSE 'TABLES' END \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_roles o ON o.oid = c.relowner \
             CROSS JOIN (VALUES ({app}, 'SELECT,INSERT,UPDATE,DELETE', 'USAGE'), ({readonly}, 'SELECT', 'SELECT')) \
                   AS g(name, on_table, on_sequence) \
             JOIN pg_catalog.pg_roles r ON r.rolname = g.name \
             WHERE o.rolname = {owner} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
               AND n.nspname NOT IN ('pgfleet', 'information_schema') AND n.nspname !~ '^pg_' AND NOT {IS_HISTORY} \
               AND NOT CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(r.oid, c.oid, g.on_sequence) \
                   ELSE (SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(r.oid, c.oid, p)) \
                         FROM pg_catalog.unnest(pg_catalog.string_to_array(g.on_table, ',')) p) END"
        ))
        .await?;
    Ok(rows.iter().map(|row| (text(row, 0), text(row, 1), text(row, 2), text(row, 3))).collect())
}

/// Finds what guests may not do yet in the schemas that they may use.
pub async fn read_guests_lacking(
    connection: &Connection,
    owner: &str,
    guests: &[Guest],
) -> Result<BTreeSet<(String, String, String, String)>, Error> {
    if guests.is_empty() {
        return Ok(BTreeSet::new());
    }
    let pairs =
        guests.iter().map(|guest| format!("({}, {})", quote_literal(&guest.role), quote_literal(&guest.schema)));
    let rows = connection
        .simple(&format!(
            "SELECT DISTINCT o.rolname, n.nspname, g.name, CASE WHEN c.relkind = 'S' THEN 'SEQUENCES' ELSE 'TABLES' END \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_roles o ON o.oid = c.relowner \
             JOIN (VALUES {}) AS g(name, schema) ON g.schema = n.nspname \
             JOIN pg_catalog.pg_roles r ON r.rolname = g.name \
             WHERE o.rolname = {} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT {IS_HISTORY} \
               AND NOT CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(r.oid, c.oid, 'USAGE') \
                   ELSE (SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(r.oid, c.oid, p)) \
                         FROM pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p) END",
            pairs.collect::<Vec<_>>().join(", "),
            quote_literal(owner),
        ))
        .await?;
    Ok(rows.iter().map(|row| (text(row, 0), text(row, 1), text(row, 2), text(row, 3))).collect())
}

/// Reads which rights on tables, columns and sequences roles of other services have.
pub async fn read_strays(
    connection: &Connection,
    others: &BTreeSet<String>,
) -> Result<BTreeSet<(String, String, String, String)>, Error> {
    if others.is_empty() {
        return Ok(BTreeSet::new());
    }
    let names: Vec<String> = others.iter().map(|role| quote_literal(role)).collect();
    let rows = connection
        .simple(&format!(
            "SELECT DISTINCT n.nspname, g.rolname, CASE WHEN c.relkind = 'S' THEN 'SEQUENCES' ELSE 'TABLES' END, \
                    a.privilege_type \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             CROSS JOIN LATERAL (SELECT c.relacl AS acl UNION ALL \
                   SELECT t.attacl FROM pg_catalog.pg_attribute t WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL) s \
             CROSS JOIN LATERAL pg_catalog.aclexplode(s.acl) a JOIN pg_catalog.pg_roles g ON g.oid = a.grantee \
             WHERE s.acl IS NOT NULL AND g.rolname IN ({})",
            names.join(", ")
        ))
        .await?;
    Ok(rows.iter().map(|row| (text(row, 0), text(row, 1), text(row, 2), text(row, 3))).collect())
}
