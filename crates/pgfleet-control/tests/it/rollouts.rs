//! Rollouts: waves, halts, several workers, workers that die, servers that go away.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use pgfleet_control::rollouts::{Ask, AskRevert, Begun, Progress, Rollout, RolloutState};
use pgfleet_control::solution::Surroundings;
use pgfleet_control::{Error, ErrorKind};
use pgfleet_local::StopMode;
use pgfleet_local::testing::OwnServer;

use crate::fleet::{Fleet, go, work};
use crate::support::open;
use crate::tenants::silent;

/// How many targets are in which state.
const STATES: &str =
    "select state || ' ' || count(*) from control.rollout_targets group by rollout, state order by rollout, state";

fn message(error: &Error) -> String {
    format!("{error} | {} | {}", error.causes().join(" | "), error.hint().unwrap_or_default())
}

fn plain() -> Ask {
    Ask::default()
}

/// Writes five migrations, of which the third makes the table `third`.
fn five(fleet: &Fleet) {
    for (number, name) in ["first", "second", "third", "fourth", "fifth"].iter().enumerate() {
        fleet.migration(
            &format!("{}_{name}.up.sql", number + 2),
            &format!("create table {name} (id bigint primary key); insert into {name} values (1);"),
        );
        fleet.migration(&format!("{}_{name}.down.sql", number + 2), &format!("drop table {name};"));
    }
}

/// Every tenant has each migration once, and the rollout says so.
async fn accounted_for(fleet: &Fleet, rollout: &Rollout, tenants: usize) {
    assert_eq!((rollout.counts.failed, rollout.counts.waiting, rollout.counts.running), (0, 0, 0), "{rollout:?}");
    let trip = fleet.town.service("trip");
    for number in 0..tenants {
        let tenant = format!("t{number:03}");
        assert_eq!(fleet.versions(&tenant).await, ["1", "2", "3", "4", "5", "6"], "{tenant}");
    }
    let sql = format!(
        "select count(*) from control.rollout_targets where rollout = {} and kind = 'tenant' and state = 'done' \
         and result -> '{trip}' ->> 'from' = '1' and result -> '{trip}' ->> 'to' = '6' \
         and result -> '{trip}' -> 'applied' = \
             '[\"2_first\", \"3_second\", \"4_third\", \"5_fourth\", \"6_fifth\"]'",
        rollout.id
    );
    assert_eq!(fleet.column(&sql).await, [tenants.to_string()], "each target says what was applied");
    let sql =
        format!("select count(*) from control.targets where service = '{trip}' and state = 'current' and tenant <> ''");
    assert_eq!(fleet.column(&sql).await, [tenants.to_string()]);
}

#[tokio::test]
async fn a_rollout_brings_everything_to_head_and_then_nothing_is_left() {
    let fleet = Fleet::new(12).await.verified().await;
    let (_, begun) = fleet.begin(&plain()).await.unwrap();
    assert!(matches!(&begun, Begun::Current(settled) if settled.targets == 12), "{begun:?}");
    fleet.migration("2_more.sql", "alter table things add column more int;");
    let rollout = fleet.roll_out(&Ask { canary: Some(2), ..plain() }).await.unwrap();
    assert_eq!(rollout.state, RolloutState::Done, "{rollout:?}");
    assert_eq!((rollout.counts.done, rollout.counts.total()), (14, 14), "a host, a template, the tenants");
    let waves = "select wave || ' ' || kind || ' ' || count(*) from control.rollout_targets where rollout = 2 \
                 group by wave, kind order by 1";
    assert_eq!(fleet.column(waves).await, ["0 host 1", "1 template 1", "2 tenant 2", "3 tenant 8", "4 tenant 2"]);
    for number in 0..12 {
        assert_eq!(fleet.versions(&format!("t{number:03}")).await, ["1", "2"]);
    }
    let (_, begun) = fleet.begin(&plain()).await.unwrap();
    assert!(matches!(&begun, Begun::Current(settled) if settled.targets == 12), "{begun:?}");
    // Each run is announced, and each target audited.
    let announced = "select count(*), count(distinct target) from control.applied where to_version = '2'";
    assert_eq!(fleet.column(announced).await, ["13"]);
    assert_eq!(
        fleet
            .column("select count(*) from control.audit where action = 'migrate' and detail -> 'applied' <> '[]'")
            .await,
        ["13"]
    );
    let left = "select count(*) from control.rollout_workers";
    assert_eq!(fleet.column(left).await, ["0"]);
    // Whoever looks at everything finds nothing to do there.
    let rollout = fleet.roll_out(&Ask { recheck: true, ..plain() }).await.unwrap();
    assert_eq!((rollout.state, rollout.counts.done), (RolloutState::Done, 15), "both hosts, too");
}

#[tokio::test]
async fn a_tenant_that_is_being_moved_and_is_behind_is_not_told_as_current() {
    let fleet = Fleet::new(3).await.verified().await;
    fleet.column("update control.tenants set moving = true where name = 't001' returning name").await;
    let (_, begun) = fleet.begin(&plain()).await.unwrap();
    let Begun::Current(settled) = begun else { panic!("{begun:?}") };
    assert_eq!((settled.targets, settled.moving), (2, Vec::new()), "it is at head as well");
    fleet.migration("2_more.sql", "alter table things add column more int;");
    let rollout = fleet.roll_out(&plain()).await.unwrap();
    assert_eq!(rollout.state, RolloutState::Done, "{rollout:?}");
    let (solution, begun) = fleet.begin(&plain()).await.unwrap();
    let Begun::Current(settled) = begun else { panic!("{begun:?}") };
    assert_eq!((settled.targets, settled.moving), (2, vec!["t001".to_owned()]));
    let looked = solution.look_at_tenants(&plain(), solution.options(), &silent()).await.unwrap();
    assert_eq!((looked.looked, looked.moving), (0, vec!["t001".to_owned()]));
    fleet.column("update control.tenants set moving = false returning name").await;
    fleet.roll_out(&plain()).await.unwrap();
    assert_eq!(fleet.versions("t001").await, ["1", "2"]);
}

#[tokio::test]
async fn two_hundred_tenants_three_of_them_broken_halt_mended_and_everything_is_accounted_for() {
    let fleet = Fleet::new(200).await;
    for tenant in ["t050", "t100", "t150"] {
        fleet.tenant(tenant, "create table trips.third (other int)").await;
    }
    five(&fleet);
    let ask = Ask { canary: Some(3), max_failures: Some(2), concurrency: Some(4), ..plain() };
    let rollout = fleet.roll_out(&ask).await.unwrap();
    assert_eq!((rollout.state, rollout.counts.failed), (RolloutState::Halted, 3), "{rollout:?}");
    assert_eq!(rollout.reason.as_deref(), Some("3 databases failed, and at most 2 may"));
    assert!(rollout.counts.waiting > 0, "the last ones were not begun: {:?}", rollout.counts);
    let solution = fleet.town.open().await;
    let failed = solution.failed_targets(rollout.id).await.unwrap();
    assert_eq!(failed.iter().map(|target| target.tenant.as_str()).collect::<Vec<_>>(), ["t050", "t100", "t150"]);
    assert!(failed[0].error.contains("4_third") && failed[0].error.contains("already exists"), "{failed:?}");
    // What came before the third stays, in the database and in what is known of it.
    assert_eq!(fleet.versions("t050").await, ["1", "2", "3"]);
    let error = fleet.begin(&plain()).await.unwrap_err();
    assert!(message(&error).contains("rollout 1 is halted"), "{}", message(&error));
    assert!(message(&error).contains("pgfleet rollout retry 1"), "{}", message(&error));
    for tenant in ["t050", "t100"] {
        fleet.tenant(tenant, "drop table trips.third").await;
    }
    // Going on leaves the failed ones as they are, and they do not halt it again.
    let resumed = resume(&fleet, rollout.id, false).await.unwrap();
    assert_eq!((resumed.state, resumed.counts.failed, resumed.counts.waiting), (RolloutState::Done, 3, 0));
    let again = resume(&fleet, rollout.id, true).await.unwrap();
    assert_eq!((again.state, again.counts.failed), (RolloutState::Done, 1), "two were mended");
    fleet.tenant("t150", "drop table trips.third").await;
    let rollout = resume(&fleet, rollout.id, true).await.unwrap();
    accounted_for(&fleet, &rollout, 200).await;
    let error = resume(&fleet, rollout.id, true).await.unwrap_err();
    assert!(message(&error).contains("nothing of rollout 1 failed"), "{}", message(&error));
}

/// Resumes a rollout, or retries what failed of it.
async fn resume(fleet: &Fleet, id: i64, retry: bool) -> Result<Rollout, Error> {
    let mut solution = fleet.town.open().await;
    let plans = if retry {
        solution.retry_rollout(id, &plain(), &silent()).await?
    } else {
        solution.resume_rollout(id, &plain(), &silent()).await?
    };
    let solution = Arc::new(solution);
    Ok(solution.work_on_rollout(id, plans, go(&solution)).await?.rollout)
}

#[tokio::test]
async fn a_tenant_that_goes_first_and_fails_halts_before_the_others() {
    let fleet = Fleet::with(6, "[tenants]\ncanary = [\"t004\"]\n").await;
    fleet.tenant("t004", "create table trips.third (other int)").await;
    five(&fleet);
    let rollout = fleet.roll_out(&Ask { canary: Some(0), ..plain() }).await.unwrap();
    assert_eq!(rollout.state, RolloutState::Halted);
    assert_eq!(rollout.reason.as_deref(), Some("a database of the tenants that go first failed"));
    assert_eq!((rollout.counts.failed, rollout.counts.waiting), (1, 5));
    assert_eq!(fleet.versions("t000").await, ["1"]);
    // A host that fails halts before that.
    let solution = fleet.town.open().await;
    solution.cancel_rollout(rollout.id).await.unwrap();
    fleet.migration("7_bad.sql", "select no_such_thing;");
    let rollout = fleet.roll_out(&plain()).await.unwrap();
    assert_eq!(rollout.reason.as_deref(), Some("a database of the hosts and templates failed"));
    assert_eq!(
        fleet
            .column(
                "select string_agg(distinct kind, ' ') from control.rollout_targets where rollout = 2 and attempts > 0"
            )
            .await,
        ["host"]
    );
}

#[tokio::test]
async fn two_runners_share_one_rollout_and_its_limit() {
    let fleet = Fleet::new(40).await;
    fleet.migration("2_slow.sql", "select pg_sleep(0.05);");
    let ask = Ask { concurrency: Some(3), canary: Some(0), ..plain() };
    let (first, begun) = fleet.begin(&ask).await.unwrap();
    let one = work(&first, begun);
    let (second, begun) = fleet.begin(&plain()).await.unwrap();
    assert!(matches!(begun, Begun::Rollout { id: 1, joined: true, .. }));
    let two = work(&second, begun);
    let sessions = format!(
        "select count(*) from pg_stat_activity where application_name like 'pgfleet migrate {}/t%'",
        fleet.town.service("trip")
    );
    let (mut most, mut workers) = (0, 0);
    while !(one.is_finished() && two.is_finished()) {
        most = most.max(fleet.column(&sessions).await[0].parse::<i32>().unwrap());
        let both = "select count(distinct worker) from control.rollout_targets where state = 'running'";
        workers = workers.max(fleet.column(both).await[0].parse::<i32>().unwrap());
    }
    assert_eq!(most, 3, "never more than the limit, and all of it is used");
    assert_eq!(workers, 2, "both had something to do");
    for ended in [one.await.unwrap().unwrap(), two.await.unwrap().unwrap()] {
        assert_eq!((ended.rollout.state, ended.stopped), (RolloutState::Done, false));
    }
    for number in 0..40 {
        assert_eq!(fleet.versions(&format!("t{number:03}")).await, ["1", "2"]);
    }
    assert_eq!(fleet.column("select max(attempts) from control.rollout_targets").await, ["1"]);
}

#[tokio::test]
async fn a_runner_that_dies_anywhere_leaves_nothing_undone_or_done_twice() {
    let fleet = Fleet::new(40).await;
    five(&fleet);
    let mut random = 0x5eed_u64;
    let mut deaths = 0;
    loop {
        let ask = Ask { canary: Some(2), ..plain() };
        let (solution, begun) = fleet.begin(&ask).await.unwrap();
        let Begun::Rollout { .. } = begun else { break };
        let runner = work(&solution, begun);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        tokio::time::sleep(Duration::from_millis(30 + (random >> 33) % 120)).await;
        if runner.is_finished() {
            runner.await.unwrap().unwrap();
            break;
        }
        runner.abort();
        let _gone = runner.await;
        deaths += 1;
        if deaths == 20 {
            fleet.roll_out(&ask).await.unwrap();
            break;
        }
    }
    assert!(deaths > 2, "it was not interrupted: {deaths}");
    let rollout = fleet.town.open().await.rollout(1).await.unwrap();
    assert_eq!(rollout.state, RolloutState::Done, "{rollout:?}");
    accounted_for(&fleet, &rollout, 40).await;
}

#[tokio::test]
async fn a_tenant_that_comes_during_a_rollout_is_brought_to_head_before_it_ends() {
    let fleet = Fleet::new(8).await;
    // One whose database is old, and which is written down only later.
    let late = fleet.copies(8..9, "main").await;
    fleet.migration("2_more.sql", "select pg_sleep(0.1); alter table things add column more int;");
    let (solution, begun) = fleet.begin(&Ask { concurrency: Some(1), ..plain() }).await.unwrap();
    let runner = work(&solution, begun);
    while fleet.column("select wave from control.rollouts").await != ["3"] {}
    fleet.point(&late, "main").await;
    let ended = runner.await.unwrap().unwrap();
    assert_eq!((ended.rollout.state, ended.rollout.counts.failed), (RolloutState::Done, 0));
    assert_eq!(fleet.versions("t008").await, ["1", "2"]);
    assert_eq!(
        fleet.column("select tenant from control.rollout_targets order by position desc limit 1").await,
        ["t008"]
    );
}

#[tokio::test]
async fn a_paused_rollout_goes_on_where_it_was_and_a_cancelled_one_does_not() {
    let fleet = Fleet::new(10).await;
    fleet.migration("2_slow.sql", "select pg_sleep(0.1);");
    let (solution, begun) = fleet.begin(&Ask { concurrency: Some(1), ..plain() }).await.unwrap();
    let runner = work(&solution, begun);
    while fleet.column("select wave from control.rollouts").await != ["3"] {}
    let paused = solution.pause_rollout(1).await.unwrap();
    assert_eq!(paused.state, RolloutState::Paused);
    assert!(paused.reason.unwrap().starts_with("paused by "));
    let ended = runner.await.unwrap().unwrap();
    assert_eq!((ended.rollout.state, ended.rollout.counts.running), (RolloutState::Paused, 0), "what ran was finished");
    assert!(ended.rollout.counts.waiting > 0);
    let error = fleet.begin(&plain()).await.unwrap_err();
    assert!(message(&error).contains("rollout 1 is paused"), "{}", message(&error));
    // Other files are other work.
    let file = fleet.migration("3_other.sql", "select 1;");
    let error = fleet.begin(&plain()).await.unwrap_err();
    assert!(message(&error).contains("rollout 1 of something else is paused"), "{}", message(&error));
    let error = resume(&fleet, 1, false).await.unwrap_err();
    assert!(message(&error).contains("not those that it began with"), "{}", message(&error));
    std::fs::remove_file(file).unwrap();
    let rollout = resume(&fleet, 1, false).await.unwrap();
    assert_eq!((rollout.state, rollout.counts.done), (RolloutState::Done, rollout.counts.total()));
    for verb in ["pause", "cancel", "resume"] {
        let error = match verb {
            "pause" => solution.pause_rollout(1).await.unwrap_err(),
            "cancel" => solution.cancel_rollout(1).await.unwrap_err(),
            _ => resume(&fleet, 1, false).await.unwrap_err(),
        };
        assert_eq!(error.to_string(), format!("cannot {verb} rollout 1: it is done"));
    }
    fleet.migration("3_other.sql", "select 1;");
    let (solution, _) = fleet.begin(&plain()).await.unwrap();
    solution.cancel_rollout(2).await.unwrap();
    solution.cancel_rollout(2).await.unwrap();
    let error = resume(&fleet, 2, true).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot retry rollout 2: it is cancelled");
    let states = fleet.column("select distinct state from control.rollout_targets where rollout = 2").await;
    assert_eq!(states, ["skipped"]);
    let rollout = fleet.roll_out(&plain()).await.unwrap();
    assert_eq!((rollout.id, rollout.state), (3, RolloutState::Done));
    let error = solution.rollout(7).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Configuration, "there is no rollout 7"));
}

#[tokio::test]
async fn a_runner_that_is_asked_to_stop_leaves_what_it_took_to_others() {
    let fleet = Fleet::new(10).await;
    fleet.migration("2_slow.sql", "select pg_sleep(0.1);");
    let surroundings = Surroundings::default();
    let (solution, begun) = fleet.begin_with(&Ask { concurrency: Some(2), ..plain() }, &surroundings).await.unwrap();
    let runner = work(&solution, begun);
    while fleet.column("select wave from control.rollouts").await != ["3"] {}
    surroundings.stop.ask();
    let ended = runner.await.unwrap().unwrap();
    assert!(ended.stopped);
    assert_eq!((ended.rollout.state, ended.rollout.counts.running), (RolloutState::Running, 0));
    assert_eq!(fleet.column("select count(*) from control.rollout_workers").await, ["0"]);
    let rollout = fleet.roll_out(&plain()).await.unwrap();
    assert_eq!((rollout.id, rollout.state, rollout.counts.failed), (1, RolloutState::Done, 0));
}

#[tokio::test]
async fn what_a_rollout_did_is_taken_back_and_nothing_else() {
    let fleet = Fleet::new(6).await;
    // In one of them it was there before, by another run.
    fleet.migration("2_first.up.sql", "create table first (id int);");
    let down = fleet.migration("2_first.down.sql", "drop table first;");
    let rollout = fleet.roll_out(&Ask { tenants: vec!["t003".to_owned()], ..plain() }).await.unwrap();
    assert_eq!((rollout.id, rollout.counts.total()), (1, 1), "a tenant alone, without hosts and templates");
    let rollout = fleet.roll_out(&plain()).await.unwrap();
    assert_eq!((rollout.id, rollout.state), (2, RolloutState::Done));
    // The files are gone when it is taken back.
    std::fs::remove_file(down).unwrap();
    std::fs::remove_file(fleet.migration("2_first.up.sql", "")).unwrap();
    let solution = Arc::new(fleet.town.open().await);
    let revert = AskRevert { rollout: 2, service: fleet.town.service("trip") };
    let begun = solution.begin_revert(&revert, &plain(), &silent()).await.unwrap();
    let ended = work(&solution, begun).await.unwrap().unwrap();
    assert_eq!((ended.rollout.id, ended.rollout.state), (3, RolloutState::Done), "{ended:?}");
    assert_eq!((ended.rollout.counts.total(), ended.rollout.counts.failed), (6, 0), "five tenants and the host");
    for number in 0..6 {
        let tenant = format!("t{number:03}");
        let expected: &[&str] = if number == 3 { &["1", "2"] } else { &["1"] };
        assert_eq!(fleet.versions(&tenant).await, expected, "{tenant}");
    }
    let host =
        fleet.column("select result::text from control.rollout_targets where rollout = 3 and kind = 'host'").await;
    assert!(host[0].contains("2_first"), "the host is last: {host:?}");
    // Nothing is known of them any more.
    assert_eq!(fleet.column("select tenant from control.targets where tenant <> ''").await, ["t003"]);
    let error = solution.begin_revert(&AskRevert { rollout: 3, ..revert }, &plain(), &silent()).await.unwrap_err();
    assert!(message(&error).contains("rollout 3 took something back itself"), "{}", message(&error));
}

#[tokio::test]
async fn a_server_that_goes_away_holds_up_its_own_databases_only() {
    let mut own = OwnServer::start(|_| {}).await.unwrap();
    let url = own.superuser_url("postgres");
    let sections = format!("[servers.other]\nurl = \"{url}\"\n[tenants]\nservers = [\"main\", \"other\"]\n");
    // The services' own server has to be said, now that there are two.
    let fleet = Fleet::with(10, &sections).await;
    fleet.add_tenants(10..20, "other").await;
    fleet.migration("2_slow.sql", "select pg_sleep(0.05);");
    let (solution, begun) = fleet.begin(&Ask { canary: Some(0), concurrency: Some(1), ..plain() }).await.unwrap();
    let runner = work(&solution, begun);
    let done = "select count(*) from control.rollout_targets where state = 'done' and kind = 'tenant' and server = ";
    while fleet.column(&format!("{done}'other'")).await == ["0"] {}
    own.stop(StopMode::Immediate).unwrap();
    while fleet.column(&format!("{done}'main'")).await != ["10"] {}
    assert!(!runner.is_finished(), "the rest waits for the server");
    own.ensure_running().unwrap();
    let ended = runner.await.unwrap().unwrap();
    assert_eq!((ended.rollout.state, ended.rollout.counts.failed), (RolloutState::Done, 0), "{ended:?}");
    assert_eq!(fleet.column(STATES).await, ["done 23"]);
}

#[tokio::test]
async fn a_server_that_stays_away_counts_as_failing_in_the_end() {
    let own = OwnServer::start(|_| {}).await.unwrap();
    let url = own.superuser_url("postgres");
    let fleet =
        Fleet::with(2, &format!("[servers.other]\nurl = \"{url}\"\n[tenants]\nservers = [\"main\", \"other\"]\n"))
            .await;
    fleet.add_tenants(2..4, "other").await;
    fleet.migration("2_more.sql", "select 1;");
    let (solution, begun) = fleet.begin(&Ask { canary: Some(0), ..plain() }).await.unwrap();
    own.stop(StopMode::Immediate).unwrap();
    let Begun::Rollout { id, plans, .. } = begun else { panic!("{begun:?}") };
    let wave = Arc::new(AtomicI32::new(-1));
    let seen = wave.clone();
    let mut go = go(&solution);
    go.patience = Duration::from_millis(300);
    go.progress = Arc::new(move |progress: &Progress| seen.store(progress.wave, Ordering::SeqCst));
    let ended = solution.work_on_rollout(id, plans, go).await.unwrap();
    // Its template is among the first, which all must go well.
    assert_eq!((ended.rollout.state, ended.rollout.counts.failed), (RolloutState::Halted, 1), "{ended:?}");
    assert_eq!(wave.load(Ordering::SeqCst), 1);
    let failed = solution.failed_targets(id).await.unwrap();
    assert!(failed[0].error.contains("cannot connect"), "{failed:?}");
}

#[tokio::test]
async fn a_control_database_that_goes_away_stops_nothing_and_loses_nothing() {
    let mut own = OwnServer::start(|_| {}).await.unwrap();
    let fleet = Fleet::controlled_by(&own, 12).await;
    fleet.migration("2_slow.sql", "select pg_sleep(0.1);");
    let (solution, begun) = fleet.begin(&Ask { canary: Some(0), concurrency: Some(2), ..plain() }).await.unwrap();
    let runner = work(&solution, begun);
    while fleet.column("select wave from control.rollouts").await != ["3"] {}
    own.stop(StopMode::Immediate).unwrap();
    own.ensure_running().unwrap();
    let ended = runner.await.unwrap().unwrap();
    assert_eq!((ended.rollout.state, ended.rollout.counts.failed), (RolloutState::Done, 0), "{ended:?}");
    assert_eq!(ended.rollout.counts.done, 14);
    let control = open(&own.superuser_url(&fleet.town.service("control"))).await;
    let trip = fleet.town.service("trip");
    // What was finished while nobody could be told is told later.
    let told =
        format!("select count(*) from control.rollout_targets where result -> '{trip}' -> 'applied' = '[\"2_slow\"]'");
    assert_eq!(control.simple(&told).await.unwrap()[0].get(0), Some("13"));
    for number in 0..12 {
        assert_eq!(fleet.versions(&format!("t{number:03}")).await, ["1", "2"]);
    }
}
