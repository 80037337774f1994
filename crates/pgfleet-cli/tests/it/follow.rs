//! Tenants follow the services that `up` runs.

use crate::support::{Solution, until};

/// A solution whose services are stopped at the end, also when the test fails.
struct Town(Solution);

impl std::ops::Deref for Town {
    type Target = Solution;

    fn deref(&self) -> &Solution {
        &self.0
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let _stopped = self.0.folder.command(&["down"]).output();
    }
}

/// A solution with one service that has data in tenants' databases; its program is `run`.
async fn solution(run: &str) -> Town {
    let solution = Solution::new().await;
    let trip = solution.name("trip");
    let url = format!("$PGFLEET_{}_MIGRATOR_URL", trip.to_uppercase());
    let migrate =
        format!("{} migrate --url $URL --dir services/{trip}/migrations --set {trip}", env!("CARGO_BIN_EXE_pgfleet"));
    let run = run.replace("MIGRATE", &migrate.replace("$URL", &url));
    solution.manifest(&format!("[services.{trip}]\ntenants = \"own\"\nrun = \"{run}\"\n"));
    Town(solution)
}

/// The versions that the control database remembers of tenants' databases.
async fn versions(solution: &Solution) -> Vec<String> {
    let sql = "select version from control.targets where tenant <> '' and state = 'current' order by tenant";
    solution.column("control", sql).await
}

#[tokio::test]
async fn tenants_follow_a_service_that_migrates_itself_when_it_starts() {
    let solution = solution("while test ! -e go; do sleep 0.05; done; MIGRATE; exec sleep 600").await;
    solution.pgfleet("up --detach").exits(0);
    solution.pgfleet("tenant create acme --connection dbname={}_acme --no-check").exits(0);
    until("acme was made", async || versions(&solution).await == ["1"]).await;
    solution.pgfleet("tenant create globex --connection dbname={}_globex --no-check").exits(0);
    until("globex was made", async || versions(&solution).await == ["1", "1"]).await;

    let trip = solution.name("trip");
    solution.folder.file(&format!("services/{trip}/migrations/2_more.sql"), "create table more (id int);\n");
    solution.folder.file("go", "");
    until("both follow", async || versions(&solution).await == ["2", "2"]).await;
    assert_eq!(solution.column("acme", "select count(*) from more").await, ["0"]);
    let log = std::fs::read_to_string(solution.folder.path().join(".pgfleet/run/.supervisor.log")).unwrap();
    assert!(log.contains(&format!("tenants: AppliedDatabaseMigrations {trip}: 2 tenants follow (")), "{log}");
    assert!(log.contains(&format!("tenants: ApplyDatabaseMigrations {trip}/acme: {trip}/acme: applied 1 (")), "{log}");
    solution.pgfleet("down").exits(0);
}

#[tokio::test]
async fn what_is_left_when_all_services_have_ended_is_done_before_up_ends() {
    let solution = solution("true").await;
    solution.pgfleet("up").exits(0).says("all services have ended");
    solution.pgfleet("tenant create acme --connection dbname={}_acme --no-check").exits(0);
    solution.pgfleet("up").exits(0).says("tenants: TenantCreated acme: ");
    assert_eq!(versions(&solution).await, ["1"]);
    let trip = solution.name("trip");
    solution.folder.file(&format!("services/{trip}/migrations/2_more.sql"), "create table more (id int);\n");
    solution.pgfleet("up").exits(0).says("/acme: applied 1");
    assert_eq!(versions(&solution).await, ["2"]);
    solution.pgfleet("up").exits(0).says_nothing_of("tenants: ");
}
