use super::super::*;
use super::solution;

const TWO: &str = "[services.trip]\nmodules = [\"outbox\"]\n[services.notices]\nmodules = [\"inbox\"]\n";

#[test]
fn modules_of_pgfleet_need_no_files() {
    let loaded = solution("[services.trip]\nmodules = [\"outbox\", \"event_streaming\"]\n").load();
    assert!(loaded.unused.is_empty(), "{:?}", loaded.unused);
    let modules = &loaded.manifest.modules;
    assert_eq!(modules["outbox"].builtin, Some(Builtin::Outbox));
    assert_eq!(modules["outbox"].schema, None);
    assert_eq!(modules["event_streaming"].schema.as_deref(), Some("event_streaming"));
    assert!(!modules.contains_key("inbox"), "nobody has it");
    let trip = loaded.manifest.service("trip").unwrap();
    assert!(loaded.manifest.connections_of(trip).is_empty(), "they are reached without a connection name");
}

#[test]
fn files_of_the_solution_take_the_place_of_a_module_of_pgfleet_and_that_is_noted() {
    let text = "[services.trip]\nmodules = [\"outbox\"]\n[modules.outbox]\nmigrations = \"db/outbox\"\n";
    let loaded = solution(text).load();
    assert_eq!(loaded.manifest.modules["outbox"].builtin, None);
    insta::assert_snapshot!(
        loaded.unused[0],
        @"pgfleet.toml:4:1: the files of [modules.outbox] take the place of pgfleet's own module `outbox`: commands and libraries expect its tables"
    );
    let renamed =
        solution("[services.trip]\nmodules = [\"event_streaming\"]\n[modules.event_streaming]\nschema = \"es\"\n")
            .load();
    let module = &renamed.manifest.modules["event_streaming"];
    assert_eq!((module.builtin, module.schema.as_deref()), (Some(Builtin::EventStreaming), Some("es")));
}

#[test]
fn the_bus_is_there_when_somebody_has_messages() {
    let none = solution("[services.trip]\n").load().manifest;
    assert!(none.bus().is_none());
    let manifest = solution(TWO).load().manifest;
    let bus = manifest.bus().unwrap();
    assert_eq!((bus.name.as_str(), bus.server.as_str(), bus.database.as_str()), ("pgfleet_bus", "main", "pgfleet_bus"));
    assert_eq!(bus.modules, ["event_streaming"]);
    let trip = manifest.service("trip").unwrap();
    assert_eq!(trip.uses, [Uses { service: "pgfleet_bus".into(), module: "event_streaming".into() }]);
    assert!(manifest.connections_of(trip).is_empty(), "it has a variable of its own");
    assert_eq!(manifest.declared_services().count(), 2);
    let elsewhere = solution(&format!(
        "{TWO}[servers.main]\nurl = \"local\"\n[servers.two]\nurl = \"local\"\n[control]\nserver = \"main\"\n\
         [events]\nserver = \"two\"\ndatabase = \"messages\"\n"
    ));
    let text = std::fs::read_to_string(&elsewhere.sources.manifest)
        .unwrap()
        .replace("]\nmodules", "]\nserver = \"main\"\nmodules");
    let manifest = elsewhere.file("pgfleet.toml", text).load().manifest;
    let bus = manifest.bus().unwrap();
    assert_eq!((bus.name.as_str(), bus.server.as_str()), ("messages", "two"));
    let other = solution(&format!("{TWO}[events]\nbroker = \"nats\"\nurl = \"nats://mq:4222\"\n")).load().manifest;
    assert!(other.bus().is_none());
    assert!(other.service("trip").unwrap().uses.is_empty());
}

#[test]
fn a_broker_that_cannot_be_is_refused() {
    insta::assert_snapshot!(
        solution(&format!("{TWO}[events]\nbroker = \"rabbitmq\"\n")).printed(),
        @r#"
    pgfleet.toml:6:1: `broker` is "rabbitmq", and there is no `url`
    hint: write url = "amqp://user@host" in [events], or set PGFLEET_EVENTS__URL
    "#
    );
    insta::assert_snapshot!(
        solution(&format!("{TWO}[events]\nbroker = \"nats\"\nurl = \"amqp://mq\"\n")).printed(),
        @r#"
    pgfleet.toml:7:1: `url` is none of "nats": it begins with nats:// or tls://
    hint: write url = "nats://user@host" in [events], or set PGFLEET_EVENTS__URL
    "#
    );
    insta::assert_snapshot!(
        solution(&format!("{TWO}[events]\nbroker = \"in-process\"\n")).printed(),
        @r#"
    pgfleet.toml:6:1: `broker` is "in-process", and 2 services have messages: `trip`, `notices`
    hint: "postgres" needs nothing more than a server of the solution
    "#
    );
    let one =
        solution("[services.trip]\nmodules = [\"outbox\", \"inbox\"]\n[events]\nbroker = \"in-process\"\n").load();
    assert_eq!(one.manifest.events.broker, Broker::InProcess);
}

#[test]
fn a_bus_that_is_somebody_else_s_is_refused() {
    insta::assert_snapshot!(
        solution(&format!("{TWO}[events]\ndatabase = \"pgfleet\"\n")).printed(),
        @r#"
    pgfleet.toml:6:1: the bus database `pgfleet` is the control database, too
    hint: name another one: `database = "…"` in [events]
    "#
    );
    let printed = solution(&format!("{TWO}[events]\ndatabase = \"trip\"\n")).printed();
    assert!(printed.contains("is the database of service `trip`, too"), "{printed}");
    let printed = solution(&format!("{TWO}[events]\nserver = \"mian\"\n")).printed();
    assert!(printed.contains("there is no server `mian`") && printed.contains("did you mean `main`?"), "{printed}");
}

#[test]
fn what_was_set_for_another_broker_is_noted() {
    let notes = |text: &str| {
        let loaded = solution(&format!("{TWO}[events]\n{text}")).load();
        loaded.unused.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        notes("url = \"nats://mq\"\n"),
        ["pgfleet.toml:6:1: `events.url` has no effect with `broker = \"postgres\"`"]
    );
    assert_eq!(
        notes("broker = \"nats\"\nurl = \"nats://mq\"\ndatabase = \"x\"\n"),
        ["pgfleet.toml:8:1: `events.database` has no effect with `broker = \"nats\"`"]
    );
}

#[test]
fn another_environment_refuses_a_broker_with_a_well_known_password() {
    let text = format!(
        "[servers.main]\nurl = \"postgres://fleet@db/postgres\"\n{TWO}[events]\nbroker = \"rabbitmq\"\nurl = \"amqp://guest:guest@mq\"\n"
    );
    let case = solution(&text);
    case.load();
    insta::assert_snapshot!(
        case.env("prod").printed(),
        @r"
    pgfleet.toml:9:1: the password in the URL of the broker is a well-known default
    hint: set PGFLEET_EVENTS__URL
    "
    );
}

#[test]
fn two_services_cannot_both_keep_streams_in_a_tenant_s_database() {
    let text = "[services.a]\ntenants = \"own\"\nschema = \"a\"\nmodules = [\"event_streaming\"]\n\
                [services.b]\ntenants = \"own\"\nschema = \"b\"\nmodules = [\"event_streaming\"]\n";
    let printed = solution(text).printed();
    assert!(printed.contains("services `a` and `b` both have the module `event_streaming`"), "{printed}");
    solution(&format!("{text}[tenants]\ndatabases = \"per-service\"\n")).load();
}

#[test]
fn patterns_say_which_streams_are_in_memory() {
    let text =
        "[services.trip]\nmodules = [\"event_streaming\"]\nstreams = { \"seen-*\" = \"memory\", hints = \"memory\" }\n";
    let manifest = solution(text).load().manifest;
    let streams = &manifest.service("trip").unwrap().streams;
    assert_eq!(
        streams.iter().map(|(pattern, place)| (pattern.as_str(), *place)).collect::<Vec<_>>(),
        [("hints", StreamPlace::Memory), ("seen-*", StreamPlace::Memory)]
    );
    let none = "[services.trip.streams]\n\"*\" = \"memory\"\n";
    assert_eq!(solution(none).load().manifest.service("trip").unwrap().streams.len(), 1, "no tables, and none needed");
    insta::assert_snapshot!(
        solution("[services.trip.streams]\n\"seen-*\" = \"memory\"\n").printed(),
        @r#"
    pgfleet.toml:2:1: service `trip` keeps streams on PostgreSQL, and does not have the module `event_streaming`
    hint: add it to `modules` of [services.trip], or say "*" = "memory" for all of them
    "#
    );
    let having = "[services.trip]\nmodules = [\"event_streaming\"]\n[services.trip.streams]\n";
    let printed = solution(&format!("{having}\"a*b\" = \"memory\"\n")).printed();
    assert!(printed.contains("`a*b` is no pattern of streams") && printed.contains("with a * behind it"), "{printed}");
    let printed = solution(&format!("{having}c = \"redis\"\n")).printed();
    assert!(printed.contains("redis") && printed.contains("memory"), "{printed}");
}
