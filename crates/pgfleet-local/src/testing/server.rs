//! The shared server.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use tokio_postgres::{Client, NoTls};

use super::brokers;
use super::database::TestDatabase;
use super::database_error;
use super::databases::Databases;
use crate::binaries::{Binaries, Search};
use crate::cluster::{Cluster, ClusterOptions, HOST, Running, Status, StopMode};
use crate::error::{Error, Result, describe};
use crate::user::{ServerUser, current_uid};
use crate::{files, state};

const MAX_CONNECTIONS: u32 = 300;
const SUPERUSER: &str = "postgres";

/// What is preferred: the oldest supported version, which lets nothing newer slip in.
const PREFERRED_MAJOR: u32 = crate::OLDEST_SUPPORTED;

/// One entry per version that this process has asked for; the key `None` is "any".
static SERVERS: LazyLock<tokio::sync::Mutex<BTreeMap<Option<u32>, TestServer>>> =
    LazyLock::new(tokio::sync::Mutex::default);

/// A running PostgreSQL for tests, shared by all test processes of this machine user.
#[derive(Debug, Clone)]
pub struct TestServer {
    shared: Arc<Shared>,
}

struct Shared {
    running: Running,
    password: String,
    databases: Databases,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("running", &self.running).finish_non_exhaustive()
    }
}

impl TestServer {
    /// The server most tests use: version 15 if the machine has it, else the newest it has, else a
    /// fetched 18. Started if it does not run, and left running.
    ///
    /// # Panics
    /// When there is no server and none can be started.
    pub async fn shared() -> Self {
        Self::get(None).await
    }

    /// The shared server of one major version; 18 is fetched if the machine lacks it.
    ///
    /// # Panics
    /// When there is no server of that version and none can be started.
    pub async fn shared_version(major: u32) -> Self {
        Self::get(Some(major)).await
    }

    async fn get(major: Option<u32>) -> Self {
        // Held while starting, so that the tests of one process start it once.
        let mut servers = SERVERS.lock().await;
        if let Some(server) = servers.get(&major) {
            return server.clone();
        }
        let started = tokio::task::spawn_blocking(move || start(major))
            .await
            .unwrap_or_else(|error| panic!("starting the test server failed: {error}"));
        let (running, password) = started
            .unwrap_or_else(|error| panic!("no test server: {}\n{}", describe(&error), error.hints().join("\n")));
        let url = url(running.port, &password, "postgres");
        let open = move || {
            let url = url.clone();
            async move { connect(&url).await.map_err(|error| describe(&error)) }
        };
        let databases = Databases::new(open, true);
        let server = Self { shared: Arc::new(Shared { running, password, databases }) };
        // From now on this process is known to be alive here, too: what a test makes here under a name from another
        // server is not swept away under it.
        if let Err(error) = server.databases().name().await {
            panic!("the test server does not answer: {}", describe(&error));
        }
        servers.insert(major, server.clone());
        server
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.shared.running.port
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.shared.password
    }

    /// The superuser's URL of a database, with the password, over TCP.
    pub fn superuser_url(&self, database: &str) -> String {
        url(self.port(), &self.shared.password, database)
    }

    /// The folder of the server and client programs.
    pub fn bin_dir(&self) -> &Path {
        &self.shared.running.bin_dir
    }

    /// Everything known about the server.
    pub fn running(&self) -> &Running {
        &self.shared.running
    }

    /// Major and minor version.
    pub fn version(&self) -> (u32, u32) {
        self.shared.running.version
    }

    /// Where its databases come from.
    pub fn databases(&self) -> &Databases {
        &self.shared.databases
    }

    /// A fresh, empty database.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn database(&self) -> TestDatabase {
        match self.databases().empty().await {
            Ok(name) => TestDatabase::new(name, self.clone()),
            Err(error) => panic!("no test database: {}", describe(&error)),
        }
    }

    /// A name for a database that does not exist yet. Whatever is made under this name, or a name
    /// that begins with it, is removed after this process ended.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn empty_name(&self) -> String {
        self.databases().name().await.unwrap_or_else(|error| panic!("no name for a database: {}", describe(&error)))
    }

    /// Stops the shared servers of this machine user, all versions, and the brokers; returns how many ran.
    ///
    /// # Errors
    /// When one of them cannot be stopped.
    pub fn stop_all() -> std::result::Result<usize, Error> {
        Ok(stop_below(&base_dir())? + brokers::stop_all()?)
    }
}

fn stop_below(base: &Path) -> Result<usize> {
    let mut stopped = 0;
    let Ok(entries) = fs::read_dir(base) else { return Ok(0) };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        let options = ClusterOptions::new("pgfleet-test", entry.path(), "");
        // Nothing on it is worth a clean end.
        let outcome = Cluster::new(options).stop(StopMode::Immediate)?;
        stopped += usize::from(outcome.was_running);
    }
    Ok(stopped)
}

pub(super) fn url(port: u16, password: &str, database: &str) -> String {
    user_url(SUPERUSER, password, port, database)
}

pub(super) fn user_url(user: &str, password: &str, port: u16, database: &str) -> String {
    let (user, password, database) = (encode(user), encode(password), encode(database));
    format!("postgres://{user}:{password}@{HOST}:{port}/{database}")
}

/// Percent-encodes what a URL gives a meaning to.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Connects; the connection lives in a task of its own until the client is dropped.
pub(super) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.map_err(|source| database_error("connect", source))?;
    tokio::spawn(connection);
    Ok(client)
}

/// In `/var/tmp`, which survives a reboot and is on a disk, unlike many a `/tmp`.
fn base_dir() -> PathBuf {
    PathBuf::from(format!("/var/tmp/pgfleet-test-{}", current_uid()))
}

fn start(major: Option<u32>) -> Result<(Running, String)> {
    let base = base_dir();
    make_base(&base)?;
    let search = Search::from_env();
    // What runs already is taken without looking for programs, which costs more than all the rest.
    if let Some(found) = running_in(&base.join(major.unwrap_or(PREFERRED_MAJOR).to_string()))? {
        return Ok(found);
    }
    let user = ServerUser::choose(None)?;
    let binaries = match major {
        Some(major) => Binaries::find_or_fetch_as(&search.clone().with_major(major), &user, true)?,
        None => Binaries::find_as(&search.clone().with_major(PREFERRED_MAJOR), &user)
            .or_else(|_| Binaries::find_or_fetch_as(&search, &user, true))?,
    };
    let folder = base.join(binaries.version.0.to_string());
    files::make_dir(&folder)?;
    if let Some(found) = running_in(&folder)? {
        return Ok(found);
    }
    let password = password(&folder)?;
    let mut options = options(&folder, &password);
    options.search = search.with_major(binaries.version.0);
    let cluster = Cluster::new(options);
    let running = cluster.ensure_running().or_else(|error| {
        // Not durable, and in a folder that systems clean of old files: a broken one is made anew.
        tracing::warn!(error = %describe(&error), "making the test server anew");
        cluster.destroy()?;
        cluster.ensure_running()
    })?;
    Ok((running, password))
}

fn options(folder: &Path, password: &str) -> ClusterOptions {
    let mut options = ClusterOptions::new("pgfleet-test", folder, password);
    options.max_connections = MAX_CONNECTIONS;
    options.durable = false;
    options
}

fn running_in(folder: &Path) -> Result<Option<(Running, String)>> {
    let Some(password) = files::read_optional(&folder.join("password"))? else { return Ok(None) };
    match Cluster::new(options(folder, &password)).status()? {
        Status::Running(running) => Ok(Some((running, password))),
        _ => Ok(None),
    }
}

/// The folder must be ours: anybody can make one in `/var/tmp`.
pub(super) fn make_base(base: &Path) -> Result<()> {
    // Root's server runs as another user, which has to get through.
    let mode = if current_uid() == 0 { 0o711 } else { 0o700 };
    match fs::DirBuilder::new().mode(mode).create(base) {
        Ok(()) => files::chmod(base, mode)?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("create the folder", base, error)),
    }
    let meta = fs::symlink_metadata(base).map_err(|error| Error::io("look at", base, error))?;
    if meta.is_dir() && meta.uid() == current_uid() {
        return Ok(());
    }
    Err(Error::invalid(format!("{} belongs to uid {}; remove it", base.display(), meta.uid())))
}

/// The password of this machine's test server: made once, readable for us only.
fn password(folder: &Path) -> Result<String> {
    let path = folder.join("password");
    let _lock = files::lock(&folder.join("password.lock"))?;
    if let Some(password) = files::read_optional(&path)? {
        return Ok(password);
    }
    let password = random_password();
    files::replace(&path, password.as_bytes(), 0o600, None)?;
    Ok(password)
}

pub(super) fn random_password() -> String {
    state::hex(&rand::random::<[u8; 16]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_servers_below_a_folder_are_stopped() {
        let base = tempfile::tempdir_in("/var/tmp").unwrap();
        files::chmod(base.path(), 0o755).unwrap();
        fs::create_dir(base.path().join("14")).unwrap();
        let folder = base.path().join("15");
        fs::create_dir(&folder).unwrap();
        let password = password(&folder).unwrap();
        let cluster = Cluster::new(options(&folder, &password));
        cluster.ensure_running().unwrap();
        assert_eq!(running_in(&folder).unwrap().unwrap().1, password);
        assert_eq!(stop_below(base.path()).unwrap(), 1);
        assert_eq!(stop_below(base.path()).unwrap(), 0);
        assert!(running_in(&folder).unwrap().is_none());
        cluster.destroy().unwrap();
    }

    #[test]
    fn urls_carry_any_password() {
        assert_eq!(
            user_url("postgres", "a/b@c:d é", 5, "x"),
            "postgres://postgres:a%2Fb%40c%3Ad%20%C3%A9@127.0.0.1:5/x"
        );
    }
}
