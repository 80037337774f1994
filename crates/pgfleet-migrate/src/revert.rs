//! Going back: the down scripts of the newest applied migrations, newest first.

use std::time::Instant;

use pgfleet_postgres::Connection;
use pgfleet_sql::annotation::Annotations;
use pgfleet_sql::layout::{Layout, Script};
use pgfleet_sql::version::Version;

use crate::error::{Error, ErrorKind};
use crate::event::{Event, Observer};
use crate::history::Row;
use crate::options::Options;
use crate::path::SetPath;
use crate::report::{Outcome, Report};
use crate::run::{Opened, open, retrying, stopped_in_the_middle};
use crate::set::Set;
use crate::store;
use crate::target::Target;
use crate::unit::{Action, Draft, Unit};
use crate::work::Work;

/// How far to go back.
#[derive(Debug, Clone)]
pub enum Goal {
    /// So many migrations.
    Steps(usize),
    /// Down to this version, which stays applied; none reverts everything.
    To(Option<Version>),
    /// What was applied under this run's id ([`Options::run`]), as it was recorded then.
    Run(String),
}

/// Reverts migrations of one set in one target, newest first, each in a transaction with its
/// history row: of the service's own set, or of the one that the options name.
///
/// The down text is the file's; when the file is gone, or a run is taken back, the text recorded when
/// it was applied.
/// A dry run only says what would be reverted.
///
/// # Errors
///
/// A migration that has no down, or that an applied migration of another set requires, stops the
/// run before anything is reverted.
pub async fn revert(
    target: &Target,
    path: &SetPath,
    goal: &Goal,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report, Error> {
    target.refuse_shared("revert")?;
    retrying(target, options, observer, || once(target, path, goal, options, observer)).await
}

async fn once(
    target: &Target,
    path: &SetPath,
    goal: &Goal,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report, Error> {
    let began = Instant::now();
    let Opened::Connected { connection, .. } = open(target, "revert", false, options, observer).await? else {
        return Err(Error::new(ErrorKind::Findings, format!("cannot revert {}", target.name))
            .cause("the database does not exist"));
    };
    let result = with(&connection, target, path, goal, options, observer, began).await;
    connection.close().await;
    result
}

async fn with(
    connection: &Connection,
    target: &Target,
    path: &SetPath,
    goal: &Goal,
    options: &Options,
    observer: &dyn Observer,
    began: Instant,
) -> Result<Report, Error> {
    let set = path.chosen(options.set.as_deref(), &format!("cannot revert {}", target.name))?;
    let failed = |error| Error::connection(format!("cannot revert {}", target.name), error);
    // A dry run only looks.
    if !options.dry_run {
        let held = crate::lock::acquire(connection, target, options, observer, || async { Ok(None::<()>) }).await?;
        debug_assert!(held.is_none(), "nothing settles a revert but the lock");
    }
    let rows = store::look(connection, &set.history, None).await.map_err(failed)?.rows.unwrap_or_default();
    let (chosen, stays) = choose(&rows, set.layout, goal, target)?;
    refuse_required(connection, target, path, set, &chosen).await?;
    let mut scripts = Vec::with_capacity(chosen.len());
    for (version, row) in &chosen {
        let recorded = matches!(goal, Goal::Run(_)) && !set.code.contains_key(version);
        let annotations = set.find(version).filter(|_| !recorded).map(|migration| migration.down_annotations.clone());
        scripts.push((*row, down_script(connection, set, version, row, target, recorded).await?, annotations));
    }
    let run = uuid::Uuid::now_v7().to_string();
    let mut units = Vec::with_capacity(scripts.len());
    for ((version, _), (row, script, annotations)) in chosen.iter().zip(&scripts) {
        let mut unit = down_unit(set, row, script, annotations.as_ref(), target, options, &run)?;
        if set.name != path.own().name {
            unit.label = format!("{}/{}", set.name, unit.label);
        }
        let up = set.find(version).map(|migration| migration.up.text.as_str());
        if unit.statements.is_empty() && up.is_none_or(|up| pgfleet_sql::lexer::significant(up).next().is_some()) {
            return Err(Error::new(ErrorKind::Findings, unit.action.sentence(&unit.label, &target.name))
                .cause(format!("{} holds no statement; nothing was reverted", script.path.display()))
                .hinted("write what undoes the migration; `select 1;` says that nothing has to be done"));
        }
        units.push(unit);
    }
    let labels: Vec<String> = units.iter().map(|unit| unit.label.clone()).collect();
    let mut report = Report {
        target: target.name.clone(),
        set: set.name.clone(),
        outcome: if options.dry_run { Outcome::Pending } else { Outcome::Applied },
        from: chosen.first().map(|(_, row)| row.version.clone()).or_else(|| stays.clone()),
        to: stays,
        applied: Vec::new(),
        seeded: Vec::new(),
        pending: Vec::new(),
        pending_seeds: Vec::new(),
        sets: Vec::new(),
        notes: Vec::new(),
        blocked: None,
        created: false,
        took_ms: 0,
        entries: Vec::new(),
    };
    if units.is_empty() {
        report.outcome = Outcome::UpToDate;
    } else if options.dry_run {
        report.pending = labels;
    } else {
        store::ensure(connection, &set.history, store::Beside::REPAIR).await.map_err(failed)?;
        if units.iter().any(|unit| unit.no_transaction) {
            let interrupted = store::interrupted(connection, &set.history).await.map_err(failed)?;
            for unit in units.iter().filter(|unit| unit.no_transaction) {
                if let Some((_, done)) = interrupted.iter().find(|(version, _)| *version == unit.version) {
                    return Err(stopped_in_the_middle(Action::Revert, &unit.label, &unit.version, target, set, *done));
                }
            }
        }
        // A history of the user's choice may be older than the tables beside it.
        store::ensure(connection, &set.history, store::Beside::REPAIR).await.map_err(failed)?;
        observer.event(&target.name, &Event::Planned { steps: units.len() });
        let (tenant, schema) = (target.tenant.as_deref(), target.schema.as_deref());
        let work = Work { connection, target: &target.name, tenant, schema, options, run: &run, observer };
        work.apply(&units).await?;
        report.applied = labels;
    }
    report.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// Refuses to take away what an applied migration of another set requires.
async fn refuse_required(
    connection: &Connection,
    target: &Target,
    path: &SetPath,
    set: &Set,
    chosen: &[(Version, &Row)],
) -> Result<(), Error> {
    let failed = |error| Error::connection(format!("cannot revert {}", target.name), error);
    for other in path.sets().iter().filter(|other| other.name != set.name) {
        let requiring: Vec<_> = other
            .migrations
            .iter()
            .filter_map(|migration| {
                let required = migration.annotations.requires.iter().filter(|required| required.set == set.name);
                let mut versions = required.filter_map(|required| set.layout.version(&required.version).ok());
                let (_, row) = versions.find_map(|version| chosen.iter().find(|(gone, _)| *gone == version))?;
                Some((migration, *row))
            })
            .collect();
        if requiring.is_empty() {
            continue;
        }
        let rows = store::look(connection, &other.history, None).await.map_err(failed)?.rows.unwrap_or_default();
        for (migration, row) in requiring {
            if rows.iter().any(|applied| applied.parsed(other.layout).as_ref() == Some(&migration.version)) {
                return Err(Error::new(ErrorKind::Findings, Action::Revert.sentence(&label(row), &target.name))
                    .cause(format!(
                        "{}/{} is applied and requires it; nothing was reverted",
                        other.name,
                        migration.label()
                    ))
                    .hinted(format!("revert {} first", other.name)));
            }
        }
    }
    Ok(())
}

/// Rows to revert, newest first, and the version that stays.
type Chosen<'a> = (Vec<(Version, &'a Row)>, Option<String>);

/// Picks the rows to revert, newest first, and the version that stays.
fn choose<'a>(rows: &'a [Row], layout: Layout, goal: &Goal, target: &Target) -> Result<Chosen<'a>, Error> {
    let mut applied: Vec<(Version, &Row)> =
        rows.iter().filter_map(|row| row.parsed(layout).map(|version| (version, row))).collect();
    applied.sort_by(|a, b| b.0.cmp(&a.0));
    let count = match goal {
        Goal::Steps(steps) => (*steps).min(applied.len()),
        Goal::To(None) => applied.len(),
        Goal::Run(run) => of_run(&applied, run, target)?,
        Goal::To(Some(to)) => {
            if !applied.iter().any(|(version, _)| version == to) {
                return Err(Error::new(ErrorKind::Findings, format!("cannot revert {} to {to}", target.name))
                    .cause(format!("{to} is not applied"))
                    .hinted("`pgfleet status --service` lists what is applied; `--to 0` reverts everything"));
            }
            applied.iter().filter(|(version, _)| version > to).count()
        }
    };
    let stays = applied.get(count).map(|(_, row)| row.version.clone());
    applied.truncate(count);
    Ok((applied, stays))
}

/// Counts the newest rows that a run applied.
fn of_run(applied: &[(Version, &Row)], run: &str, target: &Target) -> Result<usize, Error> {
    let count = applied.iter().take_while(|(_, row)| row.run == run).count();
    let Some((_, below)) = applied[count..].iter().find(|(_, row)| row.run == run) else { return Ok(count) };
    let (_, above) = applied[count];
    Err(Error::new(ErrorKind::Findings, Action::Revert.sentence(&label(below), &target.name))
        .cause(format!("{} was applied on top of it by another run; nothing was reverted", label(above)))
        .hinted(format!("revert {} first", label(above))))
}

/// Makes a way back ready; `annotations` are none for a recorded text.
pub(crate) fn down_unit<'a>(
    set: &'a Set,
    row: &Row,
    script: &'a Script,
    annotations: Option<&Annotations>,
    target: &Target,
    options: &Options,
    run: &str,
) -> Result<Unit<'a>, Error> {
    // A recorded text has only what stands in it.
    let annotations =
        annotations.cloned().unwrap_or_else(|| pgfleet_sql::annotation::parse(&script.text).unwrap_or_default());
    let code = row.parsed(set.layout).as_ref().and_then(|version| set.code.get(version));
    if code.is_none() && script.text.starts_with("rust migration ") {
        return Err(Error::new(ErrorKind::Program, Action::Revert.sentence(&label(row), &target.name))
            .cause("it was written in Rust, and its code is not in this program")
            .hinted("revert with the program that has it"));
    }
    let mut unit = Unit::new(Draft {
        action: Action::Revert,
        set,
        code,
        label: label(row),
        version: row.version.clone(),
        description: row.description.clone(),
        script,
        style: set.placeholder_style(),
        values: &set.placeholders,
        no_transaction: annotations.no_transaction,
        lock_timeout: options.lock_timeout_of(&annotations),
        target: &target.name,
    })?;
    unit.record = set.history.revert_sql(&row.version, &row.description, &options.who, run);
    unit.record_statements = 4;
    Ok(unit)
}

/// Finds the text that undoes a migration: the file's, or, if `as_recorded`, that of when it was applied.
pub(crate) async fn down_script(
    connection: &Connection,
    set: &Set,
    version: &Version,
    row: &Row,
    target: &Target,
    as_recorded: bool,
) -> Result<Script, Error> {
    let of_file = set.find(version).and_then(|migration| migration.down.clone());
    if !as_recorded && let Some(down) = of_file {
        return Ok(down);
    }
    let recorded = store::texts(connection, &set.history, &row.version)
        .await
        .map_err(|error| Error::connection(format!("cannot revert {}", target.name), error))?
        .and_then(|(_, down)| down);
    let recorded = recorded.map(|text| Script::from_text(format!("{} (recorded)", set.history.quoted()), text));
    match recorded.or(of_file) {
        Some(script) => Ok(script),
        None => Err(Error::new(ErrorKind::Findings, Action::Revert.sentence(&label(row), &target.name))
            .cause("it has no down script; nothing was reverted")
            .hinted(if set.code.contains_key(version) {
                "write its `down`, and let `is_reversible` return true".to_owned()
            } else {
                format!("write {}.down.sql beside its .up.sql", label(row))
            })),
    }
}

pub(crate) fn label(row: &Row) -> String {
    if row.description.is_empty() { row.version.clone() } else { format!("{}_{}", row.version, row.description) }
}
