//! Modules that need no files, and the bus database.

use std::sync::Arc;
use std::time::Duration;

use pgfleet_brokers::{BrokerKind, Options, connect};
use pgfleet_control::events::{Begin, Reading, Store};
use pgfleet_control::isolation::{Verdict, verify};
use pgfleet_control::manifest::Builtin;
use pgfleet_control::roles::Login;
use pgfleet_control::tenants::{Home, NewTenant};
use pgfleet_events::{
    Expected, Json, Message, Meta, Moment, NewEvent, NewItem, QueueStore as _, StreamStore as _, Subscription,
};
use pgfleet_migrate::options::Stop;
use secrecy::ExposeSecret as _;

use crate::support::{Admin, Town, open};
use crate::tenants::silent;

/// A pool of a connection string.
fn pool(url: &str) -> pgfleet_postgres::pool::Pool {
    use pgfleet_postgres::pool::{Budget, Pool, PoolOptions};
    let address = pgfleet_postgres::Address::parse(url).unwrap();
    let options = PoolOptions { min: 0, ..PoolOptions::default() };
    Pool::new(&Budget::new("test", 4), address, pgfleet_postgres::Purpose::new("test"), options)
}

const SERVICES: &str = "[events]\ndatabase = \"{}_bus\"\n[services.{}_trip]\nmodules = [\"outbox\", \"inbox\"]\n\
                        [services.{}_user]\nmodules = [\"inbox\"]\n";

/// A town whose services have messages, provisioned and migrated.
async fn town(major: u32, admin: Admin, solution: &str) -> Town {
    let town = Town::new(major, admin).await;
    town.write_whole_manifest(solution, SERVICES);
    town.provision().await;
    town.migrate().await;
    town
}

#[tokio::test]
async fn services_get_their_modules_and_a_bus_that_only_they_may_enter() {
    for (major, admin) in [(15, Admin::Superuser), (18, Admin::Creator)] {
        let town = town(major, admin, "").await;
        assert_eq!(town.provision().await, Vec::<String>::new(), "nothing is left to be done");
        let solution = town.open().await;
        let trip = solution.manifest.service(&town.service("trip")).unwrap();
        let own = open(solution.address(trip, Login::App).unwrap().expose_url().expose_secret()).await;
        let rows = own.simple("select count(*) from outbox_messages").await.unwrap();
        assert_eq!(rows[0].get(0), Some("0"));
        // What empties a table whole is the owner's, and the service may have it done.
        let rows = own.simple("select outbox_rotate(), inbox_forget()").await.unwrap();
        assert_eq!((rows[0].get(0), rows[0].get(1)), (Some("t"), Some("0")));
        let history = format!("select count(*) > 0 from pgfleet.\"{}_outbox_migrations\"", town.service("trip"));
        assert_eq!(own.simple(&history).await.unwrap()[0].get(0), Some("t"));

        let environment = solution.environment(trip).unwrap();
        let value = |what: &str| {
            let found = environment.iter().find(|(name, _)| *name == trip.variable(what));
            found.map(|(_, value)| value.expose_secret().to_owned())
        };
        assert_eq!(value("EVENTS_BROKER").as_deref(), Some("postgres"));
        let bus = open(&value("EVENTS_URL").unwrap()).await;
        let rows = bus.simple("select count(*) from event_streaming.schema_version").await.unwrap();
        assert_ne!(rows[0].get(0), Some("0"));
        // The history is read by all and written by its owner.
        let forged = bus.execute_all("delete from event_streaming.schema_version").await.unwrap_err();
        assert_eq!(forged.sql_state(), Some("42501"));

        let proof = verify(&solution).await.unwrap();
        let worst = |service: &str| proof.worst(&town.service(service), "main", &town.service("bus")).unwrap();
        assert_eq!((worst("trip"), worst("user"), worst("bus")), (Verdict::Declared, Verdict::Declared, Verdict::Own));
        let of_bus = proof.worst(&town.service("bus"), "main", &town.service("trip")).unwrap();
        assert_eq!(of_bus, Verdict::Denied, "the bus's own roles reach no service");
        if admin == Admin::Superuser {
            assert!(proof.is_tight(), "{:?}", proof.findings);
        }
    }
}

#[tokio::test]
async fn a_service_that_has_no_messages_any_more_is_shut_out_of_the_bus() {
    let town = town(15, Admin::Superuser, "").await;
    let text = SERVICES.replace("[services.{}_user]\nmodules = [\"inbox\"]", "[services.{}_user]");
    town.write_whole_manifest("", &text);
    town.provision().await;
    let proof = verify(&town.open().await).await.unwrap();
    let worst = |service: &str| proof.worst(&town.service(service), "main", &town.service("bus")).unwrap();
    assert_eq!((worst("trip"), worst("user")), (Verdict::Declared, Verdict::Denied));
    assert!(proof.is_tight(), "{:?}", proof.findings);
}

#[tokio::test]
async fn another_broker_needs_no_bus() {
    let town = Town::new(15, Admin::Superuser).await;
    let broker = "[events]\nbroker = \"rabbitmq\"\nurl = \"amqp://shop:secret@mq:5672\"\n";
    town.write_whole_manifest("", &SERVICES.replace("[events]\ndatabase = \"{}_bus\"\n", broker));
    town.provision().await;
    let solution = town.open().await;
    assert!(solution.manifest.bus().is_none());
    let trip = solution.manifest.service(&town.service("trip")).unwrap();
    let environment = solution.environment(trip).unwrap();
    let url = environment.iter().find(|(name, _)| *name == trip.variable("EVENTS_URL")).unwrap();
    assert_eq!(url.1.expose_secret(), "amqp://shop:secret@mq:5672");
}

#[tokio::test]
async fn the_database_that_is_meant_is_found_or_it_is_said_what_to_name() {
    let town = town(15, Admin::Superuser, "").await;
    let solution = town.open().await;
    let only = solution.event_database(Builtin::Outbox, None, None).await.unwrap();
    assert_eq!((only.service.as_str(), only.schema.as_str()), (town.service("trip").as_str(), "public"));
    let several = solution.event_database(Builtin::Inbox, None, None).await.unwrap_err();
    assert_eq!(several.to_string(), "several services have the module `inbox`");
    assert!(several.hint().unwrap().contains(&format!("--service {}", town.service("user"))), "{several:?}");
    let without = solution.event_database(Builtin::Outbox, Some(&town.service("user")), None).await.unwrap_err();
    assert!(without.hint().unwrap().contains("add it to `modules`"), "{without:?}");
    let bus = solution.event_database(Builtin::EventStreaming, None, None).await.unwrap();
    assert_eq!(bus.service, town.service("bus"), "nobody else has streams");
    let nobody = solution.event_database(Builtin::Outbox, None, Some("acme")).await.unwrap_err();
    assert_eq!(nobody.to_string(), "there is no tenant `acme`");
}

#[tokio::test]
async fn a_service_keeps_streams_with_the_rights_of_its_own_role() {
    let town = Town::new(15, Admin::Superuser).await;
    town.write_whole_manifest("", "[services.{}_trip]\nmodules = [\"event_streaming\"]\n");
    town.provision().await;
    town.migrate().await;
    let solution = town.open().await;
    assert!(solution.manifest.bus().is_none(), "streams of its own are nobody else's");
    let streams = solution.event_database(Builtin::EventStreaming, None, None).await.unwrap();
    let store = streams.store();
    let append = async |stream: &str, number: u32| {
        let kind = if number.is_multiple_of(2) { "Even" } else { "Odd" };
        let event = NewEvent::of(kind, &number).unwrap().correlation(format!("c{}", number % 3));
        store.append(stream, Expected::Any, vec![event]).await.unwrap();
    };
    for number in 1..=6 {
        append(if number < 4 { "a" } else { "b" }, number).await;
    }
    let read = async |reading: Reading| {
        let mut told = Vec::new();
        let count = reading
            .run(Arc::new(store.clone()), &Stop::default(), &mut |event| {
                told.push(event.data.to_string());
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(count, told.len() as u64);
        told
    };
    let of = |stream: &str| Reading { stream: Some(stream.to_owned()), ..Reading::default() };
    assert_eq!(read(of("a")).await, ["1", "2", "3"]);
    assert_eq!(read(Reading { backward: true, limit: Some(2), ..of("a") }).await, ["3", "2"]);
    assert_eq!(read(Reading { begin: Some(Begin::Version(2)), kinds: vec!["Odd".to_owned()], ..of("b") }).await, ["5"]);
    assert_eq!(read(Reading::default()).await, ["1", "2", "3", "4", "5", "6"]);
    let odd = Reading { kinds: vec!["Odd".to_owned()], limit: Some(2), ..Reading::default() };
    assert_eq!(read(odd).await, ["1", "3"]);
    assert_eq!(read(Reading { correlation_id: Some("c0".to_owned()), ..Reading::default() }).await, ["3", "6"]);
    // As a database that was dumped on another server and restored here.
    let owner = town.superuser(&town.service("trip")).await;
    owner.execute_all("update event_streaming.cluster set system_identifier = 1").await.unwrap();
    append("a", 7).await;
    assert_eq!(read(Reading::default()).await.last().unwrap(), "7");
    // Who follows is told at once, until he stops.
    let (stop, follows) = (Stop::default(), Reading { begin: Some(Begin::Version(4)), follow: true, ..of("a") });
    let mut told = Vec::new();
    let mut each = |event: &pgfleet_events::Event| {
        told.push(event.data.to_string());
        if told.len() == 2 {
            stop.ask();
        }
        Ok(())
    };
    let (followed, ()) =
        futures_util::future::join(follows.run(Arc::new(store.clone()), &stop, &mut each), append("a", 8)).await;
    assert_eq!((followed.unwrap(), told), (2, vec!["7".to_owned(), "8".to_owned()]));
    let backward = Reading { backward: true, ..Reading::default() };
    let refused = backward.run(Arc::new(store.clone()), &Stop::default(), &mut |_| Ok(())).await.unwrap_err();
    assert_eq!(refused.to_string(), "all streams are read from old to new");
}

#[tokio::test]
async fn a_tenant_s_database_has_the_modules_of_each_service_in_its_schema() {
    let town = Town::new(15, Admin::Superuser).await;
    town.write_whole_manifest(
        "",
        "[events]\ndatabase = \"{}_bus\"\n[services.{}_trip]\ntenants = \"own\"\nschema = \"trip\"\nmodules = [\"outbox\"]\n\
         [services.{}_user]\ntenants = \"own\"\nschema = \"people\"\nmodules = [\"outbox\", \"inbox\"]\n",
    );
    town.provision().await;
    town.migrate().await;
    let solution = town.open().await;
    let new = NewTenant {
        name: "acme".to_owned(),
        display_name: None,
        properties: std::collections::BTreeMap::new(),
        home: Home::Own { services: Vec::new(), server: None },
    };
    let made = solution.create_tenants(&[new], 1, &silent(), &|_, _| ()).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    for (short, schema) in [("trip", "trip"), ("user", "people")] {
        let service = town.service(short);
        let own = solution.event_database(Builtin::Outbox, Some(&service), None).await.unwrap();
        let outbox = solution.event_database(Builtin::Outbox, Some(&service), Some("acme")).await.unwrap();
        assert_eq!(outbox.schema, schema);
        assert_ne!(outbox.pool().address().database(), own.pool().address().database());
        let status = outbox.outbox_status().await.unwrap();
        assert_eq!((status.pending, status.dead, status.tenant.as_deref()), (0, 0, Some("acme")));
        let db = outbox.pool().get().await.unwrap();
        let rotated = db.query_one("SELECT outbox_rotate()", &[]).await.unwrap();
        assert!(rotated.get::<_, bool>(0), "the role's schema is {schema}");
    }
    let inbox = solution.event_database(Builtin::Inbox, None, Some("acme")).await.unwrap();
    assert_eq!(inbox.inbox_status(None).await.unwrap().remembered, 0);
    let proof = verify(&solution).await.unwrap();
    assert!(proof.is_tight(), "{:?}", proof.findings);
}

#[tokio::test]
async fn a_service_has_queues_with_the_rights_of_its_own_role_and_guests_have_the_bus() {
    let town = town(15, Admin::Superuser, "").await;
    let solution = town.open().await;
    let trip = solution.manifest.service(&town.service("trip")).unwrap();
    let environment = solution.environment(trip).unwrap();
    let url = &environment.iter().find(|(name, _)| *name == trip.variable("EVENTS_URL")).unwrap().1;
    let bus = connect(BrokerKind::Postgres, url, Options::default()).unwrap();
    let mut inbox = bus.subscribe(Subscription::new("user", ["Booked"])).await.unwrap();
    let message = Message {
        id: uuid::Uuid::now_v7(),
        topic: "Booked".into(),
        kind: "Booked".into(),
        source: "trip".into(),
        time: Moment::now(),
        key: Some("1".into()),
        data: Json::parse("{}").unwrap(),
        meta: Meta::default(),
    };
    bus.publish(std::slice::from_ref(&message)).await.unwrap().pop().unwrap().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let delivered = loop {
        let delivered = inbox.receive(10, Duration::from_secs(1)).await.unwrap();
        if !delivered.is_empty() {
            break delivered;
        }
        assert!(std::time::Instant::now() < deadline, "nothing arrived");
    };
    assert_eq!(delivered[0].message.id, message.id);
    inbox.acknowledge(&delivered).await.unwrap();
    // A guest, too, may have the tables emptied and a restored database go on.
    let queues = solution.event_database(Builtin::EventStreaming, None, None).await.unwrap();
    let guest = Store::new(pool(url.expose_secret()), pgfleet_events_postgres::Options::default());
    for store in [queues.store(), guest] {
        let item = NewItem::new("Mail", Json::parse("1").unwrap());
        store.enqueue("mails", vec![item]).await.unwrap();
        // First the other half is gone over to, then the old one is emptied.
        assert!(store.rotate_queues(0).await.unwrap());
        store.rotate_queues(0).await.unwrap();
        let got = store.dequeue("mails", "me", 10, Duration::from_secs(30)).await.unwrap();
        assert_eq!(got.len(), 1);
        store.acknowledge(&[got[0].receipt.clone()]).await.unwrap();
    }
    let proof = verify(&solution).await.unwrap();
    assert!(proof.is_tight(), "{:?}", proof.findings);
}
