//! `pgfleet tenant move`: its words, its exit codes, and what it asks.

use pgfleet_local::testing::TestServer;

use crate::support::Solution;

#[tokio::test]
async fn a_tenant_is_moved_shown_and_moved_back() {
    let mut solution = Solution::new().await;
    solution.folder.set("PGFLEET_CONTROL__SERVER", "main");
    let trip = solution.name("trip");
    let second = TestServer::shared_version(18).await.superuser_url("postgres");
    solution.manifest(&format!(
        "[servers.second]\nurl = \"{second}\"\n[services.{trip}]\nserver = \"main\"\ntenants = \"own\"\n\
         [tenants]\nservers = [\"main\", \"second\"]\n"
    ));
    solution.pgfleet("provision").exits(0);
    solution.pgfleet("tenant create acme --server main").exits(0);
    solution.pgfleet("tenant move acme").exits(2).says("--server");
    solution.pgfleet("tenant move acme --server second --back").exits(2);
    solution.pgfleet("tenant move acme --server second --keep 3").exits(2).says("write 12h, 30d or 1d12h");
    solution.pgfleet("tenant move acme --server third").exits(3).says("there is no server `third` in the manifest");
    solution
        .pgfleet("tenant move acme --server second --keep 30d")
        .exits(0)
        .says("acme: fence (")
        .says("acme: copy (")
        .says("acme: compare (")
        .says("moved tenant acme from main/")
        .says("the same in both; main/");
    solution.pgfleet("tenant move acme --server second").exits(0).says("tenant acme is there already: nothing to do");
    let shown = solution.pgfleet("tenant move acme --status --json").exits(0).json();
    assert_eq!((&shown[0]["state"], &shown[0]["keep_seconds"]), (&"done".into(), &(30 * 86_400).into()));
    solution.pgfleet("tenant move acme --status").exits(0).prints("second/").says("1 move");
    solution.pgfleet("tenant move acme --cancel").exits(1).says("no move of tenant acme is unfinished");
    solution.pgfleet("tenant move acme --back").exits(0).says("moved tenant acme from second/");
    // As if somebody had given it: then it is not pgfleet's to drop, and somebody has to know.
    let forget =
        "update control.tenant_strings set server = ''; delete from control.tenant_databases where server = 'main'";
    solution.column("control", forget).await;
    solution
        .pgfleet("tenant move acme --server second")
        .exits(2)
        .says("is never dropped by pgfleet")
        .says("hint: answer with --yes");
    solution.pgfleet("--yes tenant move acme --server second").exits(0).says("pgfleet did not make main/");
}
