//! A server of a test's own.

use std::fs;
use std::path::PathBuf;

use super::server::{make_base, random_password, user_url};
use crate::cluster::{Cluster, ClusterOptions, Running, StopMode};
use crate::error::{Error, Result, describe};
use crate::files;
use crate::postmaster::{Postmaster, is_alive};
use crate::user::current_uid;

/// A server for one test that must not share: other settings, restarts, crashes, backups.
///
/// It is stopped at once and deleted when this value is dropped; what a killed test process leaves
/// running is stopped and deleted by the next one that makes such a server.
#[derive(Debug)]
pub struct OwnServer {
    cluster: Cluster,
    running: Running,
    folder: PathBuf,
}

impl OwnServer {
    /// Starts a server, with options changed by the given function.
    ///
    /// The defaults: not durable, 100 connections, a random password, server programs found on the
    /// machine or fetched.
    ///
    /// # Errors
    /// As [`Cluster::ensure_running`].
    pub async fn start(configure: impl FnOnce(&mut ClusterOptions)) -> std::result::Result<Self, Error> {
        let folder = new_folder()?;
        let mut options = ClusterOptions::new("pgfleet-own", &folder, random_password());
        options.durable = false;
        // A replica that was away must find what was written meanwhile. It is used only when that much is written.
        options.settings.push(("wal_keep_size".to_owned(), "256MB".to_owned()));
        configure(&mut options);
        let cluster = Cluster::new(options);
        let starting = cluster.clone();
        let started = in_background(move || {
            remove_orphans();
            starting.ensure_running()
        });
        match started.await {
            Ok(running) => Ok(Self { cluster, running, folder }),
            Err(error) => {
                let _ = cluster.destroy();
                let _ = fs::remove_dir_all(&folder);
                Err(error)
            }
        }
    }

    /// Everything known about the server when it was started last.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.running.port
    }

    /// The superuser's URL of a database, with the password.
    pub fn superuser_url(&self, database: &str) -> String {
        let options = self.cluster.options();
        user_url(&options.superuser, &options.password, self.port(), database)
    }

    /// The cluster, to stop it or ask how it is.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Stops the server; data stays until the value is dropped.
    pub fn stop(&self, mode: StopMode) -> std::result::Result<(), Error> {
        self.cluster.stop(mode).map(|_| ())
    }

    /// Ends it as a power cut would: `kill -9` of all its processes.
    pub fn kill(&self) -> std::result::Result<(), Error> {
        Postmaster::find(&self.running.data_dir)?.map_or(Ok(()), |postmaster| postmaster.kill())
    }

    /// Makes sure that it runs, after a stop or a crash; the port may be another then.
    pub fn ensure_running(&mut self) -> std::result::Result<&Running, Error> {
        self.running = self.cluster.ensure_running()?;
        Ok(&self.running)
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.destroy() {
            tracing::warn!(error = %describe(&error), "a test's server was not removed");
            return;
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn base_dir() -> PathBuf {
    PathBuf::from(format!("/var/tmp/pgfleet-own-{}", current_uid()))
}

/// Runs what blocks where it blocks no other task.
pub(super) async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| panic!("starting a server failed: {error}"))
}

pub(super) fn new_folder() -> Result<PathBuf> {
    let base = base_dir();
    make_base(&base)?;
    let folder = base.join(format!("{}-{:08x}", std::process::id(), rand::random::<u32>()));
    files::make_dir(&folder)?;
    Ok(folder)
}

/// Servers whose test process is dead; the folder's name says which one that was.
pub(super) fn remove_orphans() {
    let Ok(entries) = fs::read_dir(base_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split_once('-')?.0.parse::<u32>().ok());
        if pid.is_some_and(|pid| !is_alive(pid)) {
            let options = ClusterOptions::new("pgfleet-own", entry.path(), "");
            if Cluster::new(options).destroy().is_ok() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}
