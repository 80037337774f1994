//! The tenant of a request, and answers to what cannot be done: for axum and everything else that is made of tower
//! services.
//!
//! [`Problem`] is what a handler answers when something fails. [`TenantLayer`] finds the tenant's name in the request, refuses tenants that may not be served, and runs the handler in that
//! tenant's [`Scope`] and in the request's [`Trace`]. It also carries the caller's [`Session`]: what the caller wrote before it can read here, and the
//! answer says what it wrote now.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};
use tower_layer::Layer;
use tower_service::Service as Tower;

pub use crate::problem::Problem;
use crate::service::Service;
use crate::{Router, Scope, Session, Trace};

/// The header that carries a session.
pub const SESSION: HeaderName = HeaderName::from_static("pgfleet-session");

type Finder = Arc<dyn Fn(&Parts) -> Option<String> + Send + Sync>;

/// Runs each request in the scope of its tenant.
///
/// The sources are asked in the order in which they were added; the first that names a tenant decides. A request that
/// names none is the host's, or refused with [`required`](Self::required).
///
/// | | |
/// |---|---|
/// | 400 | no tenant, where one is required; a session that is none |
/// | 403 | the tenant is disabled |
/// | 404 | there is no such tenant |
/// | 503 with `Retry-After` | its database is not ready, or nobody could be asked |
///
/// Refusals are problem documents (`application/problem+json`).
///
/// ```
/// # fn example(service: &pgfleet::Service) {
/// use pgfleet::http::TenantLayer;
///
/// let app: axum::Router = axum::Router::new()
///     .route("/trips", axum::routing::get(|| async { "…" }))
///     .layer(TenantLayer::new(service).header("x-tenant").subdomain_of("example.org"));
/// # }
/// ```
#[derive(Clone)]
pub struct TenantLayer {
    router: Router,
    finders: Vec<Finder>,
    required: bool,
}

impl fmt::Debug for TenantLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantLayer").field("sources", &self.finders.len()).finish_non_exhaustive()
    }
}

impl TenantLayer {
    /// Makes a layer that knows no source yet: every request is the host's, and carries its session.
    pub fn new(service: &Service) -> Self {
        Self { router: service.router().clone(), finders: Vec::new(), required: false }
    }

    /// Takes the tenant from a header.
    ///
    /// Whoever can send requests here can name any tenant: for services behind a gateway that sets it.
    ///
    /// # Panics
    ///
    /// When the text is no header's name.
    #[must_use]
    pub fn header(self, name: &'static str) -> Self {
        let name = HeaderName::from_static(name);
        self.find(move |parts| Some(parts.headers.get(&name)?.to_str().ok()?.trim().to_owned()))
    }

    /// Takes the tenant from the part of the host's name before this domain: `acme` of `acme.example.org`.
    #[must_use]
    pub fn subdomain_of(self, domain: impl Into<String>) -> Self {
        let suffix = format!(".{}", domain.into().trim_matches('.').to_ascii_lowercase());
        self.find(move |parts| {
            let host = parts.uri.host().or_else(|| parts.headers.get(http::header::HOST)?.to_str().ok())?;
            let host = host.split(':').next().unwrap_or(host).trim_end_matches('.').to_ascii_lowercase();
            let tenant = host.strip_suffix(&suffix)?;
            (!tenant.is_empty() && !tenant.contains('.') && tenant != "www").then(|| tenant.to_owned())
        })
    }

    /// Takes the tenant from the segment of the path behind this prefix: `acme` of `/t/acme/trips` with `/t/`.
    #[must_use]
    pub fn path_after(self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        self.find(move |parts| parts.uri.path().strip_prefix(&prefix)?.split('/').next().map(str::to_owned))
    }

    /// Takes the tenant from the claims of a token: from what an authenticating layer outside of this one has verified
    /// and put into the request's extensions.
    #[must_use]
    pub fn claim<C: Send + Sync + 'static>(
        self,
        tenant: impl Fn(&C) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.find(move |parts| tenant(parts.extensions.get::<C>()?))
    }

    /// Takes the tenant from wherever this function finds it.
    #[must_use]
    pub fn find(mut self, tenant: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static) -> Self {
        self.finders.push(Arc::new(tenant));
        self
    }

    /// Refuses requests that name no tenant.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

impl<S> Layer<S> for TenantLayer {
    type Service = TenantService<S>;

    fn layer(&self, inner: S) -> TenantService<S> {
        TenantService { inner, layer: self.clone() }
    }
}

/// The trace that a request belongs to, as far as its header is one.
fn trace(parts: &Parts) -> Trace {
    let header = |name: &str| Some(parts.headers.get(name)?.to_str().ok()?.trim().into());
    let parent: Option<Arc<str>> = header("traceparent");
    // `00-<32 hex digits>-<16>-<2>`; what is none would be carried by every message.
    let parent = parent.filter(|text| {
        text.is_ascii()
            && text.split('-').map(str::len).eq([2, 32, 16, 2])
            && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
    });
    let tracestate = parent.as_ref().and_then(|_| header("tracestate"));
    Trace { traceparent: parent, tracestate, ..Trace::default() }
}

/// What [`TenantLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct TenantService<S> {
    inner: S,
    layer: TenantLayer,
}

impl<S, B, R> Tower<Request<B>> for TenantService<S>
where
    S: Tower<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
    R: From<String> + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is called; the clone will be when it is asked.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let tenant = layer.finders.iter().find_map(|find| find(&parts)).filter(|name| !name.is_empty());
            let session = match parts.headers.get(&SESSION).map(HeaderValue::to_str) {
                None => Session::new(),
                Some(text) => match text.ok().and_then(|text| Session::parse(text).ok()) {
                    Some(session) => session,
                    None => return Ok(Problem::new(400, format!("the header {SESSION} holds no session")).response()),
                },
            };
            let scope = match tenant {
                Some(name) => Scope::tenant(name),
                None if layer.required => return Ok(Problem::new(400, "the request names no tenant").response()),
                None => Scope::host(),
            };
            let scope = scope.with_session(session.clone());
            if scope.tenant_name().is_some()
                && let Err(error) = scope.clone().run(layer.router.place(None)).await
            {
                return Ok(Problem::from(error).response());
            }
            let trace = trace(&parts);
            let mut response = scope.run(trace.run(inner.call(Request::from_parts(parts, body)))).await?;
            if !session.is_empty()
                && let Ok(value) = HeaderValue::from_str(&session.to_string())
            {
                response.headers_mut().insert(SESSION, value);
            }
            Ok(response)
        })
    }
}
