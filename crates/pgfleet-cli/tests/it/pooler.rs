//! Servers behind a PgBouncer.

use pgfleet_local::testing::{PoolMode, Pooler};

use crate::support::{Bare, Solution};

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_a_mistake_of_configuration() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "create table a (id int);");
    for ignored in ["", "extra_float_digits,options"] {
        let pooler =
            Pooler::start(&bare.database.url(), |options| options.ignore_startup_parameters = ignored.to_owned()).await;
        let url = pooler.url(&bare.database.url());
        let ran = bare.folder.run(&["migrate", "--url", &url, "--dir", "m"]).exits(3);
        let said = ran.plain(&bare.database.name).replace(&pooler.port().to_string(), "6432");
        assert_eq!(
            said,
            "error: cannot lock db\n  \
             caused by: a pooler in transaction mode stands before database db on 127.0.0.1:6432\n  \
             caused by: two connections were given the same session of the server; the lock that keeps two runs apart \
             and the settings of a run belong to one session\n\
             hint: give the server's own address: `direct = \"postgresql://host:port\"` in [servers.NAME] of the \
             manifest, or as --url; or let the pooler keep sessions (PgBouncer: pool_mode = session)\n"
        );
        bare.folder.run(&["migrate", "--url", &url, "--dir", "m", "--check"]).exits(5);
    }
    assert!(bare.versions().await.is_empty() && bare.tables().await.is_empty());
    bare.migrate(&[]).exits(0);
}

#[tokio::test]
async fn a_pooler_in_session_mode_will_do() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "create table a (id int);");
    let pooler = Pooler::start(&bare.database.url(), |options| options.mode = PoolMode::Session).await;
    let url = pooler.url(&bare.database.url());
    bare.folder.run(&["migrate", "--url", &url, "--dir", "m"]).exits(0).says("applied 1, now at 1");
    assert_eq!(bare.versions().await, ["1"]);
}

#[tokio::test]
async fn with_the_servers_own_address_everything_works_and_services_get_the_poolers() {
    let mut solution = Solution::new().await;
    let superuser = solution.server.superuser_url("postgres");
    let pooler = Pooler::start(&superuser, |options| options.ignore_startup_parameters.clear()).await;
    solution.folder.set("PGFLEET_SERVERS__MAIN__URL", pooler.url(&superuser));
    // The control database comes first, and the pooler knows none that is not there.
    solution.pgfleet("provision").exits(1).says("hint: this is a pooler's answer").says("`direct` in [servers.NAME]");

    let direct = format!("postgresql://127.0.0.1:{}", solution.server.port());
    solution.folder.set("PGFLEET_SERVERS__MAIN__DIRECT", &direct);
    solution.pgfleet("provision").exits(0);
    solution.pgfleet("migrate --wait").exits(0).says("2 databases: 2 changed");
    solution.pgfleet("status --check").exits(0);
    solution.pgfleet("revert --service {}_trip --steps 1").exits(0);
    solution.pgfleet("migration mark-applied 1 --service {}_trip").exits(0);
    solution.pgfleet("migration forget 1 --service {}_trip").exits(0);
    solution.pgfleet("migrate").exits(0).says("2 databases: 1 changed");
    solution.pgfleet("seed").exits(0);
    solution.pgfleet("isolation verify").prints("own");
    solution.pgfleet("provision").exits(0).says("nothing to do");

    let trip = solution.name("trip");
    let port = |role: &str| {
        let ran = solution.folder.run(&["psql", &trip, "--role", role, "--", "-Atc", "\\echo :PORT"]).exits(0);
        ran.out.trim_end().parse::<u16>().unwrap()
    };
    let ports = ["app", "readonly", "migrator"].map(port);
    assert_eq!(ports, [pooler.port(), pooler.port(), solution.server.port()]);

    // What would be done through the pooler is refused.
    solution.folder.set("PGFLEET_SERVERS__MAIN__DIRECT", "");
    let (trips, more) = (solution.name("trip"), "create table more (id int);");
    solution.folder.file(&format!("services/{trips}/migrations/2_more.sql"), more);
    solution.pgfleet("status").exits(0);
    solution
        .pgfleet("migrate")
        .exits(3)
        .says("a pooler in transaction mode")
        .says("hint: give the server's own address");
    solution.folder.set("PGFLEET_SERVERS__MAIN__DIRECT", direct);
    solution.pgfleet("migrate").exits(0).says("2 databases: 1 changed");
}
