//! The command that is run after a tenant's connection string was changed.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pgfleet_migrate::options::Stop;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::error::{Error, ErrorKind};
use crate::services::{Lines, TO_END, Tail, end_group};

/// How long the command may take.
pub(super) const LIMIT: Duration = Duration::from_mins(5);

/// The command, and where it runs.
#[derive(Debug)]
pub(super) struct Hook<'a> {
    /// For `sh -c`.
    pub(super) command: &'a str,
    /// The manifest's folder.
    pub(super) folder: &'a Path,
    /// The names of the variables that it would inherit.
    pub(super) surroundings: &'a [String],
    /// How long it may take.
    pub(super) limit: Duration,
}

impl Hook<'_> {
    /// Runs the command for one string of a tenant, and waits for its end.
    ///
    /// It is told which string it is, never the string: whoever needs it asks pgfleet for it. Of
    /// pgfleet's own variables it gets no other.
    ///
    /// # Errors
    ///
    /// It cannot be started, fails, takes too long, or is to be stopped; with its last lines.
    pub(super) async fn run(&self, tenant: &str, connection: &str, stop: &Stop) -> Result<(), Error> {
        let failed = |why: String| {
            let message = format!("the command after a change of tenant {tenant}'s connection string failed");
            Error::new(ErrorKind::Failed, message).cause(why)
        };
        let mut command = Command::new("sh");
        // One pipe for both, so that lines stay in their order.
        command.args(["-c", &format!("exec 2>&1\n{}", self.command)]).current_dir(self.folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        for name in self.surroundings.iter().filter(|name| name.starts_with("PGFLEET_") && *name != "PGFLEET_ENV") {
            command.env_remove(name);
        }
        command.env("PGFLEET_TENANT", tenant).env("PGFLEET_CONNECTION", connection);
        let mut child = command.spawn().map_err(|error| failed(format!("cannot be started: {error}")))?;
        let group = child.id();
        let mut tail = Tail::default();
        let ended = {
            let mut output = child.stdout.take();
            let work = async {
                let mut lines = Lines::default();
                let mut buffer = vec![0; 8192];
                while let Some(pipe) = output.as_mut() {
                    let read = pipe.read(&mut buffer).await.unwrap_or(0);
                    let mut found = lines.push(&buffer[..read]);
                    if read == 0 {
                        found.extend(lines.finish());
                    }
                    for line in found {
                        tail.push(&line);
                    }
                    if read == 0 {
                        break;
                    }
                }
                child.wait().await
            };
            tokio::select! {
                status = work => Some(status),
                () = tokio::time::sleep(self.limit) => None,
                () = stop.asked() => None,
            }
        };
        let why = match ended {
            Some(Ok(status)) if status.success() => return Ok(()),
            Some(Ok(status)) => format!("{status}"),
            Some(Err(error)) => format!("cannot be waited for: {error}"),
            None => {
                if let Some(group) = group {
                    end_group(group, TO_END).await;
                }
                let _reaped = child.wait().await;
                if stop.is_asked() {
                    return Err(Error::new(ErrorKind::Stopped, "stopped while the command ran"));
                }
                format!("ended after {} s: it may take no longer", self.limit.as_secs())
            }
        };
        Err(tail.lines().into_iter().fold(failed(why), |error, line| error.cause(format!("it said: {line}"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook<'a>(command: &'a str, folder: &'a Path, surroundings: &'a [String]) -> Hook<'a> {
        Hook { command, folder, surroundings, limit: LIMIT }
    }

    #[tokio::test]
    async fn it_is_told_which_string_it_is_and_nothing_else_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let surroundings = ["PGFLEET_KEY".to_owned(), "PATH".to_owned()];
        let command = "env | grep ^PGFLEET_ | sort > seen; pwd >> seen; test -n \"$PATH\"";
        hook(command, folder.path(), &surroundings).run("acme", "", &Stop::default()).await.unwrap();
        let seen = std::fs::read_to_string(folder.path().join("seen")).unwrap();
        let place = folder.path().canonicalize().unwrap();
        assert!(seen.starts_with("PGFLEET_CONNECTION=\nPGFLEET_TENANT=acme\n"), "{seen}");
        assert!(seen.ends_with(&format!("{}\n", place.display())), "{seen}");
    }

    #[tokio::test]
    async fn its_last_lines_say_why_it_failed() {
        let folder = tempfile::tempdir().unwrap();
        let failed = hook("echo one; echo two >&2; exit 3", folder.path(), &[]);
        let error = failed.run("acme", "trip", &Stop::default()).await.unwrap_err();
        assert_eq!(error.causes(), ["exit status: 3", "it said: one", "it said: two"]);
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_ended_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let limit = Duration::from_millis(300);
        let slow = Hook { limit, ..hook("sleep 600 & echo $! > pid; wait", folder.path(), &[]) };
        let error = slow.run("acme", "trip", &Stop::default()).await.unwrap_err();
        assert!(error.causes()[0].starts_with("ended after"), "{:?}", error.causes());
        let pid: u32 = std::fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
        assert!(crate::services::Identity::of(pid).is_none(), "its child runs on");
    }
}
