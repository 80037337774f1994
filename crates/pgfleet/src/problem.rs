//! What a client is told when its request cannot be done.

use std::fmt;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::values::Found;

/// How long a client should wait before it tries again.
const WAIT_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A problem document (`application/problem+json`, RFC 9457): the error type of handlers.
///
/// Made of an [`Error`], and of everything that one is made of, it has the status that [`Error::status`] says, and the
/// present `version` where somebody else changed the row. What only an operator can mend is told to the log, with its
/// causes, when the answer is made, and to the client only that it is so.
///
/// ```
/// use pgfleet::Service;
/// use pgfleet::http::Problem;
///
/// async fn register(service: &Service, phone_number: &str) -> Result<(), Problem> {
///     let db = service.writer().await?;
///     let sql = "INSERT INTO drivers (phone_number) VALUES ($1)";
///     db.execute(sql, &[&phone_number]).await.map_err(|error| {
///         let error = pgfleet::Error::from(error);
///         match error.constraint() {
///             Some("ix_drivers_phone_number") => {
///                 Problem::new(409, "the phone number is taken").with("field", "phoneNumber")
///             }
///             _ => error.into(),
///         }
///     })?;
///     Ok(())
/// }
/// ```
///
/// With the feature `axum` it is an answer of axum. It can be the error of the work that [`Tries`](crate::values::Tries)
/// ends: what the database said is its source.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    title: String,
    members: Map<String, Value>,
    cause: Option<Error>,
}

impl Problem {
    /// Makes a document with a status and one sentence for people.
    ///
    /// # Panics
    ///
    /// When the number is no status of HTTP: it has three digits.
    pub fn new(status: u16, title: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).expect("a status of HTTP");
        Self(Box::new(Inner { status, title: title.into(), members: Map::new(), cause: None }))
    }

    /// Says what about this request, as the standard member `detail`.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        self.with("detail", detail.into())
    }

    /// Adds a member of one's own. What cannot be written as JSON becomes `null`.
    #[must_use]
    pub fn with(mut self, member: impl Into<String>, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.0.members.insert(member.into(), value);
        self
    }

    /// Returns the status.
    pub fn status(&self) -> u16 {
        self.0.status.as_u16()
    }

    /// Returns the error that it was made of.
    pub fn error(&self) -> Option<&Error> {
        self.0.cause.as_ref()
    }

    /// Makes the answer. One with status 503 says to wait a second (`Retry-After`).
    pub fn response<R: From<String>>(&self) -> Response<R> {
        let Inner { status, title, members, cause } = &*self.0;
        if let Some(cause) = cause.as_ref().filter(|_| status.is_server_error()) {
            tracing::warn!("{cause:#}");
        }
        let mut body = serde_json::json!({ "type": "about:blank", "status": status.as_u16(), "title": title });
        if let Value::Object(body) = &mut body {
            // One's own `type` goes before the general one.
            body.extend(members.clone());
        }
        let mut response = Response::new(R::from(body.to_string()));
        *response.status_mut() = *status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if *status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, WAIT_SECONDS);
        }
        response
    }
}

impl<E: Into<Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        let error = error.into();
        let status = error.status();
        let told = status < 500 || matches!(error.route(), Some(route) if route.postgres().is_none());
        let title = if told { error.to_string() } else { "the database is not available".to_owned() };
        let mut problem = Self::new(status, title);
        if let Some(Found::Version(version)) = error.conflict().map(crate::values::Conflict::found) {
            problem = problem.with("version", version);
        }
        problem.0.cause = Some(error);
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.title)
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|cause| cause as _)
    }
}

#[cfg(feature = "axum")]
impl axum_core::response::IntoResponse for Problem {
    fn into_response(self) -> axum_core::response::Response {
        self.response()
    }
}

#[cfg(feature = "axum")]
impl axum_core::response::IntoResponse for Error {
    /// As that of [`Problem`].
    fn into_response(self) -> axum_core::response::Response {
        Problem::from(self).response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn body(problem: &Problem) -> Value {
        serde_json::from_str(problem.response::<String>().body()).unwrap()
    }

    #[test]
    fn a_document_says_what_it_was_told() {
        let problem = Problem::new(409, "taken").detail("by another driver").with("field", "phoneNumber");
        let response = problem.response::<String>();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers().get(RETRY_AFTER), None);
        let expected = serde_json::json!({ "type": "about:blank", "status": 409, "title": "taken",
            "detail": "by another driver", "field": "phoneNumber" });
        assert_eq!(body(&problem), expected);
        let typed = Problem::new(409, "taken").with("type", "https://example.org/taken");
        assert_eq!(body(&typed)["type"], "https://example.org/taken");
    }

    #[test]
    fn a_client_hears_of_its_own_mistakes_and_not_of_the_databases_troubles() {
        let wrong = Problem::from("nonsense".parse::<crate::Money>().unwrap_err());
        assert_eq!(wrong.status(), 400);
        assert!(wrong.to_string().contains("\"nonsense\""), "{wrong}");
        let secret = Error::new(ErrorKind::Connection, "cannot reach db.internal");
        let problem = Problem::from(secret);
        assert_eq!(body(&problem)["title"], "the database is not available");
        assert_eq!(problem.error().unwrap().to_string(), "cannot reach db.internal");
        let waits = Problem::new(503, "starting").response::<String>();
        assert_eq!(waits.headers()[RETRY_AFTER], "1");
    }
}
