//! A process that is killed and started again, and what it said in all its lives.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long a part may take to end in good order.
const END: Duration = Duration::from_secs(30);

/// What was said.
#[derive(Debug, Default, Clone)]
pub(super) struct Said {
    /// The highest number of each key whose commit was acknowledged.
    pub(super) committed: BTreeMap<String, i64>,
    /// Counters of the life that lasts, and of those that are over together.
    now: BTreeMap<String, u64>,
    before: BTreeMap<String, u64>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (Some(what), Some(name), Some(value)) = (words.next(), words.next(), words.next()) else { return };
        match what {
            "committed" => drop(value.parse().map(|number| self.committed.insert(name.to_owned(), number))),
            "counted" => drop(value.parse().map(|count| self.now.insert(name.to_owned(), count))),
            _ => {}
        }
    }

    fn end_life(&mut self) {
        for (name, count) in std::mem::take(&mut self.now) {
            *self.before.entry(name).or_default() += count;
        }
    }

    /// What a counter has come to; what was counted in the last moment before a death is not in it.
    pub(super) fn count(&self, name: &str) -> u64 {
        // What was never counted is 0, as in the program itself.
        let of = |counts: &BTreeMap<String, u64>| counts.get(name).copied().unwrap_or_default();
        of(&self.now) + of(&self.before)
    }
}

#[derive(Debug)]
pub(super) struct Program {
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
    listener: Option<JoinHandle<()>>,
    said: Arc<Mutex<Said>>,
}

impl Program {
    /// Starts a part; its log is in the folder.
    pub(super) fn start(part: &str, number: usize, urls: [&str; 3], logs: &Path) -> Result<Self> {
        let mut arguments = vec!["message-part".to_owned(), part.to_owned(), number.to_string()];
        arguments.extend(urls.map(str::to_owned));
        let (log, said) = (logs.join(format!("{part}-{number}.log")), Arc::default());
        let (child, listener) = spawn(&arguments, &log, &said)?;
        Ok(Self { arguments, log, child, listener: Some(listener), said })
    }

    /// Ends it without a word.
    pub(super) fn kill(&mut self) -> Result<()> {
        // It may have ended by itself.
        let _ended = self.child.kill();
        self.child.wait()?;
        self.hear_the_end();
        Ok(())
    }

    pub(super) fn start_again(&mut self) -> Result<()> {
        let (child, listener) = spawn(&self.arguments, &self.log, &self.said)?;
        (self.child, self.listener) = (child, Some(listener));
        Ok(())
    }

    /// Starts it again when it gave up by itself: what it needs was away for too long.
    pub(super) fn watch(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            self.kill()?;
            self.start_again()?;
        }
        Ok(())
    }

    /// Ends it in good order.
    pub(super) async fn end(&mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(began.elapsed() < END, "{} does not end", self.arguments[1]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.hear_the_end();
        Ok(())
    }

    /// Whether it has started and counts.
    pub(super) fn has_begun(&self) -> bool {
        !self.said().now.is_empty()
    }

    /// What it has said until now.
    pub(super) fn said(&self) -> Said {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hear_the_end(&mut self) {
        if let Some(listener) = self.listener.take() {
            // It ends with what it listens to.
            let _ended = listener.join();
        }
        self.said.lock().unwrap_or_else(PoisonError::into_inner).end_life();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn spawn(arguments: &[String], log: &Path, said: &Arc<Mutex<Said>>) -> Result<(Child, JoinHandle<()>)> {
    let log: File = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new(std::env::current_exe().context("this program has no file")?);
    command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().context("cannot start a part")?;
    let (lines, said) = (BufReader::new(child.stdout.take().context("a part has no output")?), said.clone());
    let listener = std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            said.lock().unwrap_or_else(PoisonError::into_inner).hear(&line);
        }
    });
    Ok((child, listener))
}
