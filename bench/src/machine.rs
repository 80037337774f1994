//! What the figures hold for: machine, versions, settings.

use std::fs;
use std::process::Command;

use crate::server::{SETTINGS, Server};

/// Lines for the head of the report.
pub(crate) fn facts(rounds: usize, version: &str, server: &Server) -> Vec<String> {
    let settings: Vec<_> = SETTINGS.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let [machine, build] = who(version);
    vec![
        machine,
        build,
        format!(
            "PostgreSQL {}, durable (fsync, full_page_writes and synchronous_commit on), {}; TCP on 127.0.0.1, SCRAM",
            server.version(),
            settings.join(", ")
        ),
        format!("{rounds} interleaved rounds after one that does not count"),
    ]
}

/// The machine, and what was built.
pub(crate) fn who(version: &str) -> [String; 2] {
    let build = if cfg!(debug_assertions) { "not a release build" } else { "release build" };
    [
        format!("{}, {}, commit {}", first_line("date", &["-u", "+%Y-%m-%d"]), processor(), commit()),
        format!("{version}, {build}; {}", first_line("rustc", &["--version"])),
    ]
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    format!("{model}, {cores} cores, {} GB, {}", kilobytes.div_ceil(1 << 20), first_line("uname", &["-sr"]))
}

fn commit() -> String {
    first_line("git", &["describe", "--always", "--dirty"])
}

/// A fact that cannot be found out is no reason to end a measurement.
pub(crate) fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
