//! What a starting service tells its log.

use pgfleet_migrate::{Event, Observer};

/// Writes what a run tells to `tracing`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Log;

impl Observer for Log {
    fn event(&self, target: &str, event: &Event) {
        match event {
            Event::Waiting { attempt, attempts, reason } => {
                tracing::info!(target, attempt, attempts, reason, "waiting for the database");
            }
            Event::DatabaseCreated => tracing::info!(target, "created the database"),
            Event::LockHeld { holder } => {
                let holder = holder.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::info!(target, holder, "another process migrates; waiting for it");
            }
            Event::Planned { steps } => tracing::info!(target, steps, "migrating"),
            Event::Done { label, took } => tracing::info!(target, step = label, ?took, "done"),
            Event::Progress { label, rows, total, .. } => {
                tracing::info!(target, step = label, rows, total, "under way");
            }
            Event::LockTimeout { label, attempt, attempts, blockers } => {
                let blockers: Vec<String> = blockers.iter().map(ToString::to_string).collect();
                tracing::warn!(target, step = label, attempt, attempts, ?blockers, "waiting for a lock");
            }
            Event::Retry { attempt, attempts, wait, reason } => {
                tracing::warn!(target, attempt, attempts, ?wait, reason, "trying again");
            }
            Event::Note(text) => tracing::info!(target, "{text}"),
            _ => tracing::debug!(target, ?event, "migrating"),
        }
    }
}
