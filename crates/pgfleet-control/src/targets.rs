//! Every physical database of the solution, with the services and the tenant whose data is in it.
//!
//! Hosts come from the manifest, tenants' databases from their strings in the control database. Strings
//! that lead to one database are one target, whatever they look like.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pgfleet_migrate::Target;
use pgfleet_postgres::{Address, Type};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::catalogue::Catalogue;
use crate::connections::tenant_services;
use crate::error::{Error, ErrorKind};
use crate::fleet::Job;
use crate::manifest::Service;
use crate::physical::Physical;
use crate::plans::Plans;
use crate::roles::Login;
use crate::solution::Solution;
use crate::tenants::{ALL_STRINGS, TenantState, completed, context, strings_of_one};

/// What a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// A service's own database.
    Host,
    /// A closed database from which tenants' are copied.
    Template,
    /// A tenant's database.
    Tenant,
}

impl TargetKind {
    /// Returns the word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Template => "template",
            Self::Tenant => "tenant",
        }
    }
}

/// One physical database.
#[derive(Debug, Clone)]
pub struct FleetTarget {
    /// What it is.
    pub kind: TargetKind,
    /// The server's name in the manifest, or `host:port` of one that is not in it.
    pub server: String,
    /// The database.
    pub database: String,
    /// The tenant; empty for a host. Of several that share it, whom pgfleet made it for, else who was led
    /// there first.
    pub tenant: String,
    /// The other tenants that share it.
    pub shared_with: Vec<String>,
    /// The services whose data is in it, in the manifest's order.
    pub services: Vec<String>,
    /// Which one it was when somebody looked.
    pub physical: Option<Physical>,
    /// The strings for it of which nobody has seen where they lead.
    pub(crate) unseen: Vec<UnseenString>,
    /// How each service gets there.
    ways: BTreeMap<String, Arc<Way>>,
    /// Of each tenant whether the database was made for another one, and when its string was stored.
    came: BTreeMap<String, (bool, String)>,
}

/// A string that was stored without a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnseenString {
    pub(crate) tenant: String,
    /// Which of the tenant's strings.
    pub(crate) connection: String,
    /// The part that holds no secret.
    pub(crate) shown: String,
    /// Whether it may lead to another tenant's database.
    pub(crate) shared: bool,
    /// When it was stored, to know it again.
    pub(crate) changed_at: String,
}

/// How to get to a database.
#[derive(Debug)]
enum Way {
    /// By the manifest.
    Host,
    /// On one of the solution's servers.
    On,
    /// By a string that somebody gave.
    By(SecretString),
}

impl FleetTarget {
    /// Makes a target on one of the solution's own servers.
    pub fn on(kind: TargetKind, server: &str, database: &str, tenant: &str, services: &[String]) -> Self {
        let way = Arc::new(Way::On);
        Self {
            kind,
            server: server.to_owned(),
            database: database.to_owned(),
            tenant: tenant.to_owned(),
            shared_with: Vec::new(),
            services: services.to_vec(),
            physical: None,
            unseen: Vec::new(),
            ways: services.iter().map(|service| (service.clone(), way.clone())).collect(),
            came: BTreeMap::new(),
        }
    }

    /// Notes how a tenant came here; the first of its strings counts.
    fn came(&mut self, tenant: &str, made_for_another: bool, since: &str) {
        let came = (made_for_another, since.to_owned());
        let known = self.came.entry(tenant.to_owned()).or_insert_with(|| came.clone());
        *known = came.min(known.clone());
    }

    /// Puts first whom it was made for, else who was led here first: whoever comes later, it stays the same.
    fn order_tenants(&mut self) {
        if self.shared_with.is_empty() {
            return;
        }
        let mut tenants = std::mem::take(&mut self.shared_with);
        tenants.push(std::mem::take(&mut self.tenant));
        tenants.sort_by(|one, other| (self.came.get(one), one).cmp(&(self.came.get(other), other)));
        self.tenant = tenants.remove(0);
        self.shared_with = tenants;
    }

    /// Returns what messages call a service in it: `trip`, `trip/acme`.
    pub fn name(&self, service: &str) -> String {
        match self.kind {
            TargetKind::Host => service.to_owned(),
            TargetKind::Template => format!("{service}/({})", self.database),
            TargetKind::Tenant => format!("{service}/{}", self.tenant),
        }
    }

    /// Returns what tells it from other targets.
    pub fn key(&self) -> (&str, &str) {
        (&self.server, &self.database)
    }
}

impl Solution {
    /// Lists the services' own databases; all when none is named.
    ///
    /// # Errors
    ///
    /// An unknown service.
    pub fn host_targets(&self, names: &[String]) -> Result<Vec<FleetTarget>, Error> {
        let mut found: Vec<FleetTarget> = Vec::new();
        for service in self.services(names)? {
            let key = (service.server.as_str(), service.database.as_str());
            let at = found.iter().position(|target| target.key() == key).unwrap_or_else(|| {
                found.push(FleetTarget {
                    ways: BTreeMap::new(),
                    ..FleetTarget::on(TargetKind::Host, &service.server, &service.database, "", &[])
                });
                found.len() - 1
            });
            found[at].services.push(service.name.clone());
            found[at].ways.insert(service.name.clone(), Arc::new(Way::Host));
        }
        Ok(found)
    }

    /// Lists the databases of tenants, by tenant, as their strings lead there now.
    ///
    /// Those of tenants in `states` only. A tenant without a string has none: it lives in the services'
    /// own databases.
    ///
    /// # Errors
    ///
    /// The control database cannot be read, or a string is under a key that is not known.
    pub async fn tenant_targets(
        &self,
        catalogue: &Catalogue,
        states: &[TenantState],
    ) -> Result<Vec<FleetTarget>, Error> {
        self.some_tenant_targets(catalogue, states, "").await
    }

    /// Lists the databases of one tenant, as [`tenant_targets`](Self::tenant_targets) does.
    ///
    /// # Errors
    ///
    /// As [`tenant_targets`](Self::tenant_targets). That there is no such tenant is none.
    pub async fn targets_of_tenant(&self, catalogue: &Catalogue, tenant: &str) -> Result<Vec<FleetTarget>, Error> {
        self.some_tenant_targets(catalogue, &TenantState::ALL, tenant).await
    }

    async fn some_tenant_targets(
        &self,
        catalogue: &Catalogue,
        states: &[TenantState],
        only: &str,
    ) -> Result<Vec<FleetTarget>, Error> {
        let keys = self.keys()?;
        let words: Vec<&str> = states.iter().map(|state| state.word()).collect();
        let strings = if only.is_empty() { ALL_STRINGS.to_owned() } else { strings_of_one("$2") };
        let rows = catalogue
            .connection()
            .query(
                &format!(
                    "SELECT s.tenant, s.connection, s.key_id, s.sealed, s.server, s.system_identifier, s.database, \
                     coalesce(s.database_oid, 0::oid), s.shown, s.shared, s.changed_at::text, \
                     s.system_identifier <> '' AND EXISTS (SELECT FROM control.tenant_databases d \
                       WHERE d.tenant = s.tenant AND d.system_identifier = s.system_identifier \
                         AND d.database_oid = s.database_oid) \
                     FROM {strings} \
                     JOIN control.tenants t ON t.name = s.tenant WHERE NOT t.moving AND t.state = ANY ($1) \
                       AND ($2 = '' OR s.tenant = $2 OR t.state IN ('active', 'disabled')) \
                     ORDER BY s.tenant, s.connection"
                ),
                &[(&words, Type::TEXT_ARRAY), (&only, Type::TEXT)],
            )
            .await
            .map_err(|error| Error::postgres("cannot read the tenants", &error))?;
        let services: Vec<&Service> = tenant_services(&self.manifest).collect();
        let mut places = Places::default();
        let mut rows = rows.iter().peekable();
        while let Some(row) = rows.next() {
            let tenant: &str = row.get(0);
            let mut strings = vec![row];
            while let Some(next) = rows.next_if(|next| next.get::<_, &str>(0) == tenant) {
                strings.push(next);
            }
            for service in &services {
                let of = |name: &str| strings.iter().find(|row| row.get::<_, &str>(1) == name);
                let Some(row) = of(&service.name).or_else(|| of("")) else { continue };
                let text = keys.open(row.get(2), row.get(3), &context(tenant, row.get(1)))?;
                let server: &str = row.get(4);
                let address = self.text_address(service, server, &text, tenant, Login::Migrator)?;
                let (identifier, database, oid): (&str, &str, u32) = (row.get(5), row.get(6), row.get(7));
                let physical = (!identifier.is_empty()).then(|| Physical {
                    system_identifier: identifier.to_owned(),
                    database: database.to_owned(),
                    oid,
                    server_version: 0,
                });
                let way = if server.is_empty() { Way::By(text) } else { Way::On };
                let name = if server.is_empty() { self.server_at(&address) } else { server.to_owned() };
                let unseen = identifier.is_empty().then(|| UnseenString {
                    tenant: tenant.to_owned(),
                    connection: row.get(1),
                    shown: row.get(8),
                    shared: row.get(9),
                    changed_at: row.get(10),
                });
                let target = places.add(&name, &address, tenant, &service.name, physical, way);
                target.unseen.extend(unseen.filter(|string| !target.unseen.contains(string)));
                target.came(tenant, !row.get::<_, bool>(11), row.get(10));
            }
        }
        let mut list = places.list;
        if !only.is_empty() {
            // The others were read for who shares its databases.
            list.retain(|target| target.tenants().any(|tenant| tenant == only));
        }
        list.iter_mut().for_each(FleetTarget::order_tenants);
        Ok(list)
    }

    /// Returns the name of the solution's server at an address; else the address.
    pub(crate) fn server_at(&self, address: &Address) -> String {
        let at = address.server();
        let known = self.servers().find(|(_, server)| server.admin.server() == at || server.services.server() == at);
        known.map_or(at, |(name, _)| name.to_owned())
    }

    /// Returns the address to which a tenant's string leads one of a service's roles.
    ///
    /// `server` is the solution's server on which pgfleet made the database, empty for a string that
    /// somebody gave.
    ///
    /// # Errors
    ///
    /// The service has no password there yet, or the string cannot be used.
    pub(crate) fn text_address(
        &self,
        service: &Service,
        server: &str,
        text: &SecretString,
        tenant: &str,
        login: Login,
    ) -> Result<Address, Error> {
        if server.is_empty() {
            return completed(&self.address(service, login)?, text, tenant);
        }
        completed(&self.address_on(server, service, login)?, text, tenant)
    }

    /// Returns the address of one of a service's roles on a server; the database is the service's own.
    ///
    /// # Errors
    ///
    /// The server is not in the manifest, or the service has no password there yet.
    pub(crate) fn address_on(&self, server: &str, service: &Service, login: Login) -> Result<Address, Error> {
        let Some((_, found)) = self.servers().find(|(name, _)| *name == server) else {
            return Err(Error::new(ErrorKind::Configuration, format!("there is no server `{server}` in the manifest"))
                .hinted("a tenant's database is there: put the server back, or move the tenant before taking it out"));
        };
        let (role, credential) = self.login(server, service, login)?;
        let way = if login == Login::Migrator { &found.admin } else { &found.services };
        Ok(way.with_user(&role, Some(credential.password.clone())).with_database(&service.database))
    }

    /// Returns the address at which a service's migrations run in a target.
    ///
    /// # Errors
    ///
    /// The service is not in the manifest any more or has no password there.
    pub fn migrator_address(&self, target: &FleetTarget, service: &str) -> Result<Address, Error> {
        self.address_in(target, service, Login::Migrator)
    }

    /// Returns the address of one of a service's roles in a target.
    ///
    /// # Errors
    ///
    /// As [`migrator_address`](Self::migrator_address).
    pub(crate) fn address_in(&self, target: &FleetTarget, service: &str, login: Login) -> Result<Address, Error> {
        let service = crate::jobs::find_service(&self.manifest, service)?;
        match target.ways.get(&service.name).map(|way| &**way) {
            Some(Way::By(text)) => completed(&self.address(service, login)?, text, &target.tenant),
            Some(Way::Host) | None if target.kind == TargetKind::Host => self.address(service, login),
            _ => Ok(self.address_on(&target.server, service, login)?.with_database(&target.database)),
        }
    }

    /// Makes the piece of work on one service in a target; `values` are the tenant's own seed
    /// properties.
    ///
    /// # Errors
    ///
    /// There is no plan for the service, or no way to get there.
    pub fn job(
        &self,
        plans: &Plans,
        target: &FleetTarget,
        service: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<Job, Error> {
        let plan = plans.get(service).ok_or_else(|| {
            Error::new(ErrorKind::Configuration, format!("there is no service `{service}` in the manifest"))
        })?;
        let mut own = Target::new(target.name(service), self.migrator_address(target, service)?);
        own.schema.clone_from(&plan.schema);
        own.tenant = (!target.tenant.is_empty()).then(|| target.tenant.clone());
        own.known = target.physical.clone().map(Physical::into_identity);
        Ok(Job {
            service: service.to_owned(),
            server: target.server.clone(),
            target: own,
            path: if values.is_empty() { plan.path.clone() } else { Arc::new(plan.path.with_properties(values)) },
            handling: plan.handling.clone(),
        })
    }
}

/// Targets being collected.
#[derive(Default)]
struct Places {
    list: Vec<FleetTarget>,
    /// By what is known of them: identity, and where the string leads.
    known: HashMap<(String, String), usize>,
}

impl Places {
    fn add(
        &mut self,
        server: &str,
        address: &Address,
        tenant: &str,
        service: &str,
        physical: Option<Physical>,
        way: Way,
    ) -> &mut FleetTarget {
        let database = address.database().to_owned();
        let mut keys = vec![(server.to_owned(), database.clone())];
        if let Some(physical) = &physical {
            keys.push((physical.system_identifier.clone(), format!("oid {}", physical.oid)));
        }
        let at = keys.iter().find_map(|key| self.known.get(key).copied()).unwrap_or_else(|| {
            self.list.push(FleetTarget {
                physical: None,
                ways: BTreeMap::new(),
                ..FleetTarget::on(TargetKind::Tenant, server, &database, tenant, &[])
            });
            self.list.len() - 1
        });
        for key in keys {
            self.known.entry(key).or_insert(at);
        }
        let target = &mut self.list[at];
        target.physical = target.physical.take().or(physical);
        if target.tenant != tenant && !target.shared_with.iter().any(|other| other == tenant) {
            target.shared_with.push(tenant.to_owned());
        }
        if !target.services.iter().any(|known| known == service) {
            target.services.push(service.to_owned());
            target.ways.insert(service.to_owned(), Arc::new(way));
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn physical() -> Physical {
        Physical { system_identifier: "7".to_owned(), database: "acme".to_owned(), oid: 5, server_version: 0 }
    }

    #[test]
    fn strings_that_lead_to_one_database_are_one_target() {
        let at = |text: &str| Address::parse(text).unwrap();
        let mut places = Places::default();
        let by = || Way::By("x".to_owned().into());
        places.add("main", &at("postgres://a@db/acme"), "acme", "trip", Some(physical()), by());
        places.add("db.local:5432", &at("postgres://a@db.local/acme"), "acme", "user", Some(physical()), by());
        places.add("main", &at("postgres://a@db/acme"), "bolt", "trip", None, by());
        places.add("main", &at("postgres://a@db/bolt"), "bolt", "user", None, by());
        let shown: Vec<_> = places.list.iter().map(|t| (t.database.as_str(), t.services.clone())).collect();
        assert_eq!(shown, [("acme", vec!["trip".to_owned(), "user".to_owned()]), ("bolt", vec!["user".to_owned()])]);
        assert_eq!(
            (places.list[0].tenant.as_str(), &places.list[0].shared_with[..]),
            ("acme", &["bolt".to_owned()][..])
        );
    }
}
