//! Applying steps written in Rust: on the run's own connection, in the engine's transactions.

use std::time::Instant;

use pgfleet_postgres::quote_literal;

use crate::code::{Code, JsonBatch, StepResult};
use crate::db::Db;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::failure::Failure;
use crate::options::Durability;
use crate::step_error::StepError;
use crate::store::{self, Standing};
use crate::unit::{Action, Unit};
use crate::work::Work;

/// The SQLSTATE by which our own check says that a step ended its transaction.
const ENDED: &str = "PGF01";

/// How one transaction of a step ended.
enum Ended<T> {
    Committed(T),
    /// Rolled back; the connection is good.
    Failed(StepError),
}

impl Work<'_> {
    /// Applies a step written in Rust.
    pub(crate) async fn code(&self, unit: &Unit<'_>, code: &Code, last_of_run: bool) -> Result<(), Error> {
        let began = Instant::now();
        self.tell(&Event::Started { label: unit.label.clone() });
        let flush = last_of_run && self.options.durability == Durability::Run;
        if code.is_backfill() && unit.action == Action::Apply {
            self.backfill(unit, code, flush).await?;
        } else {
            let db = self.db(unit);
            let body = || if unit.action == Action::Revert { code.down(&db) } else { code.up(&db) };
            self.transaction(unit, flush, body, |()| unit.record.clone()).await?;
        }
        self.done(unit, began);
        Ok(())
    }

    fn db<'b>(&'b self, unit: &'b Unit<'_>) -> Db<'b> {
        let schema = unit.schema.or(self.schema);
        Db::new(self.connection, self.target, self.tenant, schema, unit.properties, self.observer)
    }

    /// Does batches until none is left, each committed with the place where the next one goes on.
    async fn backfill(&self, unit: &Unit<'_>, code: &Code, flush: bool) -> Result<(), Error> {
        let sentence = || unit.action.sentence(&unit.label, self.target);
        let revision = i32::try_from(code.revision()).unwrap_or(i32::MAX);
        let standing = store::standing(self.connection, unit.table)
            .await
            .map_err(|error| Error::connection(sentence(), error))?
            .into_iter()
            .find(|standing| standing.version == unit.version);
        let mut cursor = None;
        let mut at =
            Standing { version: unit.version.clone(), revision, cursor: "null".to_owned(), rows: 0, batches: 0 };
        if let Some(standing) = standing {
            if standing.revision != revision {
                return Err(Error::new(ErrorKind::Interrupted, sentence())
                    .cause(format!(
                        "revision {} of it stopped after {} batches; this is revision {revision}",
                        standing.revision, standing.batches
                    ))
                    .hinted(format!(
                        "run the program that began it; or `pgfleet migration reset {}` to begin again",
                        unit.version
                    )));
            }
            self.tell(&Event::Note(format!(
                "{} goes on behind {} rows in {} batches",
                unit.label, standing.rows, standing.batches
            )));
            cursor = Some(standing.cursor.clone());
            at = standing;
        }
        let db = self.db(unit);
        let total = self.total(unit, code, &db).await?;
        loop {
            if self.options.stop.is_asked() {
                return Err(self.stop_backfill(unit, &at).await);
            }
            // The position as it will be is recorded with the batch; which is known only behind it.
            let moved = std::sync::Mutex::new(at.clone());
            let record = |batch: &JsonBatch| {
                let mut next = at.clone();
                next.batches += 1;
                next.rows += i64::try_from(batch.rows).unwrap_or(i64::MAX);
                let sql = match &batch.next {
                    Some(cursor) => {
                        next.cursor.clone_from(cursor);
                        unit.table.move_backfill_sql(&next, &self.options.who, self.run)
                    }
                    None => format!("{}; {}", unit.record, unit.table.end_backfill_sql(&unit.version)),
                };
                if let Ok(mut moved) = moved.lock() {
                    *moved = next;
                }
                sql
            };
            let body = || code.batch(&db, cursor.as_deref());
            let batch = match self.transaction(unit, flush, body, |batch| record(batch)).await {
                Ok(batch) => batch,
                Err(error) if at.batches > 0 => {
                    return Err(error.cause(format!("{} rows in {} batches are done and stay", at.rows, at.batches)));
                }
                Err(error) => return Err(error),
            };
            at = moved.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.tell(&Event::Progress {
                label: unit.label.clone(),
                batches: u64::try_from(at.batches).unwrap_or_default(),
                rows: u64::try_from(at.rows).unwrap_or_default(),
                total,
            });
            if batch.next.is_none() {
                return Ok(());
            }
            cursor = batch.next;
            if !code.pause().is_zero() {
                self.options.stop.sleep(code.pause()).await;
            }
        }
    }

    async fn total(&self, unit: &Unit<'_>, code: &Code, db: &Db<'_>) -> Result<Option<u64>, Error> {
        match self.once(unit, false, || code.total(db), |_| String::new()).await? {
            Ended::Committed(total) => Ok(total),
            Ended::Failed(error) => Err(self.fail_code(unit, error).await),
        }
    }

    async fn stop_backfill(&self, unit: &Unit<'_>, at: &Standing) -> Error {
        self.flush_after_failure().await;
        let sentence = unit.action.sentence(&unit.label, self.target);
        Error::new(ErrorKind::Stopped, format!("{sentence}: stopped"))
            .cause(format!("{} rows in {} batches are done; the next run goes on behind them", at.rows, at.batches))
    }

    /// Runs code in a transaction with what it records; what met a lock time-out, a deadlock or a
    /// serialization failure is run again from the start.
    async fn transaction<'f, T, F>(
        &self,
        unit: &Unit<'_>,
        flush: bool,
        body: impl Fn() -> F + Send + Sync,
        record: impl Fn(&T) -> String + Send + Sync,
    ) -> Result<T, Error>
    where
        T: Send + Sync,
        F: Future<Output = StepResult<T>> + Send + 'f,
    {
        let mut tries = 0;
        loop {
            let error = match self.once(unit, flush, &body, &record).await? {
                Ended::Committed(done) => return Ok(done),
                Ended::Failed(error) => error,
            };
            tries += 1;
            let contention = error
                .postgres()
                .and_then(pgfleet_postgres::Error::server)
                .is_some_and(pgfleet_postgres::ServerError::is_contention);
            if !contention || tries >= self.options.lock_tries || self.options.stop.is_asked() {
                return Err(self.fail_code(unit, error).await);
            }
            self.pause(&unit.label, tries).await;
        }
    }

    /// One try of [`transaction`](Self::transaction).
    async fn once<'f, T, F>(
        &self,
        unit: &Unit<'_>,
        flush: bool,
        body: impl Fn() -> F + Send + Sync,
        record: impl Fn(&T) -> String + Send + Sync,
    ) -> Result<Ended<T>, Error>
    where
        T: Send + Sync,
        F: Future<Output = StepResult<T>> + Send + 'f,
    {
        let lost = |error| Error::connection(unit.action.sentence(&unit.label, self.target), error);
        // Known by nobody else, so that a transaction that the code begins by itself is not taken
        // for this one.
        let marker = quote_literal(&format!("{}/{}", self.run, unit.label));
        let path = unit.schema.map_or_else(String::new, |schema| {
            let path = quote_literal(&crate::target::search_path(schema));
            format!(", pg_catalog.set_config('search_path', {path}, true)")
        });
        self.surely(&format!(
            "BEGIN; SELECT pg_catalog.set_config('lock_timeout', '{}ms', true), \
             pg_catalog.set_config('pgfleet.step', {marker}, true), pg_catalog.set_config('pgfleet.started', \
             extract(epoch FROM pg_catalog.clock_timestamp())::text, true){path}",
            unit.lock_timeout.as_millis()
        ))
        .await
        .map_err(lost)?;
        let Some(result) = self.or_cancel(body()).await else { return Err(self.unanswered()) };
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                if error.postgres().is_some_and(pgfleet_postgres::Error::is_unreachable) {
                    let (lines, _, postgres) = error.into_parts();
                    return Err(match postgres {
                        Some(postgres) => lost(postgres),
                        None => Error::new(ErrorKind::Code, lines.join(": ")),
                    });
                }
                self.surely("ROLLBACK").await.map_err(lost)?;
                return Ok(Ended::Failed(error));
            }
        };
        let flush = if flush { "SET LOCAL synchronous_commit = on; " } else { "" };
        let restore = match self.connection.restore_sql() {
            "" => String::new(),
            sql => format!("{sql}; "),
        };
        let committed = self
            .connection
            .execute_all(&format!(
                "DO $pgfleet$ BEGIN IF pg_catalog.current_setting('pgfleet.step', true) IS DISTINCT FROM {marker} \
                 THEN RAISE EXCEPTION 'the transaction was ended' USING ERRCODE = '{ENDED}'; END IF; END $pgfleet$; \
                 RESET ROLE; RESET statement_timeout; {}; RESET ALL; {restore}{flush}COMMIT",
                record(&done)
            ))
            .await;
        let Err(error) = committed else { return Ok(Ended::Committed(done)) };
        if error.is_unreachable() {
            return Err(lost(error));
        }
        self.surely("ROLLBACK").await.map_err(lost)?;
        Ok(Ended::Failed(match error.sql_state() {
            Some(ENDED) => StepError::new(
                "its code ended the transaction that it ran in; what it did until then stays",
            )
            .hinted("do not begin, commit or roll back in it: the transaction is pgfleet's, savepoints are allowed"),
            Some("25P02") => StepError::new("a statement of it failed, and its code did not return the error")
                .hinted("return errors of the database with `?`; to go on behind one use a savepoint"),
            _ => StepError::from(error),
        }))
    }

    /// Records a failure and turns it into the error that the user sees.
    async fn fail_code(&self, unit: &Unit<'_>, error: StepError) -> Error {
        let sentence = unit.action.sentence(&unit.label, self.target);
        let (lines, hint, postgres) = error.into_parts();
        if self.options.stop.is_asked() && postgres.as_ref().is_some_and(|error| error.sql_state() == Some("57014")) {
            self.flush_after_failure().await;
            return Error::new(ErrorKind::Stopped, format!("{sentence}: stopped"))
                .cause("its transaction was rolled back; what was committed before it stays");
        }
        let server = postgres.as_ref().and_then(pgfleet_postgres::Error::server);
        let failure = Failure {
            action: unit.action.word().to_owned(),
            version: unit.version.clone(),
            description: unit.description.clone(),
            statement: unit.script.text.clone(),
            sql_state: server.map(|server| server.code.clone()).unwrap_or_default(),
            message: server.map_or_else(|| lines.join(": "), |server| server.message.clone()),
            ..Failure::default()
        };
        self.record_failure(unit, &failure).await;
        let kind = if postgres.is_some() { ErrorKind::Statement } else { ErrorKind::Code };
        let mut own = Error::new(kind, sentence).failed(failure);
        for line in lines {
            own = own.cause(line);
        }
        if let Some(hint) = hint {
            own = own.hinted(hint);
        }
        match postgres {
            Some(postgres) => own.caused_by(postgres),
            None => own,
        }
    }
}
