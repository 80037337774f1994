//! What failed on the server: the row of `pgfleet.attempts`.

use serde::{Deserialize, Serialize};

/// One failed statement of a migration or seed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `apply`, `revert` or `seed`.
    pub action: String,
    /// The version, or the name of a repeatable or seed.
    pub version: String,
    /// The description.
    pub description: String,
    /// Which statement of the file, counted from 1; 0 when it is not known.
    pub statement_number: i32,
    /// The statement's text, cut to 10,000 characters.
    pub statement: String,
    /// The file and line, as shown to the user.
    pub place: String,
    /// The SQLSTATE.
    pub sql_state: String,
    /// The server's message.
    pub message: String,
}
