//! `migrate` over tenants' databases, and `rollout`: words, exit codes, processes that are killed.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Ran, Solution, signal, until};

/// A solution with so many tenants `t00`, `t01`, … in databases of their own.
async fn fleet(tenants: usize) -> Solution {
    let solution = Solution::new().await;
    let (trip, user) = (solution.name("trip"), solution.name("user"));
    solution.manifest(&format!(
        "[services.{trip}]\ntenants = \"own\"\nschema = \"trips\"\n\n[services.{user}]\n\n\
         [migrations]\nmin_retry_wait = \"10ms\"\nmax_retry_wait = \"20ms\"\n"
    ));
    solution.pgfleet("migrate").exits(0);
    let names: Vec<String> = (0..tenants).map(tenant).collect();
    solution.pgfleet(&format!("tenant create {} --concurrency 4", names.join(" "))).exits(0);
    solution
}

fn tenant(number: usize) -> String {
    format!("t{number:02}")
}

/// Writes a migration of `trip` with its way back.
fn migration(solution: &Solution, number: usize, up: &str, down: &str) {
    let folder = format!("services/{}/migrations", solution.name("trip"));
    solution.folder.file(&format!("{folder}/{number}_step.up.sql"), up);
    solution.folder.file(&format!("{folder}/{number}_step.down.sql"), down);
}

/// The name of a tenant's database without the prefix.
async fn database(solution: &Solution, tenant: &str) -> String {
    let sql = format!("select database from control.tenant_strings where tenant = '{tenant}'");
    let name = solution.column("control", &sql).await.remove(0);
    name.strip_prefix(&format!("{}_", solution.prefix)).unwrap().to_owned()
}

async fn versions(solution: &Solution, tenant: &str) -> Vec<String> {
    let database = database(solution, tenant).await;
    solution.column(&database, "select version from pgfleet.\"{}_trip_migrations\" order by version::int").await
}

#[tokio::test]
async fn a_rollout_is_checked_run_halted_mended_and_taken_back() {
    let solution = fleet(5).await;
    solution.pgfleet("migrate").exits(0).says("5 schemas of tenants: nothing to do");
    solution.pgfleet("migrate --check").exits(0);
    solution.pgfleet("migrate --recheck").exits(0).says("rollout 1 is done: 8 of 8 databases done");
    migration(&solution, 2, "create table more (id int primary key);", "drop table more;");
    solution
        .pgfleet("migrate --check")
        .exits(5)
        .says("/t00: 1 pending, 0 to seed; at 1")
        .says("5 schemas of tenants, 5 looked at: 5 pending, 0 blocked");
    solution
        .pgfleet("migrate --dry-run --canary 2")
        .exits(0)
        .prints("create table more")
        .says("wave 0: 1 database of services")
        .says("wave 1: 1 database that tenants' are copied from")
        .says("wave 2: 2 databases of tenants")
        .says("wave 3: 3 databases of tenants");
    assert_eq!(versions(&solution, "t00").await, ["1"], "nothing was changed");
    // One of them is in the way of it.
    let broken = database(&solution, "t03").await;
    solution.column(&broken, "create table trips.more (other int)").await;
    let ran = solution.pgfleet("migrate --canary 0 --max-failures 0 --concurrency 1").exits(1);
    let ran = ran.says("error: cannot apply 2_step to").says("already exists");
    ran.says("rollout 2 is halted: 5 of 7 databases done, 1 failed; a database failed, and at most 0 may")
        .says("hint: mend what failed and try it again: pgfleet rollout retry 2");
    solution.pgfleet("migrate").exits(1).says("error: rollout 2 is halted").says("pgfleet rollout resume 2");
    solution.pgfleet("status").exits(0).says("rollout 2 is halted");
    let shown = solution.pgfleet("rollout show 2").exits(0);
    let shown = shown.prints("state       halted").prints("because     a database failed").prints("t03");
    shown.prints("databases   7: 5 done, 1 failed, 1 waiting");
    let shown = solution.pgfleet("rollout show 2 --json").exits(0).json();
    assert_eq!((&shown["rollout"]["state"], &shown["failed"][0]["tenant"]), (&"halted".into(), &"t03".into()));
    solution.column(&broken, "drop table trips.more").await;
    let json = solution.pgfleet("rollout retry 2 --json").exits(0).json();
    assert_eq!((&json["rollout"]["state"], &json["rollout"]["counts"]["done"]), (&"done".into(), &7.into()));
    for number in 0..5 {
        assert_eq!(versions(&solution, &tenant(number)).await, ["1", "2"]);
    }
    solution.pgfleet("rollout list").exits(0).prints("migrate, every one");
    for verb in ["pause", "resume", "cancel"] {
        solution
            .pgfleet(&format!("rollout {verb} 2"))
            .exits(1)
            .says(&format!("error: cannot {verb} rollout 2: it is done"));
    }
    solution.pgfleet("rollout show 9").exits(3).says("error: there is no rollout 9");
    // One tenant by itself, then what the rollout did, wherever it is still there.
    solution.pgfleet("revert --service {}_trip --tenant t01 --steps 1").exits(0).says("/t01: reverted 1, now at 1");
    solution.pgfleet("revert --service {}_user --tenant t01 --steps 1").exits(3).says("no database of its own");
    solution.pgfleet("revert --service {}_user --rollout 2").exits(1).says("rollout 2 applied nothing of");
    solution.pgfleet("revert --service {}_trip --rollout 2").exits(0).says("rollout 3 is done: 6 of 6 databases done");
    for number in 0..5 {
        assert_eq!(versions(&solution, &tenant(number)).await, ["1"]);
    }
    assert_eq!(solution.column("trip", "select to_regclass('trips.more')").await, ["NULL"], "the host, too");
    // Nobody believes what was known before.
    solution.pgfleet("migrate --tenant t01").exits(0).says("rollout 4 is done: 1 of 1 database done");
    solution.pgfleet("migrate --tenant t01").exits(0).says("nothing to do");
    solution.pgfleet("migrate").exits(0).says("rollout 5 is done");
}

#[tokio::test]
async fn a_rollout_whose_process_is_killed_twenty_times_does_everything_once() {
    let solution = fleet(24).await;
    let five = 2..=6;
    for number in five.clone() {
        let table = format!("step{number}");
        migration(
            &solution,
            number,
            &format!("create table {table} (id int primary key); select pg_sleep(0.01);"),
            &format!("drop table {table};"),
        );
    }
    let mut random = 0xdead_u64;
    let mut deaths = 0;
    while deaths < 20 {
        let mut child = solution.folder.spawn(&["migrate", "--canary", "2", "--concurrency", "3"]);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(100 + (random >> 33) % 500)).await;
        if child.try_wait().unwrap().is_some() {
            break;
        }
        signal(child.id(), Signal::SIGKILL);
        let _dead = child.wait().unwrap();
        deaths += 1;
    }
    assert!(deaths > 2, "it was not interrupted: {deaths}");
    let ran = solution.pgfleet("migrate").exits(0);
    // One rollout, whose number need not be the first: who was killed while he wrote it down has drawn one, too.
    let rollouts = solution.column("control", "select id::text from control.rollouts where state = 'done'").await;
    let [rollout] = &rollouts[..] else { panic!("{rollouts:?}") };
    assert_eq!(solution.column("control", "select count(*) from control.rollouts").await, ["1"]);
    let done = format!("rollout {rollout} is done: 26 of 26 databases done");
    assert!(ran.err.contains(&done) || ran.err.contains("nothing to do"), "{ran:?}");
    let all: Vec<String> = (1..=6).map(|number| number.to_string()).collect();
    for number in 0..24 {
        assert_eq!(versions(&solution, &tenant(number)).await, all);
    }
    // Each target says what was applied there, whichever process did it.
    let complete = "select count(*) from control.rollout_targets where kind = 'tenant' and state = 'done' \
                    and result -> '{}_trip' ->> 'from' = '1' and jsonb_array_length(result -> '{}_trip' -> 'applied') = 5";
    assert_eq!(solution.column("control", complete).await, ["24"]);
    let known = "select count(*) from control.targets where tenant <> '' and state = 'current' and version = '6'";
    assert_eq!(solution.column("control", known).await, ["24"]);
    // So it can be taken back as one.
    solution.pgfleet(&format!("revert --service {{}}_trip --rollout {rollout}")).exits(0);
    for number in 0..24 {
        assert_eq!(versions(&solution, &tenant(number)).await, ["1"]);
    }
}

#[tokio::test]
async fn an_interrupted_rollout_ends_in_order_and_another_process_goes_on() {
    let solution = fleet(6).await;
    migration(&solution, 2, "select pg_sleep(0.2);", "select 1;");
    let child = solution.folder.spawn(&["migrate", "--concurrency", "1"]);
    let wave = "select coalesce(max(wave), 0) from control.rollouts";
    until("tenants are worked on", async || solution.column("control", wave).await == ["3"]).await;
    signal(child.id(), Signal::SIGINT);
    let ran = Ran::end_of(child).exits(130).says("stopping after rolling back what runs");
    ran.says("hint: go on with it: pgfleet rollout resume 1");
    let left = "select count(*) from control.rollout_targets where state = 'running'";
    assert_eq!(solution.column("control", left).await, ["0"]);
    // One pauses it, another is asked to wait for that.
    let child = solution.folder.spawn(&["migrate"]);
    until("it is worked on", async || {
        solution.column("control", "select count(*) from control.rollout_workers").await == ["1"]
    })
    .await;
    solution.pgfleet("rollout pause 1").exits(0).says("rollout 1 is paused").says("pgfleet rollout resume 1");
    Ran::end_of(child).exits(1).says("going on with rollout 1").says("rollout 1 is paused");
    solution.pgfleet("rollout resume 1 --concurrency 4").exits(0).says("rollout 1 is done: 8 of 8 databases done");
}
