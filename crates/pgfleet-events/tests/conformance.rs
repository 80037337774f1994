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
