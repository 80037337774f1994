//! Mending one database: each verb, what it says and how it ends.

use crate::support::{Bare, Ran, Solution};

#[tokio::test]
async fn a_service_s_database_is_mended_and_the_control_database_knows() {
    let solution = Solution::new().await;
    let trip = solution.name("trip");
    let file = |name: &str, text: &str| solution.folder.file(&format!("services/{trip}/migrations/{name}"), text);
    solution.pgfleet("migrate").exits(0);
    file(
        "2_i.up.sql",
        "-- pgfleet: no-transaction\ninsert into trips values (10);\n\
         create unique index concurrently i on trips ((id / 100));\n",
    );
    let hint = format!("hint: `pgfleet migration resume 2 --service {trip}` goes on at that statement");
    solution.pgfleet("migrate --service {}_trip").exits(1).says("the index i is left INVALID").says(&hint);
    solution.pgfleet("migrate --service {}_trip").exits(1).says("stopped at statement 2").says(&hint);
    let state = "select concat_ws(' ', version, state) from control.targets where database = '{}_trip'";
    assert_eq!(solution.column("control", state).await, ["interrupted"]);

    // It fails again; then the cause is gone.
    solution.pgfleet("migration resume 2 --service {}_trip").exits(1).says("1 of 2 statements").says("2_i.up.sql:3");
    solution.column("trip", "delete from trips where id = 1").await;
    let resumed = solution.pgfleet("migration resume 2 --service {}_trip").exits(0);
    resumed.says("dropped the index i").says("2_i went on at statement 2 and is done");
    assert_eq!(solution.column("control", state).await, ["2 current"]);
    solution.pgfleet("migration resume 2 --service {}_trip").exits(1).says("did not stop in the middle");

    solution.pgfleet("migration forget 2 --service {}_trip").exits(0).says("nothing was undone");
    assert_eq!(solution.column("control", state).await, ["1 behind"]);
    let ran = solution.pgfleet("migration mark-applied 2 --service {}_trip --json").exits(0);
    let document = ran.json();
    assert_eq!((&document["action"], &document["label"]), (&"mark-applied".into(), &"2_i".into()));
    assert_eq!((&document["service"], &document["state"]), (&trip.as_str().into(), &"current".into()));
    solution.pgfleet("migration mark-applied 2 --service {}_trip").exits(1).says("it is applied since");

    file("1_trips.up.sql", "create table trips (id bigint primary key);\n");
    solution.pgfleet("migrate --service {}_trip").exits(1).says("was edited");
    let accepted = solution.pgfleet("migration accept 1 --service {}_trip").exits(0);
    accepted.says("+create table trips (id bigint primary key);").says("1_trips is accepted");
    solution.pgfleet("status --check").exits(0);
    solution.pgfleet("migration accept 1 --service {}_trip").exits(1).says("the file is what was applied");

    file("3_x.up.sql", "-- pgfleet: no-transaction\nselect 1;\nselect 1/0;\n");
    solution.pgfleet("migrate --service {}_trip").exits(1);
    solution.pgfleet("migration reset 3 --service {}_trip").exits(0).says("begins again with the next run");
    assert_eq!(solution.column("control", state).await, ["2 behind"]);
    solution.pgfleet("migration reset 3 --service {}_trip").exits(1);
    let audited = "select action from control.audit where subject = '{}_trip' and detail ? 'applied' order by id";
    assert_eq!(
        solution.column("control", audited).await,
        ["migrate", "resume", "forget", "mark-applied", "accept", "reset"]
    );
}

#[tokio::test]
async fn elsewhere_than_on_a_laptop_somebody_has_to_agree() {
    let solution = Solution::new().await;
    let trip = solution.name("trip");
    solution.pgfleet("migrate").exits(0);
    solution.folder.file("pgfleet.staging.toml", "");
    solution.folder.file(&format!("services/{trip}/migrations/1_trips.up.sql"), "create table trips (id bigint);\n");
    let key = std::fs::read_to_string(solution.folder.path().join(".pgfleet/key")).unwrap();
    let staging = |line: &str| {
        let line = format!("migration {line} --service {trip} --env staging");
        let mut command = solution.folder.command(&line.split_whitespace().collect::<Vec<_>>());
        command.env("PGFLEET_KEY", key.trim());
        Ran::of(command)
    };
    staging("accept 1").exits(2).says("+create table trips (id bigint);").says("hint: answer with --yes");
    staging("forget 1").exits(2).says("forget 1_trips of").says("hint: answer with --yes");
    staging("forget 7").exits(1).says("it is not applied");
    let recorded = "select sql from pgfleet.\"{}_trip_migrations\"";
    assert_eq!(solution.column("trip", recorded).await, ["create table trips (id int primary key);\n"]);
    staging("accept 1 --yes").exits(0).says("1_trips is accepted");
    staging("forget 1 --yes").exits(0);
    staging("mark-applied 1").exits(0);
}

#[tokio::test]
async fn one_database_is_mended_without_a_manifest() {
    let bare = Bare::new().await;
    let url = bare.database.url();
    let mend = |verb: &str, more: &[&str]| {
        let mut arguments = vec!["migration", verb, "1", "--url", &url, "--dir", "m"];
        arguments.extend(more);
        bare.folder.run(&arguments)
    };
    let file = bare.file("1_t.sql", "-- pgfleet: no-transaction\ncreate table t (id int);\nselect id from u;");
    bare.migrate(&[]).exits(1).says("hint: `pgfleet migration resume 1 --url URL --dir FOLDER`");
    bare.column("create table u (id int)").await;
    let resumed = mend("resume", &["--json"]).exits(0);
    assert_eq!((&resumed.json()["action"], &resumed.json()["statement"]), (&"resume".into(), &2.into()));
    assert_eq!(bare.versions().await, ["1"]);
    mend("forget", &["--set", "main"]).exits(0);
    mend("reset", &[]).exits(1).says("did not stop in the middle");
    mend("mark-applied", &[]).exits(0);
    std::fs::write(file, "select 1;").unwrap();
    mend("accept", &[]).exits(0).says("+select 1;");
    mend("forget", &["--set", "other"]).exits(1).says("it is not applied");
    bare.folder.run(&["migration", "forget", "1", "--url", &url]).exits(2);
    bare.folder.run(&["migration", "forget", "1"]).exits(2).says("--service");
    bare.folder.run(&["migration", "forget", "one", "--url", &url, "--dir", "m"]).exits(2).says("hint: ");
}
