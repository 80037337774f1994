//! How a NATS server is started.

use std::path::Path;
use std::process::Command;

use super::{Ports, USER};
use crate::cluster::HOST;
use crate::error::Result;
use crate::files;
use crate::user::ServerUser;

pub(super) fn command(folder: &Path, ports: Ports, password: &str, user: &ServerUser) -> Result<Command> {
    let program = super::find("nats-server", &[], &["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"], "nats-server")?;
    // In a file: the arguments of a process are everybody's to read.
    let configuration = format!(
        "listen: \"{HOST}:{}\"\nauthorization {{ user: {USER}, password: \"{password}\" }}\n\
         jetstream {{ store_dir: \"{}\" }}\n",
        ports.clients,
        folder.join("data").display()
    );
    let file = folder.join("nats.conf");
    files::replace(&file, configuration.as_bytes(), 0o600, Some(user))?;
    let mut command = user.command(&program);
    command.arg("--config").arg(&file);
    Ok(command)
}
