//! The end of a rollout: the tenants are listed again, and when there is nothing more it is done.

use pgfleet_migrate::Event;
use pgfleet_postgres::Type;

use super::begin::add_targets;
use super::plan::{CANARY, Planned};
use super::round::Exchange;
use super::work::Working;
use super::{What, failed};
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::moves::rollouts::alive_sql;

impl Working {
    /// Lists the tenants again at the end: those that came meanwhile, or whose strings lead elsewhere
    /// now, are another wave; when there are none the rollout is done.
    pub(super) async fn look_again(&mut self, exchange: &mut Exchange) -> Result<(), Error> {
        let catalogue = exchange.catalogue();
        let what = &self.shared.what;
        // What is being moved cannot be listed, and is brought to head when it has arrived.
        if let Some(tenant) = being_moved(catalogue, self.shared.rollout, what).await? {
            if self.waits_for.as_ref() != Some(&tenant) {
                let note = "it is being moved: the rollout ends behind that".to_owned();
                self.go.observer.event(&tenant, &Event::Note(note));
                self.waits_for = Some(tenant);
            }
            return Ok(());
        }
        let mut more = Vec::new();
        if what.reaches_head() {
            let prints = self.shared.plans.prints();
            let wave = self.wave.max(CANARY) + 1;
            let solution = &self.shared.solution;
            let stale = solution.stale(catalogue, &prints).await?;
            let found = solution.tenants_to_do(catalogue, &prints, what, Some(&stale)).await?;
            more.extend(found.into_iter().map(|target| Planned::of(wave, target)));
        }
        let id = self.shared.rollout;
        catalogue.begin().await?;
        let work = async {
            // Locked first: what is read after it is as it is then.
            let lock = "SELECT FROM control.rollouts WHERE id = $1 AND state = 'running' FOR UPDATE";
            let open =
                "SELECT FROM control.rollout_targets WHERE rollout = $1 AND state IN ('waiting', 'running') LIMIT 1";
            let ask = async |sql| {
                catalogue.connection().query(sql, &[(&id, Type::INT8)]).await.map_err(|error| failed(&error))
            };
            if ask(lock).await?.is_empty() || !ask(open).await?.is_empty() {
                return Ok(false);
            }
            if add_targets(catalogue, id, &more).await? > 0 {
                return Ok(true);
            }
            let sql = "UPDATE control.rollouts SET state = 'done', ended_at = clock_timestamp() WHERE id = $1";
            catalogue.connection().execute(sql, &[(&id, Type::INT8)]).await.map_err(|error| failed(&error))?;
            let solution = &self.shared.solution;
            catalogue.audit("rollout done", &id.to_string(), &serde_json::json!({}), solution.options()).await?;
            Ok(false)
        };
        let result = work.await;
        let added = catalogue.end(result).await?;
        if added {
            self.shared.read_places(catalogue).await?;
            self.read_servers(exchange.catalogue()).await?;
        }
        self.hurry = true;
        self.last_counts = None;
        Ok(())
    }
}

/// Finds a tenant that the rollout is for and that a process moves just now.
///
/// A move that nobody is at holds up nothing: it may never be gone on with.
async fn being_moved(catalogue: &Catalogue, rollout: i64, what: &What) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT n.name FROM control.tenants n JOIN control.moves m ON m.tenant = n.name \
         WHERE n.moving AND m.state IN ('fencing', 'copying', 'comparing') AND m.id % 2147483648 IN ({}) \
           AND ($2 AND ($3::text[] = '{{}}' OR n.name = ANY ($3)) AND ($4::text[] = '{{}}' OR m.services && $4) \
             OR EXISTS (SELECT FROM control.rollout_targets t WHERE t.rollout = $1 AND t.state = 'skipped' \
               AND t.tenant = n.name)) ORDER BY n.name LIMIT 1",
        alive_sql()
    );
    let rows = catalogue
        .connection()
        .query(
            &sql,
            &[
                (&rollout, Type::INT8),
                (&what.reaches_head(), Type::BOOL),
                (&what.tenants, Type::TEXT_ARRAY),
                (&what.services, Type::TEXT_ARRAY),
            ],
        )
        .await
        .map_err(|error| failed(&error))?;
    Ok(rows.first().map(|row| row.get(0)))
}
