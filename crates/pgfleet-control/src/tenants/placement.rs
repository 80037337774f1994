//! On which server a new tenant's databases are made.

use std::collections::BTreeMap;

use pgfleet_postgres::Connection;

use crate::error::{Error, ErrorKind};
use crate::manifest::{Placement, Tenants};

/// What is on a server already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// How many databases of tenants.
    pub(super) databases: i64,
    /// Their size, as far as it is known.
    pub(super) bytes: i64,
}

/// What the manifest says about where tenants are placed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy<'a> {
    placement: Placement,
    servers: &'a [String],
    pinned: Option<&'a str>,
    weights: &'a BTreeMap<String, u32>,
}

impl<'a> Policy<'a> {
    pub(super) fn of(tenants: &'a Tenants) -> Self {
        let Tenants { placement, servers, pinned, weights, .. } = tenants;
        Self { placement: *placement, servers, pinned: pinned.as_deref(), weights }
    }
}

/// Reads what is on the servers; the lock on tenants is held, so that two who place a tenant count each
/// other's.
pub(super) async fn loads(connection: &Connection) -> Result<BTreeMap<String, Load>, Error> {
    let rows = connection
        .query("SELECT server, count(*), sum(bytes)::bigint FROM control.tenant_databases GROUP BY server", &[])
        .await
        .map_err(|error| Error::postgres("cannot read where tenants' databases are", &error))?;
    Ok(rows.iter().map(|row| (row.get(0), Load { databases: row.get(1), bytes: row.get(2) })).collect())
}

/// Picks the server for a new tenant; `asked` is the one that the caller named.
///
/// Of servers that are equal the first in the manifest's order.
///
/// # Errors
///
/// The server that was asked for holds no tenants, or none does.
pub(super) fn place(policy: Policy<'_>, loads: &BTreeMap<String, Load>, asked: Option<&str>) -> Result<String, Error> {
    if let Some(asked) = asked {
        return named(policy, asked);
    }
    if policy.placement == Placement::Pinned
        && let Some(pinned) = policy.pinned
    {
        return named(policy, pinned);
    }
    let load = |server: &str| loads.get(server).copied().unwrap_or_default();
    let weight = |server: &str| i64::from(policy.weights.get(server).copied().unwrap_or(1));
    let servers = policy.servers.iter().map(String::as_str);
    let found = match policy.placement {
        Placement::MostRoom => servers.min_by_key(|server| (load(server).bytes, load(server).databases)),
        // Databases per weight, counted with the new one, and compared without a division.
        Placement::Weighted => servers.filter(|server| weight(server) > 0).min_by(|one, other| {
            let part = |server, of| i128::from(load(server).databases + 1) * i128::from(weight(of));
            part(one, other).cmp(&part(other, one))
        }),
        Placement::FewestDatabases | Placement::Pinned => servers.min_by_key(|server| load(server).databases),
    };
    found.map(str::to_owned).ok_or_else(|| {
        Error::new(ErrorKind::Configuration, "no server takes new tenants")
            .hinted("name one in `servers` of [tenants], or give one a weight above 0")
    })
}

fn named(policy: Policy<'_>, name: &str) -> Result<String, Error> {
    if policy.servers.iter().any(|server| server == name) {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = policy.servers.iter().map(String::as_str).collect();
    Err(Error::new(ErrorKind::Configuration, format!("server `{name}` holds no tenants' databases"))
        .cause("it is not in `servers` of [tenants]")
        .hinted(crate::connections::near(name, &names)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(given: &[(&str, i64, i64)]) -> BTreeMap<String, Load> {
        let load = |(name, databases, bytes): &(&str, i64, i64)| {
            ((*name).to_owned(), Load { databases: *databases, bytes: *bytes })
        };
        given.iter().map(load).collect()
    }

    #[test]
    fn each_policy_finds_its_server() {
        let full = loads(&[("a", 3, 10), ("b", 2, 50), ("c", 2, 20)]);
        let servers = ["b", "a", "c"].map(str::to_owned);
        let at = |placement, weights: &[(&str, u32)], asked| {
            let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
            place(Policy { placement, servers: &servers, pinned: Some("c"), weights: &weights }, &full, asked).unwrap()
        };
        assert_eq!(at(Placement::FewestDatabases, &[], None), "b", "the first of those that are equal");
        assert_eq!(at(Placement::FewestDatabases, &[("b", 0)], None), "b", "weights count when they are asked for");
        assert_eq!(at(Placement::MostRoom, &[], None), "a");
        assert_eq!(at(Placement::Weighted, &[("a", 2), ("b", 0)], None), "a", "4/2 is less than 3/1");
        assert_eq!(at(Placement::Weighted, &[("a", 1), ("b", 0)], None), "c");
        assert_eq!(at(Placement::Pinned, &[], None), "c");
        assert_eq!(at(Placement::Pinned, &[], Some("a")), "a");
    }

    #[test]
    fn a_server_without_tenants_is_refused() {
        let (servers, weights) = (["a".to_owned()], BTreeMap::new());
        let policy =
            Policy { placement: Placement::FewestDatabases, servers: &servers, pinned: None, weights: &weights };
        let error = place(policy, &BTreeMap::new(), Some("d")).unwrap_err();
        assert_eq!(error.to_string(), "server `d` holds no tenants' databases");
        let error = place(Policy { servers: &[], ..policy }, &BTreeMap::new(), None).unwrap_err();
        assert_eq!(error.to_string(), "no server takes new tenants");
    }
}
