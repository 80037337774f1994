//! A PgBouncer of a test's own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::server::make_base;
use crate::binaries::Search;
use crate::cluster::HOST;
use crate::error::{Error, Kind, Result, describe};
use crate::postmaster::is_alive;
use crate::user::{ServerUser, current_uid};
use crate::{files, port};

/// How long it may take until it listens.
const READY_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// How often another port is tried when somebody took the one that was free.
const PORT_TRIES: u32 = 10;

/// Where looking for a port begins, above those of the servers.
const FIRST_PORT: u16 = 59_000;

/// Runs the pooler until the standard input ends, which it does with the test process, however that
/// ends: a pipe is all that can be relied on after `kill -9`.
const WATCH: &str = r#""$0" -q "$1" & read -r _; kill -9 $!; wait"#;

/// For how long a client gets the same session of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// As long as it is connected.
    Session,
    /// For one transaction.
    Transaction,
    /// For one statement.
    Statement,
}

impl PoolMode {
    fn word(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        }
    }
}

/// How a test's pooler is configured.
#[derive(Debug, Clone)]
pub struct PoolerOptions {
    /// When a server's session goes to another client.
    pub mode: PoolMode,
    /// Most sessions per role and database.
    pub pool_size: u32,
    /// Start-up parameters that it takes and forgets; it refuses those that it does not know.
    pub ignore_startup_parameters: String,
    /// More lines of its `[pgbouncer]` section.
    pub settings: Vec<(String, String)>,
}

/// A PgBouncer in front of a test server, for one test.
///
/// Roles log in with the passwords that they have on the server. It runs as the user that the
/// servers run as, and ends when this value is dropped or the test process ends.
#[derive(Debug)]
pub struct Pooler {
    watch: Child,
    port: u16,
    folder: PathBuf,
}

impl Pooler {
    /// Starts a pooler in front of the server of this superuser's URL: in transaction mode, five
    /// sessions per role and database, all start-up parameters ignored that it can ignore, unless
    /// changed by the given function.
    ///
    /// # Panics
    /// When there is no PgBouncer on this machine or it does not start.
    pub async fn start(superuser_url: &str, configure: impl FnOnce(&mut PoolerOptions)) -> Self {
        let mut options = PoolerOptions {
            mode: PoolMode::Transaction,
            pool_size: 5,
            ignore_startup_parameters: "extra_float_digits,options".to_owned(),
            settings: Vec::new(),
        };
        configure(&mut options);
        let url = superuser_url.to_owned();
        tokio::task::spawn_blocking(move || start(&url, &options))
            .await
            .unwrap_or_else(|error| panic!("starting a pooler failed: {error}"))
            .unwrap_or_else(|error| panic!("no pooler: {}", describe(&error)))
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same URL by way of the pooler.
    ///
    /// # Panics
    /// When the URL does not name a port of 127.0.0.1.
    pub fn url(&self, url: &str) -> String {
        super::other_port(url, self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        if let Err(error) = self.watch.wait() {
            tracing::warn!(%error, "a test's pooler was not awaited");
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn start(superuser_url: &str, options: &PoolerOptions) -> Result<Pooler> {
    let program = find()?;
    let user = ServerUser::choose(None)?;
    let base = PathBuf::from(format!("/var/tmp/pgfleet-pooler-{}", current_uid()));
    make_base(&base)?;
    remove_orphans(&base);
    let folder = base.join(format!("{}-{:08x}", std::process::id(), rand::random::<u32>()));
    files::make_dir(&folder)?;
    user.give(&folder)?;
    files::chmod(&folder, 0o700)?;
    let mut tried = String::new();
    for _ in 0..PORT_TRIES {
        let port = port::free_from(FIRST_PORT + rand::random::<u16>() % 4_000)?;
        match start_on(port, superuser_url, options, &program, &user, &folder)? {
            Ok(watch) => return Ok(Pooler { watch, port, folder }),
            Err(log) => tried = log,
        }
    }
    let _ = fs::remove_dir_all(&folder);
    Err(Error::invalid(format!("PgBouncer does not listen; its log: {tried}")))
}

/// Starts it on one port; the log when that was taken meanwhile.
fn start_on(
    port: u16,
    superuser_url: &str,
    options: &PoolerOptions,
    program: &Path,
    user: &ServerUser,
    folder: &Path,
) -> Result<std::result::Result<Child, String>> {
    let log = folder.join("log");
    files::remove_file(&log)?;
    let (configuration, users) = configuration(port, superuser_url, options, folder)?;
    let file = folder.join("pgbouncer.ini");
    files::replace(&file, configuration.as_bytes(), 0o600, Some(user))?;
    files::replace(&folder.join("users"), users.as_bytes(), 0o600, Some(user))?;
    let mut command: Command = user.command(Path::new("/bin/sh"));
    command.arg("-c").arg(WATCH).arg(program).arg(&file);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut watch = command.spawn().map_err(|source| Kind::Spawn { program: program.display().to_string(), source })?;
    let began = Instant::now();
    loop {
        let text = files::read_from(&log, 0);
        if text.contains("process up") {
            return Ok(Ok(watch));
        }
        if text.contains("cannot listen") || text.contains("FATAL") || began.elapsed() > READY_LIMIT {
            drop(watch.stdin.take());
            let _ = watch.wait();
            if text.contains("Address already in use") {
                return Ok(Err(text));
            }
            return Err(Error::invalid(format!("PgBouncer does not start; its log: {text}")));
        }
        thread::sleep(POLL);
    }
}

/// The configuration, and the file of users: the superuser only, who looks up all others.
fn configuration(port: u16, superuser_url: &str, options: &PoolerOptions, folder: &Path) -> Result<(String, String)> {
    let server: tokio_postgres::Config =
        superuser_url.parse().map_err(|_| Error::invalid("the server's URL cannot be read"))?;
    let superuser = server.get_user().unwrap_or("postgres");
    let password = String::from_utf8_lossy(server.get_password().unwrap_or_default()).into_owned();
    let server_port = server.get_ports().first().copied().unwrap_or(5432);
    let mut text = format!(
        "[databases]\n* = host={HOST} port={server_port}\n\n[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {port}\n\
         unix_socket_dir =\nlogfile = {log}\nauth_type = scram-sha-256\nauth_file = {users}\nauth_user = {superuser}\n\
         pool_mode = {mode}\ndefault_pool_size = {size}\n",
        log = folder.join("log").display(),
        users = folder.join("users").display(),
        mode = options.mode.word(),
        size = options.pool_size,
    );
    if !options.ignore_startup_parameters.is_empty() {
        let _ = writeln!(text, "ignore_startup_parameters = {}", options.ignore_startup_parameters);
    }
    for (name, value) in &options.settings {
        let _ = writeln!(text, "{name} = {value}");
    }
    let quoted = |word: &str| format!("\"{}\"", word.replace('"', "\"\""));
    Ok((text, format!("{} {}\n", quoted(superuser), quoted(&password))))
}

/// Looks where `PATH` leads, and where Debian keeps it, which an ordinary user's `PATH` leaves out.
fn find() -> Result<PathBuf> {
    let folders = Search::from_env().path.into_iter().chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
        .ok_or_else(|| Error::invalid("PgBouncer is not installed (Debian, Ubuntu: apt-get install pgbouncer)"))
}

/// Folders whose test process is dead; their poolers ended with it.
fn remove_orphans(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split_once('-')?.0.parse::<u32>().ok());
        if pid.is_some_and(|pid| !is_alive(pid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
