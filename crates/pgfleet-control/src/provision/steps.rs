//! The statements between what is and what should be. Pure: nothing here talks to a server.

use std::collections::BTreeSet;

use pgfleet_postgres::quote::quote_qualified;
use pgfleet_postgres::{quote_ident, quote_literal};

use super::desired::{DesiredDatabase, DesiredServer};
use super::guest_steps::guest_steps;
use super::role_steps::{Passwords, Sight};
use super::state::{ContentState, ServerState};
use crate::roles::META;

/// One statement to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The database it runs in; none is the administrator's.
    pub database: Option<String>,
    /// The statement. A password stands in it as `:password`.
    pub sql: String,
    /// The role whose password fills `:password`.
    pub password_of: Option<String>,
}

impl Step {
    pub(super) fn new(sql: impl Into<String>) -> Self {
        Self { database: None, sql: sql.into(), password_of: None }
    }

    pub(super) fn inside(database: &str, sql: impl Into<String>) -> Self {
        Self { database: Some(database.to_owned()), sql: sql.into(), password_of: None }
    }
}

/// What is in the way of provisioning and must be settled by a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Finds roles and databases with our names that belong to somebody else.
pub fn conflicts(desired: &DesiredServer, state: &ServerState) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let mut role_of = |service: &str, role: &str| {
        let found = state.roles.get(role).map(|found| found.comment.as_str()).unwrap_or_default();
        if found.starts_with("pgfleet: ") && found != desired.mark(service) {
            conflicts.push(Conflict {
                message: format!("role {role} on server {} is taken: {found}", desired.server),
                hint: "two solutions cannot have a service of one name on one server: rename the service, or give \
                       one of them a server of its own"
                    .to_owned(),
            });
        }
    };
    for resident in &desired.residents {
        role_of(&resident.service, &resident.roles.owner);
    }
    for (service, roles, login) in desired.logins() {
        roles.both(login).into_iter().for_each(|role| role_of(service, role));
    }
    for database in &desired.databases {
        let mark = desired.mark(&database.service);
        let foreign = |comment: &str| comment.starts_with("pgfleet: ") && comment != mark;
        if let Some(found) = state.databases.get(&database.name)
            && foreign(&found.comment)
        {
            conflicts.push(Conflict {
                message: format!("database {} on server {} is taken: {}", database.name, desired.server, found.comment),
                hint: "name another one: database = \"…\"".to_owned(),
            });
        }
    }
    conflicts
}

/// Returns the steps for roles and databases, in order.
pub fn server_steps(desired: &DesiredServer, state: &ServerState, passwords: &Passwords) -> Vec<Step> {
    let mut steps = Vec::new();
    if !state.roles.contains_key(META) {
        steps.push(Step::new(format!("CREATE ROLE {} NOLOGIN", quote_ident(META))));
    }
    let ours: BTreeSet<&str> = desired.roles().chain(state.family.iter().map(String::as_str)).collect();
    let sight = Sight { desired, state, passwords, ours: &ours, shares: desired.shares(Some(state.capacity)) };
    sight.all(&mut steps);
    if !state.superuser {
        // Without it we could not give databases to the owners, nor change what they own. A role
        // that exists and that we may not grant ourselves is somebody else's: see `owns_meta`.
        let options = if state.version >= 160_000 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        for group in desired.residents.iter().map(|r| r.roles.owner.as_str()).chain([META]) {
            let wanted = match state.roles.get(group) {
                None => true,
                Some(role) => !role.acts && (role.grantable || group != META),
            };
            if wanted {
                steps.push(Step::new(format!("GRANT {} TO CURRENT_USER{options}", quote_ident(group))));
            }
        }
    }
    for database in &desired.databases {
        database_steps(&mut steps, &sight, database);
    }
    for resident in &desired.residents {
        sight.places(&mut steps, resident);
    }
    maintenance_steps(&mut steps, desired, state, &ours);
    steps
}

/// Whether pgfleet's own schema can belong to the role made for it.
///
/// From 16 on only who made that role may use it: another administrator on the same server keeps
/// the schema, which no service owns either way.
pub fn owns_meta(state: &ServerState) -> bool {
    state.superuser || state.roles.get(META).is_none_or(|role| role.acts || role.grantable)
}

/// Sets a role's setting, everywhere or in one database, when it is not there.
pub(super) fn setting(
    steps: &mut Vec<Step>,
    state: &ServerState,
    role: &str,
    database: Option<&str>,
    name: &str,
    value: &str,
) {
    let present = state.setting(role, database, name);
    // The server quotes a schema only where it must.
    let plain = |text: &str| if name == "search_path" { text.replace('"', "") } else { text.to_owned() };
    if present.is_some_and(|present| plain(present) == plain(value)) {
        return;
    }
    let place = database.map(|database| format!(" IN DATABASE {}", quote_ident(database))).unwrap_or_default();
    // A list of schemas must not be quoted as one literal.
    let text = if name == "search_path" { value.to_owned() } else { quote_literal(value) };
    steps.push(Step::new(format!("ALTER ROLE {}{place} SET {name} = {text}", quote_ident(role))));
}

fn database_steps(steps: &mut Vec<Step>, sight: &Sight<'_>, database: &DesiredDatabase) {
    let Sight { desired, state, ours, .. } = sight;
    let name = quote_ident(&database.name);
    let owner = quote_ident(&database.roles.owner);
    let present = state.databases.get(&database.name);
    let mark = desired.mark(&database.service);
    match present {
        // Closed until its rights are set: rights are not cloned, and a new database lets
        // everybody in. From template0, which nobody is ever connected to.
        None => steps.push(Step::new(format!(
            "CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false"
        ))),
        Some(found) if found.owner != database.roles.owner => {
            steps.push(Step::new(format!("ALTER DATABASE {name} OWNER TO {owner}")));
        }
        Some(_) => {}
    }
    if present.is_none_or(|found| found.comment != mark) {
        steps.push(Step::new(format!("COMMENT ON DATABASE {name} IS {}", quote_literal(&mark))));
    }
    rights(
        steps,
        &name,
        &database.rights(),
        present.map(|found| &found.acl),
        |grantee| grantee.is_empty() || ours.contains(grantee),
        &database.roles.owner,
    );
    if present.is_none_or(|found| !found.open) {
        steps.push(Step::new(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")));
    }
}

/// Revokes rights on a database that should not be there and grants those that should.
///
/// `mine` says whose rights we decide about; what a database administrator granted to others stays.
fn rights(
    steps: &mut Vec<Step>,
    database: &str,
    wanted: &BTreeSet<(&str, &str)>,
    present: Option<&BTreeSet<(String, String)>>,
    mine: impl Fn(&str) -> bool,
    owner: &str,
) {
    let fresh: BTreeSet<(String, String)> = [("", "CONNECT"), ("", "TEMPORARY")]
        .into_iter()
        .map(|(grantee, right)| (grantee.to_owned(), right.to_owned()))
        .collect();
    let present = present.unwrap_or(&fresh);
    for (grantee, right) in present {
        if grantee != owner && mine(grantee) && !wanted.contains(&(grantee.as_str(), right.as_str())) {
            let name = if grantee.is_empty() { "PUBLIC".to_owned() } else { quote_ident(grantee) };
            steps.push(Step::new(format!("REVOKE {right} ON DATABASE {database} FROM {name}")));
        }
    }
    for (grantee, right) in wanted {
        if !present.contains(&((*grantee).to_owned(), (*right).to_owned())) {
            steps.push(Step::new(format!("GRANT {right} ON DATABASE {database} TO {}", quote_ident(grantee))));
        }
    }
}

/// Closes the databases that every server has and that list everybody's names, and the control
/// database, as far as we may.
fn maintenance_steps(steps: &mut Vec<Step>, desired: &DesiredServer, state: &ServerState, ours: &BTreeSet<&str>) {
    let fixed = ["postgres", "template1"].into_iter().chain(desired.control.as_deref());
    for name in fixed {
        let Some(found) = state.databases.get(name) else { continue };
        if !state.superuser && found.owner != state.admin {
            continue;
        }
        let mut wanted = BTreeSet::new();
        if !state.superuser {
            // What we take from PUBLIC we would take from ourselves.
            wanted.insert((state.admin.as_str(), "CONNECT"));
        }
        if Some(name) == desired.control.as_deref() {
            wanted.extend(desired.readers.iter().map(|role| (role.as_str(), "CONNECT")));
        }
        rights(
            steps,
            &quote_ident(name),
            &wanted,
            Some(&found.acl),
            |grantee| grantee.is_empty() || ours.contains(grantee),
            &found.owner,
        );
    }
}

/// Returns the steps inside one database.
///
/// `with_meta`: see [`owns_meta`]; `others` are the roles of other services.
pub fn content_steps(
    database: &DesiredDatabase,
    state: &ContentState,
    with_meta: bool,
    others: &BTreeSet<String>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut push = |sql: String| steps.push(Step::inside(&database.name, sql));
    let roles = &database.roles;
    let (owner, app, readonly) = (quote_ident(&roles.owner), quote_ident(&roles.app), quote_ident(&roles.readonly));

    let has = |schema: &str, grantee: &str, right: &str| {
        state.schemas.get(schema).is_some_and(|(schema_owner, acl)| {
            schema_owner == grantee || acl.contains(&(grantee.to_owned(), right.to_owned()))
        })
    };
    if !state.schemas.contains_key("pgfleet") {
        let owner = if with_meta { format!(" AUTHORIZATION {}", quote_ident(META)) } else { String::new() };
        push(format!("CREATE SCHEMA pgfleet{owner}"));
    }
    for (grantee, right) in
        [(&roles.owner, "USAGE"), (&roles.owner, "CREATE"), (&roles.app, "USAGE"), (&roles.readonly, "USAGE")]
    {
        if !has("pgfleet", grantee, right) {
            push(format!("GRANT {right} ON SCHEMA pgfleet TO {}", quote_ident(grantee)));
        }
    }
    let schema = quote_ident(&database.schema);
    if !state.schemas.contains_key(&database.schema) {
        push(format!("CREATE SCHEMA {schema} AUTHORIZATION {owner}"));
    }
    if has("public", "", "CREATE") {
        push("REVOKE CREATE ON SCHEMA public FROM PUBLIC".to_owned());
    }
    // In `public` the database's owner may create through pg_database_owner; the schema may be an
    // older one that belongs to somebody else.
    for (grantee, right) in
        [(&roles.owner, "USAGE"), (&roles.owner, "CREATE"), (&roles.app, "USAGE"), (&roles.readonly, "USAGE")]
    {
        if !has(&database.schema, grantee, right) && state.schemas.contains_key(&database.schema)
            || !state.schemas.contains_key(&database.schema) && *grantee != roles.owner
        {
            push(format!("GRANT {right} ON SCHEMA {schema} TO {}", quote_ident(grantee)));
        }
    }
    default_steps(&mut push, database, state, &app, &readonly);
    for extension in &database.extensions {
        if !state.extensions.contains(extension) {
            push(format!("CREATE EXTENSION IF NOT EXISTS {}", quote_ident(extension)));
        }
    }
    for (_, schema, grantee, kind) in &state.lacking {
        let rights = match (kind.as_str(), *grantee == roles.readonly) {
            ("SEQUENCES", false) => "USAGE, SELECT",
            (_, false) => "SELECT, INSERT, UPDATE, DELETE",
            (_, true) => "SELECT",
        };
        push(format!("GRANT {rights} ON ALL {kind} IN SCHEMA {} TO {}", quote_ident(schema), quote_ident(grantee)));
        // Who may write a history can forge it.
        let of_schema = state.histories.iter().filter(|(place, _)| place == schema && kind == "TABLES");
        for (_, table) in of_schema.filter(|_| rights.contains("INSERT")) {
            let table = quote_qualified(schema, table);
            push(format!("REVOKE INSERT, UPDATE, DELETE ON {table} FROM {}", quote_ident(grantee)));
        }
    }
    steps.extend(guest_steps(database, state, others));
    steps
}

/// Rights on what later migrations make, for the owner: they must not depend on who runs them.
fn default_steps(
    push: &mut impl FnMut(String),
    database: &DesiredDatabase,
    state: &ContentState,
    app: &str,
    readonly: &str,
) {
    let roles = &database.roles;
    let kinds: [(&str, &str, &[&str], &[&str]); 3] = [
        ("r", "TABLES", &["SELECT", "INSERT", "UPDATE", "DELETE"], &["SELECT"]),
        ("S", "SEQUENCES", &["USAGE", "SELECT"], &["SELECT"]),
        ("n", "SCHEMAS", &["USAGE"], &["USAGE"]),
    ];
    for (letter, kind, for_app, for_readonly) in kinds {
        for (name, quoted, rights) in [(&roles.app, app, for_app), (&roles.readonly, readonly, for_readonly)] {
            let complete = rights.iter().all(|right| {
                state.defaults.contains(&(
                    roles.owner.clone(),
                    String::new(),
                    letter.to_owned(),
                    name.clone(),
                    (*right).to_owned(),
                ))
            });
            if !complete {
                push(format!(
                    "ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT {} ON {kind} TO {quoted}",
                    quote_ident(&roles.owner),
                    rights.join(", ")
                ));
            }
        }
    }
}
