//! Messages of one key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgfleet_events::{Nack, QueueStore as _, Redrive};

use super::place::{LONG, Place, item, number, numbers, receipts, take};

#[tokio::test]
async fn of_a_key_one_is_handed_out_at_a_time_and_others_go_on() {
    let place = Place::new().await;
    let store = &place.store;
    let put = [(1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "b")];
    store.enqueue("q", put.iter().map(|(n, key)| item(*n).key(*key)).collect()).await.unwrap();
    let mut first = store.dequeue("q", "c", 10, LONG).await.unwrap();
    first.sort_by_key(number);
    assert_eq!(numbers(&first), [1, 3]);
    assert!(store.dequeue("q", "c", 10, LONG).await.unwrap().is_empty());
    // Given back, it comes before those behind it.
    store.negative_acknowledge(&receipts(&first[..1]), &Nack::requeue("x")).await.unwrap();
    let again = take(store, "q", 10, LONG).await;
    assert_eq!((numbers(&again), again[0].attempt), (vec![1], 2));
    store.acknowledge(&receipts(&again)).await.unwrap();
    let second = take(store, "q", 10, LONG).await;
    assert_eq!(numbers(&second), [2]);
    let extended = store.extend(&second[0].receipt, LONG).await.unwrap();
    assert!(store.dequeue("q", "c", 10, LONG).await.unwrap().is_empty());
    store.acknowledge(&[extended]).await.unwrap();
    assert_eq!(numbers(&take(store, "q", 10, LONG).await), [4]);
    store.acknowledge(&receipts(&first[1..])).await.unwrap();
    assert_eq!(numbers(&take(store, "q", 10, LONG).await), [5]);
}

#[tokio::test]
async fn a_poison_message_parks_its_key_only_and_it_is_redriven_in_order() {
    let place = Place::new().await;
    let store = &place.store;
    store.enqueue("q", (0..6).map(|n| item(n).key("a")).collect()).await.unwrap();
    let taken = take(store, "q", 10, LONG).await;
    assert_eq!(numbers(&taken), [0]);
    store.negative_acknowledge(&receipts(&taken), &Nack::dead("poison")).await.unwrap();
    // A key in every lane; among them the poisoned one's.
    store.enqueue("q", (0..40).map(|n| item(100 + n).key(format!("k{n}"))).collect()).await.unwrap();
    let mut others = Vec::new();
    while others.len() < 40 {
        let taken = take(store, "q", 100, LONG).await;
        store.acknowledge(&receipts(&taken)).await.unwrap();
        others.extend(numbers(&taken));
    }
    assert!(others.iter().all(|n| *n >= 100));
    store.enqueue("q", vec![item(6).key("a")]).await.unwrap();
    assert!(store.dequeue("q", "c", 10, LONG).await.unwrap().is_empty());
    assert_eq!(store.redrive("q", &Redrive::Key("a".into())).await.unwrap(), 1);
    for expected in 0..7 {
        let taken = take(store, "q", 10, LONG).await;
        assert_eq!(numbers(&taken), [expected]);
        store.acknowledge(&receipts(&taken)).await.unwrap();
    }
    assert_eq!(store.info("q").await.unwrap().unwrap().ready, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_keys_is_kept_while_consumers_die_and_messages_are_poison() {
    const KEYS: usize = 30;
    const EACH: usize = 30;
    let place = Place::new().await;
    place.configure("q", 3, false, 0).await;
    let store = &place.store;
    for n in 0..EACH {
        store.enqueue("q", (0..KEYS).map(|key| item(n).key(format!("k{key}"))).collect()).await.unwrap();
    }
    let done: Arc<Mutex<HashMap<String, Vec<usize>>>> = Arc::default();
    let ended = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let deadline = Instant::now() + Duration::from_secs(50);
    let workers = (0..6).map(|worker| {
        let (store, done, ended) = (store.clone(), Arc::clone(&done), Arc::clone(&ended));
        tokio::spawn(async move {
            while ended.load(std::sync::atomic::Ordering::SeqCst) < KEYS * EACH {
                assert!(Instant::now() < deadline, "not all was handled");
                let taken = store.dequeue("q", &format!("c{worker}"), 5, Duration::from_millis(400)).await.unwrap();
                if taken.is_empty() {
                    store.wait("q", Duration::from_millis(50)).await.unwrap();
                }
                for delivery in taken {
                    let (key, n) = (delivery.key.clone().unwrap().to_string(), number(&delivery));
                    // One message is poison, and now and then a consumer dies.
                    if n == 7 && key == "k3" {
                        store.negative_acknowledge(&[delivery.receipt], &Nack::requeue("poison")).await.unwrap();
                        if delivery.attempt == 3 {
                            ended.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        }
                    } else if delivery.attempt < 3 && rand::random_bool(0.02) {
                        // Died.
                    } else {
                        // Before it is acknowledged: the next of the key may be handled the moment after.
                        done.lock().unwrap().entry(key.clone()).or_default().push(n);
                        if store.acknowledge(&[delivery.receipt]).await.unwrap().done == 1 {
                            ended.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        } else {
                            // It took too long, and the message is somebody else's.
                            let mut done = done.lock().unwrap();
                            let of_key = done.get_mut(&key).unwrap();
                            let at = of_key.iter().position(|other| *other == n).unwrap();
                            of_key.remove(at);
                        }
                    }
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    let done = done.lock().unwrap().clone();
    for key in 0..KEYS {
        let expected: Vec<usize> = (0..EACH).filter(|n| key != 3 || *n != 7).collect();
        assert_eq!(done[&format!("k{key}")], expected, "key k{key}");
    }
    let dead = store.dead_letters("q", 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].attempts), (1, 3));
}
