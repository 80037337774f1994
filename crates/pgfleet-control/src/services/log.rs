//! The log of each program that runs without a terminal, rotated by size.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::supervisor::Watcher;
use super::{Happened, RunFolder};

/// When a log is put aside and a new one begun.
const LARGEST: u64 = 10 * 1024 * 1024;

/// Writes what programs print into one file each.
#[derive(Debug)]
pub struct LogFiles {
    folder: RunFolder,
    open: Mutex<HashMap<String, (File, u64)>>,
}

impl LogFiles {
    /// Writes below this folder.
    pub fn new(folder: RunFolder) -> Self {
        Self { folder, open: Mutex::default() }
    }

    /// A full disk must not stop a service: what cannot be written is lost.
    fn write(&self, service: &str, line: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder.log_of(service);
        if !open.contains_key(service) {
            let Some(file) = append(&path) else { return };
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            open.insert(service.to_owned(), (file, size));
        }
        let Some((file, size)) = open.get_mut(service) else { return };
        if *size > LARGEST {
            let mut old = path.clone().into_os_string();
            old.push(".1");
            let _kept = std::fs::rename(&path, PathBuf::from(old));
            let Some(new) = append(&path) else { return };
            (*file, *size) = (new, 0);
        }
        let text = format!("{line}\n");
        if file.write_all(text.as_bytes()).is_ok() {
            *size += text.len() as u64;
        }
    }
}

fn append(path: &PathBuf) -> Option<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).ok()
}

impl Watcher for LogFiles {
    fn line(&self, service: &str, line: &str) {
        self.write(service, line);
    }

    fn happened(&self, service: &str, happened: &Happened) {
        self.write(service, &format!("pgfleet: {happened}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_too_large_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::at(folder.path().join("run"));
        run.make().unwrap();
        let logs = LogFiles::new(run.clone());
        let line = "x".repeat(1024 * 1024);
        for _ in 0..12 {
            logs.line("trip", &line);
        }
        let size = |name: &str| std::fs::metadata(folder.path().join("run").join(name)).unwrap().len();
        assert!(size("trip.log.1") > LARGEST && size("trip.log") < LARGEST);
    }
}
