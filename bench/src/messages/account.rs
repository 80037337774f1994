//! Whether everything came out right.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use pgfleet_events_postgres::{Inbox, Outbox};
use pgfleet_local::testing::OwnServer;
use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
use pgfleet_postgres::{Address, Purpose};

use super::place::{FROM, TO, number, open};

/// What was committed, and its effects.
pub(super) struct Account {
    pub(super) committed: i64,
    pub(super) effects: i64,
}

/// The most of what is wrong that is shown.
const SHOWN: usize = 10;

/// A key's effects in their order, each with what would be right there: its number is its place.
const OUT_OF_ORDER: &str = "SELECT key, number, place FROM ( \
     SELECT key, number, row_number() OVER (PARTITION BY key ORDER BY nr) AS place FROM effects) o \
     WHERE number <> place ORDER BY key, place LIMIT 10";

/// Bookings whose numbers have a gap; a key's numbers are drawn from what is committed.
const GAPS: &str =
    "SELECT key, max(number), count(*) FROM bookings GROUP BY key HAVING max(number) <> count(*) LIMIT 10";

const LAST: &str = "SELECT key, max(number), 0::bigint FROM %s GROUP BY key";

/// Compares the bookings with their effects, and with what was acknowledged.
pub(super) async fn check(data: &OwnServer, acknowledged: &BTreeMap<String, i64>) -> Result<Account> {
    let (from, to) = (data.superuser_url(FROM), data.superuser_url(TO));
    let gaps = rows(&from, GAPS).await?;
    ensure!(gaps.is_empty(), "the bookings themselves have gaps: {gaps:?}");
    let wrong = rows(&to, OUT_OF_ORDER).await?;
    ensure!(wrong.is_empty(), "lost, doubled or out of order (key, number, its place): {wrong:?}");
    let last = |rows: Vec<(String, i64, i64)>| rows.into_iter().map(|(key, last, _)| (key, last)).collect();
    let booked: BTreeMap<String, i64> = last(rows(&from, &LAST.replace("%s", "bookings")).await?);
    let told: BTreeMap<String, i64> = last(rows(&to, &LAST.replace("%s", "effects")).await?);
    // The effects of a key are 1, 2, 3 and so on: with the same last number they are the same.
    let differ = |other: &BTreeMap<String, i64>, wrong: fn(i64, i64) -> bool| -> Vec<String> {
        let keys: std::collections::BTreeSet<&String> = booked.keys().chain(other.keys()).collect();
        // A key that is not there has had nothing: the numbers begin with 1.
        let of = |map: &BTreeMap<String, i64>, key: &String| map.get(key).copied().unwrap_or_default();
        let pairs = keys.into_iter().map(|key| (key, of(&booked, key), of(other, key)));
        pairs
            .filter(|(_, booked, other)| wrong(*booked, *other))
            .map(|(key, booked, other)| format!("{key}: {booked} booked, {other}"))
            .take(SHOWN)
            .collect()
    };
    let untold = differ(&told, |booked, told| booked != told);
    ensure!(untold.is_empty(), "keys whose effects are not what was booked: {untold:?}");
    let forgotten = differ(acknowledged, |booked, acknowledged| booked < acknowledged);
    ensure!(forgotten.is_empty(), "acknowledged and not there: {forgotten:?}");

    let outbox = Outbox::new("public", FROM).status(&pool(&from)?).await?;
    ensure!(outbox.dead == 0 && !outbox.has_work(), "the outbox is not empty: {outbox:?}");
    let tos = pool(&to)?;
    let inbox = Inbox::new("public", TO).status(&mut tos.get().await?).await?;
    ensure!(inbox.dead == 0 && inbox.parked == 0, "the inbox is not at rest: {inbox:?}");
    Ok(Account {
        committed: number(&from, "SELECT count(*) FROM bookings").await?,
        effects: number(&to, "SELECT count(*) FROM effects").await?,
    })
}

async fn rows(url: &str, sql: &str) -> Result<Vec<(String, i64, i64)>> {
    let rows = open(url).await?.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

fn pool(url: &str) -> Result<Pool> {
    let budget = Budget::new("bench", 2);
    let options = PoolOptions { max: 2, min: 0, ..PoolOptions::default() };
    Ok(Pool::new(&budget, Address::parse(url)?, Purpose::new("bench"), options))
}
