//! Outboxes, inboxes, streams and queues from the command line.

use pgfleet_events::QueueStore as _;

use crate::support::Solution;

/// A solution whose two services have messages, and one of them streams; migrated.
async fn solution() -> Solution {
    let solution = Solution::new().await;
    let (trip, user) = (solution.name("trip"), solution.name("user"));
    solution.manifest(&format!(
        "[services.{trip}]\nmodules = [\"outbox\", \"event_streaming\"]\n[services.{user}]\nmodules = [\"outbox\", \"inbox\"]\n\
         [events]\ndatabase = \"{}\"\n",
        solution.name("bus")
    ));
    solution.pgfleet("migrate").exits(0);
    solution
}

#[tokio::test]
async fn the_state_of_outbox_and_inbox_is_shown_and_it_is_said_which_service_is_to_be_named() {
    let solution = solution().await;
    let (trip, user) = (solution.name("trip"), solution.name("user"));
    let ran = solution.pgfleet("outbox status").exits(3);
    ran.says("several services have the module `outbox`").says(&format!("--service {trip} or --service {user}"));
    let shown = solution.pgfleet(&format!("outbox status --service {trip} --json")).exits(0).json();
    assert_eq!((&shown["service"], &shown["pending"], &shown["dead"]), (&trip.clone().into(), &0.into(), &0.into()));
    solution.column("trip", "select outbox_rotate()").await;
    let retried = solution.pgfleet(&format!("outbox retry --service {trip} --json")).exits(0).json();
    assert_eq!(retried, serde_json::json!({ "messages": 0, "keys": 0 }));
    let inbox = solution.pgfleet("inbox status").exits(0);
    assert!(inbox.out.contains(&user), "{}", inbox.out);
    solution
        .pgfleet(&format!("inbox status --service {trip}"))
        .exits(3)
        .says(&format!("service {trip} does not have the module `inbox`"));
    solution
        .pgfleet(&format!("outbox status --service {trip} --tenant acme"))
        .exits(3)
        .says("there is no tenant `acme`");
}

#[tokio::test]
async fn what_holds_old_rows_is_named() {
    let solution = solution().await;
    let url = solution.server.superuser_url(&solution.name("user"));
    let (holder, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    holder.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    let shown = solution.pgfleet("inbox status --json").exits(0).json();
    let held = shown["held_by"].as_array().unwrap();
    let database = format!("database {}", solution.name("user"));
    let found = held.iter().find(|held| held["who"].as_str().unwrap().ends_with(&database));
    assert_eq!(found.unwrap()["kind"], "transaction", "{held:?}");
    drop(holder);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn events_are_appended_and_read_as_lines_and_documents() {
    let solution = solution().await;
    for (number, kind) in [(1, "Placed"), (2, "Paid"), (3, "Placed")] {
        let stream = if number < 3 { "order-1" } else { "order-2" };
        let line = format!("stream append {stream} --type {kind} --data {{\"n\":{number}}} --correlation c{number}");
        solution.folder.pgfleet(&line).exits(0);
    }
    let lines = |ran: &crate::support::Ran| -> Vec<serde_json::Value> {
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = solution.pgfleet("stream read --all --json").exits(0);
    let numbers: Vec<_> = lines(&all).iter().map(|event| event["data"]["n"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let first = &lines(&all)[0];
    assert_eq!((&first["stream"], &first["version"], &first["type"]), (&"order-1".into(), &1.into(), &"Placed".into()));
    assert_eq!(first["correlation_id"], "c1");
    // Behind the first one's position, and from a version on.
    let position = first["position"].as_str().unwrap();
    assert_eq!(lines(&solution.pgfleet(&format!("stream read --all --from {position} --json"))).len(), 2);
    let ran = solution.pgfleet("stream read order-1 --backward --limit 1").exits(0);
    assert!(ran.out.contains("order-1@2  Paid  {\"n\": 2}"), "{}", ran.out);
    assert_eq!(lines(&solution.pgfleet("stream read --all --type Placed --limit 1 --json")).len(), 1);
    assert_eq!(lines(&solution.pgfleet("stream read --all --correlation c2 --json")).len(), 1);
    assert_eq!(lines(&solution.pgfleet("stream read --all --since 2100-01-01 --json")).len(), 0);
    let shown = solution.pgfleet("stream show order-1 --json").exits(0).json();
    assert_eq!((&shown["stream"]["length"], &shown["stream"]["last"]), (&2.into(), &2.into()));
    assert_eq!(shown["config"]["max_age_ms"], serde_json::Value::Null);
    solution.pgfleet("stream show order-9").exits(1).says("there is no stream order-9");
    let list = solution.pgfleet("stream list --prefix order- --json").exits(0).json();
    assert_eq!(list["streams"].as_array().unwrap().len(), 2);
    // Codes are a contract: a conflict is work that failed, what cannot be understood is usage.
    let late = solution.folder.pgfleet("stream append order-1 --type Paid --expected 1");
    late.exits(1).says("stream order-1 is at version 2, not at 1").says("read the stream again");
    solution.folder.pgfleet("stream append order-1 --type Paid --data {").exits(2).says("the text is no JSON");
    solution.folder.pgfleet("stream read order-1 --from x").exits(2).says("no version");
    solution.folder.pgfleet("stream read --all --from 12").exits(2).says("a position looks like 12-3456");
    solution.folder.pgfleet("stream read --all --backward").exits(2);
}

#[tokio::test]
async fn whoever_follows_is_told_until_he_stops() {
    use std::io::{BufRead as _, BufReader};
    let solution = solution().await;
    solution.folder.pgfleet("stream append order-1 --type Placed").exits(0);
    let mut following = solution.folder.spawn(&["stream", "read", "--all", "--follow"]);
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("order-1@1  Placed"));
    solution.folder.pgfleet("stream append order-2 --type Paid").exits(0);
    assert!(lines.next().unwrap().unwrap().contains("order-2@1  Paid"));
    crate::support::signal(following.id(), nix::sys::signal::Signal::SIGINT);
    assert_eq!(following.wait().unwrap().code(), Some(0), "looking on ends by Ctrl-C");
}

#[tokio::test]
async fn one_stream_is_followed_from_a_version_and_up_to_a_limit() {
    use std::io::{BufRead as _, BufReader};
    let solution = solution().await;
    for kind in ["Placed", "Paid"] {
        solution.pgfleet(&format!("stream append order-1 --type {kind}")).exits(0);
    }
    let line = "stream read order-1 --from 2 --follow --limit 2 --json";
    let mut following = solution.folder.spawn(&line.split(' ').collect::<Vec<_>>());
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["type"], "Paid");
    solution.pgfleet("stream append order-2 --type Placed").exits(0);
    solution.pgfleet("stream append order-1 --type Sent").exits(0);
    assert_eq!((next()["version"].as_u64(), following.wait().unwrap().code()), (Some(3), Some(0)));
    solution.pgfleet("stream read order-1 --follow --backward").exits(2);
}

#[tokio::test]
async fn a_replay_that_is_ended_says_where_to_go_on() {
    use std::io::{BufRead as _, BufReader};
    let solution = solution().await;
    let store = Store::of(&solution).await;
    let event = || pgfleet_events::NewEvent::new("Placed", pgfleet_events::Json::trusted("{}"));
    let events = std::iter::repeat_with(event).take(500).collect();
    let any = pgfleet_events::Expected::Any;
    pgfleet_events::StreamStore::append(&store.0, "order-1", any, events).await.unwrap();
    let line = "stream replay order-1 --to-queue again --rate 20";
    let mut replaying = solution.folder.spawn(&line.split(' ').collect::<Vec<_>>());
    let mut told = BufReader::new(replaying.stderr.take().unwrap()).lines();
    let first = told.next().unwrap().unwrap();
    assert!(first.contains(" of 500 put into again, "), "{first}");
    crate::support::signal(replaying.id(), nix::sys::signal::Signal::SIGINT);
    let hint = told.map_while(Result::ok).last().unwrap();
    assert_eq!(replaying.wait().unwrap().code(), Some(130));
    let from: u64 = hint.strip_prefix("hint: the rest: the same command with --from ").unwrap().parse().unwrap();
    let put = store.0.purge("again", false).await.unwrap();
    assert!(put > 0 && put < 500, "{put}");
    assert_eq!(from, put + 1);
    let rest = format!("stream replay order-1 --to-queue again --from {from} --json");
    assert_eq!(solution.pgfleet(&rest).exits(0).json()["events"].as_u64(), Some(500 - put));
}

#[tokio::test]
async fn queues_are_looked_at_and_dead_letters_redriven() {
    let solution = solution().await;
    let put = |data: &str, more: &str| {
        let line = format!("queue enqueue mails --type Mail --data {data} {more} --json");
        solution.folder.pgfleet(&line).exits(0).json()
    };
    let first = put("1", "--key ann --dedup-id a")["id"].as_str().unwrap().to_owned();
    assert_eq!(put("1", "--key ann --dedup-id a")["duplicate"], true);
    put("2", "--key ann");
    put("3", "--delay 1h");
    let list = solution.pgfleet("queue list --json").exits(0).json();
    let mails = list.as_array().unwrap().iter().find(|queue| queue["queue"] == "mails").unwrap();
    assert_eq!((&mails["delayed"], &mails["in_flight"], &mails["dead"]), (&1.into(), &0.into(), &0.into()));
    assert!(mails["oldest_ms"].is_u64(), "{mails}");
    let next = solution.pgfleet("queue peek mails --json").exits(0).json();
    assert_eq!(next["next"][0]["id"], first.as_str());
    assert_eq!((&next["next"][0]["data"], &next["in_flight"]), (&1.into(), &serde_json::json!([])));
    // A service that gives one up, as its consumer does.
    let store = Store::of(&solution).await;
    let taken = store.0.dequeue("mails", "me", 1, std::time::Duration::from_mins(1)).await.unwrap();
    let out = solution.pgfleet("queue peek mails --json").exits(0).json();
    assert_eq!(out["in_flight"][0]["consumer"], "me");
    let dead = pgfleet_events::Nack::dead("no such address");
    store.0.negative_acknowledge(&[taken[0].receipt.clone()], &dead).await.unwrap();
    let dead = solution.pgfleet("queue dead-letters mails").exits(0);
    assert!(dead.out.contains(&first) && dead.out.contains("no such address"), "{}", dead.out);
    solution.pgfleet("queue redrive mails --key bob").exits(0).prints("redriven: 0");
    solution.pgfleet(&format!("queue redrive mails --id {first}")).exits(0).prints("redriven: 1");
    // What cannot be had back is asked about.
    solution.pgfleet("queue purge mails").exits(2).says("nobody is here to answer");
    solution.pgfleet("queue purge mails --yes").exits(0).prints("removed: 3");
}

#[tokio::test]
async fn events_are_replayed_into_a_queue_and_what_is_kept_is_configured() {
    let solution = solution().await;
    for number in 1..=5 {
        let line = format!("stream append order-{} --type Placed --data {number}", number % 2);
        solution.pgfleet(&line).exits(0);
    }
    let replayed = solution.pgfleet("stream replay --all --to-queue again --limit 4 --json").exits(0).json();
    assert_eq!(replayed["events"], 4);
    let replayed = solution.pgfleet("stream replay order-1 --from 2 --to-queue again --rate 1000").exits(0);
    replayed.prints("2 events put into again");
    let list = solution.pgfleet("queue list --json").exits(0).json();
    assert_eq!(list[0]["queue"], "again");
    solution.pgfleet("stream replay --all").exits(2);
    solution.pgfleet("stream replay --all --group nobody --yes").exits(1).says("nobody");
    let set =
        solution.pgfleet("stream configure again --queue --max-attempts 3 --visibility 1m --json").exits(0).json();
    assert_eq!((&set[0]["max_attempts"], &set[0]["visibility_ms"]), (&3.into(), &60_000.into()));
    let set = solution.pgfleet("stream configure again --queue --default --json").exits(0).json();
    assert_eq!(set[0]["max_attempts"], 5);
    solution.pgfleet("stream configure order-1 --max-attempts 3").exits(2);
    // An index is the owner's to make, and the command is his.
    solution.pgfleet("stream configure order-1 --index-data true").exits(0);
    let indexes = "select count(*) from pg_indexes where schemaname = 'event_streaming' and indexdef like '%gin%'";
    assert_eq!(solution.column("trip", indexes).await, ["1"]);
    let policy = solution.pgfleet("stream retention old --streams order-* --max-count 1 --json").exits(0).json();
    assert_eq!((&policy[0]["streams"], &policy[0]["max_count"]), (&"order-*".into(), &1.into()));
    solution.pgfleet("stream retention --run").exits(2).says("nobody is here to answer");
    let removed = solution.pgfleet("stream retention --run --yes --json").exits(0).json();
    assert_eq!((&removed["streams"], &removed["events"]), (&2.into(), &3.into()));
    let ran = solution.pgfleet("stream read order-1 --json").exits(0);
    assert_eq!(ran.out.lines().count(), 1);
    solution.pgfleet("stream retention old --remove --yes").exits(0);
    solution.pgfleet("stream retention old --remove --yes").exits(1).says("there is no policy old");
    solution.pgfleet("stream configure --max-age 1d").exits(2);
}

/// The streams and queues of `trip`, as its program has them.
struct Store(pgfleet_control::events::Store);

impl Store {
    async fn of(solution: &Solution) -> Self {
        use pgfleet_control::manifest::{Builtin, Manifest, Sources};
        use pgfleet_control::solution::Surroundings;
        let url = solution.server.superuser_url("postgres");
        let sources = Sources {
            manifest: solution.folder.path().join("pgfleet.toml"),
            variables: vec![("PGFLEET_SERVERS__MAIN__URL".to_owned(), url)],
            ..Sources::default()
        };
        let manifest = Manifest::load(&sources).unwrap().manifest;
        let opened = pgfleet_control::Solution::open(manifest, &Surroundings::default()).await.unwrap();
        Self(opened.event_database(Builtin::EventStreaming, None, None).await.unwrap().store())
    }
}
