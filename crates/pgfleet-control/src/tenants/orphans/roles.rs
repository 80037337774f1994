//! Roles of services that are in the manifest no more.

use std::collections::BTreeMap;

use pgfleet_postgres::{Connection, Type, quote_ident};

use super::{Finding, Kind, Mender};
use crate::error::Error;
use crate::provision::DesiredServer;

impl Mender<'_> {
    /// Finds roles without a service, with the statements that take them away. They are never run here:
    /// what such a role owns may be all that is left of a service's data.
    pub(super) async fn roles(&mut self, server: &str) -> Result<(), Error> {
        let family = DesiredServer::of(&self.solution.manifest, server).family();
        let admin = &self.bench.admin(self.solution, server).await?.connection;
        let failed = |error: &pgfleet_postgres::Error| Error::postgres("cannot read the roles", error);
        let rows = admin
            .query(
                "SELECT r.rolname::text, pg_catalog.shobj_description(r.oid, 'pg_authid') FROM pg_catalog.pg_roles r \
                 WHERE pg_catalog.starts_with(pg_catalog.shobj_description(r.oid, 'pg_authid'), $1) ORDER BY 1",
                &[(&family, Type::TEXT)],
            )
            .await
            .map_err(|error| failed(&error))?;
        let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in &rows {
            let (role, comment): (String, &str) = (row.get(0), row.get(1));
            let service = comment.strip_prefix(&family).unwrap_or_default();
            if self.solution.manifest.service(service).is_none() {
                services.entry(service.to_owned()).or_default().push(role);
            }
        }
        for (service, roles) in services {
            let found = format!("it is not in the manifest, and has the roles {}", roles.join(", "));
            let mut finding = Finding::new(Kind::RoleWithoutService, &service, found).at(server);
            finding.statements = statements(admin, &roles).await.map_err(|error| failed(&error))?;
            finding.hint = Some("look at what they own first: dropping it loses the service's data".to_owned());
            self.findings.push(finding);
        }
        Ok(())
    }
}

/// Returns what psql is to be told to take roles away.
async fn statements(admin: &Connection, roles: &[String]) -> Result<Vec<String>, pgfleet_postgres::Error> {
    let rows = admin
        .query(
            "SELECT DISTINCT d.datname::text, coalesce(o.rolname::text, '') FROM pg_catalog.pg_shdepend s \
             JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::regclass \
             JOIN pg_catalog.pg_database d ON d.oid = s.dbid \
               OR s.dbid = 0 AND s.classid = 'pg_catalog.pg_database'::regclass AND d.oid = s.objid \
             LEFT JOIN pg_catalog.pg_roles o ON o.oid = d.datdba AND o.rolname = ANY ($1) \
             WHERE r.rolname = ANY ($1) ORDER BY 1",
            &[(&roles, Type::TEXT_ARRAY)],
        )
        .await?;
    let quoted: Vec<String> = roles.iter().map(|role| quote_ident(role)).collect();
    let all = quoted.join(", ");
    let mut statements = Vec::new();
    for row in &rows {
        let (database, owner): (&str, &str) = (row.get(0), row.get(1));
        if !owner.is_empty() {
            statements.push(format!("ALTER DATABASE {} OWNER TO CURRENT_USER;", quote_ident(database)));
        }
        statements.push(format!("\\connect {}", quote_ident(database)));
        statements.push(format!("DROP OWNED BY {all};"));
    }
    statements.push(format!("DROP ROLE {all};"));
    Ok(statements)
}
