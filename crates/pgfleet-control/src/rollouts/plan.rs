//! Which targets a rollout has, and in which waves.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::{Ask, What};
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::manifest::Manifest;
use crate::plans::{Plans, Prints};
use crate::solution::Solution;
use crate::standing::Stale;
use crate::targets::{FleetTarget, TargetKind};
use crate::templates::{self, Shape, database_name};
use crate::tenants::TenantState;

/// The wave of the services' own databases.
pub(super) const HOSTS: i32 = 0;
/// The wave of the templates.
pub(super) const TEMPLATES: i32 = 1;
/// The wave of the tenants that are tried first. After a failure in it or before it nothing more is begun.
pub(super) const CANARY: i32 = 2;

/// The states of tenants whose databases are kept at head.
const KEPT: [TenantState; 2] = [TenantState::Active, TenantState::Disabled];

/// One target in its wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) wave: i32,
    pub(super) kind: TargetKind,
    pub(super) server: String,
    pub(super) database: String,
    pub(super) tenant: String,
    pub(super) services: Vec<String>,
}

impl Planned {
    pub(super) fn of(wave: i32, target: FleetTarget) -> Self {
        let FleetTarget { kind, server, database, tenant, services, .. } = target;
        Self { wave, kind, server, database, tenant, services }
    }
}

/// How tenants are spread over waves.
pub(super) struct Spread<'a> {
    /// Those that come first, by name.
    pub(super) first: &'a [String],
    /// How many more are in the first wave.
    pub(super) canary: usize,
    /// How many times larger each wave is than the one before.
    pub(super) growth: usize,
}

impl<'a> Spread<'a> {
    /// Returns how the manifest says it, where it was not asked for.
    pub(super) fn of(manifest: &'a Manifest, ask: &Ask) -> Self {
        Self {
            first: &manifest.tenants.canary,
            canary: ask.canary.unwrap_or(manifest.rollouts.canary) as usize,
            growth: manifest.rollouts.growth as usize,
        }
    }
}

impl Spread<'_> {
    /// Puts targets in their order: the tenants that come first, then round and round over the servers, by
    /// name; all databases of a tenant together.
    ///
    /// The first wave has the tenants named and `canary` more; without either all are in one wave.
    pub(super) fn waves(&self, targets: Vec<FleetTarget>) -> Vec<Planned> {
        let mut tenants: BTreeMap<String, Vec<FleetTarget>> = BTreeMap::new();
        for target in targets {
            tenants.entry(target.tenant.clone()).or_default().push(target);
        }
        let named = |tenant: &String| self.first.contains(tenant);
        let first: Vec<_> = tenants.extract_if(.., |tenant, _| named(tenant)).map(|(_, targets)| targets).collect();
        let mut servers: BTreeMap<String, VecDeque<Vec<FleetTarget>>> = BTreeMap::new();
        for (_, targets) in tenants {
            servers.entry(targets[0].server.clone()).or_default().push_back(targets);
        }
        let mut ordered = Vec::new();
        while !servers.is_empty() {
            ordered.extend(servers.values_mut().filter_map(VecDeque::pop_front));
            servers.retain(|_, queue| !queue.is_empty());
        }
        let has_canary = !first.is_empty() || self.canary > 0;
        let mut size = first.len() + self.canary;
        let mut wave = if has_canary { CANARY } else { CANARY + 1 };
        let mut left = if has_canary { size } else { usize::MAX };
        let mut planned = Vec::new();
        for targets in first.into_iter().chain(ordered) {
            if left == 0 {
                size = size.saturating_mul(self.growth.max(1)).max(1);
                left = size;
                wave += 1;
            }
            left -= 1;
            planned.extend(targets.into_iter().map(|target| Planned::of(wave, target)));
        }
        planned
    }
}

impl Solution {
    /// Lists the tenants' databases that have to be worked on, each with the services for which.
    ///
    /// Those that are `stale`, or all when nobody says which are. A tenant whose string leads to a service's
    /// own database has none of its own.
    pub(super) async fn tenants_to_do(
        &self,
        catalogue: &Catalogue,
        prints: &Prints,
        what: &What,
        stale: Option<&Stale>,
    ) -> Result<Vec<FleetTarget>, Error> {
        let asked = |(tenant, service): &&(String, String)| {
            prints.get(service).is_some()
                && (what.services.is_empty() || what.services.contains(service))
                && (what.tenants.is_empty() || what.tenants.contains(tenant))
        };
        let wanted = stale.map(|found| found.stale.iter().filter(asked).collect::<HashSet<_>>());
        // Opening thousands of strings is what takes time here.
        if wanted.as_ref().is_some_and(HashSet::is_empty) {
            return Ok(Vec::new());
        }
        let hosts: HashSet<(String, String)> =
            self.host_targets(&[])?.into_iter().map(|host| (host.server, host.database)).collect();
        let mut targets = self.tenant_targets(catalogue, &KEPT).await?;
        targets.retain_mut(|target| {
            let tenants: Vec<&String> = std::iter::once(&target.tenant).chain(&target.shared_with).collect();
            if hosts.contains(&(target.server.clone(), target.database.clone()))
                || !(what.tenants.is_empty() || tenants.iter().any(|tenant| what.tenants.contains(*tenant)))
            {
                return false;
            }
            let mut services = std::mem::take(&mut target.services);
            services.retain(|service| {
                (what.services.is_empty() || what.services.contains(service))
                    && prints.get(service).is_some()
                    && wanted.as_ref().is_none_or(|wanted| {
                        tenants.iter().any(|tenant| wanted.contains(&((*tenant).clone(), service.clone())))
                    })
            });
            target.services = services;
            !target.services.is_empty()
        });
        Ok(targets)
    }

    /// Lists the databases of tenants by where they are, whatever is known of them.
    pub(super) async fn tenants_by_place(
        &self,
        catalogue: &Catalogue,
    ) -> Result<HashMap<(String, String), FleetTarget>, Error> {
        let targets = self.tenant_targets(catalogue, &KEPT).await?;
        Ok(targets.into_iter().map(|target| ((target.server.clone(), target.database.clone()), target)).collect())
    }

    /// Lists the templates that are not at head, on the servers where tenants are.
    pub(super) async fn templates_to_do(
        &self,
        catalogue: &Catalogue,
        plans: &Plans,
        what: &What,
        tenants: &[FleetTarget],
    ) -> Result<Vec<Planned>, Error> {
        let prints = plans.prints();
        let known = templates::read(catalogue).await?;
        let mut wanted: BTreeMap<(String, String), Shape> = BTreeMap::new();
        for template in &known {
            let shape = Shape::of(&self.manifest, &template.services);
            if shape.services().len() == template.services.len() {
                wanted.insert((template.server.clone(), shape.name()), shape);
            }
        }
        let shapes = Shape::all(&self.manifest, &[])?;
        for target in tenants {
            for (_, shape) in &shapes {
                wanted.entry((target.server.clone(), shape.name())).or_insert_with(|| shape.clone());
            }
        }
        let mut planned = Vec::new();
        for ((server, name), shape) in wanted {
            let asked = |service: &String| what.services.is_empty() || what.services.contains(service);
            if !self.servers().any(|(known, _)| known == server) || !shape.services().iter().any(asked) {
                continue;
            }
            // Not in a bundle.
            let Some(print) = prints.of(shape.services().iter().map(String::as_str)) else { continue };
            let current = known.iter().find(|template| template.server == server && template.shape == name);
            if what.recheck || current.is_none_or(|template| template.plan != print) {
                let database = database_name(&self.manifest.solution.name, &shape);
                let target = FleetTarget::on(TargetKind::Template, &server, &database, "", shape.services());
                planned.push(Planned::of(TEMPLATES, target));
            }
        }
        Ok(planned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(server: &str, tenant: &str) -> FleetTarget {
        FleetTarget::on(TargetKind::Tenant, server, tenant, tenant, &["trip".to_owned()])
    }

    fn waves(spread: &Spread<'_>, targets: Vec<FleetTarget>) -> Vec<String> {
        let mut shown: Vec<String> = Vec::new();
        let mut last = None;
        for planned in spread.waves(targets) {
            if last != Some(planned.wave) {
                shown.push(format!("{}:", planned.wave));
                last = Some(planned.wave);
            }
            shown.last_mut().unwrap().push_str(&planned.tenant);
        }
        shown
    }

    #[test]
    fn waves_begin_with_the_named_and_grow_over_all_servers() {
        let all = || {
            let on =
                |server: &'static str, names: &'static str| names.chars().map(move |c| target(server, &c.to_string()));
            on("b", "hgf").chain(on("a", "edcba")).collect::<Vec<_>>()
        };
        let named = ["g".to_owned(), "x".to_owned()];
        assert_eq!(waves(&Spread { first: &named, canary: 1, growth: 2 }, all()), ["2:ga", "3:fbhc", "4:de"]);
        assert_eq!(waves(&Spread { first: &[], canary: 1, growth: 4 }, all()), ["2:a", "3:fbgc", "4:hde"]);
        assert_eq!(waves(&Spread { first: &[], canary: 0, growth: 4 }, all()), ["3:afbgchde"]);
        assert_eq!(waves(&Spread { first: &[], canary: 3, growth: 1 }, all()), ["2:afb", "3:gch", "4:de"]);
    }
}
