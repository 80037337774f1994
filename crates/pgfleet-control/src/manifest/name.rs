//! Names: how a service is called in the environment and in PostgreSQL, and how keys are written.

use toml_edit::Key;

/// The longest identifier that PostgreSQL keeps whole, in bytes.
pub const LONGEST_IDENTIFIER: usize = pgfleet_postgres::name::LONGEST;

/// Returns the form that a service's name has inside environment variables: `order-item` is `ORDER_ITEM`.
///
/// Everything but ASCII letters and digits becomes `_`, because shells accept nothing else.
///
/// ```
/// assert_eq!(pgfleet_control::manifest::env_name("order-item"), "ORDER_ITEM");
/// ```
pub fn env_name(service: &str) -> String {
    service.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Returns a name that PostgreSQL does not cut: see [`pgfleet_postgres::name::short_name`].
pub fn short_name(name: &str) -> String {
    pgfleet_postgres::name::short_name(name, "")
}

/// Says what is wrong with the name of a service or server; names may hold spaces, quotes and capitals.
pub(super) fn name_mistake(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.chars().any(char::is_control) {
        Some("contains a control character")
    } else if name.contains('/') {
        // The name is part of the default folders and of `trip/acme` in messages.
        Some("contains `/`")
    } else if name.starts_with('.') {
        Some("begins with `.`")
    } else {
        None
    }
}

/// Says what is wrong with the name of a database or schema.
pub(super) fn identifier_mistake(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("is empty".into())
    } else if name.chars().any(char::is_control) {
        Some("contains a control character".into())
    } else if name.len() > LONGEST_IDENTIFIER {
        Some(format!("is longer than {LONGEST_IDENTIFIER} bytes, PostgreSQL would cut it"))
    } else {
        None
    }
}

/// Writes a path as TOML does: `services."my service".database`.
pub(super) fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    path.iter().map(|segment| Key::new(segment.as_ref()).to_string()).collect::<Vec<_>>().join(".")
}

/// Finds the candidate that was probably meant.
pub(super) fn closest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wanted.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns the hint for a name that was probably mistyped.
pub(super) fn did_you_mean<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(wanted, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}
