//! A folder, a program and a database per test.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgfleet_local::testing::{TestDatabase, TestServer};
use serde_json::Value;

/// How long a condition is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder that `pgfleet` is called in.
pub(crate) struct Folder {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("pgfleet-cli-").tempdir().unwrap();
        // As root a local server runs as another user, which has to get through.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, variables: Vec::new() }
    }

    /// The folder, without symbolic links.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    /// Writes a file and the folders above it.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).unwrap();
    }

    /// Sets an environment variable of the program.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.retain(|(present, _)| present != name);
        self.variables.push((name.to_owned(), value.into()));
    }

    /// The program with its arguments, with nothing of this process's environment that means
    /// something to it.
    pub(crate) fn command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgfleet"));
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG")) {
                command.env_remove(name);
            }
        }
        command.current_dir(self.path()).args(arguments.iter().map(AsRef::as_ref));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Ran {
        Ran::of(self.command(arguments))
    }

    /// Runs a line of words without blanks in them.
    pub(crate) fn pgfleet(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn<S: AsRef<str>>(&self, arguments: &[S]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// How one call ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Ran {
    pub(crate) fn of(mut command: Command) -> Self {
        let began = Instant::now();
        Self::from(command.output().unwrap(), began.elapsed())
    }

    fn from(output: std::process::Output, took: Duration) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr), took };
        assert!(!ran.err.contains("panicked"), "{ran:?}");
        ran
    }

    /// Waits for a program that was started.
    pub(crate) fn end_of(child: Child) -> Self {
        let began = Instant::now();
        Self::from(child.wait_with_output().unwrap(), began.elapsed())
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\n--- stdout\n{}\n--- stderr\n{}", self.out, self.err);
        self
    }

    /// Checks that standard error holds a text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "not said: {text}\n--- stderr\n{}", self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says_nothing_of(self, text: &str) -> Self {
        assert!(!self.err.contains(text), "said: {text}\n--- stderr\n{}", self.err);
        self
    }

    /// Checks that standard output holds a text.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert!(self.out.contains(text), "not printed: {text}\n--- stdout\n{}", self.out);
        self
    }

    /// Reads standard output as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Standard error with a name replaced and times made equal, to compare it whole.
    pub(crate) fn plain(&self, name: &str) -> String {
        let text = self.err.replace(name, "db");
        let mut shown = String::new();
        let mut rest = text.as_str();
        while let Some(open) = rest.find('(') {
            let (before, after) = rest.split_at(open);
            shown.push_str(before);
            let time = after[1..].split(')').next().unwrap_or_default();
            let is_time = time.ends_with(" ms") || time.ends_with(" s");
            if is_time && time.starts_with(|c: char| c.is_ascii_digit()) {
                shown.push_str("(time)");
                rest = &after[time.len() + 2..];
            } else {
                shown.push('(');
                rest = &after[1..];
            }
        }
        shown + rest
    }
}

/// A database with a folder of migrations, for calls without a manifest.
pub(crate) struct Bare {
    pub(crate) folder: Folder,
    pub(crate) database: TestDatabase,
}

impl Bare {
    pub(crate) async fn new() -> Self {
        let bare = Self { folder: Folder::new(), database: TestServer::shared().await.database().await };
        std::fs::create_dir(bare.folder.path().join("m")).unwrap();
        bare
    }

    /// Writes a migration.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        self.folder.file(&format!("m/{name}"), text)
    }

    pub(crate) fn remove(&self, name: &str) {
        self.folder.remove(&format!("m/{name}"));
    }

    pub(crate) fn arguments(&self, more: &[&str]) -> Vec<String> {
        let fixed = ["migrate", "--url", &self.database.url(), "--dir", "m"].map(str::to_owned);
        fixed.into_iter().chain(more.iter().map(|&word| word.to_owned())).collect()
    }

    pub(crate) fn migrate(&self, more: &[&str]) -> Ran {
        self.folder.run(&self.arguments(more))
    }

    /// Asks the database and returns the first column.
    pub(crate) async fn column(&self, sql: &str) -> Vec<String> {
        column(&self.database.url(), sql).await
    }

    /// The applied versions; none when there is no history.
    pub(crate) async fn versions(&self) -> Vec<String> {
        if self.column("SELECT to_regclass('pgfleet.main_migrations')").await == ["NULL"] {
            return Vec::new();
        }
        self.column("SELECT version FROM pgfleet.main_migrations ORDER BY applied_at, version").await
    }

    /// The tables outside of pgfleet's schema.
    pub(crate) async fn tables(&self) -> Vec<String> {
        self.column("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").await
    }
}

/// Asks a database and returns the first column.
pub(crate) async fn column(url: &str, sql: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    let rows = rows.collect();
    drop(client);
    // Until the session is gone a database cannot be dropped.
    let _ended = connection.await;
    rows
}

/// A solution on the shared server. Its services, roles and databases begin with a name of its own,
/// so that they are removed after the test.
pub(crate) struct Solution {
    pub(crate) folder: Folder,
    pub(crate) prefix: String,
    pub(crate) server: TestServer,
}

impl Solution {
    /// Makes one with the services `trip` (one migration with a way back, one seed) and `user`
    /// (one migration); see [`Self::name`] for their real names.
    pub(crate) async fn new() -> Self {
        let server = TestServer::shared().await;
        let prefix = server.empty_name().await;
        let mut solution = Self { folder: Folder::new(), prefix, server };
        solution.folder.set("PGFLEET_SERVERS__MAIN__URL", solution.server.superuser_url("postgres"));
        let (trip, user) = (solution.name("trip"), solution.name("user"));
        solution.manifest(&format!("[services.{trip}]\n\n[services.{user}]\n"));
        solution
            .folder
            .file(&format!("services/{trip}/migrations/1_trips.up.sql"), "create table trips (id int primary key);\n");
        solution.folder.file(&format!("services/{trip}/migrations/1_trips.down.sql"), "drop table trips;\n");
        solution.folder.file(
            &format!("services/{trip}/seeds/1_trips.sql"),
            "insert into trips values (1) on conflict do nothing;\n",
        );
        solution.folder.file(&format!("services/{user}/migrations/1_users.sql"), "create table users (id int);\n");
        solution
    }

    /// Writes the manifest with its services.
    pub(crate) fn manifest(&self, services: &str) {
        let prefix = &self.prefix;
        let text = format!(
            "[solution]\nname = \"{prefix}\"\n\n[servers.main]\nurl = \"postgres://localhost/postgres\"\n\n\
             [control]\ndatabase = \"{prefix}_control\"\n\n{services}"
        );
        self.folder.file("pgfleet.toml", text);
    }

    /// The real name of a service, database or role.
    pub(crate) fn name(&self, short: &str) -> String {
        format!("{}_{short}", self.prefix)
    }

    /// Runs a line in which `{}` stands for the prefix.
    pub(crate) fn pgfleet(&self, line: &str) -> Ran {
        self.folder.pgfleet(&line.replace("{}", &self.prefix))
    }

    /// Asks a service's database as the superuser; `postgres` is the server's own. `{}` in the
    /// statement stands for the prefix.
    pub(crate) async fn column(&self, database: &str, sql: &str) -> Vec<String> {
        let database = if database == "postgres" { database.to_owned() } else { self.name(database) };
        column(&self.server.superuser_url(&database), &sql.replace("{}", &self.prefix)).await
    }

    /// Runs a statement as the superuser.
    pub(crate) async fn sql(&self, sql: &str) {
        self.column("postgres", sql).await;
    }
}

impl Drop for Solution {
    fn drop(&mut self) {
        // The sweeper removes what belongs to ended processes; databases cost too much disk to wait
        // for it.
        let prefix = &self.prefix;
        let sql = format!(
            "SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database WHERE datname LIKE '{prefix}%' \\gexec"
        );
        let psql = self.server.bin_dir().join("psql");
        let mut command = Command::new(psql);
        command.arg(self.server.superuser_url("postgres")).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if let Ok(mut child) = command.spawn() {
            if let Some(mut input) = child.stdin.take() {
                let _ = std::io::Write::write_all(&mut input, sql.as_bytes());
            }
            let _ = child.wait();
        }
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends a signal to a program that was started here.
pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// Every file below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
