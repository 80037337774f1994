//! The trace that work belongs to.

use std::sync::Arc;

use pgfleet_events::Meta;

tokio::task_local! {
    static CURRENT: Trace;
}

/// The trace that work belongs to, in W3C's words, and what a whole piece of business has in common.
///
/// Messages that are published within it carry it; a handler runs within that of its message.
/// [`TenantLayer`](crate::http::TenantLayer) takes it from a request's header `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// `00-<trace id>-<span id>-<flags>`.
    pub traceparent: Option<Arc<str>>,
    /// What vendors add to it.
    pub tracestate: Option<Arc<str>>,
    /// What a whole piece of business has in common.
    pub correlation_id: Option<Arc<str>>,
    /// The id of the message that is being handled.
    pub causation_id: Option<Arc<str>>,
}

impl Trace {
    /// Returns the trace of the running task; an empty one when there is none.
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_default()
    }

    /// Runs work that belongs to it.
    pub async fn run<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// The trace that a message goes on with.
    pub(crate) fn of(message: &pgfleet_events::Message) -> Self {
        let id: Arc<str> = message.id.to_string().into();
        Self {
            traceparent: message.meta.traceparent.clone(),
            tracestate: message.meta.tracestate.clone(),
            correlation_id: message.meta.correlation_id.clone().or_else(|| Some(id.clone())),
            causation_id: Some(id),
        }
    }

    /// Writes it where nothing is said yet.
    pub(crate) fn fill(&self, meta: &mut Meta) {
        let fill = |place: &mut Option<Arc<str>>, value: &Option<Arc<str>>| {
            if place.is_none() {
                place.clone_from(value);
            }
        };
        // A state without its parent means nothing.
        if meta.traceparent.is_none() {
            fill(&mut meta.tracestate, &self.tracestate);
        }
        fill(&mut meta.traceparent, &self.traceparent);
        fill(&mut meta.correlation_id, &self.correlation_id);
        fill(&mut meta.causation_id, &self.causation_id);
    }
}
