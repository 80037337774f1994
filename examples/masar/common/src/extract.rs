//! The parts of a request, read into types; what cannot be read is refused with a problem document.
//!
//! axum's own extractors refuse with plain text.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use pgfleet::http::Problem;
use serde::de::DeserializeOwned;

/// What the path says: `/drivers/{id}`.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// What the query says: `?limit=20`. Several can read the same one, each what it knows.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// What the body says, as JSON.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(no) => Err(Problem::new(no.status().as_u16(), "the path is not understood").detail(no.body_text())),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(no) => Err(Problem::new(no.status().as_u16(), "the query is not understood").detail(no.body_text())),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(no) => {
                // A value that is none is a bad request here, wherever it stands: in the path, in the query, in the body.
                let status = if matches!(no, JsonRejection::JsonDataError(_)) { 400 } else { no.status().as_u16() };
                Err(Problem::new(status, "the body is not understood").detail(no.body_text()))
            }
        }
    }
}
