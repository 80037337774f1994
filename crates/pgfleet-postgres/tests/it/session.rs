//! Who has a session for himself, and who only seems to.

use pgfleet_local::testing::{PoolMode, Pooler, PoolerOptions, TestDatabase, TestServer};
use pgfleet_postgres::lock::{LockKey, holder, try_lock, unlock};
use pgfleet_postgres::{Address, Connection, Error, ErrorKind, Purpose, connect};

/// What a run asks for, in small.
fn purpose() -> Purpose {
    Purpose::new("test")
        .setting("lock_timeout", "7s")
        .setting("search_path", "\"a b\", public")
        .wish("client_connection_check_interval", "9s")
        .wish("no_such_setting_at_all", "1")
}

async fn through(pooler: &Pooler, database: &TestDatabase, purpose: &Purpose) -> Connection {
    connect(&Address::parse(&pooler.url(&database.url())).unwrap(), purpose).await.unwrap()
}

async fn pooler(database: &TestDatabase, configure: impl FnOnce(&mut PoolerOptions)) -> Pooler {
    Pooler::start(&database.url(), configure).await
}

async fn column(connection: &Connection, sql: &str) -> Vec<String> {
    connection.simple(sql).await.unwrap().iter().map(|row| row.get(0).unwrap().to_owned()).collect()
}

/// What a reader of the error sees.
fn told(error: &Error) -> String {
    format!("{error}\n{}\n{}", std::error::Error::source(error).unwrap(), error.hint().unwrap())
}

/// The advisory locks that anybody holds in a database.
async fn advisory_locks(database: &TestDatabase) -> Vec<String> {
    let connection = connect(&Address::parse(&database.url()).unwrap(), &Purpose::new("test")).await.unwrap();
    column(
        &connection,
        "SELECT objid::text FROM pg_locks WHERE locktype = 'advisory' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await
}

#[tokio::test]
async fn a_direct_connection_is_known_without_a_second_one() {
    let database = TestServer::shared().await.database().await;
    let role = format!("{}_one", database.name);
    let url = Address::parse(&database.url()).unwrap();
    let admin = connect(&url, &Purpose::new("test")).await.unwrap();
    let made = format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 1 PASSWORD 'x'");
    admin.execute_all(&made).await.unwrap();
    // With and without TLS asked for: the process id is read in another way then.
    let local = Address::local(url.port(), &role, "x".to_owned().into(), &database.name);
    for address in [url.with_user(&role, Some("x".to_owned().into())), local] {
        for purpose in [purpose(), Purpose::new("test")] {
            let connection = connect_when_free(&address, &purpose).await;
            assert!(try_lock(&connection, LockKey::Migrate).await.unwrap());
            assert_eq!(connection.restore_sql(), "");
            assert!(unlock(&connection, LockKey::Migrate).await.unwrap());
            connection.close().await;
        }
    }
}

/// The server may still count a connection that was closed a moment ago.
async fn connect_when_free(address: &Address, purpose: &Purpose) -> Connection {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match connect(address, purpose).await {
            Ok(connection) => return connection,
            Err(error) => assert!(
                error.kind() == ErrorKind::Full && std::time::Instant::now() < deadline,
                "{error} {:?}",
                error.server()
            ),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn transaction_mode_is_found_whether_or_not_start_up_parameters_are_taken() {
    let database = TestServer::shared().await.database().await;
    for (ignored, pool_size) in [("", 1), ("", 5), ("extra_float_digits,options", 1), ("extra_float_digits,options", 5)]
    {
        let pooler = pooler(&database, |options| {
            options.ignore_startup_parameters = ignored.to_owned();
            options.pool_size = pool_size;
        })
        .await;
        for purpose in [purpose(), Purpose::new("test")] {
            let connection = through(&pooler, &database, &purpose).await;
            let error = try_lock(&connection, LockKey::Migrate).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Pooler);
            let text = told(&error);
            for words in ["a pooler in transaction mode", "belong to one session", "`direct = ", "pool_mode = session"]
            {
                assert!(text.contains(words), "{words}: {text}");
            }
            assert!(!error.is_retryable());
            assert!(holder(&connection, LockKey::Migrate).await.unwrap().is_none());
            connection.close().await;
        }
        assert!(advisory_locks(&database).await.is_empty(), "{ignored} {pool_size}");
    }
}

/// Where each client seems to have a session for itself, a lock that stays gives it away.
#[tokio::test]
async fn transaction_mode_is_found_also_when_another_client_keeps_the_sessions_apart() {
    let database = TestServer::shared().await.database().await;
    let pooler = pooler(&database, |_| {}).await;
    for round in 0..4 {
        let busy = through(&pooler, &database, &Purpose::new("busy")).await;
        let connection = through(&pooler, &database, &purpose()).await;
        // One session is taken when the other connection asks first, and free when the proof begins.
        busy.execute_all("BEGIN").await.unwrap();
        connection.execute_all("SELECT 1").await.unwrap();
        if round % 2 == 0 {
            busy.execute_all("COMMIT").await.unwrap();
        }
        let error = try_lock(&connection, LockKey::Migrate).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Pooler, "{}", told(&error));
        assert!(holder(&connection, LockKey::Migrate).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn statement_mode_and_a_reset_after_each_transaction_are_found() {
    let database = TestServer::shared().await.database().await;
    let always = |options: &mut PoolerOptions| {
        options.settings.push(("server_reset_query_always".to_owned(), "1".to_owned()));
    };
    let poolers = [
        pooler(&database, |options| options.mode = PoolMode::Statement).await,
        pooler(&database, always).await,
        // Sessions that are handed on as they are.
        pooler(&database, |options| {
            options.mode = PoolMode::Session;
            options.settings.push(("server_reset_query".to_owned(), String::new()));
        })
        .await,
    ];
    for pooler in &poolers {
        let connection = through(pooler, &database, &purpose()).await;
        let error = try_lock(&connection, LockKey::Migrate).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Pooler, "{}", told(&error));
    }
}

#[tokio::test]
async fn session_mode_is_taken_and_the_settings_are_made() {
    let database = TestServer::shared().await.database().await;
    for ignored in ["", "extra_float_digits,options"] {
        let pooler = pooler(&database, |options| {
            options.mode = PoolMode::Session;
            options.ignore_startup_parameters = ignored.to_owned();
            options.pool_size = 2;
        })
        .await;
        let connection = through(&pooler, &database, &purpose()).await;
        assert_eq!(column(&connection, "SHOW lock_timeout").await, ["0"], "a look does not need them");
        assert!(try_lock(&connection, LockKey::Migrate).await.unwrap());
        let all = "SELECT current_setting('lock_timeout') || ' ' || current_setting('search_path') || ' ' || \
                   current_setting('client_connection_check_interval')";
        let ours = ["7s \"a b\", public 9s"];
        assert_eq!(column(&connection, all).await, ours);
        connection
            .execute_all(&format!("SET lock_timeout = 0; RESET ALL; {}", connection.restore_sql()))
            .await
            .unwrap();
        assert_eq!(column(&connection, all).await, ours);

        // The lock keeps others out, whichever way they come, and goes with the connection.
        let direct = connect(&Address::parse(&database.url()).unwrap(), &purpose()).await.unwrap();
        assert!(!try_lock(&direct, LockKey::Migrate).await.unwrap());
        connection.close().await;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !try_lock(&direct, LockKey::Migrate).await.unwrap() {
            assert!(std::time::Instant::now() < deadline, "the lock outlived its connection");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(advisory_locks(&database).await.len(), 1);
    }
}

#[tokio::test]
async fn a_pooler_that_answers_for_a_missing_database_is_not_asked_again() {
    let database = TestServer::shared().await.database().await;
    let pooler = pooler(&database, |_| {}).await;
    let address = Address::parse(&pooler.url(&database.url())).unwrap();
    for address in
        [address.with_database("there_is_none"), address.with_user("nobody_of_ours", Some("x".to_owned().into()))]
    {
        let error = connect(&address, &purpose()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error} {:?}", error.server());
        assert!(error.hint().unwrap().contains("pooler's answer"), "{error} {:?}", error.server());
    }
}
