//! What is remembered about a cluster between runs: `local.json` in the state folder.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files;

const FILE: &str = "local.json";

/// A memo, not the truth: what runs is read from the data directory's `postmaster.pid`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the folder is called that everywhere")]
pub(crate) struct State {
    /// Where this file was written; another place means that the folder was moved or copied.
    pub(crate) state_dir: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) port: u16,
    pub(crate) bin_dir: PathBuf,
    pub(crate) version: (u32, u32),
}

impl State {
    /// Reads the memo; one that cannot be understood counts as none, since all of it can be found
    /// out again.
    pub(crate) fn read(state_dir: &Path) -> Result<Option<Self>> {
        let Some(text) = files::read_optional(&state_dir.join(FILE))? else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(state) => Ok(Some(state)),
            Err(error) => {
                tracing::warn!(file = %state_dir.join(FILE).display(), %error, "ignoring a broken state file");
                Ok(None)
            }
        }
    }

    pub(crate) fn write(&self, state_dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::invalid(format!("cannot write the state: {error}")))?;
        files::replace(&state_dir.join(FILE), text.as_bytes(), 0o644, None)
    }

    pub(crate) fn remove(state_dir: &Path) -> Result<()> {
        files::remove_file(&state_dir.join(FILE))
    }
}

/// What makes two solutions differ on one machine: a hash of where the state folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(state_dir: &Path) -> Self {
        Self(Sha256::digest(state_dir.as_os_str().as_bytes()).into())
    }

    /// Eight hexadecimal digits for names.
    pub(crate) fn short(self) -> String {
        hex(&self.0[..4])
    }

    /// A number for choosing a port.
    pub(crate) fn number(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_and_a_broken_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(State::read(folder.path()).unwrap(), None);
        let state = State {
            state_dir: folder.path().to_owned(),
            data_dir: "/d".into(),
            socket_dir: "/s".into(),
            port: 5,
            bin_dir: "/b".into(),
            version: (18, 6),
        };
        state.write(folder.path()).unwrap();
        assert_eq!(State::read(folder.path()).unwrap(), Some(state));
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(State::read(folder.path()).unwrap(), None);
    }
}
