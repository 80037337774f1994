//! The error of this crate: what was tried, on which path, and what the reader can do about it.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use crate::binaries::Wanted;

/// What can go wrong while finding, starting or stopping a local server.
///
/// The text says what failed and where, [`Error::hints`] what to do. Causes are in `source()` and
/// not repeated in the text.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

/// The result of everything in this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error("{}", no_binaries(*wanted, *major, attempts))]
    NoBinaries { wanted: Wanted, major: Option<u32>, attempts: Vec<String> },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("user {user} cannot {action} {}: {why}", path.display())]
    NotUsable { action: &'static str, path: PathBuf, user: String, why: String },
    #[error("{program} failed ({status}): {output}")]
    Command { program: String, status: String, output: String },
    #[error("cannot run {program}")]
    Spawn { program: String, source: io::Error },
    #[error("cannot fetch PostgreSQL: {0}")]
    Fetch(String),
    #[error("the server did not start; the end of {}:\n{tail}", log.display())]
    Start { log: PathBuf, tail: String },
    #[error("the server (pid {pid}) does not accept connections after {seconds} s; its log is {}", log.display())]
    NotReady { pid: u32, seconds: u64, log: PathBuf },
    #[error("the server (pid {pid}) did not stop within {seconds} s")]
    NotStopped { pid: u32, seconds: u64 },
    #[error("no user to run the server as: {0}")]
    NoUser(String),
    #[error("no free TCP port on 127.0.0.1 among {tried} from {first} up")]
    NoPort { first: u16, tried: u16 },
    #[error("{0}")]
    Invalid(String),
    #[cfg(feature = "testing")]
    #[error("cannot {action} on the test server")]
    Database { action: String, source: tokio_postgres::Error },
}

impl From<Kind> for Error {
    #[cold]
    fn from(kind: Kind) -> Self {
        Self(Box::new(kind))
    }
}

impl Error {
    /// Wraps an I/O error with what was being done to which path.
    #[cold]
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if matches!(
            source.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory
        ) {
            return Kind::NotUsable {
                action,
                path: path.to_owned(),
                user: crate::user::current_name(),
                why: source.to_string(),
            }
            .into();
        }
        Kind::Io { action, path: path.to_owned(), source }.into()
    }

    #[cold]
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Kind::Invalid(text.into()).into()
    }

    /// True when no usable programs were found (and fetching was not allowed or failed).
    pub fn is_missing_binaries(&self) -> bool {
        matches!(*self.0, Kind::NoBinaries { .. })
    }

    /// True when a folder or file cannot be written or reached by the user that needs it.
    pub fn is_not_writable(&self) -> bool {
        matches!(*self.0, Kind::NotUsable { .. })
    }

    /// What the reader can do, one sentence each; empty when there is nothing better than the text.
    pub fn hints(&self) -> Vec<String> {
        match &*self.0 {
            Kind::NoBinaries { wanted, major, .. } => install_hints(*wanted, *major),
            Kind::NotUsable { path, user, .. } => vec![
                format!("give user {user} access to {}", path.display()),
                "or set the state or data directory to a folder that user can reach and write".to_owned(),
            ],
            Kind::NoUser(_) => vec![
                "PostgreSQL refuses to run as root: create an unprivileged user, for example \
                 `useradd --system --create-home postgres`"
                    .to_owned(),
            ],
            Kind::NotReady { .. } => {
                vec!["it may still be recovering: run the same command again to go on waiting".to_owned()]
            }
            Kind::NotStopped { .. } => {
                vec!["stop it in immediate mode; the next start recovers".to_owned()]
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn attempts(&self) -> Vec<String> {
        match &*self.0 {
            Kind::NoBinaries { attempts, .. } => attempts.clone(),
            _ => vec![describe(self)],
        }
    }
}

/// The error with its causes in one line, for a list of attempts.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

fn no_binaries(wanted: Wanted, major: Option<u32>, attempts: &[String]) -> String {
    let what = wanted.word();
    let mut text = match major {
        Some(major) => format!("no PostgreSQL {major} {what} programs found"),
        None => format!("no PostgreSQL {what} programs found (version {} or newer)", crate::OLDEST_SUPPORTED),
    };
    for attempt in attempts {
        let _ = write!(text, "\n  {attempt}");
    }
    text
}

fn install_hints(wanted: Wanted, major: Option<u32>) -> Vec<String> {
    let (deb, rpm) = match wanted {
        Wanted::Server => ("postgresql", "postgresql-server"),
        Wanted::Client => ("postgresql-client", "postgresql"),
    };
    let deb = major.map_or_else(|| deb.to_owned(), |major| format!("{deb}-{major}"));
    let brew = format!("postgresql@{}", major.unwrap_or(crate::FETCHED_MAJOR));
    let mut hints = vec![
        format!("Debian, Ubuntu: apt-get install {deb}"),
        format!("Fedora, RHEL: dnf install {rpm}"),
        format!("macOS: brew install {brew}"),
    ];
    if wanted == Wanted::Server {
        hints.push(format!("or name the folder that holds {}", wanted.programs().join(", ")));
    }
    if major.is_none_or(|major| major == crate::FETCHED_MAJOR) {
        hints.push(
            "or install pip (Debian, Ubuntu: apt-get install python3-pip; Fedora: dnf install \
             python3-pip), through which pgfleet can fetch a self-contained build"
                .to_owned(),
        );
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_binaries_say_every_attempt_and_what_to_install() {
        let error: Error =
            Kind::NoBinaries { wanted: Wanted::Server, major: None, attempts: vec!["PATH: nothing".to_owned()] }.into();
        assert!(error.to_string().contains("PATH: nothing"));
        assert!(error.is_missing_binaries());
        let hints = error.hints().join("\n");
        for word in ["apt-get install postgresql", "dnf install", "brew install", "pip"] {
            assert!(hints.contains(word), "{word} in {hints}");
        }
    }

    #[test]
    fn permission_problems_name_path_and_user() {
        let error = Error::io("write", Path::new("/x/y"), io::ErrorKind::PermissionDenied.into());
        assert!(error.is_not_writable());
        assert!(error.to_string().contains("/x/y"));
        assert!(!error.hints().is_empty());
    }
}
