//! `pgfleet init`: writes a new solution, or an example to try.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use include_dir::{Dir, DirEntry, include_dir};

use crate::args::Init;
use crate::context::Context;
use crate::error::{CommandError, Exit};

/// The example solutions, carried inside the program.
static EXAMPLES: [(&str, Dir<'_>); 2] = [
    ("masar", include_dir!("$CARGO_MANIFEST_DIR/../../examples/masar")),
    ("abp-saas", include_dir!("$CARGO_MANIFEST_DIR/../../examples/abp-saas")),
];

const EMPTY_MANIFEST: &str = r#"# A solution: servers, services, and how their databases are run.

[solution]
name = "{name}"

[servers.main]
url = "local"                  # `pgfleet up` starts this PostgreSQL; in production, a URL

# One section per service. Its database has its name; its migrations are in
# services/<name>/migrations, its seeds in services/<name>/seeds.
[services.app]
"#;

pub(crate) fn run(context: &Context, arguments: &Init) -> Result<Exit, CommandError> {
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None => PathBuf::from("."),
    };
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    if let Some(template) = &arguments.template {
        let chosen = EXAMPLES.iter().filter(|(name, _)| name == template);
        chosen.for_each(|(_, example)| collect(example, &mut files));
    } else {
        let manifest = EMPTY_MANIFEST.replace("{name}", &solution_name(&folder));
        files.push((PathBuf::from("pgfleet.toml"), manifest.into_bytes()));
        files.push((PathBuf::from("services/app/migrations/.gitkeep"), Vec::new()));
        files.push((PathBuf::from("services/app/seeds/.gitkeep"), Vec::new()));
    }
    refuse_to_overwrite(&folder, &files)?;
    for (path, bytes) in &files {
        let path = folder.join(path);
        let failed = |error: std::io::Error| {
            CommandError::new(Exit::Configuration, format!("cannot write {}", path.display())).cause(error.to_string())
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&path, bytes).map_err(failed)?;
    }
    if context.talk.json {
        let written: Vec<_> = files.iter().map(|(path, _)| folder.join(path)).collect();
        context.talk.json(&serde_json::json!({ "written": written }))?;
    }
    let here = folder == Path::new(".");
    let go = if here { String::new() } else { format!("cd {} && ", folder.display()) };
    context.talk.say(&format!("wrote {} files to {}", files.len(), folder.display()));
    if arguments.template.is_none() {
        context.talk.say(&format!("next: {go}pgfleet migration new \"create things\" --service app"));
    } else {
        context.talk.say(&format!("next: {go}pgfleet up"));
    }
    Ok(Exit::Done)
}

/// The names that `--template` takes.
pub(crate) fn templates() -> PossibleValuesParser {
    PossibleValuesParser::new(EXAMPLES.iter().map(|(name, _)| *name))
}

fn collect(folder: &Dir<'_>, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in folder.entries() {
        match entry {
            // The state folder of somebody who tried the example in place.
            DirEntry::Dir(folder) if folder.path().ends_with(".pgfleet") => {}
            entry if is_program(entry.path()) => {}
            DirEntry::Dir(folder) => collect(folder, files),
            DirEntry::File(file) => files.push((file.path().to_owned(), file.contents().to_owned())),
        }
    }
}

/// Whether a file or folder of an example belongs to the programs of its services, or has them run: they depend on crates
/// of this repository, which whoever has only this binary does not have.
fn is_program(path: &Path) -> bool {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    matches!(
        *parts,
        ["common" | "pgfleet.dev.toml"] | ["services", _, "Cargo.toml" | "build.rs" | "examples" | "src" | "tests"]
    )
}

/// A file that is there and says something else must not be lost.
fn refuse_to_overwrite(folder: &Path, files: &[(PathBuf, Vec<u8>)]) -> Result<(), CommandError> {
    let mut error = CommandError::new(Exit::Configuration, format!("{} is not empty", folder.display()));
    let mut any = false;
    for (path, bytes) in files {
        let path = folder.join(path);
        let differs = match std::fs::read(&path) {
            Ok(present) => present != *bytes,
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        if differs {
            any = true;
            error = error.cause(format!("{} is there already", path.display()));
        }
    }
    if any { Err(error.hinted("name another folder: pgfleet init FOLDER")) } else { Ok(()) }
}

fn solution_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = absolute.file_name().and_then(|name| name.to_str()).unwrap_or("solution").to_lowercase();
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    name.chars().map(fits).collect()
}
