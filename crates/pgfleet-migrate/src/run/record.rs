//! The record of seeds, made before there is a seed to record.

use super::open::{Opened, open};
use crate::error::{Error, ErrorKind};
use crate::event::Silent;
use crate::options::Options;
use crate::path::SetPath;
use crate::store;
use crate::target::Target;

/// Makes the tables that seeds are recorded in, where they are not there: for a database that others are
/// copied from, so that none of the copies has to.
///
/// No seed runs.
///
/// # Errors
///
/// The database is not there or cannot be reached, or the role may not make tables in it.
///
/// # Cancel safety
///
/// Calling it again goes on.
pub async fn make_seed_records(target: &Target, path: &SetPath, options: &Options) -> Result<(), Error> {
    if path.sets().iter().all(|set| set.seeds.files.is_empty()) {
        return Ok(());
    }
    let sentence = || format!("cannot make the record of seeds in {}", target.name);
    let connection = match open(target, "make the record of seeds in", false, options, &Silent).await? {
        Opened::Connected { connection, .. } => connection,
        Opened::Missing => {
            return Err(Error::new(ErrorKind::Findings, sentence()).cause("the database does not exist"));
        }
    };
    let beside = store::Beside { seeds: true, ..store::Beside::default() };
    let mut made = Ok(());
    for set in path.sets().iter().filter(|set| !set.seeds.files.is_empty()) {
        made = store::ensure(&connection, &set.history, beside).await;
        if made.is_err() {
            break;
        }
    }
    connection.close().await;
    made.map_err(|error| Error::connection(sentence(), error))
}
