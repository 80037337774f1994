//! `pgfleet psql`: the server's own client on a service's database.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use pgfleet_control::roles::Login;

use crate::args::Psql;
use crate::context::Context;
use crate::error::{CommandError, Exit};

pub(crate) async fn run(context: &Context, arguments: &Psql) -> Result<Exit, CommandError> {
    let solution = context.open().await?;
    let login: Login = arguments.role.parse().map_err(|error: String| CommandError::new(Exit::Usage, error))?;
    let service = solution.services(std::slice::from_ref(&arguments.service))?[0];
    // Fails with the reason when there is no password yet.
    solution.address(service, login)?;
    // In another checkout of a solution on a real server nobody has written it yet.
    solution.write_passfile()?;
    let bundled = solution.server(&service.server).local.as_ref().map(|running| running.bin_dir.join("psql"));
    let program = bundled.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("psql"));
    // The password stands in the password file, never in the arguments, which everybody can see.
    let error =
        std::process::Command::new(&program).arg(solution.pasteable(service, login)).args(&arguments.arguments).exec();
    Err(CommandError::new(Exit::Failed, format!("cannot start {}", program.display()))
        .cause(error.to_string())
        .hinted("install PostgreSQL's client (Debian: apt-get install postgresql-client)"))
}
