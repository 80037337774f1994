//! What a rollout would do.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgfleet_migrate::{Observer, Options};
use serde::Serialize;

use super::read::Rollout;
use super::survey::Survey;
use super::{Ask, Settled};
use crate::error::Error;
use crate::solution::Solution;
use crate::targets::TargetKind;

/// What a rollout would do.
#[derive(Debug, Default, Serialize)]
pub struct Outlook {
    /// The rollout that is not over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Rollout>,
    /// The waves of the one that would be made.
    pub waves: Vec<Wave>,
    /// How many pairs of service and tenant are known to be where they should be; none when something is
    /// to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<usize>,
    /// With it, the tenants that are being moved and are not known to be where they should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moving: Vec<String>,
}

/// A wave of a rollout.
#[derive(Debug, Serialize)]
pub struct Wave {
    /// Its number.
    pub wave: i32,
    /// What is in it.
    pub kind: TargetKind,
    /// How many databases.
    pub targets: usize,
}

impl Solution {
    /// Finds out what a rollout would do, and changes nothing; none when no tenant has a database of its
    /// own that was asked for.
    ///
    /// # Errors
    ///
    /// As [`begin_rollout`](Self::begin_rollout), but a rollout that is not over is none.
    pub async fn outlook(
        &self,
        ask: &Ask,
        options: &Options,
        observer: &Arc<dyn Observer>,
    ) -> Result<Option<Outlook>, Error> {
        let Some(catalogue) = self.catalogue_if_any().await? else { return Ok(None) };
        let found = Box::pin(self.survey(&catalogue, ask, options, observer)).await;
        catalogue.close().await;
        Ok(match found? {
            Survey::NoTenants => None,
            Survey::Current(Settled { targets, moving }) => {
                Some(Outlook { current: Some(targets), moving, ..Outlook::default() })
            }
            Survey::Unfinished { rollout, .. } => Some(Outlook { unfinished: Some(rollout), ..Outlook::default() }),
            Survey::Draft(draft) => {
                let mut waves: BTreeMap<(i32, TargetKind), usize> = BTreeMap::new();
                for target in &draft.planned {
                    *waves.entry((target.wave, target.kind)).or_default() += 1;
                }
                let wave = |((wave, kind), targets)| Wave { wave, kind, targets };
                Some(Outlook { waves: waves.into_iter().map(wave).collect(), ..Outlook::default() })
            }
        })
    }
}
