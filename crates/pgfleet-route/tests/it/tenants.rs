//! Tenants as a service meets them: known, unknown, disabled, behind, and with nobody to ask.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pgfleet_local::testing::{TestDatabase, TestServer};
use pgfleet_postgres::{Address, Connection, Error as PgError, Purpose, connect, quote_literal};
use pgfleet_route::{DirectoryOptions, Error, Opener, Options, Ready, Router, Rule, Scope, Standing};
use secrecy::SecretString;

use crate::support::{open, until};

/// Strings that nobody sealed; what was sealed for something else is refused.
struct Plain;

impl Opener for Plain {
    fn open(&self, sealed: &[u8], key_id: &str, context: &str) -> Result<SecretString, String> {
        let text = String::from_utf8(sealed.to_vec()).map_err(|error| error.to_string())?;
        let (meant, string) = text.split_once('|').ok_or("no context")?;
        if meant == context && key_id == "k1" { Ok(string.to_owned().into()) } else { Err("another key".to_owned()) }
    }
}

/// A control database with the two functions that a service may call, over a table that the test changes.
struct Stage {
    control: TestDatabase,
    admin: Connection,
    main: TestDatabase,
}

impl Stage {
    async fn new() -> Self {
        let server = TestServer::shared().await;
        let (control, main) = (server.database().await, server.database().await);
        let admin = open(&control.url()).await;
        admin
            .execute_all(
                "CREATE SCHEMA pgfleet_directory; \
                 CREATE TABLE rows (tenant text, state text, connection text, sealed bytea, key_id text); \
                 CREATE TABLE version (version bigint); INSERT INTO version VALUES (1); \
                 CREATE FUNCTION pgfleet_directory.version() RETURNS bigint LANGUAGE sql AS 'SELECT version FROM version'; \
                 CREATE FUNCTION pgfleet_directory.tenants() RETURNS SETOF rows LANGUAGE sql AS 'SELECT * FROM rows'",
            )
            .await
            .unwrap();
        Self { control, admin, main }
    }

    async fn set(&self, tenant: &str, state: &str, connection: Option<(&str, &str)>) {
        let name = quote_literal(tenant);
        let row = match connection {
            Some((connection, string)) => format!(
                "{}, {}, 'k1'",
                quote_literal(connection),
                quote_literal(&format!("tenant/{tenant}/{connection}|{string}"))
            ),
            None => "NULL, NULL, NULL".to_owned(),
        };
        self.admin
            .execute_all(&format!(
                "DELETE FROM rows WHERE tenant = {name}; \
                 INSERT INTO rows VALUES ({name}, {}, {row}); UPDATE version SET version = version + 1",
                quote_literal(state)
            ))
            .await
            .unwrap();
    }

    fn options(&self) -> Options {
        let mut options = Options::new("trip", Address::parse(&self.main.url()).unwrap());
        options.directory = Some(DirectoryOptions {
            address: Address::parse(&self.control.url()).unwrap(),
            opener: Arc::new(Plain),
            interval: Duration::from_millis(50),
        });
        options
    }
}

/// Where a writer gets to, in the scope of a tenant.
async fn database(router: &Router, tenant: &str) -> Result<String, Error> {
    Scope::tenant(tenant)
        .run(async {
            let db = router.writer(None).await?;
            Ok(db.query_one("SELECT current_database()::text", &[]).await?.get(0))
        })
        .await
}

#[tokio::test]
async fn a_tenant_gets_to_its_database_and_nobody_else_does() {
    let stage = Stage::new().await;
    let own = TestServer::shared().await.database().await;
    stage.set("acme", "active", Some(("", &format!("dbname={}", own.name)))).await;
    stage.set("globex", "active", None).await;
    stage.set("initech", "disabled", Some(("", &format!("dbname={}", own.name)))).await;
    stage.set("hooli", "creating", None).await;
    stage.set("broken", "active", Some(("", "postgresql://h:port/x"))).await;
    let router = Router::new(stage.options());
    assert_eq!(database(&router, "acme").await.unwrap(), own.name);
    assert_eq!(database(&router, "globex").await.unwrap(), stage.main.name, "without a string: the main database");
    for (tenant, status, retryable) in
        [("initech", 403, false), ("hooli", 503, true), ("nobody", 404, false), ("broken", 500, false)]
    {
        let error = database(&router, tenant).await.unwrap_err();
        assert_eq!((error.status(), error.is_retryable()), (status, retryable), "{error}");
        assert!(error.to_string().contains(tenant), "{error}");
        assert!(!error.to_string().contains("h:port"), "{error}");
    }
    // The host, and a task without a scope.
    let db = router.writer(None).await.unwrap();
    assert_eq!(db.query_one("SELECT current_database()::text", &[]).await.unwrap().get::<_, &str>(0), stage.main.name);
    let explained = Scope::tenant("acme").run_sync(|| router.explain(None)).unwrap();
    assert_eq!(explained.steps.iter().find(|step| step.outcome.word() == "won").unwrap().rule, Rule::TenantDefault);
    assert_eq!(explained.place.address().database(), own.name);
}

#[tokio::test]
async fn changes_arrive_and_what_did_not_change_keeps_its_pool() {
    let stage = Stage::new().await;
    let server = TestServer::shared().await;
    let (one, two) = (server.database().await, server.database().await);
    stage.set("acme", "active", Some(("", &format!("dbname={}", one.name)))).await;
    let router = Router::new(stage.options());
    assert_eq!(database(&router, "acme").await.unwrap(), one.name);
    let before = Scope::tenant("acme").run_sync(|| router.resolve(None)).unwrap();
    // One that was made just now is found at once.
    stage.set("globex", "active", Some(("trip", &format!("dbname={}", two.name)))).await;
    assert_eq!(database(&router, "globex").await.unwrap(), two.name);
    let after = Scope::tenant("acme").run_sync(|| router.resolve(None)).unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    stage.set("acme", "disabled", None).await;
    until("acme is refused", || async { matches!(database(&router, "acme").await, Err(Error::TenantDisabled { .. })) })
        .await;
    stage.set("acme", "active", Some(("", &format!("dbname={}", two.name)))).await;
    until("acme is served from the other", || async { database(&router, "acme").await.is_ok_and(|n| n == two.name) })
        .await;
}

#[tokio::test]
async fn a_notification_is_quicker_than_asking() {
    let stage = Stage::new().await;
    let own = TestServer::shared().await.database().await;
    stage.set("acme", "active", Some(("", &format!("dbname={}", own.name)))).await;
    let mut options = stage.options();
    if let Some(directory) = &mut options.directory {
        // Longer than the test waits.
        directory.interval = Duration::from_mins(10);
    }
    let router = Router::new(options);
    assert_eq!(database(&router, "acme").await.unwrap(), own.name);
    stage.set("acme", "disabled", None).await;
    stage.admin.execute_all("NOTIFY pgfleet_tenants, 'trip'").await.unwrap();
    until("acme is refused", || async { matches!(database(&router, "acme").await, Err(Error::TenantDisabled { .. })) })
        .await;
}

#[tokio::test]
async fn known_tenants_are_served_while_nobody_can_be_asked() {
    let stage = Stage::new().await;
    let own = TestServer::shared().await.database().await;
    stage.set("acme", "active", Some(("", &format!("dbname={}", own.name)))).await;
    let router = Router::new(stage.options());
    router.refresh().await.unwrap();
    stage.admin.execute_all("DROP SCHEMA pgfleet_directory CASCADE").await.unwrap();
    let error = database(&router, "nobody").await.unwrap_err();
    assert!(matches!(error, Error::TenantsUnknown { .. }), "{error}");
    assert_eq!(error.status(), 503, "nobody is refused: {error}");
    assert_eq!(database(&router, "acme").await.unwrap(), own.name);
    // A service that starts while the control database is away serves its host.
    let mut options = stage.options();
    if let Some(directory) = &mut options.directory {
        directory.address = Address::parse("postgresql://nobody@127.0.0.1:1/none").unwrap();
    }
    let late = Router::new(options);
    let error = database(&late, "acme").await.unwrap_err();
    assert!(matches!(error, Error::TenantsUnknown { .. }) && error.is_retryable(), "{error}");
    late.writer(None).await.unwrap();
}

/// Says that a database is behind until it has a table, and counts how often it looked.
struct NeedsTable(AtomicUsize);

impl Ready for NeedsTable {
    fn look<'a>(
        &'a self,
        address: &'a Address,
    ) -> Pin<Box<dyn Future<Output = Result<Standing, PgError>> + Send + 'a>> {
        Box::pin(async move {
            self.0.fetch_add(1, Ordering::Relaxed);
            let connection = connect(address, &Purpose::new("look")).await?;
            let there = connection.query("SELECT to_regclass('t') IS NOT NULL", &[]).await?[0].get(0);
            connection.close().await;
            let behind = Standing::Behind { have: "nothing".to_owned(), need: "t".to_owned() };
            Ok(if there { Standing::Ready } else { behind })
        })
    }
}

#[tokio::test]
async fn a_tenant_that_is_behind_waits_and_is_looked_at_once() {
    let stage = Stage::new().await;
    let own = TestServer::shared().await.database().await;
    stage.set("acme", "active", Some(("", &format!("dbname={}", own.name)))).await;
    let ready = Arc::new(NeedsTable(AtomicUsize::new(0)));
    let mut options = stage.options();
    options.ready = Some(ready.clone());
    let router = Router::new(options);
    let all = futures_util::future::join_all((0..10).map(|_| database(&router, "acme"))).await;
    for result in all {
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), "tenant acme is not ready: it is at nothing, and t is needed");
        assert_eq!(error.status(), 503);
    }
    assert_eq!(ready.0.load(Ordering::Relaxed), 1);
    open(&own.url()).await.execute_all("CREATE TABLE t ()").await.unwrap();
    until("acme is ready", || async { database(&router, "acme").await.is_ok() }).await;
    let looks = ready.0.load(Ordering::Relaxed);
    for _ in 0..5 {
        database(&router, "acme").await.unwrap();
    }
    assert_eq!(ready.0.load(Ordering::Relaxed), looks, "ready once is ready");
    // The host was never looked at.
    router.writer(None).await.unwrap();
    assert_eq!(ready.0.load(Ordering::Relaxed), looks);
}
