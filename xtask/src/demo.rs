//! The main job on a PostgreSQL of its own, left running to be tried.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::run::{self, quoted};
use crate::system::{self, Need};

/// Copied last: a folder that has it is complete.
const MANIFEST: &str = "pgfleet.toml";

pub(crate) fn run() -> Result<()> {
    system::ensure(&[Need::Server])?;
    let root = run::root()?;
    let program = run::build("pgfleet", &[])?;
    let folder = root.join("target/demo/masar");
    // What is there is kept: it may have been edited by whoever tries things out, and a server belongs to it.
    if !folder.join(MANIFEST).exists() {
        let example = root.join("examples/masar");
        copy(&example, &folder)
            .and_then(|()| fs::copy(example.join(MANIFEST), folder.join(MANIFEST)))
            .with_context(|| format!("cannot copy {} to {}", example.display(), folder.display()))?;
    }
    eprintln!("\nIn {}:", folder.display());
    run::visibly(run::command(&program)?.args(["up", "--detach"]).current_dir(&folder))?;
    // To standard output, like the result that it is; all talk went to standard error.
    print!("{}", next_steps(&program.to_string_lossy(), &folder.to_string_lossy()));
    Ok(())
}

/// Copies everything but the manifest.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if entry.file_name() != MANIFEST {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn next_steps(program: &str, folder: &str) -> String {
    let steps = [
        ("every service: version, pending, failed", "status"),
        ("psql in the trip database, as the service's own role", "psql trip"),
        ("proves that no service reaches another one's database", "isolation verify"),
        ("undoes the newest migration of one service …", "revert --service trip --steps 1"),
        ("… and applies it again", "migrate"),
        ("stops the server; the data stays", "down"),
    ];
    let (program, folder) = (quoted(program), quoted(folder));
    let mut text = format!("\nThe four databases of the example are up. Try next:\n\n  cd {folder}\n");
    for (why, command) in steps {
        text.push_str(&format!("\n  # {why}\n  {program} {command}\n"));
    }
    text.push_str(&format!(
        "\n`cargo xtask demo` again finds everything in place. To begin anew: `down` as above, then\n\n  rm -r {folder}\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_steps_can_be_pasted() {
        let text = next_steps("/a b/pgfleet", "/a b/demo");
        assert!(text.contains("\n  cd '/a b/demo'\n"), "{text}");
        assert!(text.contains("\n  '/a b/pgfleet' psql trip\n"), "{text}");
    }
}
