//! The outbox and its relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgfleet_events::{ErrorKind, Redrive};
use pgfleet_events_postgres::RelayOptions;
use pgfleet_events_postgres::outbox::AfterDead;

use crate::support::{Bench, Scripted, numbered, options, until};

#[tokio::test]
async fn what_was_committed_arrives_and_what_was_rolled_back_does_not() {
    let bench = Bench::new().await;
    let transport = Scripted::default();
    let relay = bench.relay(&transport);
    bench.publish(numbered(1)).await;
    let mut tx = bench.pool.begin().await.unwrap();
    bench.outbox.publish(&mut tx, numbered(2)).await.unwrap();
    tx.rollback().await.unwrap();
    bench.publish(numbered(3)).await;
    transport.wait_for(2).await;
    relay.stop().await;
    assert_eq!(transport.data(), ["1", "3"]);
    let status = bench.outbox.status(&bench.pool).await.unwrap();
    assert_eq!((status.pending, status.sent, status.carried), (0, 2, false));
}

#[tokio::test]
async fn all_that_was_said_of_a_message_arrives() {
    let bench = Bench::new().await;
    let transport = Scripted::default();
    let _relay = bench.relay(&transport);
    let mut message = numbered(1).key("t1").topic("trips");
    message.meta.correlation_id = Some("order 7".into());
    message.meta.causation_id = Some("click 9".into());
    message.meta.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    message.meta.tracestate = Some("a=b".into());
    message.meta.tenant = Some("acme".into());
    message.meta.headers.insert("x".to_owned(), "\"y\"".to_owned());
    bench.publish(message.clone()).await;
    transport.wait_for(1).await;
    let arrived = transport.messages().remove(0);
    assert_eq!((arrived.id, &arrived.data, &arrived.meta), (message.id, &message.data, &message.meta));
    assert_eq!((&*arrived.topic, &*arrived.kind, &*arrived.source), ("trips", "Counted", "trip"));
    assert_eq!(arrived.key.as_deref(), Some("t1"));
    let age = arrived.time.until(pgfleet_events::Moment::now());
    assert!(age < Duration::from_mins(1), "{age:?}");
}

#[tokio::test]
async fn a_relay_that_dies_before_it_noted_what_it_published_leads_to_duplicates_only() {
    let bench = Bench::new().await;
    let transport = Scripted::default();
    let shut = transport.gate().write().await;
    let first = bench.relay(&transport);
    bench.publish(numbered(1)).await;
    transport.wait_for(1).await;
    drop(first);
    drop(shut);
    let _second = bench.relay(&transport);
    transport.wait_for(2).await;
    bench.publish(numbered(2)).await;
    transport.wait_for(3).await;
    assert_eq!(transport.data(), ["1", "1", "2"]);
    let ids: std::collections::HashSet<_> = transport.messages().iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), 2);
}

#[tokio::test]
async fn a_key_that_fails_waits_in_order_while_others_go_on() {
    let bench = Bench::new().await;
    // One message fails until the last one of another key has arrived.
    let last = AtomicBool::new(false);
    let transport = Scripted::answering(move |message, attempt| match message.data.as_str() {
        "3" if attempt < 4 || !last.load(Ordering::Relaxed) => Err(ErrorKind::Failed),
        "29" => {
            last.store(true, Ordering::Relaxed);
            Ok(())
        }
        _ => Ok(()),
    });
    let mut tx = bench.pool.begin().await.unwrap();
    let messages: Vec<_> = (0..30).map(|n| numbered(n).key(format!("k{}", n % 3))).collect();
    bench.outbox.publish_all(&mut tx, &messages).await.unwrap();
    tx.commit().await.unwrap();
    let _relay = bench.relay_with(&transport, RelayOptions { batch: 7, max_attempts: 10_000, ..options() });
    transport.wait_for(30).await;
    for key in 0..3 {
        let of_key: Vec<_> = transport
            .messages()
            .iter()
            .filter(|m| m.key.as_deref() == Some(&format!("k{key}")))
            .map(|m| m.data.as_str().parse::<usize>().unwrap())
            .collect();
        assert_eq!(of_key, (0..30).filter(|n| n % 3 == key).collect::<Vec<_>>());
    }
    // The others did not wait for it.
    let data = transport.data();
    let place = |what: &str| data.iter().position(|one| one == what).unwrap();
    assert!(place("29") < place("3"), "{data:?}");
    until("nothing is put aside", async || bench.outbox.status(&bench.pool).await.unwrap().parked_keys == 0).await;
}

#[tokio::test]
async fn a_poison_message_holds_its_key_until_it_is_retried_in_order() {
    let bench = Bench::new().await;
    let mended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&mended);
    let transport = Scripted::answering(move |message, _| {
        let poison = message.data.as_str() == "1" && !seen.load(Ordering::Relaxed);
        if poison { Err(ErrorKind::Failed) } else { Ok(()) }
    });
    let _relay = bench.relay_with(&transport, RelayOptions { max_attempts: 3, ..options() });
    for n in 0..4 {
        bench.publish(numbered(n).key("a")).await;
        bench.publish(numbered(n + 10).key("b")).await;
    }
    until("it is given up", async || bench.outbox.status(&bench.pool).await.unwrap().dead == 1).await;
    transport.wait_for(5).await;
    bench.publish(numbered(4).key("a")).await;
    until("all behind it wait", async || bench.outbox.status(&bench.pool).await.unwrap().parked == 3).await;
    let dead = bench.outbox.dead_letters(&bench.pool, 10).await.unwrap();
    assert_eq!((dead[0].data.as_str(), dead[0].attempts, dead[0].reason.as_str()), ("1", 3, "refused by the test"));
    let key = bench.outbox.parked_keys(&bench.pool, 10).await.unwrap().remove(0);
    assert_eq!((key.key.as_deref(), key.next_try, key.messages), (Some("a"), None, 3));
    mended.store(true, Ordering::Relaxed);
    let retry = bench.outbox.retry(&bench.pool, &Redrive::Key("a".into())).await.unwrap();
    assert_eq!((retry.messages, retry.keys), (1, 1));
    transport.wait_for(9).await;
    let of_a: Vec<_> =
        transport.messages().iter().filter(|m| m.key.as_deref() == Some("a")).map(|m| m.data.to_string()).collect();
    assert_eq!(of_a, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn later_messages_of_a_dead_ones_key_go_on_where_so_configured() {
    let bench = Bench::new().await;
    let transport =
        Scripted::answering(|message, _| if message.data.as_str() == "1" { Err(ErrorKind::Failed) } else { Ok(()) });
    let _relay =
        bench.relay_with(&transport, RelayOptions { max_attempts: 2, after_dead: AfterDead::GoOn, ..options() });
    for n in 0..4 {
        bench.publish(numbered(n).key("a")).await;
    }
    transport.wait_for(3).await;
    assert_eq!(transport.data(), ["0", "2", "3"]);
    until("the key is free", async || {
        let status = bench.outbox.status(&bench.pool).await.unwrap();
        (status.dead, status.parked_keys) == (1, 0)
    })
    .await;
}

#[tokio::test]
async fn what_is_of_no_use_any_more_is_given_up_and_holds_nothing_back() {
    let bench = Bench::new().await;
    let transport = Scripted::default();
    let mut late = numbered(1).key("a");
    late.deliver_within = Some(Duration::ZERO);
    bench.publish(late).await;
    bench.publish(numbered(2).key("a")).await;
    let _relay = bench.relay(&transport);
    transport.wait_for(1).await;
    assert_eq!(transport.data(), ["2"]);
    until("it is given up", async || bench.outbox.status(&bench.pool).await.unwrap().dead == 1).await;
    let dead = bench.outbox.dead_letters(&bench.pool, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].reason.as_str()), (1, "its time had passed before it could be delivered"));
    bench.outbox.retry(&bench.pool, &Redrive::All).await.unwrap();
    transport.wait_for(2).await;
}

#[tokio::test]
async fn a_delayed_message_waits_for_its_time_and_nobody_waits_for_it() {
    let bench = Bench::new().await;
    let transport = Scripted::default();
    let _relay = bench.relay(&transport);
    let began = std::time::Instant::now();
    bench.publish(numbered(2).delay(Duration::from_millis(700))).await;
    bench.publish(numbered(1).delay(Duration::from_millis(300))).await;
    bench.publish(numbered(0)).await;
    transport.wait_for(2).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    transport.wait_for(3).await;
    assert!(began.elapsed() >= Duration::from_millis(700));
    assert_eq!(transport.data(), ["0", "1", "2"]);
}

#[tokio::test]
async fn of_two_relays_one_carries_and_the_other_takes_over() {
    let bench = Bench::new().await;
    let transport = Scripted::default();
    let relays = [bench.relay(&transport), bench.relay(&transport)];
    for n in 0..50 {
        bench.publish(numbered(n)).await;
    }
    transport.wait_for(50).await;
    let elected: u64 = relays.iter().map(|relay| relay.relay.stats().elected).sum();
    assert_eq!(elected, 1);
    let [first, second] = relays;
    let (carrying, other) = if first.relay.stats().elected == 1 { (first, second) } else { (second, first) };
    drop(carrying);
    bench.publish(numbered(50)).await;
    transport.wait_for(51).await;
    assert_eq!(other.relay.stats().elected, 1);
    assert_eq!(transport.data(), (0..51).map(|n| n.to_string()).collect::<Vec<_>>());
}
