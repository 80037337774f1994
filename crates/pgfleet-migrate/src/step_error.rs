//! What a migration or seeder in Rust fails with.

use std::fmt;

/// An error of a step written in Rust.
///
/// Made of any error by `?`. What the database said is kept, so that a lock time-out, a deadlock or
/// a lost connection is tried again as for a migration in SQL.
pub struct StepError(Box<Inner>);

struct Inner {
    /// The error and what caused it, one line each.
    lines: Vec<String>,
    hint: Option<String>,
    postgres: Option<pgfleet_postgres::Error>,
}

impl StepError {
    /// Makes an error of a sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Inner { lines: vec![message.into()], hint: None, postgres: None }))
    }

    /// Sets the one thing to do.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Returns what the database said.
    pub fn postgres(&self) -> Option<&pgfleet_postgres::Error> {
        self.0.postgres.as_ref()
    }

    pub(crate) fn into_parts(self) -> (Vec<String>, Option<String>, Option<pgfleet_postgres::Error>) {
        let Inner { lines, hint, postgres } = *self.0;
        (lines, hint, postgres)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> Self {
        let boxed: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
        let boxed = match boxed.downcast::<pgfleet_postgres::Error>() {
            Ok(own) => return Self(Box::new(Inner { lines: Vec::new(), hint: None, postgres: Some(*own) })),
            Err(other) => other,
        };
        // An error of the service's own may have the database behind it.
        let mut lines = Vec::new();
        let mut postgres = None;
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&*boxed);
        while let Some(error) = next {
            if let Some(client) = error.downcast_ref::<tokio_postgres::Error>() {
                postgres = pgfleet_postgres::Error::copy_of(client);
                if postgres.is_some() {
                    break;
                }
            }
            lines.push(error.to_string());
            next = error.source();
        }
        Self(Box::new(Inner { lines, hint: None, postgres }))
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.lines.clone();
        if let Some(postgres) = &self.0.postgres {
            match postgres.server() {
                Some(server) => lines.push(server.to_string()),
                None => lines.push(postgres.to_string()),
            }
        }
        f.write_str(&lines.join(": "))
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
