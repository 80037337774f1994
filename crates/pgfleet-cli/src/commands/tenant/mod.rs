//! `pgfleet tenant`: who the tenants are, and where their data is.

mod create;
mod given;
mod leave;
mod mend;
mod moving;
mod show;

use pgfleet_control::tenants::{Choices, Done, NewString, Tenant, TenantString, string_name};

use self::given::secret;
use crate::args::{SetConnection, StringChoices, TenantVerb};
use crate::context::Context;
use crate::error::{CommandError, Exit};

pub(crate) async fn run(context: &Context, verb: TenantVerb) -> Result<Exit, CommandError> {
    match verb {
        TenantVerb::Create(arguments) => create::run(context, arguments).await,
        TenantVerb::List(arguments) => show::list(context, &arguments).await,
        TenantVerb::Move(arguments) => moving::run(context, arguments).await,
        TenantVerb::Templates => show::templates(context).await,
        TenantVerb::Migrate(arguments) => leave::migrate(context, &arguments).await,
        TenantVerb::Delete(arguments) => leave::delete(context, &arguments).await,
        TenantVerb::Restore { tenant } => leave::restore(context, &tenant).await,
        TenantVerb::Mend(arguments) => mend::run(context, &arguments).await,
        TenantVerb::Show { tenant } => show::show(context, &tenant).await,
        TenantVerb::SetConnection(arguments) => set(context, arguments).await,
        TenantVerb::Disable { tenant } => enable(context, &tenant, false).await,
        TenantVerb::Enable { tenant } => enable(context, &tenant, true).await,
    }
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
