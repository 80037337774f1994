//! `tenant mend`: what is not as it should be, and what was done about it.

use pgfleet_control::tenants::{Finding, Kind, Mending};

use crate::args::TenantMend;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::counted;

pub(super) async fn run(context: &Context, arguments: &TenantMend) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let TenantMend { dry_run, close, drop, make } = *arguments;
    if drop && !dry_run {
        let looking = Mending { dry_run: true, ..Mending::default() };
        let found = solution.mend_tenants(looking, &context.talk.listener()).await?;
        let dropped = |finding: &&Finding| {
            matches!(finding.kind, Kind::DatabaseWithoutTenant | Kind::TemplateWithoutShape)
        };
        let names: Vec<&str> = found.iter().filter(dropped).map(|finding| finding.subject.as_str()).collect();
        if !names.is_empty() {
            context.talk.confirm(&format!("drop {} for good", names.join(", ")))?;
        }
    }
    let orderly = context.orderly();
    let how = Mending { dry_run, close, drop, make };
    let findings = solution.mend_tenants(how, &context.talk.listener()).await;
    std::mem::drop(orderly);
    let findings = findings?;
    if context.talk.json {
        context.talk.json(&findings)?;
    } else {
        for finding in &findings {
            context.talk.data(&text(finding));
        }
    }
    let mended = findings.iter().filter(|finding| finding.done.is_some()).count();
    let failed = findings.iter().any(|finding| finding.error.is_some());
    context.talk.say(&match findings.len() {
        0 => "everything is as it should be".to_owned(),
        count => format!("{}, {mended} mended", counted(count, "finding")),
    });
    Ok(match findings.len() - mended {
        0 => Exit::Done,
        _ if failed => Exit::Failed,
        _ => Exit::Findings,
    })
}

/// Renders a finding with what to do about it.
fn text(finding: &Finding) -> String {
    let place = finding.server.as_deref().map(|server| format!(" on {server}")).unwrap_or_default();
    let mut text = format!("{}: {}{place}: {}", finding.kind.word(), finding.subject, finding.found);
    if let Some(done) = &finding.done {
        text.push_str(&format!("; {done}"));
    }
    if let Some(error) = &finding.error {
        text.push_str(&format!("\n  cannot be mended: {error}"));
    }
    for statement in &finding.statements {
        text.push_str(&format!("\n  {statement}"));
    }
    if let Some(hint) = &finding.hint {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
}
