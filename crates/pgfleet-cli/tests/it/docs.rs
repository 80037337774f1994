//! The documentation is run: what stands behind a `$ ` in the guides and in the README does what is
//! written below it.
//!
//! Comments in a page say what the block behind them is:
//!
//! * `<!-- test: NAME -->`: the commands of this `console` block are run, one after the other, in
//!   the shell that the blocks before it left behind (its folder and its exported variables). The
//!   lines below a command must occur in its output; `…` stands for anything.
//! * `<!-- exit: 5 -->`: the last command of the block ends with this code instead of 0.
//! * `<!-- file: PATH -->`, `<!-- append: PATH -->`: the block becomes (the end of) this file; `*`
//!   in its name stands for what a command chose.
//! * `<!-- part of: PATH -->`: the block stands in this file of the repository, which is compiled.
//! * `<!-- superuser -->`: the SQL is run by whoever runs the server.
//! * `<!-- not run: REASON -->`: a `console` block that cannot be run here.
//!
//! `db.example.com:5432` in a page is a server of the test's own, `pooler.example.com:6432` a pooler in
//! front of it, `db2.example.com:5432` a second server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgfleet_local::testing::{OwnServer, Pooler};

/// The server's name in the guides.
const EXAMPLE_SERVER: &str = "db.example.com:5432";

/// The second server's name in the guides.
const EXAMPLE_SECOND: &str = "db2.example.com:5432";

/// The pooler's name in the guides.
const EXAMPLE_POOLER: &str = "pooler.example.com:6432";

/// How long one command may take; the first one may fetch a server.
const LIMIT: Duration = Duration::from_secs(150);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(page: &str) -> String {
    let path = repository().join(page);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a page asks for, in order.
#[derive(Debug)]
enum Step {
    Run { line: usize, command: String, expected: Vec<String>, exit: i32 },
    Write { path: String, text: String, append: bool },
    Superuser { sql: String },
}

/// Reads the steps of a page.
///
/// # Panics
///
/// A `console` block that does not say whether it is run, and a comment before no block.
fn steps(page: &str) -> Vec<Step> {
    let text = read(page);
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut steps = Vec::new();
    let mut comments: Vec<&str> = Vec::new();
    while let Some((number, line)) = lines.next() {
        if let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            comments.push(comment);
        } else if let Some(language) = line.strip_prefix("```") {
            let block: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
            let place = format!("{page}:{number}");
            let value = |name: &str| comments.iter().find_map(|comment| comment.strip_prefix(name));
            let whole = || block.iter().map(|(_, line)| *line).chain([""]).collect::<Vec<_>>().join("\n");
            if value("test: ").is_some() {
                assert_eq!(language, "console", "{place}: only a console block can be run");
                let exit = value("exit: ").map_or(0, |code| code.parse().unwrap());
                steps.extend(commands(&block, exit, &place));
            } else if let Some(path) = value("file: ") {
                steps.push(Step::Write { path: path.to_owned(), text: whole(), append: false });
            } else if let Some(path) = value("append: ") {
                steps.push(Step::Write { path: path.to_owned(), text: whole(), append: true });
            } else if let Some(path) = value("part of: ") {
                // An example stands in a folder of its own, and the page's crate does not.
                let folder = format!("{}/", Path::new(path).parent().unwrap().display());
                let folder = folder.strip_prefix("crates/pgfleet-cli/").unwrap_or(&folder);
                assert!(read(path).replace(folder, "").contains(&whole()), "{place}: {path} does not hold this");
            } else if value("superuser").is_some() {
                steps.push(Step::Superuser { sql: whole() });
            } else {
                let silent = language != "console" || value("not run: ").is_some();
                assert!(silent, "{place}: say `<!-- test: NAME -->` or `<!-- not run: REASON -->`");
            }
            comments.clear();
        } else {
            assert!(comments.is_empty() || line.starts_with("<!--"), "{page}:{number}: a comment before no block");
        }
    }
    steps
}

fn commands(block: &[(usize, &str)], exit: i32, place: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in block {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step::Run { line: *number, command: command.to_owned(), expected: Vec::new(), exit: 0 });
        } else if let Some(Step::Run { expected, .. }) = steps.last_mut() {
            expected.push((*line).to_owned());
        } else {
            panic!("{place}: output before the first command");
        }
    }
    if let Some(Step::Run { exit: last, .. }) = steps.last_mut() {
        *last = exit;
    }
    assert!(!steps.is_empty(), "{place}: no command");
    steps
}

/// Whether a line of output is what was expected; `…` stands for anything.
fn fits(expected: &str, line: &str) -> bool {
    let (expected, line) = (expected.trim_end(), line.trim_end());
    let parts: Vec<&str> = expected.split('…').collect();
    let [first, between @ .., last] = parts.as_slice() else { return expected == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A shell that forgets nothing between two commands, in a folder that goes away with it.
struct Session<'a> {
    folder: tempfile::TempDir,
    server: Option<&'a OwnServer>,
    /// Addresses in the guides, and where these are here.
    places: Vec<(&'static str, String)>,
}

impl<'a> Session<'a> {
    fn new(server: Option<&'a OwnServer>) -> Self {
        let folder = tempfile::Builder::new().prefix("pgfleet-docs-").tempdir().unwrap();
        // A server that dropped root's privileges must reach its data.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let work = folder.path().join("work");
        fs::create_dir(&work).unwrap();
        fs::write(folder.path().join("here"), work.to_str().unwrap()).unwrap();
        fs::write(folder.path().join("variables"), "").unwrap();
        let places = server.iter().map(|server| (EXAMPLE_SERVER, format!("127.0.0.1:{}", server.port()))).collect();
        Self { folder, server, places }
    }

    /// Puts a pooler in front of the server.
    fn with_pooler(mut self, pooler: &Pooler) -> Self {
        self.places.push((EXAMPLE_POOLER, format!("127.0.0.1:{}", pooler.port())));
        self
    }

    /// Has what the guide says to be at one address at another one.
    fn at(mut self, example: &'static str, real: String) -> Self {
        self.places.push((example, real));
        self
    }

    /// Has a second server.
    fn with_second(mut self, second: &OwnServer) -> Self {
        self.places.push((EXAMPLE_SECOND, format!("127.0.0.1:{}", second.port())));
        self
    }

    fn here(&self) -> PathBuf {
        PathBuf::from(fs::read_to_string(self.folder.path().join("here")).unwrap().trim_end())
    }

    /// Puts the test's server in the place of the example's.
    fn real(&self, text: &str) -> String {
        self.places.iter().fold(text.to_owned(), |text, (example, real)| text.replace(example, real))
    }

    /// Runs one command; returns its code and what it printed.
    fn run(&self, command: &str) -> (i32, String) {
        const SCRIPT: &str = "cd \"$(cat \"$0/here\")\" && . \"$0/variables\" && eval \"$1\"; code=$?; \
                              pwd > \"$0/here\"; export -p > \"$0/variables\"; exit $code";
        let program = Path::new(env!("CARGO_BIN_EXE_pgfleet"));
        let path = std::env::var("PATH").unwrap_or_default();
        let printed = self.folder.path().join("printed");
        // A file, not a pipe: a server that outlives the command would keep a pipe open.
        let file = fs::File::create(&printed).unwrap();
        let mut bash = Command::new("bash");
        bash.args(["-c", SCRIPT]).arg(self.folder.path()).arg(self.real(command));
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG")) {
                bash.env_remove(name);
            }
        }
        let mut child = bash
            .env("PATH", format!("{}:{path}", program.parent().unwrap().display()))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("`{command}` has not ended after {} s", LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let text = String::from_utf8_lossy(&fs::read(&printed).unwrap()).into_owned();
        let text = self.places.iter().fold(text, |text, (example, real)| text.replace(real, example));
        (status.code().unwrap_or(-1), text)
    }

    /// Runs what is no part of a page.
    fn prepare(&self, command: &str) {
        let (code, printed) = self.run(command);
        assert_eq!(code, 0, "{command}\n{printed}");
    }

    /// Runs a page from its first block to its last.
    fn page(&self, page: &str) {
        for step in steps(page) {
            match step {
                Step::Run { line, command, expected, exit } => {
                    let (code, printed) = self.run(&command);
                    assert_eq!(code, exit, "{page}:{line}: the exit code of `{command}`, which printed:\n{printed}");
                    for wanted in expected.iter().filter(|wanted| !matches!(wanted.trim(), "" | "…")) {
                        let found = printed.lines().any(|line| fits(wanted, line));
                        assert!(found, "{page}:{line}: `{command}` does not print\n{wanted}\nbut\n{printed}");
                    }
                }
                Step::Write { path, text, append } => self.write(&path, &text, append),
                Step::Superuser { sql } => self.superuser(&sql),
            }
        }
    }

    fn write(&self, path: &str, text: &str, append: bool) {
        let path = expand(&self.here().join(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = if append { fs::read_to_string(&path).unwrap() } else { String::new() };
        fs::write(&path, before + text).unwrap();
    }

    fn superuser(&self, sql: &str) {
        let server = self.server.expect("a page with a server of its own");
        let output = Command::new(server.running().bin_dir.join("psql"))
            .args(["--no-psqlrc", "--set=ON_ERROR_STOP=1", "--command", sql, &server.superuser_url("postgres")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // Also when a page failed: no server may outlive its folder.
        let below = |folder: &str| fs::read_dir(self.folder.path().join(folder)).into_iter().flatten().flatten();
        for solution in below("work")
            .chain(below("work/examples"))
            .map(|entry| entry.path())
            .filter(|path| path.join(".pgfleet").is_dir())
        {
            let _stopped = Command::new(env!("CARGO_BIN_EXE_pgfleet"))
                .args(["--quiet", "down"])
                .current_dir(solution)
                .stdin(Stdio::null())
                .status();
        }
    }
}

/// Finds the one file that a name with `*` means.
fn expand(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    let Some((before, behind)) = name.split_once('*') else { return path.to_owned() };
    let folder = path.parent().unwrap();
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(before) && name.ends_with(behind)
        })
        .collect();
    assert_eq!(found.len(), 1, "{} means {found:?}", path.display());
    found.remove(0)
}

#[test]
fn the_first_guide_and_the_walk_through_of_the_readme_run_as_written() {
    let session = Session::new(None);
    session.page("docs/src/guides/first-five-minutes.md");
    // What `cargo xtask demo` leaves behind: the example as it is, up.
    session.prepare(
        "pgfleet up --detach && pgfleet revert --service trip --to 202501070009 && \
         rm services/trip/migrations/*_add_rating_to_trips.* && pgfleet up --detach",
    );
    session.page("README.md");
}

#[test]
fn the_guides_about_migrations_run_as_written() {
    let session = Session::new(None);
    session.page("docs/src/guides/write-migrations.md");
    session.page("docs/src/guides/when-a-migration-fails.md");
    session.page("docs/src/guides/ci.md");
}

#[test]
fn the_guide_about_modules_runs_as_written() {
    Session::new(None).page("docs/src/guides/modules.md");
}

#[test]
fn the_guide_about_running_services_runs_as_written() {
    Session::new(None).page("docs/src/guides/run-services.md");
}

#[test]
fn the_guide_about_passwords_runs_as_written() {
    Session::new(None).page("docs/src/guides/rotate-passwords.md");
}

#[test]
fn the_guide_to_the_two_services_shows_what_is_compiled() {
    Session::new(None).page("docs/src/guides/two-services.md");
}

#[test]
fn the_guide_about_rust_runs_as_written() {
    let session = Session::new(None);
    // The program of the page was built with the tests; there `cargo build` only puts it into its place.
    let bin = session.folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let build = format!(
        "#!/bin/sh\ntest \"$*\" = build && mkdir -p target/debug && ln -sf '{}' target/debug/app\n",
        crate::program::example("app").display()
    );
    fs::write(bin.join("cargo"), build).unwrap();
    fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    session.prepare(&format!("export PATH='{}':\"$PATH\"", bin.display()));
    session.page("docs/src/guides/rust-migrations.md");
}

#[tokio::test]
async fn the_guides_for_an_existing_server_run_as_written() {
    let server = OwnServer::start(|_| {}).await.unwrap();
    let session = Session::new(Some(&server));
    session.superuser("create role owner login createdb password 'not-a-secret'");
    session.page("docs/src/guides/migrate-one-database.md");
    Session::new(Some(&server)).page("docs/src/guides/connection-strings.md");
    let pooler = Pooler::start(&server.superuser_url("postgres"), |_| {}).await;
    let session = Session::new(Some(&server)).with_pooler(&pooler);
    session.page("docs/src/guides/existing-server.md");
    let session = Session::new(Some(&server));
    session.page("docs/src/guides/test-databases.md");
}

#[tokio::test]
async fn the_guide_about_bundles_runs_as_written() {
    let server = OwnServer::start(|_| {}).await.unwrap();
    let session = Session::new(Some(&server));
    session.superuser("create role fleet_admin login createdb createrole password 'not-a-secret'");
    session.page("docs/src/guides/bundles.md");
}

#[tokio::test]
async fn the_guide_about_tenants_runs_as_written() {
    let server = OwnServer::start(|_| {}).await.unwrap();
    let session = Session::new(Some(&server));
    session.superuser("create role fleet_admin login createdb createrole password 'not-a-secret'");
    session.page("docs/src/guides/tenants.md");
}

#[test]
fn the_guide_about_events_runs_as_written() {
    Session::new(None).page("docs/src/guides/events.md");
}

#[test]
fn the_guide_about_a_service_with_streams_runs_as_written() {
    let port = crate::event_streaming::free_port();
    let session = Session::new(None).at("127.0.0.1:8091", format!("127.0.0.1:{port}"));
    // The services of the page were built with the tests; there cargo only runs them.
    let bin = session.folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let cargo = format!(
        "#!/bin/sh\ntest \"$1 $2 $3\" = 'run -q -p' || exit 9\nservice=${{4#streaming-}}; shift 4\n\
         test \"$1\" = -- && shift\nPORT={port} exec '{}' \"$service\" \"$@\"\n",
        crate::program::example("streaming").display()
    );
    fs::write(bin.join("cargo"), cargo).unwrap();
    fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    session.prepare(&format!(
        "export PATH='{}':\"$PATH\" && mkdir examples && cp -r '{}' examples && \
         sed -i 's/:8091/:{port}/' examples/event-streaming/pgfleet.dev.toml",
        bin.display(),
        crate::event_streaming::source().display()
    ));
    session.page("docs/src/guides/event-streaming.md");
}

#[test]
fn the_guide_about_rollouts_runs_as_written() {
    Session::new(None).page("docs/src/guides/rollouts.md");
}

#[tokio::test]
async fn the_guide_about_moving_tenants_runs_as_written() {
    let (server, second) = (OwnServer::start(|_| {}).await.unwrap(), OwnServer::start(|_| {}).await.unwrap());
    let role = "create role fleet_admin login createdb createrole password 'not-a-secret'";
    Session::new(Some(&second)).superuser(role);
    let session = Session::new(Some(&server)).with_second(&second);
    session.superuser(role);
    session.page("docs/src/guides/move-a-tenant.md");
}

#[test]
fn the_reference_of_the_manifest_is_the_one_of_the_program() {
    let path = repository().join("docs/src/reference/manifest.md");
    let current = pgfleet_control::manifest::reference_markdown();
    if std::env::var_os("PGFLEET_UPDATE_DOCS").is_some() {
        fs::write(&path, current).unwrap();
        return;
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == current,
        "{} is not what the program says; renew it:\n\n  \
         PGFLEET_UPDATE_DOCS=1 cargo test -p pgfleet-cli --test it the_reference_of_the_manifest\n",
        path.display()
    );
}

/// Returns the long flags that a command's help names.
fn flags(words: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_pgfleet")).args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{words:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    help.lines()
        .filter(|line| line.starts_with("  ") && line.trim_start().starts_with('-'))
        .filter_map(|line| line.trim_start().trim_start_matches(|c| c != '-').split("--").nth(1))
        .map(|flag| flag.chars().take_while(|c| c.is_ascii_alphabetic() || *c == '-').collect::<String>())
        .map(|flag| format!("--{flag}"))
        .collect()
}

#[test]
fn the_reference_of_the_command_line_names_every_command_and_flag() {
    let page = read("docs/src/reference/command-line.md");
    let section = |title: &str| {
        let heading = format!("\n## {title}\n");
        let behind = page.split(&heading).nth(1).unwrap_or_else(|| panic!("there is no section {title}"));
        behind.split("\n## ").next().unwrap_or_default().to_owned()
    };
    let global = section("Flags of every command");
    let nouns = [
        "config show",
        "migration new",
        "migration resume",
        "migration reset",
        "migration mark-applied",
        "migration forget",
        "migration accept",
        "isolation verify",
        "tenant create",
        "tenant list",
        "tenant templates",
        "tenant show",
        "tenant set-connection",
        "tenant move",
        "tenant disable",
        "tenant enable",
        "connection list",
        "connection explain",
        "connection test",
        "stream list",
        "stream show",
        "stream read",
        "stream append",
        "stream replay",
        "stream configure",
        "stream retention",
        "queue list",
        "queue enqueue",
        "queue peek",
        "queue dead-letters",
        "queue redrive",
        "queue purge",
        "outbox status",
        "outbox retry",
        "inbox status",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_pgfleet")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let list = help.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands = list.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let mut names: Vec<&str> = Vec::new();
    for name in commands {
        let before = names.len();
        names.extend(nouns.iter().filter(|noun| noun.split(' ').next() == Some(name)));
        if names.len() == before {
            names.push(name);
        }
    }
    for name in names {
        let own = section(&format!("`pgfleet {name}`"));
        for flag in flags(&name.split(' ').collect::<Vec<_>>()) {
            let named = |text: &str| text.contains(&format!("`{flag}`")) || text.contains(&format!("`{flag} "));
            assert!(named(&own) || named(&global), "{flag} of `pgfleet {name}` is missing");
        }
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = repository();
    let mut pages = vec![root.join("README.md"), root.join("ARCHITECTURE.md"), root.join("CONTRIBUTING.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    let summary = read("docs/src/SUMMARY.md");
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let elsewhere = file.is_empty() || file.contains("://") || file.contains(char::is_whitespace);
            assert!(elsewhere || page.parent().unwrap().join(file).exists(), "{}: {link}", page.display());
        }
        if let Ok(name) = page.strip_prefix(root.join("docs/src"))
            && name != Path::new("SUMMARY.md")
        {
            assert!(summary.contains(&format!("({})", name.display())), "SUMMARY.md lacks {}", name.display());
        }
    }
}
