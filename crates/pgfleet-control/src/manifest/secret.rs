//! What may be shown of a value that may hold a secret.

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// Says whether the name of a property is one of a secret.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["password", "secret", "token", "key"].iter().any(|word| name.contains(word))
}

/// Returns the value of a property as it may be shown.
pub(super) fn shown_property(name: &str, value: &str) -> String {
    if names_a_secret(name) { HIDDEN.into() } else { value.into() }
}

/// Returns a connection string with its passwords replaced.
///
/// Passwords are often written without the percent encoding that they need. So this takes the *last* `@` as their end
/// and hides rather too much than too little.
pub(super) fn shown_url(url: &str) -> String {
    if url == "local" || url.is_empty() {
        return url.into();
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return shown_pairs(url);
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => match credentials.split_once(':') {
            Some((user, _)) => (format!("{user}:{HIDDEN}@"), rest),
            None => (format!("{credentials}@"), rest),
        },
        None => (String::new(), rest),
    };
    let rest = match rest.split_once('?') {
        Some((path, query)) => {
            let query: Vec<_> = query.split('&').map(shown_parameter).collect();
            format!("{path}?{}", query.join("&"))
        }
        None => rest.into(),
    };
    format!("{scheme}://{user}{rest}")
}

fn shown_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        // A name may be percent encoded, too; then nobody can read it anyway.
        Some((name, _)) if names_a_secret(name) || name.contains('%') => format!("{name}={HIDDEN}"),
        _ => parameter.into(),
    }
}

/// Cuts `Host=…;Password=…` and `host=… password=…` after the first password: a quoted value may hold any separator.
fn shown_pairs(pairs: &str) -> String {
    let lower = pairs.to_ascii_lowercase();
    let password = ["password", "pwd", "passwd", "sslkey"]
        .iter()
        .filter_map(|word| lower.find(word).map(|start| start + word.len()))
        .min();
    match password {
        Some(end) => format!("{}={HIDDEN}", &pairs[..end]),
        None if pairs.contains('=') && !pairs.contains('@') => pairs.into(),
        // A mistyped URL, or a password in the wrong place.
        None => HIDDEN.into(),
    }
}

/// Returns the password inside a URL, to compare it with those that everybody knows.
pub(super) fn url_password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (credentials, _) = rest.rsplit_once('@')?;
    credentials.split_once(':').map(|(_, password)| password)
}

/// Says whether a password is one that tutorials and templates use.
pub(super) fn is_well_known(password: &str) -> bool {
    const KNOWN: &[&str] = &[
        "1q2w3e*", "1q2w3e4r", "123456", "12345678", "admin", "admin123", "changeme", "default", "passw0rd",
        "password", "pgfleet", "postgres", "root", "secret", "test",
    ];
    KNOWN.contains(&password.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_holds_no_password() {
        for (url, expected) in [
            ("local", "local"),
            ("postgres://app@db:5432/x", "postgres://app@db:5432/x"),
            ("postgres://app:pw@db:5432/x?sslmode=require", "postgres://app:***@db:5432/x?sslmode=require"),
            ("postgres://app:p@w/?#x@db/x", "postgres://app:***@db/x"),
            (
                "postgresql://db/x?user=app&password=pw&sslpassword=y",
                "postgresql://db/x?user=app&password=***&sslpassword=***",
            ),
            ("postgresql://db/x?pass%77ord=pw", "postgresql://db/x?pass%77ord=***"),
            ("Host=db;Username=app;Password=\"a;b\";Port=1", "Host=db;Username=app;Password=***"),
            ("host=db user=app password='a b' port=1", "host=db user=app password=***"),
            ("host=db user=app", "host=db user=app"),
            ("postgres:/app:pw@db/x?sslmode=require", "***"),
            ("hunter2", "***"),
        ] {
            assert_eq!(shown_url(url), expected);
        }
    }

    #[test]
    fn properties_are_hidden_by_their_name() {
        assert_eq!(shown_property("admin_email", "a@b"), "a@b");
        for name in ["admin_password", "ClientSecret", "api_token", "signing_key"] {
            assert_eq!(shown_property(name, "x"), "***");
        }
    }
}
