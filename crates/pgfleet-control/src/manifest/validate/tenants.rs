//! What must fit for tenants: where their databases are, and who is side by side in them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::diagnostic::Diagnostic;
use super::super::layers::Layers;
use super::super::model::{Manifest, Placement, Service, TenantDatabases, TenantUse};
use super::super::name::{did_you_mean, dotted};
use super::Check;
use crate::tenants::name_mistake;

const SERVERS: [&str; 2] = ["tenants", "servers"];
const PINNED: [&str; 2] = ["tenants", "server"];

impl Check<'_> {
    pub(super) fn tenants(&mut self) {
        self.tenant_schemas();
        // What nobody set follows from the services, whose servers are checked there.
        if self.is_set(&SERVERS) {
            self.tenant_servers();
        }
        self.placement();
        let path = ["tenants", "canary"];
        let manifest = self.manifest;
        for name in &manifest.tenants.canary {
            if let Some(mistake) = name_mistake(name) {
                self.error(&path, format!("the name of tenant `{}` {mistake}", name.escape_debug()));
            }
        }
        if let Some(name) = repeated(&manifest.tenants.canary) {
            self.error(&path, format!("`canary` names `{name}` twice"));
        }
    }

    fn tenant_servers(&mut self) {
        let manifest = self.manifest;
        for name in &manifest.tenants.servers {
            if !manifest.servers.contains_key(name) {
                let hint = did_you_mean(name, manifest.servers.keys().map(String::as_str))
                    .unwrap_or_else(|| format!("declare [servers.{name}]"));
                self.error_hinted(&SERVERS, format!("there is no server `{}`", name.escape_debug()), Some(hint));
            }
        }
        if let Some(name) = repeated(&manifest.tenants.servers) {
            self.error(&SERVERS, format!("`servers` names `{name}` twice"));
        }
    }

    fn placement(&mut self) {
        let manifest = self.manifest;
        let tenants = &manifest.tenants;
        let path = ["tenants", "placement"];
        let one_of = || match &tenants.servers[..] {
            [] => "add it to `servers`".to_owned(),
            servers => format!("add it to `servers`, or name one of them: {}", servers.join(", ")),
        };
        let none = || {
            format!(
                "there is no server that holds tenants' databases, and `placement` is \"{}\"",
                tenants.placement.as_str()
            )
        };
        match tenants.placement {
            Placement::Pinned if tenants.servers.is_empty() => {
                self.error_hinted(&path, none(), Some("say tenants = \"own\" in the section of a service".into()));
            }
            Placement::Pinned => match &tenants.pinned {
                None => {
                    let hint = format!("add `server = \"…\"`, one of: {}", tenants.servers.join(", "));
                    self.error_hinted(&path, "`placement` is \"pinned\", and `server` does not say where", Some(hint));
                }
                Some(server) => self.holds_tenants(&PINNED, server, one_of()),
            },
            _ => {}
        }
        for server in tenants.weights.keys() {
            self.holds_tenants(&["tenants", "weights", server], server, one_of());
        }
        let weight = |server| tenants.weights.get(server).copied().unwrap_or(1);
        if tenants.placement == Placement::Weighted
            && !tenants.servers.is_empty()
            && tenants.servers.iter().all(|server| weight(server) == 0)
        {
            let hint = "give one that takes new tenants a weight of 1".to_owned();
            self.error_hinted(&path, "`placement` is \"weighted\", and every server's weight is 0", Some(hint));
        }
    }

    fn holds_tenants(&mut self, path: &[&str], server: &str, one_of: String) {
        let manifest = self.manifest;
        if manifest.holds_tenants(server) {
            return;
        }
        let message = if manifest.servers.contains_key(server) {
            format!("server `{server}` holds no tenants' databases: it is not in `servers` of [tenants]")
        } else {
            format!("there is no server `{}`", server.escape_debug())
        };
        self.error_hinted(path, message, Some(one_of));
    }

    /// With one database per tenant the services are side by side there, each in its own schema.
    fn tenant_schemas(&mut self) {
        let manifest = self.manifest;
        if manifest.tenants.databases != TenantDatabases::One {
            return;
        }
        let mut taken: BTreeMap<&str, &Service> = BTreeMap::new();
        for service in manifest.services.iter().filter(|service| service.tenants == TenantUse::Own) {
            let Some(first) = taken.insert(&service.schema, service) else { continue };
            let message = format!(
                "services `{}` and `{}` both keep tenants' data in schema `{}`, and a tenant has one database for both",
                first.name, service.name, service.schema
            );
            let at = ["services", service.name.as_str(), "schema"];
            let at = if self.is_set(&at) { at } else { ["services", service.name.as_str(), "tenants"] };
            let hint = "give each a schema of its own: schema = \"…\", or say databases = \"per-service\" in [tenants]";
            self.error_hinted(&at, message, Some(hint.into()));
        }
    }
}

fn repeated(names: &[String]) -> Option<&String> {
    let mut seen = BTreeSet::new();
    names.iter().find(|name| !seen.insert(*name))
}

/// Returns notes about what was set for a placement that is another one.
pub(super) fn without_effect(layers: &Layers, manifest: &Manifest) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    let set = |path: &[&str]| layers.get(path).is_some_and(|entry| !entry.setter.is_default());
    let mut note = |path: &[&str], without: &str| {
        if set(path) {
            notes.push(layers.about(path, format!("`{}` has no effect without {without}", dotted(path))));
        }
    };
    let tenants = &manifest.tenants;
    if !manifest.services.iter().any(|service| service.tenants == TenantUse::Own) {
        note(&SERVERS, "a service that has data in tenants' databases");
    }
    if tenants.placement != Placement::Pinned {
        note(&PINNED, "`placement = \"pinned\"`");
    }
    if tenants.placement != Placement::Weighted {
        for server in tenants.weights.keys() {
            note(&["tenants", "weights", server], "`placement = \"weighted\"`");
        }
    }
    notes
}
