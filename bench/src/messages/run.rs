//! One run over one transport.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use pgfleet_local::testing::OwnServer;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::account::{self, Account};
use super::options::Options;
use super::place::{self, Bus, FROM, TO};
use super::program::Program;

const PARTS: [&str; 3] = ["publisher", "relay", "consumer"];

/// How many processes play each part: one can go on where another was killed.
const EACH: usize = 2;

/// What is struck; programs more often than servers, whose start takes longer.
const STRUCK: [Victim; 8] = [
    Victim::Part(0),
    Victim::Part(1),
    Victim::Part(1),
    Victim::Part(2),
    Victim::Part(2),
    Victim::Part(2),
    Victim::Bus,
    Victim::Data,
];

/// The longest pause between two strikes, in milliseconds.
const BETWEEN: std::ops::Range<u64> = 200..1_800;

/// RabbitMQ 3.10 notes the name of a new quorum queue's log half a second later; killed before that, it comes back with a
/// queue that never has a leader.
const SETTLED: Duration = Duration::from_secs(2);

/// How long everything may take to come to rest when nothing is killed any more, on a machine that compiles meanwhile.
const REST: Duration = Duration::from_mins(10);

/// For how long nothing may come any more before it is called rest.
const STILL: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Part(usize),
    Bus,
    Data,
}

/// What came of it.
pub(super) struct Outcome {
    account: Account,
    kills: BTreeMap<Victim, u64>,
    delivered_again: u64,
    known: u64,
    rested_after: Duration,
}

impl Outcome {
    pub(super) fn row(&self, transport: &str) -> String {
        // What was never struck was killed no time.
        let kills = |victim| self.kills.get(&victim).copied().unwrap_or_default().to_string();
        let kills = [Victim::Part(0), Victim::Part(1), Victim::Part(2), Victim::Bus, Victim::Data].map(kills);
        format!(
            "| {transport} | {} | {} | {} | {} | {} | {:.1} s |",
            self.account.committed,
            self.account.effects,
            kills.join(" / "),
            self.delivered_again,
            self.known,
            self.rested_after.as_secs_f64()
        )
    }
}

pub(super) async fn run(transport: &str, options: &Options) -> Result<Outcome> {
    let logs = tempfile::Builder::new().prefix("pgfleet-messages-").tempdir()?;
    let result = Run::start(transport, logs.path()).await?.go(options).await;
    if result.is_err() {
        eprintln!("what the processes said is in {}", logs.keep().display());
    }
    result
}

struct Run {
    data: OwnServer,
    bus: Bus,
    programs: [Vec<Program>; 3],
    began: Instant,
    kills: BTreeMap<Victim, u64>,
}

impl Run {
    async fn start(transport: &str, logs: &std::path::Path) -> Result<Self> {
        let (data, bus) = tokio::try_join!(place::durable(), Bus::start(transport))?;
        place::databases(&data).await?;
        let (from, to) = (data.superuser_url(FROM), data.superuser_url(TO));
        let mut programs = [Vec::new(), Vec::new(), Vec::new()];
        // A broker keeps messages for groups that it knows: consumers first.
        for part in [2, 1, 0] {
            for number in 0..EACH {
                let database = if part == 2 { &to } else { &from };
                let program = Program::start(PARTS[part], number, [database, transport, &bus.url()], logs)?;
                programs[part].push(program);
            }
            if part == 2 {
                wait_for("a consumer begins", Duration::from_mins(1), async || {
                    programs[2].iter().any(|program: &Program| program.has_begun())
                })
                .await?;
            }
        }
        Ok(Self { data, bus, programs, began: Instant::now(), kills: BTreeMap::new() })
    }

    async fn go(mut self, options: &Options) -> Result<Outcome> {
        let mut random = StdRng::seed_from_u64(options.seed);
        while self.began.elapsed() < options.each {
            tokio::time::sleep(Duration::from_millis(random.random_range(BETWEEN))).await;
            let mut struck = vec![self.choose(&mut random)];
            // Two at once now and then: what one half knows the other half must not have to remember.
            if random.random_bool(0.2) {
                struck.push(self.choose(&mut random));
            }
            self.strike(&struck, &mut random).await?;
            self.watch()?;
        }
        // The last death of the publishers; from now on nothing is killed any more.
        for program in &mut self.programs[0] {
            program.kill()?;
            *self.kills.entry(Victim::Part(0)).or_default() += 1;
        }
        let rested_after = self.come_to_rest().await?;
        for program in self.programs[1..].iter_mut().flatten() {
            program.end().await?;
        }
        let acknowledged = self.programs[0].iter().flat_map(|program| program.said().committed).collect();
        let account = account::check(&self.data, &acknowledged).await?;
        let count = |name| self.programs[2].iter().map(|program| program.said().count(name)).sum();
        Ok(Outcome {
            account,
            kills: self.kills,
            delivered_again: count("pgfleet_inbox_redelivered_total"),
            known: count("pgfleet_inbox_duplicates_total"),
            rested_after,
        })
    }

    fn choose(&self, random: &mut StdRng) -> Victim {
        let victim = STRUCK[random.random_range(0..STRUCK.len())];
        if victim == Victim::Bus && self.began.elapsed() < SETTLED { Victim::Part(2) } else { victim }
    }

    /// Kills all of them, then starts them again.
    async fn strike(&mut self, victims: &[Victim], random: &mut StdRng) -> Result<()> {
        let mut again = Vec::new();
        for victim in victims {
            *self.kills.entry(*victim).or_default() += 1;
            match *victim {
                Victim::Part(part) => {
                    let number = random.random_range(0..EACH);
                    self.programs[part][number].kill()?;
                    again.push((part, number));
                }
                Victim::Bus => self.bus.kill().await?,
                Victim::Data => self.data.kill()?,
            }
        }
        if victims.contains(&Victim::Bus) {
            self.bus.start_again().await?;
        }
        if victims.contains(&Victim::Data) {
            self.data.ensure_running()?;
        }
        again.sort_unstable();
        again.dedup();
        for (part, number) in again {
            self.programs[part][number].start_again()?;
        }
        Ok(())
    }

    fn watch(&mut self) -> Result<()> {
        self.programs.iter_mut().flatten().try_for_each(Program::watch)
    }

    /// Waits until every booking has its effect and nothing comes any more.
    async fn come_to_rest(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let (from, to) = (self.data.superuser_url(FROM), self.data.superuser_url(TO));
        let (mut last, mut since) = (None, Instant::now());
        let mut rested = None;
        loop {
            self.programs[1..].iter_mut().flatten().try_for_each(Program::watch)?;
            let booked = place::number(&from, "SELECT count(*) FROM bookings").await?;
            let effects = place::number(&to, "SELECT count(*) FROM effects").await?;
            let said: Vec<u64> = self.programs[2].iter().map(|program| program.said().count(RECEIVED)).collect();
            let now = Some((booked, effects, said));
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if effects >= booked {
                let rested = *rested.get_or_insert_with(|| began.elapsed());
                if since.elapsed() > STILL {
                    return Ok(rested);
                }
            }
            if began.elapsed() > REST {
                let account = account::check(&self.data, &BTreeMap::new()).await;
                account.with_context(|| format!("{effects} effects of {booked} bookings after {REST:?}"))?;
                bail!("there is no rest: messages still come again {REST:?} after the last death");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What a consumer counts of messages that come once more, however they do.
const RECEIVED: &str = "pgfleet_inbox_duplicates_total";

async fn wait_for(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !holds().await {
        ensure!(began.elapsed() < limit, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
