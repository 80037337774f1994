//! Retention policies.

use pgfleet_control::events::PolicyShown;
use pgfleet_events::{ConfigStore, Retention, RetentionPolicy};

use super::MODULE;
use super::configure::{keeps, laid_over, limits};
use crate::args::StreamRetention;
use crate::commands::events::{database, told};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::Talk;

pub(super) async fn run(context: &Context, arguments: StreamRetention) -> Result<Exit, CommandError> {
    let store = database(context, MODULE, &arguments.place).await?.store();
    if arguments.run {
        context.talk.confirm("remove what policies and configurations say")?;
        let removed = store.apply_retention().await.map_err(|error| told(&error))?;
        if context.talk.json {
            let document = serde_json::json!({ "streams": removed.streams, "events": removed.events });
            context.talk.json(&document)?;
        } else {
            context.talk.data(&format!("removed: {} events of {} streams", removed.events, removed.streams));
        }
        return Ok(Exit::Done);
    }
    let policies = store.policies().await.map_err(|error| told(&error))?;
    let Some(name) = &arguments.policy else {
        if keeps(&arguments.keeping) {
            return Err(CommandError::new(Exit::Usage, "no policy is named"));
        }
        return print(context, &policies);
    };
    let known = policies.iter().find(|policy| *policy.name == **name);
    if arguments.remove {
        context.talk.confirm(&format!("remove policy {name}"))?;
        if !store.remove_policy(name).await.map_err(|error| told(&error))? {
            return Err(CommandError::new(Exit::Failed, format!("there is no policy {name}")));
        }
        return Ok(Exit::Done);
    }
    let changes = keeps(&arguments.keeping) || arguments.streams.is_some() || arguments.enabled.is_some();
    let policy = match (known, &arguments.streams) {
        (Some(known), _) if !changes => known.clone(),
        (None, None) => {
            return Err(CommandError::new(Exit::Usage, format!("there is no policy {name}"))
                .hinted("make it: --streams 'order-*' --max-age 90d"));
        }
        (known, streams) => {
            let policy = RetentionPolicy {
                name: name.as_str().into(),
                streams: match (streams, known) {
                    (Some(streams), _) => streams.as_str().into(),
                    (None, known) => known.map(|known| known.streams.clone()).unwrap_or_default(),
                },
                retention: laid_over(&arguments.keeping, known.map_or(Retention::default(), |known| known.retention)),
                enabled: arguments.enabled.or(known.map(|known| known.enabled)).unwrap_or(true),
            };
            store.set_policy(&policy).await.map_err(|error| told(&error))?;
            policy
        }
    };
    print(context, &[policy])
}

fn print(context: &Context, policies: &[RetentionPolicy]) -> Result<Exit, CommandError> {
    let shown: Vec<PolicyShown> = policies.iter().map(PolicyShown::from).collect();
    if context.talk.json {
        context.talk.json(&shown)?;
        return Ok(Exit::Done);
    }
    let mut table = Talk::table(&["policy", "streams", "settings", "state"]);
    for policy in shown {
        let kept = &policy.retention;
        table.add_row([
            policy.name,
            policy.streams,
            limits(kept.max_age_ms, kept.max_count, kept.max_bytes),
            if policy.enabled { "in force" } else { "off" }.to_owned(),
        ]);
    }
    context.talk.print_table(&table);
    Ok(Exit::Done)
}
