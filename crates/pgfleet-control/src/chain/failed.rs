//! Messages that were set aside, until somebody starts them by hand.

use pgfleet_postgres::Type;

use super::message::{FailedMessage, Message};
use super::table::failed;
use crate::error::Error;
use crate::solution::Solution;

impl Solution {
    /// Lists the messages that were tried as often as may be, the oldest first.
    ///
    /// # Errors
    ///
    /// The control database is not there yet, or cannot be read.
    pub async fn failed_messages(&self) -> Result<Vec<FailedMessage>, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let read = catalogue
            .connection()
            .query(
                "SELECT cause, kind, body::text, attempts, coalesce(error, ''), \
                 to_char(coalesce(ended_at, created_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
                 FROM control.messages WHERE state = 'failed' ORDER BY id",
                &[],
            )
            .await;
        catalogue.close().await;
        let rows = read.map_err(|error| failed(&error))?;
        let mut messages = Vec::with_capacity(rows.len());
        for row in rows {
            messages.push(FailedMessage {
                id: row.get(0),
                // One that cannot be read failed because of that, and has no tenant to be shown with.
                message: match Message::read(row.get(1), row.get(2)) {
                    Ok(message) => message,
                    Err(_) => continue,
                },
                attempts: u32::try_from(row.get::<_, i32>(3)).unwrap_or_default(),
                error: row.get(4),
                since: row.get(5),
            });
        }
        Ok(messages)
    }

    /// Has the failed messages of a tenant handled again, as if they were new; those of all tenants and
    /// services when none is named. Returns how many.
    ///
    /// # Errors
    ///
    /// The control database is not there yet, or cannot be written.
    pub async fn start_failed_messages(&self, tenant: Option<&str>) -> Result<u64, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let started = catalogue
            .connection()
            .execute(
                "UPDATE control.messages SET state = 'waiting', attempts = 0, taken = 0, not_before = now(), \
                 ended_at = NULL, published_at = NULL WHERE state = 'failed' AND ($1 IS NULL OR body->>'tenant' = $1)",
                &[(&tenant, Type::TEXT)],
            )
            .await;
        catalogue.close().await;
        started.map_err(|error| failed(&error))
    }
}
