//! Ending and extending deliveries.

use std::collections::HashSet;
use std::time::Duration;

use pgfleet_events::{Error, Nack, Receipt, Settled};

use super::receipt::Handle;
use crate::error::failed;
use crate::store::Inner;

impl Inner {
    /// Ends deliveries as done, and returns those that were the caller's, in their order. They are sorted, each once.
    pub(super) async fn done(&self, handles: &[Handle]) -> Result<Vec<Handle>, Error> {
        debug_assert!(handles.is_sorted_by(|a, b| a < b), "sorted, each once");
        let (mut whole, mut parts) = (Vec::new(), Vec::new());
        for claim in handles.chunk_by(|a, b| a.claim == b.claim && a.token == b.token) {
            if usize::try_from(claim[0].messages) == Ok(claim.len()) {
                whole.push(claim);
            } else {
                parts.extend_from_slice(claim);
            }
        }
        let (mut done, left) = self.done_parts(&whole, &parts).await?;
        if !left.is_empty() {
            // Some of them had been ended before; the others may be the caller's still.
            done.extend(self.done_parts(&[], &left).await?.0);
        }
        done.sort_unstable();
        Ok(done)
    }

    /// Ends claims and parts of claims; returns what was ended, and what belongs to claims that could not be ended as a whole.
    async fn done_parts(&self, whole: &[&[Handle]], parts: &[Handle]) -> Result<(Vec<Handle>, Vec<Handle>), Error> {
        let claims: Vec<i64> = whole.iter().map(|claim| claim[0].claim).collect();
        let tokens: Vec<i32> = whole.iter().map(|claim| claim[0].token).collect();
        let part_claims: Vec<i64> = parts.iter().map(|part| part.claim).collect();
        let part_tokens: Vec<i32> = parts.iter().map(|part| part.token).collect();
        let part_seqs: Vec<i64> = parts.iter().map(|part| part.seq).collect();
        let db = self.queue_connection().await?;
        let rows = db
            .query(&self.queues.sql.done, &[&claims, &tokens, &part_claims, &part_tokens, &part_seqs])
            .await
            .map_err(|error| failed("what is done could not be noted", error))?;
        let ended: HashSet<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let (mut done, mut left) = (Vec::new(), Vec::new());
        done.extend(parts.iter().filter(|part| ended.contains(&(part.claim, part.seq))));
        for claim in whole {
            if ended.contains(&(claim[0].claim, 0)) {
                done.extend_from_slice(claim);
            } else if claim.len() > 1 {
                left.extend_from_slice(claim);
            }
        }
        Ok((done, left))
    }

    pub(super) async fn give_back(&self, receipts: &[Receipt], nack: &Nack) -> Result<Settled, Error> {
        let handles = Handle::all(receipts);
        let claims: Vec<i64> = handles.iter().map(|handle| handle.claim).collect();
        let tokens: Vec<i32> = handles.iter().map(|handle| handle.token).collect();
        let seqs: Vec<i64> = handles.iter().map(|handle| handle.seq).collect();
        let delay = i64::try_from(nack.delay.as_micros()).unwrap_or(i64::MAX / 4);
        let db = self.queue_connection().await?;
        let row = db
            .query_one(&self.queues.sql.failed, &[&claims, &tokens, &seqs, &nack.requeue, &delay, &&*nack.reason])
            .await
            .map_err(|error| failed("messages could not be given back", error))?;
        let done = usize::try_from(row.get::<_, i64>(0)).unwrap_or(0);
        if done > 0 && nack.requeue {
            self.queues.signals.put_somewhere();
        }
        Ok(Settled { done, fenced: receipts.len().saturating_sub(done) })
    }

    pub(super) async fn extend(&self, receipt: &Receipt, visibility: Duration) -> Result<Receipt, Error> {
        let lost = || Error::fenced("the delivery");
        let handle = Handle::of(receipt).ok_or_else(lost)?;
        let micros = i64::try_from(visibility.as_micros()).unwrap_or(i64::MAX / 4);
        let db = self.queue_connection().await?;
        let row = db
            .query_opt(&self.queues.sql.extend, &[&handle.claim, &handle.token, &handle.seq, &micros])
            .await
            .map_err(|error| failed("the delivery could not be extended", error))?
            .ok_or_else(lost)?;
        Ok(Handle { claim: row.get(0), token: row.get(1), messages: 1, seq: handle.seq }.receipt())
    }
}
