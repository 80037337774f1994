//! `tenant list`, `tenant show` and `tenant templates`.

use std::collections::BTreeMap;

use pgfleet_control::tenants::Tenant;

use super::same;
use crate::args::TenantList;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{Talk, counted};

pub(super) async fn list(context: &Context, arguments: &TenantList) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    if let Some(server) = &arguments.server
        && !solution.manifest.servers.contains_key(server)
    {
        let names: Vec<&str> = solution.manifest.servers.keys().map(String::as_str).collect();
        return Err(CommandError::new(Exit::Usage, format!("there is no server `{server}` in the manifest"))
            .hinted(format!("there are: {}", names.join(", "))));
    }
    let mut tenants = solution.tenants().await?;
    let all = tenants.len();
    tenants.retain(|tenant| {
        let state = arguments.state.is_empty() || arguments.state.iter().any(|word| word == tenant.state.word());
        let server = arguments.server.as_ref();
        state && server.is_none_or(|server| tenant.databases.iter().any(|own| own.server == *server))
    });
    if context.talk.json {
        context.talk.json(&tenants)?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["tenant", "state", "server", "databases", "versions"]);
    for tenant in &tenants {
        table.add_row([&tenant.name, tenant.state.word(), &servers(tenant), &databases(tenant), &versions(tenant)]);
    }
    context.talk.print_table(&table);
    context.talk.say(&match tenants.len() {
        shown if shown < all => format!("{} of {}", shown, counted(all, "tenant")),
        _ => counted(all, "tenant"),
    });
    Ok(Exit::Done)
}

/// Names the servers on which a tenant's own databases are.
fn servers(tenant: &Tenant) -> String {
    let mut names: Vec<&str> = tenant.databases.iter().map(|own| own.server.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

/// Names a tenant's databases: those that were made for it, and where strings that were given lead.
fn databases(tenant: &Tenant) -> String {
    let own = tenant.databases.iter().map(|own| match own.state.as_str() {
        "open" => own.database.clone(),
        state => format!("{} ({state})", own.database),
    });
    let given = tenant.strings.iter().filter(|string| string.server.is_empty()).map(|string| string.shown.clone());
    let all: Vec<String> = own.chain(given).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

/// Counts how the services stand in a tenant's databases: `4 current, 1 behind`.
fn versions(tenant: &Tenant) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for standing in &tenant.standings {
        *counts.entry(standing.state.word()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    // The usual first, then what is to be seen.
    counts.sort_by_key(|(word, _)| (*word != "current", *word));
    let texts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

pub(super) async fn show(context: &Context, name: &str) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let tenant = solution.tenant(name).await?;
    if context.talk.json {
        context.talk.json(&tenant)?;
        return Ok(Exit::Done);
    }
    context.talk.data(&format!("{}: {}, made {}", tenant.name, tenant.state.word(), tenant.created_at));
    if tenant.display_name != tenant.name {
        context.talk.data(&format!("called {}", tenant.display_name));
    }
    if let Some(error) = &tenant.error {
        context.talk.data(&format!("failed ({}): {error}", counted(tenant.attempts as usize, "attempt")));
    }
    if !tenant.properties.is_empty() {
        context.talk.data(&format!("seed properties: {}", tenant.properties.join(", ")));
    }
    if tenant.strings.is_empty() && tenant.databases.is_empty() {
        context.talk.data("no string of its own: it lives in the services' own databases");
        return Ok(Exit::Done);
    }
    show_databases(context, &tenant);
    show_strings(context, &tenant);
    show_standings(context, &tenant);
    Ok(Exit::Done)
}

fn show_databases(context: &Context, tenant: &Tenant) {
    if tenant.databases.is_empty() {
        return;
    }
    let mut table = Talk::table(&["database", "server", "state", "services", "dropped after"]);
    for own in &tenant.databases {
        let dropped = own.drop_after.as_deref().unwrap_or("-");
        table.add_row([&own.database, &own.server, &own.state, &own.services.join(", "), dropped]);
    }
    context.talk.print_table(&table);
}

fn show_strings(context: &Context, tenant: &Tenant) {
    if tenant.strings.is_empty() {
        return;
    }
    let mut table = Talk::table(&["for", "string", "database", "server", "seen", "read by"]);
    for string in &tenant.strings {
        let physical = string.physical.as_ref();
        table.add_row([
            if string.connection.is_empty() { "(default)" } else { &string.connection },
            &string.shown,
            &physical.map_or("-".to_owned(), |physical| format!("{} (oid {})", physical.database, physical.oid)),
            &physical.map_or("-".to_owned(), |physical| version(physical.server_version)),
            string.checked_at.as_deref().unwrap_or("never"),
            &if string.readers.is_empty() { "nobody".to_owned() } else { string.readers.join(", ") },
        ]);
    }
    context.talk.print_table(&table);
    for string in &tenant.strings {
        if let Some(line) = same(tenant, string) {
            context.talk.data(&line);
        }
    }
}

fn show_standings(context: &Context, tenant: &Tenant) {
    if tenant.standings.is_empty() {
        return;
    }
    let mut table = Talk::table(&["service", "database", "version", "state", "error"]);
    for standing in &tenant.standings {
        table.add_row([
            &standing.service,
            &standing.database,
            standing.version.as_deref().unwrap_or("-"),
            standing.state.word(),
            standing.error.as_deref().unwrap_or("-"),
        ]);
    }
    context.talk.print_table(&table);
}

pub(super) async fn templates(context: &Context) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let templates = solution.templates().await?;
    if context.talk.json {
        context.talk.json(&templates)?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["server", "for", "database", "size", "versions", "state", "made"]);
    for template in &templates {
        let versions = template.versions.as_object().into_iter().flatten();
        let versions: Vec<String> =
            versions.map(|(service, version)| format!("{service} {}", version.as_str().unwrap_or("-"))).collect();
        let state = match template.current {
            Some(true) => "current",
            Some(false) => "behind",
            None => "unknown",
        };
        table.add_row([
            &template.server,
            &template.services.join(", "),
            &template.database,
            &size(template.bytes),
            &versions.join(", "),
            state,
            &template.made_at,
        ]);
    }
    context.talk.print_table(&table);
    context.talk.say(&counted(templates.len(), "template"));
    Ok(Exit::Done)
}

/// Renders a number of bytes.
fn size(bytes: i64) -> String {
    let megabytes = u64::try_from(bytes).unwrap_or_default() / 100_000;
    format!("{}.{} MB", megabytes / 10, megabytes % 10)
}

/// Renders a server's version: 150018 is 15.18.
fn version(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_written_as_the_server_does() {
        assert_eq!((version(150_018), version(180_001)), ("15.18".to_owned(), "18.1".to_owned()));
    }

    #[test]
    fn a_size_is_rounded_down_to_a_tenth() {
        assert_eq!(
            (size(9_449_000), size(0), size(1_250_000_000)),
            ("9.4 MB".into(), "0.0 MB".into(), "1250.0 MB".into())
        );
    }
}
