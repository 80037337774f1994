//! Bookings while everything on their way is killed: each is told, once.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use masar_common::ids::{DriverId, PassengerId, VehicleId};
use masar_common::testing::Client;
use pgfleet_local::StopMode;
use pgfleet_local::testing::{Broker, OwnServer};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

/// How many passengers book at a time.
const PASSENGERS: usize = 8;

/// The seats of the largest vehicle.
const SEATS: usize = 60;

/// What carries the messages here, and can be killed.
enum Bus {
    Postgres(Box<OwnServer>),
    Broker(&'static str, Broker),
}

impl Bus {
    async fn postgres() -> Self {
        let server = durable(60).await;
        pgfleet_brokers::postgres::migrate(
            &pgfleet_postgres::Address::parse(&server.superuser_url("postgres")).unwrap(),
        )
        .await
        .unwrap();
        Self::Postgres(Box::new(server))
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Broker(word, _) => word,
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.superuser_url("postgres"),
            Self::Broker(_, broker) => broker.url(),
        }
    }

    /// Kills it without a word, and starts it again.
    async fn kill(&mut self) {
        match self {
            Self::Postgres(server) => {
                server.stop(StopMode::Immediate).unwrap();
                server.ensure_running().unwrap();
            }
            Self::Broker(_, broker) => {
                broker.kill().await;
                broker.start().await;
            }
        }
    }
}

/// A server that keeps what it said was committed, as those of tests otherwise need not.
async fn durable(connections: u32) -> OwnServer {
    OwnServer::start(|options| {
        options.max_connections = connections;
        options.durable = true;
    })
    .await
    .unwrap()
}

/// A service as a process of its own.
struct Program {
    service: &'static str,
    variables: Vec<(String, String)>,
    child: Child,
    /// Where it listens, when it has said so.
    client: Arc<Mutex<Option<Client>>>,
}

impl Program {
    fn start(service: &'static str, url: &str, bus: &Bus) -> Self {
        let variable = |what: &str| format!("PGFLEET_{}_{what}", service.to_uppercase());
        let variables = vec![
            (variable("URL"), url.to_owned()),
            (variable("MIGRATOR_URL"), url.to_owned()),
            (variable("EVENTS_BROKER"), bus.word().to_owned()),
            (variable("EVENTS_URL"), bus.url()),
        ];
        let client = Arc::default();
        let child = spawn(service, &variables, &client);
        Self { service, variables, child, client }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        *self.client.lock().unwrap() = None;
        self.child = spawn(self.service, &self.variables, &self.client);
    }

    /// Starts it again when it gave up by itself: its database was away for too long.
    fn watch(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            self.kill();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Examples are built with the tests, beside them.
fn program() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join("both")
}

fn spawn(service: &str, variables: &[(String, String)], client: &Arc<Mutex<Option<Client>>>) -> Child {
    let mut child = Command::new(program())
        .arg(service)
        .envs(variables.iter().cloned())
        .env("PORT", "0")
        .env("RUST_LOG", "info,pgfleet=error,sqlx=error")
        .env("NO_COLOR", "1")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (log, client) = (BufReader::new(child.stderr.take().unwrap()), client.clone());
    // Ends with the process, whose log it reads.
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("listening").and_then(|(_, rest)| rest.split_once("address=")) {
                let address: SocketAddr = address.trim().parse().unwrap();
                *client.lock().unwrap() = Some(Client(address));
            }
        }
    });
    child
}

/// Books until so many bookings were confirmed, of all passengers together.
async fn book(client: Arc<Mutex<Option<Client>>>, left: Arc<AtomicUsize>) {
    let passenger = PassengerId::generate();
    let offer = json!({
        "driverId": DriverId::generate(), "vehicleId": VehicleId::generate(), "from": "Cairo", "to": "Alexandria",
        "departure": "2999-01-15T08:00:00+02:00", "price": "1.00", "seats": SEATS,
    });
    let mut trip: Option<(String, i64)> = None;
    while left.load(Ordering::Relaxed) > 0 {
        let now = *client.lock().unwrap();
        let Some(client) = now else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let Some((id, version)) = &mut trip else {
            let made = client.try_send("POST", "/trips", Some(offer.clone())).await;
            trip = made.filter(|made| made.status == 201).map(|made| (made.text("id").to_owned(), 1));
            continue;
        };
        let wanted = json!({ "passengerId": passenger, "seats": 1, "version": *version });
        match client.try_send("POST", &format!("/trips/{id}/bookings"), Some(wanted)).await {
            Some(answer) if answer.status == 201 => {
                *version += 1;
                // The others may have been there first; then this one is one more.
                let _ = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            }
            // No seats are left, or an answer was lost and the version is not known: the next trip.
            _ => trip = None,
        }
    }
}

async fn count(url: &str, sql: &str) -> Option<i64> {
    let address = pgfleet_postgres::Address::parse(url).unwrap();
    let connection = pgfleet_postgres::connect(&address, &pgfleet_postgres::Purpose::new("test")).await.ok()?;
    let rows = connection.query(sql, &[]).await.ok()?;
    rows.first().map(|row| row.get(0))
}

/// So many bookings, and something killed every half second on average.
async fn bookings_are_told_once(mut bus: Bus, bookings: usize, seed: u64) {
    let mut data = durable(100).await;
    for database in ["trip", "notifications"] {
        let made = count(&data.superuser_url("postgres"), &format!("CREATE DATABASE {database}")).await;
        assert_eq!(made, None, "a statement without rows");
    }
    let (trips, told) = (data.superuser_url("trip"), data.superuser_url("notifications"));
    // First, so that there is somebody to tell when the first booking is made.
    let mut notifications = Program::start("notifications", &told, &bus);
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let client = *notifications.client.lock().unwrap();
        if let Some(client) = client
            && client.try_send("GET", "/health", None).await.is_some_and(|answer| answer.status == 200)
        {
            break;
        }
        assert!(Instant::now() < deadline, "the notifications service does not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut trip = Program::start("trip", &trips, &bus);

    let left = Arc::new(AtomicUsize::new(bookings));
    let passengers: Vec<_> = (0..PASSENGERS).map(|_| tokio::spawn(book(trip.client.clone(), left.clone()))).collect();
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = [0_usize; 4];
    // RabbitMQ 3.10 notes the name of a new quorum queue's log half a second later; killed before that, it comes back with
    // a queue that never has a leader.
    let settled = Instant::now() + Duration::from_secs(2);
    let deadline = Instant::now() + Duration::from_mins(10);
    while left.load(Ordering::Relaxed) > 0 {
        assert!(Instant::now() < deadline, "{} bookings are left, {kills:?} kills", left.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(random.random_range(500..2_500))).await;
        // Programs more often than servers, whose start takes longer.
        let mut which = [0, 0, 1, 1, 1, 2, 3][random.random_range(0..7)];
        if which == 2 && Instant::now() < settled {
            which = 1;
        }
        kills[which] += 1;
        match which {
            0 => trip.kill(),
            1 => notifications.kill(),
            2 => bus.kill().await,
            _ => {
                data.stop(StopMode::Immediate).unwrap();
                data.ensure_running().unwrap();
            }
        }
        trip.watch();
        notifications.watch();
    }
    for passenger in passengers {
        passenger.await.unwrap();
    }
    // Now everything is left alone, and must come to an end by itself.
    let bookings_sql = "SELECT count(*) FROM bookings";
    let mut booked = count(&trips, bookings_sql).await.unwrap();
    assert!(booked >= i64::try_from(bookings).unwrap());
    let settled = Instant::now();
    loop {
        trip.watch();
        notifications.watch();
        let told = count(&told, "SELECT count(DISTINCT data->>'booking_id') FROM notifications").await;
        // What a program that was killed had sent may be committed a moment later.
        booked = count(&trips, bookings_sql).await.unwrap_or(booked);
        if told == Some(booked) {
            break;
        }
        assert!(settled.elapsed() < Duration::from_mins(2), "{told:?} of {booked} bookings are told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let all = count(&told, "SELECT count(*) FROM notifications").await;
    assert_eq!(all, Some(booked), "each once");
    eprintln!(
        "{}: {booked} bookings told once; killed: trip {}, notifications {}, the bus {}, the databases {}; settled after {:.1?}",
        bus.word(),
        kills[0],
        kills[1],
        kills[2],
        kills[3],
        settled.elapsed()
    );
}

/// A seed that is printed, or the one that is given to see the same again.
fn seed() -> u64 {
    let seed = std::env::var("MASAR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("MASAR_SEED={seed}");
    seed
}

/// So many bookings, or the 10,000 of a long run (`cargo xtask soak`).
fn bookings(short: usize) -> usize {
    if std::env::var_os("PGFLEET_SOAK_ROUNDS").is_some() { 10_000 } else { short }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookings_are_told_once_over_the_bus_database() {
    bookings_are_told_once(Bus::postgres().await, bookings(1_000), seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookings_are_told_once_over_rabbitmq() {
    bookings_are_told_once(Bus::Broker("rabbitmq", Broker::rabbitmq().await), bookings(500), seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookings_are_told_once_over_nats() {
    bookings_are_told_once(Bus::Broker("nats", Broker::nats().await), bookings(500), seed()).await;
}
