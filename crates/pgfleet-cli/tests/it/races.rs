//! Interrupted, killed, and many at once.

use nix::sys::signal::Signal;

use crate::support::{Bare, Ran, Solution, column, signal, until};

const SLEEPS: &str = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

impl Bare {
    /// Starts a run whose second migration sleeps, and waits until it does.
    async fn asleep(&self) -> std::process::Child {
        self.file("1_quick.sql", "create table quick (id int);\n");
        self.file("2_slow.sql", "create table slow (id int);\nselect pg_sleep(30);\n");
        let child = self.folder.spawn(&self.arguments(&[]));
        until("the second migration sleeps", async || !self.column(SLEEPS).await.is_empty()).await;
        child
    }
}

#[tokio::test]
async fn ctrl_c_rolls_back_what_runs_and_ends_with_130() {
    let bare = Bare::new().await;
    let child = bare.asleep().await;
    signal(child.id(), Signal::SIGINT);
    let ran = Ran::end_of(child).exits(130);
    assert!(ran.took < std::time::Duration::from_secs(10), "{:?}", ran.took);
    ran.says("stopping after rolling back what runs");
    assert!(bare.column(SLEEPS).await.is_empty(), "nothing works on the server any more");
    assert!(!bare.tables().await.contains(&"slow".to_owned()), "rolled back");
    bare.file("2_slow.sql", "create table slow (id int);\n");
    bare.migrate(&[]).exits(0).says("now at 2");
    assert_eq!(bare.versions().await, ["1", "2"]);
    assert_eq!(bare.tables().await, ["quick", "slow"]);
}

#[tokio::test]
async fn a_second_ctrl_c_does_not_wait() {
    let bare = Bare::new().await;
    let child = bare.asleep().await;
    signal(child.id(), Signal::SIGTERM);
    signal(child.id(), Signal::SIGINT);
    Ran::end_of(child).exits(130);
}

/// The server looks every ten seconds whether its client is still there, also behind a file whose
/// settings were reset.
#[tokio::test]
async fn what_a_killed_run_had_under_way_ends_on_the_server_and_lets_the_next_run_in() {
    let (bare, alone) = (Bare::new().await, Bare::new().await);
    let mut killed = Vec::new();
    for (bare, head) in [(&bare, ""), (&alone, "-- pgfleet: no-transaction\n")] {
        bare.file("1_quick.sql", "create table quick (id int);\nset client_connection_check_interval = 0;\n");
        bare.file("2_slow.sql", format!("{head}select pg_sleep(600);\n"));
        bare.file("3_next.sql", "create table next (id int);\n");
        let mut child = bare.folder.spawn(&bare.arguments(&[]));
        until("the second migration sleeps", async || !bare.column(SLEEPS).await.is_empty()).await;
        signal(child.id(), Signal::SIGKILL);
        child.wait().unwrap();
        killed.push(child);
    }
    bare.file("2_slow.sql", "select 1;\n");
    bare.migrate(&[]).exits(0).says("applied 2, now at 3");
    assert_eq!(bare.versions().await, ["1", "2", "3"]);
    until("the file without a transaction has ended", async || alone.column(SLEEPS).await.is_empty()).await;
    assert_eq!(alone.versions().await, ["1"]);
}

#[tokio::test]
async fn after_a_kill_in_the_middle_everything_is_applied_once() {
    let bare = Bare::new().await;
    bare.file("1_quick.sql", "create table quick (id int);\n");
    bare.file("2_slow.sql", "create table slow (id int);\ninsert into slow values (1);\nselect pg_sleep(1);\n");
    let mut child = bare.folder.spawn(&bare.arguments(&[]));
    until("the second migration sleeps", async || !bare.column(SLEEPS).await.is_empty()).await;
    signal(child.id(), Signal::SIGKILL);
    child.wait().unwrap();
    // The server notices the loss of its client when it has something to say, or looks after ten
    // seconds: until then the dead run holds the lock, and whether its message ends in a commit is
    // open.
    bare.migrate(&[]).exits(0).says("at 2");
    assert_eq!(bare.versions().await, ["1", "2"]);
    assert_eq!(bare.column("SELECT count(*) FROM slow").await, ["1"]);
    bare.migrate(&["--check"]).exits(0).says("nothing to do, at 2");
}

async fn ten_at_once(bare: &Bare, url: &str) {
    for number in 1..=5 {
        let text = format!("create table t{number} (id int);\ninsert into t{number} values (1);\n");
        bare.file(&format!("{number}_t{number}.sql"), text);
    }
    let children: Vec<_> = (0..10).map(|_| bare.folder.spawn(&["migrate", "--url", url, "--dir", "m"])).collect();
    let mut applied = 0;
    for child in children {
        let ran = Ran::end_of(child).exits(0);
        applied += usize::from(ran.err.contains(": applied 5"));
    }
    assert_eq!(applied, 1, "one did the work");
    assert_eq!(column(url, "select version from pgfleet.main_migrations order by 1").await, ["1", "2", "3", "4", "5"]);
    for number in 1..=5 {
        assert_eq!(column(url, &format!("select count(*) from t{number}")).await, ["1"]);
    }
}

#[tokio::test]
async fn ctrl_c_in_one_service_leaves_the_others_whole() {
    let solution = Solution::new().await;
    solution.pgfleet("migrate").exits(0);
    let (trip, user) = (solution.name("trip"), solution.name("user"));
    solution
        .folder
        .file(&format!("services/{trip}/migrations/2_slow.sql"), "create table half (id int);\nselect pg_sleep(30);\n");
    solution.folder.file(&format!("services/{user}/migrations/2_more.sql"), "create table more (id int);\n");
    let child = solution.folder.spawn(&["migrate", "--json"]);
    until("one sleeps and the other is done", async || {
        !solution.column("trip", SLEEPS).await.is_empty()
            && solution.column("user", "select to_regclass('more')").await == ["more"]
    })
    .await;
    signal(child.id(), Signal::SIGINT);
    let ran = Ran::end_of(child).exits(130);
    assert_eq!(ran.json().as_array().unwrap().len(), 2, "the document is whole");
    assert_eq!(solution.column("trip", "select to_regclass('half')").await, ["NULL"]);
    solution.pgfleet("status --check").exits(5);
    solution.folder.file(&format!("services/{trip}/migrations/2_slow.sql"), "create table half (id int);\n");
    solution.pgfleet("migrate").exits(0).says("1 changed, 1 up to date");
}

#[tokio::test]
async fn ten_runs_at_once_apply_each_migration_once() {
    let bare = Bare::new().await;
    ten_at_once(&bare, &bare.database.url()).await;
}

#[tokio::test]
async fn ten_runs_at_once_make_a_missing_database_once() {
    let bare = Bare::new().await;
    let url = format!("{}_new", bare.database.url());
    ten_at_once(&bare, &url).await;
    let server = bare.database.server().superuser_url("postgres");
    column(&server, &format!("DROP DATABASE {}_new WITH (FORCE)", bare.database.name)).await;
}

#[tokio::test]
async fn five_runs_at_once_provision_and_migrate_a_solution_once() {
    let solution = Solution::new().await;
    let children: Vec<_> = (0..5).map(|_| solution.folder.spawn(&["migrate"])).collect();
    for child in children {
        Ran::end_of(child).exits(0);
    }
    assert_eq!(solution.column("trip", "select count(*) from pgfleet.\"{}_trip_migrations\"").await, ["1"]);
    assert_eq!(solution.column("trip", "select count(*) from trips").await, ["1"]);
    solution.pgfleet("isolation verify").exits(0);
}
