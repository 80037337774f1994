//! What tenants hold while nothing happens: each in a process of its own, since memory once used is seldom given back.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
use pgfleet_postgres::{Address, Purpose};

use super::setting::{self, APPLICATION, CONTROL, KNOWN};
use crate::report::Report;
use crate::server::Server;

pub(super) const POOLS: usize = 500;

pub(super) fn measure(server: &Server, report: &mut Report) -> Result<()> {
    let (control, known) = (server.url(CONTROL), u64::try_from(KNOWN)?);
    let each = |bytes: u64, count: u64| format!("{} bytes each", bytes / count);
    let tenants = ask("tenants", &control)?;
    let pools = ask("peer-empty", &control)?;
    let case = format!("(e) {KNOWN} tenants known, none busy");
    let peer = format!("deadpool-postgres: {KNOWN} pools");
    report.note(&case, &each(tenants, known), (&peer, &each(pools, known)), None);
    let count = u64::try_from(POOLS)?;
    let (ours, theirs) = (ask("pools", &control)?, ask("peer", &control)?);
    let case = format!("(e) {POOLS} pools with an idle connection each");
    report.note(&case, &each(ours, count), ("deadpool-postgres", &each(theirs, count)), None);
    Ok(())
}

/// Asks another process of this program.
fn ask(whose: &str, url: &str) -> Result<u64> {
    let output = Command::new(std::env::current_exe()?).args(["memory", whose, url]).output()?;
    ensure!(output.status.success(), "{whose}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().context("no number")
}

/// Prints by how many bytes this process grows.
pub(crate) fn show(whose: &str, url: &str) -> Result<()> {
    let runtime = setting::runtime()?;
    let grown = runtime.block_on(async {
        // What the first connection of any needs is not what the next ones need.
        let (first, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
        let driver = tokio::spawn(connection);
        first.batch_execute("SELECT 1").await?;
        drop(first);
        driver.await??;
        let before = resident()?;
        match whose {
            "tenants" => {
                let router = setting::with_tenants(url, None).await?;
                let grown = resident()?.saturating_sub(before);
                drop(router);
                Ok(grown)
            }
            "peer-empty" => {
                let pools = (0..KNOWN).map(|_| setting::peer(url, 4)).collect::<Result<Vec<_>>>()?;
                let grown = resident()?.saturating_sub(before);
                drop(pools);
                Ok(grown)
            }
            "pools" => {
                let (budget, address) = (Budget::new("bench", POOLS), Address::parse(url)?);
                let mut pools = Vec::new();
                for _ in 0..POOLS {
                    let purpose = Purpose::new(APPLICATION);
                    let pool = Pool::new(&budget, address.clone(), purpose, PoolOptions::for_tenants());
                    pool.get().await?.query_one("SELECT 1", &[]).await?;
                    pools.push(pool);
                }
                ensure!(budget.stats().idle == POOLS, "not all are idle");
                Ok(resident()?.saturating_sub(before))
            }
            "peer" => {
                let mut pools = Vec::new();
                for _ in 0..POOLS {
                    let pool = setting::peer(url, 4)?;
                    let db = pool.get().await?;
                    let statement = db.prepare_cached("SELECT 1").await?;
                    db.query_one(&statement, &[]).await?;
                    drop(db);
                    pools.push(pool);
                }
                Ok(resident()?.saturating_sub(before))
            }
            _ => bail!("there is no memory of {whose}"),
        }
    })?;
    println!("{grown}");
    Ok(())
}

/// The memory of this process that no file stands behind, in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
