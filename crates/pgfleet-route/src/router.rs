//! Hands out connections: for whom the current task works, to write or to read.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pgfleet_postgres::pool::{Budget, Pool, PoolOptions, TransactionOptions};
use pgfleet_postgres::{Address, Purpose};
use secrecy::ExposeSecret as _;

use crate::directory::{Directory, DirectoryOptions, Record};
use crate::error::Error;
use crate::place::{Endpoints, Making, Place, Ready};
use crate::reader::Reader;
use crate::replica::{Replica, ReplicaOptions, ReplicaStatus, look_at_all};
use crate::rules::{Explanation, Rule, Rules, Strings};
use crate::scope::Scope;
use crate::tenants::{Tenant, Tenants};
use crate::writer::{Tx, Writer};

/// What a process may hold on a server before it knows what the server allows.
const UNKNOWN_BUDGET: usize = 20;

/// How soon after one look at the control database an unknown tenant has it looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// For how long after the last reader replicas are looked at.
const READERS_GONE: Duration = Duration::from_secs(30);

/// What a router is made of.
#[derive(Clone)]
pub struct Options {
    /// The service's name, which is that of its main connection.
    pub service: String,
    /// The service's main database.
    pub main: Endpoints,
    /// Connection names that are mapped to it.
    pub own: Vec<String>,
    /// Connection names that are mapped to another service's database.
    pub others: Vec<Other>,
    /// What connections are for: their `application_name` and settings.
    pub purpose: Purpose,
    /// How the pools of the service's own databases behave.
    pub pool: PoolOptions,
    /// How the pools of tenants' databases behave.
    pub tenant_pool: PoolOptions,
    /// The connections of this process per server; none for what each server allows, looked up on the first connection.
    pub budget: Option<usize>,
    /// When replicas are read.
    pub replicas: ReplicaOptions,
    /// Says whether a tenant's database has what the service needs; none for always.
    pub ready: Option<Arc<dyn Ready>>,
    /// Where the tenants are read; none for a service whose tenants have no databases of their own.
    pub directory: Option<DirectoryOptions>,
}

/// A connection name that is mapped to another service's database.
#[derive(Debug, Clone)]
pub struct Other {
    /// The name.
    pub name: String,
    /// The service whose database it is.
    pub service: String,
    /// Where that is.
    pub endpoints: Endpoints,
    /// Whether that service has data in tenants' databases.
    pub has_tenants: bool,
}

impl Options {
    /// Makes the options of a service with one database and the defaults for all else.
    pub fn new(service: impl Into<String>, main: impl Into<Endpoints>) -> Self {
        let service = service.into();
        Self {
            purpose: Purpose::new(&service),
            service,
            main: main.into(),
            own: Vec::new(),
            others: Vec::new(),
            pool: PoolOptions::default(),
            tenant_pool: PoolOptions::for_tenants(),
            budget: None,
            replicas: ReplicaOptions::default(),
            ready: None,
            directory: None,
        }
    }
}

/// Hands out connections for whom the current task works; cheap to clone.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    rules: Rules<Arc<Place>>,
    tenants: Tenants<Arc<Place>>,
    directory: Option<Directory>,
    /// Held from reading the tenants until they are known: who finds that nothing changed knows what was read.
    refreshing: tokio::sync::Mutex<()>,
    /// When the control database was last asked, and what went wrong then.
    asked: tokio::sync::Mutex<Option<Instant>>,
    servers: Servers,
    main: Endpoints,
    options: Options,
    /// Replicas of the main server.
    replicas: Vec<Arc<Replica>>,
    next: AtomicUsize,
    watching: AtomicBool,
    last_reader: Mutex<Instant>,
    /// Places by their connection string, so that a string that did not change keeps its pools.
    places: Mutex<HashMap<u64, Weak<Place>>>,
    hasher: RandomState,
}

/// The budgets of servers, by their addresses.
struct Servers {
    budgets: Mutex<HashMap<String, (Budget, Arc<AtomicBool>)>>,
    fixed: Option<usize>,
}

impl Servers {
    /// Returns the budget of a server, and whether its limit is known.
    fn budget(&self, address: &Address) -> (Budget, Arc<AtomicBool>) {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let name = address.server();
        let new = || {
            let limit = self.fixed.unwrap_or(UNKNOWN_BUDGET);
            (Budget::new(&name, limit), Arc::new(AtomicBool::new(self.fixed.is_some())))
        };
        budgets.entry(name.clone()).or_insert_with(new).clone()
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("service", &self.0.rules.service()).finish_non_exhaustive()
    }
}

impl Router {
    /// Makes a router; connects to nothing yet.
    pub fn new(options: Options) -> Self {
        let servers = Servers { budgets: Mutex::default(), fixed: options.budget };
        let replicas: Vec<Arc<Replica>> = options
            .main
            .readers
            .iter()
            .map(|address| {
                let (budget, _) = servers.budget(address);
                let look = PoolOptions { max: 2, min: 0, ..options.pool.clone() };
                let pool = Pool::new(&budget, address.clone(), Purpose::new("pgfleet replicas"), look);
                Arc::new(Replica::new(budget, pool))
            })
            .collect();
        let make = |endpoints: &Endpoints| {
            let (budget, _) = servers.budget(&endpoints.writer);
            let making = Making { purpose: options.purpose.clone(), options: options.pool.clone(), budget };
            let readers = readers_of(&endpoints.writer, &options.main, &replicas);
            Arc::new(Place::new(writer_of(&endpoints.writer, &endpoints.readers), readers, making))
        };
        let mut rules = Rules::new(&options.service, make(&options.main));
        for name in &options.own {
            rules = rules.own(name);
        }
        for other in &options.others {
            let place = make(&other.endpoints);
            rules = if other.has_tenants {
                rules.other(&other.name, &other.service, place)
            } else {
                rules.other_of_host(&other.name, &other.service, place)
            };
        }
        let directory = options.directory.clone().map(Directory::new);
        let router = Self(Arc::new(Inner {
            rules,
            tenants: Tenants::default(),
            directory,
            refreshing: tokio::sync::Mutex::new(()),
            asked: tokio::sync::Mutex::new(None),
            servers,
            main: options.main.clone(),
            options,
            replicas,
            next: AtomicUsize::new(0),
            watching: AtomicBool::new(false),
            last_reader: Mutex::new(Instant::now()),
            places: Mutex::default(),
            hasher: RandomState::new(),
        }));
        router.follow_directory();
        router
    }

    /// Returns the service's name.
    pub fn service(&self) -> &str {
        self.0.rules.service()
    }

    /// Returns the connection names of the service, its own first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.rules.names()
    }

    /// Returns the tenants as they were last read.
    pub fn tenants(&self) -> &Tenants<Arc<Place>> {
        &self.0.tenants
    }

    /// Decides where a connection name leads for whom the current task works; asks nobody. None is the service's own
    /// name.
    ///
    /// # Errors
    ///
    /// An unknown name; an unknown, disabled or unfinished tenant.
    pub fn resolve(&self, name: Option<&str>) -> Result<Arc<Place>, Error> {
        let name = name.unwrap_or_else(|| self.service());
        self.with_strings(|strings| Ok(self.0.rules.resolve(name, strings)?.place.clone()))
    }

    /// Lists the databases in which the service has its tenants' data beside its own, each once, with the first by name of
    /// the tenants who are there; as far as tenants are known, and without those that may not be served.
    pub fn elsewhere(&self) -> Vec<(Arc<str>, Arc<Place>)> {
        let main = self.0.rules.main();
        let mut places: Vec<(Arc<str>, Arc<Place>)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for tenant in self.0.tenants.names() {
            let tenant: Arc<str> = tenant.into();
            let Ok(place) = Scope::tenant(tenant.clone()).run_sync(|| self.resolve(None)) else { continue };
            if !Arc::ptr_eq(&place, main) && seen.insert(place.address().to_string()) {
                places.push((tenant, place));
            }
        }
        places
    }

    /// Says likewise which rules were looked at and which one won.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn explain(&self, name: Option<&str>) -> Result<Explanation<Arc<Place>>, Error> {
        let name = name.unwrap_or_else(|| self.service());
        self.with_strings(|strings| Ok(self.0.rules.explain(name, strings)?))
    }

    /// Calls a function with the strings of the current tenant; with none for the host, and where tenants have no
    /// databases of their own.
    fn with_strings<T>(
        &self,
        decide: impl FnOnce(Option<&Strings<Arc<Place>>>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        Scope::with_tenant(|tenant| match tenant {
            Some(tenant) if self.0.directory.is_some() => {
                let known = self.0.tenants.serving(tenant)?;
                let strings = known
                    .strings
                    .as_ref()
                    .map_err(|reason| Error::TenantString { tenant: tenant.to_owned(), reason: reason.clone() })?;
                decide(Some(strings))
            }
            _ => decide(None),
        })
    }

    /// Decides likewise; asks for a tenant that is not known, and looks whether the tenant's database has what the
    /// service needs.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve), and [`Error::TenantNotReady`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn place(&self, name: Option<&str>) -> Result<Arc<Place>, Error> {
        let place = match self.resolve(name) {
            // It may have been made a moment ago, or never been asked for.
            Err(Error::UnknownTenant { tenant }) => {
                Box::pin(self.ask_again(&tenant)).await?;
                self.resolve(name)?
            }
            other => other?,
        };
        if let (Some(ready), true) = (&self.0.options.ready, self.0.directory.is_some()) {
            let scope = Scope::current();
            if let Some(tenant) = scope.tenant_name()
                && !Arc::ptr_eq(&place, self.0.rules.main())
            {
                Box::pin(place.until_ready(tenant, &**ready)).await?;
            }
        }
        Ok(place)
    }

    /// Takes a connection that writes. None is the service's own name.
    ///
    /// # Errors
    ///
    /// As [`place`](Self::place), and what the pool fails with.
    ///
    /// # Cancel safety
    ///
    /// As [`Pool::get`].
    #[track_caller]
    pub fn writer<'a>(&'a self, name: Option<&'a str>) -> impl Future<Output = Result<Writer, Error>> + Send + use<'a> {
        let at = Location::caller();
        async move {
            let place = self.place(name).await?;
            let db = place.pool().get_for(at).await?;
            Box::pin(self.learn(&place, &db)).await;
            let session = if place.has_replicas() { Scope::current_session() } else { None };
            Ok(Writer::new(db, place, session))
        }
    }

    /// Takes a connection that writes and begins a transaction. None is the service's own name.
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer).
    #[track_caller]
    pub fn begin<'a>(
        &'a self,
        name: Option<&'a str>,
        options: TransactionOptions,
    ) -> impl Future<Output = Result<Tx, Error>> + Send + use<'a> {
        let writer = self.writer(name);
        async move { Ok(writer.await?.begin(options).await?) }
    }

    /// Takes a connection that reads. None is the service's own name.
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer).
    #[track_caller]
    pub fn reader<'a>(&'a self, name: Option<&'a str>) -> impl Future<Output = Result<Reader, Error>> + Send + use<'a> {
        let at = Location::caller();
        async move {
            let place = self.place(name).await?;
            let options = self.0.options.replicas.clone();
            if place.has_replicas() {
                self.watch_replicas().await;
                let session = Scope::current_session();
                for _ in 0..place.readers.len() {
                    let turn = self.0.next.fetch_add(1, Ordering::Relaxed) % place.readers.len();
                    let replica = place.readers[turn].0.clone();
                    let Some((system, timeline)) = replica.serving() else { continue };
                    let pending = session.as_ref().and_then(|session| session.token(system));
                    // It has not followed the primary to where the caller wrote.
                    if pending.is_some_and(|token| token.timeline > timeline) {
                        continue;
                    }
                    match place.replica_pool(turn).get_for(at).await {
                        Ok(db) => return Ok(Reader::on_replica(db, place, replica, pending, options)),
                        Err(error) => replica.ban(error.to_string()),
                    }
                }
            }
            let db = place.reading_pool().get_for(at).await?;
            Ok(Reader::on_primary(db, place, options))
        }
    }

    /// Returns how the replicas of the main server are.
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        self.0.replicas.iter().map(|replica| replica.status()).collect()
    }

    /// Returns the budgets of all servers that were connected to.
    pub fn budgets(&self) -> Vec<Budget> {
        let budgets = self.0.servers.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.values().map(|(budget, _)| budget.clone()).collect()
    }

    /// Reads the tenants now, if something changed.
    ///
    /// # Errors
    ///
    /// A control database that is not reached; what was known stays.
    pub async fn refresh(&self) -> Result<(), Error> {
        let Some(directory) = &self.0.directory else { return Ok(()) };
        let _one = self.0.refreshing.lock().await;
        match directory.changed().await {
            Ok(None) => Ok(()),
            Ok(Some(records)) => {
                let mut tenants = Vec::with_capacity(records.len());
                for (at, (name, record)) in records.into_iter().enumerate() {
                    tenants.push((name, self.tenant(record)));
                    // Thousands are read in one go; others want to run, too.
                    if at % 256 == 255 {
                        tokio::task::yield_now().await;
                    }
                }
                self.0.tenants.replace(tenants);
                Ok(())
            }
            Err(source) => Err(Error::TenantsUnknown { source }),
        }
    }

    /// Makes places of a tenant's strings.
    fn tenant(&self, record: Record) -> Tenant<Arc<Place>> {
        let mut strings = Strings::default();
        for (name, string) in record.strings {
            let place = string.and_then(|string| {
                self.0.main.writer.by_way_of(string.expose_secret()).map_err(|error| error.to_string())
            });
            match place {
                Ok(address) if name.is_empty() => strings.default = Some(self.shared_place(&address)),
                Ok(address) => {
                    strings.named.insert(name, self.shared_place(&address));
                }
                Err(reason) => return Tenant { state: record.state, strings: Err(reason) },
            }
        }
        Tenant { state: record.state, strings: Ok(strings) }
    }

    /// Returns the place of a connection string, the same one as before when it is known.
    fn shared_place(&self, address: &Address) -> Arc<Place> {
        let key = self.0.hasher.hash_one(address.expose_pairs().expose_secret());
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(&key).and_then(Weak::upgrade) {
            return place;
        }
        let (budget, _) = self.0.servers.budget(address);
        let options = &self.0.options;
        let making = Making { purpose: options.purpose.clone(), options: options.tenant_pool.clone(), budget };
        let readers = readers_of(address, &self.0.main, &self.0.replicas);
        let addresses: Vec<Address> = readers.iter().map(|(_, address)| address.clone()).collect();
        let place = Arc::new(Place::new(writer_of(address, &addresses), readers, making));
        if places.len() == places.capacity() {
            places.retain(|_, place| place.strong_count() > 0);
        }
        places.insert(key, Arc::downgrade(&place));
        place
    }

    /// Looks for a tenant that is not known.
    async fn ask_again(&self, tenant: &str) -> Result<(), Error> {
        let came = Instant::now();
        let mut asked = self.0.asked.lock().await;
        // Somebody else may have asked while this one waited.
        if self.0.tenants.get(tenant).is_some() || asked.is_some_and(|at| at > came) {
            return Ok(());
        }
        // Whoever tries out names must not keep the control database busy.
        if let Some(rest) = asked.and_then(|at| LOOK_AGAIN.checked_sub(at.elapsed())) {
            tokio::time::sleep(rest).await;
        }
        // That nobody has heard of it means little while nobody can be asked.
        self.refresh().await?;
        *asked = Some(Instant::now());
        Ok(())
    }

    /// Keeps the tenants up to date as long as the router lives.
    fn follow_directory(&self) {
        if self.0.directory.is_none() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let weak = Arc::downgrade(&self.0);
        runtime.spawn(async move {
            let mut failing = false;
            while let Some(inner) = weak.upgrade() {
                let refreshed = Self(inner).refresh().await;
                match refreshed {
                    Ok(()) => failing = false,
                    Err(error) => {
                        if !failing {
                            let cause = error.postgres().map(ToString::to_string).unwrap_or_default();
                            tracing::warn!(cause, "{error}; known tenants are served on");
                        }
                        failing = true;
                    }
                }
                // Dropped while waiting: whoever has the router last ends this task at the next turn.
                let Some(inner) = weak.upgrade() else { return };
                if let Some(directory) = &inner.directory {
                    directory.wait().await;
                }
            }
        });
    }

    /// Looks up what a server allows, once.
    async fn learn(&self, place: &Place, db: &pgfleet_postgres::pool::Pooled) {
        let (budget, known) = self.0.servers.budget(&place.writer);
        if known.swap(true, Ordering::AcqRel) {
            return;
        }
        // Less a tenth, for people and for what looks after things.
        let sql = "SELECT least(NULLIF(r.rolconnlimit, -1), pg_catalog.current_setting('max_connections')::int \
                   - pg_catalog.current_setting('superuser_reserved_connections')::int \
                   - coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0)) * 9 / 10 \
                   FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
        match db.query_opt(sql, &[]).await {
            Ok(row) => {
                let limit: Option<i32> = row.and_then(|row| row.get(0));
                budget.set_limit(limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(UNKNOWN_BUDGET));
            }
            Err(error) => {
                known.store(false, Ordering::Release);
                tracing::debug!(%error, "what the server allows is not known");
            }
        }
    }

    /// Has the replicas looked at while there are readers; the first one waits for the first look.
    async fn watch_replicas(&self) {
        *self.0.last_reader.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if self.0.watching.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = &self.0;
        Box::pin(look_at_all(inner.rules.main().pool(), &inner.replicas, &inner.options.replicas)).await;
        let weak = Arc::downgrade(inner);
        tokio::spawn(async move {
            loop {
                let Some(inner) = weak.upgrade() else { return };
                let interval = inner.options.replicas.interval;
                let idle = inner.last_reader.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
                if idle > READERS_GONE {
                    inner.watching.store(false, Ordering::Release);
                    return;
                }
                drop(inner);
                tokio::time::sleep(interval).await;
                let Some(inner) = weak.upgrade() else { return };
                look_at_all(inner.rules.main().pool(), &inner.replicas, &inner.options.replicas).await;
            }
        });
    }
}

/// Where a database is written: on the server that it names, or on that of its replicas which became the primary.
fn writer_of(writer: &Address, readers: &[Address]) -> Address {
    if readers.is_empty() {
        return writer.clone();
    }
    writer.primary_among(readers).unwrap_or_else(|error| {
        tracing::warn!(%error, "writes cannot follow a failover");
        writer.clone()
    })
}

/// The replicas on which a database can be read: those of the main server, for what is on that server.
fn readers_of(writer: &Address, main: &Endpoints, replicas: &[Arc<Replica>]) -> Vec<(Arc<Replica>, Address)> {
    if writer.server() != main.writer.server() {
        return Vec::new();
    }
    let reading = |replica: &Arc<Replica>| {
        let address = replica.address().with_database(writer.database());
        (replica.clone(), address.with_user(writer.user(), writer.password().cloned()))
    };
    replicas.iter().map(reading).collect()
}

impl Rule {
    /// Returns whether it is about a tenant's string.
    pub fn is_of_tenant(self) -> bool {
        matches!(self, Self::TenantName | Self::TenantService | Self::TenantDefault)
    }
}
