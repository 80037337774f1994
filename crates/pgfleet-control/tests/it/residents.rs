//! Servers that hold tenants' databases: a service has all its roles there, wherever its own database is.

use pgfleet_control::catalogue::Catalogue;
use pgfleet_control::manifest::Service;
use pgfleet_control::roles::Login;
use pgfleet_control::targets::{FleetTarget, TargetKind};
use pgfleet_control::templates::Shape;
use pgfleet_control::{ErrorKind, Solution};
use pgfleet_postgres::{Connection, Purpose, connect};

use crate::support::{Admin, Town};
use crate::tenants::silent;

/// A town whose services live on its own server, and a second one that holds tenants' databases, too.
pub(crate) struct Pair {
    pub(crate) town: Town,
    pub(crate) other: Town,
}

impl Pair {
    /// `own` is who provisions 15, `there` who provisions the other server, 18.
    pub(crate) async fn new(own: Admin, there: Admin) -> Self {
        let pair = Self { town: Town::new(15, own).await, other: Town::new(18, there).await };
        pair.write("servers = [\"other\", \"main\"]");
        pair
    }

    /// Writes the manifest with these keys in `[tenants]`.
    pub(crate) fn write(&self, tenants: &str) {
        let other = self.other.admin_url();
        self.town.manifest(&format!(
            "[servers.other]\nurl = \"{other}\"\nbudget = 30\n\
             [services.{{}}_trip]\nserver = \"main\"\ntenants = \"own\"\nschema = \"trips\"\npool = {{ max = 10 }}\n\
             [services.{{}}_user]\nserver = \"main\"\ntenants = \"own\"\nschema = \"users\"\npool = {{ max = 20 }}\n\
             [services.{{}}_log]\nserver = \"main\"\n[tenants]\n{tenants}\n"
        ));
    }

    /// Returns what one column of a query says on the other server.
    async fn there(&self, sql: &str) -> Vec<String> {
        let postgres = self.other.superuser("postgres").await;
        let rows = postgres.simple(&sql.replace("{}", &self.town.anchor.name)).await.unwrap();
        rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
    }

    /// Makes a database of the tenant acme on the other server, by copying a template, and returns its name.
    pub(crate) async fn acme(&self, solution: &Solution) -> String {
        let control = &solution.manifest.control;
        let catalogue = Catalogue::open(&solution.server("main").admin, &control.database).await.unwrap();
        let (_, shape) = Shape::all(&solution.manifest, &[]).unwrap().remove(0);
        let plans = solution.plans(&[], &silent()).await.unwrap();
        let template = solution.ensure_template(&catalogue, "other", &shape, &plans, &silent()).await.unwrap();
        let admin = connect(&solution.server("other").admin, &Purpose::new("test")).await.unwrap();
        let name = self.town.service("acme");
        solution.copy_template(&admin, &template, &shape, "acme", &name).await.unwrap();
        catalogue.close().await;
        name
    }
}

fn service<'a>(solution: &'a Solution, town: &Town, short: &str) -> &'a Service {
    solution.manifest.service(&town.service(short)).unwrap()
}

async fn as_migrator(solution: &Solution, pair: &Pair, short: &str, database: &str) -> Connection {
    let service = pair.town.service(short);
    let target = FleetTarget::on(TargetKind::Tenant, "other", database, "acme", std::slice::from_ref(&service));
    let address = solution.migrator_address(&target, &service).unwrap();
    connect(&address, &Purpose::new("test")).await.unwrap_or_else(|error| panic!("{address}: {error:?}"))
}

async fn first(connection: &Connection, sql: &str) -> String {
    connection.simple(sql).await.unwrap()[0].get(0).unwrap().to_owned()
}

#[tokio::test]
async fn a_service_with_tenants_has_all_its_roles_where_their_databases_may_be() {
    for (own, there) in [(Admin::Superuser, Admin::Creator), (Admin::Creator, Admin::Superuser)] {
        let pair = Pair::new(own, there).await;
        pair.town.provision().await;
        assert_eq!(pair.town.provision().await, Vec::<String>::new(), "{there:?}: a second run finds nothing to do");
        let roles = pair
            .there("select replace(rolname, '{}_', '') from pg_roles where rolname like '{}\\_%' and rolname not like '%dba' order by 1")
            .await;
        let full = |service: &str| ["app", "migrator", "owner", "readonly"].map(|role| format!("{service}_{role}"));
        assert_eq!(roles, [full("trip"), full("user")].concat(), "and nothing of a service without tenants");
        let limits = pair
            .there("select rolconnlimit from pg_roles where rolname in ('{}_trip_app', '{}_user_app') order by rolname")
            .await;
        assert_eq!(limits, ["10", "20"], "the server's budget is shared out among them");
        let recorded = "select count(*) from control.provisioned where server = 'other' and kind = 'role'";
        let control = pair.town.superuser(&pair.town.service("control")).await;
        assert_eq!(first(&control, recorded).await, "8");
    }
}

#[tokio::test]
async fn a_copied_database_needs_no_settings_of_its_own() {
    for (own, there) in [(Admin::Superuser, Admin::Creator), (Admin::Creator, Admin::Superuser)] {
        let pair = Pair::new(own, there).await;
        pair.town.provision().await;
        let solution = pair.town.open().await;
        let acme = pair.acme(&solution).await;
        let migrator = as_migrator(&solution, &pair, "trip", &acme).await;
        assert_eq!(first(&migrator, "select current_user").await, format!("{}_owner", pair.town.service("trip")));
        assert_eq!(first(&migrator, "show search_path").await, "trips, public");
        migrator.execute_all("create table later (id int)").await.unwrap();
        let owner = first(&migrator, "select schemaname from pg_tables where tablename = 'later'").await;
        assert_eq!(owner, "trips");
        let settings = pair
            .there("select count(*) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase where d.datname like '{}\\_%'")
            .await;
        assert_eq!(settings, ["0"]);
        assert_eq!(
            pair.town.provision().await,
            Vec::<String>::new(),
            "{there:?}: a tenant's database is none of these"
        );
    }
}

#[tokio::test]
async fn what_was_set_for_a_service_s_own_database_follows_the_schema() {
    for (major, admin) in [(15, Admin::Creator), (18, Admin::Superuser)] {
        let town = Town::new(major, admin).await;
        town.write_manifest("", "schema = \"rides\"");
        town.provision().await;
        let trip = town.service("trip");
        town.write_manifest("", "schema = \"trips\"\ntenants = \"own\"");
        town.provision().await;
        assert_eq!(town.provision().await, Vec::<String>::new());
        let solution = town.open().await;
        for login in Login::ALL {
            let address = solution.address(service(&solution, &town, "trip"), login).unwrap();
            let session = connect(&address, &Purpose::new("test")).await.unwrap();
            assert_eq!(first(&session, "show search_path").await, "trips, public", "{login:?}");
        }
        let postgres = town.superuser("postgres").await;
        let everywhere = format!(
            "select count(*) from pg_db_role_setting s join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) c \
             where s.setdatabase = 0 and r.rolname like '{trip}\\_%' and c like 'search_path=%'"
        );
        assert_eq!(first(&postgres, &everywhere).await, "3");
    }
}

#[tokio::test]
async fn passwords_are_rotated_on_every_server_that_holds_tenants() {
    let pair = Pair::new(Admin::Superuser, Admin::Creator).await;
    pair.town.provision().await;
    let trip = pair.town.service("trip");
    let mut solution = pair.town.open().await;
    for login in [Login::App, Login::Migrator] {
        let rotated = solution.rotate(&trip, login).await.unwrap_or_else(|e| panic!("{e}: {:?}", e.causes()));
        let servers: Vec<&str> = rotated.iter().map(|rotation| rotation.server.as_str()).collect();
        assert_eq!(servers, ["main", "other"]);
        assert!(rotated.iter().all(|rotation| rotation.active.ends_with("_b")), "{rotated:?}");
    }
    // The twins act in a tenant's database as the first roles do.
    let acme = pair.acme(&solution).await;
    let migrator = as_migrator(&solution, &pair, "trip", &acme).await;
    let who = migrator.simple("select session_user, current_user, current_setting('search_path')").await.unwrap();
    let who: Vec<_> = (0..3).map(|at| who[0].get(at).unwrap().to_owned()).collect();
    assert_eq!(who, [format!("{trip}_migrator_b"), format!("{trip}_owner"), "trips, public".to_owned()]);
    solution.finish_rotation(&trip, Login::App).await.unwrap();
    let disabled = pair.there("select rolcanlogin::text from pg_roles where rolname = '{}_trip_app'").await;
    assert_eq!(disabled, ["false"]);
    assert_eq!(pair.town.provision().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_password_that_somebody_changed_is_set_again_where_the_service_may_enter_nothing() {
    let pair = Pair::new(Admin::Superuser, Admin::Creator).await;
    pair.town.provision().await;
    let postgres = pair.other.superuser("postgres").await;
    let role = format!("{}_readonly", pair.town.service("user"));
    postgres.execute_all(&format!("alter role {role} password 'somebody elses'")).await.unwrap();
    assert_eq!(pair.town.provision().await, [format!("ALTER ROLE \"{role}\" PASSWORD '***'")]);
    assert_eq!(pair.town.provision().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_is_a_tenant_s_database_is_taken() {
    let pair = Pair::new(Admin::Superuser, Admin::Superuser).await;
    pair.town.provision().await;
    let solution = pair.town.open().await;
    let acme = pair.acme(&solution).await;
    let path = pair.town.folder.path().join("pgfleet.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let more = format!("[services.{}_new]\nserver = \"other\"\ndatabase = \"{acme}\"\n", pair.town.anchor.name);
    std::fs::write(&path, text + &more).unwrap();
    let error = pair.town.open().await.provision(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(
        error.causes().iter().any(|cause| cause.contains("is taken") && cause.contains("tenant acme")),
        "{error:?}"
    );
}
