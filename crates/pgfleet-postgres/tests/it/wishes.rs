//! Settings that not every server takes.

use pgfleet_local::testing::TestServer;
use pgfleet_postgres::{Address, Connection, ErrorKind, Purpose, connect};

async fn shown(connection: &Connection, setting: &str) -> String {
    connection.simple(&format!("SHOW {setting}")).await.unwrap()[0].get(0).unwrap().to_owned()
}

#[tokio::test]
async fn a_wish_is_left_out_where_the_server_does_not_take_it() {
    let address = Address::parse(&TestServer::shared().await.superuser_url("postgres")).unwrap();
    let purpose = Purpose::new("test")
        .setting("lock_timeout", "7s")
        .wish("client_connection_check_interval", "9s")
        .wish("no_such_setting_at_all", "1")
        .wish("work_mem", "a lot");
    let connection = connect(&address, &purpose).await.unwrap();
    assert_eq!(shown(&connection, "lock_timeout").await, "7s");
    assert_eq!(shown(&connection, "client_connection_check_interval").await, "9s");
    connection.execute_all("SET client_connection_check_interval = 0; SET lock_timeout = 0; RESET ALL").await.unwrap();
    assert_eq!(shown(&connection, "client_connection_check_interval").await, "9s");
    assert_eq!(shown(&connection, "lock_timeout").await, "7s");
    assert_eq!(connection.restore_sql(), "");
}

#[tokio::test]
async fn a_setting_that_the_server_does_not_take_is_an_error() {
    let address = Address::parse(&TestServer::shared().await.superuser_url("postgres")).unwrap();
    for (name, value, code) in [("no_such_setting_at_all", "1", "42704"), ("lock_timeout", "soon", "22023")] {
        let error = connect(&address, &Purpose::new("test").setting(name, value)).await.unwrap_err();
        assert_eq!((error.kind(), error.sql_state()), (ErrorKind::Unreachable, Some(code)));
    }
}
