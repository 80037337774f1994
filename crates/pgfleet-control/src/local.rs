//! The local servers of a solution: starting, finding and stopping them.

use pgfleet_local::{Cluster, ClusterOptions, Search, Status, StopMode};
use pgfleet_postgres::Address;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::{Error, ErrorKind};
use crate::manifest::{Manifest, Server, ServerUrl};
use crate::place::Place;
use crate::solution::ConnectedServer;
use crate::vault::{Credential, SecretsFile, Vault};

/// The administrator of a local server.
const SUPERUSER: &str = "postgres";

/// Returns the cluster that a manifest's local server is.
fn cluster(manifest: &Manifest, server: &Server, place: &Place, password: &SecretString) -> Cluster {
    let folder: String = server.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let name = format!("{}-{folder}", manifest.solution.name);
    let mut options = ClusterOptions::new(name, place.folder().join(folder), password.expose_secret());
    options.data_dir.clone_from(&server.data_dir);
    SUPERUSER.clone_into(&mut options.superuser);
    options.search = Search::from_env();
    options.search.bin_dir.clone_from(&server.bin_dir);
    // What the services' pools may take together and the tenth that is kept back, room for our own
    // work, and some for people.
    let pools: u32 =
        manifest.services.iter().filter(|service| service.server == server.name).map(|service| service.pool.max).sum();
    options.max_connections = server
        .max_connections
        .unwrap_or_else(|| (pools + pools.div_ceil(9) + 2 * manifest.migrations.concurrency + 20).clamp(100, 1000));
    Cluster::new(options)
}

/// Runs blocking work of `pgfleet-local` off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, pgfleet_local::Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Error::from),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

pub(crate) async fn local_server(
    manifest: &Manifest,
    server: &Server,
    place: &Place,
    file: &SecretsFile,
    vault: &mut Vault,
    start: bool,
) -> Result<ConnectedServer, Error> {
    let known = vault.get(&server.name, SUPERUSER).map(|credential| credential.password.clone());
    let password = match known {
        Some(password) => password,
        None if !start => return Err(stopped(server)),
        None => {
            let (updated, password) = file.update(|vault| {
                if vault.get(&server.name, SUPERUSER).is_none() {
                    vault.set(&server.name, SUPERUSER, Credential::generate());
                }
                vault.get(&server.name, SUPERUSER).map(|credential| credential.password.clone())
            })?;
            *vault = updated;
            password.unwrap_or_default()
        }
    };
    let cluster = cluster(manifest, server, place, &password);
    let running = if start {
        blocking(move || cluster.ensure_running()).await?
    } else {
        match blocking(move || cluster.status()).await? {
            Status::Running(running) => running,
            _ => return Err(stopped(server)),
        }
    };
    let admin = Address::local(running.port, SUPERUSER, password, "postgres");
    Ok(ConnectedServer { services: admin.clone(), admin, local: Some(running) })
}

fn stopped(server: &Server) -> Error {
    Error::new(ErrorKind::Unreachable, format!("the local server {} is not running", server.name))
        .hinted("start it: pgfleet up --detach")
}

/// What `down` found for one local server.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Down {
    /// The server's name.
    pub server: String,
    /// Whether it was running.
    pub was_running: bool,
}

/// Stops the local servers of a solution; their data stays.
pub async fn stop(manifest: &Manifest) -> Result<Vec<Down>, Error> {
    let place = Place::of(&manifest.root);
    let vault = SecretsFile::new(&place).read()?;
    let mut all = Vec::new();
    for server in manifest.servers.values().filter(|server| matches!(server.url, ServerUrl::Local)) {
        let password =
            vault.get(&server.name, SUPERUSER).map(|credential| credential.password.clone()).unwrap_or_default();
        let cluster = cluster(manifest, server, &place, &password);
        let stopped = blocking(move || cluster.stop(StopMode::Fast)).await?;
        all.push(Down { server: server.name.clone(), was_running: stopped.was_running });
    }
    Ok(all)
}
