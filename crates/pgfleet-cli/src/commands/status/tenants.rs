//! Tenants in `pgfleet status`: summed up by service, so that thousands stay readable.

use std::sync::Arc;

use pgfleet_control::Solution;
use pgfleet_control::chain::FailedMessage;
use pgfleet_control::fleet::TargetState;
use pgfleet_control::grid::{Cell, rows};
use pgfleet_migrate::Observer;

use super::is_failed;
use crate::args::Status;
use crate::context::Context;
use crate::error::CommandError;
use crate::talk::Talk;

/// How many databases are named when nobody asked for them.
const NAMED: usize = 20;

/// Everything known of the tenants.
pub(super) struct Tenants {
    pub(super) cells: Vec<Cell>,
    /// A rollout that is not over.
    unfinished: Option<(i64, String, String)>,
    /// Messages that nobody tries again by himself.
    failed: Vec<FailedMessage>,
}

/// Reads the tenants of the services and names that were asked for.
pub(super) async fn read(
    solution: &Solution,
    arguments: &Status,
    listener: &Arc<dyn Observer>,
) -> Result<Tenants, CommandError> {
    let Some(catalogue) = solution.catalogue_if_any().await? else {
        return Ok(Tenants { cells: Vec::new(), unfinished: None, failed: Vec::new() });
    };
    let prints = solution.prints_of_all(listener).await?;
    let mut cells = solution.grid(&catalogue, &prints, solution.manifest.tenants.verify_after).await?;
    let unfinished = catalogue.unfinished_rollout().await?;
    catalogue.close().await;
    let failed = solution.failed_messages().await?;
    for tenant in &arguments.tenant {
        // Names it, and the one that was probably meant.
        solution.tenant(tenant).await?;
    }
    let asked = |names: &[String], name: &String| names.is_empty() || names.contains(name);
    cells.retain(|cell| asked(&arguments.service, &cell.service) && asked(&arguments.tenant, &cell.tenant));
    Ok(Tenants { cells, unfinished, failed })
}

impl Tenants {
    /// Returns the databases that are to be named.
    pub(super) fn chosen(&self, arguments: &Status) -> Vec<&Cell> {
        let wanted = |cell: &&Cell| {
            (!arguments.pending || cell.state == TargetState::Behind) && (!arguments.failed || is_failed(cell.state))
        };
        self.cells.iter().filter(wanted).collect()
    }

    /// Returns how many are not known to be current.
    pub(super) fn not_current(&self) -> usize {
        self.cells.iter().filter(|cell| cell.state != TargetState::Current).count()
    }

    /// Prints the summary, and the databases that were asked for or need somebody.
    pub(super) fn print(&self, context: &Context, chosen: &[&Cell], arguments: &Status) {
        if !self.cells.is_empty() {
            context.talk.data("");
            self.print_summary(context);
        }
        let asked = arguments.pending || arguments.failed || !arguments.tenant.is_empty();
        let named: Vec<&Cell> =
            if asked { chosen.to_vec() } else { self.cells.iter().filter(|cell| is_failed(cell.state)).collect() };
        if !named.is_empty() {
            context.talk.data("");
            print_cells(context, &named[..if asked { named.len() } else { named.len().min(NAMED) }]);
        }
        if !asked && named.len() > NAMED {
            context.talk.say(&format!("… and {} more: pgfleet status --failed", named.len() - NAMED));
        }
        for message in self.failed.iter().take(NAMED) {
            let about = message.tenant().map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
            let what = message.message.kind();
            context.talk.note(&format!("{what}{about} failed at {}: {}", message.since, message.error));
        }
        if let Some((id, state, reason)) = &self.unfinished {
            let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            context.talk.note(&format!("rollout {id} is {state}{why}: pgfleet rollout show {id}"));
        }
    }

    fn print_summary(&self, context: &Context) {
        let rows = rows(&self.cells);
        let states: Vec<TargetState> = TargetState::ALL
            .into_iter()
            .filter(|state| *state == TargetState::Current || self.cells.iter().any(|cell| cell.state == *state))
            .collect();
        let mut header = vec!["service", "tenants"];
        header.extend(states.iter().map(|state| state.word()));
        header.extend(["drift", "versions", "least recent look"]);
        let mut table = Talk::table(&header);
        for (service, row) in rows {
            let mut cells = vec![service.to_owned(), row.tenants.to_string()];
            cells.extend(states.iter().map(|state| row.states.get(state.word()).copied().unwrap_or(0).to_string()));
            let mut versions: Vec<String> =
                row.versions.iter().take(3).map(|(version, count)| format!("{version} ({count})")).collect();
            if row.versions.len() > 3 {
                versions.push(format!("{} others", row.versions.len() - 3));
            }
            cells.extend([row.drift.to_string(), versions.join(", "), ago(row.oldest)]);
            table.add_row(cells);
        }
        context.talk.print_table(&table);
    }
}

fn print_cells(context: &Context, cells: &[&Cell]) {
    let mut table =
        Talk::table(&["tenant", "service", "server", "database", "version", "state", "pending", "looked at"]);
    for cell in cells {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.add_row([
            cell.tenant.clone(),
            cell.service.clone(),
            text(&cell.server),
            text(&cell.database),
            text(&cell.version),
            cell.state.word().to_owned(),
            cell.pending.to_string(),
            ago(cell.age),
        ]);
    }
    context.talk.print_table(&table);
    for cell in cells {
        if let Some(error) = &cell.error {
            context.talk.say(&format!("{}/{}: {error}", cell.service, cell.tenant));
        }
    }
}

fn ago(seconds: Option<u64>) -> String {
    match seconds {
        None => "never".to_owned(),
        Some(seconds @ ..120) => format!("{seconds} s ago"),
        Some(seconds @ ..7_200) => format!("{} min ago", seconds / 60),
        Some(seconds @ ..172_800) => format!("{} h ago", seconds / 3_600),
        Some(seconds) => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_a_look_is_said_in_one_unit() {
        let said = [None, Some(5), Some(130), Some(7_300), Some(200_000)].map(ago);
        assert_eq!(said, ["never", "5 s ago", "2 min ago", "2 h ago", "2 days ago"]);
    }
}
