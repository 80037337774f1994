//! How many connections each service may hold on its server.

use super::desired::DesiredServer;
use crate::manifest::{Budget, Manifest};

/// The connections of a server that are not for services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// `max_connections`.
    pub all: u32,
    /// Kept for superusers, and from 16 on for `pg_use_reserved_connections`.
    pub reserved: u32,
}

impl Capacity {
    /// Returns what all pools together may hold when nobody says it: all but the reserved ones, less a
    /// tenth for migrations, for the control database and for people.
    pub fn automatic(self) -> u32 {
        let free = self.all.saturating_sub(self.reserved);
        (free - free / 10).max(1)
    }
}

/// One service's part of its server's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The service.
    pub service: String,
    /// Its `pool.max`.
    pub pool: u32,
    /// The most connections of its application role.
    pub limit: u32,
}

/// How a server's connections are shared out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// The connections for all services together.
    pub budget: u32,
    /// Each service's part.
    pub of: Vec<Share>,
}

impl Shares {
    /// Shares a server's budget out among its services, by the weight of `pool.max`.
    ///
    /// None when the budget is `auto` and nobody has looked at the server.
    pub fn of(manifest: &Manifest, server: &str, capacity: Option<Capacity>) -> Option<Self> {
        DesiredServer::of(manifest, server).shares(capacity)
    }

    /// Shares a budget out among services with their `pool.max`.
    pub(crate) fn among(budget: Budget, pools: &[(&str, u32)], capacity: Option<Capacity>) -> Option<Self> {
        let budget = match budget {
            Budget::Connections(budget) => budget,
            Budget::Auto => capacity?.automatic(),
        };
        Some(Self::out(budget, pools))
    }

    fn out(budget: u32, pools: &[(&str, u32)]) -> Self {
        let sum: u64 = pools.iter().map(|(_, max)| u64::from(*max)).sum();
        let part = |max: u32| u64::from(budget) * u64::from(max) / sum.max(1);
        let of = pools.iter().map(|(service, max)| Share {
            service: (*service).to_owned(),
            pool: *max,
            limit: u32::try_from(part(*max)).unwrap_or(u32::MAX).max(1),
        });
        Self { budget, of: of.collect() }
    }

    /// Says that the budget is more than the server takes; none when it is not.
    pub fn excess(&self, server: &str, capacity: Capacity) -> Option<String> {
        let free = capacity.all.saturating_sub(capacity.reserved);
        (self.budget > free).then(|| {
            format!(
                "`budget` of server {server} is {}, and the server takes {free} connections beside the reserved ones",
                self.budget
            )
        })
    }

    /// Returns a service's part.
    pub fn limit(&self, service: &str) -> Option<u32> {
        self.of.iter().find(|share| share.service == service).map(|share| share.limit)
    }

    /// Says that the pools want more than there is; none when they fit.
    pub fn shortage(&self, server: &str) -> Option<String> {
        let sum: u32 = self.of.iter().map(|share| share.pool).sum();
        (sum > self.budget).then(|| {
            format!(
                "the pools of the services on server {server} want {sum} connections, and the server has {} for them: \
                 each service gets its part by the weight of its `pool.max`",
                self.budget
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_is_large_enough_leaves_no_service_below_its_pool() {
        let shares = Shares::out(87, &[("a", 20), ("b", 20), ("c", 5)]);
        let limits: Vec<u32> = shares.of.iter().map(|share| share.limit).collect();
        assert_eq!(limits, [38, 38, 9]);
        assert_eq!(shares.shortage("main"), None);
        let exact = Shares::out(45, &[("a", 20), ("b", 20), ("c", 5)]);
        assert_eq!(exact.of.iter().map(|share| share.limit).collect::<Vec<_>>(), [20, 20, 5]);
    }

    #[test]
    fn a_budget_that_is_too_small_is_shared_by_weight_and_said() {
        let shares = Shares::out(30, &[("a", 40), ("b", 20)]);
        assert_eq!((shares.limit("a"), shares.limit("b")), (Some(20), Some(10)));
        let note = shares.shortage("main").unwrap();
        assert!(note.contains("want 60 connections") && note.contains("has 30"), "{note}");
        let small = Capacity { all: 20, reserved: 3 };
        assert!(shares.excess("main", small).unwrap().contains("is 30, and the server takes 17 connections"));
        assert_eq!(shares.excess("main", Capacity { all: 33, reserved: 3 }), None);
        assert_eq!(Shares::out(1, &[("a", 40), ("b", 20)]).limit("b"), Some(1), "nobody is shut out");
    }

    #[test]
    fn the_reserved_connections_and_a_tenth_are_nobody_s() {
        assert_eq!(Capacity { all: 100, reserved: 3 }.automatic(), 88);
        assert_eq!(Capacity { all: 3, reserved: 3 }.automatic(), 1);
    }
}
