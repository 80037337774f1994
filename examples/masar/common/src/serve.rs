//! How a service runs: it answers from the first moment, works when its schema is there, and ends when it is asked to.

use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use pgfleet::http::{Problem, TenantLayer};
use pgfleet::{Builder, Readiness, Service};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower_service::Service as _;
use tracing_subscriber::EnvFilter;

/// Runs a service as a program: on `PORT` of this machine, until SIGTERM or Ctrl-C.
///
/// `RUST_LOG` says what is logged, to standard error: `RUST_LOG=info,pgfleet::query=debug` shows each statement with
/// its time and rows.
pub async fn run(builder: Builder, port: u16, routes: fn(Service) -> Router) -> ExitCode {
    // When the server undoes a transaction at its commit, sqlx rolls back once more, and the server warns of that.
    let usual = || EnvFilter::new("info,sqlx::postgres::notice=error");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| usual());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let name = builder.name().to_owned();
    // Boxed: a service that starts is large, and this is in the future of each program.
    match Box::pin(try_run(builder, port, routes)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}`: with its causes and what to do about it.
            tracing::error!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn try_run(builder: Builder, port: u16, routes: fn(Service) -> Router) -> Result<(), Box<dyn Error>> {
    let port = match std::env::var("PORT") {
        Ok(text) => text.parse().map_err(|_| format!("PORT is no port: {text:?}"))?,
        Err(_) => port,
    };
    // Only from this machine: nobody is asked who they are.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| format!("cannot listen on port {port}: {error}; set PORT to another one"))?;
    serve(listener, builder, routes, asked_to_end()?).await
}

/// Listens for both signals from this moment on, and waits for one of them.
fn asked_to_end() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending: what has begun is answered");
    })
}

/// Serves until `end`, and then answers what has begun.
///
/// # Errors
///
/// Why the service cannot start.
pub async fn serve(
    listener: TcpListener,
    builder: Builder,
    routes: impl FnOnce(Service) -> Router,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    let front = Front { name: builder.name().into(), readiness: builder.readiness(), routes: Arc::default() };
    tracing::info!(service = &*front.name, address = %listener.local_addr()?, "listening");
    let app = Router::new().route("/health", get(health)).fallback(forward).with_state(front.clone());
    let mut server = std::pin::pin!(async { axum::serve(listener, app).with_graceful_shutdown(end).await });
    // Both at once: who asks for the health while the database is migrated gets an answer.
    let service = tokio::select! {
        started = builder.start() => started?,
        ended = &mut server => return Ok(ended?),
    };
    let metrics = service.clone();
    let routes = routes(service.clone())
        .route(
            "/metrics",
            get(async move || {
                let text = metrics.pool_metrics() + &metrics.message_metrics();
                ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
            }),
        )
        .fallback(async || Problem::new(404, "there is nothing here"))
        // It knows no tenants here, and carries sessions: who wrote something reads it, also from a replica.
        .layer(TenantLayer::new(&service));
    front.routes.get_or_init(|| routes);
    let served = server.await;
    // What is being handled or published is ended first.
    service.shutdown().await;
    Ok(served?)
}

/// What stands before the routes, which are there when the schema is.
#[derive(Clone)]
struct Front {
    name: Arc<str>,
    readiness: Readiness,
    routes: Arc<OnceLock<Router>>,
}

async fn health(State(front): State<Front>) -> Response {
    if front.readiness.is_ready() && front.routes.get().is_some() {
        Json(serde_json::json!({ "service": &*front.name, "status": "ready" })).into_response()
    } else {
        starting().into_response()
    }
}

async fn forward(State(front): State<Front>, request: Request) -> Response {
    match front.routes.get() {
        Some(routes) => match routes.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        None => starting().into_response(),
    }
}

fn starting() -> Problem {
    Problem::new(503, "the service is starting")
}
