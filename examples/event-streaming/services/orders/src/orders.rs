//! Orders: decided on what their streams say, and appended to them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use pgfleet::Service;
use pgfleet::events::{Append, Direction, Event, Expected, NewEvent, StreamStore as _};
use pgfleet::http::Problem;
use pgfleet::messages::MessageBody;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// An order was placed: the event, and the message to other services.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OrderPlaced {
    pub(crate) order: String,
    pub(crate) customer: String,
    pub(crate) email: String,
    pub(crate) amount: i64,
}

impl MessageBody for OrderPlaced {
    const KIND: &'static str = "OrderPlaced";

    fn key(&self) -> Option<String> {
        Some(self.order.clone())
    }
}

fn stream_of(order: &str) -> String {
    format!("order-{order}")
}

/// `POST /orders`: the event and the message are there together, or neither is.
pub(crate) async fn place(
    State(service): State<Service>,
    Json(order): Json<OrderPlaced>,
) -> Result<impl IntoResponse, Problem> {
    if order.amount <= 0 {
        let refused = vec![NewEvent::of("OrderRefused", &order)?];
        service.events()?.append(&format!("refused-{}", order.customer), Expected::Any, refused).await?;
        return Err(Problem::new(422, "an order has an amount"));
    }
    let store = service.event_store()?;
    let mut tx = service.begin().await?;
    let events = vec![NewEvent::of(OrderPlaced::KIND, &order)?];
    let append = Append { stream: stream_of(&order.order).into(), expected: Expected::NoStream, events };
    match store.append_in(&tx, vec![append]).await {
        Err(error) if error.is_wrong_version() => return Err(Problem::new(409, "there is an order of that id")),
        appended => appended?,
    };
    service.outbox().publish(&mut tx, &order).await?;
    tx.commit().await?;
    // Whoever waits for events in this process, as the totals do, looks at once.
    store.wake();
    Ok((StatusCode::CREATED, Json(json!({ "order": order.order, "version": 1 }))))
}

async fn read(service: &Service, order: &str) -> Result<Vec<Event>, Problem> {
    let events = service.events()?.read(&stream_of(order), 1, Direction::Forward, 1_000).await?;
    if events.is_empty() { Err(Problem::new(404, "there is no such order")) } else { Ok(events) }
}

/// `POST /orders/{order}/pay`: decided on the version that was read. Of two at once one is told to decide again.
pub(crate) async fn pay(
    State(service): State<Service>,
    Path(order): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let events = read(&service, &order).await?;
    if events.iter().any(|event| &*event.kind == "OrderPaid") {
        return Err(Problem::new(409, "it is paid"));
    }
    let version = events.last().map_or(0, |event| event.version);
    let paid = vec![NewEvent::of("OrderPaid", &json!({}))?];
    match service.events()?.append(&stream_of(&order), Expected::Exact(version), paid).await {
        Ok(appended) => Ok(Json(json!({ "order": order, "version": appended.last }))),
        Err(error) if error.is_wrong_version() => Err(Problem::new(409, "somebody else was faster: try again")),
        Err(error) => Err(error.into()),
    }
}

/// `GET /orders/{order}`: what happened, and how often this program was asked. That is a stream, too, and by the manifest
/// one in memory.
pub(crate) async fn show(
    State(service): State<Service>,
    Path(order): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let events = read(&service, &order).await?;
    let asked = vec![NewEvent::of("Asked", &json!({}))?];
    let asked = service.events()?.append(&format!("seen-{order}"), Expected::Any, asked).await?;
    let kinds: Vec<&str> = events.iter().map(|event| &*event.kind).collect();
    Ok(Json(json!({ "order": order, "events": kinds, "seen": asked.last })))
}
