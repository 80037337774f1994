//! The statements for declared access: what a guest may do in a module's schema, and nothing else.

use std::collections::BTreeSet;

use pgfleet_postgres::quote_ident;

use super::desired::DesiredDatabase;
use super::state::ContentState;
use super::steps::Step;

/// What a guest may do with a kind of thing: the letter in the catalog, the word, the rights.
const KINDS: [(&str, &str, &[&str]); 2] =
    [("r", "TABLES", &["SELECT", "INSERT", "UPDATE", "DELETE"]), ("S", "SEQUENCES", &["USAGE", "SELECT"])];

/// Returns the steps inside one database that let guests in, and take back what others have.
///
/// `others` are the roles of other services: only their rights are decided about.
pub(super) fn guest_steps(database: &DesiredDatabase, state: &ContentState, others: &BTreeSet<String>) -> Vec<Step> {
    let mut steps = Vec::new();
    take_back(&mut steps, database, state, others);
    let owner = quote_ident(&database.roles.owner);
    let mut made = BTreeSet::new();
    for guest in &database.guests {
        let (role, schema) = (quote_ident(&guest.role), quote_ident(&guest.schema));
        let mut push = |sql: String| steps.push(Step::inside(&database.name, sql));
        let present = state.schemas.get(&guest.schema);
        if present.is_none() && made.insert(&guest.schema) {
            push(format!("CREATE SCHEMA {schema} AUTHORIZATION {owner}"));
        }
        if !present.is_some_and(|(_, acl)| acl.contains(&(guest.role.clone(), "USAGE".to_owned()))) {
            push(format!("GRANT USAGE ON SCHEMA {schema} TO {role}"));
        }
        for (letter, kind, rights) in KINDS {
            let default = |right: &&str| {
                state.defaults.contains(&(
                    database.roles.owner.clone(),
                    guest.schema.clone(),
                    letter.to_owned(),
                    guest.role.clone(),
                    (**right).to_owned(),
                ))
            };
            if !rights.iter().all(default) {
                push(format!(
                    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT {} ON {kind} TO {role}",
                    rights.join(", ")
                ));
            }
        }
    }
    steps
}

/// Takes back what was granted for a declaration that is gone, or behind our back.
fn take_back(steps: &mut Vec<Step>, database: &DesiredDatabase, state: &ContentState, others: &BTreeSet<String>) {
    let mut push = |sql: String| steps.push(Step::inside(&database.name, sql));
    let invited =
        |role: &str, schema: &str| database.guests.iter().any(|guest| guest.role == role && guest.schema == schema);
    for (owner, schema, letter, role, right) in &state.defaults {
        let allowed = KINDS.iter().any(|(own, _, rights)| own == letter && rights.contains(&right.as_str()));
        let kind = match letter.as_str() {
            "r" => "TABLES",
            "S" => "SEQUENCES",
            "f" => "FUNCTIONS",
            "T" => "TYPES",
            "n" => "SCHEMAS",
            _ => continue,
        };
        if others.contains(role) && !(allowed && invited(role, schema)) {
            let place = if schema.is_empty() { String::new() } else { format!(" IN SCHEMA {}", quote_ident(schema)) };
            push(format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {}{place} REVOKE {right} ON {kind} FROM {}",
                quote_ident(owner),
                quote_ident(role)
            ));
        }
    }
    let mut revoked = BTreeSet::new();
    for (schema, role, kind, right) in &state.strays {
        let allowed = KINDS.iter().any(|(_, own, rights)| own == kind && rights.contains(&right.as_str()));
        if !others.contains(role) || (allowed && invited(role, schema)) {
            continue;
        }
        // A guest keeps what it needs; everybody else loses all.
        let right = if invited(role, schema) { right.as_str() } else { "ALL" };
        if revoked.insert((schema, role, kind, right)) {
            let (schema, role) = (quote_ident(schema), quote_ident(role));
            push(format!("REVOKE {right} ON ALL {kind} IN SCHEMA {schema} FROM {role}"));
        }
    }
    for (schema, (_, acl)) in &state.schemas {
        for (role, right) in acl.iter().filter(|(role, _)| others.contains(role)) {
            if !(right == "USAGE" && invited(role, schema)) {
                push(format!("REVOKE {right} ON SCHEMA {} FROM {}", quote_ident(schema), quote_ident(role)));
            }
        }
    }
}
