//! `pgfleet tenant`: who the tenants are, and where their data is.

use std::collections::BTreeSet;
use std::io::BufRead as _;

use pgfleet_control::connections;
use pgfleet_control::tenants::{Choices, Done, NewString, Tenant, TenantString, string_name};
use pgfleet_postgres::Address;
use secrecy::SecretString;

use crate::args::{SetConnection, StringChoices, TenantCreate, TenantVerb};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{Talk, counted};

pub(crate) async fn run(context: &Context, verb: TenantVerb) -> Result<Exit, CommandError> {
    match verb {
        TenantVerb::Create(arguments) => create(context, arguments).await,
        TenantVerb::List => list(context).await,
        TenantVerb::Show { tenant } => show(context, &tenant).await,
        TenantVerb::SetConnection(arguments) => set(context, arguments).await,
        TenantVerb::Disable { tenant } => enable(context, &tenant, false).await,
        TenantVerb::Enable { tenant } => enable(context, &tenant, true).await,
    }
}

async fn create(context: &Context, arguments: TenantCreate) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let names = connections::names(&solution.manifest);
    let mut strings = Vec::with_capacity(arguments.connection.len());
    for given in &arguments.connection {
        let (connection, text) = split(given, &names);
        strings.push(NewString { connection: connection.to_owned(), text: secret(context, text)? });
    }
    let done = solution
        .create_tenant(
            &arguments.tenant,
            arguments.display_name.as_deref(),
            &strings,
            choices(&arguments.how),
            &context.talk.listener(),
        )
        .await?;
    let tenant = &done.tenant;
    let place = match tenant.strings.len() {
        0 => "in the services' own databases".to_owned(),
        _ => format!("with {}", counted(tenant.strings.len(), "connection string")),
    };
    report(context, &done, &format!("made tenant {} {place}", tenant.name))
}

async fn set(context: &Context, arguments: SetConnection) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let connection = arguments.service.unwrap_or_default();
    let tenant = &arguments.tenant;
    let name = string_name(&connection);
    let Some(given) = arguments.string.filter(|_| !arguments.unset) else {
        let done = solution.unset_connection(tenant, &connection).await?;
        let said = if done.changed { "was taken away" } else { "was not there: nothing to do" };
        return report(context, &done, &format!("tenant {tenant}: {name} {said}"));
    };
    let string = NewString { connection: connection.clone(), text: secret(context, &given)? };
    let done = solution.set_connection(tenant, string, choices(&arguments.how), &context.talk.listener()).await?;
    let shown = done.tenant.strings.iter().find(|string| string.connection == connection);
    let shown = shown.map(|string| string.shown.as_str()).unwrap_or_default();
    let said = if done.changed { "is now" } else { "is still" };
    report(context, &done, &format!("tenant {tenant}: {name} {said} {shown}"))
}

async fn enable(context: &Context, tenant: &str, enabled: bool) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let done = solution.enable_tenant(tenant, enabled).await?;
    let word = done.tenant.state.word();
    let said = if done.changed { format!("is {word} now") } else { format!("is {word} already: nothing to do") };
    report(context, &done, &format!("tenant {tenant} {said}"))
}

async fn list(context: &Context) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let tenants = solution.tenants().await?;
    if context.talk.json {
        context.talk.json(&tenants)?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["tenant", "state", "default database", "strings of their own"]);
    for tenant in &tenants {
        let default = tenant.strings.iter().find(|string| string.connection.is_empty());
        let own = tenant.strings.iter().filter(|string| !string.connection.is_empty());
        let own: Vec<&str> = own.map(|string| string.connection.as_str()).collect();
        let own = if own.is_empty() { "-".to_owned() } else { own.join(", ") };
        table.add_row([
            tenant.name.as_str(),
            tenant.state.word(),
            default.map_or("-", |string| string.shown.as_str()),
            &own,
        ]);
    }
    context.talk.print_table(&table);
    context.talk.say(&counted(tenants.len(), "tenant"));
    Ok(Exit::Done)
}

async fn show(context: &Context, name: &str) -> Result<Exit, CommandError> {
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
    if tenant.strings.is_empty() {
        context.talk.data("no string of its own: it lives in the services' own databases");
        return Ok(Exit::Done);
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
        if let Some(line) = same(&tenant, string) {
            context.talk.data(&line);
        }
    }
    Ok(Exit::Done)
}

/// Says which other strings lead where this one does.
fn same(tenant: &Tenant, string: &TenantString) -> Option<String> {
    let others: Vec<String> = string
        .same_as
        .iter()
        .map(|other| match (other.tenant == tenant.name, other.connection.is_empty()) {
            (true, _) => string_name(&other.connection),
            (false, true) => format!("tenant {}", other.tenant),
            (false, false) => format!("tenant {} (for {})", other.tenant, other.connection),
        })
        .collect();
    let which = string_name(&string.connection);
    (!others.is_empty()).then(|| format!("{which} leads to the same database as {}", others.join(", ")))
}

fn report(context: &Context, done: &Done, said: &str) -> Result<Exit, CommandError> {
    for note in &done.notes {
        context.talk.note(note);
    }
    for string in &done.tenant.strings {
        if let Some(line) = same(&done.tenant, string).filter(|_| done.changed) {
            context.talk.note(&line);
        }
    }
    if context.talk.json {
        context.talk.json(&done.tenant)?;
    } else {
        context.talk.say(said);
    }
    Ok(Exit::Done)
}

fn choices(given: &StringChoices) -> Choices {
    Choices { check: !given.no_check, shared: given.shared }
}

/// Splits `NAME=STRING`, where the name is that of a service or connection, from a string alone.
///
/// A string may be `user=app dbname=acme` where a service is called `user`. So what is behind the `=`
/// decides, too: it must look like a string itself.
fn split<'a>(given: &'a str, names: &BTreeSet<&str>) -> (&'a str, &'a str) {
    match given.split_once('=') {
        Some((name, text)) if is_url(text) && !is_url(name) => (name, text),
        Some((name, text)) if names.contains(name) && looks_like_a_string(text) => (name, text),
        _ => ("", given),
    }
}

fn is_url(text: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
}

fn looks_like_a_string(text: &str) -> bool {
    let first = text.split(|c: char| c.is_whitespace() || c == ';').next().unwrap_or_default();
    text == "-" || text.starts_with('@') || first.contains('=')
}

/// Takes a string from the arguments, from the next line of standard input, or from a file.
fn secret(context: &Context, given: &str) -> Result<SecretString, CommandError> {
    let text = if given == "-" {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(|error| {
            CommandError::new(Exit::Usage, "cannot read the connection string from standard input")
                .cause(error.to_string())
        })?;
        line
    } else if let Some(path) = given.strip_prefix('@') {
        std::fs::read_to_string(path).map_err(|error| {
            CommandError::new(Exit::Usage, format!("cannot read the connection string from {path}"))
                .cause(error.to_string())
        })?
    } else {
        // A password file is named in the arguments, its content is not.
        let shows = Address::parse(given).is_ok_and(|address| address.password().is_some());
        if shows && !given.contains("passfile=") {
            context.talk.note(
                "others on this machine can see the password in the arguments; `-` takes the string from standard \
                 input, @FILE from a file",
            );
        }
        given.to_owned()
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(CommandError::new(Exit::Usage, "the connection string is empty")
            .hinted("write postgresql://host/database, or dbname=DATABASE"));
    }
    Ok(text.to_owned().into())
}

/// Renders a server's version: 150018 is 15.18.
fn version(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_before_a_string_is_told_from_a_string() {
        let names = BTreeSet::from(["user", "trip", "AbpIdentity"]);
        for (given, name, text) in [
            ("dbname=acme", "", "dbname=acme"),
            ("postgresql://db/acme?user=app", "", "postgresql://db/acme?user=app"),
            ("user=app dbname=acme", "", "user=app dbname=acme"),
            ("user=dbname=acme", "user", "dbname=acme"),
            ("trip=postgresql://db/acme", "trip", "postgresql://db/acme"),
            ("tirp=postgresql://db/acme", "tirp", "postgresql://db/acme"),
            ("AbpIdentity=-", "AbpIdentity", "-"),
            ("trip=@acme.url", "trip", "@acme.url"),
            ("Host=db;Database=acme", "", "Host=db;Database=acme"),
            ("trip=Host=db;Database=acme", "trip", "Host=db;Database=acme"),
            ("-", "", "-"),
        ] {
            assert_eq!(split(given, &names), (name, text), "{given}");
        }
    }

    #[test]
    fn a_version_is_written_as_the_server_does() {
        assert_eq!((version(150_018), version(180_001)), ("15.18".to_owned(), "18.1".to_owned()));
    }
}
