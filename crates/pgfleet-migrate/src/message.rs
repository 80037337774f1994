//! Many migrations in one message to the server, each in a transaction of its own.
//!
//! One message, because the server stops reading a message at the first error: what stands behind
//! a failed migration is never run. Sent one by one and pipelined, a migration whose *parsing*
//! fails would open no transaction block, and the next message would be applied over the gap.
//!
//! Each step begins with a row that carries its number, so that the answers can be told apart
//! whatever the file's own statements return.

use crate::unit::Unit;

/// The name of the column that carries the number of a step.
pub(crate) const STEP_COLUMN: &str = "pgfleet_step";

/// Statements of ours before a file's first: `BEGIN` and the `SELECT` with the number.
pub(crate) const BEFORE: usize = 2;

/// Most bytes in one message; a larger file makes a message of its own.
const LARGEST: usize = 4 << 20;

/// One message.
pub(crate) struct Message {
    pub(crate) text: String,
    /// For each unit where its SQL stands in `text`.
    pub(crate) parts: Vec<std::ops::Range<usize>>,
}

impl Message {
    /// Composes one message of as many units as fit.
    ///
    /// `flush_last`: the last unit's commit must be on disk, with everything before it.
    pub(crate) fn compose(units: &[Unit<'_>], flush_last: bool) -> Self {
        let mut text = String::new();
        let mut parts = Vec::new();
        for (number, unit) in units.iter().enumerate() {
            if number > 0 && text.len() + unit.sql.len() > LARGEST {
                break;
            }
            let flush = if flush_last && number + 1 == units.len() {
                ",pg_catalog.set_config('synchronous_commit','on',true)"
            } else {
                ""
            };
            text.push_str(&format!(
                "BEGIN;SELECT {number} AS {STEP_COLUMN},\
                 pg_catalog.set_config('lock_timeout','{}ms',true),\
                 pg_catalog.set_config('pgfleet.started',\
                 extract(epoch FROM pg_catalog.clock_timestamp())::text,true){flush};\n",
                unit.lock_timeout.as_millis()
            ));
            let start = text.len();
            text.push_str(&unit.sql);
            parts.push(start..text.len());
            // The line break ends a comment on the file's last line. A role that the file left
            // behind must not write the record; its settings go after it, since they hold the
            // time at which the step began.
            text.push_str("\n;RESET ROLE;");
            text.push_str(&unit.record);
            text.push_str(";RESET ALL;COMMIT;\n");
        }
        Self { text, parts }
    }
}
