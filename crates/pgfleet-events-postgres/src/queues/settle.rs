//! Ending and extending deliveries.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use pgfleet_events::{Error, Nack, Receipt, Settled};

use super::receipt::Handle;
use crate::error::failed;
use crate::store::Inner;

impl Inner {
    /// Ends deliveries as done, and returns those that were the caller's.
    pub(super) async fn done(&self, handles: &HashSet<Handle>) -> Result<HashSet<Handle>, Error> {
        let mut claims: HashMap<(i64, i32, i32), Vec<Handle>> = HashMap::new();
        for handle in handles {
            claims.entry((handle.claim, handle.token, handle.messages)).or_default().push(*handle);
        }
        let (whole, parts): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|((_, _, messages), of)| usize::try_from(*messages) == Ok(of.len()));
        let parts = parts.into_iter().flat_map(|(_, of)| of).collect();
        let mut done = HashSet::with_capacity(handles.len());
        let left = self.done_parts(whole, parts, &mut done).await?;
        if !left.is_empty() {
            // Some of them had been ended before; the others may be the caller's still.
            self.done_parts(Vec::new(), left, &mut done).await?;
        }
        Ok(done)
    }

    /// Ends claims and parts of claims; returns what belongs to claims that could not be ended as a whole.
    async fn done_parts(
        &self,
        whole: Vec<((i64, i32, i32), Vec<Handle>)>,
        parts: Vec<Handle>,
        done: &mut HashSet<Handle>,
    ) -> Result<Vec<Handle>, Error> {
        let mut whole = whole;
        whole.sort_unstable_by_key(|(claim, _)| *claim);
        let claims: Vec<i64> = whole.iter().map(|((claim, ..), _)| *claim).collect();
        let tokens: Vec<i32> = whole.iter().map(|((_, token, _), _)| *token).collect();
        let part_claims: Vec<i64> = parts.iter().map(|part| part.claim).collect();
        let part_tokens: Vec<i32> = parts.iter().map(|part| part.token).collect();
        let part_seqs: Vec<i64> = parts.iter().map(|part| part.seq).collect();
        let db = self.queue_connection().await?;
        let rows = db
            .query(&self.queues.sql.done, &[&claims, &tokens, &part_claims, &part_tokens, &part_seqs])
            .await
            .map_err(|error| failed("what is done could not be noted", error))?;
        let ended: HashSet<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        done.extend(parts.iter().filter(|part| ended.contains(&(part.claim, part.seq))));
        let mut left = Vec::new();
        for ((claim, _, messages), of) in whole {
            if ended.contains(&(claim, 0)) {
                done.extend(of);
            } else if messages > 1 {
                left.extend(of);
            }
        }
        Ok(left)
    }

    pub(super) async fn give_back(&self, receipts: &[Receipt], nack: &Nack) -> Result<Settled, Error> {
        let handles: HashSet<Handle> = receipts.iter().filter_map(Handle::of).collect();
        let handles: Vec<Handle> = handles.into_iter().collect();
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
