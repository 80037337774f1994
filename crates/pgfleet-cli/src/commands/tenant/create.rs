//! `tenant create`: one tenant, or many at a time.

use std::sync::Arc;
use std::time::Instant;

use pgfleet_control::Error;
use pgfleet_control::connections;
use pgfleet_control::solution::Next;
use pgfleet_control::tenants::{Done, Home, NewString, NewTenant, Tenant};
use pgfleet_migrate::{Event, Observer};

use super::given::{properties, secret, split};
use super::{choices, report};
use crate::args::TenantCreate;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{Progress, counted, human};

pub(super) async fn run(context: &Context, arguments: TenantCreate) -> Result<Exit, CommandError> {
    let names = names(&arguments)?;
    let copies = arguments.connection.is_empty() && !arguments.no_database;
    let solution = context.open_for(if copies { Next::Copies } else { Next::Anything }).await?;
    let known = connections::names(&solution.manifest);
    let mut strings = Vec::with_capacity(arguments.connection.len());
    for given in &arguments.connection {
        let (connection, text) = split(given, &known);
        strings.push(NewString { connection: connection.to_owned(), text: secret(context, text)? });
    }
    let properties = properties(context, &arguments.property)?;
    let home = if !strings.is_empty() {
        Home::Given { strings, choices: choices(&arguments.how) }
    } else if arguments.no_database {
        Home::Shared
    } else {
        Home::Own { services: arguments.service.clone(), server: arguments.server.clone() }
    };
    let tenants: Vec<NewTenant> = names
        .into_iter()
        .map(|name| NewTenant {
            name,
            display_name: arguments.display_name.clone(),
            properties: properties.clone(),
            home: home.clone(),
        })
        .collect();
    let began = Instant::now();
    let making = Arc::new(Making { progress: context.talk.progress(tenants.len(), "making"), one: tenants.len() == 1 });
    let observer: Arc<dyn Observer> = making.clone();
    let orderly = context.orderly();
    let each = |_: usize, _: &Result<Done, Error>| making.progress.step();
    let made = solution.create_tenants(&tenants, arguments.concurrency as usize, &observer, &each).await;
    drop(orderly);
    making.progress.finish();
    let mut made = made?;
    if let [_] = &made[..]
        && let Some(one) = made.pop()
    {
        let done = one?;
        let said = format!("made tenant {} {} ({})", done.tenant.name, place(&done.tenant), human(began.elapsed()));
        return report(context, &done, &said);
    }
    summary(context, &tenants, &made, began)
}

/// Shows the work on tenants; of many at a time only what is out of the ordinary.
struct Making {
    progress: Progress,
    one: bool,
}

impl Observer for Making {
    fn event(&self, target: &str, event: &Event) {
        if self.one || !matches!(event, Event::Planned { .. } | Event::Started { .. } | Event::Done { .. }) {
            self.progress.event(target, event);
        }
    }
}

/// Returns the tenants that are named in the arguments and in the file, each once.
fn names(arguments: &TenantCreate) -> Result<Vec<String>, CommandError> {
    let mut names = arguments.tenant.clone();
    if let Some(path) = &arguments.from {
        let text = if path.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(path)
        };
        let text = text.map_err(|error| {
            CommandError::new(Exit::Usage, format!("cannot read the names in {}", path.display()))
                .cause(error.to_string())
        })?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        names.extend(lines.map(str::to_owned));
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let usage = |text: &str| Err(CommandError::new(Exit::Usage, text.to_owned()));
    match names.len() {
        0 => usage("no tenant is named"),
        1 => Ok(names),
        _ if arguments.display_name.is_some() => usage("--display-name is for one tenant"),
        _ if !arguments.connection.is_empty() && !arguments.how.shared => {
            usage("--connection leads several tenants into one database: say --shared, or make one after the other")
        }
        _ => Ok(names),
    }
}

/// Says where a tenant's data is.
fn place(tenant: &Tenant) -> String {
    let databases: Vec<&str> = tenant.databases.iter().map(|own| own.database.as_str()).collect();
    match (databases.is_empty(), tenant.strings.len()) {
        (false, _) => {
            let noun = if databases.len() == 1 { "database" } else { "databases" };
            format!("with {noun} {} on {}", databases.join(", "), tenant.databases[0].server)
        }
        (true, 0) => "in the services' own databases".to_owned(),
        (true, count) => format!("with {}", counted(count, "connection string")),
    }
}

fn summary(
    context: &Context,
    tenants: &[NewTenant],
    made: &[Result<Done, Error>],
    began: Instant,
) -> Result<Exit, CommandError> {
    let mut exit = Exit::Done;
    let mut documents = Vec::with_capacity(made.len());
    for (asked, result) in tenants.iter().zip(made) {
        match result {
            Ok(done) => {
                for note in &done.notes {
                    context.talk.note(&format!("{}: {note}", asked.name));
                }
                documents.push(serde_json::json!(done.tenant));
            }
            Err(error) => {
                let own = CommandError::from(error).about(&asked.name);
                documents.push(serde_json::json!({
                    "name": asked.name, "error": error.to_string(), "causes": error.causes(), "hint": error.hint(),
                }));
                exit = exit.max(own.exit);
                context.talk.error(&own);
            }
        }
    }
    if context.talk.json {
        context.talk.json(&documents)?;
    }
    let failed = made.iter().filter(|result| result.is_err()).count();
    context.talk.say(&format!(
        "{}: {} made, {failed} failed ({})",
        counted(made.len(), "tenant"),
        made.len() - failed,
        human(began.elapsed())
    ));
    Ok(exit)
}
