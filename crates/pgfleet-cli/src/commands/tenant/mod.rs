//! `pgfleet tenant`: who the tenants are, and where their data is.

mod create;
mod given;
mod leave;
mod mend;
mod moving;
mod show;

use pgfleet_control::chain::{ChainEvent, ChainListener, ChainOptions, Until};
use pgfleet_control::tenants::{Choices, Done, NewString, Tenant, TenantString, string_name};
use pgfleet_control::{ErrorKind, Solution};

use self::given::secret;
use crate::args::{SetConnection, StringChoices, TenantVerb};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::Talk;

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
    let (how, listener) = (choices(&arguments.how), context.talk.listener());
    let done = match solution.set_connection(tenant, string.clone(), how, &listener).await {
        // Stored unseen: it is made below, as for a string that nobody tried.
        Err(error) if error.kind() == ErrorKind::Missing && how.check && !arguments.no_make => {
            context.talk.say("the database does not exist: it is made");
            solution.set_connection(tenant, string, Choices { check: false, ..how }, &listener).await?
        }
        done => done?,
    };
    let shown = done.tenant.strings.iter().find(|string| string.connection == connection);
    let shown = shown.map(|string| string.shown.as_str()).unwrap_or_default();
    let said = if done.changed { "is now" } else { "is still" };
    let exit = report(context, &done, &format!("tenant {tenant}: {name} {said} {shown}"))?;
    if arguments.no_make || arguments.how.no_check {
        return Ok(exit);
    }
    Ok(exit.max(follow(context, &solution, tenant).await?))
}

/// Has what a string leads to made, migrated and seeded, by the message that the change has written.
async fn follow(context: &Context, solution: &Solution, tenant: &str) -> Result<Exit, CommandError> {
    let mut options = ChainOptions::of(solution, Until::Idle);
    options.surroundings = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    let told = Told(context.talk.clone());
    let listener = context.talk.listener();
    let run = solution.run_chain(&options, &context.stop, &told, &listener);
    Box::pin(run).await?;
    let failed = solution.failed_messages().await?;
    let Some(message) = failed.iter().find(|message| message.tenant() == Some(tenant)) else { return Ok(Exit::Done) };
    Err(CommandError::new(Exit::Failed, format!("cannot bring what the string of {tenant} leads to to the files"))
        .cause(message.error.clone())
        .hinted(format!("mend it, then: pgfleet tenant migrate {tenant}; no data was moved: pgfleet tenant move does")))
}

/// Says what became of messages.
struct Told(Talk);

impl ChainListener for Told {
    fn happened(&self, event: &ChainEvent<'_>) {
        self.0.say(&event.to_string());
    }
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
