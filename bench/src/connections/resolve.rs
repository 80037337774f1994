//! Where a tenant's name leads, with 10,000 tenants known.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use pgfleet_route::{Router, Scope};
use tokio::runtime::Runtime;

use super::options::Options;
use super::setting::{self, CONTROL, KNOWN};
use crate::report::Report;
use crate::server::Server;

const GOAL: Duration = Duration::from_micros(1);

/// Resolutions of one measurement.
const TIMES: u32 = 2_000_000;

const AT_ONCE: u32 = 4;

pub(super) fn measure(options: &Options, runtime: &Runtime, server: &Server, report: &mut Report) -> Result<()> {
    let router = runtime.block_on(setting::with_tenants(&server.url(CONTROL), None))?;
    let router = &router;
    // Far apart, so that it is not always the same lines of the caches.
    let scopes: Vec<Scope> = (0..KNOWN).map(|at| Scope::tenant(format!("t{}", at * 7919 % KNOWN))).collect();
    let times = options.times(TIMES);
    let cores = u32::try_from(std::thread::available_parallelism()?.get())?;
    let measured = setting::rounds(options.rounds, 3, |who| {
        let began = Instant::now();
        match who {
            0 => same(router, times)?,
            1 => others(router, &scopes, times)?,
            _ => std::thread::scope(|threads| {
                let all: Vec<_> = (0..AT_ONCE)
                    .map(|at| {
                        let scopes = &scopes[at as usize * KNOWN / AT_ONCE as usize..];
                        threads.spawn(move || others(router, scopes, times / AT_ONCE))
                    })
                    .collect();
                all.into_iter().try_for_each(|thread| {
                    thread.join().unwrap_or_else(|_| anyhow::bail!("a thread of the measurement panicked"))
                })
            })?,
        }
        Ok(began.elapsed() * if who == 2 { cores.min(AT_ONCE) } else { 1 } / times)
    })?;
    report.time("(b) resolution, the same tenant", &measured[0], GOAL);
    report.time("(b) resolution, each time another tenant, with entering its scope", &measured[1], GOAL);
    let case = format!("(b) likewise, {AT_ONCE} threads at once on {cores} cores, time of a core");
    report.time(&case, &measured[2], GOAL);
    Ok(())
}

fn same(router: &Router, times: u32) -> Result<()> {
    Scope::tenant("t4711").run_sync(|| {
        for _ in 0..times {
            black_box(router.resolve(black_box(None))?);
        }
        Ok(())
    })
}

fn others(router: &Router, scopes: &[Scope], times: u32) -> Result<()> {
    for scope in scopes.iter().cycle().take(times as usize) {
        black_box(scope.clone().run_sync(|| router.resolve(black_box(None)))?);
    }
    Ok(())
}
