//! `pgfleet migration`: `new` writes an empty, correctly named migration with its way back; the other
//! verbs mend one database.

use std::path::Path;

use pgfleet_migrate::repair::Repair;
use pgfleet_sql::version::Version;

use crate::args::MigrationVerb;
use crate::commands::repair;
use crate::context::Context;
use crate::error::{CommandError, Exit, relative};

pub(crate) async fn run(context: &Context, verb: &MigrationVerb) -> Result<Exit, CommandError> {
    match verb {
        MigrationVerb::New { name, service } => new(context, name, service),
        MigrationVerb::Resume(arguments) => repair::run(context, Repair::Resume, arguments).await,
        MigrationVerb::Reset(arguments) => repair::run(context, Repair::Reset, arguments).await,
        MigrationVerb::MarkApplied(arguments) => repair::run(context, Repair::MarkApplied, arguments).await,
        MigrationVerb::Forget(arguments) => repair::run(context, Repair::Forget, arguments).await,
        MigrationVerb::Accept(arguments) => repair::run(context, Repair::Accept, arguments).await,
    }
}

fn new(context: &Context, name: &str, service: &str) -> Result<Exit, CommandError> {
    let loaded = context.load()?;
    let service = pgfleet_control::jobs::find_service(&loaded.manifest, service)?;
    let words: String = name.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    let words = words.trim_matches('_');
    if words.is_empty() {
        return Err(CommandError::new(Exit::Usage, "the migration needs a name made of letters or digits"));
    }
    let folder = &service.migrations;
    let failed = |error: std::io::Error| {
        CommandError::new(Exit::Configuration, format!("cannot write to {}", folder.display())).cause(error.to_string())
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let version = next_version(folder)?;
    let label = format!("{version}_{words}");
    let mut written = Vec::new();
    for (direction, text) in [("up", format!("-- {name}\n\n")), ("down", format!("-- The way back: {name}\n\n"))] {
        let path = folder.join(format!("{label}.{direction}.sql"));
        // `create_new`: two people (or two calls in one second) must not overwrite each other.
        let file = std::fs::File::create_new(&path).map_err(failed)?;
        std::io::Write::write_all(&mut &file, text.as_bytes()).map_err(failed)?;
        written.push(relative(&path).display().to_string());
    }
    if context.talk.json {
        context.talk.json(&serde_json::json!({ "written": written }))?;
    } else {
        context.talk.data(&written.join("\n"));
    }
    Ok(Exit::Done)
}

/// The present time in UTC as a number, or one more than the newest when that is in the future.
fn next_version(folder: &Path) -> Result<String, CommandError> {
    let now = utc_digits(std::time::SystemTime::now());
    let present: Version =
        now.parse().map_err(|_| CommandError::new(Exit::Failed, format!("the clock gives no version: {now}")))?;
    let read = pgfleet_sql::layout::read_folder(folder, None).map_err(|error| {
        CommandError::new(Exit::Failed, "cannot read the migrations").cause(error.to_string()).hinted(error.hint())
    })?;
    match read.migrations.last() {
        Some(newest) if newest.version >= present => {
            let digits: u128 = newest.version.as_str().parse().unwrap_or(0);
            Ok((digits + 1).to_string())
        }
        _ => Ok(now),
    }
}

/// `20260131235959`: days to a date by the usual era arithmetic of the proleptic Gregorian calendar.
fn utc_digits(time: std::time::SystemTime) -> String {
    let seconds = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (i64::try_from(seconds / 86_400).unwrap_or(0), seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_becomes_its_digits() {
        let at = |seconds| utc_digits(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        assert_eq!(at(0), "19700101000000");
        assert_eq!(at(951_782_399), "20000228235959");
        assert_eq!(at(951_782_400), "20000229000000");
        assert_eq!(at(1_767_225_599), "20251231235959");
    }
}
