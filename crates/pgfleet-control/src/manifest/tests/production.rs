use super::solution;

const REMOTE: &str = "[servers.main]\nurl = \"postgres://fleet@db/postgres\"\n[services.trip]\n";

#[test]
fn another_environment_refuses_a_local_server() {
    insta::assert_snapshot!(
        solution("[servers.main]\nurl = \"local\"\n[services.trip]\n").env("prod").printed(),
        @r#"
    pgfleet.toml:2:1: server `main` is "local" in environment `prod`
    hint: set `url` in the environment's own file, or PGFLEET_SERVERS__MAIN__URL
    "#
    );
    insta::assert_snapshot!(
        solution("[services.trip]\n").env("prod").printed(),
        @r#"
    server `main` is "local" in environment `prod`
    hint: set `url` in the environment's own file, or PGFLEET_SERVERS__MAIN__URL
    "#
    );
}

#[test]
fn the_server_of_no_declaration_can_be_set_by_its_variable() {
    let case = solution("[services.trip]\n").env("prod");
    let loaded = case.variable("PGFLEET_SERVERS__MAIN__URL", "postgres://fleet@db/postgres").load();
    assert_eq!(loaded.settings.get("servers.main.url").unwrap().value, "postgres://fleet@db/postgres");
}

#[test]
fn another_environment_refuses_well_known_passwords_and_does_not_print_them() {
    let text = format!(
        "{REMOTE}[services.trip.properties]\napi_secret = \"changeme\"\n[seeds.properties]\nadmin_password = \"1q2w3E*\"\nadmin_name = \"admin\"\n"
    );
    let case = solution(&text);
    case.load();
    insta::assert_snapshot!(
        case.env("stage").printed(),
        @r"
    pgfleet.toml:5:1: `api_secret` is a well-known default, refused in environment `stage`
    hint: set PGFLEET_SERVICES__TRIP__PROPERTIES__API_SECRET
    pgfleet.toml:7:1: `admin_password` is a well-known default, refused in environment `stage`
    hint: set PGFLEET_SEEDS__PROPERTIES__ADMIN_PASSWORD
    "
    );
    let case = solution("[servers.main]\nurl = \"postgres://postgres:postgres@db/postgres\"\n[services.trip]\n");
    insta::assert_snapshot!(
        case.env("prod").printed(),
        @r"
    pgfleet.toml:2:1: the password in the URL of server `main` is a well-known default
    hint: set PGFLEET_SERVERS__MAIN__URL
    "
    );
    let direct =
        "[servers.main]\nurl = \"postgres://db/x\"\ndirect = \"postgres://boss:postgres@db\"\n[services.trip]\n";
    insta::assert_snapshot!(
        solution(direct).env("prod").printed(),
        @r"
    pgfleet.toml:3:1: the password in `direct` of server `main` is a well-known default
    hint: set PGFLEET_SERVERS__MAIN__DIRECT
    "
    );
}

#[test]
fn another_environment_accepts_passwords_of_its_own() {
    let case = solution(&format!("{REMOTE}[seeds.properties]\nadmin_password = \"c7Hq!vR\"\n"));
    assert_eq!(case.env("prod").load().manifest.env, "prod");
    assert_eq!(solution(REMOTE).env("prod").load().manifest.env, "prod");
}
