//! Beside the services that `up` runs: having the tenants follow them.

use std::time::Duration;

use pgfleet_control::Solution;
use pgfleet_control::chain::{ChainEvent, ChainListener, ChainOptions, Until};
use pgfleet_control::manifest::{Manifest, TenantUse};
use pgfleet_control::program::Programs;
use pgfleet_control::solution::Surroundings;
use pgfleet_migrate::options::Stop;
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::error::CommandError;
use crate::talk::Talk;

/// How long what is in work may take to end in an orderly way.
const TO_END: Duration = Duration::from_secs(10);

/// How long to let servers be that do not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// Handles the messages of tenants until it is ended.
pub(crate) struct Follower {
    stop: Stop,
    task: JoinHandle<()>,
    follow: Follow,
}

#[derive(Clone)]
struct Follow {
    manifest: Manifest,
    surroundings: Surroundings,
    talk: Talk,
}

impl Follower {
    /// Begins; none when no service has data in tenants' databases.
    pub(crate) fn begin(context: &Context, manifest: &Manifest) -> Option<Self> {
        if manifest.services.iter().all(|service| service.tenants != TenantUse::Own) {
            return None;
        }
        let stop = Stop::default();
        let surroundings = Surroundings { stop: stop.clone(), programs: Programs::default(), ..context.surroundings() };
        let follow = Follow { manifest: manifest.clone(), surroundings, talk: context.talk.clone() };
        let task = tokio::spawn(follow.clone().run(Until::Stopped));
        Some(Self { stop, task, follow })
    }

    /// Ends it. With `all`, what the services left to do is done first, as far as it does not have to wait.
    pub(crate) async fn end(self, all: bool) {
        let Self { stop, mut task, mut follow } = self;
        stop.ask();
        if tokio::time::timeout(TO_END, &mut task).await.is_err() {
            // The server takes back what is not committed; the message goes to whoever looks next.
            task.abort();
        }
        if all {
            follow.surroundings.stop = Stop::default();
            follow.clone().run(Until::Idle).await;
        }
        follow.surroundings.programs.close().await;
    }
}

impl Follow {
    /// Handles messages; a solution that cannot be opened is tried again, unless it is only for once.
    async fn run(self, until: Until) {
        let mut told = String::new();
        while !self.surroundings.stop.is_asked() {
            let Err(error) = Box::pin(self.once(until)).await else { return };
            let text = error.render();
            if text != told {
                self.talk.say(&format!("tenants do not follow their services: {}", text.trim_end()));
                told = text;
            }
            if until == Until::Idle || self.surroundings.stop.sleep(AGAIN).await {
                return;
            }
        }
    }

    async fn once(&self, until: Until) -> Result<(), CommandError> {
        let solution = Solution::open(self.manifest.clone(), &self.surroundings).await?;
        let surroundings = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        let options = ChainOptions { surroundings, ..ChainOptions::of(&solution, until) };
        let listener = Said(self.talk.clone());
        solution.run_chain(&options, &self.surroundings.stop, &listener, &self.talk.listener()).await?;
        Ok(())
    }
}

/// Says what happens.
struct Said(Talk);

impl ChainListener for Said {
    fn happened(&self, event: &ChainEvent<'_>) {
        self.0.say(&format!("tenants: {event}"));
    }
}

/// Where a process without a terminal finds the manifest that it was started for.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Whereabouts {
    manifest: std::path::PathBuf,
    env: String,
}

impl Whereabouts {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self { manifest: manifest.path.clone(), env: manifest.env.clone() }
    }

    /// Begins to have tenants follow in the process that was told these whereabouts.
    pub(crate) fn begin(&self, context: &Context) -> Option<Follower> {
        match context.load_from(&self.manifest, &self.env) {
            Ok(loaded) => Follower::begin(context, &loaded.manifest),
            Err(error) => {
                context.talk.error(&error);
                None
            }
        }
    }
}

/// Ends one that may not be there.
pub(crate) async fn end(follower: Option<Follower>, all: bool) {
    if let Some(follower) = follower {
        Box::pin(follower.end(all)).await;
    }
}
