//! A rollout that meets a tenant whose database is being moved.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use pgfleet_control::moves::{MoveState, Moved};
use pgfleet_control::rollouts::{Ask, Begun, Ended, RolloutState};
use pgfleet_control::tenants::{Home, NewTenant};
use pgfleet_control::{Error, Solution};
use pgfleet_migrate::{Event, Observer};
use tokio::task::JoinHandle;

use crate::fleet::{go, work};
use crate::life::{column, create as create_own, migration, own, told};
use crate::moves::{ONE, Pair, to};
use crate::support::Admin;
use crate::tenants::silent;

/// Holds a move when its copy is made, until it is told to go on.
struct Gate {
    arrived: Mutex<Sender<()>>,
    goes_on: Mutex<Receiver<()>>,
}

impl Observer for Gate {
    fn event(&self, _target: &str, event: &Event) {
        if matches!(event, Event::Done { label, .. } if label == "copy") {
            self.arrived.lock().unwrap().send(()).unwrap();
            // Whatever else this thread was to do is done by another one.
            tokio::task::block_in_place(|| self.goes_on.lock().unwrap().recv()).unwrap();
        }
    }
}

/// A move that is held, and what lets it go on.
struct Held {
    moving: JoinHandle<Result<Moved, Error>>,
    goes_on: Sender<()>,
}

impl Held {
    /// Begins to move the tenant acme, and returns when its copy is made.
    async fn at_copy(pair: &Pair) -> Self {
        let solution = pair.town.open().await;
        let (arrived, arrival) = channel();
        let (goes_on, wait) = channel();
        let gate: Arc<dyn Observer> = Arc::new(Gate { arrived: Mutex::new(arrived), goes_on: Mutex::new(wait) });
        let moving = tokio::spawn(async move { Box::pin(solution.move_tenant("acme", &to("second"), &gate)).await });
        let arrival = tokio::task::spawn_blocking(move || arrival.recv());
        assert!(arrival.await.unwrap().is_ok(), "the move ended before its copy was made");
        Self { moving, goes_on }
    }

    async fn end(self) -> Result<Moved, Error> {
        self.goes_on.send(()).unwrap();
        self.moving.await.unwrap()
    }
}

/// Two tenants on the first server, and a migration that neither has.
async fn pair() -> Pair {
    let pair = Pair::new(Admin::Superuser, ONE).await;
    let solution = pair.town.open().await;
    let home = Home::Own { services: Vec::new(), server: Some("main".to_owned()) };
    create_own(&solution, NewTenant { home, ..own("bolt") }).await.unwrap();
    migration(&pair.town, "trip", "2_more.sql", "alter table things add column more int");
    pair
}

async fn begin(pair: &Pair) -> (Arc<Solution>, Begun) {
    let mut solution = pair.town.open().await;
    let options = solution.options().clone();
    let begun = solution.begin_rollout(&Ask::default(), &options, &silent()).await;
    let begun = begun.unwrap_or_else(|error| panic!("{}", told(&error)));
    (Arc::new(solution), begun)
}

fn rolled(ended: Result<Result<Ended, Error>, tokio::task::JoinError>) -> Ended {
    ended.unwrap().unwrap_or_else(|error| panic!("{}", told(&error)))
}

/// The versions of `trip` in a database, seen by the superuser.
async fn versions(pair: &Pair, server: &str) -> Vec<String> {
    let sql = format!("select version from pgfleet.\"{}_migrations\" order by version::int", pair.town.service("trip"));
    let session = if server == "main" { pair.first().await } else { pair.on_second(&pair.acme).await };
    let found = column(&session, &sql).await;
    session.close().await;
    found
}

/// Waits until a query of the control database says so.
async fn says(pair: &Pair, sql: &str, expected: &[&str]) {
    let control = pair.town.superuser(&pair.town.service("control")).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let found = column(&control, sql).await;
        if found == expected {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{sql}: {found:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

const ACME: &str = "select server || ' ' || state || ' ' || coalesce(error, '-') from control.rollout_targets \
                    where tenant = 'acme'";
const BOLT: &str = "select state from control.rollout_targets where tenant = 'bolt'";

/// Has a rollout that was paused go on while the move is held.
async fn resumed(pair: &Pair) -> JoinHandle<Result<Ended, Error>> {
    let mut solution = pair.town.open().await;
    let plans = solution.resume_rollout(1, &Ask::default(), &silent()).await.unwrap();
    let solution = Arc::new(solution);
    let go = go(&solution);
    tokio::spawn(async move { solution.work_on_rollout(1, plans, go).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_target_that_is_being_moved_is_passed_over_and_done_where_it_arrives() {
    let pair = Box::pin(pair()).await;
    let (solution, begun) = begin(&pair).await;
    assert!(matches!(begun, Begun::Rollout { id: 1, .. }), "{begun:?}");
    solution.pause_rollout(1).await.unwrap();
    let held = Held::at_copy(&pair).await;
    let rollout = resumed(&pair).await;
    says(&pair, ACME, &["main skipped tenant acme is being moved"]).await;
    says(&pair, BOLT, &["done"]).await;
    assert_eq!(versions(&pair, "main").await, ["1"], "the copy is made: nothing is applied to the old one");
    assert!(!rollout.is_finished(), "it ends behind the move");
    let moved = held.end().await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(moved.moves[0].state, MoveState::Done);
    let ended = rolled(rollout.await);
    assert_eq!((ended.rollout.state, ended.rollout.counts.failed), (RolloutState::Done, 0), "{ended:?}");
    assert_eq!(ended.rollout.counts.skipped, 0, "{ended:?}");
    assert_eq!(pair.control(ACME).await, ["second done -"]);
    assert_eq!(
        (versions(&pair, "second").await, pair.told(&solution).await),
        (vec!["1".into(), "2".into()], "active".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rollout_that_begins_during_a_move_ends_behind_it() {
    let pair = Box::pin(pair()).await;
    let held = Held::at_copy(&pair).await;
    let (solution, begun) = begin(&pair).await;
    let rollout = work(&solution, begun);
    says(&pair, BOLT, &["done"]).await;
    assert!(pair.control(ACME).await.is_empty() && !rollout.is_finished());
    held.end().await.unwrap_or_else(|error| panic!("{}", told(&error)));
    let ended = rolled(rollout.await);
    assert_eq!((ended.rollout.state, ended.rollout.counts.failed), (RolloutState::Done, 0), "{ended:?}");
    assert_eq!(pair.control(ACME).await, ["second done -"]);
    assert_eq!(versions(&pair, "second").await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_that_fails_gives_its_target_back() {
    let pair = Box::pin(pair()).await;
    let (solution, _) = begin(&pair).await;
    solution.pause_rollout(1).await.unwrap();
    let held = Held::at_copy(&pair).await;
    let rollout = resumed(&pair).await;
    says(&pair, ACME, &["main skipped tenant acme is being moved"]).await;
    // The two are not the same then.
    pair.on_second(&pair.acme).await.execute_all("create table trips.more ()").await.unwrap();
    let error = held.end().await.unwrap_err();
    assert!(told(&error).contains("is not the same"), "{}", told(&error));
    let ended = rolled(rollout.await);
    assert_eq!((ended.rollout.state, ended.rollout.counts.failed), (RolloutState::Done, 0), "{ended:?}");
    assert_eq!(pair.control(ACME).await, ["main done -"]);
    assert_eq!(versions(&pair, "main").await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_that_nobody_is_at_holds_up_no_rollout() {
    let pair = Box::pin(pair()).await;
    let (solution, _) = begin(&pair).await;
    solution.pause_rollout(1).await.unwrap();
    // As a process leaves it that dies while it copies.
    let left = "with t as (update control.tenants set moving = true where name = 'acme') \
                insert into control.moves (tenant, connections, services, from_server, from_database, from_identifier, \
                  from_oid, from_own, to_server, to_database, state, keep_seconds, os_user, host) \
                select 'acme', '{\"\"}', services, server, database, system_identifier, database_oid, true, 'second', \
                  database, 'copying', 60, 'u', 'h' from control.tenant_databases where tenant = 'acme'";
    pair.control(left).await;
    let ended = rolled(resumed(&pair).await.await);
    assert_eq!((ended.rollout.state, ended.rollout.counts.skipped), (RolloutState::Done, 1), "{ended:?}");
    assert_eq!(pair.control(ACME).await, ["main skipped tenant acme is being moved"]);
    assert_eq!(versions(&pair, "main").await, ["1"]);
    // It is given up, and the next one finds what is to be done.
    Box::pin(solution.cancel_move("acme")).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    let (solution, begun) = begin(&pair).await;
    assert_eq!(rolled(work(&solution, begun).await).rollout.state, RolloutState::Done);
    assert_eq!(versions(&pair, "main").await, ["1", "2"]);
}
