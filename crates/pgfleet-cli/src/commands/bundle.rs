//! `pgfleet bundle`: packs the migrations of the solution into one file; and reading such a file.

use std::io::Write as _;
use std::path::Path;

use pgfleet_control::bundle::Counts;
use pgfleet_control::{Bundle, Solution};

use crate::args;
use crate::context::Context;
use crate::error::{CommandError, Exit, relative, relative_text};
use crate::talk::counted;

pub(crate) async fn run(context: &Context, arguments: &args::Bundle) -> Result<Exit, CommandError> {
    // No server is asked: a bundle is made where the sources are.
    let loaded = context.load()?;
    let listener = context.talk.listener();
    let bundle = Bundle::of(&loaded.manifest, &arguments.service, &context.programs, &listener).await?;
    for note in bundle.notes() {
        context.talk.note(&relative_text(note));
    }
    let Some(file) = &arguments.output else {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&bundle.to_bytes()).and_then(|()| out.flush());
        return written.map(|()| Exit::Done).map_err(|error| cannot_write("standard output", &error));
    };
    write(file, &bundle.to_bytes()).map_err(|error| cannot_write(&file.display().to_string(), &error))?;
    let counts = bundle.counts();
    if context.talk.json {
        context.talk.json(&serde_json::json!({
            "file": file, "checksum": bundle.checksum(), "solution": bundle.solution(),
            "services": bundle.services().collect::<Vec<_>>(), "counts": counts,
        }))?;
    }
    let Counts { services, migrations, repeatables, seeds, .. } = counts;
    context.talk.say(&format!(
        "wrote {}: {}, {}, {}, {}; {}",
        relative(file).display(),
        counted(services, "service"),
        counted(migrations, "migration"),
        counted(repeatables, "repeatable"),
        counted(seeds, "seed"),
        bundle.checksum()
    ));
    Ok(Exit::Done)
}

/// Reads the file of a bundle.
pub(crate) fn read(file: &Path) -> Result<Bundle, CommandError> {
    let named = || file.display().to_string();
    let bytes = std::fs::read(file).map_err(|error| {
        CommandError::new(Exit::Configuration, "cannot read the bundle").cause(format!("{}: {error}", named()))
    })?;
    Bundle::read(&bytes).map_err(|error| CommandError::from(error).cause(named()))
}

/// Says which services of the manifest a bundle leaves alone.
pub(crate) fn say_left_out(context: &Context, solution: &Solution) {
    let Some(bundle) = solution.used_bundle() else { return };
    for service in solution.manifest.declared_services().filter(|service| !bundle.has(&service.name)) {
        context.talk.note(&format!("{} is not in the bundle", service.name));
    }
}

/// Writes a file whole or not at all.
fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if file.metadata().is_ok_and(|there| !there.is_file()) {
        // A pipe or a device is written to, not replaced.
        return std::fs::OpenOptions::new().write(true).open(file)?.write_all(bytes);
    }
    // A path without a name (`..`, `/`) is no file: renaming onto it fails below and says so.
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = file.with_file_name(name);
    let written = (|| {
        let mut new = std::fs::File::create(&temporary)?;
        new.write_all(bytes)?;
        new.sync_all()?;
        std::fs::rename(&temporary, file)
    })();
    if written.is_err() {
        // What went wrong is what counts.
        let _left = std::fs::remove_file(&temporary);
    }
    written
}

fn cannot_write(where_to: &str, error: &std::io::Error) -> CommandError {
    CommandError::new(Exit::Failed, format!("cannot write the bundle to {where_to}")).cause(error.to_string())
}
