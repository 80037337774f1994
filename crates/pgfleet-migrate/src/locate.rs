//! From the server's error to the line in the user's file.

use pgfleet_postgres::ServerError;
use pgfleet_sql::lexer::{TokenKind, tokens};
use pgfleet_sql::position::{byte_of_char, line_column};

use crate::error::Place;
use crate::set::{place, place_of_line};
use crate::unit::Unit;

/// Where in a unit an error arose.
pub(crate) struct Located {
    /// The statement, counted from 0; none for an error in what we added.
    pub(crate) statement: Option<usize>,
    /// The place in the file.
    pub(crate) place: Option<Place>,
}

/// Finds the place of an error.
///
/// `sent` is the whole message, `part` where the unit's SQL stands in it, `completed` how many of
/// the file's statements the server had finished.
pub(crate) fn locate(
    unit: &Unit<'_>,
    server: &ServerError,
    sent: &str,
    part: &std::ops::Range<usize>,
    completed: usize,
) -> Located {
    // The server's own position is exact; it counts characters from 1 in the whole message.
    if let Some(position) = server.position {
        let byte = byte_of_char(sent, position.saturating_sub(1) as usize);
        if part.contains(&byte) || byte == part.end {
            let offset = byte - part.start;
            let statement = unit.statements.iter().rposition(|statement| statement.start <= offset);
            return Located { statement, place: Some(place(unit.script, unit.source_offset(offset))) };
        }
        // An unfinished last statement runs on into the text that we put behind the file.
        if byte > part.end && completed < unit.statements.len() {
            let end = unit.sql.trim_end().len();
            let statement = unit.statements.len().checked_sub(1);
            return Located { statement, place: Some(place(unit.script, unit.source_offset(end))) };
        }
    }
    // Without a position the statement is the one after the last finished.
    let Some(statement) = unit.statements.get(completed) else {
        return Located { statement: None, place: None };
    };
    let place = inside_body(unit, server, statement.start, statement.end)
        .or_else(|| inside_do(unit, server, statement.start, statement.end))
        .unwrap_or_else(|| place(unit.script, unit.source_offset(statement.start)));
    Located { statement: Some(completed), place: Some(place) }
}

/// Finds the place inside a function's body: among several statements in one message the server
/// gives the position in the body and the body itself.
fn inside_body(unit: &Unit<'_>, server: &ServerError, start: usize, end: usize) -> Option<Place> {
    let (position, body) = server.internal.as_ref()?;
    let at = unit.sql[start..end].find(body.as_str())?;
    let offset = start + at + byte_of_char(body, position.saturating_sub(1) as usize);
    Some(place(unit.script, unit.source_offset(offset)))
}

/// Finds the line inside a `DO` body: PL/pgSQL counts lines from the one where the body begins.
fn inside_do(unit: &Unit<'_>, server: &ServerError, start: usize, end: usize) -> Option<Place> {
    let context = server.context.as_deref()?;
    let frame = context.lines().rfind(|line| line.contains("inline_code_block line "))?;
    let after = &frame[frame.find("inline_code_block line ")? + "inline_code_block line ".len()..];
    let number: u32 = after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    let body = tokens(&unit.sql[start..end])
        .find(|token| matches!(token.kind, TokenKind::DollarString | TokenKind::String | TokenKind::EscapeString))?;
    let first = line_column(&unit.script.text, unit.source_offset(start + body.start)).line;
    Some(place_of_line(unit.script, first + number.checked_sub(1)?, 0))
}
