//! The connections of a service: pools, names, tenants, requests, and sqlx beside our own client.

use std::collections::HashSet;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::routing::get;
use http::{Request, StatusCode};
use pgfleet::http::{SESSION, TenantLayer};
use pgfleet::{Error, ErrorKind, Scope, Service, Session, note_write};
use pgfleet_local::testing::{OwnServer, TestDatabase};
use pgfleet_postgres::{Address, Connection, Purpose, connect, quote_literal};
use ring_like::seal;
use tower_service::Service as _;

use crate::support::{THREE, TWO, database, service};

/// Seals as the command line does.
mod ring_like {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    pub(super) fn seal(key: &str, text: &str, context: &str) -> (String, Vec<u8>) {
        let bytes = BASE64_STANDARD.decode(key).unwrap();
        let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).unwrap());
        let mut sealed = text.as_bytes().to_vec();
        let nonce = [7_u8; 12];
        sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context.as_bytes()), &mut sealed)
            .unwrap();
        (pgfleet_route::key_id(&bytes), [nonce.to_vec(), sealed].concat())
    }
}

const KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

async fn open(database: &TestDatabase) -> Connection {
    connect(&Address::parse(&database.url()).unwrap(), &Purpose::new("test")).await.unwrap()
}

/// A control database with the two functions that services may call.
struct Directory {
    database: TestDatabase,
    admin: Connection,
}

impl Directory {
    async fn new() -> Self {
        let database = database().await;
        let admin = open(&database).await;
        admin
            .execute_all(
                "CREATE SCHEMA pgfleet_directory; \
                 CREATE TABLE rows (tenant text, state text, connection text, sealed bytea, key_id text); \
                 CREATE FUNCTION pgfleet_directory.version() RETURNS bigint LANGUAGE sql AS \
                   'SELECT count(*) FROM rows'; \
                 CREATE FUNCTION pgfleet_directory.tenants() RETURNS SETOF rows LANGUAGE sql AS 'SELECT * FROM rows'",
            )
            .await
            .unwrap();
        Self { database, admin }
    }

    async fn add(&self, tenant: &str, state: &str, string: &str) {
        let (key, sealed) = seal(KEY, string, &format!("tenant/{tenant}/"));
        let (tenant, state) = (quote_literal(tenant), quote_literal(state));
        let sql = format!("INSERT INTO rows VALUES ({tenant}, {state}, '', $1, '{key}')");
        self.admin.execute(&sql, &[(&sealed, pgfleet_postgres::Type::BYTEA)]).await.unwrap();
    }
}

async fn where_am_i(service: &Service) -> Result<String, Error> {
    let db = service.writer().await?;
    Ok(db.query_one("SELECT current_database()::text", &[]).await?.get(0))
}

#[tokio::test]
async fn a_service_writes_reads_and_begins() {
    let database = database().await;
    let service = service(&database, TWO).start().await.unwrap();
    let tx = service.begin().await.unwrap();
    tx.execute("INSERT INTO trips VALUES ($1)", &[&1_i64]).await.unwrap();
    tx.commit().await.unwrap();
    let mut db = service.reader().await.unwrap();
    assert!(!db.is_replica());
    assert_eq!(db.query_one("SELECT count(*) FROM trips", &[]).await.unwrap().get::<_, i64>(0), 1);
    let error = Error::from(db.query("DELETE FROM trips", &[]).await.unwrap_err());
    assert_eq!(error.database().unwrap().sql_state(), Some("25006"));
    let db = service.writer().await.unwrap();
    let error = Error::from(db.execute("INSERT INTO trips VALUES (1)", &[]).await.unwrap_err());
    assert_eq!((error.kind(), error.status()), (ErrorKind::Statement, 500));
    let server = error.database().unwrap().server().unwrap();
    assert_eq!((server.code.as_str(), server.constraint.as_deref()), ("23505", Some("trips_pkey")));
    assert!(service.pool_metrics().contains("pgfleet_pool_requests_total"));
}

#[tokio::test]
async fn a_connection_name_leads_where_it_is_mapped() {
    let (main, other) = (database().await, database().await);
    let service = service(&main, TWO)
        .connection("AbpIdentity")
        .connection_to("AbpPermissionManagement", "administration", other.url())
        .start()
        .await
        .unwrap();
    for (name, database) in [("AbpIdentity", &main), ("AbpPermissionManagement", &other), ("trip", &main)] {
        let db = service.connection(name).writer().await.unwrap();
        let found = db.query_one("SELECT current_database()::text", &[]).await.unwrap();
        assert_eq!(found.get::<_, &str>(0), database.name, "{name}");
    }
    let error = service.connection("Abp").writer().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("AbpPermissionManagement"), "{error}");
}

#[tokio::test]
async fn a_tenant_is_served_when_its_database_has_the_services_migrations() {
    let directory = Directory::new().await;
    let (main, acme) = (database().await, database().await);
    directory.add("acme", "active", &format!("dbname={}", acme.name)).await;
    let start = |folder| service(&main, folder).tenants(directory.database.url(), KEY.to_owned()).start();
    let service = start(THREE).await.unwrap();
    let error = Scope::tenant("acme").run(Box::pin(where_am_i(&service))).await.unwrap_err();
    assert_eq!((error.kind(), error.status(), error.is_retryable()), (ErrorKind::Tenant, 503, true));
    assert_eq!(error.to_string(), "tenant acme is not ready: it is at no version, and 3_fares is needed");
    // Somebody migrates it, to where the service is not yet satisfied, and then all the way.
    crate::support::service(&acme, TWO).start().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = Scope::tenant("acme").run(Box::pin(where_am_i(&service))).await.unwrap_err();
    assert!(error.to_string().contains("it is at 2, and 3_fares is needed"), "{error}");
    crate::support::service(&acme, THREE).start().await.unwrap();
    let mut found = Scope::tenant("acme").run(Box::pin(where_am_i(&service))).await;
    for _ in 0..100 {
        if found.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = Scope::tenant("acme").run(Box::pin(where_am_i(&service))).await;
    }
    assert_eq!(found.unwrap(), acme.name);
    assert_eq!(where_am_i(&service).await.unwrap(), main.name);
    // A key that opens nothing is said to be missing, without the string.
    let wrong = crate::support::service(&main, THREE)
        .tenants(directory.database.url(), "//////////////////////////////////////////8=".to_owned())
        .start()
        .await
        .unwrap();
    let error = Scope::tenant("acme").run(Box::pin(where_am_i(&wrong))).await.unwrap_err();
    assert!(error.to_string().contains("which this service does not have"), "{error}");
}

/// Calls an app, as a server would.
async fn call(app: &axum::Router, request: Request<Body>) -> (StatusCode, String, Option<String>) {
    let response = app.clone().call(request).await.unwrap();
    let session = response.headers().get(SESSION).map(|value| value.to_str().unwrap().to_owned());
    let status = response.status();
    (status, String::from_utf8(to_bytes(response.into_body(), 1 << 16).await.unwrap().to_vec()).unwrap(), session)
}

async fn here(State(service): State<std::sync::Arc<Service>>) -> Result<String, Error> {
    where_am_i(&service).await
}

#[tokio::test]
async fn a_request_runs_in_the_scope_of_its_tenant() {
    #[derive(Clone)]
    struct Claims(&'static str);

    let directory = Directory::new().await;
    let (main, acme) = (database().await, database().await);
    for (tenant, state) in [("acme", "active"), ("gone", "disabled"), ("soon", "creating")] {
        directory.add(tenant, state, &format!("dbname={}", acme.name)).await;
    }
    crate::support::service(&acme, TWO).start().await.unwrap();
    let service = service(&main, TWO).tenants(directory.database.url(), KEY.to_owned()).start().await.unwrap();
    let service = std::sync::Arc::new(service);
    let layer = TenantLayer::new(&service)
        .claim(|claims: &Claims| Some(claims.0.to_owned()))
        .header("x-tenant")
        .subdomain_of("example.org")
        .path_after("/t/");
    let app = |layer: TenantLayer| {
        axum::Router::new()
            .route("/here", get(here))
            .route("/t/{tenant}/here", get(here))
            .with_state(service.clone())
            .layer(layer)
    };
    let open = app(layer.clone());
    let request = |uri: &str| Request::builder().uri(uri).header("host", "api.example.com");
    let plain = |uri: &str| request(uri).body(Body::empty()).unwrap();
    assert_eq!(call(&open, plain("/here")).await.1, main.name, "the host's");
    assert_eq!(call(&open, plain("/t/acme/here")).await.1, acme.name);
    assert_eq!(
        call(&open, request("/here").header("x-tenant", "acme").body(Body::empty()).unwrap()).await.1,
        acme.name
    );
    let subdomain = Request::builder().uri("/here").header("host", "ACME.example.org:443").body(Body::empty()).unwrap();
    assert_eq!(call(&open, subdomain).await.1, acme.name);
    // What was verified goes before what anybody can write.
    let claimed = request("/here").header("x-tenant", "nobody").extension(Claims("acme")).body(Body::empty()).unwrap();
    assert_eq!(call(&open, claimed).await.1, acme.name);
    for (tenant, status) in [("nobody", 404), ("gone", 403), ("soon", 503)] {
        let (found, body, _) = call(&open, plain(&format!("/t/{tenant}/here"))).await;
        assert_eq!(found.as_u16(), status, "{body}");
        assert!(body.contains(tenant) && body.contains("\"status\""), "{body}");
    }
    assert_eq!(call(&app(layer.required()), plain("/here")).await.0, StatusCode::BAD_REQUEST);
    let bad = request("/here").header(SESSION, "nonsense").body(Body::empty()).unwrap();
    assert_eq!(call(&open, bad).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlx_has_the_same_databases_under_the_same_budget() {
    let directory = Directory::new().await;
    let main = database().await;
    let tenants: Vec<TestDatabase> = futures_util::future::join_all((0..6).map(|_| database())).await;
    for (at, tenant) in tenants.iter().enumerate() {
        crate::support::service(tenant, TWO).start().await.unwrap();
        directory.add(&format!("t{at}"), "active", &format!("dbname={}", tenant.name)).await;
    }
    let service = service(&main, TWO)
        .tenants(directory.database.url(), KEY.to_owned())
        .budget(4)
        .pool(|pool| pool.min = 0)
        .start()
        .await
        .unwrap();
    let service = std::sync::Arc::new(service);
    // Six tenants with two requests each at once, some through sqlx, some through our client: four connections.
    let requests = (0..60).map(|request| {
        let (service, name) = (service.clone(), tenants[request % 6].name.clone());
        tokio::spawn(Scope::tenant(format!("t{}", request % 6)).run(async move {
            let found: String = if request % 3 == 0 {
                where_am_i(&service).await.unwrap()
            } else {
                let pool = service.sqlx().await.unwrap();
                sqlx::query_scalar("SELECT current_database()::text").fetch_one(&*pool).await.unwrap()
            };
            assert_eq!(found, name);
        }))
    });
    for request in futures_util::future::join_all(requests).await {
        request.unwrap();
    }
    let budgets = service.router().budgets();
    assert!(budgets.iter().all(|budget| budget.stats().most_open <= 4), "{budgets:?}");
    let pool = service.sqlx().await.unwrap();
    let application: String =
        sqlx::query_scalar("SELECT current_setting('application_name')").fetch_one(&*pool).await.unwrap();
    let timeout: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(&*pool).await.unwrap();
    assert_eq!((application.as_str(), timeout.as_str()), ("trip", "30s"));
    let reader = service.sqlx_reader().await.unwrap();
    let refused = sqlx::query("INSERT INTO trips VALUES (1)").execute(&*reader).await.unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wrote_through_sqlx_reads_it_from_the_replica_or_the_primary() {
    let primary = OwnServer::start(|_| {}).await.unwrap();
    let replica = primary.replica().await.unwrap();
    let service = Service::builder("trip")
        .migrations(TWO)
        .url(primary.superuser_url("postgres"))
        .migrator_url(primary.superuser_url("postgres"))
        .read_url(replica.superuser_url("postgres"))
        .replicas(|options| options.interval = Duration::from_millis(50))
        .start()
        .await
        .unwrap();
    replica.caught_up().await.unwrap();
    let session = Session::new();
    let mut servers = HashSet::new();
    for id in 0..30_i64 {
        if id == 15 {
            replica.pause_replay().await.unwrap();
        }
        let work = async {
            let pool = service.sqlx().await.unwrap();
            let mut db = pool.acquire().await.unwrap();
            sqlx::query("INSERT INTO trips VALUES ($1)").bind(id).execute(&mut *db).await.unwrap();
            note_write(&mut db).await.unwrap();
            let pool = service.sqlx_reader().await.unwrap();
            let row: (i64, bool) =
                sqlx::query_as("SELECT count(*), pg_is_in_recovery() FROM trips").fetch_one(&*pool).await.unwrap();
            row
        };
        let (count, on_replica) = Scope::host().with_session(session.clone()).run(Box::pin(work)).await;
        assert_eq!(count, id + 1);
        servers.insert(on_replica);
    }
    assert_eq!(servers.len(), 2, "both were read");
}
