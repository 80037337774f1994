//! Streams in tables.
//!
//! The order of all events is made by those who read: whoever finds himself at the end notes what can be seen now (a
//! *tick*), and everybody reads what was seen tick by tick. So no reader ever waits for a transaction, his own or a
//! stranger's, and nothing appears behind a reader's back; see the migration for what a tick is.

mod batch;
mod manage;
mod read;
mod rows;
mod select;
mod signal;
mod sql;
mod tick;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use pgfleet_events::{
    Answer, Append, Appended, Direction, Error, Event, Expected, Filter, Moment, NewEvent, Page, Position, StreamInfo,
    StreamStore,
};
use pgfleet_postgres::pool::Pooled;

use self::batch::Outcome;
pub(crate) use self::batch::hash_of;
use crate::store::Store;

/// What a store keeps of its streams.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) sql: sql::Sql,
    writer: writer::Writer,
    runs: tick::Runs,
    pub(crate) signal: signal::Signal,
}

impl Streams {
    pub(crate) fn new(schema: &str) -> Self {
        Self {
            sql: sql::Sql::new(schema),
            writer: writer::Writer::default(),
            runs: tick::Runs::default(),
            signal: signal::Signal::default(),
        }
    }
}

impl Store {
    /// Appends events to streams within somebody's transaction, all or nothing.
    ///
    /// The streams are locked until the transaction ends, so it should end soon: others who append to them wait. Nobody
    /// sees the events before it is committed; call [`Store::wake`] after that, for readers who wait.
    ///
    /// # Errors
    ///
    /// As [`StreamStore::append`]; after [`WrongVersion`](pgfleet_events::ErrorKind::WrongVersion) the transaction can go
    /// on.
    pub async fn append_in(&self, transaction: &Pooled, appends: Vec<Append>) -> Result<Vec<Appended>, Error> {
        check_all(&appends)?;
        for append in &appends {
            self.check_open(&append.stream, false).await?;
        }
        let refs: Vec<&Append> = appends.iter().collect();
        let outcomes = batch::run(transaction, &self.0.streams.sql, &refs, true, true).await?;
        answers(&appends, outcomes)
    }

    /// Tells readers that something was appended in a transaction which is committed now.
    ///
    /// Those in other processes are told a little later, and only when called within a runtime.
    pub fn wake(&self) {
        self.0.appended();
    }

    /// Forgets what is kept of the database, after it was restored under the running store.
    pub fn forget_database(&self) {
        self.0.streams.runs.forget();
    }
}

fn check_all(appends: &[Append]) -> Result<(), Error> {
    if appends.is_empty() {
        return Err(Error::invalid("nothing is to be appended"));
    }
    appends.iter().try_for_each(batch::check)?;
    let mut names: Vec<&str> = appends.iter().map(|append| &*append.stream).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::invalid(format!("stream {} is there twice", pair[0]))),
        None => Ok(()),
    }
}

/// All of them were done, or the first that was not as expected says why none was.
fn answers(appends: &[Append], outcomes: Vec<Outcome>) -> Result<Vec<Appended>, Error> {
    appends.iter().zip(outcomes).map(|(append, outcome)| outcome.answer(append)).collect()
}

impl StreamStore for Store {
    fn append<'a>(&'a self, stream: &'a str, expected: Expected, events: Vec<NewEvent>) -> Answer<'a, Appended> {
        Box::pin(async move {
            let append = Append { stream: Arc::from(stream), expected, events };
            batch::check(&append)?;
            self.check_open(stream, true).await?;
            writer::append(&self.0, append).await
        })
    }

    fn append_several(&self, appends: Vec<Append>) -> Answer<'_, Vec<Appended>> {
        Box::pin(async move {
            check_all(&appends)?;
            for append in &appends {
                self.check_open(&append.stream, true).await?;
            }
            let refs: Vec<&Append> = appends.iter().collect();
            let db = self.0.connection().await?;
            let outcomes = batch::run(&db, &self.0.streams.sql, &refs, true, true).await?;
            let answer = answers(&appends, outcomes)?;
            self.wake();
            Ok(answer)
        })
    }

    fn read<'a>(&'a self, stream: &'a str, from: u64, direction: Direction, limit: usize) -> Answer<'a, Vec<Event>> {
        Box::pin(self.0.read_stream(stream, from, direction, limit))
    }

    fn read_all<'a>(&'a self, after: Position, limit: usize, filter: &'a Filter) -> Answer<'a, Page> {
        Box::pin(async move {
            let heard = self.0.streams.signal.heard();
            let page = self.0.read_ticks(after, limit, filter).await?;
            if page.at_end {
                self.0.streams.signal.quiet(page.next, heard);
            }
            Ok(page)
        })
    }

    fn head(&self) -> Answer<'_, Position> {
        Box::pin(async move {
            let heard = self.0.streams.signal.heard();
            let head = self.0.read_head().await?;
            // Who waits behind it need not look once more by himself.
            self.0.streams.signal.quiet(head, heard);
            Ok(head)
        })
    }

    fn position_at(&self, time: Moment) -> Answer<'_, Position> {
        Box::pin(self.0.read_position_at(time))
    }

    fn wait(&self, after: Position, most: Duration) -> Answer<'_, ()> {
        Box::pin(self.0.wait_behind(after, most))
    }

    fn info<'a>(&'a self, stream: &'a str) -> Answer<'a, Option<StreamInfo>> {
        Box::pin(self.0.stream_info(stream))
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, limit: usize) -> Answer<'a, Vec<StreamInfo>> {
        Box::pin(self.0.stream_list(prefix, after, limit))
    }

    fn truncate<'a>(&'a self, stream: &'a str, before: u64) -> Answer<'a, u64> {
        Box::pin(self.0.remove(stream, before, None))
    }

    fn delete<'a>(&'a self, stream: &'a str, expected: Expected) -> Answer<'a, u64> {
        Box::pin(self.0.remove(stream, u64::MAX, Some(expected)))
    }

    fn archive<'a>(&'a self, stream: &'a str, archived: bool) -> Answer<'a, ()> {
        Box::pin(self.0.set_archived(stream, archived))
    }
}
