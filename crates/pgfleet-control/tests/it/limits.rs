//! The connection limits of the application roles.

use crate::support::{Admin, Town};

async fn limits(town: &Town) -> Vec<(String, i64)> {
    let rows = town
        .superuser("postgres")
        .await
        .simple(&format!(
            "select replace(rolname, '{0}_', ''), rolconnlimit from pg_roles where rolname like '{0}\\_%' \
             and rolname not like '%dba' and rolconnlimit <> -1 order by 1",
            town.anchor.name
        ))
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0).unwrap().to_owned(), row.get(1).unwrap().parse().unwrap())).collect()
}

fn set(town: &Town, server: &str, trip: &str) {
    town.write_manifest("", trip);
    let path = town.folder.path().join("pgfleet.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[servers.main]\n", &format!("[servers.main]\n{server}\n"))).unwrap();
}

#[tokio::test]
async fn the_budget_of_a_server_is_shared_out_by_the_size_of_the_pools() {
    for (major, admin) in [(15, Admin::Superuser), (15, Admin::Creator), (18, Admin::Creator)] {
        let town = Town::new(major, admin).await;
        set(&town, "budget = 90", "pool = { max = 40 }");
        town.provision().await;
        let expected = [("trip_app".to_owned(), 60), ("user_app".to_owned(), 30)];
        assert_eq!(limits(&town).await, expected, "{major} {admin:?}");
        set(&town, "budget = 30", "pool = { max = 40 }");
        let mut solution = town.open().await;
        let done = solution.provision(false).await.unwrap();
        assert_eq!(done[0].statements.len(), 2, "{:?}", done[0].statements);
        assert!(
            done[0].notes[0].contains("want 60 connections") && done[0].notes[0].contains("has 30"),
            "{:?}",
            done[0].notes
        );
        assert_eq!(limits(&town).await, [("trip_app".to_owned(), 20), ("user_app".to_owned(), 10)]);
        assert_eq!(town.provision().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn without_a_number_it_is_what_the_server_has_and_the_limit_holds() {
    let town = Town::new(15, Admin::Superuser).await;
    let mut solution = town.open().await;
    solution.provision(false).await.unwrap();
    let server = town.superuser("postgres").await;
    let number = async |name: &str| -> u32 {
        server.simple(&format!("show {name}")).await.unwrap()[0].get(0).unwrap().parse().unwrap()
    };
    let free = number("max_connections").await - number("superuser_reserved_connections").await;
    let budget = free - free / 10;
    let expected = i64::from(budget / 2);
    assert_eq!(limits(&town).await, [("trip_app".to_owned(), expected), ("user_app".to_owned(), expected)]);
    let trip = solution.manifest.service(&town.service("trip")).unwrap();
    let limit = budget / 2;
    assert_eq!(solution.share(trip), Some(limit - limit.div_ceil(10)), "the rest is for others");

    set(&town, "budget = 2", "");
    town.provision().await;
    let solution = town.open().await;
    let trip = solution.manifest.service(&town.service("trip")).unwrap();
    let address = solution.address(trip, pgfleet_control::roles::Login::App).unwrap();
    let purpose = pgfleet_postgres::Purpose::new("test");
    let first = pgfleet_postgres::connect(&address, &purpose).await.unwrap();
    let second = pgfleet_postgres::connect(&address, &purpose).await.unwrap_err();
    assert_eq!(second.sql_state(), Some("53300"), "{second}");
    first.close().await;
}
