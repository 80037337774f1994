//! A standby of a test's own server.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::database_error;
use super::own::{OwnServer, in_background, new_folder, remove_orphans};
use super::server::{connect, user_url};
use crate::cluster::{Cluster, ClusterOptions, HOST, Running, StopMode};
use crate::error::{Error, Kind, Result, describe};
use crate::files;
use crate::place::Place;

/// How long a replica may take to pause, to be promoted or to catch up.
const LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(5);

/// A streaming replica of an [`OwnServer`], or of a replica that was promoted.
///
/// It has everything that its primary has, roles and passwords too, and is written to by nobody else. Like its primary
/// it is stopped at once and deleted when this value is dropped, and what a killed test process leaves is deleted by
/// the next one. The primary need not be there then.
#[derive(Debug)]
pub struct Replica {
    cluster: Cluster,
    folder: PathBuf,
    /// Changed by a start only, which may choose another port.
    running: Mutex<Running>,
    /// The port of the server that it follows.
    upstream: Mutex<u16>,
}

impl OwnServer {
    /// Makes a streaming replica of this server, which must be running.
    ///
    /// It returns when the replica accepts connections, for which one or two seconds are needed. It may still lack what
    /// was written in the last moment: see [`Replica::caught_up`]. The server's `wal_level` must be `replica`, the
    /// default, or `logical`.
    ///
    /// # Errors
    /// When the base backup fails or the replica does not start; the text says why.
    pub async fn replica(&self) -> std::result::Result<Replica, Error> {
        self.replica_with(|_| {}).await
    }

    /// As [`replica`](Self::replica), with options changed by the given function.
    ///
    /// The options are the primary's. A replica needs at least as many connections as its primary. Settings worth a
    /// test are `hot_standby_feedback`, `max_standby_streaming_delay` and `recovery_min_apply_delay`.
    ///
    /// # Errors
    /// As [`replica`](Self::replica).
    pub async fn replica_with(
        &self,
        configure: impl FnOnce(&mut ClusterOptions),
    ) -> std::result::Result<Replica, Error> {
        let folder = new_folder()?;
        let mut options = self.cluster().options().clone();
        options.state_dir.clone_from(&folder);
        options.data_dir = None;
        // Shown in the primary's pg_stat_replication.
        options.name = format!("pgfleet-replica-{}", folder.file_name().unwrap_or_default().to_string_lossy());
        options.search.major = Some(self.running().version.0);
        // After it has lost its primary the default looks again only after 5 s.
        options.settings.push(("wal_retrieve_retry_interval".to_owned(), "100ms".to_owned()));
        configure(&mut options);
        let cluster = Cluster::new(options);
        let (making, upstream) = (cluster.clone(), self.running().clone());
        let port = upstream.port;
        let made = in_background(move || {
            remove_orphans();
            base_backup(making.options(), &upstream)?;
            making.ensure_running()
        });
        match made.await {
            Ok(running) => Ok(Replica { cluster, folder, running: Mutex::new(running), upstream: Mutex::new(port) }),
            Err(error) => {
                let _ = cluster.destroy();
                let _ = fs::remove_dir_all(&folder);
                Err(error)
            }
        }
    }
}

impl Replica {
    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        lock(&self.running).port
    }

    /// Everything known about the server when it was started last.
    pub fn running(&self) -> Running {
        lock(&self.running).clone()
    }

    /// The superuser's URL of a database, with the password.
    pub fn superuser_url(&self, database: &str) -> String {
        self.url_at(self.port(), database)
    }

    /// The cluster, to ask how it is.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Stops it at once, as a crash would; data stays until the value is dropped.
    pub fn kill(&self) -> std::result::Result<(), Error> {
        self.stop(StopMode::Immediate)
    }

    /// Stops it; data stays until the value is dropped.
    pub fn stop(&self, mode: StopMode) -> std::result::Result<(), Error> {
        self.cluster.stop(mode).map(|_| ())
    }

    /// Makes sure that it runs, after a stop, as the replica or the primary that it was.
    ///
    /// The port is the same unless somebody has taken it.
    pub async fn start(&self) -> std::result::Result<(), Error> {
        let cluster = self.cluster.clone();
        let running = in_background(move || cluster.ensure_running()).await?;
        *lock(&self.running) = running;
        Ok(())
    }

    /// Stops replaying what the primary sends; returns when nothing more is replayed. WAL is still received.
    pub async fn pause_replay(&self) -> std::result::Result<(), Error> {
        let client = self.client("pause the replay").await?;
        run(&client, "pause the replay", "SELECT pg_wal_replay_pause()").await?;
        // It ends the record that it is at; only then this says so.
        until(&client, "pause the replay", "SELECT pg_get_wal_replay_pause_state() = 'paused'").await
    }

    /// Goes on replaying.
    pub async fn resume_replay(&self) -> std::result::Result<(), Error> {
        let client = self.client("resume the replay").await?;
        run(&client, "resume the replay", "SELECT pg_wal_replay_resume()").await
    }

    /// Makes it a primary; returns when it can be written to. It forgets whom it followed.
    pub async fn promote(&self) -> std::result::Result<(), Error> {
        let client = self.client("promote the replica").await?;
        run(&client, "promote the replica", "SELECT pg_promote(false)").await?;
        until(&client, "promote the replica", "SELECT NOT pg_is_in_recovery()").await
    }

    /// Waits until everything is replayed that was committed at the server that it follows before this call.
    pub async fn caught_up(&self) -> std::result::Result<(), Error> {
        let doing = "catch up with the primary";
        let upstream = self.url_at(*lock(&self.upstream), "postgres");
        let upstream = connect(&upstream).await?;
        let failed = |source| database_error(doing, source);
        let row = upstream.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.map_err(failed)?;
        let lsn: String = row.get(0);
        // Only what is flushed is sent, and without synchronous commits that may take most of a second. This commits,
        // and flushes with itself all that was before it.
        let flush = "SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'pgfleet', '')";
        upstream.batch_execute(flush).await.map_err(failed)?;
        let client = self.client(doing).await?;
        until(&client, doing, &format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")).await
    }

    /// Follows a replica that was promoted, instead of the server that it followed.
    ///
    /// # Errors
    /// When the other one is not running, or this one has replayed more than the other one had when it was promoted,
    /// which no replica can take back.
    pub async fn follow(&self, promoted: &Self) -> std::result::Result<(), Error> {
        let doing = "follow another server";
        let options = promoted.cluster.options();
        let port = promoted.port();
        let client = self.client(doing).await?;
        let info = connection_info(port, options).replace('\'', "''");
        run(&client, doing, &format!("ALTER SYSTEM SET primary_conninfo = '{info}'")).await?;
        run(&client, doing, "SELECT pg_reload_conf()").await?;
        let follows = format!("SELECT count(*) > 0 FROM pg_stat_wal_receiver WHERE sender_port = {port}");
        until(&client, doing, &follows).await?;
        *lock(&self.upstream) = port;
        Ok(())
    }

    async fn client(&self, doing: &str) -> Result<Client> {
        let url = self.superuser_url("postgres");
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .map_err(|source| database_error(doing, source))?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn url_at(&self, port: u16, database: &str) -> String {
        let options = self.cluster.options();
        user_url(&options.superuser, &options.password, port, database)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.destroy() {
            tracing::warn!(error = %describe(&error), "a test's replica was not removed");
            return;
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(client: &Client, doing: &str, sql: &str) -> Result<()> {
    client.simple_query(sql).await.map_err(|source| database_error(doing, source)).map(|_| ())
}

/// Asks again until the answer is true.
async fn until(client: &Client, doing: &str, sql: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let row = client.query_one(sql, &[]).await.map_err(|source| database_error(doing, source))?;
        if row.get::<_, Option<bool>>(0) == Some(true) {
            return Ok(());
        }
        if began.elapsed() > LIMIT {
            return Err(Error::invalid(format!("cannot {doing}: not done after {} s", LIMIT.as_secs())));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Copies the primary into the place of the replica's data, where [`Cluster::ensure_running`] finds it.
fn base_backup(options: &ClusterOptions, upstream: &Running) -> Result<()> {
    let place = Place::find(options)?;
    place.prepare_parent()?;
    // Under another name until it is whole: what has a version in it counts as a data directory.
    let temporary = files::sibling(&place.data_dir, ".new");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&temporary)
        .map_err(|source| Error::io("create the folder", &temporary, source))?;
    place.user.give(&temporary)?;
    let program = upstream.bin_dir.join("pg_basebackup");
    let output = place
        .user
        .command(&program)
        .arg("--pgdata")
        .arg(&temporary)
        .args(["--wal-method=stream", "--write-recovery-conf", "--checkpoint=fast", "--no-manifest", "--no-sync"])
        .args(["--no-password", "--host", HOST, "--port", &upstream.port.to_string()])
        .args(["--username", &options.superuser])
        // From here it goes into the replica's configuration; arguments are shown to everybody.
        .env("PGPASSWORD", &options.password)
        .output()
        .map_err(|source| Kind::Spawn { program: program.display().to_string(), source })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Kind::Command {
            program: program.display().to_string(),
            status: output.status.to_string(),
            output: text,
        }
        .into());
    }
    rename(&temporary, &place.data_dir)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|source| Error::io("write", to, source))
}

fn connection_info(port: u16, options: &ClusterOptions) -> String {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    format!("host={HOST} port={port} user={} password={}", quoted(&options.superuser), quoted(&options.password))
}
