//! The sets of the modules that pgfleet brings itself, and of the bus database.

use pgfleet_events_postgres::module;
use pgfleet_migrate::Set;
use pgfleet_migrate::history::HistoryTable;

use crate::bundle::Bundle;
use crate::error::Error;
use crate::jobs::{files_error, history_of};
use crate::manifest::{Builtin, Module};

/// Returns the set of a module for a service; its files are the bundle's when one is used.
pub(crate) fn builtin_set(
    bundle: Option<&Bundle>,
    builtin: Builtin,
    module: &Module,
    service: &str,
) -> Result<Set, Error> {
    let schema = module.schema.as_deref();
    let made = match builtin {
        Builtin::Outbox => module::outbox(),
        Builtin::Inbox => module::inbox(),
        Builtin::EventStreaming => module::event_streaming(schema.unwrap_or(module::EVENT_STREAMING)),
    };
    let mut set = made.map_err(|error| files_error(&error))?;
    if let Some(bundle) = bundle {
        let packed = bundle.set(&module.name)?;
        (set.migrations, set.repeatables, set.folder) = (packed.migrations, packed.repeatables, packed.folder);
    }
    set.schema.clone_from(&module.schema);
    set.history = history(builtin, module, service, set.history);
    Ok(set)
}

/// Returns where a module's history is for a service.
fn history(builtin: Builtin, module: &Module, service: &str, own: HistoryTable) -> HistoryTable {
    match (&module.history, builtin) {
        (Some(history), _) => history_of(&module.name, Some(history)),
        (None, Builtin::EventStreaming) => own,
        (None, Builtin::Outbox | Builtin::Inbox) => HistoryTable::of_module(service, &module.name),
    }
}

/// Returns where a bundle says that a module's history is; that of one beside services' tables follows from the service.
pub(crate) fn packed_history(builtin: Builtin, module: &Module, set: &Set) -> HistoryTable {
    match builtin {
        Builtin::EventStreaming => set.history.clone(),
        Builtin::Outbox | Builtin::Inbox => history_of(&module.name, module.history.as_deref()),
    }
}

/// Returns where the history of a packed module is for a service.
pub(crate) fn unpacked_history(packed: HistoryTable, service: &str) -> HistoryTable {
    let usual = HistoryTable::of_set(&packed.set);
    if packed.quoted() == usual.quoted() { HistoryTable::of_module(service, &packed.set) } else { packed }
}

/// Returns whether a bundle has a module of the program's own there.
pub(crate) fn is_builtin_folder(folder: &str) -> bool {
    Builtin::ALL.into_iter().any(|builtin| builtin_folder(builtin) == folder)
}

/// Returns where the files of a module are in a bundle, where no folder of a solution is.
pub(crate) fn builtin_folder(builtin: Builtin) -> String {
    format!("pgfleet:{}", builtin.name())
}

/// Returns the set of what the bus database has beside its streams and queues, in their schema.
pub(crate) fn bus_set(name: &str, schema: &str) -> Result<Set, Error> {
    pgfleet_brokers::postgres::set(name, schema).map_err(|error| files_error(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a service's program makes, too: `pgfleet::Module` has the same test.
    #[test]
    fn the_modules_are_those_of_a_service_s_program() {
        let made = |builtin: Builtin| {
            let set = builtin_set(None, builtin, &Module::builtin(builtin), "trip").unwrap();
            (set.history.quoted(), set.schema.clone(), set.migrations.is_empty())
        };
        assert_eq!(made(Builtin::Outbox), (r#""pgfleet"."trip_outbox_migrations""#.to_owned(), None, false));
        assert_eq!(made(Builtin::Inbox), (r#""pgfleet"."trip_inbox_migrations""#.to_owned(), None, false));
        let streams = made(Builtin::EventStreaming);
        let history = r#""event_streaming"."schema_version""#.to_owned();
        assert_eq!(streams, (history, Some("event_streaming".to_owned()), false));
    }

    #[test]
    fn the_history_of_a_packed_module_follows_from_the_service() {
        let module = Module::builtin(Builtin::Outbox);
        let set = builtin_set(None, Builtin::Outbox, &module, "trip").unwrap();
        let packed = packed_history(Builtin::Outbox, &module, &set);
        assert_eq!(unpacked_history(packed, "trip").quoted(), set.history.quoted());
        let named = HistoryTable::at("outbox", "public", "outbox_history");
        assert_eq!(unpacked_history(named.clone(), "trip").quoted(), named.quoted());
    }
}
