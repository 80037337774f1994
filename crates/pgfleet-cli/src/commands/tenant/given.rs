//! What is given in the arguments, and need not stand there when it is secret.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;

use pgfleet_postgres::Address;
use secrecy::SecretString;

use crate::context::Context;
use crate::error::{CommandError, Exit};

/// Splits `NAME=STRING`, where the name is that of a service or connection, from a string alone.
///
/// A string may be `user=app dbname=acme` where a service is called `user`. So what is behind the `=`
/// decides, too: it must look like a string itself.
pub(super) fn split<'a>(given: &'a str, names: &BTreeSet<&str>) -> (&'a str, &'a str) {
    match given.split_once('=') {
        Some((name, text)) if is_url(text) && !is_url(name) => (name, text),
        Some((name, text)) if names.contains(name) && looks_like_a_string(text) => (name, text),
        _ => ("", given),
    }
}

fn is_url(text: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
}

fn looks_like_a_string(text: &str) -> bool {
    let first = text.split(|c: char| c.is_whitespace() || c == ';').next().unwrap_or_default();
    text == "-" || text.starts_with('@') || first.contains('=')
}

/// Takes a string from the arguments, from the next line of standard input, or from a file.
pub(super) fn secret(context: &Context, given: &str) -> Result<SecretString, CommandError> {
    let from_elsewhere = given == "-" || given.starts_with('@');
    // A password file is named in the arguments, its content is not.
    let shows = !from_elsewhere && Address::parse(given).is_ok_and(|address| address.password().is_some());
    if shows && !given.contains("passfile=") {
        context.talk.note(
            "others on this machine can see the password in the arguments; `-` takes the string from standard input, \
             @FILE from a file",
        );
    }
    let text = text(given, "the connection string")?;
    let text = text.trim();
    if text.is_empty() {
        return Err(CommandError::new(Exit::Usage, "the connection string is empty")
            .hinted("write postgresql://host/database, or dbname=DATABASE"));
    }
    Ok(text.to_owned().into())
}

/// Reads `NAME=VALUE` pairs; `-` takes the value from the next line of standard input, `@FILE` from a file.
pub(super) fn properties(context: &Context, pairs: &[String]) -> Result<BTreeMap<String, SecretString>, CommandError> {
    let mut properties = BTreeMap::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            // What stands there may be a secret.
            return Err(CommandError::new(Exit::Usage, "--property takes NAME=VALUE, NAME=- or NAME=@FILE"));
        };
        let what = format!("the value of {name}");
        if name.ends_with("password") && value != "-" && !value.starts_with('@') {
            context.talk.note(&format!(
                "others on this machine can see {what} in the arguments; `{name}=-` takes it from standard input, \
                 `{name}=@FILE` from a file"
            ));
        }
        properties.insert(name.to_owned(), text(value, &what)?.into());
    }
    Ok(properties)
}

/// Takes a text from the arguments, from the next line of standard input, or from a file.
fn text(given: &str, what: &str) -> Result<String, CommandError> {
    let text = if given == "-" {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(|error| {
            CommandError::new(Exit::Usage, format!("cannot read {what} from standard input")).cause(error.to_string())
        })?;
        line
    } else if let Some(path) = given.strip_prefix('@') {
        std::fs::read_to_string(path).map_err(|error| {
            CommandError::new(Exit::Usage, format!("cannot read {what} from {path}")).cause(error.to_string())
        })?
    } else {
        given.to_owned()
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_before_a_string_is_told_from_a_string() {
        let names = BTreeSet::from(["user", "trip", "AbpIdentity"]);
        for (given, name, text) in [
            ("dbname=acme", "", "dbname=acme"),
            ("postgresql://db/acme?user=app", "", "postgresql://db/acme?user=app"),
            ("user=app dbname=acme", "", "user=app dbname=acme"),
            ("user=dbname=acme", "user", "dbname=acme"),
            ("trip=postgresql://db/acme", "trip", "postgresql://db/acme"),
            ("tirp=postgresql://db/acme", "tirp", "postgresql://db/acme"),
            ("AbpIdentity=-", "AbpIdentity", "-"),
            ("trip=@acme.url", "trip", "@acme.url"),
            ("Host=db;Database=acme", "", "Host=db;Database=acme"),
            ("trip=Host=db;Database=acme", "trip", "Host=db;Database=acme"),
            ("-", "", "-"),
        ] {
            assert_eq!(split(given, &names), (name, text), "{given}");
        }
    }
}
