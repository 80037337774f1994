//! A folder of migrations applied twice, by pgfleet and by the tool it was written for, and the difference.
//!
//! Both get an empty database of their own on a given server. What they leave behind is compared as `pg_dump` writes it,
//! without the tables in which either remembers what it did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run;

/// The two databases, made anew each time.
const DATABASES: [&str; 2] = ["pgfleet_histories_own", "pgfleet_histories_pgfleet"];

/// Where the tools remember what they applied.
const HISTORIES: [&str; 6] = [
    "*._sqlx_migrations",
    "*.__diesel_schema_migrations",
    "*.refinery_schema_history",
    "*.flyway_schema_history",
    "*.goose_db_version*",
    "*.schema_migrations",
];

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    server: String,
    folder: PathBuf,
    layout: Option<String>,
    own: Option<String>,
    before: Option<PathBuf>,
}

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let options = parse(args)?;
    let program = run::build("pgfleet", &["--release"])?;
    let here = std::env::temp_dir().join(format!("pgfleet-histories-{}", std::process::id()));
    fs::create_dir_all(&here)?;
    let compared = compare(&options, &program, &here);
    let dropped = DATABASES.iter().try_for_each(|name| drop_database(&options.server, name));
    fs::remove_dir_all(&here)?;
    compared.and(dropped)
}

fn parse(args: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = args.iter();
    while let Some(&name) = rest.next() {
        let value = *rest.next().with_context(|| format!("{name} needs a value"))?;
        match name {
            "--server" => value.clone_into(&mut options.server),
            "--dir" => options.folder = std::path::absolute(value)?,
            "--layout" => options.layout = Some(value.to_owned()),
            "--own" => options.own = Some(value.to_owned()),
            "--before" => options.before = Some(std::path::absolute(value)?),
            _ => bail!("histories has no option {name}"),
        }
    }
    ensure!(
        !options.server.is_empty(),
        "histories needs --server: the connection string of a server to make databases on"
    );
    ensure!(!options.folder.as_os_str().is_empty(), "histories needs --dir: the folder of migrations");
    Ok(options)
}

fn compare(options: &Options, program: &Path, here: &Path) -> Result<()> {
    let [own, ours] = DATABASES.map(|name| database(&options.server, name));
    let (own, ours) = (own?, ours?);
    let mut dumps = Vec::new();
    // One after the other, since roles that the files make belong to the whole server.
    if let Some(shell) = &options.own {
        empty(options, DATABASES[0])?;
        let mut tool = Command::new("sh");
        tool.args(["-c", shell]).current_dir(run::root()?).env("DATABASE_URL", &own);
        eprintln!("the own tool took {}", shown(timed(&mut tool)?));
        dumps.push(dump(&own, &here.join("own.sql"))?);
        drop_database(&options.server, DATABASES[0])?;
    }
    empty(options, DATABASES[1])?;
    let mut migrate = Command::new(program);
    migrate.args(["--quiet", "migrate", "--url", &ours, "--dir"]).arg(&options.folder);
    if let Some(layout) = &options.layout {
        migrate.args(["--layout", layout]);
    }
    eprintln!("pgfleet took {}", shown(timed(&mut migrate)?));
    dumps.push(dump(&ours, &here.join("pgfleet.sql"))?);
    let [own, ours] = dumps.as_slice() else {
        println!("applied; nothing to compare with (--own)");
        return Ok(());
    };
    let same = Command::new("diff").arg("-u").args([own, ours]).status().context("cannot run diff")?;
    match same.code() {
        Some(0) => {
            println!("no difference in {} lines", fs::read_to_string(own)?.lines().count());
            Ok(())
        }
        Some(1) => bail!("the databases differ"),
        _ => bail!("diff failed ({same})"),
    }
}

/// Makes an empty database, with what the files expect to be there.
fn empty(options: &Options, name: &str) -> Result<()> {
    drop_database(&options.server, name)?;
    psql(&options.server, &["-c", &format!("create database {name} template template0")])?;
    if let Some(before) = &options.before {
        let before = before.to_str().context("the path given to --before is not UTF-8")?;
        psql(&database(&options.server, name)?, &["-f", before])?;
    }
    Ok(())
}

fn drop_database(server: &str, name: &str) -> Result<()> {
    psql(server, &["-c", &format!("drop database if exists {name}")])
}

fn psql(database: &str, args: &[&str]) -> Result<()> {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database])
        .args(args)
        .env("PGOPTIONS", "-c client_min_messages=warning");
    succeeded(psql.status().context("cannot run psql")?, "psql")
}

/// Writes the schema to a file, without what differs each time.
fn dump(database: &str, file: &Path) -> Result<PathBuf> {
    let mut dump = Command::new("pg_dump");
    dump.args(["--schema-only", "--exclude-schema=pgfleet", "-d", database]);
    dump.args(HISTORIES.map(|table| format!("--exclude-table={table}")));
    let output = dump.stderr(std::process::Stdio::inherit()).output().context("cannot run pg_dump")?;
    succeeded(output.status, "pg_dump")?;
    let text = String::from_utf8(output.stdout).context("the dump is not UTF-8")?;
    // Newer versions put a random word into these.
    let random = |line: &&str| line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    fs::write(file, text.split_inclusive('\n').filter(|line| !random(line)).collect::<String>())?;
    Ok(file.to_owned())
}

fn timed(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    let name = command.get_program().to_string_lossy().into_owned();
    // Its talk goes where ours does, so that standard output holds the result alone.
    let status = command.stdout(std::io::stderr()).status().with_context(|| format!("cannot run {name}"))?;
    succeeded(status, &name)?;
    Ok(began.elapsed())
}

fn succeeded(status: ExitStatus, what: &str) -> Result<()> {
    ensure!(status.success(), "{what} failed ({status})");
    Ok(())
}

fn shown(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

/// The connection string of another database on the same server.
fn database(server: &str, name: &str) -> Result<String> {
    let (before, query) = server.split_once('?').map_or((server, None), |(before, query)| (before, Some(query)));
    let (scheme, rest) = before.split_once("://").context("--server takes postgresql://user@host:port/database")?;
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    Ok(match query {
        Some(query) => format!("{scheme}://{host}/{name}?{query}"),
        None => format!("{scheme}://{host}/{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_is_on_the_same_server() {
        let other = |server: &str| database(server, "x").unwrap();
        assert_eq!(other("postgresql://u:p@h:1/d?sslmode=disable"), "postgresql://u:p@h:1/x?sslmode=disable");
        assert_eq!(other("postgres://h"), "postgres://h/x");
        assert!(database("host=h", "x").is_err());
    }

    #[test]
    fn options_are_read_and_the_missing_ones_named() {
        let options =
            parse(&["--server", "postgresql://h", "--dir", "/m", "--layout", "goose", "--own", "x up"]).unwrap();
        assert_eq!((options.folder.as_path(), options.layout.as_deref()), (Path::new("/m"), Some("goose")));
        assert_eq!((options.own.as_deref(), options.before), (Some("x up"), None));
        for (args, words) in [
            (&["--server", "postgresql://h"][..], "--dir"),
            (&["--dir", "m"], "--server"),
            (&["--dir"], "needs a value"),
            (&["--fast", "x"], "no option --fast"),
        ] {
            assert!(parse(args).unwrap_err().to_string().contains(words), "{words}");
        }
    }
}
