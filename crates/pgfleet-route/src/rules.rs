//! Which connection string is taken for a connection name and a tenant.
//!
//! The order, the first that is there wins:
//!
//! 1. the tenant's string for the name itself (a module may have one of its own);
//! 2. the tenant's string for the service whose database holds the name;
//! 3. the tenant's default string, where all its services' tables live together;
//! 4. the database that the name is mapped to: this service's own, or another service's whose module it uses.
//!
//! Without a tenant only the last is left: the host.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// The connection names of one service; `P` is what a string leads to: an address, a pool.
#[derive(Debug, Clone)]
pub struct Rules<P> {
    service: String,
    main: P,
    own: BTreeSet<String>,
    others: BTreeMap<String, Other<P>>,
}

/// A name that is mapped to another service's database.
#[derive(Debug, Clone)]
struct Other<P> {
    service: String,
    place: P,
    /// Whether that service has data in tenants' databases.
    has_tenants: bool,
}

/// The strings of one tenant, as far as a service may know them.
#[derive(Debug, Clone)]
pub struct Strings<P> {
    /// The string for all that has none of its own.
    pub default: Option<P>,
    /// The strings by service or connection name.
    pub named: HashMap<String, P>,
}

impl<P> Default for Strings<P> {
    fn default() -> Self {
        Self { default: None, named: HashMap::new() }
    }
}

/// One rule of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The tenant's string for the connection name.
    TenantName,
    /// The tenant's string for the service that holds the name.
    TenantService,
    /// The tenant's default string.
    TenantDefault,
    /// The database of the other service that the name is mapped to.
    HostMapped,
    /// The service's own main database.
    HostMain,
}

impl Rule {
    /// Returns the rule's name as data: `tenant-service`.
    pub fn word(self) -> &'static str {
        match self {
            Self::TenantName => "tenant-name",
            Self::TenantService => "tenant-service",
            Self::TenantDefault => "tenant-default",
            Self::HostMapped => "host-mapped",
            Self::HostMain => "host-main",
        }
    }
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution<'a, P> {
    /// The rule that won.
    pub rule: Rule,
    /// Where it leads.
    pub place: &'a P,
}

/// Everything that was looked at, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<P> {
    /// The connection name that was asked for.
    pub name: String,
    /// The rules, each with what came of it.
    pub steps: Vec<Step>,
    /// Where it leads.
    pub place: P,
}

/// One rule of an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The rule.
    pub rule: Rule,
    /// What it looked for: `the tenant's string for trip`.
    pub looked_for: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There is no such string.
    Missing,
    /// It decides.
    Won,
    /// A rule before it decided.
    NotNeeded,
}

impl Outcome {
    /// Returns the outcome as data: `not-needed`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Won => "won",
            Self::NotNeeded => "not-needed",
        }
    }
}

/// A connection name that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    name: String,
    service: String,
    known: Vec<String>,
}

impl RuleError {
    /// Returns the names that the service has.
    pub fn known(&self) -> &[String] {
        &self.known
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> String {
        format!("map it: {} = \"{}\" in [connections] of the manifest", self.name, self.service)
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.join(", ");
        write!(f, "service {} has no connection named {} (it has {known})", self.service, self.name)
    }
}

impl std::error::Error for RuleError {}

impl<P> Rules<P> {
    /// Makes the rules of a service that has its own main database only.
    pub fn new(service: impl Into<String>, main: P) -> Self {
        Self { service: service.into(), main, own: BTreeSet::new(), others: BTreeMap::new() }
    }

    /// Maps a connection name to the service's own database.
    #[must_use]
    pub fn own(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.others.remove(&name);
        self.own.insert(name);
        self
    }

    /// Maps a connection name to another service's database, where this service may go.
    #[must_use]
    pub fn other(mut self, name: impl Into<String>, service: impl Into<String>, place: P) -> Self {
        let name = name.into();
        self.own.remove(&name);
        self.others.insert(name, Other { service: service.into(), place, has_tenants: true });
        self
    }

    /// Maps a connection name likewise, to a service that has no data in tenants' databases: the name leads to its one
    /// database for every tenant.
    #[must_use]
    pub fn other_of_host(mut self, name: impl Into<String>, service: impl Into<String>, place: P) -> Self {
        let name = name.into();
        self.own.remove(&name);
        self.others.insert(name, Other { service: service.into(), place, has_tenants: false });
        self
    }

    /// Returns the service's name, which is the name of its main connection.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Returns the service's main database.
    pub fn main(&self) -> &P {
        &self.main
    }

    /// Returns all connection names, the service's own first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mapped = self.own.iter().chain(self.others.keys()).map(String::as_str);
        std::iter::once(self.service.as_str()).chain(mapped.filter(|name| *name != self.service))
    }

    /// Decides where a connection name leads, for a tenant's strings or, without, for the host.
    ///
    /// # Errors
    ///
    /// A name that the service does not have.
    pub fn resolve<'a>(&'a self, name: &str, tenant: Option<&'a Strings<P>>) -> Result<Resolution<'a, P>, RuleError> {
        let held = self.held(name)?;
        self.rules(name, held)
            .find_map(|rule| self.look(rule, name, held, tenant).map(|place| Resolution { rule, place }))
            .ok_or_else(|| self.unknown(name))
    }

    /// Decides likewise and says what was looked at.
    ///
    /// # Errors
    ///
    /// As [`Rules::resolve`].
    pub fn explain(&self, name: &str, tenant: Option<&Strings<P>>) -> Result<Explanation<P>, RuleError>
    where
        P: Clone,
    {
        let held = self.held(name)?;
        let mut place = None;
        let mut steps = Vec::new();
        for rule in self.rules(name, held) {
            let is_of_tenant = matches!(rule, Rule::TenantName | Rule::TenantService | Rule::TenantDefault);
            if is_of_tenant && tenant.is_none() {
                continue;
            }
            let outcome = match (&place, self.look(rule, name, held, tenant)) {
                (Some(_), _) => Outcome::NotNeeded,
                (None, Some(found)) => {
                    place = Some(found.clone());
                    Outcome::Won
                }
                (None, None) => Outcome::Missing,
            };
            let service = held.map_or(self.service.as_str(), |other| other.service.as_str());
            let looked_for = match rule {
                Rule::TenantName => format!("the tenant's string for {name}"),
                Rule::TenantService => format!("the tenant's string for {service}"),
                Rule::TenantDefault => "the tenant's default string".to_owned(),
                Rule::HostMapped => format!("the database of {service}, to which {name} is mapped"),
                Rule::HostMain if name == self.service => format!("the main database of {service}"),
                Rule::HostMain => format!("the main database of {service}, to which {name} is mapped"),
            };
            steps.push(Step { rule, looked_for, outcome });
        }
        let place = place.ok_or_else(|| self.unknown(name))?;
        Ok(Explanation { name: name.to_owned(), steps, place })
    }

    /// Finds who holds a name: none for the service itself.
    fn held(&self, name: &str) -> Result<Option<&Other<P>>, RuleError> {
        if name == self.service || self.own.contains(name) {
            return Ok(None);
        }
        self.others.get(name).map(Some).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> RuleError {
        RuleError {
            name: name.to_owned(),
            service: self.service.clone(),
            known: self.names().map(str::to_owned).collect(),
        }
    }

    /// The rules for a name, in order.
    fn rules(&self, name: &str, held: Option<&Other<P>>) -> impl Iterator<Item = Rule> + use<P> {
        let of_tenants = held.is_none_or(|other| other.has_tenants);
        let by_name = (of_tenants && name != self.service).then_some(Rule::TenantName);
        let more = if of_tenants { &[Rule::TenantService, Rule::TenantDefault][..] } else { &[] };
        let last = if held.is_some() { Rule::HostMapped } else { Rule::HostMain };
        by_name.into_iter().chain(more.iter().copied()).chain([last])
    }

    fn look<'a>(
        &'a self,
        rule: Rule,
        name: &str,
        held: Option<&'a Other<P>>,
        tenant: Option<&'a Strings<P>>,
    ) -> Option<&'a P> {
        match rule {
            Rule::TenantName => tenant?.named.get(name),
            Rule::TenantService => tenant?.named.get(held.map_or(self.service.as_str(), |other| &other.service)),
            Rule::TenantDefault => tenant?.default.as_ref(),
            Rule::HostMapped => held.map(|other| &other.place),
            Rule::HostMain => Some(&self.main),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(default: Option<&'static str>, named: &[(&str, &'static str)]) -> Strings<&'static str> {
        Strings { default, named: named.iter().map(|(name, place)| ((*name).to_owned(), *place)).collect() }
    }

    fn product() -> Rules<&'static str> {
        Rules::new("product", "product db")
            .own("Catalog")
            .other("Permission", "administration", "administration db")
            .other_of_host("Language", "language", "language db")
    }

    #[test]
    fn the_nearest_string_of_the_tenant_wins() {
        let rules = product();
        let all = strings(Some("acme"), &[("Catalog", "c"), ("product", "p"), ("administration", "a")]);
        for (name, tenant, place, rule) in [
            ("Catalog", Some(&all), "c", Rule::TenantName),
            ("product", Some(&all), "p", Rule::TenantService),
            ("Permission", Some(&all), "a", Rule::TenantService),
            ("Catalog", Some(&strings(Some("acme"), &[("product", "p")])), "p", Rule::TenantService),
            ("Catalog", Some(&strings(Some("acme"), &[("administration", "a")])), "acme", Rule::TenantDefault),
            ("Permission", Some(&strings(Some("acme"), &[("product", "p")])), "acme", Rule::TenantDefault),
            ("Permission", Some(&strings(None, &[])), "administration db", Rule::HostMapped),
            ("Language", Some(&all), "language db", Rule::HostMapped),
            ("Catalog", Some(&strings(None, &[])), "product db", Rule::HostMain),
            ("product", None, "product db", Rule::HostMain),
        ] {
            let found = rules.resolve(name, tenant).unwrap();
            assert_eq!((*found.place, found.rule), (place, rule), "{name}");
        }
    }

    #[test]
    fn an_explanation_agrees_with_the_decision() {
        let rules = product();
        let tenants = [
            None,
            Some(strings(None, &[])),
            Some(strings(Some("d"), &[])),
            Some(strings(Some("d"), &[("product", "p"), ("administration", "a"), ("Permission", "q")])),
        ];
        for tenant in &tenants {
            for name in rules.names() {
                let explained = rules.explain(name, tenant.as_ref()).unwrap();
                let resolved = rules.resolve(name, tenant.as_ref()).unwrap();
                assert_eq!(explained.place, *resolved.place);
                let won: Vec<_> = explained.steps.iter().filter(|step| step.outcome == Outcome::Won).collect();
                assert_eq!(won.len(), 1);
                assert_eq!(won[0].rule, resolved.rule);
            }
        }
    }

    #[test]
    fn a_name_that_is_not_there_says_which_are() {
        let error = product().resolve("Premission", None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "service product has no connection named Premission (it has product, Catalog, Language, Permission)"
        );
    }
}
