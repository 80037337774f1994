//! Moving tenants' databases between servers: what arrives, who is refused meanwhile, what a process leaves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgfleet_control::Solution;
use pgfleet_control::catalogue::Catalogue;
use pgfleet_control::directory::read_as_service;
use pgfleet_control::moves::{MoveState, Moved, Order};
use pgfleet_control::roles::Login;
use pgfleet_control::targets::FleetTarget;
use pgfleet_control::tenants::{Home, NewTenant, TenantState};
use pgfleet_local::testing::{OwnServer, TestServer};
use pgfleet_migrate::{Event, Observer};
use pgfleet_postgres::{Address, Connection, Purpose, connect, quote_ident};
use secrecy::ExposeSecret as _;

use crate::directory::as_service;
use crate::life::{column, create as create_own, own, told};
use crate::support::{Admin, Town, open};
use crate::tenants::{create, silent};

const TWO: &str = "[services.{}_trip]\nserver = \"main\"\ntenants = \"own\"\nschema = \"trips\"\n\
                   [services.{}_user]\nserver = \"main\"\ntenants = \"own\"\nschema = \"users\"\n";
pub(crate) const ONE: &str = "[services.{}_trip]\nserver = \"main\"\ntenants = \"own\"\nschema = \"trips\"\n";

/// Two servers with one tenant, whose database is on the first.
pub(crate) struct Pair {
    pub(crate) town: Town,
    second: String,
    pub(crate) acme: String,
    // Stopped when it goes.
    _own: Option<OwnServer>,
}

impl Pair {
    /// A solution on version 15 and 18.
    pub(crate) async fn new(admin: Admin, services: &str) -> Self {
        let town = Town::new(15, admin).await;
        let other = TestServer::shared_version(18).await;
        let second = match admin {
            Admin::Superuser => other.superuser_url("postgres"),
            Admin::Creator => {
                let role = format!("{}_dba", town.anchor.name);
                let superuser = open(&other.superuser_url("postgres")).await;
                let make = format!(
                    "CREATE ROLE {0} LOGIN CREATEDB CREATEROLE PASSWORD 'secret'; GRANT CONNECT ON DATABASE postgres TO {0}",
                    quote_ident(&role)
                );
                superuser.execute_all(&make).await.unwrap();
                format!("postgresql://{role}:secret@127.0.0.1:{}/postgres", other.port())
            }
        };
        Self::with(town, second, None, services).await
    }

    /// A solution on two servers of version 15.
    async fn of_one_version() -> Self {
        let town = Town::new(15, Admin::Superuser).await;
        let own = OwnServer::start(|_| {}).await.unwrap();
        let url = own.superuser_url("postgres");
        Self::with(town, url, Some(own), TWO).await
    }

    async fn with(town: Town, second: String, own_server: Option<OwnServer>, services: &str) -> Self {
        let mut pair = Self { acme: String::new(), town, second, _own: own_server };
        pair.manifest(services);
        pair.town.provision().await;
        let dba = Address::parse(&pair.second).unwrap().user().to_owned();
        if dba != "postgres" {
            // Other tests have made this role, and only who makes a role may act as it.
            let superuser = open(&TestServer::shared_version(18).await.superuser_url("postgres")).await;
            superuser.execute_all(&format!("grant pgfleet_meta to {}", quote_ident(&dba))).await.unwrap();
        }
        let solution = pair.town.open().await;
        let home = Home::Own { services: Vec::new(), server: Some("main".to_owned()) };
        let done = create_own(&solution, NewTenant { home, ..own("acme") }).await.unwrap();
        pair.acme.clone_from(&done.tenant.databases[0].database);
        pair
    }

    fn manifest(&self, services: &str) {
        self.town.manifest(&format!(
            "[servers.second]\nurl = \"{}\"\n{services}[tenants]\nservers = [\"main\", \"second\"]\n",
            self.second
        ));
    }

    pub(crate) async fn control(&self, sql: &str) -> Vec<String> {
        let control = self.town.superuser(&self.town.service("control")).await;
        column(&control, sql).await
    }

    /// The tenant's database on the first server, as the superuser.
    pub(crate) async fn first(&self) -> Connection {
        self.town.superuser(&self.acme).await
    }

    pub(crate) async fn on_second(&self, database: &str) -> Connection {
        let address = Address::parse(&self.second).unwrap().with_database(database);
        connect(&address, &Purpose::new("test")).await.unwrap()
    }

    /// Where the tenant's strings lead the migrations of a service.
    async fn target(&self, solution: &Solution) -> FleetTarget {
        let catalogue =
            Catalogue::open(&solution.server("main").admin, &solution.manifest.control.database).await.unwrap();
        solution.tenant_targets(&catalogue, &[TenantState::Active]).await.unwrap().remove(0)
    }

    /// The database as the service's own role sees it, on the first server.
    async fn as_app(&self, solution: &Solution) -> Result<Connection, pgfleet_postgres::Error> {
        let service = solution.manifest.service(&self.town.service("trip")).unwrap();
        let address = solution.address(service, Login::App).unwrap().with_database(&self.acme);
        connect(&address, &Purpose::new("service")).await
    }

    /// The database as a service understands what it is told.
    async fn as_told(&self, solution: &Solution) -> Connection {
        let service = self.town.service("trip");
        let (session, keys) = as_service(solution, &service).await;
        let read = read_as_service(&session, &keys).await.unwrap();
        let text = read.into_iter().find_map(|(_, _, string)| string).unwrap().1;
        let address = solution.address(solution.manifest.service(&service).unwrap(), Login::App).unwrap();
        connect(&address.by_way_of(text.expose_secret()).unwrap(), &Purpose::new("service")).await.unwrap()
    }

    /// What services are told of the tenant.
    pub(crate) async fn told(&self, solution: &Solution) -> String {
        let service = solution.manifest.service(&self.town.service("trip")).unwrap();
        let session = connect(&solution.directory_address(service).unwrap(), &Purpose::new("service")).await.unwrap();
        column(&session, "select state from pgfleet_directory.tenants()").await.remove(0)
    }

    /// Drops the database on the second server that would be kept for a week.
    async fn forget_second(&self) {
        let second = self.on_second("postgres").await;
        let copies = format!("select datname from pg_database where datname like '{}%'", self.acme);
        for copy in column(&second, &copies).await {
            second.execute_all(&format!("drop database if exists {copy} with (force)")).await.unwrap();
        }
        self.control("delete from control.tenant_databases where server = 'second'").await;
    }

    /// Which databases of the tenant let services in: `main/acme`.
    async fn open_databases(&self) -> Vec<String> {
        let sql = format!(
            "select datname from pg_database where datname like '{}%' and datallowconn \
             and has_database_privilege('{}_app', oid, 'connect') order by 1",
            self.acme,
            self.town.service("trip")
        );
        let mut found: Vec<String> = column(&self.town.superuser("postgres").await, &sql)
            .await
            .into_iter()
            .map(|name| format!("main/{name}"))
            .collect();
        found.extend(
            column(&self.on_second("postgres").await, &sql).await.into_iter().map(|name| format!("second/{name}")),
        );
        found
    }
}

pub(crate) fn to(server: &str) -> Order {
    Order { server: server.to_owned(), ..Order::default() }
}

async fn moved(solution: &Solution, server: &str) -> Moved {
    let moved = Box::pin(solution.move_tenant("acme", &to(server), &silent())).await;
    moved.unwrap_or_else(|error| panic!("{}", told(&error)))
}

async fn moved_back(solution: &Solution) -> Moved {
    let moved = Box::pin(solution.move_tenant_back("acme", &Order::default(), &silent())).await;
    moved.unwrap_or_else(|error| panic!("{}", told(&error)))
}

/// Things of all kinds.
const THINGS: &str = "
    set role {owner};
    insert into trips.things (name) select 'thing ' || n from generate_series(1, 500) n;
    create table trips.\"Odd Names\" (\"pgfleet_row\" int primary key, \"select\" text unique, at timestamptz default now(),
        amount numeric(12, 2), tags text[], more jsonb, thing bigint references trips.things);
    insert into trips.\"Odd Names\" select n, 'x' || n, now(), n / 3.0, array['a', null], '{\"a\": 1}', n from generate_series(1, 50) n;
    create table trips.parted (id int, at date) partition by range (at);
    create table trips.parted_1 partition of trips.parted for values from ('2024-01-01') to ('2025-01-01');
    insert into trips.parted values (1, '2024-05-05');
    create table trips.empty ();
    create sequence trips.counter increment 7;
    select nextval('trips.counter');
    create type trips.mood as enum ('sad', 'glad');
    create view trips.odd as select name from trips.things where id % 2 = 1;
    create materialized view trips.sums as select count(*) from trips.things;
    create function trips.touch() returns trigger language plpgsql as $$begin new.name := new.name || '!'; return new; end$$;
    create trigger touch before insert on trips.things for each row execute function trips.touch();
    alter table trips.\"Odd Names\" enable row level security;
    create policy all_of_them on trips.\"Odd Names\" using (true);
    grant select (at) on trips.\"Odd Names\" to {readonly};
    select lo_from_bytea(0, '\\x616263');
    reset role;";

async fn with_all_kinds(admin: Admin, services: &str) {
    let pair = Pair::new(admin, services).await;
    let trip = pair.town.service("trip");
    let things = THINGS.replace("{owner}", &format!("{trip}_owner")).replace("{readonly}", &format!("{trip}_readonly"));
    pair.first().await.execute_all(&things).await.unwrap();
    pair.first()
        .await
        .execute_all(&format!(
            "alter database {0} set work_mem = '5MB'; alter database {0} set search_path = 'x', \"Y\"",
            pair.acme
        ))
        .await
        .unwrap();
    let solution = pair.town.open().await;
    let before = pair.as_app(&solution).await.unwrap();
    let done = moved(&solution, "second").await;
    assert_eq!(done.moves.len(), 1);
    let work = &done.moves[0];
    assert_eq!((work.state, work.from_own), (MoveState::Done, true));
    let contents = work.contents.as_ref().unwrap();
    assert_eq!(contents["tables"]["trips.things"][0], 500);
    assert_eq!(contents["tables"]["trips.\"Odd Names\""][0], 50);
    assert_eq!(contents["tables"]["trips.parted_1"][0], 1);
    assert_eq!(contents["sequences"]["trips.counter"], serde_json::json!([1, true]));
    assert_eq!(contents["large_objects"][0], 1);
    // The old one: nobody comes in, and nobody is in there.
    assert!(before.simple("select 1").await.is_err(), "its sessions are ended");
    assert!(pair.as_app(&solution).await.is_err());
    assert_eq!(pair.open_databases().await, [format!("second/{}", pair.acme)]);
    // The new one: by the same string, as the services' own roles.
    let target = pair.target(&solution).await;
    assert_eq!(target.key(), ("second", pair.acme.as_str()));
    let session = connect(&solution.migrator_address(&target, &trip).unwrap(), &Purpose::new("test")).await.unwrap();
    session.execute_all("insert into trips.things (name) values ('new')").await.unwrap();
    assert_eq!(column(&session, "select id || name from trips.things order by id desc limit 1").await, ["501new!"]);
    assert_eq!(column(&session, "show work_mem").await, ["5MB"]);
    let service = pair.as_told(&solution).await;
    service.execute_all("update trips.things set name = 'told' where id = 1").await.unwrap();
    assert_eq!(column(&session, "select name from trips.things where id = 1").await, ["told"]);
    let version = format!("select version from pgfleet.\"{trip}_migrations\"");
    assert_eq!(column(&session, &version).await, ["1"]);
    let owner = format!("select pg_get_userbyid(datdba) from pg_database where datname = '{}'", pair.acme);
    let owners = (column(&pair.town.superuser("postgres").await, &owner).await, column(&session, &owner).await);
    assert_eq!(owners.0, owners.1, "the same role owns it");
    assert_eq!(pair.told(&solution).await, "active");
    let databases = "select server || ' ' || state || ' ' || (drop_after > now() + interval '6 days') from control.tenant_databases order by 1";
    assert_eq!(pair.control(databases).await[0], "main closed true");
    assert!(solution.move_tenant("acme", &to("second"), &silent()).await.unwrap().moves.is_empty(), "it is there");
    let audit = pair.control("select action from control.audit where subject = 'acme' order by id").await;
    assert_eq!(audit, ["tenant create", "tenant active", "tenant move", "tenant moved"]);
}

#[tokio::test]
async fn a_database_is_moved_with_all_that_is_in_it() {
    Box::pin(with_all_kinds(Admin::Superuser, TWO)).await;
}

#[tokio::test]
async fn a_move_needs_no_superuser() {
    Box::pin(with_all_kinds(Admin::Creator, ONE)).await;
}

#[tokio::test]
async fn what_is_written_meanwhile_is_refused_and_not_lost() {
    let pair = Pair::new(Admin::Superuser, TWO).await;
    let solution = pair.town.open().await;
    // Writes without a pause; comes again whenever it is sent away.
    let writing = async {
        let (mut acknowledged, mut refused) = (0_i64, 0_i64);
        let mut session = pair.as_app(&solution).await.unwrap();
        loop {
            match session.execute_all("insert into trips.things (name) values ('x')").await {
                Ok(()) => acknowledged += 1,
                Err(_) => match pair.as_app(&solution).await {
                    Ok(again) => session = again,
                    Err(_) => refused += 1,
                },
            }
            if refused > 0 && pair.told(&solution).await == "active" {
                return acknowledged;
            }
        }
    };
    let seen = Seen::default();
    let observer: Arc<dyn Observer> = Arc::new(seen.clone());
    let order = to("second");
    let moving = solution.move_tenant("acme", &order, &observer);
    let (acknowledged, done) = tokio::join!(writing, Box::pin(moving));
    done.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(acknowledged > 0);
    let there = column(&pair.on_second(&pair.acme).await, "select count(*) from trips.things").await;
    assert_eq!(there, [acknowledged.to_string()]);
    let labels: Vec<String> = seen.0.lock().unwrap().clone();
    assert_eq!(labels, ["fence", "copy", "compare"]);
}

/// Remembers which steps were done.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Observer for Seen {
    fn event(&self, _target: &str, event: &Event) {
        if let Event::Done { label, .. } = event {
            self.0.lock().unwrap().push(label.clone());
        }
    }
}

/// Kills a move again and again, and cancels it or goes on with it in turn.
async fn dying(rounds: std::ops::Range<u32>) {
    let pair = Pair::new(Admin::Superuser, ONE).await;
    pair.first()
        .await
        .execute_all("insert into trips.things (name) select 'x' from generate_series(1, 2000)")
        .await
        .unwrap();
    let began = std::time::Instant::now();
    moved(&pair.town.open().await, "second").await;
    let whole = began.elapsed();
    moved_back(&pair.town.open().await).await;
    pair.forget_second().await;
    let mut over = 0;
    for round in rounds {
        let solution = pair.town.open().await;
        let limit = whole * (round + 1) / 16;
        let (order, nobody) = (to("second"), silent());
        let dying = Box::pin(solution.move_tenant("acme", &order, &nobody));
        let finished = tokio::time::timeout(limit, dying).await.is_ok_and(|result| result.is_ok());
        // Another process.
        let solution = pair.town.open().await;
        let unfinished =
            solution.tenant_moves(Some("acme")).await.unwrap().into_iter().rfind(|work| !work.state.is_over());
        let cancelled = round % 2 == 0 && unfinished.as_ref().is_some_and(|work| work.state != MoveState::Switched);
        if cancelled {
            let done = Box::pin(solution.cancel_move("acme"))
                .await
                .unwrap_or_else(|error| panic!("{round}: {}", told(&error)));
            assert_eq!(done.moves[0].state, MoveState::Cancelled);
        } else {
            over += usize::from(finished);
            moved(&solution, "second").await;
        }
        let expected = if cancelled { "main" } else { "second" };
        assert_eq!(pair.told(&solution).await, "active");
        let target = pair.target(&solution).await;
        let (server, database) = target.key();
        assert_eq!(server, expected, "round {round}, {unfinished:?}");
        // Another name where the server was still at making the copy of a process that had died.
        let is_its = database == pair.acme || (expected == "second" && database == format!("{}_2", pair.acme));
        assert!(is_its, "round {round}, {unfinished:?}: {database}");
        let only = format!("{server}/{database}");
        assert_eq!(pair.open_databases().await, [only], "round {round}, {unfinished:?}");
        let trip = pair.town.service("trip");
        let session =
            connect(&solution.migrator_address(&target, &trip).unwrap(), &Purpose::new("test")).await.unwrap();
        assert_eq!(column(&session, "select count(*) from trips.things").await, ["2000"]);
        session.close().await;
        if !cancelled {
            moved_back(&solution).await;
            assert_eq!(pair.open_databases().await, [format!("main/{}", pair.acme)]);
            pair.forget_second().await;
        }
    }
    assert!(over < 4, "most of them died on the way");
}

#[tokio::test]
async fn a_process_that_dies_early_leaves_one_open_database() {
    Box::pin(dying(0..8)).await;
}

#[tokio::test]
async fn a_process_that_dies_late_leaves_one_open_database() {
    Box::pin(dying(8..16)).await;
}

/// Changes something at the moment at which a step is over.
struct Meddler {
    after: &'static str,
    address: Address,
    sql: String,
}

impl Observer for Meddler {
    fn event(&self, _target: &str, event: &Event) {
        let Event::Done { label, .. } = event else { return };
        if label != self.after {
            return;
        }
        let (address, sql) = (self.address.clone(), self.sql.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let session = connect(&address, &Purpose::new("meddler")).await.unwrap();
                session.execute_all(&sql).await.unwrap();
                session.close().await;
            });
        })
        .join()
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_stops_the_move_and_the_tenant_stays() {
    let pair = Pair::new(Admin::Superuser, TWO).await;
    pair.first().await.execute_all("insert into trips.things (name) values ('a'), ('b')").await.unwrap();
    let solution = pair.town.open().await;
    let copy = Address::parse(&pair.second).unwrap().with_database(&pair.acme);
    for (sql, why) in [
        ("update trips.things set name = 'c' where id = 2", "table trips.things: 2 rows in both, but not the same"),
        ("delete from trips.things where id = 2", "table trips.things: 2 rows in main/"),
        ("select nextval('trips.things_id_seq')", "sequence trips.things_id_seq: 2 in main/"),
        ("create index extra on trips.things (name)", "only in second/"),
        (
            "alter default privileges for role {owner} in schema trips grant trigger on tables to {app}",
            "default rights",
        ),
    ] {
        let trip = pair.town.service("trip");
        let sql = sql.replace("{owner}", &format!("{trip}_owner")).replace("{app}", &format!("{trip}_app"));
        let meddler: Arc<dyn Observer> = Arc::new(Meddler { after: "copy", address: copy.clone(), sql });
        let error = Box::pin(solution.move_tenant("acme", &to("second"), &meddler)).await.unwrap_err();
        assert!(told(&error).contains(why), "{why}: {}", told(&error));
        assert_eq!(pair.told(&solution).await, "active");
        let app = pair.as_app(&solution).await.unwrap();
        app.execute_all("update trips.things set name = name").await.unwrap();
        assert_eq!(pair.open_databases().await, [format!("main/{}", pair.acme)]);
        let work = solution.tenant_moves(Some("acme")).await.unwrap().pop().unwrap();
        assert_eq!(work.state, MoveState::Failed);
        assert!(work.error.unwrap().contains("is not the same"));
    }
    // It is one move, tried again and again; the copy goes with it.
    assert_eq!(solution.tenant_moves(Some("acme")).await.unwrap().len(), 1);
    Box::pin(solution.cancel_move("acme")).await.unwrap();
    let left = format!("select datname from pg_database where datname = '{}'", pair.acme);
    assert!(column(&pair.on_second("postgres").await, &left).await.is_empty());
    moved(&solution, "second").await;
}

#[tokio::test]
async fn the_way_back_without_writes_is_the_old_database() {
    let pair = Pair::new(Admin::Superuser, TWO).await;
    pair.first().await.execute_all("insert into trips.things (name) values ('a')").await.unwrap();
    let oid = format!("select oid from pg_database where datname = '{}'", pair.acme);
    let before = column(&pair.town.superuser("postgres").await, &oid).await;
    let rights = format!("select datacl from pg_database where datname = '{}'", pair.acme);
    let acl = column(&pair.town.superuser("postgres").await, &rights).await;
    let solution = pair.town.open().await;
    let error = Box::pin(solution.move_tenant_back("acme", &Order::default(), &silent())).await.unwrap_err();
    assert!(told(&error).contains("was not moved"), "{}", told(&error));
    moved(&solution, "second").await;
    let back = moved_back(&solution).await;
    assert_eq!((back.moves[0].state, back.moves[0].to_server.as_str()), (MoveState::Done, "main"));
    assert_eq!(pair.open_databases().await, [format!("main/{}", pair.acme)]);
    assert_eq!(column(&pair.town.superuser("postgres").await, &oid).await, before, "nothing was copied");
    let mut now: Vec<char> = column(&pair.town.superuser("postgres").await, &rights).await[0].chars().collect();
    let mut then: Vec<char> = acl[0].chars().collect();
    now.sort_unstable();
    then.sort_unstable();
    assert_eq!(now, then, "its rights are those of before");
    pair.as_app(&solution).await.unwrap().execute_all("insert into trips.things (name) values ('b')").await.unwrap();
    // Of a newer server an older one cannot take what was written there.
    moved(&solution, "second").await;
    let again = format!("{}_2", pair.acme);
    pair.on_second(&again).await.execute_all("insert into trips.things (name) values ('c')").await.unwrap();
    let error = Box::pin(solution.move_tenant_back("acme", &Order::default(), &silent())).await.unwrap_err();
    assert!(told(&error).contains("main has version 15, and second version 18"), "{}", told(&error));
    Box::pin(solution.cancel_move("acme")).await.unwrap();
    assert_eq!(pair.open_databases().await, [format!("second/{again}")]);
}

#[tokio::test]
async fn the_way_back_with_writes_takes_them_along() {
    let pair = Pair::of_one_version().await;
    let solution = pair.town.open().await;
    moved(&solution, "second").await;
    pair.on_second(&pair.acme).await.execute_all("insert into trips.things (name) values ('later')").await.unwrap();
    let back = moved_back(&solution).await;
    let name = format!("{}_2", pair.acme);
    assert_eq!(back.moves[0].to_database, name, "the old one keeps its name until it is dropped");
    assert_eq!(pair.open_databases().await, [format!("main/{name}")]);
    assert_eq!(column(&pair.town.superuser(&name).await, "select name from trips.things").await, ["later"]);
    let states = "select server || '/' || database || ' ' || state from control.tenant_databases order by 1";
    let expected =
        [format!("main/{} closed", pair.acme), format!("main/{name} open"), format!("second/{} closed", pair.acme)];
    assert_eq!(pair.control(states).await, expected);
}

#[tokio::test]
async fn what_cannot_be_moved_is_said_before_anything_is_done() {
    let pair = Pair::new(Admin::Superuser, TWO).await;
    let solution = pair.town.open().await;
    let refused = async |tenant: &str, order: Order, why: &str| {
        let error = Box::pin(solution.move_tenant(tenant, &order, &silent())).await.unwrap_err();
        assert!(told(&error).contains(why), "{why}: {}", told(&error));
        assert!(pair.control("select 1 from control.moves").await.is_empty(), "{why}");
    };
    refused("acme", to("secand"), "did you mean `second`").await;
    refused("nobody", to("second"), "there is no tenant `nobody`").await;
    create(&solution, "plain", &[]).await.unwrap();
    refused("plain", to("second"), "has no database of its own").await;
    let other = Order { service: Some("x".to_owned()), ..to("second") };
    refused("acme", other, "there is no service `x`").await;
    let error = Box::pin(solution.cancel_move("acme")).await.unwrap_err();
    assert!(told(&error).contains("no move of tenant acme is unfinished"));
    // A role that only the old server has.
    let first = pair.first().await;
    let role = pair.town.service("reporter");
    first.execute_all(&format!("create role {role}; grant select on trips.things to {role}")).await.unwrap();
    refused("acme", to("second"), &format!("role {role} owns something in it or has a right there")).await;
    first.execute_all(&format!("revoke select on trips.things from {role}; drop role {role}")).await.unwrap();
    // A rollout that is about to work on it.
    pair.control(&format!(
        "insert into control.rollouts (plan, what, state, concurrency, canary, max_failures, os_user, host) \
         values ('p', '{{}}', 'running', 1, 1, 1, 'u', 'h'); \
         insert into control.rollout_targets (rollout, position, wave, kind, server, database, services) \
         select id, 1, 1, 'tenant', 'main', '{}', '{{}}' from control.rollouts",
        pair.acme
    ))
    .await;
    refused("acme", to("second"), "is to migrate database").await;
    // One that was stopped is led along.
    pair.control("update control.rollouts set state = 'halted'").await;
    // Somebody who migrates it now.
    let session = pair.first().await;
    assert!(pgfleet_postgres::lock::try_lock(&session, pgfleet_postgres::lock::LockKey::Migrate).await.unwrap());
    refused("acme", to("second"), "a migration or another move holds it").await;
    session.close().await;
    // What a string cannot be given while it is moved.
    pair.control("update control.tenants set moving = true where name = 'acme'").await;
    let error = solution.unset_connection("acme", "").await.unwrap_err();
    assert!(told(&error).contains("tenant acme is being moved"), "{}", told(&error));
    pair.control("update control.tenants set moving = false").await;
    moved(&solution, "second").await;
    assert_eq!(pair.control("select server from control.rollout_targets").await, ["second"]);
}

#[tokio::test]
async fn a_database_that_somebody_gave_is_left_where_it_was() {
    let pair = Pair::new(Admin::Superuser, ONE).await;
    // As if its string had been given.
    pair.control("update control.tenant_strings set server = ''; delete from control.tenant_databases").await;
    let solution = pair.town.open().await;
    let done = moved(&solution, "second").await;
    assert!(done.notes.iter().any(|note| note.contains("pgfleet did not make main/")), "{:?}", done.notes);
    assert_eq!(pair.open_databases().await, [format!("second/{}", pair.acme)]);
    let left = format!("select datallowconn from pg_database where datname = '{}'", pair.acme);
    assert_eq!(column(&pair.town.superuser("postgres").await, &left).await, ["t"]);
    let rows = pair.control("select server || ' ' || state from control.tenant_databases").await;
    assert_eq!(rows, ["second open"]);
    moved_back(&solution).await;
    assert_eq!(pair.open_databases().await, [format!("main/{}", pair.acme)]);
}

#[tokio::test]
async fn of_two_who_move_one_does() {
    let pair = Pair::new(Admin::Superuser, TWO).await;
    let (one, two) = (pair.town.open().await, pair.town.open().await);
    let (order, nobody) = (to("second"), silent());
    let both = tokio::join!(
        Box::pin(one.move_tenant("acme", &order, &nobody)),
        Box::pin(two.move_tenant("acme", &order, &nobody))
    );
    for result in [&both.0, &both.1] {
        if let Err(error) = result {
            assert!(!told(error).contains("not the same"), "{}", told(error));
        }
    }
    assert!(both.0.is_ok() || both.1.is_ok());
    assert_eq!(pair.open_databases().await, [format!("second/{}", pair.acme)]);
    tokio::time::timeout(Duration::from_secs(30), moved(&one, "second")).await.unwrap();
}
