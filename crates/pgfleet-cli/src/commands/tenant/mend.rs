//! `pgfleet tenant mend`: what is not as the control database says.

use pgfleet_control::tenants::Mending;

use crate::args::TenantMend;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::{Talk, counted};

pub(super) async fn run(context: &Context, arguments: &TenantMend) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    if arguments.drop {
        context.talk.confirm("drop databases that no tenant has")?;
    }
    let how =
        Mending { dry_run: arguments.dry_run, close: arguments.close, drop: arguments.drop, make: arguments.make };
    let findings = solution.mend_tenants(how, &context.talk.listener()).await?;
    let left = findings.iter().filter(|finding| finding.done.is_none()).count();
    if context.talk.json {
        context.talk.json(&findings)?;
    } else {
        let mut table = Talk::table(&["what", "of", "server", "found", "done"]);
        for finding in &findings {
            table.add_row([
                finding.kind.word(),
                &finding.subject,
                finding.server.as_deref().unwrap_or("-"),
                &finding.found,
                finding.done.as_deref().or(finding.error.as_deref()).unwrap_or("-"),
            ]);
        }
        if !findings.is_empty() {
            context.talk.print_table(&table);
        }
        for finding in findings.iter().filter(|finding| finding.done.is_none()) {
            for statement in &finding.statements {
                context.talk.data(statement);
            }
            if let Some(hint) = &finding.hint {
                context.talk.say(&format!("{}: hint: {hint}", finding.subject));
            }
        }
        context.talk.say(&format!("{}, {left} left", counted(findings.len(), "finding")));
    }
    Ok(if left > 0 { Exit::Findings } else { Exit::Done })
}
