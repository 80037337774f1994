//! Service × tenant: where every tenant's data of every service stands, from the control database alone.

use std::collections::BTreeMap;
use std::time::Duration;

use pgfleet_postgres::Type;
use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::connections::tenant_services;
use crate::error::Error;
use crate::fleet::TargetState;
use crate::plans::Prints;
use crate::solution::Solution;
use crate::standing::{REACHED, SERVED};

/// One tenant's data of one service, in a database of the tenant's own.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// The service.
    pub service: String,
    /// The tenant.
    pub tenant: String,
    /// The word for the tenant's state.
    pub tenant_state: String,
    /// The server, as far as it is known.
    pub server: Option<String>,
    /// The database, as far as it is known.
    pub database: Option<String>,
    /// The newest version of the service's own set.
    pub version: Option<String>,
    /// Where it stands: what was recorded, or `behind` when the files are others by now, or `unknown`
    /// when nobody looked for too long or it is another database by now.
    pub state: TargetState,
    /// Migrations of the service's own set above that version.
    pub pending: u32,
    /// Applied migrations that are not what the files say.
    pub drift: u32,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Seconds since somebody looked.
    pub age: Option<u64>,
    /// The rollout that brought it there.
    pub rollout: Option<i64>,
}

/// One service over all tenants.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// How many tenants have a database of their own for it.
    pub tenants: usize,
    /// How many are in which state.
    pub states: BTreeMap<&'static str, usize>,
    /// How many are at which version, the commonest first.
    pub versions: Vec<(String, usize)>,
    /// Databases with migrations that are not what the files say.
    pub drift: usize,
    /// Seconds since the least recent look.
    pub oldest: Option<u64>,
}

impl Solution {
    /// Reads where every tenant's data of every service stands; touches no tenant's database.
    ///
    /// # Errors
    ///
    /// The control database or the files cannot be read.
    pub async fn grid(
        &self,
        catalogue: &Catalogue,
        prints: &Prints,
        verify_after: Duration,
    ) -> Result<Vec<Cell>, Error> {
        let services: Vec<&str> = tenant_services(&self.manifest).map(|service| service.name.as_str()).collect();
        let plans: Vec<&str> = services.iter().map(|service| prints.get(service).unwrap_or_default()).collect();
        let paths: BTreeMap<String, _> =
            self.jobs(&[], &BTreeMap::new())?.into_iter().map(|job| (job.service, job.path)).collect();
        let rows = catalogue
            .connection()
            .query(
                &format!(
                    "SELECT n.name, n.state, w.service, t.server, coalesce(t.database, nullif(s.database, '')), t.version, \
                       t.state, t.plan IS NOT DISTINCT FROM w.plan OR w.plan = '', t.drift, t.error, \
                       greatest(extract(epoch FROM now() - t.verified_at), 0)::bigint, t.rollout \
                     {REACHED} WHERE {SERVED} AND NOT n.moving ORDER BY n.name, w.service"
                ),
                &[(&services, Type::TEXT_ARRAY), (&plans, Type::TEXT_ARRAY)],
            )
            .await
            .map_err(|error| Error::postgres("cannot read where the tenants stand in the control database", &error))?;
        let mut cells = Vec::with_capacity(rows.len());
        for row in rows {
            let service: String = row.get(2);
            let (version, word): (Option<String>, Option<&str>) = (row.get(5), row.get(6));
            let age = row.get::<_, Option<i64>>(10).and_then(|age| u64::try_from(age).ok());
            let recorded = word.map_or(TargetState::Unknown, TargetState::of_word);
            let state = match recorded {
                TargetState::Current if !row.get::<_, bool>(7) => TargetState::Behind,
                TargetState::Current if age.is_none_or(|age| age > verify_after.as_secs()) => TargetState::Unknown,
                state => state,
            };
            let pending = match (&version, paths.get(&service)) {
                (Some(version), Some(path)) if state != TargetState::Current => {
                    let own = path.own();
                    let at = own.layout.version(version).ok();
                    own.migrations
                        .iter()
                        .filter(|migration| at.as_ref().is_some_and(|at| migration.version > *at))
                        .count()
                }
                _ => 0,
            };
            cells.push(Cell {
                tenant: row.get(0),
                tenant_state: row.get(1),
                server: row.get(3),
                database: row.get(4),
                version,
                state,
                pending: u32::try_from(pending).unwrap_or(u32::MAX),
                drift: row.get::<_, Option<i32>>(8).and_then(|drift| u32::try_from(drift).ok()).unwrap_or_default(),
                error: row.get(9),
                age,
                rollout: row.get(11),
                service,
            });
        }
        Ok(cells)
    }
}

impl Solution {
    /// Opens the control database when it is there and knows tenants.
    ///
    /// # Errors
    ///
    /// It is another solution's, or cannot be reached.
    pub async fn catalogue_if_any(&self) -> Result<Option<Catalogue>, Error> {
        let Some((catalogue, knows_tenants)) = Box::pin(self.open_control()).await? else { return Ok(None) };
        if knows_tenants {
            return Ok(Some(catalogue));
        }
        catalogue.close().await;
        Ok(None)
    }
}

impl Catalogue {
    /// Returns the rollout that is not over: its number, state and reason.
    ///
    /// # Errors
    ///
    /// The control database cannot be read.
    pub async fn unfinished_rollout(&self) -> Result<Option<(i64, String, String)>, Error> {
        let rows = self
            .connection()
            .query(
                "SELECT id, state, coalesce(reason, '') FROM control.rollouts \
                 WHERE state IN ('planned', 'running', 'paused', 'halted')",
                &[],
            )
            .await
            .map_err(|error| Error::postgres("cannot read the rollouts in the control database", &error))?;
        Ok(rows.first().map(|row| (row.get(0), row.get(1), row.get(2))))
    }
}

/// Sums the cells up by service.
pub fn rows(cells: &[Cell]) -> BTreeMap<&str, Row> {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut versions: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for cell in cells {
        let row = rows.entry(&cell.service).or_default();
        row.tenants += 1;
        *row.states.entry(cell.state.word()).or_default() += 1;
        row.drift += usize::from(cell.drift > 0);
        row.oldest = row.oldest.max(cell.age);
        let version = cell.version.as_deref().unwrap_or("-");
        *versions.entry(&cell.service).or_default().entry(version).or_default() += 1;
    }
    for (service, counts) in versions {
        let mut counts: Vec<(String, usize)> = counts.into_iter().map(|(v, count)| (v.to_owned(), count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        rows.entry(service).or_default().versions = counts;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_summed_up_by_service() {
        let cell = |tenant: &str, version: &str, state, age| Cell {
            service: "trip".to_owned(),
            tenant: tenant.to_owned(),
            tenant_state: "active".to_owned(),
            server: None,
            database: None,
            version: Some(version.to_owned()),
            state,
            pending: 0,
            drift: u32::from(tenant == "b"),
            error: None,
            age: Some(age),
            rollout: None,
        };
        let cells = [
            cell("a", "2", TargetState::Behind, 7),
            cell("b", "3", TargetState::Current, 1),
            cell("c", "3", TargetState::Current, 2),
        ];
        let rows = rows(&cells);
        let row = &rows["trip"];
        assert_eq!((row.tenants, row.drift, row.oldest), (3, 1, Some(7)));
        assert_eq!(row.versions, [("3".to_owned(), 2), ("2".to_owned(), 1)]);
        assert_eq!(row.states, BTreeMap::from([("behind", 1), ("current", 2)]));
    }
}
