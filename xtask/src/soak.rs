//! The long forms of the crash tests, of the test of many tenants, and of those that compare what readers of events see.

use anyhow::Result;

use crate::system::{self, Need};
use crate::{run, test};

/// Rounds of each test unless told.
pub(crate) const ROUNDS: u32 = 200;

/// Read by every test that kills something at a random moment; they are in modules named `crash`.
const ROUNDS_VARIABLE: &str = "PGFLEET_SOAK_ROUNDS";

/// Read by the tests of the order of events (in the modules `gaps` and `moves`): how many they write.
const EVENTS_VARIABLE: &str = "PGFLEET_GAP_EVENTS";
const EVENTS: &str = "1000000";

/// Modules with a long form.
const LONG: [&str; 4] = ["crash", "fleet::", "gaps::", "moves::"];

/// As fast as a release, so that kills hit more different moments, but with checks of overflow and assertions, and
/// without the minutes of link time that `release` takes for every test program.
const PROFILE: [&str; 10] = [
    "--config",
    r#"profile.soak.inherits="release""#,
    "--config",
    "profile.soak.lto=false",
    "--config",
    "profile.soak.codegen-units=16",
    "--config",
    "profile.soak.debug-assertions=true",
    "--config",
    "profile.soak.overflow-checks=true",
];

pub(crate) fn run(rounds: u32, args: &[String]) -> Result<()> {
    system::ensure(&[Need::Server, Need::FetchedServer, Need::Pooler, Need::Brokers])?;
    let mut cargo = run::cargo()?;
    if test::has_nextest() {
        cargo.args(["nextest", "run", "--workspace"]).args(PROFILE);
        // A nextest profile without an end for slow tests, beside the build profile of the same name.
        cargo.args(["--profile", "soak", "--cargo-profile", "soak"]);
    } else {
        test::build_examples(&[&PROFILE[..], &["--profile", "soak"]].concat())?;
        cargo.arg("test").args(PROFILE).args(["--profile", "soak", "--workspace", "--lib", "--bins", "--tests"]);
        cargo.arg("--");
    }
    cargo.args(LONG).args(args).env(ROUNDS_VARIABLE, rounds.to_string()).env(EVENTS_VARIABLE, EVENTS);
    let soaked = run::visibly(&mut cargo);
    soaked.and(test::stop_servers())
}
