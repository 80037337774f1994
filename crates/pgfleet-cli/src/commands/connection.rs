//! `pgfleet connection`: where connections go, why, and whether one gets in there.

use std::collections::BTreeMap;

use pgfleet_control::connections::{Explained, Tested, Visitor};
use pgfleet_control::tenants::string_name;
use secrecy::ExposeSecret as _;

use crate::args::ConnectionVerb;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{Talk, counted};

pub(crate) async fn run(context: &Context, verb: &ConnectionVerb) -> Result<Exit, CommandError> {
    match verb {
        ConnectionVerb::List { service } => list(context, service).await,
        ConnectionVerb::Explain { service, tenant, name } => {
            explain(context, service, tenant.as_deref(), name.as_deref()).await
        }
        ConnectionVerb::Test { service, tenant } => test(context, service, tenant).await,
        ConnectionVerb::Env { service, reveal } => env(context, service, *reveal).await,
    }
}

/// Prints what a service is started with: the only place where the program writes a secret, and only when asked to.
async fn env(context: &Context, service: &str, reveal: bool) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let service = solution.services(&[service.to_owned()])?[0];
    let variables: BTreeMap<String, String> = solution
        .environment(service)?
        .into_iter()
        .map(|(name, value)| (name, if reveal { value.expose_secret().to_owned() } else { "***".to_owned() }))
        .collect();
    if context.talk.json {
        context.talk.json(&variables)?;
        return Ok(Exit::Done);
    }
    for (name, value) in &variables {
        context.talk.data(&format!("{name}='{}'", value.replace('\'', "'\\''")));
    }
    if !reveal {
        context.talk.say("hint: --reveal prints the values, with passwords and keys");
    }
    Ok(Exit::Done)
}

async fn list(context: &Context, services: &[String]) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let all = solution.connections(services)?;
    if context.talk.json {
        context.talk.json(&all)?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["service", "connection", "leads to", "server", "database", "role", "tenants"]);
    for listed in &all {
        let leads = match listed.kind {
            "main" => "its own database".to_owned(),
            "mapped" => "its own database (mapped)".to_owned(),
            _ => format!("that of {} (uses)", listed.holder),
        };
        table.add_row([
            listed.service.as_str(),
            &listed.connection,
            &leads,
            &listed.address,
            &listed.database,
            &listed.role,
            if listed.tenants { "own" } else { "none" },
        ]);
    }
    context.talk.print_table(&table);
    Ok(Exit::Done)
}

async fn explain(
    context: &Context,
    service: &str,
    tenant: Option<&str>,
    name: Option<&str>,
) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let explained = solution.explain(service, tenant, name).await?;
    for note in &explained.notes {
        context.talk.note(note);
    }
    if context.talk.json {
        context.talk.json(&explained)?;
    } else {
        print(context, &explained);
    }
    Ok(Exit::Done)
}

fn print(context: &Context, explained: &Explained) {
    let mut table = Talk::table(&["rule", "looked for", "found"]);
    for step in &explained.steps {
        let found = match step.outcome {
            "won" => explained.address.as_str(),
            "missing" => "none",
            _ => "(not needed)",
        };
        table.add_row([step.rule, &step.looked_for, found]);
    }
    context.talk.print_table(&table);
    let physical = match &explained.physical {
        Some(physical) => {
            let (name, oid, system) = (&physical.database, physical.oid, &physical.system_identifier);
            format!("database {name} (oid {oid}) of system {system}")
        }
        None => "a database that nobody has looked at yet; see: pgfleet connection test".to_owned(),
    };
    context.talk.data(&format!("it is {physical}"));
    for visitor in &explained.also {
        context.talk.data(&format!("also there: {}", visitor_name(visitor)));
    }
}

fn visitor_name(visitor: &Visitor) -> String {
    match &visitor.tenant {
        Some(tenant) => format!("tenant {tenant}, by {}", string_name(&visitor.connection)),
        None => format!("{}, as its own", visitor.connection),
    }
}

async fn test(context: &Context, services: &[String], tenants: &[String]) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let all = solution.test_connections(services, tenants).await?;
    if context.talk.json {
        context.talk.json(&all)?;
    } else {
        print_tests(context, &all);
    }
    let bad: Vec<&Tested> = all.iter().filter(|tested| !tested.is_good()).collect();
    for tested in &bad {
        context.talk.error(&complaint(tested));
    }
    context.talk.say(&format!("{}, {} failed", counted(all.len(), "login"), bad.len()));
    Ok(if bad.is_empty() { Exit::Done } else { Exit::Failed })
}

fn print_tests(context: &Context, all: &[Tested]) {
    let mut table = Talk::table(&[
        "service",
        "tenant",
        "connection",
        "as",
        "address",
        "version",
        "tls",
        "login",
        "round trip",
        "result",
    ]);
    for tested in all {
        let milliseconds = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.1} ms"));
        let tls = match &tested.tls {
            None => "-",
            Some(tls) if tls.on => tls.protocol.as_deref().unwrap_or("on"),
            Some(_) => "off",
        };
        let result = match (&tested.error, tested.as_recorded) {
            (Some(_), Some(false)) => "another database",
            (Some(_), _) => "failed",
            (None, None) => "ok, none recorded",
            (None, _) => "ok",
        };
        table.add_row([
            tested.service.as_str(),
            tested.tenant.as_deref().unwrap_or("-"),
            if tested.connection.is_empty() { "(default)" } else { &tested.connection },
            tested.login,
            &tested.address,
            tested.version.as_deref().unwrap_or("-"),
            tls,
            &milliseconds(tested.login_ms),
            &milliseconds(tested.round_trip_ms),
            result,
        ]);
    }
    context.talk.print_table(&table);
}

fn complaint(tested: &Tested) -> CommandError {
    let tenant = tested.tenant.as_ref().map(|tenant| format!("/{tenant}")).unwrap_or_default();
    let name = if tested.connection.is_empty() { "the default string" } else { &tested.connection };
    let what = tested.error.as_deref().unwrap_or_default();
    let mut error =
        CommandError::new(Exit::Failed, format!("{}{tenant}, {name} as {}: {what}", tested.service, tested.login));
    for cause in &tested.causes {
        error = error.cause(cause);
    }
    match &tested.hint {
        Some(hint) => error.hinted(hint),
        None => error,
    }
}
