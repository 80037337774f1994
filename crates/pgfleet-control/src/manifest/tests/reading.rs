use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::super::*;
use super::solution;

#[test]
fn a_bare_service_gets_all_defaults() {
    let case = solution("[services.trip]\n");
    let Loaded { manifest, unused, .. } = case.load();
    assert!(unused.is_empty());
    assert_eq!(manifest.env, "dev");
    assert_eq!(manifest.root, case.root());
    assert_eq!(manifest.solution.name, case.root().file_name().unwrap().to_str().unwrap());
    assert!(manifest.solution.auto_migrate);
    assert_eq!(manifest.solution.isolation, Isolation::Strict);
    assert!(matches!(manifest.servers["main"].url, ServerUrl::Local));
    assert_eq!(manifest.servers["main"].budget, Budget::Auto);
    assert_eq!((&*manifest.control.server, &*manifest.control.database), ("main", "pgfleet"));

    let trip = &manifest.services[0];
    assert_eq!((&*trip.server, &*trip.database, &*trip.schema), ("main", "trip", "public"));
    assert_eq!(trip.migrations, case.root().join("services/trip/migrations"));
    assert_eq!(trip.seeds, case.root().join("services/trip/seeds"));
    assert_eq!((trip.pool.max, trip.pool.min), (20, 5));
    assert_eq!(trip.tenants, TenantUse::None);
    assert!(trip.layout.is_none() && trip.history.is_none() && trip.program.is_none() && trip.run.is_none());
    assert_eq!(trip.url_variable(), "PGFLEET_TRIP_URL");
    assert_eq!(trip.migrator_url_variable(), "PGFLEET_TRIP_MIGRATOR_URL");

    let migrations = &manifest.migrations;
    assert_eq!(migrations.lock_timeout, Duration::from_secs(2));
    assert_eq!((migrations.lock_tries, migrations.max_tries, migrations.wait_attempts), (10, 3, 30));
    assert_eq!(migrations.min_retry_wait, Duration::from_secs(5));
    assert_eq!(migrations.max_retry_wait, Duration::from_secs(15));
    assert_eq!(migrations.concurrency, 4);
    assert_eq!(migrations.on_ahead, OnAhead::Run);
    assert_eq!(migrations.concurrently, Concurrently::AsWritten);
    assert_eq!(manifest.backup.keep_days, 30);
    assert!(manifest.events.url.is_none());
}

#[test]
fn every_default_of_the_schema_is_a_value_of_its_kind() {
    for key in schema::KEYS {
        if let schema::Preset::Is(text) = key.default {
            assert!(key.kind.read_text(text).is_ok(), "{}", key.path);
        }
    }
}

/// A manifest with every key.
const FULL: &str = r#"
[solution]
name = "masar"
auto_migrate = false
isolation = "declared"

[servers.main]
url = "local"
replicas = ["postgres://r@replica/x"]
budget = 80
data_dir = "data"
bin_dir = "/usr/lib/postgresql/15/bin"
max_connections = 50

[servers.second]
url = "postgres://admin:pw@db/postgres"
budget = "auto"
direct = "postgres://db:5433"

[control]
server = "main"
database = "fleet"
key_file = "key"
old_key_file = "old-keys"

[services.trip]
server = "main"
database = "trips"
schema = "trip"
migrations = "db/trip"
seeds = "/srv/seeds"
layout = "golang-migrate"
history = "public.schema_migrations"
modules = ["outbox", "inbox"]
uses = ["administration:permission"]
extensions = ["pg_trgm"]
tenants = "own"
pool = { max = 10, min = 1, idle_timeout = "1m", connect_timeout = "5s", command_timeout = "10s" }
program = "target/debug/trip-service"
run = "cargo run -p trip-service"
health = "tcp:8081"
health_timeout = "5s"
properties = { admin_email = "trip@example.com" }
streams = { "*" = "memory" }

[services.administration]
server = "second"
modules = ["permission"]

[modules.permission]
schema = "permission"
connection = "AbpPermissionManagement"

[modules.outbox]
migrations = "db/outbox"
seeds = "db/outbox-seeds"
layout = "goose"
schema = "outbox"
history = "outbox.schema_version"
connection = "Outbox"

[connections]
AbpPermissionManagement = "administration"

[tenants]
databases = "per-service"
placement = "pinned"
servers = ["main", "second"]
server = "second"
weights = { second = 2 }
drop_after = "30d"
canary = ["acme"]
verify_after = "1h"
always_seed = true
after_connection_string_updated = "true"

[rollouts]
concurrency = 2
canary = 0
growth = 10
max_failures = 0

[migrations]
lock_timeout = "500ms"
lock_tries = 1
retry_on = "any"
max_tries = 1
min_retry_wait = "0s"
max_retry_wait = "1s"
wait_attempts = 2
wait_delay = "1s"
durability = "each"
concurrently = "plain-when-empty"
on_changed = "warn"
on_missing = "warn"
on_ahead = "error"
on_out_of_order = "apply"
placeholders = { region = "eu" }
concurrency = 8

[seeds.properties]
admin_email = "all@example.com"
admin_password = "hunter22"

[lint]
deny = ["ban-drop-column"]
allow = ["x"]

[events]
broker = "rabbitmq"
url = "amqp://u:pw@mq"

[backup]
store = "s3://b/p"
recipients = ["age1x"]
schedule = "0 1 * * *"
keep_days = 7
"#;

#[test]
fn every_key_can_be_written() {
    let case = solution(FULL);
    let Loaded { manifest, settings, unused } = case.load();
    let trip = &manifest.services[0];
    assert_eq!(trip.migrations, case.root().join("db/trip"));
    assert_eq!(trip.seeds.to_str(), Some("/srv/seeds"));
    assert_eq!(trip.layout.as_deref(), Some("golang-migrate"));
    assert_eq!(trip.program, Some(case.root().join("target/debug/trip-service")));
    assert_eq!(trip.uses, [Uses { service: "administration".into(), module: "permission".into() }]);
    assert_eq!(trip.streams["*"], StreamPlace::Memory);
    assert_eq!(trip.pool.idle_timeout, Duration::from_mins(1));
    assert_eq!(manifest.servers["main"].budget, Budget::Connections(80));
    assert_eq!(manifest.servers["main"].max_connections, Some(50));
    let direct = manifest.servers["second"].direct.as_ref();
    assert_eq!(direct.map(secrecy::ExposeSecret::expose_secret), Some("postgres://db:5433"));
    assert_eq!(manifest.server_of(&manifest.services[1]).name, "second");
    assert_eq!(manifest.migrations.on_out_of_order, OnOutOfOrder::Apply);
    assert_eq!(manifest.migrations.concurrently, Concurrently::PlainWhenEmpty);
    assert_eq!(manifest.migrations.placeholders["region"].expose_secret(), "eu");
    assert_eq!(manifest.events.broker, Broker::Rabbitmq);
    assert_eq!(manifest.connections["AbpPermissionManagement"], "administration");
    let properties = manifest.properties_of(trip);
    assert_eq!(properties["admin_email"].expose_secret(), "trip@example.com");
    assert_eq!(properties["admin_password"].expose_secret(), "hunter22");

    // Everything that can be set is in this manifest, so each key has its row.
    for key in schema::KEYS {
        let pattern: Vec<_> = key.segments().collect();
        let found = settings.rows().iter().any(|row| {
            let path: Vec<_> = row.path.split('.').collect();
            path.len() == pattern.len() && path.iter().zip(&pattern).all(|(a, b)| *b == "*" || a == b)
        });
        assert!(found, "{}", key.path);
    }
    let notes: Vec<_> = unused.iter().map(ToString::to_string).collect();
    assert!(
        notes.contains(&"pgfleet.toml:117:1: `backup.keep_days` has no effect in this version".into()),
        "{notes:#?}"
    );
    assert!(!notes.iter().any(|note| note.contains("uses") || note.contains("migrations.")), "{notes:#?}");
}

#[test]
fn a_manifest_with_a_character_missing_is_read_or_refused_at_a_place() {
    let case = solution("");
    // A prime, so that over all lines each kind of character goes missing once.
    for (offset, _) in FULL.char_indices().step_by(5) {
        let text = format!("{}{}", &FULL[..offset], &FULL[offset + 1..]);
        std::fs::write(case.root().join("pgfleet.toml"), text).unwrap();
        if let Err(errors) = Manifest::load(&case.sources) {
            assert!(errors.iter().all(|error| error.file.is_some()), "without character {offset}: {errors}");
        }
    }
}

#[test]
fn a_thousand_services_are_read() {
    let mut text = String::from("[servers.main]\n");
    for number in 0..1_000 {
        text.push_str(&format!("[services.service-{number}]\nproperties.a = \"1\"\n"));
    }
    let loaded = solution(&text).load();
    assert_eq!(loaded.manifest.services[999].name, "service-999");
    assert!(loaded.settings.get("services.service-999.properties.a").is_some());
}

#[test]
fn services_keep_the_order_of_the_file() {
    let manifest = solution("[services.zebra]\n[services.ant]\n[services.mole.pool]\nmax = 9\n[services.bee]\n");
    let names: Vec<_> = manifest.load().manifest.services.iter().map(|service| service.name.clone()).collect();
    assert_eq!(names, ["zebra", "ant", "mole", "bee"]);
}

#[test]
fn service_names_may_hold_quotes_capitals_dots_and_80_characters() {
    let long = "x".repeat(80);
    let case =
        solution(&format!("[services.'My \"odd\" one']\n[services.'a.b']\n[services.{long}]\n[services.\"über\"]\n"));
    let manifest = case.load().manifest;
    assert_eq!(manifest.services[0].database, "My \"odd\" one");
    assert_eq!(manifest.services[1].migrations, case.root().join("services/a.b/migrations"));
    assert_eq!(manifest.services[2].database, short_name(&long));
    assert_eq!(manifest.services[2].database.len(), 63);
    assert_eq!(manifest.services[3].url_variable(), "PGFLEET__BER_URL");
}

#[test]
fn long_names_are_cut_on_a_character_and_stay_apart() {
    assert_eq!(short_name("trip"), "trip");
    assert_eq!(short_name(&"x".repeat(63)), "x".repeat(63));
    let (one, two) = (short_name(&("x".repeat(70) + "1")), short_name(&("x".repeat(70) + "2")));
    assert_ne!(one, two);
    assert!(one.starts_with(&("x".repeat(54) + "_")));
    let wide = short_name(&"ü".repeat(40));
    assert!(wide.len() <= 63 && wide.starts_with(&"ü".repeat(27)));
    assert_eq!(short_name(&"a".repeat(64)).split_once('_').unwrap().1, "ffe054fe");
}

#[test]
fn the_manifest_is_found_from_a_folder_below() {
    let case = solution("[services.trip]\n");
    let below = case.root().join("services/trip");
    std::fs::create_dir_all(&below).unwrap();
    assert_eq!(find(&below), Some(case.root().join("pgfleet.toml")));
    assert_eq!(find(std::path::Path::new("/proc/self")), None);
}

#[test]
fn no_secret_is_printed_by_debug_or_by_the_settings() {
    let case = solution(
        "[servers.main]\nurl = \"postgres://admin:hunter2@db/postgres\"\nreplicas = [\"postgres://r:hunter2@r/x\"]\n\
         direct = \"postgres://boss:hunter2@db:5433\"\n\
         [services.trip.properties]\nadmin_password = \"hunter2\"\nplain = \"hunter2\"\n\
         [seeds.properties]\napi_key = \"hunter2\"\n[events]\nurl = \"amqp://u:hunter2@mq\"\n\
         [migrations.placeholders]\nsigning_secret = \"hunter2\"\n",
    );
    let loaded = case.load();
    assert!(!format!("{:?}", loaded.manifest).contains("hunter2"));
    let shown: Vec<_> = loaded.settings.rows().iter().filter(|row| row.value.contains("hunter2")).collect();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0].path, "services.trip.properties.plain");
    assert_eq!(loaded.settings.get("servers.main.url").unwrap().value, "postgres://admin:***@db/postgres");
    assert_eq!(loaded.settings.get("servers.main.replicas").unwrap().value, "[\"postgres://r:***@r/x\"]");
    assert_eq!(loaded.settings.get("servers.main.direct").unwrap().value, "postgres://boss:***@db:5433");
    assert!(loaded.unused.iter().all(|note| !note.message.contains("hunter2")));
}

#[test]
fn settings_of_a_local_server_are_noted_on_a_remote_one_and_the_other_way_round() {
    let case = solution("[servers.main]\nurl = \"postgres://db/postgres\"\ndata_dir = \"data\"\n[services.trip]\n");
    let notes: Vec<_> = case.load().unused.iter().map(ToString::to_string).collect();
    assert_eq!(notes, ["pgfleet.toml:3:1: `servers.main.data_dir` has no effect on a server that is not local"]);
    let case = solution("[servers.main]\nurl = \"local\"\ndirect = \"postgres://db\"\n[services.trip]\n");
    let notes: Vec<_> = case.load().unused.iter().map(ToString::to_string).collect();
    assert_eq!(notes, ["pgfleet.toml:3:1: `servers.main.direct` has no effect on a local server"]);
}

#[test]
fn key_value_connection_strings_are_urls_too() {
    for url in ["Host=db;Port=5432;Username=u;Password=p", "host=db user=u", "postgresql://u@db"] {
        let case = solution(&format!("[servers.main]\nurl = \"{url}\"\n[services.trip]\n"));
        assert!(
            matches!(&case.load().manifest.servers["main"].url, ServerUrl::Remote(text) if text.expose_secret() == url)
        );
    }
}

#[test]
fn the_reference_names_every_key_once() {
    let page = reference_markdown();
    assert!(page.contains("## `[services.<name>]`"));
    assert!(page.contains("| `pool.max` | integer, 1 to 10000 | `20` |"));
    assert!(page.contains("| `retry_on` | `transient`, `any` | `transient` |"));
    assert_eq!(page.lines().filter(|line| line.starts_with("| `")).count(), schema::KEYS.len());
}

#[test]
fn the_example_is_a_valid_manifest() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/masar/pgfleet.toml");
    let loaded = Manifest::load(&Sources { manifest: path, ..Sources::default() }).unwrap();
    assert!(loaded.unused.is_empty());
    let names: Vec<_> = loaded.manifest.declared_services().map(|service| &*service.name).collect();
    assert_eq!(names, ["user", "trip", "notifications", "auth"]);
    for service in loaded.manifest.declared_services() {
        assert!(service.migrations.is_dir() && service.seeds.is_dir(), "{}", service.name);
    }
}

#[test]
fn tenants_are_on_the_servers_of_their_services_unless_the_manifest_says_where() {
    let servers = "[control]\nserver = \"a\"\n[servers.a]\n[servers.b]\n[servers.c]\n";
    let services = "[services.x]\nserver = \"b\"\ntenants = \"own\"\nschema = \"x\"\n[services.y]\nserver = \"a\"\n\
                    tenants = \"own\"\nschema = \"y\"\n[services.z]\nserver = \"c\"\n[services.w]\nserver = \"b\"\n\
                    tenants = \"own\"\nschema = \"w\"\n";
    let manifest = solution(&format!("{servers}{services}[migrations]\nconcurrency = 7\n")).load().manifest;
    assert_eq!(manifest.tenants.servers, ["b", "a"]);
    assert!(manifest.holds_tenants("a") && !manifest.holds_tenants("c"));
    assert_eq!(manifest.tenants.placement, Placement::FewestDatabases);
    assert_eq!(manifest.tenants.drop_after, Duration::from_hours(7 * 24));
    assert_eq!(manifest.tenants.verify_after, Duration::from_hours(24));
    assert_eq!(manifest.rollouts, Rollouts { concurrency: 7, canary: 1, growth: 4, max_failures: 5 });

    let tenants = "[tenants]\nservers = [\"c\", \"a\"]\nplacement = \"weighted\"\nweights = { c = 3 }\n\
                   drop_after = \"90d\"\ncanary = [\"acme\"]\n[rollouts]\nconcurrency = 2\nmax_failures = 0\n";
    let case = solution(&format!("{servers}{services}{tenants}")).variable("PGFLEET_TENANTS__WEIGHTS__A", "0");
    let loaded = case.load();
    let tenants = &loaded.manifest.tenants;
    assert_eq!(tenants.servers, ["c", "a"]);
    assert_eq!(tenants.weights, BTreeMap::from([("c".to_owned(), 3), ("a".to_owned(), 0)]));
    assert_eq!(tenants.drop_after, Duration::from_hours(90 * 24), "longer than a time-out of PostgreSQL may be");
    assert_eq!(tenants.canary, ["acme"]);
    assert_eq!(loaded.manifest.rollouts, Rollouts { concurrency: 2, canary: 1, growth: 4, max_failures: 0 });
    assert!(loaded.unused.is_empty(), "{:?}", loaded.unused);
}

#[test]
fn what_belongs_to_another_placement_is_said_to_have_no_effect() {
    let text = "[services.x]\ntenants = \"own\"\n[tenants]\nserver = \"main\"\nweights.main = 2\n";
    let notes: Vec<String> = solution(text).load().unused.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "pgfleet.toml:4:1: `tenants.server` has no effect without `placement = \"pinned\"`",
            "pgfleet.toml:5:9: `tenants.weights.main` has no effect without `placement = \"weighted\"`",
        ]
    );
    let notes = solution("[services.x]\n[tenants]\nservers = [\"main\"]\n").load().unused;
    assert!(notes[0].to_string().contains("no effect without a service"), "{notes:?}");
}
