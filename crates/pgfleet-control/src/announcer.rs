//! Takes the announcements of runs into the control database.

use std::collections::HashMap;

use pgfleet_migrate::Options;
use pgfleet_migrate::announce::{Announce, Announced, Announcer, Applied, AppliedSet};
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
    /// Records what a run applied, in one transaction with the message that follows from it; a run that
    /// is known already changes nothing.
    async fn record_applied(&self, applied: &Applied) -> Result<(), Error> {
        let column = |of: fn(&AppliedSet) -> Option<String>| applied.sets.iter().map(of).collect::<Vec<_>>();
        self.connection()
            .execute(
                "INSERT INTO control.applied (system_identifier, database_oid, run, set_name, target, database, \
                   from_version, to_version, versions) \
                 SELECT $1, $2, $3::text::uuid, s.name, $4, $5, s.before, s.after, \
                   ARRAY(SELECT pg_catalog.jsonb_array_elements_text(s.versions::jsonb)) \
                 FROM unnest($6::text[], $7::text[], $8::text[], $9::text[]) AS s (name, before, after, versions) \
                 ON CONFLICT DO NOTHING",
                &[
                    (&applied.system_identifier, Type::TEXT),
                    (&applied.database_oid, Type::OID),
                    (&applied.run, Type::TEXT),
                    (&applied.target, Type::TEXT),
                    (&applied.database, Type::TEXT),
                    (&column(|set| Some(set.set.clone())), Type::TEXT_ARRAY),
                    (&column(|set| set.from.clone()), Type::TEXT_ARRAY),
                    (&column(|set| set.to.clone()), Type::TEXT_ARRAY),
                    (&column(|set| Some(serde_json::json!(set.versions).to_string())), Type::TEXT_ARRAY),
                ],
            )
            .await
            .map_err(|error| Error::postgres("cannot write to the control database", &error))?;
        Ok(())
    }

    /// Reads the newest run of each target that was announced.
    pub(crate) async fn newest_runs(&self) -> Result<HashMap<String, String>, Error> {
        let rows = self
            .connection()
            .query(
                "SELECT DISTINCT ON (target) target, run::text FROM control.applied WHERE target = set_name \
                 ORDER BY target, run DESC",
                &[],
            )
            .await
            .map_err(|error| Error::postgres("cannot read what was announced", &error))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

/// Takes announcements for the runs of a command.
pub(crate) fn announcing(options: &Options, announcer: ControlAnnouncer) -> Options {
    Options { announcer: Some(Announce::new(announcer)), ..options.clone() }
}
