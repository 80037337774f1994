//! libpq's password file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use secrecy::SecretString;

use crate::Error;
use crate::dial::{Target, To};

/// Looks up the password of a role: `host:port:database:user:password` lines, `*` matches
/// everything, `\` escapes; the first line that fits any of the hosts counts.
///
/// As libpq does, a file that its group or others can read is left alone, with a warning.
///
/// # Errors
///
/// The file cannot be read; none when it may be absent and is.
pub(super) fn look_up(
    path: &Path,
    may_be_absent: bool,
    targets: &[Target],
    database: &str,
    user: &str,
) -> Result<Option<SecretString>, Error> {
    let unreadable =
        |error: std::io::Error| Error::address(format!("cannot read passfile {}: {error}", path.display()));
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) if may_be_absent && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    if about.is_file() && about.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            "the password file {} is not used, since its group or others can read it: chmod 0600",
            path.display()
        );
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let lines: Vec<Vec<String>> =
        text.lines().filter(|line| !line.starts_with('#')).map(fields).filter(|fields| fields.len() == 5).collect();
    for target in targets {
        let port = target.port.to_string();
        let is = |field: &str, wanted: &str| field == "*" || field == wanted;
        let found = lines.iter().find(|line| {
            (is(&line[0], &target.name) || (is_usual_folder(target) && line[0] == "localhost"))
                && is(&line[1], &port)
                && is(&line[2], database)
                && is(&line[3], user)
        });
        if let Some(line) = found {
            return Ok(Some(line[4].clone().into()));
        }
    }
    Ok(None)
}

/// In the file, the usual folders of sockets are called `localhost`.
fn is_usual_folder(target: &Target) -> bool {
    let usual = ["/tmp", "/var/run/postgresql", "/run/postgresql"];
    matches!(&target.to, To::Folder(folder) if usual.iter().any(|path| folder == Path::new(path)))
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let last = fields.len() - 1;
        match character {
            '\\' => fields[last].extend(characters.next()),
            ':' if fields.len() < 5 => fields.push(String::new()),
            other => fields[last].push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_respect_escapes() {
        assert_eq!(fields(r"h:5432:*:a\:b:p:w\\"), ["h", "5432", "*", "a:b", "p:w\\"]);
    }
}
