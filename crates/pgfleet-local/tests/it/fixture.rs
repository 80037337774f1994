//! A cluster that is removed with its test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pgfleet_local::{Cluster, ClusterOptions, Running};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

pub(crate) const PASSWORD: &str = "it's a \"secret\" \\ üñ";

pub(crate) struct Fixture {
    pub(crate) cluster: Cluster,
    /// Deleted after the cluster, whose `drop` comes first.
    _folder: TempDir,
}

impl Fixture {
    /// A cluster below a folder that everybody can pass through.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(configure: impl FnOnce(&mut ClusterOptions)) -> Self {
        let folder = open_dir();
        let cluster = Cluster::new(options(&folder.path().join("state"), configure));
        Self { cluster, _folder: folder }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.cluster.options().state_dir.clone()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.destroy() {
            // Printed only when the test fails anyway.
            println!("not removed: {error}");
        }
    }
}

pub(crate) fn options(state_dir: &Path, configure: impl FnOnce(&mut ClusterOptions)) -> ClusterOptions {
    let mut options = ClusterOptions::new("test", state_dir, PASSWORD);
    options.durable = false;
    options.max_connections = 20;
    configure(&mut options);
    options
}

pub(crate) fn open_dir() -> TempDir {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

pub(crate) async fn connect(running: &Running) -> Client {
    let (client, connection) = tokio_postgres::Config::new()
        .host(running.host)
        .port(running.port)
        .user("postgres")
        .password(PASSWORD)
        .dbname("postgres")
        .connect(NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn put_a_row(running: &Running) {
    let sql = "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42); CHECKPOINT";
    connect(running).await.batch_execute(sql).await.unwrap();
}

pub(crate) async fn assert_row(running: &Running) {
    let row = connect(running).await.query_one("SELECT n FROM kept", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
}
