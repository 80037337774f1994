//! `pgfleet tenant`: the words on the two streams, the exit codes, and where strings come from.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::{Ran, Solution};

/// A solution whose services have data in tenants' databases.
pub(crate) async fn solution() -> Solution {
    let solution = Solution::new().await;
    let (trip, user) = (solution.name("trip"), solution.name("user"));
    solution.manifest(&format!(
        "[services.{trip}]\ntenants = \"own\"\n\n[services.{user}]\ntenants = \"own\"\nschema = \"users\"\n"
    ));
    solution.pgfleet("provision").exits(0);
    solution
}

/// Runs with a text on standard input.
fn with_input(solution: &Solution, line: &str, input: &str) -> Ran {
    let line = line.replace("{}", &solution.prefix);
    let mut command = solution.folder.command(&line.split_whitespace().collect::<Vec<_>>());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Ran::end_of(child)
}

#[tokio::test]
async fn a_tenant_is_made_shown_changed_and_disabled() {
    let solution = solution().await;
    solution.sql("CREATE DATABASE \"{}_acme\"").await;
    let acme = solution.name("acme");
    solution
        .pgfleet("tenant create acme --connection dbname={}_acme --display-name Acme")
        .exits(0)
        .says("/acme is behind: has nothing, needs 1_trips (1 pending); the service refuses the tenant until")
        .says("made tenant acme with 1 connection string");
    solution.pgfleet("tenant create acme").exits(1).says("hint: see it: pgfleet tenant show acme");
    solution
        .pgfleet("tenant create globex --no-database")
        .exits(0)
        .says("made tenant globex in the services' own databases");
    let port = solution.server.port();
    let list = solution.pgfleet("tenant list").exits(0).says("2 tenants");
    let rows: Vec<Vec<&str>> = list.out.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let place = format!("postgresql://127.0.0.1:{port}/{acme}");
    assert_eq!(rows, [vec!["acme", "active", "-", place.as_str(), "-"], vec!["globex", "active", "-", "-", "-"]]);
    let shown = solution.pgfleet("tenant show acme --json").exits(0).json();
    assert_eq!(shown["strings"][0]["physical"]["database"], acme.as_str());
    assert_eq!(shown["strings"][0]["readers"].as_array().unwrap().len(), 2);
    // Another text for the same database.
    let string = format!("host=localhost port={port} dbname={acme}");
    with_input(&solution, "tenant set-connection globex --service {}_trip -", &string)
        .exits(1)
        .says("is tenant acme's already (its default string)")
        .says("say --shared");
    with_input(&solution, "tenant set-connection globex --service {}_trip - --shared", &string)
        .exits(0)
        .says("leads to the same database as tenant acme");
    solution
        .pgfleet("tenant show globex")
        .exits(0)
        .prints(&format!("its string for {} leads to the same database as tenant acme", solution.name("trip")));
    solution.pgfleet("tenant set-connection globex --service {}_trip --unset").exits(0).says("was taken away");
    solution.pgfleet("tenant set-connection globex --service {}_trip --unset").exits(0).says("nothing to do");
    solution.pgfleet("tenant disable acme").exits(0).says("tenant acme is disabled now");
    solution.pgfleet("tenant disable acme").exits(0).says("is disabled already: nothing to do");
    solution.pgfleet("tenant enable acme").exits(0).says("tenant acme is active now");
    solution.pgfleet("tenant show acmee").exits(3).says("hint: did you mean `acme`?");
    solution.pgfleet("tenant create Acme").exits(3).says("it has a capital letter; write acme");
    assert_eq!(
        solution.column("control", "SELECT action FROM control.audit WHERE subject = 'acme' ORDER BY id").await,
        ["tenant create", "tenant disable", "tenant enable"]
    );
}

#[tokio::test]
async fn passwords_need_not_stand_in_the_arguments() {
    let solution = solution().await;
    let port = solution.server.port();
    let url = |name: &str| format!("postgresql://someone:very-secret@127.0.0.1:{port}/{name}");
    let given = format!("tenant create a --no-check --connection {}", url("a"));
    solution.pgfleet(&given).exits(0).says("note: others on this machine can see the password");
    solution.folder.file("b.url", format!("{}\n", url("b")));
    solution.pgfleet("tenant create b --no-check --connection @b.url").exits(0).says_nothing_of("can see the password");
    let two = format!("{}\n{}\n", url("c"), url("d"));
    with_input(&solution, "tenant create c --no-check --connection - --connection {}_trip=-", &two)
        .exits(0)
        .says_nothing_of("can see the password")
        .says("with 2 connection strings");
    let shown = solution.pgfleet("tenant show c").exits(0).prints("/c").prints("/d").prints("never");
    let all = solution.pgfleet("tenant list --json").exits(0);
    for text in [&shown.out, &shown.err, &all.out, &all.err] {
        assert!(!text.contains("very-secret"), "{text}");
    }
    let stored = solution.column("control", "SELECT detail::text FROM control.audit").await;
    assert!(!stored.iter().any(|detail| detail.contains("very-secret")));
    with_input(&solution, "tenant create e --connection -", "").exits(2).says("the connection string is empty");
    solution.pgfleet("tenant create e --connection @nowhere").exits(2);
    solution.pgfleet("tenant create e --connection tirp=postgresql://db/e").exits(3).says("no service or connection");
}

/// Collects what is notified until a command has ended and `count` have come.
async fn notified(url: &str, count: usize, change: impl FnOnce()) -> Vec<String> {
    let (client, mut connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                let _gone = sender.send(notification.payload().to_owned());
            }
        }
    });
    client.batch_execute("LISTEN pgfleet_tenants").await.unwrap();
    change();
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let next = tokio::time::timeout(std::time::Duration::from_secs(30), receiver.recv()).await;
        payloads.push(next.expect("nothing was notified").unwrap());
    }
    payloads.sort();
    payloads
}

#[tokio::test]
async fn services_are_told_of_what_concerns_them() {
    let solution = solution().await;
    let url = solution.server.superuser_url(&solution.name("control"));
    let (trip, user) = (solution.name("trip"), solution.name("user"));
    let create = || drop(solution.pgfleet("tenant create acme").exits(0));
    assert_eq!(notified(&url, 2, create).await, [trip.clone(), user.clone()]);
    // One string is one service's business; the next thing that is told is the change behind it.
    let set = || {
        solution.pgfleet("tenant set-connection acme --service {}_trip --no-check dbname=acme").exits(0);
        solution.pgfleet("tenant set-connection acme --service {}_user --no-check dbname=acme").exits(0);
    };
    assert_eq!(notified(&url, 2, set).await, [trip, user]);
}

#[tokio::test]
async fn the_key_is_changed_while_tenants_are_there() {
    let solution = solution().await;
    solution.pgfleet("tenant create acme --no-check --connection dbname=acme").exits(0);
    let old = std::fs::read_to_string(solution.folder.path().join(".pgfleet/key")).unwrap();
    let new = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let run = |line: &str, old_key: Option<&str>| {
        let mut command = solution.folder.command(&line.split_whitespace().collect::<Vec<_>>());
        command.env("PGFLEET_KEY", new);
        if let Some(key) = old_key {
            command.env("PGFLEET_KEY_OLD", key.trim());
        }
        Ran::of(command)
    };
    run("tenant show acme", None).exits(3).says("is missing").says("PGFLEET_KEY_OLD");
    run("tenant show acme", Some(&old)).exits(0);
    run("provision --dry-run", Some(&old)).exits(0).prints("UPDATE control.credentials SET key_id");
    run("provision", Some(&old)).exits(0).says("statements ran");
    run("provision", None).exits(0).says("nothing to do");
    run("connection explain --tenant acme --service x", None).exits(3);
    solution.pgfleet("tenant show acme").exits(3).says("is missing");
}
