//! The orders service: each order is a stream of what happened to it. What customers have ordered is made of the events,
//! and for each order that was placed a message goes to whoever handles it.

mod orders;
mod totals;

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Extension, Router};
use pgfleet::events::{ConfigStore as _, Projection, Retention, RetentionPolicy};
use pgfleet::{Builder, Module, Service};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What the service needs of its database: it migrates when it starts, unless the manifest says otherwise.
pub fn service() -> Builder {
    Service::builder("orders")
        .module(Module::event_streaming())
        .module(Module::outbox())
        .migrations(pgfleet::migrations!("migrations"))
        // Often, so that one sees it; once a minute is the default.
        .keeper(|keeper| keeper.interval = Duration::from_secs(1))
}

/// What it answers.
fn routes(service: Service, totals: Arc<Projection>) -> Router {
    Router::new()
        .route("/health", get(async || "ready"))
        .route("/orders", post(orders::place))
        .route("/orders/{order}", get(orders::show))
        .route("/orders/{order}/pay", post(orders::pay))
        .route("/totals", get(totals::show))
        .route("/totals/rebuild", post(totals::rebuild))
        .layer(Extension(totals))
        .with_state(service)
}

/// Says what is kept: orders for good, refusals only the newest of each customer. The keeper does it.
async fn configure(service: &Service) -> Result<(), pgfleet::Error> {
    let retention = Retention { max_count: Some(2), ..Retention::default() };
    let policy = RetentionPolicy { name: "refusals".into(), streams: "refused-*".into(), retention, enabled: true };
    Ok(service.events()?.set_policy(&policy).await?)
}

/// Runs until SIGTERM or Ctrl-C.
///
/// # Errors
///
/// Why it cannot start, or go on.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let service = Box::pin(service().start()).await?;
    configure(&service).await?;
    let totals = Arc::new(totals::projection(&service)?);
    let port = std::env::var("PORT").ok().map_or(Ok(8091), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let asked_to_end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let server = axum::serve(listener, routes(service.clone(), totals.clone())).with_graceful_shutdown(asked_to_end);
    tokio::select! {
        served = async { server.await } => served?,
        // It tries again what may pass; what it ends with must be seen.
        kept = totals.run() => kept?,
    }
    // The keeper and the relay finish what they are at, and others go on at once.
    service.shutdown().await;
    Ok(())
}
