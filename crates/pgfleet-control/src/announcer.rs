//! Takes the announcements of runs into the control database.

use pgfleet_migrate::Options;
use pgfleet_migrate::announce::{Announce, Announced, Announcer, Applied};
use pgfleet_postgres::{Address, Type};
use tokio::sync::Mutex;

use crate::catalogue::Catalogue;
use crate::error::Error;

/// Writes what was applied into the control database, which is opened when something is.
#[derive(Debug)]
pub(crate) struct ControlAnnouncer {
    admin: Address,
    database: String,
    solution: String,
    options: Options,
    /// The runs of one command share one connection.
    catalogue: Mutex<Option<Catalogue>>,
}

impl ControlAnnouncer {
    pub(crate) fn new(admin: Address, database: &str, solution: &str, options: &Options) -> Self {
        let options = Options { announcer: None, ..options.clone() };
        Self {
            admin,
            database: database.to_owned(),
            solution: solution.to_owned(),
            options,
            catalogue: Mutex::new(None),
        }
    }

    async fn write(&self, applied: &Applied) -> Result<(), Error> {
        let mut opened = self.catalogue.lock().await;
        let catalogue = match opened.take() {
            Some(catalogue) if !catalogue.connection().is_closed() => catalogue,
            _ => {
                // One that an older version made lacks the table.
                Catalogue::make(&self.admin, &self.database, &self.solution, &self.options).await?;
                Catalogue::open(&self.admin, &self.database).await?
            }
        };
        let written = catalogue.record_applied(applied).await;
        *opened = Some(catalogue);
        written
    }
}

impl Announcer for ControlAnnouncer {
    fn announce<'a>(&'a self, applied: &'a Applied) -> Announced<'a> {
        Box::pin(async move { Ok(self.write(applied).await?) })
    }
}

impl Catalogue {
    /// Records what a run applied; a run that is known already changes nothing.
    async fn record_applied(&self, applied: &Applied) -> Result<(), Error> {
        for set in &applied.sets {
            self.connection()
                .execute(
                    "INSERT INTO control.applied (system_identifier, database_oid, run, set_name, target, database, \
                       from_version, to_version, versions) \
                     VALUES ($1, $2, $3::text::uuid, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
                    &[
                        (&applied.system_identifier, Type::TEXT),
                        (&applied.database_oid, Type::OID),
                        (&applied.run, Type::TEXT),
                        (&set.set, Type::TEXT),
                        (&applied.target, Type::TEXT),
                        (&applied.database, Type::TEXT),
                        (&set.from, Type::TEXT),
                        (&set.to, Type::TEXT),
                        (&set.versions, Type::TEXT_ARRAY),
                    ],
                )
                .await
                .map_err(|error| Error::postgres("cannot write to the control database", &error))?;
        }
        Ok(())
    }
}

/// Takes announcements for the runs of a command.
pub(crate) fn announcing(options: &Options, announcer: ControlAnnouncer) -> Options {
    Options { announcer: Some(Announce::new(announcer)), ..options.clone() }
}
