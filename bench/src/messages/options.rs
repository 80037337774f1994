//! What was asked for.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub(crate) const USAGE: &str = "[--minutes N | --seconds N] [--seed N] [--only postgres,rabbitmq,nats]";

/// Less than this proves too little to be published.
const LONG: Duration = Duration::from_mins(10);

const TRANSPORTS: [&str; 3] = ["postgres", "rabbitmq", "nats"];

#[derive(Debug)]
pub(crate) struct Options {
    /// How long there is load and killing, over each transport.
    pub(super) each: Duration,
    pub(super) seed: u64,
    pub(super) transports: Vec<&'static str>,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self> {
        let mut args = args.iter();
        let (mut whole, mut seed, mut transports) = (LONG, rand::random(), TRANSPORTS.to_vec());
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            let mut seconds = |each: u64| -> Result<Duration> {
                let number: u64 = value()?.parse().with_context(|| format!("{arg} takes a number"))?;
                ensure!(number > 0, "{arg} takes a number above 0");
                Ok(Duration::from_secs(number * each))
            };
            match *arg {
                "--minutes" => whole = seconds(60)?,
                "--seconds" => whole = seconds(1)?,
                "--seed" => seed = value()?.parse().context("--seed takes a number")?,
                "--only" => transports = value()?.split(',').map(transport).collect::<Result<_>>()?,
                unknown => bail!("there is no option {unknown}; usage: pgfleet-bench messages {USAGE}"),
            }
        }
        let each = whole / u32::try_from(transports.len())?;
        Ok(Self { each, seed, transports })
    }

    /// Only a complete run may replace what is published.
    pub(super) fn writes_readme(&self) -> bool {
        self.transports == TRANSPORTS && self.each * 3 >= LONG
    }
}

fn transport(name: &str) -> Result<&'static str> {
    let found = TRANSPORTS.into_iter().find(|known| *known == name);
    found.with_context(|| format!("--only takes postgres, rabbitmq and nats, not {name}"))
}
