//! Messages while everything on their way is killed: the short form of `cargo xtask bench messages`.

use std::process::Command;

/// How long there are load and killing: the whole of a test's time but what starting and coming to rest take.
const SECONDS: u64 = 12;

/// The seed is printed; `PGFLEET_SEED` has the same strikes again.
fn each_message_has_its_effect_once_over(transport: &str) {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_pgfleet-bench"));
    // A long run has a minute for each (`cargo xtask soak`).
    let seconds = if std::env::var_os("PGFLEET_SOAK_ROUNDS").is_some() { 60 } else { SECONDS };
    bench.args(["messages", "--only", transport, "--seconds", &seconds.to_string()]);
    if let Some(seed) = std::env::var_os("PGFLEET_SEED") {
        bench.arg("--seed").arg(seed);
    }
    let status = bench.status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn each_message_has_its_effect_once_over_the_bus_database() {
    each_message_has_its_effect_once_over("postgres");
}

#[test]
fn each_message_has_its_effect_once_over_rabbitmq() {
    each_message_has_its_effect_once_over("rabbitmq");
}

#[test]
fn each_message_has_its_effect_once_over_nats() {
    each_message_has_its_effect_once_over("nats");
}
