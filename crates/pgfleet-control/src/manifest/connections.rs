//! Where the connection names of modules lead, seen from one service.

use super::model::{Manifest, Module, Service, Uses};

/// Where a connection name leads.
#[derive(Clone, Copy, Debug)]
pub enum Leads<'a> {
    /// To the service's own database.
    Own,
    /// To the database of another service, whose module it uses.
    To(&'a Service),
}

impl Manifest {
    /// Returns the connection name of a module: its `connection`, else its own name.
    pub fn connection_of<'a>(&'a self, module: &'a str) -> &'a str {
        self.modules.get(module).and_then(|module| module.connection.as_deref()).unwrap_or(module)
    }

    /// Returns the connection names that mean something to a service, sorted, and where each leads.
    ///
    /// `[connections]` decides. A mapping to another service's database counts only for services that
    /// declare the use of one of its modules under that name. Without a mapping the modules in the
    /// service's own database have their names, and so do those that it uses elsewhere.
    pub fn connections_of<'a>(&'a self, service: &'a Service) -> Vec<(&'a str, Leads<'a>)> {
        let mapped = self.connections.keys().map(String::as_str);
        // A module that pgfleet brings itself has a name only when it is given one.
        let named = |module: &Module| module.builtin.is_none() || module.connection.is_some();
        let own = service.modules.iter().filter(|module| self.modules.get(*module).is_some_and(named));
        let modules = own.chain(self.used(service).map(|uses| &uses.module));
        let mut names: Vec<&str> = mapped.chain(modules.map(|module| self.connection_of(module))).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|name| Some((name, self.leads(service, name)?))).collect()
    }

    /// What a service uses of others; the bus is reached by its own variable.
    fn used<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Uses> {
        service.uses.iter().filter(|uses| self.bus().is_none_or(|bus| bus.name != uses.service))
    }

    fn leads<'a>(&'a self, service: &'a Service, name: &str) -> Option<Leads<'a>> {
        let owns = || service.modules.iter().any(|module| self.connection_of(module) == name);
        let mut used = self.used(service).filter(|uses| self.connection_of(&uses.module) == name);
        let target = self.connections.get(name);
        match target {
            Some(target) if *target == service.name => Some(Leads::Own),
            Some(target) if used.any(|uses| uses.service == *target) => self.service(target).map(Leads::To),
            _ if owns() => Some(Leads::Own),
            Some(_) => None,
            None => used.next().and_then(|uses| self.service(&uses.service)).map(Leads::To),
        }
    }
}
