//! How a RabbitMQ is started.

use std::path::Path;
use std::process::Command;

use super::{Ports, USER};
use crate::cluster::HOST;
use crate::error::Result;
use crate::files;
use crate::user::ServerUser;

/// Debian's program on the `PATH` is a script that runs as nobody but root and `rabbitmq`; the real one is here.
const FOLDERS: [&str; 2] = ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin"];

/// The node asks a small name server for its own address. One that it had to start by itself would be left behind by
/// every broker, so it gets one that ends with it.
const SCRIPT: &str = r#"epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & exec "$0""#;

/// Two threads are enough for tests, and waiting ones must not burn the processor that the tests need.
const THREADS: &str = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none";

pub(super) fn command(folder: &Path, ports: Ports, password: &str, user: &ServerUser) -> Result<Command> {
    let program =
        super::find("rabbitmq-server", &FOLDERS, &["/usr/local/sbin", "/opt/homebrew/sbin"], "rabbitmq-server")?;
    let configuration = format!(
        "listeners.tcp.1 = {HOST}:{}\ndefault_user = {USER}\ndefault_pass = {password}\nlog.file = false\n\
         log.console = true\nlog.console.level = warning\n",
        ports.clients
    );
    files::replace(&folder.join("rabbitmq.conf"), configuration.as_bytes(), 0o600, Some(user))?;
    files::replace(&folder.join("plugins"), b"[].\n", 0o600, Some(user))?;
    let mut command = user.command(Path::new("/bin/sh"));
    command
        .arg("-c")
        .arg(SCRIPT)
        .arg(program)
        .env("HOME", folder)
        .env("LC_ALL", "C.UTF-8")
        .env("ERL_EPMD_ADDRESS", HOST)
        .env("ERL_EPMD_PORT", ports.names.to_string())
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_DIST_PORT", ports.nodes.to_string())
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
        .env("RABBITMQ_LOG_BASE", folder)
        .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
        .env("RABBITMQ_NODENAME", "pgfleet@localhost")
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", THREADS);
    Ok(command)
}
