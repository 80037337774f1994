//! What a server said, found in whatever error it is wrapped in.

use std::error::Error;

use tokio_postgres::error::{DbError, Severity};

/// A server's answer to a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The SQLSTATE.
    pub(super) code: String,
    /// The session ended with it.
    pub(super) is_fatal: bool,
}

/// Looks through an error and its causes; none when no server spoke.
pub(super) fn answer(error: &(dyn Error + 'static)) -> Option<Answer> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(answer) = of(error) {
            return Some(answer);
        }
        next = error.source();
    }
    None
}

fn of(error: &(dyn Error + 'static)) -> Option<Answer> {
    if let Some(error) = error.downcast_ref::<DbError>() {
        // The unlocalised severity; every server that we support sends it.
        let is_fatal = matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
        return Some(Answer { code: error.code().code().to_owned(), is_fatal });
    }
    if let Some(error) = error.downcast_ref::<pgfleet_postgres::ServerError>() {
        let is_fatal = matches!(error.severity.as_str(), "FATAL" | "PANIC");
        return Some(Answer { code: error.code.clone(), is_fatal });
    }
    #[cfg(feature = "sqlx")]
    if let Some(error) = of_sqlx(error) {
        return Some(error);
    }
    None
}

#[cfg(feature = "sqlx")]
fn of_sqlx(error: &(dyn Error + 'static)) -> Option<Answer> {
    use sqlx::postgres::{PgDatabaseError, PgSeverity};

    // An error that hands on its cause's causes leaves the first of these out.
    let error = match error.downcast_ref::<sqlx::Error>() {
        Some(error) => error.as_database_error()?,
        None => error.downcast_ref::<Box<dyn sqlx::error::DatabaseError>>()?.as_ref(),
    };
    let error = error.try_downcast_ref::<PgDatabaseError>()?;
    let is_fatal = matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic);
    Some(Answer { code: error.code().to_owned(), is_fatal })
}

#[cfg(test)]
mod tests {
    use pgfleet_postgres::ServerError;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] ServerError);

    #[test]
    fn an_answer_is_found_below_other_errors() {
        let json = r#"{"severity": "FATAL", "code": "57P01", "message": "no"}"#;
        let server: ServerError = serde_json::from_str(json).unwrap();
        let expected = Answer { code: "57P01".to_owned(), is_fatal: true };
        assert_eq!(answer(&Outer(server)), Some(expected));
        assert_eq!(answer(&std::io::Error::other("no server")), None);
    }
}
