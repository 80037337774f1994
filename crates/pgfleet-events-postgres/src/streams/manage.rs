//! What is done to streams as a whole.

use std::sync::Arc;

use pgfleet_events::{Error, ErrorKind, Expected, StreamInfo};
use tokio_postgres::Row;

use super::batch::{archived, check_name};
use crate::error::failed;
use crate::store::Inner;
use crate::wire::At;

fn info_of(row: &Row) -> StreamInfo {
    let (first, last): (i64, i64) = (row.get(1), row.get(2));
    StreamInfo {
        stream: Arc::from(row.get::<_, &str>(0)),
        // Versions have no gaps: what is removed is removed from the beginning.
        length: (last - first + 1).unsigned_abs(),
        first: first.unsigned_abs(),
        last: last.unsigned_abs(),
        first_at: row.get::<_, At>(3).0,
        last_at: row.get::<_, At>(4).0,
        archived: row.get(5),
    }
}

impl Inner {
    pub(super) async fn stream_info(&self, stream: &str) -> Result<Option<StreamInfo>, Error> {
        let db = self.connection().await?;
        let row = db
            .query_opt(&self.streams.sql.info, &[&stream])
            .await
            .map_err(|error| failed(format!("stream {stream} could not be looked at"), error))?;
        Ok(row.as_ref().map(info_of))
    }

    pub(super) async fn stream_list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, Error> {
        let db = self.connection().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = db
            .query(&self.streams.sql.list, &[&prefix, &after.unwrap_or(""), &limit])
            .await
            .map_err(|error| failed("streams could not be listed", error))?;
        Ok(rows.iter().map(info_of).collect())
    }

    /// Removes the events before a version. `expected` is looked at when there is one.
    pub(super) async fn remove(&self, stream: &str, before: u64, expected: Option<Expected>) -> Result<u64, Error> {
        check_name(stream)?;
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let want = match expected {
            None | Some(Expected::Any) => -1,
            Some(Expected::NoStream) => 0,
            Some(Expected::Exact(version)) => i64::try_from(version).unwrap_or(i64::MAX),
        };
        let db = self.connection().await?;
        let row = db
            .query_one(&self.streams.sql.remove, &[&stream, &before, &want])
            .await
            .map_err(|error| failed(format!("events of stream {stream} could not be removed"), error))?;
        let removed: i64 = row.get(0);
        if removed >= 0 {
            return Ok(removed.unsigned_abs());
        }
        Err(match removed {
            i64::MIN => archived(stream),
            _ => Error::wrong_version(stream, expected.unwrap_or_default(), (-1 - removed).unsigned_abs()),
        })
    }

    pub(super) async fn set_archived(&self, stream: &str, archived: bool) -> Result<(), Error> {
        let db = self.connection().await?;
        let row = db
            .query_one(&self.streams.sql.archive, &[&stream, &archived])
            .await
            .map_err(|error| failed(format!("stream {stream} could not be archived"), error))?;
        if row.get(0) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("there is no stream {stream}")))
    }
}
