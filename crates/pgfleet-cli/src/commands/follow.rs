//! Beside the services that `up` runs: having the tenants follow them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgfleet_control::Solution;
use pgfleet_control::chain::{ChainEvent, ChainListener, ChainOptions, Until};
use pgfleet_control::manifest::{Manifest, Sources, TenantUse};
use pgfleet_control::program::Programs;
use pgfleet_control::solution::Surroundings;
use pgfleet_migrate::options::Stop;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::error::CommandError;
use crate::talk::Talk;

/// How long what is in work may take to end in an orderly way.
const TO_END: Duration = Duration::from_secs(10);

/// How long to let servers be that do not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// How old what is known of the manifest and of the passwords may be.
const FRESH: Duration = Duration::from_secs(15);

/// Where a process finds the manifest that it was started for.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Whereabouts {
    manifest: PathBuf,
    env: String,
}

impl Whereabouts {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self { manifest: manifest.path.clone(), env: manifest.env.clone() }
    }
}

/// Has the tenants of a solution follow until it is ended.
pub(crate) struct Follower {
    stop: Stop,
    task: JoinHandle<()>,
    follow: Arc<Follow>,
}

struct Follow {
    sources: Sources,
    surroundings: Surroundings,
    said: Said,
}

impl Follower {
    /// Begins; whether a service has data in tenants' databases is seen from the manifest, now and later.
    pub(crate) fn begin(context: &Context, whereabouts: Whereabouts) -> Self {
        let Whereabouts { manifest, env } = whereabouts;
        let follow = Arc::new(Follow {
            sources: Context::sources_of(manifest, Some(env)),
            surroundings: Surroundings { programs: Programs::default(), ..context.surroundings() },
            said: Said { talk: context.talk.clone(), troubles: Mutex::default() },
        });
        let stop = Stop::default();
        let task = tokio::spawn(follow.clone().run(Until::Rested(FRESH), stop.clone()));
        Self { stop, task, follow }
    }

    /// Ends it. With `all`, what is due is done first.
    pub(crate) async fn end(self, all: bool) {
        let Self { stop, mut task, follow } = self;
        stop.ask();
        if tokio::time::timeout(TO_END, &mut task).await.is_err() {
            // The server takes back what is not committed; the message goes to whoever looks next.
            task.abort();
        }
        if all {
            follow.clone().run(Until::Idle, Stop::default()).await;
        }
        follow.surroundings.programs.close().await;
    }
}

impl Follow {
    /// Handles messages, again and again with what the manifest and the passwords are by then; once
    /// until there is nothing to do.
    async fn run(self: Arc<Self>, until: Until, stop: Stop) {
        let mut known = None;
        while !stop.is_asked() {
            let wait = match Box::pin(self.turn(until, &stop, &mut known)).await {
                Ok(wait) => wait,
                Err(error) => {
                    self.said.trouble(&format!("they do not follow their services: {}", error.render().trim_end()));
                    AGAIN
                }
            };
            self.said.turned();
            if until == Until::Idle || stop.sleep(wait).await {
                return;
            }
        }
    }

    /// One turn; returns how long to wait before the next.
    async fn turn(&self, until: Until, stop: &Stop, known: &mut Option<Manifest>) -> Result<Duration, CommandError> {
        match Manifest::load(&self.sources) {
            Ok(loaded) => *known = Some(loaded.manifest),
            // One that is being edited changes nothing until it can be read.
            Err(error) if known.is_some() => self.said.trouble(CommandError::from(error).render().trim_end()),
            Err(error) => return Err(error.into()),
        }
        let Some(manifest) = known.clone() else { return Ok(FRESH) };
        if manifest.services.iter().all(|service| service.tenants != TenantUse::Own) {
            return Ok(FRESH);
        }
        let surroundings = Surroundings { stop: stop.clone(), ..self.surroundings.clone() };
        let solution = Solution::open(manifest, &surroundings).await?;
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        let options = ChainOptions { surroundings: names, ..ChainOptions::of(&solution, until) };
        solution.run_chain(&options, stop, &self.said, &self.said.talk.listener()).await?;
        Ok(Duration::ZERO)
    }
}

/// Says what happens, and what is wrong once, however many turns it lasts.
struct Said {
    talk: Talk,
    /// What was wrong in the last turn, and what is in this one.
    troubles: Mutex<(HashSet<String>, HashSet<String>)>,
}

impl Said {
    fn trouble(&self, text: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !troubles.0.contains(text) && !troubles.1.contains(text);
        troubles.1.insert(text.to_owned());
        if new {
            self.talk.say(&format!("tenants: {text}"));
        }
    }

    fn turned(&self) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.0 = std::mem::take(&mut troubles.1);
    }
}

impl ChainListener for Said {
    fn happened(&self, event: &ChainEvent<'_>) {
        match event {
            ChainEvent::Trouble { error } => self.trouble(error),
            _ => self.talk.say(&format!("tenants: {event}")),
        }
    }
}
