//! Why a connection name leads where it leads.

use pgfleet_postgres::Address;
use pgfleet_route::{Outcome, Rules, Strings};
use serde::Serialize;

use super::{has_tenants, mapped, readable};
use crate::error::{Error, ErrorKind};
use crate::manifest::Service;
use crate::physical::Physical;
use crate::roles::Login;
use crate::solution::Solution;
use crate::tenants::{Tenant, TenantState};

/// The rules that were tried for one connection name, and what came of them.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// The service that asks.
    pub service: String,
    /// The tenant; none for the host.
    pub tenant: Option<String>,
    /// The tenant's state.
    pub state: Option<TenantState>,
    /// The connection name.
    pub connection: String,
    /// The rules in their order.
    pub steps: Vec<ExplainedStep>,
    /// Where the one that won leads, without a password.
    pub address: String,
    /// The database that this is; none when nobody has looked yet.
    pub physical: Option<Physical>,
    /// Who else goes to that database.
    pub also: Vec<Visitor>,
    /// What is worth knowing beside.
    pub notes: Vec<String>,
}

/// One rule of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedStep {
    /// The rule: `tenant-name`, `tenant-service`, `tenant-default`, `host-mapped` or `host-main`.
    pub rule: &'static str,
    /// What it looked for.
    pub looked_for: String,
    /// What came of it: `missing`, `won` or `not-needed`.
    pub outcome: &'static str,
}

/// Somebody else whose connections go to the same database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Visitor {
    /// The tenant whose string leads there; none for a service's own database.
    pub tenant: Option<String>,
    /// Which of the tenant's strings (empty: the default), or the service.
    pub connection: String,
}

/// Where one string leads.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) address: Address,
    pub(super) physical: Option<Physical>,
}

impl Solution {
    /// Says which rules are tried for a connection name of a service, and which of them decides.
    ///
    /// `tenant` none is the host; `connection` none is the service's own name.
    ///
    /// # Errors
    ///
    /// Unknown names, passwords or keys that are not here, servers that cannot be asked.
    pub async fn explain(
        &self,
        service: &str,
        tenant: Option<&str>,
        connection: Option<&str>,
    ) -> Result<Explained, Error> {
        let service = crate::jobs::find_service(&self.manifest, service)?;
        let connection = connection.unwrap_or(&service.name);
        let hosts = self.host_databases().await?;
        let host_of = |service: &Service| {
            hosts.iter().find(|host| host.service.as_deref() == Some(&*service.name)).map(|host| host.physical.clone())
        };
        let rules = self.rules(service, host_of)?;
        let tenants = self.tenants_if_any().await?;
        let tenant = tenant.map(|name| crate::tenants::find(&tenants, name)).transpose()?;
        let mut notes = Vec::new();
        let strings = match tenant {
            Some(tenant) => self.strings_for(service, connection, tenant, &mut notes).await?,
            None => None,
        };
        let explained = rules.explain(connection, strings.as_ref()).map_err(|error| {
            let own = Error::new(ErrorKind::Configuration, error.to_string());
            own.hinted(self.mapping_hint(service, connection).unwrap_or_else(|| error.hint()))
        })?;
        let steps: Vec<ExplainedStep> = explained
            .steps
            .into_iter()
            .map(|step| ExplainedStep {
                rule: step.rule.word(),
                looked_for: step.looked_for,
                outcome: step.outcome.word(),
            })
            .collect();
        let physical = explained.place.physical;
        let mut also = Vec::new();
        if let Some(physical) = &physical {
            let won = steps.iter().find(|step| step.outcome == Outcome::Won.word()).map(|step| step.rule);
            let of_host = won.is_some_and(|rule| rule.starts_with("host"));
            for host in hosts.iter().filter(|host| !of_host && host.physical.is_same(physical)) {
                let connection = host.service.clone().unwrap_or_else(|| "the control database".to_owned());
                also.push(Visitor { tenant: None, connection });
            }
            for other in tenants.iter().filter(|other| Some(&other.name) != tenant.map(|tenant| &tenant.name)) {
                let same = other
                    .strings
                    .iter()
                    .filter(|string| string.physical.as_ref().is_some_and(|recorded| recorded.is_same(physical)));
                also.extend(
                    same.map(|string| Visitor {
                        tenant: Some(other.name.clone()),
                        connection: string.connection.clone(),
                    }),
                );
            }
        }
        if let Some(tenant) = tenant.filter(|tenant| tenant.state != TenantState::Active) {
            notes.push(format!("tenant {} is {}: services refuse it", tenant.name, tenant.state.word()));
        }
        Ok(Explained {
            service: service.name.clone(),
            tenant: tenant.map(|tenant| tenant.name.clone()),
            state: tenant.map(|tenant| tenant.state),
            connection: connection.to_owned(),
            steps,
            address: explained.place.address.to_string(),
            physical,
            also,
            notes,
        })
    }

    /// Makes the rules of a service.
    fn rules(&self, service: &Service, host_of: impl Fn(&Service) -> Option<Physical>) -> Result<Rules<Place>, Error> {
        let main = Place { address: self.address(service, Login::App)?, physical: host_of(service) };
        let mut rules = Rules::new(service.name.clone(), main);
        for mapped in mapped(&self.manifest, service) {
            rules = if mapped.holder.name == service.name {
                rules.own(mapped.name)
            } else {
                let address = self.guest_address(service, mapped.holder)?;
                let place = Place { address, physical: host_of(mapped.holder) };
                let holder = mapped.holder.name.clone();
                if has_tenants(mapped.holder) {
                    rules.other(mapped.name, holder, place)
                } else {
                    rules.other_of_host(mapped.name, holder, place)
                }
            };
        }
        Ok(rules)
    }

    /// Returns the strings of a tenant as a service reads them, for one connection name; none where
    /// tenants have no say.
    async fn strings_for(
        &self,
        service: &Service,
        connection: &str,
        tenant: &Tenant,
        notes: &mut Vec<String>,
    ) -> Result<Option<Strings<Place>>, Error> {
        let mapped = mapped(&self.manifest, service);
        let holder = mapped.iter().find(|mapped| mapped.name == connection).map_or(service, |mapped| mapped.holder);
        for asked in [service, holder] {
            if !has_tenants(asked) {
                notes.push(format!("service {} has no data in tenants' databases (tenants = \"none\")", asked.name));
                return Ok(None);
            }
        }
        let mut strings = Strings::default();
        let allowed = readable(&self.manifest, service);
        for (string, text) in self.open_strings(tenant).await? {
            if !allowed.contains(string.connection.as_str()) {
                continue;
            }
            let address = self.text_address(service, &string.server, &text, &tenant.name, Login::App)?;
            let place = Place { address, physical: string.physical.clone() };
            if string.connection.is_empty() {
                strings.default = Some(place);
            } else {
                strings.named.insert(string.connection.clone(), place);
            }
        }
        Ok(Some(strings))
    }

    /// Says what is missing when a name is mapped, but to a service that this one does not use.
    fn mapping_hint(&self, service: &Service, connection: &str) -> Option<String> {
        let holder = self.manifest.connections.get(connection)?;
        let module = self.manifest.modules.keys().find(|module| self.manifest.connection_of(module) == connection);
        let module = module.map_or("MODULE", String::as_str);
        Some(format!(
            "it is mapped to {holder}; declare that {} uses it: uses = [\"{holder}:{module}\"], with isolation = \
             \"declared\"",
            service.name
        ))
    }
}
