//! What a server has that is marked as a solution's.

use pgfleet_postgres::{Connection, Type};

use crate::error::Error;
use crate::provision::tenant::tenant_family;

/// A database as its server describes it.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) name: String,
    pub(super) oid: u32,
    pub(super) open: bool,
    /// The part of the comment behind the solution's name; none without such a comment.
    pub(super) mark: Option<Mark>,
}

/// Whose a database is marked as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    Tenant(String),
    Template(String),
}

/// The databases of a server.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) databases: Vec<Present>,
}

impl Look {
    pub(super) async fn at(admin: &Connection, solution: &str) -> Result<Self, Error> {
        let rows = admin
            .query(
                "SELECT datname::text, oid, datallowconn, \
                 coalesce(pg_catalog.shobj_description(oid, 'pg_database'), '') FROM pg_catalog.pg_database \
                 ORDER BY datname",
                &[] as &[(&(dyn pgfleet_postgres::ToSql + Sync), Type)],
            )
            .await
            .map_err(|error| Error::postgres("cannot read which databases there are", &error))?;
        let databases = rows.iter().map(|row| Present {
            name: row.get(0),
            oid: row.get(1),
            open: row.get(2),
            mark: mark(row.get(3), solution),
        });
        Ok(Self { databases: databases.collect() })
    }

    pub(super) fn named(&self, name: &str) -> Option<&Present> {
        self.databases.iter().find(|database| database.name == name)
    }

    pub(super) fn of_oid(&self, oid: u32) -> Option<&Present> {
        self.databases.iter().find(|database| database.oid == oid)
    }
}

fn mark(comment: &str, solution: &str) -> Option<Mark> {
    let template = format!("pgfleet: solution {solution}, template of ");
    let tenant = comment.strip_prefix(&tenant_family(solution)).map(|name| Mark::Tenant(name.to_owned()));
    tenant.or_else(|| comment.strip_prefix(&template).map(|shape| Mark::Template(shape.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_for_its_own_solution_only() {
        assert_eq!(mark("pgfleet: solution shop, tenant acme", "shop"), Some(Mark::Tenant("acme".to_owned())));
        assert_eq!(mark("pgfleet: solution shop, template of a+b", "shop"), Some(Mark::Template("a+b".to_owned())));
        for other in ["", "mine", "pgfleet: solution shop-2, tenant acme", "pgfleet: solution shop, service acme"] {
            assert_eq!(mark(other, "shop"), None, "{other}");
        }
    }
}
