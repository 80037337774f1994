//! Which host is reached, in which time, and what becomes of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgfleet_local::testing::{Proxy, TestServer, Weather};
use pgfleet_postgres::{Address, Connection, Error, ErrorKind, Purpose, connect, connect_with_guard};

use crate::support::{told, until};

fn purpose() -> Purpose {
    Purpose::new("dialing")
}

/// The database's URL by way of these ports, with more parameters.
fn by(url: &str, ports: &[u16], parameters: &str) -> Address {
    let (before, after) = url.split_once("@127.0.0.1:").unwrap();
    let rest = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    Address::parse(&format!("{before}@{}{rest}?{parameters}", hosts.join(","))).unwrap()
}

async fn one(connection: &Connection, sql: &str) -> String {
    connection.simple(sql).await.unwrap()[0].get(0).unwrap_or_default().to_owned()
}

/// A port where nobody listens.
fn nobody() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_first_host_that_answers_is_taken() {
    let database = TestServer::shared().await.database().await;
    let proxy = Proxy::start(database.server().port()).await;
    let address = by(&database.url(), &[nobody(), proxy.port()], "");
    let connection = connect(&address, &purpose()).await.unwrap();
    assert_eq!(connection.server(), format!("127.0.0.1:{}", proxy.port()));
    assert!(connection.server_version() >= 150_000, "{}", connection.server_version());
    assert!(!connection.in_recovery());
    // A wrong password is not tried at the next host.
    let wrong = by(&database.url(), &[proxy.port(), database.server().port()], "")
        .with_user("postgres", Some("wrong".to_owned().into()));
    let before = proxy.accepted();
    let error = connect(&wrong, &purpose()).await.unwrap_err();
    assert_eq!((error.kind(), proxy.accepted()), (ErrorKind::Denied, before + 1));
    assert!(error.to_string().contains(&proxy.port().to_string()), "{error}");
}

#[tokio::test]
async fn when_nobody_will_do_the_error_names_each_host_and_its_reason() {
    let database = TestServer::shared().await.database().await;
    let (gone, here) = (nobody(), database.server().port());
    let address = by(&database.url(), &[gone, here], "target_session_attrs=standby");
    let error = connect(&address, &purpose()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.is_retryable());
    let text = told(&error);
    for words in
        [format!("127.0.0.1:{gone}: Connection refused"), format!("127.0.0.1:{here}: the server is not a standby")]
    {
        assert!(text.contains(&words), "{words}: {text}");
    }
    let connection =
        connect(&by(&database.url(), &[gone, here], "target_session_attrs=prefer-standby"), &purpose()).await.unwrap();
    assert_eq!(connection.server(), format!("127.0.0.1:{here}"));
}

#[tokio::test]
async fn a_database_that_takes_no_writes_by_default_is_read_only() {
    let database = TestServer::shared().await.database().await;
    let address = |attributes: &str| {
        by(&database.url(), &[database.server().port()], &format!("target_session_attrs={attributes}"))
    };
    let takes = |kind: &'static str| {
        let address = address(kind);
        async move { connect(&address, &purpose()).await.map(|_| ()).map_err(|error: Error| told(&error)) }
    };
    assert_eq!(takes("read-write").await, Ok(()));
    assert!(takes("read-only").await.unwrap_err().contains("the server is not read-only"));
    let admin = connect(&address("any"), &purpose()).await.unwrap();
    let set = format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name);
    admin.execute_all(&set).await.unwrap();
    assert_eq!(takes("read-only").await, Ok(()));
    assert_eq!(takes("primary").await, Ok(()));
    assert!(takes("read-write").await.unwrap_err().contains("read-only by default"));
}

#[tokio::test]
async fn a_host_that_never_answers_costs_its_own_time_only() {
    let database = TestServer::shared().await.database().await;
    let proxy = Proxy::start(database.server().port()).await;
    proxy.set(Weather::Stalled);
    let began = Instant::now();
    let error = connect(&by(&database.url(), &[proxy.port()], "connect_timeout=1"), &purpose()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(told(&error).contains("no answer within 1 s"), "{}", told(&error));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let began = Instant::now();
    let address = by(&database.url(), &[proxy.port(), database.server().port()], "connect_timeout=1");
    let connection = connect(&address, &purpose()).await.unwrap();
    assert_eq!(connection.server(), format!("127.0.0.1:{}", database.server().port()));
    assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_statement_ends_in_time_whatever_the_network_does() {
    let database = TestServer::shared().await.database().await;
    let proxy = Proxy::start(database.server().port()).await;
    let address = by(&database.url(), &[proxy.port()], "");
    let limit = Duration::from_millis(200);

    // The server is there: the statement is stopped and the connection goes on.
    let connection = connect(&address, &purpose()).await.unwrap();
    let error = connection.within(limit, connection.simple("SELECT pg_sleep(60)")).await.unwrap_err();
    assert_eq!((error.kind(), error.sql_state()), (ErrorKind::Statement, Some("57014")), "{}", told(&error));
    assert!(error.to_string().contains("no answer within 200ms"), "{error}");
    let rows = connection.within(Duration::from_mins(1), connection.simple("SELECT 7")).await.unwrap();
    assert_eq!(rows[0].get(0), Some("7"));

    for weather in [Weather::Stalled, Weather::AnswersStalled] {
        proxy.set(Weather::Fair);
        let connection = connect(&address, &purpose()).await.unwrap();
        proxy.set(weather);
        let began = Instant::now();
        let error = connection.within(limit, connection.simple("SELECT 1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{}", told(&error));
        assert!(began.elapsed() < limit + Duration::from_secs(1), "{:?}", began.elapsed());
        until("the connection is closed", || async { connection.is_closed().then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_reset_connection_is_lost_at_once() {
    let database = TestServer::shared().await.database().await;
    let proxy = Proxy::start(database.server().port()).await;
    let connection = connect(&by(&database.url(), &[proxy.port()], ""), &purpose()).await.unwrap();
    let asked = async { connection.simple("SELECT pg_sleep(60)").await.unwrap_err() };
    let cut = async { proxy.set(Weather::Cut) };
    let (error, ()) = tokio::join!(asked, cut);
    assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{}", told(&error));
    let error = connect(&by(&database.url(), &[proxy.port()], ""), &purpose()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", told(&error));
}

#[tokio::test]
async fn cancelling_goes_the_way_of_the_connection() {
    let database = TestServer::shared().await.database().await;
    let proxy = Proxy::start(database.server().port()).await;
    let address = by(&database.url(), &[nobody(), proxy.port()], "");
    let connection = connect(&address, &purpose()).await.unwrap();
    let canceller = connection.canceller();
    let pid = one(&connection, "SELECT pg_backend_pid()").await;
    let admin = connect(&Address::parse(&database.url()).unwrap(), &purpose()).await.unwrap();
    let sleeping = connection.simple("SELECT pg_sleep(60)");
    let cancelling = async {
        let active = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
        until("it sleeps", || async { (one(&admin, &active).await == "1").then_some(()) }).await;
        canceller.cancel().await;
    };
    let (error, ()) = tokio::join!(sleeping, cancelling);
    assert_eq!(error.unwrap_err().sql_state(), Some("57014"));
    assert_eq!(proxy.accepted(), 2);
}

/// A way in which a connection ends, and its name.
type End = (&'static str, fn(Connection));

/// Says when it was dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// However a connection ends: when its guard is gone, so is the server's process.
#[tokio::test]
async fn a_guard_goes_when_the_servers_process_is_gone() {
    let database = TestServer::shared().await.database().await;
    let address = Address::parse(&database.url()).unwrap();
    let admin = connect(&address, &Purpose::new("admin")).await.unwrap();
    let name = format!("{} guarded", database.name);
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    let ends: [End; 4] = [
        ("dropped", drop),
        ("closed", |connection| drop(tokio::spawn(connection.close()))),
        ("cut", |connection| connection.cut()),
        ("client dropped", |connection| drop(connection.into_client())),
    ];
    for round in 0..20 {
        for (end, by) in ends {
            let gone = Arc::new(AtomicBool::new(false));
            let connection = connect_with_guard(&address, &Purpose::new(&name), Flag(gone.clone())).await.unwrap();
            assert_eq!(one(&admin, &count).await, "1", "{end} {round}");
            assert!(!gone.load(Ordering::SeqCst), "{end} {round}");
            by(connection);
            until("the guard is dropped", || async { gone.load(Ordering::SeqCst).then_some(()) }).await;
            assert_eq!(one(&admin, &count).await, "0", "{end} {round}");
        }
    }
    // A session that was ended by others, and a connection that never came to be.
    let gone = Arc::new(AtomicBool::new(false));
    let connection = connect_with_guard(&address, &Purpose::new(&name), Flag(gone.clone())).await.unwrap();
    let ended = format!("SELECT pg_terminate_backend({})", one(&connection, "SELECT pg_backend_pid()").await);
    assert_eq!(one(&admin, &ended).await, "t");
    until("the guard is dropped", || async { gone.load(Ordering::SeqCst).then_some(()) }).await;
    assert_eq!(one(&admin, &count).await, "0");
    let gone = Arc::new(AtomicBool::new(false));
    let wrong = address.with_user("postgres", Some("wrong".to_owned().into()));
    connect_with_guard(&wrong, &Purpose::new(&name), Flag(gone.clone())).await.unwrap_err();
    until("the guard is dropped", || async { gone.load(Ordering::SeqCst).then_some(()) }).await;
}

#[tokio::test]
async fn a_dead_network_does_not_hold_a_guard() {
    let database = TestServer::shared().await.database().await;
    let proxy = Proxy::start(database.server().port()).await;
    let gone = Arc::new(AtomicBool::new(false));
    let connection =
        connect_with_guard(&by(&database.url(), &[proxy.port()], ""), &purpose(), Flag(gone.clone())).await.unwrap();
    proxy.set(Weather::Stalled);
    let (client, driver) = connection.into_parts();
    let began = Instant::now();
    drop(client);
    driver.await.unwrap();
    until("the guard is dropped", || async { gone.load(Ordering::SeqCst).then_some(()) }).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_is_starting_is_passed_over() {
    // Speaks just enough to say that it is starting.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let starting = listener.local_addr().unwrap().port();
    let answering = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 512];
            // The request for TLS, then the start-up message.
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"N").await;
            let _ = stream.read(&mut buffer).await;
            let fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            let _ = stream.write_all(&[b"E".as_slice(), &length, fields].concat()).await;
        }
    });
    let database = TestServer::shared().await.database().await;
    let error = connect(&by(&database.url(), &[starting], ""), &purpose()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", told(&error));
    let address = by(&database.url(), &[starting, database.server().port()], "");
    assert!(connect(&address, &purpose()).await.is_ok());
    answering.abort();
}

#[tokio::test]
async fn any_order_reaches_every_host() {
    let database = TestServer::shared().await.database().await;
    let here = database.server().port();
    let (first, second) = (Proxy::start(here).await, Proxy::start(here).await);
    let address = by(&database.url(), &[first.port(), second.port()], "load_balance_hosts=random");
    until("both are taken", || async {
        connect(&address, &purpose()).await.unwrap().close().await;
        (first.accepted() > 0 && second.accepted() > 0).then_some(())
    })
    .await;
}
