//! Peers: migration tools that people would use instead, installed outside of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Crate, version, program, features. Only what PostgreSQL needs, so that nobody carries other databases along.
const SQLX: Peer = Peer { package: "sqlx-cli", version: "0.9.0", program: "sqlx", features: "postgres,rustls" };
const REFINERY: Peer = Peer { package: "refinery_cli", version: "0.10.0", program: "refinery", features: "postgresql" };

struct Peer {
    package: &'static str,
    version: &'static str,
    program: &'static str,
    features: &'static str,
}

/// What is installed, with the versions that the report names.
pub(crate) struct Peers {
    pub(crate) sqlx: PathBuf,
    /// None where it does not build: it needs OpenSSL's header files.
    pub(crate) refinery: Option<PathBuf>,
    pub(crate) versions: String,
}

impl Peers {
    pub(crate) fn install() -> Result<Self> {
        let folder = crate::work::cache()?.join("peers");
        let sqlx = SQLX.install(&folder)?;
        let mut versions = format!("sqlx-cli {}", SQLX.version);
        let refinery = match REFINERY.install(&folder) {
            Ok(program) => {
                versions.push_str(&format!(", refinery_cli {}", REFINERY.version));
                Some(program)
            }
            Err(error) => {
                eprintln!("without refinery: {error:#}");
                None
            }
        };
        Ok(Self { sqlx, refinery, versions })
    }
}

impl Peer {
    fn install(&self, folder: &Path) -> Result<PathBuf> {
        let program = folder.join("bin").join(self.program);
        if self.is_installed(&program) {
            return Ok(program);
        }
        eprintln!("installing {} {} into {}; once, some minutes", self.package, self.version, folder.display());
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "--quiet", "--locked", "--force", "--no-default-features", "--root"]).arg(folder);
        // Its own target folder: the workspace's one would be filled with things nobody needs again.
        let target = folder.join("target");
        cargo.args(["--features", self.features]).env("CARGO_TARGET_DIR", &target);
        // Cargo's folder for relative paths and settings must not be the workspace.
        cargo.current_dir("/").arg(format!("{}@{}", self.package, self.version));
        let status = cargo.status().context("cannot run cargo")?;
        ensure!(status.success(), "installing {} failed ({status})", self.package);
        ensure!(self.is_installed(&program), "{} is not version {}", program.display(), self.version);
        std::fs::remove_dir_all(&target).context("cannot remove what the peers were built from")?;
        Ok(program)
    }

    /// Whether the program is there in that version: figures of another one would be taken for this one's.
    fn is_installed(&self, program: &Path) -> bool {
        let Ok(output) = Command::new(program).arg("--version").output() else { return false };
        String::from_utf8_lossy(&output.stdout).split_whitespace().any(|word| word == self.version)
    }
}
