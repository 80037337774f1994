//! Who leads, and what it costs.

use std::time::{Duration, Instant};

use pgfleet_events_postgres::{Keeper, KeeperOptions};

use super::quick;
use crate::place::{Place, until};
use crate::support::column;

/// The sessions in which a keeper's last statement was run.
const SESSIONS: &str = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                        AND query ~ 'keeper_lead|retain_events|queue_retain|merge_ticks|drop_ticks|queue_clean'";

/// Waits until one of two leads and the other one has seen it; returns them in that order.
async fn sorted(one: Keeper, other: Keeper) -> (Keeper, Keeper) {
    until("one leads and the other one looks", async || {
        let (one, other) = (one.stats(), other.stats());
        one.rounds.max(other.rounds) > 3 && one.looked.max(other.looked) > 3
    })
    .await;
    if one.stats().rounds > 0 { (one, other) } else { (other, one) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_keepers_works_and_the_other_one_takes_over_when_it_is_killed() {
    let place = Place::new().await;
    let other = place.other();
    let (leader, second) = sorted(place.store.keep(quick()), other.keep(quick())).await;
    let (one, two) = (leader.stats(), second.stats());
    assert_eq!((one.elected, one.looked, two.elected, two.rounds), (1, 0, 0, 0));
    // As its process is killed: its task ends where it is, and its connection with it.
    drop(leader);
    let gone = Instant::now();
    column(&place.connect().await, &format!("SELECT count(pg_terminate_backend(pid)) {SESSIONS}")).await;
    until("the other one leads", async || second.stats().rounds > 3).await;
    assert!(gone.elapsed() < Duration::from_secs(5), "{:?}", gone.elapsed());
    assert_eq!(second.stats().elected, 1);
    // Who gives it back has a successor at once.
    let patient = KeeperOptions { lease: Duration::from_mins(10), ..quick() };
    let third = place.store.keep(patient);
    until("the third one has looked", async || third.stats().looked > 1).await;
    let last = second.stop().await;
    assert!(last.rounds > 3 && last.fenced == 0, "{last:?}");
    until("the third one leads", async || third.stats().rounds > 0).await;
    let holder = "SELECT epoch FROM event_streaming.keepers WHERE until > clock_timestamp()";
    assert_eq!(column(&place.connect().await, holder).await, ["3"]);
    third.stop().await;
    assert!(column(&place.connect().await, holder).await.is_empty());
}

#[tokio::test]
async fn a_keeper_whose_connection_is_cut_takes_another_one() {
    let place = Place::new().await;
    let keeper = place.store.keep(quick());
    let connection = place.connect().await;
    for _ in 0..3 {
        let rounds = keeper.stats().rounds;
        until("its connection is cut", async || {
            let cut = format!("SELECT count(pg_terminate_backend(pid)) {SESSIONS}");
            column(&connection, &cut).await != ["0"]
        })
        .await;
        until("it goes on", async || keeper.stats().rounds > rounds + 2).await;
    }
    assert_eq!(keeper.stats().elected, 1, "nobody else has led");
}

#[tokio::test]
async fn a_keeper_that_was_asleep_finds_that_another_one_leads() {
    let place = Place::new().await;
    let keeper = place.store.keep(quick());
    until("it leads", async || keeper.stats().rounds > 0).await;
    let connection = place.connect().await;
    // The lease was over, and somebody else has taken it.
    let taken = "UPDATE event_streaming.keepers SET holder = 'x', epoch = epoch + 1, until = clock_timestamp() + '1 h'";
    connection.execute_all(taken).await.unwrap();
    let rounds = keeper.stats().rounds;
    until("it looks", async || keeper.stats().looked > 3).await;
    assert!(keeper.stats().rounds <= rounds + 1);
    connection.execute_all("UPDATE event_streaming.keepers SET until = '-infinity'").await.unwrap();
    until("it leads again", async || keeper.stats().elected == 2).await;
}

#[tokio::test]
async fn keepers_that_have_nothing_to_do_cost_next_to_nothing() {
    let place = Place::new().await;
    let options = KeeperOptions { interval: Duration::from_millis(300), ..KeeperOptions::default() };
    let connection = place.connect().await;
    let asked = std::cell::Cell::new(0);
    let ask = async |sql: &str| -> u64 {
        asked.set(asked.get() + 1);
        column(&connection, sql).await[0].parse().unwrap()
    };
    let sum = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let before = ask(sum).await;
    let other = place.other();
    let (leader, second) = sorted(place.store.keep(options.clone()), other.keep(options)).await;
    until("some rounds have passed", async || leader.stats().rounds >= 10 && second.stats().looked >= 10).await;
    let (led, looked) = (leader.stop().await, second.stop().await);
    assert_eq!((led.failed, looked.failed, looked.rounds), (0, 0, 0));
    // What a session did is counted when it ends at the latest.
    until("the keepers' sessions have ended", async || ask(&format!("SELECT count(*) {SESSIONS}")).await == 0).await;
    let statements = ask(sum).await - before;
    // In a round five of the one that leads and one of the other one, and what preparing them costs once.
    let most = led.rounds * 5 + looked.looked + 60 + asked.get();
    assert!(statements <= most, "{statements} statements in {} and {} rounds", led.rounds, looked.looked);
    assert!(statements >= led.rounds * 2, "{statements} are too few to have been counted");
}
