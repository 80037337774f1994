//! The server that everybody is measured on: durable, over TCP, with a password.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pgfleet_local::{Binaries, Cluster, ClusterOptions, OLDEST_SUPPORTED, Running};

/// It guards an empty server on the loopback address for some minutes; what counts is that everybody pays for SCRAM.
const PASSWORD: &str = "measured";

/// What differs from the defaults of a local server of pgfleet.
pub(crate) const SETTINGS: [(&str, &str); 3] = [
    // No checkpoint by time or volume falls into somebody's turn; one is made before each.
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "1h"),
    // Nor does a worker that analyses the tables of the turn before.
    ("autovacuum", "off"),
];

pub(crate) struct Server {
    cluster: Cluster,
    running: Running,
}

impl Server {
    /// Starts it with room for at least this many connections.
    pub(crate) fn start(work: &Path, connections: u32) -> Result<Self> {
        let mut options = ClusterOptions::new("pgfleet-bench", work.join("server"), PASSWORD);
        // The oldest supported version where the machine has it: figures stay comparable.
        let oldest = options.search.clone().with_major(OLDEST_SUPPORTED);
        if Binaries::find(&oldest).is_ok() {
            options.search = oldest;
        }
        options.durable = true;
        options.max_connections = connections;
        options.settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let cluster = Cluster::new(options);
        // What a killed run left behind.
        cluster.destroy()?;
        let running = cluster.ensure_running()?;
        Ok(Self { cluster, running })
    }

    /// The superuser's URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.running.port)
    }

    pub(crate) fn version(&self) -> String {
        let (major, minor) = self.running.version;
        format!("{major}.{minor}")
    }

    /// The processor time that this process and all of the server's that have ended have used.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let ticks = |process: &str, fields: std::ops::Range<usize>| -> Result<u64> {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
            // The name before them may have spaces in it.
            let (_, rest) = stat.rsplit_once(')').context("no name in /proc/*/stat")?;
            let numbers = rest.split_whitespace().skip(fields.start).take(fields.len());
            Ok(numbers.map(str::parse::<u64>).sum::<Result<u64, _>>()?)
        };
        // utime and stime; of the children that were waited for, cutime and cstime.
        let all = ticks("self", 11..13)? + ticks(&self.running.pid.to_string(), 13..15)?;
        // A tick is a hundredth of a second on every Linux.
        Ok(Duration::from_millis(all * 10))
    }

    /// How many connections it has refused because it was full, as its log has it.
    pub(crate) fn refusals(&self) -> Result<usize> {
        let log = std::fs::read(&self.running.log_file).context("the server has no log")?;
        Ok(String::from_utf8_lossy(&log).matches("too many ").count())
    }

    /// The real psql: the one on a Debian `PATH` is a script that looks for it first.
    pub(crate) fn psql(&self) -> PathBuf {
        self.running.bin_dir.join("psql")
    }

    /// Runs SQL, each statement in a transaction of its own.
    pub(crate) fn execute(&self, database: &str, statements: &[String]) -> Result<()> {
        use std::io::Write as _;
        let mut psql = Command::new(self.psql())
            .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null"])
            .arg(self.url(database))
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run psql")?;
        let mut input = psql.stdin.take().context("psql has no input")?;
        for statement in statements {
            writeln!(input, "{statement};")?;
        }
        drop(input);
        ensure!(psql.wait()?.success(), "preparing databases failed");
        Ok(())
    }

    /// Runs a query and returns its rows as psql writes them: a line each.
    pub(crate) fn read(&self, database: &str, query: &str) -> Result<String> {
        let mut psql = Command::new(self.psql());
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--command", query]);
        let output = psql.arg(self.url(database)).output().context("cannot run psql")?;
        ensure!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Prepares a round: nothing of it is measured, and nothing of it is left to be written during what is.
    ///
    /// Without fsync, and with one call for the whole disk at the end: every DROP DATABASE makes a checkpoint, and a
    /// checkpoint after thousands of new files syncs each of them, which would be most of a run.
    pub(crate) fn prepare(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.set_fsync("off")?;
        work()?;
        self.execute("postgres", &["CHECKPOINT".to_owned()])?;
        ensure!(Command::new("sync").status()?.success(), "sync failed");
        self.set_fsync("on")
    }

    fn set_fsync(&self, value: &str) -> Result<()> {
        self.execute("postgres", &[format!("ALTER SYSTEM SET fsync = {value}"), "SELECT pg_reload_conf()".to_owned()])?;
        // The signal takes its time; a new session has what the postmaster has read.
        for _ in 0..500 {
            if self.read("postgres", "SHOW fsync")?.trim() == value {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the server does not turn fsync {value}")
    }

    /// Makes empty databases.
    pub(crate) fn create(&self, names: &[String]) -> Result<()> {
        let create = |name: &String| format!("CREATE DATABASE {name} TEMPLATE template0");
        self.execute("postgres", &names.iter().map(create).collect::<Vec<_>>())
    }

    /// Removes databases that may not exist.
    pub(crate) fn drop(&self, names: &[String]) -> Result<()> {
        let drop = |name: &String| format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        let mut statements = vec!["SET client_min_messages = warning".to_owned()];
        statements.extend(names.iter().map(drop));
        self.execute("postgres", &statements)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.destroy() {
            eprintln!("the server was not removed: {error}");
        }
    }
}
