//! How tenants follow their services: from the host's history row to every tenant's database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgfleet_control::Solution;
use pgfleet_control::chain::{
    ApplyDatabaseMigrations, ChainEvent, ChainListener, ChainOptions, Draft, Message, Received, TableTransport,
    Transport, Until,
};
use pgfleet_control::tenants::{Choices, Home, NewTenant, TenantState};
use pgfleet_migrate::announce::{Announce, Announced, Announcer, Applied};
use pgfleet_migrate::event::Silent;
use pgfleet_migrate::options::Stop;
use pgfleet_postgres::Connection;

use crate::support::{Admin, Town};
use crate::tenants::{silent, string};

const UNSEEN: Choices = Choices { check: false, shared: false };

/// Keeps what it is told.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl ChainListener for Log {
    fn happened(&self, event: &ChainEvent<'_>) {
        self.0.lock().unwrap().push(event.to_string());
    }
}

impl Log {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.contains(text))
    }
}

/// A solution with a service that has data in tenants' databases, and one that has not.
pub(crate) struct Chained {
    pub(crate) town: Town,
    pub(crate) trip: String,
    pub(crate) log: Log,
}

impl Chained {
    pub(crate) async fn new() -> Self {
        Self::with(15, "").await
    }

    async fn with(major: u32, tenants: &str) -> Self {
        let town = Town::new(major, Admin::Superuser).await;
        town.manifest(&format!(
            "[services.{{}}_trip]\ntenants = \"own\"\n[services.{{}}_user]\n[tenants]\n{tenants}\n\
             [migrations]\nmin_retry_wait = \"10ms\"\nmax_retry_wait = \"20ms\"\n"
        ));
        town.provision().await;
        let trip = town.service("trip");
        Self { town, trip, log: Log::default() }
    }

    pub(crate) fn file(&self, name: &str, sql: &str) {
        let folder = self.town.folder.path().join("services").join(&self.trip);
        std::fs::write(folder.join(name), sql).unwrap();
    }

    /// Stores a tenant whose database is not there yet.
    pub(crate) async fn tenant(&self, name: &str) {
        let text = format!("dbname={}", self.town.service(name));
        let solution = self.town.open().await;
        solution.create_tenant(name, None, &[string("", text)], UNSEEN, &silent()).await.unwrap();
    }

    /// Handles messages until none is due.
    async fn run(&self) -> Vec<String> {
        self.run_of(&self.town.open().await).await;
        self.log.take()
    }

    async fn run_of(&self, solution: &Solution) {
        let options = ChainOptions::of(solution, Until::Idle);
        solution.run_chain(&options, &Stop::default(), &self.log, &silent()).await.unwrap();
    }

    /// Migrates the services' own databases, as `pgfleet migrate` does.
    pub(crate) async fn migrate(&self) {
        self.town.migrate().await;
    }

    pub(crate) async fn control(&self) -> Connection {
        self.town.superuser(&self.town.service("control")).await
    }

    pub(crate) async fn control_column(&self, sql: &str) -> Vec<String> {
        column(&self.control().await, sql).await
    }

    /// The versions in a tenant's database.
    pub(crate) async fn versions(&self, tenant: &str) -> Vec<String> {
        let sql = format!("select version from pgfleet.\"{}_migrations\" order by version::int", self.trip);
        self.tenant_column(tenant, &sql).await
    }

    async fn tenant_column(&self, tenant: &str, sql: &str) -> Vec<String> {
        column(&self.town.superuser(&self.town.service(tenant)).await, sql).await
    }

    async fn messages(&self) -> Vec<String> {
        let sql = "select kind || ' ' || target || ' ' || state || coalesce(': ' || note, '') from control.messages \
                   where target not like '%user' order by id";
        let lines = self.control_column(sql).await;
        lines.into_iter().map(|line| line.replace(&self.trip, "trip").replace(&self.town.anchor.name, "x")).collect()
    }
}

async fn column(connection: &Connection, sql: &str) -> Vec<String> {
    let rows = connection.simple(sql).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
}

async fn follow(major: u32) {
    let chained = Chained::with(major, "").await;
    chained.tenant("acme").await;
    chained.tenant("globex").await;
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1"], "made, as the template was");
    chained.file("migrations/2_more.sql", "create table more (id int);");
    chained.migrate().await;
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1", "2"]);
    assert_eq!(chained.versions("globex").await, ["1", "2"]);
    assert_eq!(
        chained.messages().await,
        [
            "TenantCreated acme done: trip/acme: applied 0, seeded 1",
            "TenantCreated globex done: trip/globex: applied 0, seeded 1",
            "AppliedDatabaseMigrations trip done: 2 tenants follow",
            "ApplyDatabaseMigrations trip/acme done: trip/acme: applied 1",
            "ApplyDatabaseMigrations trip/globex done: trip/globex: applied 1",
        ]
    );
    let bodies = "select concat_ws(' ', body->>'from', 'to', body->>'to') from control.messages \
                  where kind like 'Applied%' and target not like '%user'";
    assert_eq!(chained.control_column(bodies).await, ["to 2"]);
    // What is known of them says so, and nothing is left to do.
    let standings = "select state from control.targets where tenant <> '' and pending = 0";
    assert_eq!(chained.control_column(standings).await, ["current", "current"]);
    assert_eq!(chained.run().await, Vec::<String>::new());
    // A run that is announced again is known.
    let host = chained.town.superuser(&chained.trip).await;
    let again = format!("update pgfleet.\"{}_migrations\" set announced_at = null", chained.trip);
    host.execute_all(&again).await.unwrap();
    assert_eq!(chained.run().await, Vec::<String>::new());
    assert_eq!(chained.messages().await.len(), 5);
}

#[tokio::test]
async fn tenants_follow_when_their_host_was_migrated() {
    follow(15).await;
}

#[tokio::test]
async fn tenants_follow_on_the_newest_server() {
    follow(18).await;
}

#[tokio::test]
async fn a_service_that_migrates_itself_has_its_tenants_follow() {
    let chained = Chained::new().await;
    chained.tenant("acme").await;
    chained.run().await;
    let solution = chained.town.open().await;
    let run = async |told: Option<Announce>| {
        let options = pgfleet_migrate::Options { announcer: told, ..solution.options().clone() };
        for job in solution.jobs(std::slice::from_ref(&chained.trip), &BTreeMap::new()).unwrap() {
            pgfleet_migrate::run::migrate(&job.target, &job.path, &options, &Silent).await.unwrap();
        }
    };
    run(None).await;
    chained.file("migrations/2_more.sql", "create table more (id int);");
    run(None).await;
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1", "2"]);
    let told = "select concat_ws(' ', body->>'from', 'to', body->>'to') from control.messages \
                where kind like 'Applied%' and target not like '%user' order by id";
    assert_eq!(chained.control_column(told).await, ["to 1", "1 to 2"]);
    // Also one that tells a hook of its own.
    chained.file("migrations/3_most.sql", "create table most (id int);");
    run(Some(Announce::new(Deaf))).await;
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1", "2", "3"]);
    assert_eq!(chained.control_column(told).await, ["to 1", "1 to 2", "2 to 3"]);
}

/// Takes every announcement and tells nobody.
struct Deaf;

impl Announcer for Deaf {
    fn announce<'a>(&'a self, _applied: &'a Applied) -> Announced<'a> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn what_fails_three_times_is_shown_until_it_is_mended_by_hand() {
    let chained = Chained::new().await;
    chained.tenant("acme").await;
    chained.tenant("globex").await;
    chained.run().await;
    let acme = chained.town.superuser(&chained.town.service("acme")).await;
    acme.execute_all("create table more (id text)").await.unwrap();
    chained.file("migrations/2_more.sql", "create table more (id int);");
    chained.migrate().await;
    let target = format!("{}/acme", chained.trip);
    until_async(async || {
        chained.run_of(&chained.town.open().await).await;
        chained.log.has("failed for the last time")
    })
    .await;
    let log = chained.log.take();
    let of_acme: Vec<&String> = log.iter().filter(|line| line.contains(&format!("{target}: failed"))).collect();
    assert_eq!(of_acme.len(), 3, "{log:#?}");
    assert!(of_acme[0].contains("failed, try 1 of 3; again in 0.0 s: ") && of_acme[1].contains("try 2 of 3"));
    assert!(of_acme[2].contains("relation \"more\" already exists"), "{}", of_acme[2]);
    // The other one followed.
    assert_eq!(chained.versions("globex").await, ["1", "2"]);
    let solution = chained.town.open().await;
    let failed = solution.failed_messages().await.unwrap();
    assert_eq!((failed.len(), failed[0].tenant(), failed[0].attempts), (1, Some("acme"), 3));
    assert!(failed[0].error.contains("already exists"), "{}", failed[0].error);
    let standing = "select state || ' ' || error from control.targets where tenant = 'acme'";
    let standing = chained.control_column(standing).await.remove(0);
    assert!(standing.starts_with("failed cannot apply 2_more") && standing.contains("already exists"), "{standing}");
    assert_eq!(chained.run().await, Vec::<String>::new(), "nobody tries again by himself");

    // Started by hand while it is not mended it fails again.
    assert_eq!(solution.start_failed_messages(Some("globex")).await.unwrap(), 0);
    assert_eq!(solution.start_failed_messages(Some("acme")).await.unwrap(), 1);
    until_async(async || {
        chained.run_of(&solution).await;
        chained.log.has("failed for the last time")
    })
    .await;
    // Mended, and brought there by whatever way, it is settled.
    acme.execute_all("drop table more").await.unwrap();
    let message = Message::ApplyDatabaseMigrations(ApplyDatabaseMigrations {
        service: chained.trip.clone(),
        tenant: Some("acme".to_owned()),
    });
    let transport = TableTransport::of(&solution);
    transport.publish(&[Draft { id: "by hand".to_owned(), message }]).await.unwrap();
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1", "2"]);
    assert!(solution.failed_messages().await.unwrap().is_empty());
    let states = "select state from control.targets where tenant = 'acme'";
    assert_eq!(chained.control_column(states).await, ["current"]);
}

#[tokio::test]
async fn what_a_killed_handler_had_taken_is_handled_by_the_next_and_once_in_effect() {
    let chained = Chained::new().await;
    chained.tenant("acme").await;
    chained.run().await;
    chained.file("migrations/2_more.sql", "alter table things add column more int;");
    chained.migrate().await;
    // It comes as far as the table that somebody has locked.
    let acme = chained.town.superuser(&chained.town.service("acme")).await;
    acme.execute_all("begin; lock table things").await.unwrap();
    let solution = chained.town.open().await;
    let log = chained.log.clone();
    let killed = tokio::spawn(async move {
        let options = ChainOptions::of(&solution, Until::Stopped);
        solution.run_chain(&options, &Stop::default(), &log, &silent()).await
    });
    let waits = "select 1 from pg_locks where not granted and relation = 'things'::regclass";
    until_async(async || !column(&acme, waits).await.is_empty()).await;
    killed.abort();
    assert!(killed.await.unwrap_err().is_cancelled());
    acme.execute_all("commit").await.unwrap();
    until_async(async || {
        chained.run_of(&chained.town.open().await).await;
        chained.versions("acme").await == ["1", "2"]
    })
    .await;
    let taken = "select taken || ' ' || attempts || ' ' || state from control.messages where target like '%/acme'";
    assert_eq!(chained.control_column(taken).await, ["2 0 done"]);
}

#[tokio::test]
async fn two_runners_share_the_messages() {
    let chained = Chained::new().await;
    for tenant in ["a", "b", "c", "d", "e"] {
        chained.tenant(tenant).await;
    }
    let (first, second) = (chained.town.open().await, chained.town.open().await);
    let both = async || {
        futures_util::future::join(chained.run_of(&first), chained.run_of(&second)).await;
        // One may have ended while the other had the last of them.
        chained.run_of(&first).await;
        chained.log.take()
    };
    assert_eq!(both().await.len(), 5);
    chained.file("migrations/2_more.sql", "create table more (id int);");
    chained.migrate().await;
    // Two services told that they were migrated.
    assert_eq!(both().await.len(), 7);
    for tenant in ["a", "b", "c", "d", "e"] {
        assert_eq!(chained.versions(tenant).await, ["1", "2"]);
    }
    let more = "select count(*) from control.messages where state <> 'done' or taken <> 1 or attempts <> 0";
    assert_eq!(chained.control_column(more).await, ["0"]);
}

#[tokio::test]
async fn a_tenant_that_was_left_half_made_is_finished_and_a_finished_one_left_alone() {
    let chained = Chained::new().await;
    let solution = chained.town.open().await;
    let new = |name: &str| NewTenant {
        name: name.to_owned(),
        display_name: None,
        properties: BTreeMap::new(),
        home: Home::Own { services: Vec::new(), server: None },
    };
    let made = solution.create_tenants(&[new("acme"), new("globex")], 1, &silent(), &|_, _| ()).await.unwrap();
    assert!(made.iter().all(Result::is_ok));
    let told = |log: Vec<String>| log.iter().filter(|line| line.contains("TenantCreated")).cloned().collect::<Vec<_>>();
    let log = told(chained.run().await);
    assert!(log.len() == 2 && log.iter().all(|line| line.contains(": nothing to do (")), "{log:?}");
    // As a process leaves it that dies before the tenant is active.
    let half = "delete from control.tenant_strings where tenant = 'acme'; \
                delete from control.targets where tenant = 'acme'; \
                update control.tenant_databases set state = 'requested' where tenant = 'acme'; \
                update control.tenants set state = 'creating' where name = 'acme'; \
                update control.messages set state = 'waiting' where target = 'acme'";
    chained.control().await.execute_all(half).await.unwrap();
    let log = told(chained.run().await);
    assert!(log.len() == 1 && log[0].contains("TenantCreated acme: it was finished ("), "{log:?}");
    assert_eq!(solution.tenant("acme").await.unwrap().state, TenantState::Active);
    // They follow like the others.
    chained.file("migrations/2_more.sql", "create table more (id int);");
    chained.migrate().await;
    chained.run().await;
    let at = "select version || ' ' || state from control.targets where tenant <> ''";
    assert_eq!(chained.control_column(at).await, ["2 current", "2 current"]);
    // One that is on its way out follows nobody.
    chained
        .control()
        .await
        .execute_all("update control.tenants set state = 'deleting' where name = 'acme'")
        .await
        .unwrap();
    let transport = TableTransport::of(&solution);
    let message = ApplyDatabaseMigrations { service: chained.trip.clone(), tenant: Some("acme".to_owned()) };
    let gone = ApplyDatabaseMigrations { service: chained.trip.clone(), tenant: Some("gone".to_owned()) };
    let drafts = [message, gone].map(|message| Draft {
        id: format!("by hand {:?}", message.tenant),
        message: Message::ApplyDatabaseMigrations(message),
    });
    transport.publish(&drafts).await.unwrap();
    let log = chained.run().await;
    assert!(log[0].contains("acme is deleting") && log[1].contains("there is no tenant gone any more"), "{log:?}");
    transport.stop().await.unwrap();
}

pub(crate) fn apply(id: &str, tenant: &str) -> Draft {
    let message = ApplyDatabaseMigrations { service: "trip".to_owned(), tenant: Some(tenant.to_owned()) };
    Draft { id: id.to_owned(), message: Message::ApplyDatabaseMigrations(message) }
}

fn ids(received: &[Received]) -> Vec<&str> {
    received.iter().map(|received| received.id.as_str()).collect()
}

#[tokio::test]
async fn of_a_target_s_messages_one_is_out_at_a_time_in_their_order() {
    let chained = Chained::new().await;
    let solution = chained.town.open().await;
    let (one, two) = (TableTransport::of(&solution), TableTransport::of(&solution));
    let drafts = [apply("1", "acme"), apply("2", "acme"), apply("3", "globex"), apply("1", "other")];
    one.publish(&drafts).await.unwrap();
    one.publish(&drafts).await.unwrap();
    let first = one.receive(10).await.unwrap();
    assert_eq!(ids(&first), ["1", "3"]);
    assert_eq!((&first[0].message, first[0].attempt), (&drafts[0].message, 1));
    assert!(two.receive(10).await.unwrap().is_empty());
    // One that failed keeps those behind it waiting.
    assert!(one.retry(&first[0], Duration::from_mins(10), "no").await.unwrap());
    assert!(two.receive(10).await.unwrap().is_empty());
    chained.control().await.execute_all("update control.messages set not_before = now()").await.unwrap();
    let again = two.receive(1).await.unwrap();
    assert_eq!((ids(&again), again[0].attempt), (vec!["1"], 2));
    // Who has not got it any more changes nothing.
    assert!(!one.fail(&first[0], "late").await.unwrap());
    assert!(two.give_back(&again[0]).await.unwrap());
    let again = two.receive(1).await.unwrap();
    assert_eq!((ids(&again), again[0].attempt), (vec!["1"], 2));
    // What follows comes with the end of it, once.
    let following = [apply("4", "acme"), apply("3", "globex")];
    assert!(two.ack(&again[0], &following, "done").await.unwrap());
    assert!(!two.ack(&again[0], &[apply("5", "acme")], "done").await.unwrap());
    assert_eq!(ids(&two.receive(10).await.unwrap()), ["2"]);
    let all = "select cause || ' ' || state from control.messages order by id";
    assert_eq!(chained.control_column(all).await, ["1 done", "2 running", "3 running", "4 waiting"]);
    // The session of the first ends, as when it dies.
    one.stop().await.unwrap();
    until_async(async || ids(&two.receive(10).await.unwrap()) == ["3"]).await;
    assert!(!one.ack(&first[1], &[], "late").await.unwrap());
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}

#[tokio::test]
async fn one_over_which_everybody_dies_is_set_aside_and_so_is_one_that_nobody_can_read() {
    let chained = Chained::new().await;
    let solution = chained.town.open().await;
    let transport = TableTransport::of(&solution);
    transport.publish(&[apply("1", "acme")]).await.unwrap();
    let control = chained.control().await;
    control
        .execute_all(
            "update control.messages set state = 'running', worker = 1, taken = 10; \
             insert into control.messages (kind, cause, target, body) values ('TenantCreated', 'x', 'x', '{}')",
        )
        .await
        .unwrap();
    assert!(transport.receive(10).await.unwrap().is_empty());
    let errors = column(&control, "select state || ': ' || error from control.messages order by id").await;
    assert_eq!(errors[0], "failed: whoever handled it has died, 10 times");
    assert!(
        errors[1].starts_with("failed: a message TenantCreated cannot be read: missing field `tenant`"),
        "{errors:?}"
    );
    assert_eq!(solution.failed_messages().await.unwrap().len(), 1);
    // What is done and long past is forgotten, what failed is not.
    control
        .execute_all(
            "update control.messages set ended_at = now() - interval '31 days'; \
                      update control.messages set state = 'done' where cause = 'x'",
        )
        .await
        .unwrap();
    transport.tidy().await.unwrap();
    assert_eq!(column(&control, "select cause from control.messages").await, ["1"]);
    transport.stop().await.unwrap();
}

#[tokio::test]
async fn the_command_is_run_once_for_each_change_of_a_string_and_never_gets_the_string() {
    let hook =
        "after_connection_string_updated = \"env | grep ^PGFLEET_ | sort | tr '\\\\n' ' ' >> hook; echo >> hook\"";
    let chained = Chained::with(15, hook).await;
    chained.tenant("acme").await;
    chained.run().await;
    let file = chained.town.folder.path().join("hook");
    assert!(!file.exists(), "what a tenant is made with is no change");
    let solution = chained.town.open().await;
    let set = async |connection: &str, short: &str| {
        let text = format!("dbname={}", chained.town.service(short));
        solution.set_connection("acme", string(connection, text), UNSEEN, &silent()).await.unwrap();
    };
    set(&chained.trip, "second").await;
    chained.run().await;
    assert_eq!(chained.versions("second").await, ["1"], "made, migrated");
    let said = |connection: &str| format!("PGFLEET_CONNECTION={connection} PGFLEET_TENANT=acme ");
    let lines = || std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(), [said(&chained.trip)]);
    set("", "third").await;
    set("", "fourth").await;
    chained.run().await;
    // The default leads nobody now; the changes were two.
    assert_eq!(lines(), [said(&chained.trip), said(""), said("")]);
    assert!(chained.messages().await.last().unwrap().contains("it leads no service's data; the command was run"));
    chained.run().await;
    assert_eq!(lines().len(), 3);
    // The database is known now, to pgfleet and to the tenant.
    let acme = solution.tenant("acme").await.unwrap();
    let own = acme.strings.iter().find(|string| string.connection == chained.trip).unwrap();
    assert_eq!(own.physical.as_ref().unwrap().database, chained.town.service("second"));
    solution.unset_connection("acme", "").await.unwrap();
    assert_eq!(chained.run().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_command_that_fails_has_the_message_tried_again() {
    let hook = "after_connection_string_updated = \"echo x >> hook; test $(wc -l < hook) -ge 3\"";
    let chained = Chained::with(15, hook).await;
    chained.tenant("acme").await;
    chained.run().await;
    let solution = chained.town.open().await;
    let text = format!("dbname={}", chained.town.service("second"));
    solution.set_connection("acme", string("", text), UNSEEN, &silent()).await.unwrap();
    until_async(async || {
        chained.run_of(&solution).await;
        chained.log.has("the command was run")
    })
    .await;
    let tries: Vec<String> = chained.log.take().into_iter().filter(|line| line.contains("exit status: 1")).collect();
    assert_eq!(tries.len(), 2, "{tries:?}");
}

#[tokio::test]
async fn a_string_to_a_database_of_somebody_else_s_is_refused() {
    let chained = Chained::new().await;
    chained.tenant("acme").await;
    chained.migrate().await;
    chained.run().await;
    let solution = chained.town.open().await;
    for (tenant, text, why) in [
        ("own", format!("dbname={}", chained.town.service("user")), "the host database of service"),
        ("other", format!("dbname={}", chained.town.service("acme")), "is tenant acme's already"),
    ] {
        solution.create_tenant(tenant, None, &[string("", text)], UNSEEN, &silent()).await.unwrap();
        until_async(async || {
            chained.run_of(&solution).await;
            chained.log.has("failed for the last time")
        })
        .await;
        let log = chained.log.take();
        assert!(log.last().unwrap().contains(why), "{log:#?}");
    }
}

#[tokio::test]
async fn where_tenants_are_always_seeded_every_run_has_them_seeded() {
    let chained = Chained::with(15, "always_seed = true").await;
    chained.file("seeds/2_again.sql", "insert into things (name) values ('seeded');");
    chained.tenant("acme").await;
    chained.run().await;
    let seeded = "select count(*) from things";
    let before = chained.tenant_column("acme", seeded).await;
    chained.migrate().await;
    chained.run().await;
    chained.migrate().await;
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1"]);
    let applied = "select count(*) from control.messages where kind like 'Applied%' and target like '%trip'";
    assert_eq!(chained.control_column(applied).await, ["2"], "one for each run, also for that which applied nothing");
    let count = |column: Vec<String>| column[0].parse::<u32>().unwrap();
    assert_eq!(count(chained.tenant_column("acme", seeded).await), count(before) + 2);
}

#[tokio::test]
async fn a_rollout_that_is_under_way_brings_the_tenants_along() {
    let chained = Chained::new().await;
    chained.tenant("acme").await;
    chained.run().await;
    let control = chained.control().await;
    let rollout = format!(
        "insert into control.rollouts (plan, what, state, concurrency, canary, max_failures, os_user, host) \
         values ('p', '{{}}', 'paused', 1, 1, 1, 'me', 'here'); \
         insert into control.rollout_targets (rollout, position, wave, kind, server, database, tenant, services) \
         select id, 1, 1, 'tenant', 'main', 'x', 'acme', array['{}'] from control.rollouts",
        chained.trip
    );
    control.execute_all(&rollout).await.unwrap();
    chained.migrate().await;
    chained.run().await;
    let last = chained.messages().await.pop().unwrap();
    assert_eq!(last, "AppliedDatabaseMigrations trip done: rollout 1, which is paused, brings the tenants there");
    control.execute_all("update control.rollouts set state = 'done'").await.unwrap();
    chained.file("migrations/2_more.sql", "create table more (id int);");
    chained.migrate().await;
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1", "2"]);
}

#[tokio::test]
async fn the_host_can_be_asked_for_by_a_message_and_tenants_follow() {
    let chained = Chained::new().await;
    chained.tenant("acme").await;
    chained.run().await;
    chained.file("migrations/2_more.sql", "create table more (id int);");
    let solution = chained.town.open().await;
    let transport = TableTransport::of(&solution);
    let host = |id: &str, service: &str| {
        let message = ApplyDatabaseMigrations { service: service.to_owned(), tenant: None };
        Draft { id: id.to_owned(), message: Message::ApplyDatabaseMigrations(message) }
    };
    transport.publish(&[host("1", &chained.trip)]).await.unwrap();
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1", "2"]);
    // Nothing changed, nothing follows.
    let count = chained.messages().await.len();
    transport.publish(&[host("2", &chained.trip), host("3", "nobody")]).await.unwrap();
    until_async(async || {
        chained.run_of(&solution).await;
        chained.log.has("failed for the last time: there is no service `nobody`")
    })
    .await;
    assert_eq!(chained.messages().await.len(), count + 2);
    transport.stop().await.unwrap();
}

#[tokio::test]
async fn a_chain_that_is_stopped_gives_back_what_it_has() {
    let chained = Chained::new().await;
    chained.tenant("acme").await;
    chained.run().await;
    chained.file("migrations/2_more.sql", "alter table things add column more int;");
    chained.migrate().await;
    let acme = chained.town.superuser(&chained.town.service("acme")).await;
    acme.execute_all("begin; lock table things").await.unwrap();
    let solution = chained.town.open().await;
    let stop = Stop::default();
    let (log, asked) = (chained.log.clone(), stop.clone());
    let running = tokio::spawn(async move {
        let options = ChainOptions::of(&solution, Until::Stopped);
        solution.run_chain(&options, &asked, &log, &silent()).await
    });
    let waits = "select 1 from pg_locks where not granted and relation = 'things'::regclass";
    until_async(async || !column(&acme, waits).await.is_empty()).await;
    stop.ask();
    acme.execute_all("commit").await.unwrap();
    running.await.unwrap().unwrap();
    let left = "select state || ' ' || attempts from control.messages where target like '%/acme'";
    let left = chained.control_column(left).await;
    assert!(left == ["waiting 0"] || left == ["done 0"], "{left:?}");
    chained.run().await;
    assert_eq!(chained.versions("acme").await, ["1", "2"]);
}

/// Asks again and again until something holds.
async fn until_async(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
