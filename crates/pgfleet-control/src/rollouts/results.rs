//! Writing how targets ended, in the transaction of a round.

use pgfleet_postgres::Type;

use super::failed;
use super::round::Exchange;
use super::target::{Finished, Outcome};
use crate::error::Error;
use crate::standing::Standing;

impl Exchange {
    /// Writes how targets ended, and what an auditor wants to see of it; one that was taken from us is
    /// another's to write.
    pub(super) async fn write_finished(&self, finished: &[Finished]) -> Result<u64, Error> {
        if finished.is_empty() {
            return Ok(0);
        }
        let positions: Vec<i32> = finished.iter().map(|target| target.position).collect();
        let states: Vec<&str> = finished.iter().map(|target| target.outcome.row_state()).collect();
        let errors: Vec<Option<&str>> = finished.iter().map(|target| target.error.as_deref()).collect();
        let results: Vec<&str> = finished.iter().map(|target| target.result.as_str()).collect();
        let deeds = || finished.iter().flat_map(|target| target.deeds.iter().map(|deed| (target.position, deed)));
        let audited: Vec<i32> = deeds().map(|(position, _)| position).collect();
        let actions: Vec<&str> = deeds().map(|(_, deed)| deed.action).collect();
        let subjects: Vec<&str> = deeds().map(|(_, deed)| deed.subject.as_str()).collect();
        let details: Vec<&str> = deeds().map(|(_, deed)| deed.detail.as_str()).collect();
        self.catalogue
            .connection()
            .execute(
                "WITH done AS (UPDATE control.rollout_targets t SET state = n.state, error = n.error, worker = NULL, \
                   result = CASE WHEN n.state = 'waiting' THEN t.result ELSE n.result::jsonb END, \
                   ended_at = CASE WHEN n.state <> 'waiting' THEN clock_timestamp() END \
                   FROM unnest($3::int[], $4::text[], $5::text[], $6::text[]) AS n (position, state, error, result) \
                   WHERE t.rollout = $1 AND t.position = n.position AND t.state = 'running' AND t.worker = $2 \
                   RETURNING t.position) \
                 INSERT INTO control.audit (os_user, host, action, subject, detail) \
                 SELECT $7, $8, a.action, a.subject, a.detail::jsonb \
                 FROM unnest($9::int[], $10::text[], $11::text[], $12::text[]) AS a (position, action, subject, detail) \
                 JOIN done USING (position)",
                &[
                    (&self.rollout, Type::INT8),
                    (&self.worker.number, Type::INT4),
                    (&positions, Type::INT4_ARRAY),
                    (&states, Type::TEXT_ARRAY),
                    (&errors, Type::TEXT_ARRAY),
                    (&results, Type::TEXT_ARRAY),
                    (&self.who.user, Type::TEXT),
                    (&self.who.host, Type::TEXT),
                    (&audited, Type::INT4_ARRAY),
                    (&actions, Type::TEXT_ARRAY),
                    (&subjects, Type::TEXT_ARRAY),
                    (&details, Type::TEXT_ARRAY),
                ],
            )
            .await
            .map_err(|error| failed(&error))
    }

    /// Gives back what was taken and not begun.
    pub(super) async fn write_back(&self, back: &[i32]) -> Result<u64, Error> {
        if back.is_empty() {
            return Ok(0);
        }
        self.catalogue
            .connection()
            .execute(
                "UPDATE control.rollout_targets SET state = 'waiting', worker = NULL, attempts = attempts - 1 \
                 WHERE rollout = $1 AND state = 'running' AND worker = $2 AND position = ANY ($3)",
                &[(&self.rollout, Type::INT8), (&self.worker.number, Type::INT4), (&back, Type::INT4_ARRAY)],
            )
            .await
            .map_err(|error| failed(&error))
    }

    pub(super) async fn write_standings(&self, finished: &[Finished]) -> Result<(), Error> {
        let standings: Vec<Standing> = finished.iter().flat_map(|target| &target.standings).cloned().collect();
        let forgotten: Vec<&(String, String)> = finished.iter().filter_map(|target| target.forgets.as_ref()).collect();
        let servers: Vec<&str> = forgotten.iter().map(|place| place.0.as_str()).collect();
        let databases: Vec<&str> = forgotten.iter().map(|place| place.1.as_str()).collect();
        let forget = async {
            if forgotten.is_empty() {
                return Ok(());
            }
            let sql = "DELETE FROM control.targets t USING unnest($1::text[], $2::text[]) AS n (server, database) \
                       WHERE t.server = n.server AND t.database = n.database";
            let values: [(&(dyn pgfleet_postgres::ToSql + Sync), Type); 2] =
                [(&servers, Type::TEXT_ARRAY), (&databases, Type::TEXT_ARRAY)];
            self.catalogue.connection().execute(sql, &values).await.map_err(|error| failed(&error))?;
            Ok(())
        };
        tokio::try_join!(self.catalogue.record_standings(&standings), forget)?;
        Ok(())
    }
}

impl Outcome {
    fn row_state(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Stopped | Self::Unreachable => "waiting",
        }
    }
}
