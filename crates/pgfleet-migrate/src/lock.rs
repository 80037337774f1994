//! Waiting for the database's lock.

use std::time::{Duration, Instant};

use pgfleet_postgres::lock::{self, LockKey};
use pgfleet_postgres::{Connection, retry};

use crate::error::{Error, ErrorKind};
use crate::event::{Event, Observer};
use crate::options::Options;
use crate::target::Target;

/// First and longest pause between two tries to get another run's lock.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Takes the lock; returns early with what `settled` found when there is nothing left to do.
///
/// # Errors
///
/// [`ErrorKind::Locked`] after `options.lock_wait`, [`ErrorKind::Stopped`] when asked to stop.
pub(crate) async fn acquire<T, F>(
    connection: &Connection,
    target: &Target,
    options: &Options,
    observer: &dyn Observer,
    // No `AsyncFn`: its future cannot be shown to be `Send` by those who spawn a run.
    settled: impl Fn() -> F,
) -> Result<Option<T>, Error>
where
    F: Future<Output = Result<Option<T>, Error>>,
{
    let began = Instant::now();
    let failed = |error| Error::connection(format!("cannot lock {}", target.name), error);
    let mut attempt = 0;
    loop {
        if options.stop.is_asked() {
            return Err(Error::new(ErrorKind::Stopped, format!("stopped while waiting for {}", target.name)));
        }
        if lock::try_lock(connection, LockKey::Migrate).await.map_err(failed)? {
            return Ok(None);
        }
        let holder = lock::holder(connection, LockKey::Migrate).await.map_err(failed)?;
        if options.lock_wait.is_some_and(|most| began.elapsed() >= most) {
            let sentence = format!("cannot lock {}: another run holds its lock", target.name);
            let mut error = Error::new(ErrorKind::Locked, sentence);
            if let Some(holder) = holder {
                error = error
                    .cause(format!("held by {holder}"))
                    .hinted(format!("wait for it, or end it: select pg_terminate_backend({})", holder.pid));
            }
            return Err(error);
        }
        if attempt == 0 {
            observer.event(&target.name, &Event::LockHeld { holder });
        }
        attempt += 1;
        options.stop.sleep(retry::backoff(attempt, POLL.0, POLL.1)).await;
        if let Some(found) = settled().await? {
            return Ok(Some(found));
        }
    }
}
