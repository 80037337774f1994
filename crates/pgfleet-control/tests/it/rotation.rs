//! New passwords without downtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pgfleet_control::Solution;
use pgfleet_control::isolation::verify;
use pgfleet_control::roles::Login;
use pgfleet_postgres::{Address, ErrorKind, Purpose, connect};

use crate::support::{Admin, Town};

fn address(solution: &Solution, service: &str, login: Login) -> Address {
    solution.address(solution.manifest.service(service).unwrap(), login).unwrap()
}

/// A client that reconnects for ever, with whatever is handed out at that moment.
fn client(
    shared: Arc<std::sync::Mutex<Address>>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU32>,
) -> tokio::task::JoinHandle<Result<(), String>> {
    tokio::spawn(async move {
        while !stop.load(Ordering::SeqCst) {
            let address = shared.lock().unwrap().clone();
            let connection =
                connect(&address, &Purpose::new("client")).await.map_err(|error| format!("{address}: {error:?}"))?;
            let done = connection.execute_all("insert into things (name) values ('x')").await;
            connection.close().await;
            done.map_err(|error| format!("{address}: {error:?}"))?;
            count.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    })
}

#[tokio::test]
async fn clients_that_reconnect_are_never_refused_and_the_old_password_is_in_the_end() {
    for (major, admin) in [(15, Admin::Superuser), (15, Admin::Creator), (18, Admin::Creator)] {
        let town = Town::new(major, admin).await;
        town.provision().await;
        town.migrate().await;
        let trip = town.service("trip");
        let mut solution = town.open().await;
        let old = address(&solution, &trip, Login::App);
        let held = connect(&old, &Purpose::new("held")).await.unwrap();
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        // One client never hears of the new password, the other one reads what is handed out.
        let (stale, fresh) =
            (Arc::new(std::sync::Mutex::new(old.clone())), Arc::new(std::sync::Mutex::new(old.clone())));
        let clients =
            [client(stale.clone(), stop.clone(), count.clone()), client(fresh.clone(), stop.clone(), count.clone())];
        let rotated = solution.rotate(&trip, Login::App).await.unwrap_or_else(|e| panic!("{e}: {:?}", e.causes()));
        let new = address(&solution, &trip, Login::App);
        assert_ne!(new.user(), old.user());
        assert_eq!(rotated[0].retiring.as_deref(), Some(old.user()));
        assert!(rotated[0].sessions >= 1, "{rotated:?}");
        *fresh.lock().unwrap() = new.clone();
        assert_eq!(address(&town.open().await, &trip, Login::App).user(), new.user(), "others are handed the new one");
        // While a rotation is under way nothing is out of order.
        assert_eq!(town.provision().await, Vec::<String>::new(), "{major} {admin:?}");
        let proof = verify(&town.open().await).await.unwrap();
        let pairs: Vec<_> = proof.pairs.iter().filter(|pair| pair.role == new.user()).collect();
        assert!(!pairs.is_empty() && pairs.iter().all(|pair| pair.login_answer.is_some()), "the twin is tried, too");
        let mine: Vec<_> = proof.findings.iter().filter(|f| f.message.contains(&town.anchor.name)).collect();
        assert!(mine.is_empty(), "{major} {admin:?}: {mine:?}");
        let before = count.load(Ordering::SeqCst);
        crate::support::until(|| {
            count.load(Ordering::SeqCst) > before + 20 || clients.iter().any(tokio::task::JoinHandle::is_finished)
        })
        .await;
        stop.store(true, Ordering::SeqCst);
        for client in clients {
            client.await.unwrap().unwrap_or_else(|error| panic!("{major} {admin:?}: {error}"));
        }

        // The twin is the same to the tables: current_user is the role that holds the rights.
        let twin = connect(&new, &Purpose::new("test")).await.unwrap();
        let who = twin.simple("select current_user, session_user").await.unwrap();
        assert_eq!((who[0].get(0), who[0].get(1)), (Some(old.user()), Some(new.user())));

        solution.finish_rotation(&trip, Login::App).await.unwrap_or_else(|e| panic!("{e}: {:?}", e.causes()));
        assert_eq!(connect(&old, &Purpose::new("test")).await.unwrap_err().kind(), ErrorKind::Denied);
        held.simple("select 1").await.expect("sessions of the old password stay");
        assert_eq!(town.provision().await, Vec::<String>::new());
        let proof = verify(&town.open().await).await.unwrap();
        assert!(proof.pairs.iter().all(|pair| pair.role != old.user()), "who cannot log in is not tried");
        let own = proof.pairs.iter().find(|pair| pair.role == new.user() && pair.database == trip).unwrap();
        assert_eq!(own.verdict, pgfleet_control::isolation::Verdict::Own);

        // And back: the first role gets a new password and is handed out again.
        solution.rotate(&trip, Login::App).await.unwrap();
        let third = address(&solution, &trip, Login::App);
        assert_eq!(third.user(), old.user());
        connect(&third, &Purpose::new("test")).await.unwrap();
        assert!(connect(&old, &Purpose::new("test")).await.is_err(), "with another password");
        connect(&new, &Purpose::new("test")).await.unwrap();
    }
}

#[tokio::test]
async fn a_migrator_s_twin_makes_tables_that_belong_to_the_owner() {
    for (major, admin) in [(15, Admin::Creator), (18, Admin::Superuser)] {
        let town = Town::new(major, admin).await;
        town.write_manifest("", "schema = \"rides\"");
        town.provision().await;
        let trip = town.service("trip");
        let mut solution = town.open().await;
        for login in [Login::Migrator, Login::Readonly, Login::App] {
            solution.rotate(&trip, login).await.unwrap_or_else(|e| panic!("{e}: {:?}", e.causes()));
        }
        assert!(address(&solution, &trip, Login::Migrator).user().ends_with("_migrator_b"));
        town.migrate().await;
        let inside = town.superuser(&trip).await;
        let owner =
            inside.simple("select tableowner, schemaname from pg_tables where tablename = 'things'").await.unwrap();
        assert_eq!((owner[0].get(0), owner[0].get(1)), (Some(format!("{trip}_owner").as_str()), Some("rides")));
        let app = connect(&address(&solution, &trip, Login::App), &Purpose::new("test")).await.unwrap();
        app.execute_all("insert into things (name) values ('x')").await.unwrap();
        let readonly = connect(&address(&solution, &trip, Login::Readonly), &Purpose::new("test")).await.unwrap();
        assert_eq!(readonly.simple("select * from things").await.unwrap().len(), 1);
        let refused = readonly.execute_all("delete from things").await.unwrap_err();
        assert_eq!(refused.sql_state(), Some("25006"), "read-only, as the first role is");
        assert_eq!(town.provision().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_rotation_that_stopped_in_the_middle_leaves_a_login_that_works() {
    let town = Town::new(15, Admin::Superuser).await;
    town.provision().await;
    let trip = town.service("trip");
    let mut solution = town.open().await;
    let old = address(&solution, &trip, Login::App);
    // The new password is refused: somebody has taken the twin's right to log in elsewhere.
    let postgres = town.superuser("postgres").await;
    postgres
        .execute_all(&format!(
            "create role {trip}_app_b; comment on role {trip}_app_b is 'pgfleet: solution other, service x'"
        ))
        .await
        .unwrap();
    solution.rotate(&trip, Login::App).await.unwrap_err();
    assert_eq!(address(&town.open().await, &trip, Login::App).user(), old.user());
    connect(&old, &Purpose::new("test")).await.unwrap();
    postgres.execute_all(&format!("drop role {trip}_app_b")).await.unwrap();
    // Provisioning goes on from there: the prepared password is set, and not handed out.
    town.provision().await;
    assert_eq!(address(&town.open().await, &trip, Login::App).user(), old.user());
    let mut solution = town.open().await;
    solution.rotate(&trip, Login::App).await.unwrap_or_else(|e| panic!("{e}: {:?}", e.causes()));
    connect(&address(&solution, &trip, Login::App), &Purpose::new("test")).await.unwrap();
}
