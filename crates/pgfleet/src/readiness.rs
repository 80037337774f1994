//! Whether a service may be given work.

use tokio::sync::watch;

/// Says whether the schema is there; false until [`start`](crate::Builder::start) returns.
///
/// For the health endpoint that runs while the service still starts:
///
/// ```
/// let builder = pgfleet::Service::builder("trip");
/// let readiness = builder.readiness();
/// assert!(!readiness.is_ready());
/// ```
#[derive(Debug, Clone)]
pub struct Readiness(watch::Receiver<bool>);

impl Readiness {
    /// Returns whether the service may be given work.
    pub fn is_ready(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is ready; returns false when starting was given up. Cancel safe.
    pub async fn ready(&mut self) -> bool {
        self.0.wait_for(|ready| *ready).await.is_ok()
    }
}

/// The other end.
#[derive(Debug)]
pub(crate) struct Switch(watch::Sender<bool>);

impl Switch {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn readiness(&self) -> Readiness {
        Readiness(self.0.subscribe())
    }

    pub(crate) fn set(&self, ready: bool) {
        self.0.send_replace(ready);
    }
}
