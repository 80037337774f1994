//! Quoting of identifiers and literals: the only place where names become SQL.

/// Quotes an identifier, always with double quotes.
///
/// Always quoting keeps names like `user`, `order` or `Größe` as they are written. A NUL byte
/// cannot occur in a name on the server; it is dropped here so that it cannot end the message.
///
/// ```
/// assert_eq!(pgfleet_postgres::quote_ident("user"), "\"user\"");
/// assert_eq!(pgfleet_postgres::quote_ident("a\"b"), "\"a\"\"b\"");
/// ```
pub fn quote_ident(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for character in name.chars().filter(|c| *c != '\0') {
        if character == '"' {
            quoted.push('"');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// Quotes a text as a string literal that means the same whatever `standard_conforming_strings` is.
///
/// A text with a backslash becomes an `E'…'` string. Used where a value cannot be bound: in
/// utility statements and in the messages of several statements that apply a migration.
///
/// ```
/// assert_eq!(pgfleet_postgres::quote_literal("it's"), "'it''s'");
/// assert_eq!(pgfleet_postgres::quote_literal("a\\b"), " E'a\\\\b'");
/// ```
pub fn quote_literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 8);
    if text.contains('\\') {
        // The blank keeps the E from joining a word in front of it, as libpq does.
        quoted.push_str(" E");
    }
    quoted.push('\'');
    for character in text.chars().filter(|c| *c != '\0') {
        match character {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// Quotes `schema.name`.
pub fn quote_qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_ident(schema), quote_ident(name))
}
