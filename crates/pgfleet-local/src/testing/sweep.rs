//! Removing databases that nobody needs any more.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_postgres::Client;

use super::database::origin;
use super::server::connect;
use crate::postmaster::is_alive;

/// One process sweeps at a time; the others have nothing to wait for.
const SWEEP_LOCK: i64 = 0x7067_666c_6565_7402;

/// A test that runs longer than this loses its database.
const TOO_OLD: u64 = 2 * 60 * 60;

/// Starts the thread that removes what dead processes left behind and then what this process
/// discards. Nobody waits for it: what it has not done when the process ends, the next one does.
pub(super) fn spawn(url: String) -> Sender<String> {
    let (sender, receiver) = channel();
    let spawned = thread::Builder::new().name("pgfleet-test-sweep".to_owned()).spawn(move || run(&url, &receiver));
    if let Err(error) = spawned {
        tracing::warn!(%error, "test databases are not swept");
    }
    sender
}

fn run(url: &str, discarded: &Receiver<String>) {
    // A runtime of its own, because a test's runtime ends with the test.
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        if let Ok(client) = connect(url).await {
            sweep(&client).await;
        }
    });
    while let Ok(name) = discarded.recv() {
        runtime.block_on(async {
            // Connected for the moment only: many test processes share the server's connections.
            if let Ok(client) = connect(url).await {
                drop_database(&client, &name).await;
                while let Ok(name) = discarded.try_recv() {
                    drop_database(&client, &name).await;
                }
            }
        });
    }
}

async fn sweep(client: &Client) {
    let locked = client.query_one("SELECT pg_try_advisory_lock($1)", &[&SWEEP_LOCK]).await;
    if !locked.is_ok_and(|row| row.get(0)) {
        return;
    }
    for name in leftovers(client, "SELECT datname::text FROM pg_database WHERE datname LIKE 't\\_%'").await {
        drop_database(client, &name).await;
    }
    for name in leftovers(client, "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 't\\_%'").await {
        // Fails while something still belongs to the role; then the next sweep tries again.
        let name = quote(&name);
        let _ = client.batch_execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}")).await;
    }
}

async fn leftovers(client: &Client, sql: &str) -> Vec<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let rows = client.query(sql, &[]).await.unwrap_or_default();
    rows.iter()
        .map(|row| row.get::<_, String>(0))
        .filter(|name| origin(name).is_some_and(|(made, pid)| !is_alive(pid) || now.saturating_sub(made) > TOO_OLD))
        .collect()
}

async fn drop_database(client: &Client, name: &str) {
    let name = quote(name);
    // A closed template of a test has to be opened for removal.
    let _ = client.batch_execute(&format!("ALTER DATABASE {name} IS_TEMPLATE false")).await;
    let dropped = client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    if let Err(error) = dropped {
        tracing::debug!(%error, database = %name, "a test database stays for the next sweep");
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
