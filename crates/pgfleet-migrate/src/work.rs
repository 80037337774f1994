//! Applying units to a target under the lock, and saying exactly what failed.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, pin_mut};
use pgfleet_postgres::{Connection, SimpleQueryMessage, SimpleQueryRow, lock, retry};

use crate::error::{Error, ErrorKind, Place};
use crate::event::{Event, Observer};
use crate::failure::Failure;
use crate::locate::{Located, locate};
use crate::message::{BEFORE, Message, completions};
use crate::options::{Durability, Options};
use crate::store;
use crate::unit::Unit;

/// First and longest pause after a lock time-out.
const LOCK_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(3200));

/// Pause between two requests to cancel. One is not enough: the server forgets a request that
/// comes before it has begun with the message.
const CANCEL_AGAIN: Duration = Duration::from_millis(500);

/// How long to wait for the end of what was cancelled.
const CANCEL_LIMIT: Duration = Duration::from_secs(30);

/// What every step of a run needs.
pub(crate) struct Work<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) target: &'a str,
    /// The tenant under whose scope it is done.
    pub(crate) tenant: Option<&'a str>,
    /// The schema that unqualified names go to, where one was chosen.
    pub(crate) schema: Option<&'a str>,
    pub(crate) options: &'a Options,
    pub(crate) run: &'a str,
    pub(crate) observer: &'a dyn Observer,
}

/// How one message ended.
enum Sent {
    /// All of it is committed.
    Done,
    /// Unit `at` failed; those before it are committed.
    Failed { at: usize, completed: usize, error: pgfleet_postgres::Error },
    /// The server could not read the message; nothing of it ran.
    Unread { error: pgfleet_postgres::Error },
}

impl Work<'_> {
    /// Applies units in order and returns when all are committed and on disk.
    ///
    /// # Errors
    ///
    /// The first unit that failed; those before it stay applied, and what is committed is on disk
    /// unless the connection is gone.
    pub(crate) async fn apply(&self, units: &[Unit<'_>]) -> Result<(), Error> {
        let mut next = 0;
        while next < units.len() {
            self.stopped_before(&units[next]).await?;
            let alone = |unit: &Unit<'_>| unit.no_transaction || unit.code.is_some();
            let end = units[next..].iter().position(alone).map_or(units.len(), |offset| next + offset);
            if end == next {
                let unit = &units[next];
                next += 1;
                match unit.code {
                    Some(code) => self.code(unit, code, next == units.len()).await?,
                    None => self.without_transaction(unit).await?,
                }
            } else {
                self.in_transactions(&units[next..end], end == units.len()).await?;
                next = end;
            }
        }
        Ok(())
    }

    /// Applies units that each have a transaction, as few messages as they fit in.
    async fn in_transactions(&self, units: &[Unit<'_>], last_of_run: bool) -> Result<(), Error> {
        let deferred = self.options.durability == Durability::Run;
        let mut next = 0;
        let mut tries = 0;
        // Units at and behind this one wait: the server cannot read it, and what stands before it
        // is applied first, as if each had been sent alone.
        let mut unreadable: Option<(usize, pgfleet_postgres::Error, String, std::ops::Range<usize>)> = None;
        while next < units.len() {
            let end = unreadable.as_ref().map_or(units.len(), |(at, ..)| *at);
            if next == end {
                let Some((at, error, text, part)) = unreadable.take() else { break };
                return Err(self.fail(&units[at], error, &text, &part, 0).await);
            }
            self.stopped_before(&units[next]).await?;
            let flush_last = deferred && last_of_run && end == units.len();
            let message = Message::compose(&units[next..end], self.run, flush_last, self.connection.restore_sql());
            let sent = units[next..end].len().min(message.parts.len());
            match self.send(&message, &units[next..next + sent]).await? {
                Sent::Done => {
                    next += sent;
                    tries = 0;
                }
                Sent::Failed { at, completed, error } => {
                    if at > 0 {
                        tries = 0;
                    }
                    next += at;
                    let unit = &units[next];
                    self.surely("ROLLBACK")
                        .await
                        .map_err(|lost| Error::connection(unit.action.sentence(&unit.label, self.target), lost))?;
                    tries += 1;
                    let contention = error.server().is_some_and(pgfleet_postgres::ServerError::is_contention);
                    if !contention || tries >= self.options.lock_tries || self.options.stop.is_asked() {
                        let part = message.parts[at].clone();
                        return Err(self.fail(unit, error, &message.text, &part, completed).await);
                    }
                    self.pause(&unit.label, tries).await;
                }
                Sent::Unread { error } => {
                    let byte = error.server().and_then(|server| server.position).map(|position| {
                        pgfleet_sql::position::byte_of_char(&message.text, position.saturating_sub(1) as usize)
                    });
                    // What begins before it: an unfinished last statement is noticed in our own text
                    // behind it.
                    let at = byte
                        .and_then(|byte| message.parts.iter().rposition(|part| part.start <= byte))
                        .unwrap_or_default();
                    let part = message.parts[at].clone();
                    // Without a position (an encoding error) only one unit at a time can tell.
                    if byte.is_none() && sent > 1 {
                        Box::pin(self.in_transactions(&units[next..=next], false)).await?;
                        next += 1;
                        continue;
                    }
                    unreadable = Some((next + at, error, message.text, part));
                }
            }
        }
        Ok(())
    }

    /// Sends one message and reads its answers.
    async fn send(&self, message: &Message, units: &[Unit<'_>]) -> Result<Sent, Error> {
        match self.or_cancel(self.answers(message, units)).await {
            Some(sent) => sent,
            None => Err(self.unanswered()),
        }
    }

    /// Waits for `work` on the server. When stopping is asked for it asks the server to cancel,
    /// until `work` ends; none if it does not.
    pub(crate) async fn or_cancel<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        pin_mut!(work);
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = self.options.stop.asked() => {}
        }
        let began = Instant::now();
        while began.elapsed() < CANCEL_LIMIT {
            let cancel = async {
                self.connection.cancel().await;
                tokio::time::sleep(CANCEL_AGAIN).await;
            };
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                // A server that takes no connection must not keep us from asking again.
                _ = tokio::time::timeout(CANCEL_AGAIN * 4, cancel) => {}
            }
        }
        None
    }

    pub(crate) fn unanswered(&self) -> Error {
        Error::new(ErrorKind::Stopped, format!("stopped while migrating {}", self.target)).cause(format!(
            "the server did not confirm it within {} s; the connection was closed, and what runs there may still end",
            CANCEL_LIMIT.as_secs()
        ))
    }

    /// Ends the run before a unit when stopping is asked for.
    async fn stopped_before(&self, unit: &Unit<'_>) -> Result<(), Error> {
        if !self.options.stop.is_asked() {
            return Ok(());
        }
        self.flush_after_failure().await;
        let sentence = unit.action.sentence(&unit.label, self.target);
        Err(Error::new(ErrorKind::Stopped, format!("{sentence}: stopped"))
            .cause("it was not begun; what was applied before it stays"))
    }

    /// Runs statements of ours that a late request to cancel must not hit.
    pub(crate) async fn surely(&self, sql: &str) -> Result<(), pgfleet_postgres::Error> {
        for _ in 0..3 {
            match self.connection.execute_all(sql).await {
                Err(error) if error.sql_state() == Some("57014") => {}
                other => return other,
            }
        }
        self.connection.execute_all(sql).await
    }

    /// Asks something of ours that a late request to cancel must not hit.
    pub(crate) async fn ask(&self, sql: &str) -> Result<Vec<SimpleQueryRow>, pgfleet_postgres::Error> {
        for _ in 0..3 {
            match self.connection.simple(sql).await {
                Err(error) if error.sql_state() == Some("57014") => {}
                other => return other,
            }
        }
        self.connection.simple(sql).await
    }

    /// Sends one message and reads its answers.
    async fn answers(&self, message: &Message, units: &[Unit<'_>]) -> Result<Sent, Error> {
        let lost = |at: Option<usize>, error| {
            let unit = &units[at.unwrap_or(0)];
            Error::connection(unit.action.sentence(&unit.label, self.target), error)
        };
        let stream = self.connection.stream(&message.text).await.map_err(|error| lost(None, error))?;
        pin_mut!(stream);
        let mut current: Option<usize> = None;
        let mut completed = 0;
        let mut began = Instant::now();
        loop {
            match stream.next().await {
                Some(Ok(SimpleQueryMessage::Row(row))) => {
                    if row.columns().first().is_some_and(|column| column.name() == message.column) {
                        let at = row.get(0).and_then(|number| number.parse().ok()).unwrap_or(0);
                        if let Some(previous) = current {
                            self.done(&units[previous], began);
                        }
                        began = Instant::now();
                        current = Some(at);
                        completed = message.completed[at];
                        self.tell(&Event::Started { label: units[at].label.clone() });
                    }
                }
                Some(Ok(SimpleQueryMessage::CommandComplete(_))) => completed += 1,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let error = self.connection.error(error);
                    if error.server().is_none() || error.is_unreachable() {
                        return Err(lost(current, error));
                    }
                    return Ok(match current {
                        // A request to cancel can come between the commit and the next unit's row.
                        Some(at)
                            if error.sql_state() == Some("57014")
                                && at + 1 < units.len()
                                && completed >= completions(&units[at], self.connection.restore_sql()) =>
                        {
                            self.done(&units[at], began);
                            Sent::Failed { at: at + 1, completed: 0, error }
                        }
                        Some(at) => Sent::Failed { at, completed: usize::saturating_sub(completed, BEFORE), error },
                        None => Sent::Unread { error },
                    });
                }
                None => {
                    if let Some(previous) = current {
                        self.done(&units[previous], began);
                    }
                    return Ok(Sent::Done);
                }
            }
        }
    }

    /// Waits after a lock time-out and says who stands in the way.
    pub(crate) async fn pause(&self, label: &str, attempt: u32) {
        // Best effort: a failure to see the blockers must not hide the time-out itself.
        let blockers = lock::blockers(self.connection).await.unwrap_or_default();
        self.tell(&Event::LockTimeout {
            label: label.to_owned(),
            attempt,
            attempts: self.options.lock_tries,
            blockers,
        });
        self.options.stop.sleep(retry::backoff(attempt, LOCK_PAUSE.0, LOCK_PAUSE.1)).await;
    }

    /// Records a failure and turns it into the error that the user sees.
    async fn fail(
        &self,
        unit: &Unit<'_>,
        error: pgfleet_postgres::Error,
        sent: &str,
        part: &std::ops::Range<usize>,
        completed: usize,
    ) -> Error {
        let sentence = unit.action.sentence(&unit.label, self.target);
        // Needed whatever happened: an error while reading leaves no transaction, and rolling back
        // then is a warning only.
        if let Err(lost) = self.surely("ROLLBACK").await {
            return Error::connection(sentence, lost);
        }
        if self.options.stop.is_asked() && error.sql_state() == Some("57014") {
            self.flush_after_failure().await;
            return Error::new(ErrorKind::Stopped, format!("{sentence}: stopped"))
                .cause("its transaction was rolled back; what was applied before it stays");
        }
        let located = error
            .server()
            .map_or(Located { statement: None, place: None }, |server| locate(unit, server, sent, part, completed));
        let failure = failure_of(unit, &error, &located);
        self.record_failure(unit, &failure).await;
        let mut own = Error::new(ErrorKind::Statement, sentence).failed(failure);
        if located.statement.is_none() && located.place.is_none() {
            own = own.cause("the file itself ran; recording or committing it failed");
            own = own.at(Place { path: unit.script.path.clone(), line: 1, column: 0, excerpt: String::new() });
        }
        if let Some(hint) = hint(unit, &error, &located) {
            own = own.hinted(hint);
        }
        if let Some(place) = located.place {
            own = own.at(place);
        }
        own.caused_by(error)
    }

    /// Records a failure, after its transaction was rolled back.
    ///
    /// Best effort: the error itself is what counts.
    pub(crate) async fn record_failure(&self, unit: &Unit<'_>, failure: &Failure) {
        // Made when something fails for the first time; if that fails, so does the record below.
        let beside = store::Beside { attempts: true, ..store::Beside::default() };
        if let Err(unmade) = store::ensure(self.connection, unit.table, beside).await {
            tracing::debug!(error = %unmade, "the table of failures could not be made");
        }
        let recorded = self
            .surely(&format!(
                "ROLLBACK; BEGIN; SET LOCAL synchronous_commit = on; {}; COMMIT",
                unit.table.failure_sql(failure, "failed", &self.options.who, self.run)
            ))
            .await;
        if let Err(unrecorded) = recorded {
            tracing::debug!(error = %unrecorded, "the failure could not be recorded");
            // An aborted transaction must not stay behind for the flush.
            let _rolled_back = self.surely("ROLLBACK").await;
            self.flush_after_failure().await;
        }
    }

    /// Puts on disk what was committed before a failure.
    ///
    /// Best effort: if this fails the connection or the server is gone, and the next run reads the
    /// history anyway.
    pub(crate) async fn flush_after_failure(&self) {
        if self.options.durability != Durability::Each
            && let Err(error) = store::flush(self.connection).await
        {
            tracing::debug!(%error, "flush failed");
        }
    }

    pub(crate) fn done(&self, unit: &Unit<'_>, began: Instant) {
        self.tell(&Event::Done { label: unit.label.clone(), took: began.elapsed() });
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.observer.event(self.target, event);
    }
}

/// Makes the row of `pgfleet.attempts`.
pub(crate) fn failure_of(unit: &Unit<'_>, error: &pgfleet_postgres::Error, located: &Located) -> Failure {
    let server = error.server();
    Failure {
        action: unit.action.word().to_owned(),
        version: unit.version.clone(),
        description: unit.description.clone(),
        statement_number: located.statement.map_or(0, |index| i32::try_from(index + 1).unwrap_or(i32::MAX)),
        statement: located
            .statement
            .and_then(|index| unit.source_statement(index))
            .unwrap_or_default()
            .chars()
            .take(10_000)
            .collect(),
        place: located.place.as_ref().map(ToString::to_string).unwrap_or_default(),
        sql_state: error.sql_state().unwrap_or_default().to_owned(),
        message: server.map_or_else(|| error.to_string(), |server| server.message.clone()),
    }
}

/// The one thing to do about a refused statement, where we know better than the server.
pub(crate) fn hint(unit: &Unit<'_>, error: &pgfleet_postgres::Error, located: &Located) -> Option<String> {
    let statement = located.statement.and_then(|index| unit.statement(index));
    match error.sql_state()? {
        "25001" => {
            let what = statement.and_then(pgfleet_sql::check::needs_no_transaction).unwrap_or("this statement");
            Some(format!("{what} cannot run in a transaction: put `-- pgfleet: no-transaction` at the top of the file"))
        }
        "55P03" => Some(
            "another session holds the lock: pg_stat_activity shows it, pg_terminate_backend(pid) ends it".to_owned(),
        ),
        "42501" => Some(
            "the migrating role lacks this right; extensions and roles are declared in the manifest and made by \
             `pgfleet provision`"
                .to_owned(),
        ),
        _ => None,
    }
}
