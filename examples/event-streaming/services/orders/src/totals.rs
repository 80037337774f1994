//! Totals: a projection, whose rows and offset are committed together, so each order counts once.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use pgfleet::Service;
use pgfleet::events::projection::Handled;
use pgfleet::events::{Event, Filter, Project, Projection, Transaction, failed};
use pgfleet::http::Problem;
use pgfleet::messages::MessageBody as _;
use serde_json::{Value, json};

use crate::orders::OrderPlaced;

struct Totals;

impl Project for Totals {
    fn events<'a>(&'a self, transaction: &'a Transaction, events: &'a [Event]) -> Handled<'a> {
        Box::pin(async move {
            for event in events {
                let placed: OrderPlaced = event.data.to()?;
                let sql = "INSERT INTO totals (customer, orders, amount) VALUES ($1, 1, $2) \
                           ON CONFLICT (customer) DO UPDATE SET \
                               orders = totals.orders + 1, amount = totals.amount + EXCLUDED.amount";
                let counted = transaction.execute(sql, &[&placed.customer, &placed.amount]).await;
                counted.map_err(|error| failed(format!("order {} was not counted", placed.order), error))?;
            }
            Ok(())
        })
    }

    fn clear<'a>(&'a self, transaction: &'a Transaction) -> Handled<'a> {
        Box::pin(async move {
            let cleared = transaction.execute("DELETE FROM totals", &[]).await;
            cleared.map(drop).map_err(|error| failed("the totals were not cleared", error))
        })
    }
}

/// The projection, of all orders that are placed. Any number of processes may run it; one at a time works.
pub(crate) fn projection(service: &Service) -> Result<Projection, pgfleet::Error> {
    let placed = Filter { kinds: vec![OrderPlaced::KIND.into()], ..Filter::default() };
    let member = format!("orders-{}", std::process::id());
    Ok(Projection::new(service.event_store()?.clone(), "totals", member, placed, Arc::new(Totals)))
}

/// `GET /totals`
pub(crate) async fn show(State(service): State<Service>) -> Result<Json<Value>, Problem> {
    let mut reader = service.reader().await?;
    let rows = reader.query("SELECT customer, orders, amount FROM totals ORDER BY customer", &[]).await?;
    let mut totals = serde_json::Map::new();
    for row in rows {
        let (orders, amount): (i64, i64) = (row.try_get("orders")?, row.try_get("amount")?);
        totals.insert(row.try_get("customer")?, json!({ "orders": orders, "amount": amount }));
    }
    Ok(Json(Value::Object(totals)))
}

/// `POST /totals/rebuild`: empties them, and has all events counted again.
pub(crate) async fn rebuild(Extension(totals): Extension<Arc<Projection>>) -> Result<&'static str, Problem> {
    totals.rebuild().await?;
    Ok("counted anew")
}
