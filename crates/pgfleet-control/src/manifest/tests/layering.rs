use super::super::*;
use super::{Case, solution};

fn row(case: &Case, path: &str) -> (String, String) {
    let loaded = case.load();
    let row = loaded.settings.get(path).unwrap_or_else(|| panic!("no row {path}"));
    (row.value.clone(), row.origin.to_string())
}

const BASE: &str = "[services.trip]\n\n[migrations]\nlock_timeout = \"3s\"\n";

#[test]
fn a_later_layer_wins_and_is_named_as_the_origin() {
    let path = "migrations.lock_timeout";
    let pair = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());

    let case = solution("[services.trip]\n");
    assert_eq!(row(&case, path), pair("2s", "default"));
    let case = solution(BASE);
    assert_eq!(row(&case, path), pair("3s", "pgfleet.toml:4"));
    let case = case.file("pgfleet.dev.toml", "migrations.lock_timeout = \"4s\"\n");
    assert_eq!(row(&case, path), pair("4s", "pgfleet.dev.toml:1"));
    let case = case.variable("PGFLEET_MIGRATIONS__LOCK_TIMEOUT", "5s");
    assert_eq!(row(&case, path), pair("5s", "PGFLEET_MIGRATIONS__LOCK_TIMEOUT"));
    let case = case.flag("migrations.lock_timeout", "6s");
    assert_eq!(row(&case, path), pair("6s", "flag migrations.lock_timeout"));

    let loaded = case.load();
    assert_eq!(loaded.manifest.migrations.lock_timeout, std::time::Duration::from_secs(6));
    assert_eq!(loaded.settings.get(path).unwrap().origin, Origin::Flag(path.into()));
}

#[test]
fn the_origin_of_a_file_holds_its_path() {
    let case = solution(BASE);
    let loaded = case.load();
    let origin = &loaded.settings.get("migrations.lock_timeout").unwrap().origin;
    assert_eq!(*origin, Origin::File { path: case.root().join("pgfleet.toml"), line: 4 });
}

#[test]
fn the_environment_is_named_by_flag_then_by_variable() {
    let case = solution("[services.trip]\n[servers.main]\nurl = \"postgres://db/postgres\"\n")
        .file("pgfleet.stage.toml", "solution.name = \"staged\"\n")
        .file("pgfleet.prod.toml", "solution.name = \"real\"\n")
        .variable("PGFLEET_ENV", "stage");
    assert_eq!(case.load().manifest.solution.name, "staged");
    let loaded = case.env("prod").load();
    assert_eq!((&*loaded.manifest.env, &*loaded.manifest.solution.name), ("prod", "real"));
}

#[test]
fn an_overlay_may_add_a_service_and_change_one() {
    let case = solution("[services.trip]\n")
        .file("pgfleet.dev.toml", "[services.extra]\n[services.trip]\ndatabase = \"trip_dev\"\n");
    let manifest = case.load().manifest;
    let databases: Vec<_> = manifest.services.iter().map(|service| &*service.database).collect();
    assert_eq!(databases, ["trip_dev", "extra"]);
}

#[test]
fn an_array_is_replaced_and_a_table_is_merged() {
    let case = solution("[services.trip]\nextensions = [\"a\", \"b\"]\nproperties = { one = \"1\", two = \"2\" }\n")
        .file("pgfleet.dev.toml", "[services.trip]\nextensions = [\"c\"]\nproperties = { two = \"3\" }\n");
    let manifest = case.load().manifest;
    assert_eq!(manifest.services[0].extensions, ["c"]);
    assert_eq!(manifest.services[0].properties.len(), 2);
}

#[test]
fn variables_reach_every_kind_of_path() {
    let case = solution("[services.order-item]\n[servers.\"Main DB\"]\n[migrations.placeholders]\nRegion = \"us\"\n");
    for (variable, text, path, shown) in [
        ("PGFLEET_SOLUTION__NAME", "x", "solution.name", "x"),
        ("PGFLEET_SOLUTION__AUTO_MIGRATE", "false", "solution.auto_migrate", "false"),
        ("PGFLEET_SERVERS__MAIN_DB__URL", "postgres://a:b@c/d", "servers.\"Main DB\".url", "postgres://a:***@c/d"),
        ("PGFLEET_SERVERS__MAIN_DB__BUDGET", "12", "servers.\"Main DB\".budget", "12"),
        ("PGFLEET_SERVICES__ORDER_ITEM__DATABASE", "orders", "services.order-item.database", "orders"),
        ("PGFLEET_SERVICES__ORDER_ITEM__POOL__MAX", "7", "services.order-item.pool.max", "7"),
        ("PGFLEET_SERVICES__ORDER_ITEM__EXTENSIONS", "a, b", "services.order-item.extensions", "[\"a\", \"b\"]"),
        ("PGFLEET_SERVICES__ORDER_ITEM__PROPERTIES__X", "1", "services.order-item.properties.x", "1"),
        ("PGFLEET_SEEDS__PROPERTIES__ADMIN_PASSWORD", "pw", "seeds.properties.admin_password", "***"),
        ("PGFLEET_MIGRATIONS__PLACEHOLDERS__REGION", "eu", "migrations.placeholders.Region", "eu"),
    ] {
        let case =
            Case { sources: case.sources.clone(), folder: tempfile::tempdir().unwrap() }.variable(variable, text);
        assert_eq!(row(&case, path), (shown.to_owned(), variable.to_owned()));
    }
}

#[test]
fn service_names_with_double_underscores_do_not_confuse_variables() {
    let case = solution("[services.a]\n[services.\"a--b\"]\n")
        .variable("PGFLEET_SERVICES__A__B__DATABASE", "both")
        .variable("PGFLEET_SERVICES__A__DATABASE", "one")
        // The connection string of `a--b`, not an override.
        .variable("PGFLEET_A__B_URL", "postgres://x");
    let manifest = case.load().manifest;
    assert_eq!((&*manifest.services[0].database, &*manifest.services[1].database), ("one", "both"));
}

#[test]
fn other_variables_are_left_alone() {
    let case = solution("[services.trip]\n")
        .variable("PGFLEET_KEY", "x")
        .variable("PGFLEET_TRIP_URL", "x")
        .variable("PGFLEET_ADMIN_URL", "x")
        .variable("PGFLEET_SOLUTION_NAME", "x")
        .variable("PATH__X", "x");
    assert_ne!(case.load().manifest.solution.name, "x");
}

#[test]
fn an_overlay_beside_a_manifest_of_another_name_has_that_name() {
    let mut case =
        solution("").file("fleet.toml", "[services.trip]\n").file("fleet.dev.toml", "solution.name = \"y\"\n");
    case.sources.manifest = case.root().join("fleet.toml");
    assert_eq!(case.load().manifest.solution.name, "y");
}

#[test]
fn an_empty_name_of_an_environment_is_dev() {
    assert_eq!(solution("[services.trip]\n").variable("PGFLEET_ENV", "").load().manifest.env, "dev");
}
