//! Takes the announcements of runs into the control database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pgfleet_migrate::Options;
use pgfleet_migrate::announce::{Announce, Announced, Announcer, Applied, AppliedSet};
use pgfleet_postgres::{Address, Type};
use tokio::sync::oneshot;

use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};

/// Writes what was applied into the control database, which is opened when something is.
#[derive(Debug)]
pub(crate) struct ControlAnnouncer {
    admin: Address,
    database: String,
    solution: String,
    options: Options,
    /// What waits to be written. Targets are done at the same time, and one commit serves all that wait for it.
    waiting: Mutex<Vec<Waiting>>,
    /// The runs of one command share one connection.
    catalogue: tokio::sync::Mutex<Option<Catalogue>>,
}

/// An announcement, and where its answer goes.
#[derive(Debug)]
struct Waiting {
    applied: Applied,
    answer: oneshot::Sender<Result<(), Arc<Error>>>,
}

impl ControlAnnouncer {
    pub(crate) fn new(admin: Address, database: &str, solution: &str, options: &Options) -> Self {
        let options = Options { announcer: None, ..options.clone() };
        Self {
            admin,
            database: database.to_owned(),
            solution: solution.to_owned(),
            options,
            waiting: Mutex::default(),
            catalogue: tokio::sync::Mutex::new(None),
        }
    }

    /// Writes an announcement: together with others, by whoever has the connection next.
    async fn write(&self, applied: &Applied) -> Result<(), Arc<Error>> {
        let (answer, mut answered) = oneshot::channel();
        self.lock_waiting().push(Waiting { applied: applied.clone(), answer });
        let mut opened = tokio::select! {
            // Somebody may have written it while we waited for the connection.
            biased;
            answer = &mut answered => return answer.unwrap_or_else(|_| Err(Arc::new(abandoned()))),
            opened = self.catalogue.lock() => opened,
        };
        // Those of runs that were dropped meanwhile are written, too: they are on disk.
        let batch = std::mem::take(&mut *self.lock_waiting());
        if !batch.is_empty() {
            let mut applied: Vec<&Applied> = batch.iter().map(|waiting| &waiting.applied).collect();
            // In one order everywhere, so that two processes do not wait for each other in a circle.
            applied.sort_by(|one, other| one.run.cmp(&other.run).then_with(|| one.target.cmp(&other.target)));
            let written = self.write_all(&mut opened, &applied).await.map_err(Arc::new);
            for waiting in batch {
                // Whoever is gone needs no answer.
                let _ = waiting.answer.send(written.clone());
            }
        }
        drop(opened);
        answered.await.unwrap_or_else(|_| Err(Arc::new(abandoned())))
    }

    fn lock_waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_all(&self, opened: &mut Option<Catalogue>, applied: &[&Applied]) -> Result<(), Error> {
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

/// What somebody hears whose announcement was in the hands of a run that was dropped.
fn abandoned() -> Error {
    Error::new(ErrorKind::Stopped, "it was not written: the run that was about to write it was dropped")
}

impl Announcer for ControlAnnouncer {
    fn announce<'a>(&'a self, applied: &'a Applied) -> Announced<'a> {
        Box::pin(async move { Ok(self.write(applied).await?) })
    }
}

impl Catalogue {
    /// Records what runs applied, in one transaction with the messages that follow from it; a run that
    /// is known already changes nothing.
    async fn record_applied(&self, applied: &[&Applied]) -> Result<(), Error> {
        let sets = || applied.iter().flat_map(|applied| applied.sets.iter().map(move |set| (*applied, set)));
        let of_run = |of: fn(&Applied) -> &str| sets().map(|(applied, _)| of(applied)).collect::<Vec<_>>();
        let of_set = |of: fn(&AppliedSet) -> Option<String>| sets().map(|(_, set)| of(set)).collect::<Vec<_>>();
        let oids: Vec<u32> = sets().map(|(applied, _)| applied.database_oid).collect();
        self.connection()
            .execute(
                "INSERT INTO control.applied (system_identifier, database_oid, run, set_name, target, database, \
                   from_version, to_version, versions) \
                 SELECT s.system, s.oid, s.run::uuid, s.name, s.target, s.database, s.before, s.after, \
                   ARRAY(SELECT pg_catalog.jsonb_array_elements_text(s.versions::jsonb)) \
                 FROM unnest($1::text[], $2::oid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
                   $8::text[], $9::text[]) AS s (system, oid, run, target, database, name, before, after, versions) \
                 ON CONFLICT DO NOTHING",
                &[
                    (&of_run(|applied| &applied.system_identifier), Type::TEXT_ARRAY),
                    (&oids, Type::OID_ARRAY),
                    (&of_run(|applied| &applied.run), Type::TEXT_ARRAY),
                    (&of_run(|applied| &applied.target), Type::TEXT_ARRAY),
                    (&of_run(|applied| &applied.database), Type::TEXT_ARRAY),
                    (&of_set(|set| Some(set.set.clone())), Type::TEXT_ARRAY),
                    (&of_set(|set| set.from.clone()), Type::TEXT_ARRAY),
                    (&of_set(|set| set.to.clone()), Type::TEXT_ARRAY),
                    (&of_set(|set| Some(serde_json::json!(set.versions).to_string())), Type::TEXT_ARRAY),
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
