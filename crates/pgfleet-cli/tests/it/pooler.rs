//! Servers behind a PgBouncer.

use pgfleet_local::testing::{PoolMode, Pooler};

use crate::support::Bare;

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
