//! The peers of streams: the schemas of emmett and message-db, as their packages for Node carry them.
//!
//! They are fetched once into the user's cache folder, and never part of this repository. message-db is under the MIT
//! licence; emmett's package names none.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{run, system};

/// The packages whose schemas are measured against; `pgfleet-bench` says their versions in its report.
const EMMETT: &str = "@event-driven-io/emmett-postgresql@0.42.0";
const MESSAGE_DB: &str = "@eventide/message-db@1.3.1";

/// emmett puts its schema together when it is loaded.
const PRINT: &str =
    "import('@event-driven-io/emmett-postgresql').then(emmett => process.stdout.write(emmett.schemaSQL.join('\\n')))";

/// message-db's files in the order in which its own script runs them, without the extension, of which nothing is used.
const FILES: [&str; 18] = [
    "schema/message-store",
    "tables/messages",
    "types/message",
    "functions/message-store-version",
    "functions/hash-64",
    "functions/acquire-lock",
    "functions/category",
    "functions/is-category",
    "functions/id",
    "functions/cardinal-id",
    "functions/stream-version",
    "functions/write-message",
    "functions/get-stream-messages",
    "functions/get-category-messages",
    "functions/get-last-stream-message",
    "indexes/messages-id",
    "indexes/messages-stream",
    "indexes/messages-category",
];

/// Returns where emmett's schema is.
pub(crate) fn emmett() -> Result<PathBuf> {
    once(EMMETT, |folder| {
        let mut install = run::command("npm")?;
        install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(folder).arg(EMMETT);
        run::visibly(&mut install).context("the peer could not be fetched")?;
        let printed =
            run::command("node")?.args(["-e", PRINT]).current_dir(folder).output().context("cannot run node")?;
        ensure!(
            printed.status.success(),
            "emmett does not say its schema: {}",
            String::from_utf8_lossy(&printed.stderr)
        );
        Ok(String::from_utf8(printed.stdout)?)
    })
}

/// Returns where message-db's schema is.
pub(crate) fn message_db() -> Result<PathBuf> {
    once(MESSAGE_DB, |folder| {
        let mut pack = run::command("npm")?;
        run::visibly(pack.args(["pack", "--silent", "--pack-destination"]).arg(folder).arg(MESSAGE_DB))
            .context("the peer could not be fetched")?;
        let package = fs::read_dir(folder)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
            .context("the peer's package is not there")?;
        run::visibly(run::command("tar")?.arg("-xzf").arg(package).arg("-C").arg(folder))?;
        let read = |name: &&str| {
            let file = folder.join(format!("package/database/{name}.sql"));
            fs::read_to_string(&file).with_context(|| format!("the peer's package has no {}", file.display()))
        };
        Ok(FILES.iter().map(read).collect::<Result<Vec<_>>>()?.join("\n"))
    })
}

/// Makes the schema's file in the package's folder, unless it is there.
fn once(package: &str, make: impl FnOnce(&Path) -> Result<String>) -> Result<PathBuf> {
    let name = package.trim_start_matches('@').replace(['/', '@'], "-");
    let folder = system::cache().context("there is no cache folder; set HOME")?.join(name);
    let file = folder.join("schema.sql");
    if !file.is_file() {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let schema = make(&folder)?;
        fs::write(&file, schema).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(file)
}
