//! The implementations in memory keep what every implementation must keep.

mod streams {
    pgfleet_events::stream_conformance!(super::memory);
}

mod queues {
    pgfleet_events::queue_conformance!(super::memory);
}

mod consumers {
    pgfleet_events::consumer_conformance!(super::memory);
}

mod configs {
    pgfleet_events::config_conformance!(super::memory);
}

mod model {
    pgfleet_events::model_conformance!(super::memory);
}

fn memory() -> impl Future<Output = (pgfleet_events::Memory, ())> {
    std::future::ready((pgfleet_events::Memory::new(), ()))
}

mod transport {
    pgfleet_events::transport_conformance!(super::in_process);
}

fn in_process() -> impl Future<Output = (pgfleet_events::InProcess, ())> {
    std::future::ready((pgfleet_events::InProcess::new(), ()))
}

/// Several stores as one, of which one has everything.
mod registry {
    use std::sync::Arc;

    use pgfleet_events::registry::{Events, Routing};
    use pgfleet_events::{EventStore, Memory};

    fn events(routing: &Routing) -> std::future::Ready<(Events, ())> {
        let stores: [(&str, Arc<dyn EventStore>); 2] =
            [("one", Arc::new(Memory::new())), ("other", Arc::new(Memory::new()))];
        std::future::ready((Events::new(routing, stores).unwrap(), ()))
    }

    fn one() -> std::future::Ready<(Events, ())> {
        events(&Routing::new("one"))
    }

    /// Where queues are in either, by how their names begin.
    fn both() -> std::future::Ready<(Events, ())> {
        let begins = "abcdefghijklm".chars();
        events(&begins.fold(Routing::new("one"), |routing, begin| routing.route(format!("{begin}*"), "other")))
    }

    mod streams {
        pgfleet_events::stream_conformance!(super::one);
    }

    mod queues {
        pgfleet_events::queue_conformance!(super::both);
    }

    mod consumers {
        pgfleet_events::consumer_conformance!(super::one);
    }

    mod configs {
        pgfleet_events::config_conformance!(super::both);
    }

    mod model {
        pgfleet_events::model_conformance!(super::one);
    }
}
