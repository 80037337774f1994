//! Servers of a test's own.

use pgfleet_local::StopMode;
use pgfleet_local::testing::OwnServer;

use crate::shared::connect;

#[tokio::test]
async fn a_server_of_its_own_goes_away_with_its_test() {
    let mut server = OwnServer::start(|options| {
        options.settings.push(("wal_level".to_owned(), "logical".to_owned()));
        "it's/ours@x".clone_into(&mut options.password);
    })
    .await
    .unwrap();
    let client = connect(&server.superuser_url("postgres")).await;
    let row = client.query_one("SHOW wal_level", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "logical");
    server.stop(StopMode::Immediate).unwrap();
    assert!(server.ensure_running().unwrap().started);
    let running = server.running().clone();
    drop(server);
    assert!(!running.data_dir.exists() && !running.socket_dir.exists());
}
