//! The progress of a rollout: one bar with rate and time left at a terminal, a line now and then elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgfleet_control::rollouts::{Progress, RolloutState};
use pgfleet_migrate::{Event, Observer};

use super::show::databases;
use crate::talk::{Talk, human, told};

/// How often a line is written where there is no terminal.
const EACH: Duration = Duration::from_secs(10);

/// How many running targets are named.
const NAMED: usize = 4;

/// Shows how far a rollout is.
pub(super) struct Bar {
    talk: Talk,
    id: i64,
    shown: ProgressBar,
    seen: Mutex<Seen>,
}

/// What was seen so far.
struct Seen {
    running: Vec<String>,
    began: Instant,
    /// What was over when we began.
    over: Option<i64>,
    told: Option<(Instant, i32)>,
    text: String,
}

impl Bar {
    pub(super) fn new(talk: Talk, id: i64) -> Self {
        let bar = ProgressBar::new(0);
        if !talk.has_bar() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(format!("rollout {id}"));
        bar.enable_steady_tick(Duration::from_millis(250));
        let seen = Seen { running: Vec::new(), began: Instant::now(), over: None, told: None, text: String::new() };
        Self { talk, id, shown: bar, seen: Mutex::new(seen) }
    }

    /// Takes in how far the rollout is.
    pub(super) fn show(&self, now: &Progress) {
        let counts = now.counts;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *seen.over.get_or_insert(counts.ended());
        let took = seen.began.elapsed();
        let done = counts.ended() - before;
        let mut parts = vec![format!("wave {} of {}", now.wave, now.last_wave)];
        if counts.failed > 0 {
            parts.push(format!("{} failed", counts.failed));
        }
        if now.workers > 1 {
            parts.push(format!("{} workers", now.workers));
        }
        if done > 0 && took > Duration::from_secs(1) {
            #[expect(clippy::cast_precision_loss, reason = "databases are fewer than 2^52")]
            let (rate, left) = (done as f64 / took.as_secs_f64(), (counts.waiting + counts.running) as f64);
            parts.push(format!("{rate:.1}/s"));
            parts.push(format!("{} left", human(Duration::from_secs_f64(left / rate))));
        }
        seen.text = parts.join(", ");
        self.shown.set_length(counts.total().unsigned_abs());
        self.shown.set_position(counts.ended().unsigned_abs());
        let due = seen.told.is_none_or(|(told, wave)| told.elapsed() >= EACH || wave != now.wave);
        if self.shown.is_hidden() && due && now.state == RolloutState::Running {
            seen.told = Some((Instant::now(), now.wave));
            self.talk.say(&format!(
                "rollout {}: {} of {}, {}",
                self.id,
                counts.ended(),
                databases(counts.total()),
                seen.text
            ));
        }
        drop(seen);
        self.message();
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.shown.finish_and_clear();
    }

    fn message(&self) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = seen.text.clone();
        if !seen.running.is_empty() {
            text.push_str(&format!("; {}", seen.running.join(", ")));
        }
        self.shown.set_message(text);
    }

    fn line(&self, text: &str) {
        self.shown.suspend(|| self.talk.say(text));
    }
}

impl Observer for Bar {
    fn event(&self, target: &str, event: &Event) {
        match event {
            Event::Started { label } => {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.running.retain(|entry| !entry.starts_with(&format!("{target}: ")));
                seen.running.push(format!("{target}: {label}"));
                // Those that failed said nothing more.
                let many = seen.running.len().saturating_sub(NAMED);
                seen.running.drain(..many);
                drop(seen);
                self.message();
            }
            Event::Done { .. } => {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.running.retain(|entry| !entry.starts_with(&format!("{target}: ")));
            }
            event => {
                if let Some(text) = told(target, event) {
                    self.line(&text);
                }
            }
        }
    }
}
