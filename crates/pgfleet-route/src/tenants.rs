//! The tenants that a service knows.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Error;
use crate::rules::Strings;

/// Tenants by name.
type ByName<P> = HashMap<Box<str>, Arc<Tenant<P>>>;

/// The tenants that a service knows, as they were last read.
#[derive(Debug)]
pub struct Tenants<P>(RwLock<Option<ByName<P>>>);

/// One tenant.
#[derive(Debug, Clone)]
pub struct Tenant<P> {
    /// Its state, a word of the closed list.
    pub state: String,
    /// Its strings; an error is kept in the place of one that cannot be read, and met by who needs it.
    pub strings: Result<Strings<P>, String>,
}

impl<P> Default for Tenants<P> {
    fn default() -> Self {
        Self(RwLock::new(None))
    }
}

impl<P> Tenants<P> {
    /// Returns whether they were ever read.
    pub fn are_known(&self) -> bool {
        self.read(|known| known.is_some())
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.read(|known| known.map_or(0, HashMap::len))
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces all of them.
    pub fn replace(&self, tenants: impl IntoIterator<Item = (String, Tenant<P>)>) {
        let new = tenants.into_iter().map(|(name, tenant)| (name.into_boxed_str(), Arc::new(tenant))).collect();
        // Dropped after the lock is free: it may hold pools.
        let _old = self.0.write().unwrap_or_else(PoisonError::into_inner).replace(new);
    }

    /// Returns one of them; none when it is not known.
    pub fn get(&self, name: &str) -> Option<Arc<Tenant<P>>> {
        self.read(|known| known?.get(name).cloned())
    }

    /// Returns the names of all of them, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.read(|known| known.map(|known| known.keys().map(ToString::to_string).collect())).unwrap_or_default();
        names.sort_unstable();
        names
    }

    /// Returns a tenant that may be served.
    ///
    /// # Errors
    ///
    /// One that does not exist, is disabled or still being made.
    pub fn serving(&self, name: &str) -> Result<Arc<Tenant<P>>, Error> {
        let tenant = self.get(name).ok_or_else(|| Error::UnknownTenant { tenant: name.to_owned() })?;
        match tenant.state.as_str() {
            "active" => Ok(tenant),
            "requested" | "creating" => Err(Error::TenantNotReady {
                tenant: name.to_owned(),
                have: tenant.state.clone(),
                need: "active".to_owned(),
            }),
            state => Err(Error::TenantDisabled { tenant: name.to_owned(), state: state.to_owned() }),
        }
    }

    fn read<T>(&self, look: impl FnOnce(Option<&ByName<P>>) -> T) -> T {
        look(self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref())
    }
}
