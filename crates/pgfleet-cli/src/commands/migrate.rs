//! `pgfleet migrate`: over the solution, or one database from one folder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgfleet_control::Solution;
use pgfleet_control::fleet::TargetReport;
use pgfleet_control::rollouts::{Ask, Begun};
use pgfleet_control::solution::Next;
use pgfleet_migrate::options::Concurrently;
use pgfleet_migrate::{Options, Outcome, Report, Set, SetPath, Target, run};
use pgfleet_postgres::{Address, Surroundings};

use crate::args::Migrate;
use crate::commands::bundle;
use crate::commands::guests;
use crate::commands::rollout::{self, Tenants};
use crate::context::{Context, properties, who};
use crate::error::{CommandError, Exit, relative_text, render_migration};
use crate::talk::human;

/// How often a single database without a manifest is tried with `--wait`.
const WAIT_ATTEMPTS: u32 = 30;

/// The set's name when one database is migrated without a manifest and none was given.
pub(crate) const DEFAULT_SET: &str = "main";

pub(crate) async fn run(context: &Context, arguments: &Migrate) -> Result<Exit, CommandError> {
    if let Some(folder) = &arguments.dir {
        return one_database(context, arguments, folder).await;
    }
    let bundle = arguments.bundle.as_deref().map(bundle::read).transpose()?;
    let mut solution = context.open_for(Next::Migrations).await?;
    if let Some(bundle) = bundle {
        solution.use_bundle(bundle)?;
        bundle::say_left_out(context, &solution);
    }
    let mut options = solution.options().clone();
    let wait_attempts = solution.manifest.migrations.wait_attempts;
    apply_flags(&mut options, arguments, context.global.wait.then_some(wait_attempts))?;
    let services = match &arguments.set {
        Some(set) => {
            options.set = Some(set.clone());
            with_set(context, &solution, &arguments.service, set).await?
        }
        None => arguments.service.clone(),
    };
    let concurrency = arguments.concurrency.unwrap_or(solution.manifest.migrations.concurrency);
    let extra = properties(&arguments.property)?;
    let began = Instant::now();
    let mut tenants = Tenants::None;
    if !arguments.hosts_only {
        let ask = Ask {
            services: services.clone(),
            tenants: arguments.tenant.clone(),
            recheck: arguments.recheck,
            properties: extra.clone(),
            concurrency: arguments.concurrency,
            canary: arguments.canary,
            max_failures: arguments.max_failures,
        };
        if arguments.check || arguments.dry_run {
            let looking = Arc::new(solution);
            tenants = Tenants::look(context, &looking, &ask, &options, arguments.check).await?;
            solution = Arc::into_inner(looking)
                .ok_or_else(|| CommandError::new(Exit::Failed, "a look at the tenants' databases did not end"))?;
        } else {
            let listener = context.talk.listener();
            match solution.begin_rollout(&ask, &options, &listener).await? {
                Begun::Rollout { id, joined, plans } => {
                    if joined {
                        context.talk.say(&format!("going on with rollout {id}"));
                    }
                    return rollout::work(context, solution, id, plans, extra, &options).await;
                }
                Begun::Current(settled) => tenants = Tenants::Current(settled),
                Begun::NoTenants => {}
            }
        }
        if !arguments.tenant.is_empty() {
            return tenants.finish(context, &[], arguments.check);
        }
    }
    let count = solution.services(&services)?.len();
    let progress = Arc::new(context.talk.progress(count, "migrating"));
    let orderly = context.orderly();
    let reports = solution.migrate(&services, &extra, &options, concurrency as usize, progress.clone()).await;
    drop(orderly);
    progress.finish();
    let reports = reports?;
    if !arguments.check && !arguments.dry_run {
        record(context, &solution, "migrate", &reports).await;
    }
    if arguments.dry_run && !context.talk.json {
        print_sql(context, &solution, &reports).await?;
    }
    // What has no database of its own follows its host.
    let mut guests = Exit::Done;
    let whole = options.to.is_none() && options.set.is_none();
    if !arguments.check && !arguments.dry_run && !arguments.hosts_only && whole {
        guests = guests::seed(context, &solution, (&[], &services), &options).await?;
    }
    let exit = match tenants {
        Tenants::None => finish(context, &reports, began.elapsed(), arguments.check),
        tenants => {
            let exit = say_all(context, &reports, began.elapsed(), arguments.check);
            Ok(exit.max(tenants.finish(context, &reports, arguments.check)?))
        }
    };
    Ok(exit?.max(guests))
}

/// Returns the services whose path has a set.
async fn with_set(
    context: &Context,
    solution: &Solution,
    services: &[String],
    set: &str,
) -> Result<Vec<String>, CommandError> {
    let listener = context.talk.listener();
    let mut having = Vec::new();
    for service in solution.services(services)? {
        let named = service.name == set || service.modules.iter().any(|name| name == set);
        if named || solution.program_has(service, set, &listener).await {
            having.push(service.name.clone());
        }
    }
    if having.is_empty() {
        return Err(CommandError::new(Exit::Usage, format!("there is no set {set} in the paths of these services"))
            .hinted("a set is called as its service or module"));
    }
    Ok(having)
}

/// Writes the outcome to the control database; that it cannot be written undoes nothing.
pub(crate) async fn record(context: &Context, solution: &Solution, action: &str, reports: &[TargetReport]) {
    if let Err(error) = solution.record(action, reports).await {
        context.talk.note(&format!("{error}: {}", error.causes().join(": ")));
    }
}

fn apply_flags(options: &mut Options, arguments: &Migrate, wait_attempts: Option<u32>) -> Result<(), CommandError> {
    options.to = arguments.to.as_deref().map(version).transpose()?;
    options.dry_run = arguments.dry_run;
    if arguments.check {
        // Looks only, but with the choices of the manifest: an edited file fails the check.
        options.dry_run = true;
    }
    if let Some(attempts) = wait_attempts {
        options.wait_attempts = attempts;
    }
    options.lock_wait = arguments.lock_wait.map(Duration::from_secs);
    options.concurrently = match arguments.concurrently.as_deref() {
        Some("plain-when-empty") => Concurrently::PlainWhenEmpty,
        Some(_) => Concurrently::AsWritten,
        None => options.concurrently,
    };
    Ok(())
}

/// Reads a version typed by the user.
pub(crate) fn version(text: &str) -> Result<pgfleet_sql::version::Version, CommandError> {
    text.parse().map_err(|error: pgfleet_sql::version::VersionError| {
        CommandError::new(Exit::Usage, error.to_string()).hinted(error.hint())
    })
}

/// Migrates one database from one folder; needs no manifest and no control database.
async fn one_database(context: &Context, arguments: &Migrate, folder: &std::path::Path) -> Result<Exit, CommandError> {
    let (target, set) = bare(arguments.url.as_deref(), folder, arguments.set.as_deref(), arguments.layout.as_deref())?;
    if !arguments.property.is_empty() {
        return Err(CommandError::new(Exit::Usage, "--property is for seeds, and --dir has none"));
    }
    let path = set.into();
    let mut options = Options { who: who(), stop: context.stop.clone(), ..Options::default() };
    apply_flags(&mut options, arguments, context.global.wait.then_some(WAIT_ATTEMPTS))?;
    let progress = context.talk.progress(1, "migrating");
    let began = Instant::now();
    let orderly = context.orderly();
    let result = run::migrate(&target, &path, &options, &progress).await;
    drop(orderly);
    progress.finish();
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            if context.talk.json {
                context.talk.json(&failure(&target.name, &error))?;
            }
            let mut own = render_migration(&error);
            own.exit = checked(own.exit, &error, arguments.check);
            return Err(own);
        }
    };
    if arguments.dry_run && !context.talk.json {
        print_scripts(context, &path, &report);
    }
    say_report(context, &report, began.elapsed());
    if context.talk.json {
        context.talk.json(&report)?;
    }
    Ok(if arguments.check && report.outcome == Outcome::Pending { Exit::Findings } else { Exit::Done })
}

/// Makes the target and set of `--url` and `--dir`.
pub(crate) fn bare(
    url: Option<&str>,
    folder: &std::path::Path,
    set: Option<&str>,
    layout: Option<&str>,
) -> Result<(Target, Set), CommandError> {
    let from_environment = std::env::var("PGFLEET_URL").ok();
    let url = url.or(from_environment.as_deref()).ok_or_else(|| {
        CommandError::new(Exit::Usage, "--dir needs --url (or PGFLEET_URL)")
            .hinted("pgfleet migrate --url postgresql://user@host/database --dir FOLDER")
    })?;
    // What the connection string leaves open is what psql would take.
    let around = Surroundings::from_variables(|name| std::env::var(name).ok()).with_user(who().user);
    let address = Address::parse_with(url, &around)?;
    let layout = layout.map(str::parse).transpose().map_err(|error: pgfleet_sql::layout::UnknownLayout| {
        CommandError::new(Exit::Usage, error.to_string()).hinted(error.hint())
    })?;
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let mut read = Set::read(set.unwrap_or(DEFAULT_SET), &folder, layout, BTreeMap::new())?;
    read.named = set.is_some();
    let mut target = Target::new(address.database(), address.clone());
    target.admin = Some(address.with_database("postgres"));
    Ok((target, read))
}

/// Says how one database's run ended.
fn say_report(context: &Context, report: &Report, took: Duration) {
    for note in &report.notes {
        context.talk.note(&format!("{}: {}", report.target, relative_text(note)));
    }
    let (name, took) = (&report.target, human(took));
    let version = report.to.as_deref().unwrap_or("nothing applied");
    let text = match report.outcome {
        Outcome::UpToDate => format!("{name}: nothing to do, at {version} ({took})"),
        Outcome::DoneByAnother => format!("{name}: another run did it, at {version} ({took})"),
        Outcome::Pending => {
            format!("{name}: {} pending, {} to seed; at {version}", report.pending.len(), report.pending_seeds.len())
        }
        Outcome::Applied => {
            let seeded =
                if report.seeded.is_empty() { String::new() } else { format!(", seeded {}", report.seeded.len()) };
            format!("{name}: applied {}{seeded}, now at {version} ({took})", report.applied.len())
        }
    };
    context.talk.say(&text);
}

/// Prints the SQL of a dry run for the whole solution.
async fn print_sql(context: &Context, solution: &Solution, reports: &[TargetReport]) -> Result<(), CommandError> {
    let listener = context.talk.listener();
    for report in reports {
        let Ok(done) = &report.result else { continue };
        let names = std::slice::from_ref(&report.service);
        let jobs = solution.prepared(names, &BTreeMap::new(), &listener).await?;
        for job in jobs {
            print_scripts(context, &job.path, done);
        }
    }
    Ok(())
}

fn print_scripts(context: &Context, path: &SetPath, report: &Report) {
    for label in &report.pending {
        context.talk.data(&format!("-- {}: {label}", report.target));
        context.talk.data(path.text_of(label).unwrap_or_default().trim_end());
    }
}

/// With `--check`, files that disagree with the history are what was looked for.
fn checked(exit: Exit, error: &pgfleet_migrate::Error, check: bool) -> Exit {
    if check && error.kind() == pgfleet_migrate::ErrorKind::Findings { Exit::Findings } else { exit }
}

/// Tells how all databases ended, prints them for `--json`, and picks the exit code.
pub(crate) fn finish(
    context: &Context,
    reports: &[TargetReport],
    took: Duration,
    check: bool,
) -> Result<Exit, CommandError> {
    if context.talk.json {
        let documents: Vec<_> = reports.iter().map(document).collect();
        context.talk.json(&documents)?;
    }
    Ok(say_all(context, reports, took, check))
}

/// Tells how all databases ended and picks the exit code.
fn say_all(context: &Context, reports: &[TargetReport], took: Duration, check: bool) -> Exit {
    let mut exit = Exit::Done;
    let mut counts = (0, 0, 0, 0);
    let mut errors = Vec::new();
    for report in reports {
        match &report.result {
            Ok(done) => {
                match done.outcome {
                    Outcome::UpToDate | Outcome::DoneByAnother => counts.0 += 1,
                    Outcome::Applied => counts.1 += 1,
                    Outcome::Pending => counts.2 += 1,
                }
                say_report(context, done, report.took);
            }
            Err(error) => {
                counts.3 += 1;
                let mut own = render_migration(error);
                own.exit = checked(own.exit, error, check);
                errors.push(own);
            }
        }
    }
    for error in &errors {
        context.talk.error(error);
        exit = exit.max(error.exit);
    }
    if errors.iter().any(|error| error.exit == Exit::Failed) && exit < Exit::Interrupted {
        exit = Exit::Failed;
    }
    if reports.len() > 1 {
        let took = human(took);
        context.talk.say(&format!(
            "{} databases: {} changed, {} up to date, {} pending, {} failed ({took})",
            reports.len(),
            counts.1,
            counts.0,
            counts.2,
            counts.3
        ));
    }
    if exit == Exit::Done && check && counts.2 > 0 {
        exit = Exit::Findings;
    }
    exit
}

/// Renders a failure for `--json`.
fn failure(target: &str, error: &pgfleet_migrate::Error) -> serde_json::Value {
    serde_json::json!({
        "target": target, "outcome": "failed", "error": error.to_string(), "causes": error.causes(),
        "place": error.place().map(ToString::to_string), "sql_state": error.sql_state(), "hint": error.hint(),
    })
}

/// Renders one database's outcome for `--json`.
pub(crate) fn document(report: &TargetReport) -> serde_json::Value {
    let mut value = match &report.result {
        Ok(done) => serde_json::json!(done),
        Err(error) => failure(&report.service, error),
    };
    value["service"] = report.service.clone().into();
    value["server"] = report.server.clone().into();
    value["database"] = report.database.clone().into();
    value["state"] = report.state().word().into();
    value
}
