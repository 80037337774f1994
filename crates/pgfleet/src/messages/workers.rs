//! What runs beside a service: its relays, and the consumer of what it handles.

use std::sync::Arc;

use pgfleet_events::{Subscription, Transport};
use pgfleet_events_postgres::{Consumer, ConsumerOptions, Executor, Inbox, Outbox, RelayOptions};
use pgfleet_postgres::retry;
use pgfleet_route::Router;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinHandle;

use super::databases::Tenants;
use super::handler::Registered;
use super::relays::Relays;
use super::transport;
use crate::Scope;
use crate::error::Error;

/// First and longest pause between two tries to subscribe.
const SUBSCRIBE_AGAIN: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_millis(100), std::time::Duration::from_secs(10));

/// How long a start waits for the first try to subscribe.
const FIRST_TRY: std::time::Duration = std::time::Duration::from_secs(5);

/// What a service says about its messages before it starts.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) handlers: Vec<Registered>,
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) relay: RelayOptions,
    pub(crate) consumer: ConsumerOptions,
    pub(crate) has_outbox: bool,
    pub(crate) has_inbox: bool,
}

/// What runs beside a service; nothing runs before [`begin`](Self::begin).
///
/// Dropping it has all of it end, without waiting.
#[derive(Debug)]
pub(crate) struct Workers {
    writer: Outbox,
    relays: Option<Arc<Relays>>,
    consumer: Option<Arc<Consuming>>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// A consumer, with what it subscribes to.
#[derive(Debug)]
struct Consuming {
    consumer: Consumer<Tenants>,
    transport: Arc<dyn Transport>,
    subscription: Subscription,
}

impl Workers {
    /// Makes what the plan needs; connects to nothing.
    pub(crate) fn new(service: &str, schema: Option<&str>, router: &Router, plan: Plan) -> Result<Self, Error> {
        let schema = schema.unwrap_or("public");
        let (stop, stopped) = watch::channel(false);
        let needs_transport = plan.has_outbox || !plan.handlers.is_empty();
        let carrier = match plan.transport {
            None if needs_transport => transport::of_environment(service)?,
            said => said,
        };
        if !plan.handlers.is_empty() && !plan.has_inbox {
            return Err(Error::configuration(format!("{service} handles messages and has no inbox"))
                .hinted("add .module(Module::inbox()) before .start(), and modules = [\"inbox\"] to the manifest"));
        }
        if carrier.is_none() && !plan.handlers.is_empty() {
            let variable = crate::environment::variable(service, "EVENTS_BROKER");
            return Err(Error::configuration(format!("{service} handles messages and knows no broker")).hinted(
                format!(
                    "set {variable} and the same with _URL: `pgfleet up` does, `pgfleet connection env` prints them"
                ),
            ));
        }
        let relays = carrier.clone().filter(|_| plan.has_outbox).map(|carrier| {
            let (schema, name) = (schema.to_owned(), service.to_owned());
            Arc::new(Relays::new(schema, name, router.clone(), carrier, plan.relay, stopped))
        });
        if plan.has_outbox && relays.is_none() {
            tracing::warn!(service, "no broker is configured: what is published stays in the outbox");
        }
        let consumer = carrier.filter(|_| !plan.handlers.is_empty()).map(|transport| {
            let topics: std::collections::BTreeSet<&str> = plan.handlers.iter().map(|handler| handler.topic).collect();
            let mut subscription = Subscription::new(service, topics);
            subscription.prefetch = subscription.prefetch.max(plan.consumer.batch * 4);
            let mut consumer =
                Consumer::new(Inbox::new(schema, service), Arc::new(Tenants(router.clone())), plan.consumer);
            for handler in plan.handlers {
                consumer = (handler.register)(consumer);
            }
            Arc::new(Consuming { consumer, transport, subscription })
        });
        Ok(Self { writer: Outbox::new(schema, service), relays, consumer, stop, tasks: Mutex::default() })
    }

    pub(super) fn writer(&self) -> &Outbox {
        &self.writer
    }

    /// Has the relay of a scope's database look when the transaction that published there has committed.
    pub(super) fn wake_after<E: Executor + ?Sized>(&self, tx: &mut E, scope: &Scope) {
        let Some(relays) = &self.relays else { return };
        // It gets ready while the transaction goes on.
        relays.begin(scope);
        let (later, of) = (relays.clone(), scope.clone());
        if !tx.after_commit(Box::new(move || later.wake(&of))) {
            relays.expect_commit(scope);
        }
    }

    pub(super) fn wake(&self, scope: &Scope) {
        if let Some(relays) = &self.relays {
            relays.wake(scope);
        }
    }

    /// Begins to carry and to handle, when the schema is there. Returns when it has subscribed; when the broker is away, after
    /// the first try, and it is tried again beside the service.
    pub(crate) async fn begin(&self) {
        let mut tasks = self.tasks.lock().await;
        if let Some(relays) = &self.relays {
            relays.begin_main();
            tasks.push(tokio::spawn(relays.clone().go_round()));
        }
        if let Some(consumer) = &self.consumer {
            let (tried, first_try) = oneshot::channel();
            tasks.push(tokio::spawn(consumer.clone().run(self.stop.subscribe(), tried)));
            // A broker keeps messages for groups that it knows: what is published after the start must find this one there.
            let _late = tokio::time::timeout(FIRST_TRY, first_try).await;
        }
    }

    /// Ends all of it: what is being handled or published is ended first.
    pub(crate) async fn end(&self) {
        // Nobody listening is all having ended.
        self.stop.send_replace(true);
        for task in self.tasks.lock().await.drain(..) {
            // One that panicked has said so.
            let _ended = task.await;
        }
        if let Some(relays) = &self.relays {
            relays.ended().await;
        }
    }

    /// Returns what was carried and handled, in Prometheus' text format.
    pub(crate) fn metrics(&self, service: &str) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        let mut counter = |name: &str, help: &str, rows: &[(String, u64)]| {
            if rows.is_empty() {
                return;
            }
            // Writing into a text does not fail.
            let _ok = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (labels, value) in rows {
                let _ok = writeln!(text, "{name}{{{labels}}} {value}");
            }
        };
        let relays = self.relays.as_ref().map(|relays| relays.stats()).unwrap_or_default();
        let carried = |value: fn(&pgfleet_events_postgres::outbox::RelayStats) -> u64| -> Vec<(String, u64)> {
            relays
                .iter()
                .map(|(database, stats)| (format!("service={service:?},database={:?}", &**database), value(stats)))
                .collect()
        };
        counter("pgfleet_outbox_sent_total", "messages that the broker confirmed", &carried(|stats| stats.sent));
        counter(
            "pgfleet_outbox_parked_total",
            "messages put aside because their key failed",
            &carried(|stats| stats.parked),
        );
        counter("pgfleet_outbox_dead_total", "messages given up", &carried(|stats| stats.dead));
        counter(
            "pgfleet_outbox_outages_total",
            "times that the broker could not be reached",
            &carried(|stats| stats.outages),
        );
        if let Some(consuming) = &self.consumer {
            let stats = consuming.consumer.stats();
            let row = |value: u64| vec![(format!("service={service:?}"), value)];
            counter("pgfleet_inbox_handled_total", "messages handled", &row(stats.handled));
            counter("pgfleet_inbox_duplicates_total", "messages that were known already", &row(stats.duplicates));
            counter(
                "pgfleet_inbox_redelivered_total",
                "deliveries that the broker itself counted as repeated",
                &row(stats.redelivered),
            );
            counter("pgfleet_inbox_parked_total", "messages put aside because their key failed", &row(stats.parked));
            counter("pgfleet_inbox_dead_total", "messages given up", &row(stats.dead));
        }
        text
    }
}

impl Consuming {
    async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>, tried: oneshot::Sender<()>) {
        let (mut tries, mut tried) = (0, Some(tried));
        // Who waits for the first try may have stopped waiting.
        let mut told = move || tried.take().map(|tried| tried.send(()));
        let subscriber = loop {
            let error = match self.transport.subscribe(self.subscription.clone()).await {
                Ok(subscriber) => {
                    let _gone = told();
                    break subscriber;
                }
                Err(error) => error,
            };
            let _gone = told();
            tries += 1;
            tracing::warn!(target: "pgfleet::inbox", tries, error = &error as &dyn std::error::Error, "cannot subscribe; trying again");
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(retry::backoff(tries, SUBSCRIBE_AGAIN.0, SUBSCRIBE_AGAIN.1)) => {}
            }
        };
        let stopped = async {
            // An error is the service that is gone.
            let _gone = stop.wait_for(|stop| *stop).await;
        };
        self.consumer.run(subscriber, stopped).await;
    }
}
