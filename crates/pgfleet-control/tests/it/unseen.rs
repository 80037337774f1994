//! Strings that were stored without a look: a rollout sees where they lead, and knows it the next time.

use std::sync::Arc;

use pgfleet_control::rollouts::{Ask, Begun, RolloutState};
use pgfleet_control::tenants::Choices;

use crate::fleet::work;
use crate::life::{TWO, column, create, migration, own, town};
use crate::support::{Admin, Town};
use crate::tenants::{silent, string};

const UNSEEN: Choices = Choices { check: false, shared: false };

/// Rolls out what is to be done; none when nothing is.
async fn roll_out(town: &Town) -> Option<(RolloutState, i64)> {
    let mut solution = town.open().await;
    let options = solution.options().clone();
    let begun = Box::pin(solution.begin_rollout(&Ask::default(), &options, &silent())).await.unwrap();
    if matches!(begun, Begun::Current(_)) {
        return None;
    }
    let ended = work(&Arc::new(solution), begun).await.unwrap().unwrap();
    Some((ended.rollout.state, ended.rollout.counts.failed))
}

#[tokio::test]
async fn a_rollout_sees_where_a_string_leads_and_has_nothing_to_do_the_next_time() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let acme = create(&solution, own("acme")).await.unwrap().tenant.databases[0].database.clone();
    let text = string("", format!("dbname={acme}"));
    solution.set_connection("acme", text, UNSEEN, &silent()).await.unwrap();
    let done = Some((RolloutState::Done, 0));
    assert_eq!(roll_out(&town).await, done, "nobody knows what it leads to");
    let tenant = solution.tenant("acme").await.unwrap();
    let seen = tenant.strings[0].physical.as_ref().unwrap();
    assert_eq!((seen.database.as_str(), Some(seen.oid)), (acme.as_str(), tenant.databases[0].oid));
    assert_eq!(roll_out(&town).await, None);
    migration(&town, "trip", "2_more.sql", "alter table things add column more int");
    assert_eq!(roll_out(&town).await, done);
    assert_eq!(roll_out(&town).await, None);
    let session = town.superuser(&acme).await;
    let versions = format!("select version from pgfleet.\"{}_migrations\" order by 1", town.service("trip"));
    assert_eq!(column(&session, &versions).await, ["1", "2"]);
    // By hand it is the same.
    let text = string("", format!("dbname={acme}"));
    solution.set_connection("acme", text, UNSEEN, &silent()).await.unwrap();
    let solution = town.open().await;
    let options = solution.options().clone();
    let reports = solution.migrate_tenant("acme", &options, 1, &silent()).await.unwrap();
    assert_eq!(reports.iter().map(|report| report.state().word()).collect::<Vec<_>>(), ["current", "current"]);
    assert_eq!(roll_out(&town).await, None);
}

#[tokio::test]
async fn what_may_not_be_a_tenants_is_not_migrated_in_its_name() {
    let town = town(15, Admin::Superuser, TWO).await;
    let solution = town.open().await;
    let acme = create(&solution, own("acme")).await.unwrap().tenant.databases[0].database.clone();
    solution.create_tenant("bolt", None, &[string("", format!("dbname={acme}"))], UNSEEN, &silent()).await.unwrap();
    // Under another name, so that it is not seen that the two are one.
    let control = town.superuser(&town.service("control")).await;
    let keys = solution.keys().unwrap();
    let other = format!("postgresql://localhost:{}/{acme}", town.server.port());
    let sealed = keys.seal(&other.into(), "tenant/bolt/").unwrap();
    let values: [(&(dyn pgfleet_postgres::ToSql + Sync), pgfleet_postgres::Type); 1] =
        [(&sealed, pgfleet_postgres::Type::BYTEA)];
    control.execute("update control.tenant_strings set sealed = $1 where tenant = 'bolt'", &values).await.unwrap();
    assert_eq!(roll_out(&town).await, Some((RolloutState::Halted, 1)));
    let error = "select tenant || ': ' || error from control.rollout_targets where state = 'failed'";
    let said = column(&control, error).await.remove(0);
    assert!(said.starts_with("bolt: ") && said.contains("is tenant acme's already"), "{said}");
    let session = town.superuser(&acme).await;
    assert_eq!(column(&session, "select name from trips.things").await, ["acme"], "no seeds of the other");
}
