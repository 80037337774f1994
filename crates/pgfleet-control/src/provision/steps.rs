//! The statements between what is and what should be. Pure: nothing here talks to a server.

use std::collections::BTreeSet;

use pgfleet_postgres::{quote_ident, quote_literal};

use super::desired::{DesiredDatabase, DesiredServer};
use super::state::{ContentState, RoleState, ServerState};
use crate::roles::{Login, META};

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
    fn new(sql: impl Into<String>) -> Self {
        Self { database: None, sql: sql.into(), password_of: None }
    }

    fn inside(database: &str, sql: impl Into<String>) -> Self {
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
    for database in &desired.databases {
        let mark = desired.mark(&database.service);
        let foreign = |comment: &str| comment.starts_with("pgfleet: ") && comment != mark;
        let roles = &database.roles;
        for role in [&roles.owner, &roles.migrator, &roles.app, &roles.readonly] {
            if let Some(found) = state.roles.get(role)
                && foreign(&found.comment)
            {
                conflicts.push(Conflict {
                    message: format!("role {role} on server {} is taken: {}", desired.server, found.comment),
                    hint: "two solutions cannot have a service of one name on one server: rename the service, or give \
                           one of them a server of its own"
                        .to_owned(),
                });
            }
        }
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

/// Rights over the server's files, programs or all data that no role of a service may inherit.
const DANGEROUS: [&str; 7] = [
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
    "pg_maintain",
    "pg_create_subscription",
];

/// Returns the steps for roles and databases, in order.
///
/// `resets` names login roles whose password does not work and must be set again.
pub fn server_steps(desired: &DesiredServer, state: &ServerState, resets: &BTreeSet<String>) -> Vec<Step> {
    let mut steps = Vec::new();
    if !state.roles.contains_key(META) {
        steps.push(Step::new(format!("CREATE ROLE {} NOLOGIN", quote_ident(META))));
    }
    let ours: BTreeSet<&str> = desired
        .databases
        .iter()
        .flat_map(|d| [&d.roles.owner, &d.roles.migrator, &d.roles.app, &d.roles.readonly])
        .map(String::as_str)
        .collect();
    for database in &desired.databases {
        role_steps(&mut steps, desired, database, state, resets, &ours);
    }
    if !state.superuser {
        // Without it we could not give databases to the owners, nor change what they own. A role
        // that exists and that we may not grant ourselves is somebody else's: see `owns_meta`.
        let options = if state.version >= 160_000 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        for group in desired.databases.iter().map(|d| d.roles.owner.as_str()).chain([META]) {
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
        database_steps(&mut steps, desired, database, state, &ours);
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

fn role_steps(
    steps: &mut Vec<Step>,
    desired: &DesiredServer,
    database: &DesiredDatabase,
    state: &ServerState,
    resets: &BTreeSet<String>,
    ours: &BTreeSet<&str>,
) {
    let mark = desired.mark(&database.service);
    let roles = &database.roles;
    let all = [(&roles.owner, false), (&roles.migrator, true), (&roles.app, true), (&roles.readonly, true)];
    for (role, login) in all {
        let quoted = quote_ident(role);
        let word = if login { "LOGIN" } else { "NOLOGIN" };
        let present = state.roles.get(role);
        match present {
            None => {
                let password = if login { " PASSWORD :password" } else { "" };
                let mut step = Step::new(format!("CREATE ROLE {quoted} {word}{password}"));
                step.password_of = login.then(|| role.clone());
                steps.push(step);
            }
            Some(found) => {
                if login != found.login {
                    steps.push(Step::new(format!("ALTER ROLE {quoted} {word}")));
                }
                // Taking these back is a superuser's right; `isolation verify` names what we leave.
                let takes = |power: &str| state.superuser || matches!(power, "CREATEDB" | "CREATEROLE");
                for power in found.powers.iter().filter(|power| takes(power)) {
                    steps.push(Step::new(format!("ALTER ROLE {quoted} NO{power}")));
                }
                if login && resets.contains(role) {
                    let mut step = Step::new(format!("ALTER ROLE {quoted} PASSWORD :password"));
                    step.password_of = Some(role.clone());
                    steps.push(step);
                }
            }
        }
        if present.is_none_or(|found: &RoleState| found.comment != mark) {
            steps.push(Step::new(format!("COMMENT ON ROLE {quoted} IS {}", quote_literal(&mark))));
        }
        for ((member, group), grantors) in state.memberships.iter().filter(|((member, _), _)| member == role) {
            let wanted = *member == roles.migrator && *group == roles.owner;
            let ours = ours.contains(group.as_str()) || group == META;
            let dangerous = DANGEROUS.contains(&group.as_str()) && (state.superuser || state.version < 160_000);
            if !wanted && (ours || dangerous) {
                revoke_membership(steps, state, member, group, grantors);
            }
        }
    }
    if !state.memberships.contains_key(&(roles.migrator.clone(), roles.owner.clone())) {
        let (owner, migrator) = (quote_ident(&roles.owner), quote_ident(&roles.migrator));
        steps.push(Step::new(format!("GRANT {owner} TO {migrator}")));
    }
    setting(steps, state, &roles.readonly, None, "default_transaction_read_only", "on");
}

/// Takes a role out of a group.
///
/// From 16 on each grant has to be taken back in the name of who gave it, and only a superuser may
/// do that for others; what stays is named by `isolation verify`.
fn revoke_membership(steps: &mut Vec<Step>, state: &ServerState, member: &str, group: &str, grantors: &[String]) {
    let sql = format!("REVOKE {} FROM {}", quote_ident(group), quote_ident(member));
    if state.version < 160_000 {
        steps.push(Step::new(sql));
        return;
    }
    for grantor in grantors.iter().filter(|grantor| state.superuser || **grantor == state.admin) {
        steps.push(Step::new(format!("{sql} GRANTED BY {}", quote_ident(grantor))));
    }
}

/// Sets a role's setting, everywhere or in one database, when it is not there.
fn setting(steps: &mut Vec<Step>, state: &ServerState, role: &str, database: Option<&str>, name: &str, value: &str) {
    let key = (role.to_owned(), database.unwrap_or_default().to_owned());
    let wanted = format!("{name}={value}");
    if state.settings.get(&key).is_some_and(|entries| entries.contains(&wanted)) {
        return;
    }
    let place = database.map(|database| format!(" IN DATABASE {}", quote_ident(database))).unwrap_or_default();
    // A list of schemas must not be quoted as one literal.
    let text = if name == "search_path" { value.to_owned() } else { quote_literal(value) };
    steps.push(Step::new(format!("ALTER ROLE {}{place} SET {name} = {text}", quote_ident(role))));
}

fn database_steps(
    steps: &mut Vec<Step>,
    desired: &DesiredServer,
    database: &DesiredDatabase,
    state: &ServerState,
    ours: &BTreeSet<&str>,
) {
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
    let mut wanted: BTreeSet<(&str, &str)> = BTreeSet::new();
    for role in [&database.roles.migrator, &database.roles.app] {
        wanted.extend([(role.as_str(), "CONNECT"), (role.as_str(), "TEMPORARY")]);
    }
    wanted.insert((&database.roles.readonly, "CONNECT"));
    wanted.extend(database.guests.iter().map(|guest| (guest.role.as_str(), "CONNECT")));
    rights(
        steps,
        &name,
        &wanted,
        present.map(|found| &found.acl),
        |grantee| grantee.is_empty() || ours.contains(grantee),
        &database.roles.owner,
    );
    if present.is_none_or(|found| !found.open) {
        steps.push(Step::new(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")));
    }
    setting(steps, state, &database.roles.migrator, Some(&database.name), "role", &database.roles.owner);
    if database.schema != "public" {
        let path = format!("{}, public", quote_ident(&database.schema));
        for login in Login::ALL {
            setting(steps, state, database.roles.login(login), Some(&database.name), "search_path", &path);
        }
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
/// `with_meta`: see [`owns_meta`].
pub fn content_steps(database: &DesiredDatabase, state: &ContentState, with_meta: bool) -> Vec<Step> {
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
        let rights = match (kind.as_str(), *grantee == roles.app) {
            ("SEQUENCES", true) => "USAGE, SELECT",
            (_, true) => "SELECT, INSERT, UPDATE, DELETE",
            (_, false) => "SELECT",
        };
        push(format!("GRANT {rights} ON ALL {kind} IN SCHEMA {} TO {}", quote_ident(schema), quote_ident(grantee)));
    }
    for guest in &database.guests {
        let (role, module) = (quote_ident(&guest.role), quote_ident(&guest.module));
        if !state.schemas.contains_key(&guest.module) {
            push(format!("CREATE SCHEMA {module} AUTHORIZATION {owner}"));
        }
        if !has(&guest.module, &guest.role, "USAGE") {
            push(format!("GRANT USAGE ON SCHEMA {module} TO {role}"));
            push(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {module} TO {role}"));
            push(format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {module} \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}"
            ));
        }
    }
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
