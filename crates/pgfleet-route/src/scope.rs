//! The current tenant and what the current request must be able to read.
//!
//! Both are ambient: they belong to the task that runs in [`Scope::run`], and to nothing outside of it. Scopes nest, and
//! the outer one is back when the inner one ends, however it ends. A task that is spawned starts without a scope: give
//! it the current one with [`Scope::current`].

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgfleet_postgres::lsn::{Token, TokenError};

tokio::task_local! {
    static CURRENT: Scope;
}

/// For whom the current task works.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use pgfleet_route::Scope;
///
/// Scope::tenant("acme").run(async {
///     assert_eq!(Scope::current().tenant_name(), Some("acme"));
///     Scope::host().run(async { assert_eq!(Scope::current().tenant_name(), None) }).await;
///     assert_eq!(Scope::current().tenant_name(), Some("acme"));
/// })
/// .await;
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Scope {
    tenant: Option<Arc<str>>,
    session: Option<Session>,
}

impl Scope {
    /// Makes the scope of the host, in the present session.
    pub fn host() -> Self {
        Self { tenant: None, session: Self::current().session }
    }

    /// Makes the scope of a tenant, in the present session.
    pub fn tenant(name: impl Into<Arc<str>>) -> Self {
        Self { tenant: Some(name.into()), session: Self::current().session }
    }

    /// Returns the scope of the current task; outside of any, the host without a session.
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_default()
    }

    /// Returns the same scope in this session.
    #[must_use]
    pub fn with_session(mut self, session: Session) -> Self {
        self.session = Some(session);
        self
    }

    /// Returns the tenant's name; none for the host.
    pub fn tenant_name(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Returns the session.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Runs something in this scope. Cancel safe if that is.
    pub async fn run<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Runs something in this scope that does not wait.
    pub fn run_sync<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }

    /// Calls a function with the current tenant's name, without a copy of it.
    pub(crate) fn with_tenant<T>(work: impl FnOnce(Option<&str>) -> T) -> T {
        // The function must be called once in either case.
        let mut work = Some(work);
        let mut call = |tenant: Option<&str>| work.take().map(|work| work(tenant));
        let inside = CURRENT.try_with(|scope| call(scope.tenant.as_deref()));
        inside.ok().flatten().or_else(|| call(None)).unwrap_or_else(|| unreachable!("it is called once"))
    }

    /// Returns the session of the current task.
    pub(crate) fn current_session() -> Option<Session> {
        CURRENT.try_with(|scope| scope.session.clone()).ok().flatten()
    }
}

/// What one caller has written, and so must be able to read.
///
/// A session holds one [`Token`] per cluster. Writes through the router add theirs, reads through the router wait for
/// them or go to the primary. Its text travels in a header or a message; the callee makes a session of it.
#[derive(Debug, Clone, Default)]
pub struct Session(Arc<Mutex<Vec<Token>>>);

impl Session {
    /// Makes a session in which nothing was written.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads tokens that another process wrote, separated by commas.
    ///
    /// # Errors
    ///
    /// A text that is no list of tokens. What it says is only ever compared: the worst that a made-up one does is to
    /// have reads go to the primary.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let session = Self::new();
        for token in text.split(',').map(str::trim).filter(|token| !token.is_empty()).take(64) {
            session.add(token.parse()?);
        }
        Ok(session)
    }

    /// Notes that something was written.
    pub fn add(&self, token: Token) {
        let mut tokens = self.tokens();
        match tokens.iter_mut().find(|known| known.system == token.system) {
            Some(known) => *known = token.later(*known),
            None => tokens.push(token),
        }
    }

    /// Returns what must have been seen of a cluster.
    pub fn token(&self, system: u64) -> Option<Token> {
        self.tokens().iter().copied().find(|token| token.system == system)
    }

    /// Returns whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.tokens().is_empty()
    }

    fn tokens(&self) -> MutexGuard<'_, Vec<Token>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, token) in self.tokens().iter().enumerate() {
            write!(f, "{}{token}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn scopes_nest_and_end_with_what_ran_in_them() {
        let name = || Scope::current().tenant_name().map(str::to_owned);
        assert_eq!(name(), None);
        Scope::tenant("a")
            .run(async {
                let inner = Scope::tenant("b").run(async {
                    assert_eq!(name().as_deref(), Some("b"));
                    tokio::task::yield_now().await;
                    panic!("as a handler may");
                });
                let inner = std::panic::AssertUnwindSafe(inner);
                assert!(futures_util::FutureExt::catch_unwind(inner).await.is_err());
                assert_eq!(name().as_deref(), Some("a"));
                Scope::host().run(async { assert_eq!(name(), None) }).await;
                // A spawned task is nobody's until it is told.
                assert_eq!(tokio::spawn(async move { name() }).await.unwrap(), None);
                let scope = Scope::current();
                let told = tokio::spawn(scope.run(async { Scope::current().tenant_name().map(str::to_owned) }));
                assert_eq!(told.await.unwrap().as_deref(), Some("a"));
            })
            .await;
        assert_eq!(name(), None);
    }

    #[test]
    fn a_session_keeps_the_latest_token_of_each_cluster() {
        let session = Session::parse("6c1f3a2b9d8e7f60-1-0/10, 0000000000000001-1-0/5").unwrap();
        session.add("6c1f3a2b9d8e7f60-1-0/8".parse().unwrap());
        session.add("0000000000000001-2-0/1".parse().unwrap());
        assert_eq!(session.to_string(), "6c1f3a2b9d8e7f60-1-0/10,0000000000000001-2-0/1");
        assert!(Session::parse("nonsense").is_err());
        assert!(Session::parse("").unwrap().is_empty());
    }
}
