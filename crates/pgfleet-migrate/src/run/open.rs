//! Getting into a database, which is made where that may be.

use pgfleet_postgres::{Address, Connection, ErrorKind as PgErrorKind, Purpose, connect, quote_ident};

use crate::error::{Error, ErrorKind};
use crate::event::{Event, Observer};
use crate::options::Options;
use crate::target::Target;

/// A connection, or the answer that there is no database.
pub(crate) enum Opened {
    Connected { connection: Box<Connection>, created: bool },
    Missing,
}

/// Connects; waits for the server as the options say.
///
/// `verb` is what cannot be done when it fails; `make` is whether a missing database is made.
pub(crate) async fn open(
    target: &Target,
    verb: &str,
    make: bool,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Opened, Error> {
    let sentence = || format!("cannot {verb} {}", target.name);
    let purpose = target.purpose(options);
    let mut created = false;
    let mut tried_to_create = false;
    let mut attempt = 1;
    loop {
        if options.stop.is_asked() {
            return Err(Error::new(ErrorKind::Stopped, format!("stopped before {}", target.name)));
        }
        let connected = tokio::select! {
            connected = connect(&target.address, &purpose) => connected,
            () = options.stop.asked() => continue,
        };
        let error = match connected {
            Ok(connection) => return Ok(Opened::Connected { connection: Box::new(connection), created }),
            Err(error) => error,
        };
        if error.kind() == PgErrorKind::DatabaseMissing {
            if !make {
                return Ok(Opened::Missing);
            }
            let Some(admin) = &target.admin else {
                return Err(Error::connection(sentence(), error)
                    .hinted("the database does not exist: `pgfleet provision` makes it"));
            };
            if tried_to_create {
                return Err(Error::connection(sentence(), error));
            }
            tried_to_create = true;
            created = create_database(admin, target).await?;
            if created {
                observer.event(&target.name, &Event::DatabaseCreated);
            }
            continue;
        }
        if !error.is_unreachable() || attempt >= options.wait_attempts {
            return Err(Error::connection(sentence(), error));
        }
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        observer.event(&target.name, &Event::Waiting { attempt, attempts: options.wait_attempts, reason });
        options.stop.sleep(options.wait_delay).await;
        attempt += 1;
    }
}

/// Creates the target's database; says whether it was us or somebody else at the same moment.
async fn create_database(admin: &Address, target: &Target) -> Result<bool, Error> {
    let name = target.address.database();
    let failed = |error: pgfleet_postgres::Error| {
        Error::connection(format!("cannot create database {name} for {}", target.name), error)
    };
    let connection = connect(admin, &Purpose::new("pgfleet create database")).await.map_err(failed)?;
    let mut attempt = 0;
    let created = loop {
        attempt += 1;
        let Err(error) = connection.execute_all(&format!("CREATE DATABASE {}", quote_ident(name))).await else {
            break true;
        };
        match error.sql_state() {
            // Made by another process: before us, or at the same moment.
            Some("42P04" | "23505") => break false,
            // Somebody is connected to the template; the server has waited 5 s already.
            Some("55006") if attempt < 5 => {}
            _ => return Err(failed(error)),
        }
    };
    connection.close().await;
    Ok(created)
}
