use super::super::*;
use super::solution;

/// What is printed for a manifest that has a service already.
fn printed(text: &str) -> String {
    solution(&format!("[services.trip]\n{text}")).printed()
}

#[test]
fn no_file() {
    let sources = Sources { manifest: "/nowhere/pgfleet.toml".into(), ..Sources::default() };
    insta::assert_snapshot!(
        Manifest::load(&sources).unwrap_err(),
        @r"
    there is no manifest at /nowhere/pgfleet.toml
    hint: make one: pgfleet init
    "
    );
}

#[test]
fn a_folder_in_place_of_the_file() {
    let mut case = solution("");
    case.sources.manifest = case.root().to_owned();
    assert!(case.printed().contains("cannot be read"), "{}", case.printed());
}

#[test]
fn no_utf_8() {
    let case = solution("").file("pgfleet.toml", b"[solution]\nname = \"\xff\"\n");
    insta::assert_snapshot!(case.printed(), @r"
    pgfleet.toml:2:9: is not UTF-8
    hint: save the file as UTF-8
    ");
}

#[test]
fn bad_syntax_in_both_files() {
    let case = solution("[services.trip]\nserver =\n").file("pgfleet.dev.toml", "[a\n");
    let errors = case.errors();
    let places: Vec<_> = errors.iter().map(|error| (error.to_string(), error.line)).collect();
    assert_eq!(errors.len(), 2, "{places:?}");
    assert!(errors[0].to_string().starts_with("pgfleet.dev.toml:1:3: "), "{places:?}");
    assert!(errors[1].to_string().starts_with("pgfleet.toml:2:"), "{places:?}");
}

#[test]
fn a_key_written_twice() {
    insta::assert_snapshot!(printed("schema = \"a\"\nschema = \"b\"\n"), @"pgfleet.toml:3:1: duplicate key");
}

#[test]
fn no_service() {
    insta::assert_snapshot!(solution("[solution]\nname = \"x\"\n").printed(), @r"
    pgfleet.toml: there is no service
    hint: declare one: [services.trip]
    ");
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(
        printed("databse = \"x\"\npool.maxx = 3\nlock_timeout = \"1s\"\nzzz = 1\n[servces.x]\n[solution]\nisolation.x = 1\n[[a]]\n"),
        @r#"
    pgfleet.toml:2:1: unknown key `databse` in [services.trip]
    hint: did you mean `database`?
    pgfleet.toml:3:6: unknown key `maxx` in [services.trip.pool]
    hint: did you mean `max`?
    pgfleet.toml:4:1: unknown key `lock_timeout` in [services.trip]
    hint: `lock_timeout` belongs in [migrations]
    pgfleet.toml:5:1: unknown key `zzz` in [services.trip]
    pgfleet.toml:6:2: unknown section [servces]
    hint: did you mean `services`?
    pgfleet.toml:8:1: `isolation` must be one of "strict", "declared", found a table
    pgfleet.toml:9:3: unknown section [a]
    "#
    );
    insta::assert_snapshot!(solution("name = \"x\"\n[services.trip]\n").printed(), @r"
    pgfleet.toml:1:1: unknown key `name` outside of any section
    hint: `name` belongs in [solution]
    ");
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(
        printed(
            r#"pool = { max = "20", min = -1 }
database = 1
extensions = "x"
modules = ["a", 2]
tenants = "owned"
properties = { n = 1 }
[servers]
main = 3
[servers.x]
budget = "lots"
[solution]
auto_migrate = "yes"
[migrations]
lock_timeout = 2
wait_delay = "5"
max_tries = 0
concurrency = 2.5
lock_tries = 2026-01-01
"#
        ),
        @r#"
    pgfleet.toml:2:16: `max` must be an integer, found a string
    pgfleet.toml:2:28: `min` must be between 0 and 10000, found -1
    pgfleet.toml:3:12: `database` must be a string, found an integer
    pgfleet.toml:4:14: `extensions` must be a list of strings, found a string
    pgfleet.toml:5:11: `modules` must be a list of strings, found an integer among them
    pgfleet.toml:6:11: `tenants` must be one of "none", "own", found `owned`
    pgfleet.toml:7:20: `n` must be a string, found an integer
    pgfleet.toml:9:1: `main` must be a table, found an integer
    pgfleet.toml:11:10: `budget` must be an integer or "auto", found a string
    pgfleet.toml:13:16: `auto_migrate` must be true or false, found a string
    pgfleet.toml:15:16: `lock_timeout` must be a duration such as "30s", found an integer
    pgfleet.toml:16:14: `wait_delay` must be a duration such as "30s", found `5`
    pgfleet.toml:17:13: `max_tries` must be between 1 and 1000, found 0
    pgfleet.toml:18:15: `concurrency` must be an integer, found a float
    pgfleet.toml:19:14: `lock_tries` must be an integer, found a date
    "#
    );
    insta::assert_snapshot!(solution("[[services]]\nname = \"x\"\n").errors()[0], @"pgfleet.toml: there is no service");
}

#[test]
fn values_that_are_empty() {
    insta::assert_snapshot!(
        printed("database = \"\"\nmigrations = \"\"\nschema = \"\"\nhistory = \"x.\"\n[solution]\nname = \"\"\n"),
        @r"
    pgfleet.toml:2:1: the name of database `` is empty
    pgfleet.toml:3:1: `migrations` of service `trip` is empty
    pgfleet.toml:4:1: the schema of service `trip` is empty
    pgfleet.toml:5:1: `history` must be written as `schema.table`
    pgfleet.toml:7:1: the name of the solution `` is empty
    "
    );
}

#[test]
fn a_nul_and_an_endless_duration() {
    insta::assert_snapshot!(
        printed("run = \"a\\u0000b\"\n[migrations]\nlock_timeout = \"30d\"\n"),
        @r"
    pgfleet.toml:2:7: `run` must not contain a NUL character
    pgfleet.toml:4:16: `lock_timeout` must be at most 24 days
    "
    );
}

#[test]
fn names_that_cannot_be() {
    insta::assert_snapshot!(
        solution("[services.\"\"]\n[services.\"a/b\"]\n[services.\".x\"]\n[services.\"a\\u0007\"]\n[servers.\"a\\u0000\"]\n").printed(),
        @r"
    pgfleet.toml:1:11: the name of service `` is empty
    pgfleet.toml:1:11: the name of database `` is empty
    pgfleet.toml:2:11: the name of service `a/b` contains `/`
    pgfleet.toml:3:11: the name of service `.x` begins with `.`
    pgfleet.toml:4:11: the name of service `a\u{7}` contains a control character
    pgfleet.toml:4:11: the name of database `a\u{7}` contains a control character
    pgfleet.toml:5:10: the name of server `a\0` contains a control character
    "
    );
}

#[test]
fn one_database_for_two() {
    insta::assert_snapshot!(
        solution("[services.a]\ndatabase = \"x\"\n\n[services.x]\n[services.fleet]\ndatabase = \"pgfleet\"\n").printed(),
        @r"
    pgfleet.toml:4:11: service `a` and service `x` both use database `x` on server `main` (the first at pgfleet.toml:2:1)
    hint: give each a database of its own
    pgfleet.toml:6:1: the control database and service `fleet` both use database `pgfleet` on server `main`
    hint: give each a database of its own
    "
    );
}

#[test]
fn one_database_name_on_two_servers_is_fine() {
    let case = solution(
        "[servers.one]\n[servers.two]\n[control]\nserver = \"one\"\n\
         [services.a]\nserver = \"one\"\ndatabase = \"x\"\n[services.b]\nserver = \"two\"\ndatabase = \"x\"\n",
    );
    assert_eq!(case.load().manifest.services.len(), 2);
}

#[test]
fn databases_and_schemas_that_are_taken() {
    insta::assert_snapshot!(
        solution("[services.postgres]\n[services.a]\ndatabase = \"template1\"\nschema = \"pg_x\"\n[services.b]\nschema = \"pgfleet\"\n").printed(),
        @r#"
    pgfleet.toml:1:11: database `postgres` belongs to the server
    hint: name another one: `database = "…"`
    pgfleet.toml:3:1: database `template1` belongs to the server
    hint: name another one: `database = "…"`
    pgfleet.toml:4:1: schema `pg_x` belongs to PostgreSQL or to pgfleet
    pgfleet.toml:6:1: schema `pgfleet` belongs to PostgreSQL or to pgfleet
    "#
    );
    let long = "x".repeat(64);
    let error = printed(&format!("database = \"{long}\"\n"));
    assert_eq!(
        error,
        format!("pgfleet.toml:2:1: the name of database `{long}` is longer than 63 bytes, PostgreSQL would cut it")
    );
}

#[test]
fn names_that_are_one_in_the_environment() {
    insta::assert_snapshot!(
        solution("[services.order-item]\n[services.order_item]\n[services.admin]\n[services.trip-migrator]\n[services.trip]\n").printed(),
        @r"
    pgfleet.toml:2:11: services `order-item` and `order_item` would both be handed a URL in PGFLEET_ORDER_ITEM_URL (the first at pgfleet.toml:1:11)
    hint: rename one of them
    pgfleet.toml:3:11: service `admin` would be handed its URL in PGFLEET_ADMIN_URL, which is the administrator's
    hint: give the service another name
    pgfleet.toml:5:11: services `trip-migrator` and `trip` would both be handed a URL in PGFLEET_TRIP_MIGRATOR_URL (the first at pgfleet.toml:4:11)
    hint: rename one of them
    "
    );
}

#[test]
fn servers_that_are_not_there() {
    insta::assert_snapshot!(
        solution("[servers.main]\n[services.a]\nserver = \"mian\"\n[services.b]\nserver = \"other\"\n[control]\nserver = \"x\"\n").printed(),
        @r"
    pgfleet.toml:3:1: there is no server `mian`
    hint: did you mean `main`?
    pgfleet.toml:5:1: there is no server `other`
    hint: declare [servers.other], or use one of: main
    pgfleet.toml:7:1: there is no server `x`
    hint: declare [servers.x], or use one of: main
    "
    );
    insta::assert_snapshot!(
        solution("[servers.one]\n[servers.two]\n[services.a]\n").printed(),
        @r#"
    pgfleet.toml: [control] does not say which of the servers it uses: one, two
    hint: add `server = "…"`
    pgfleet.toml:3:11: service `a` does not say which of the servers it uses: one, two
    hint: add `server = "…"`
    "#
    );
}

#[test]
fn a_url_that_is_none_is_not_printed() {
    let error = solution("[servers.main]\nurl = \"hunter2\"\n[services.a]\n").printed();
    insta::assert_snapshot!(error, @r#"
    pgfleet.toml:2:1: `url` is no connection string
    hint: write "local" or postgres://user@host:5432/postgres
    "#);
    assert!(solution("[servers.main]\nurl = \"\"\n[services.a]\n").printed().contains("no connection string"));
    let direct = solution("[servers.main]\nurl = \"postgres://db/x\"\ndirect = \"hunter2\"\n[services.a]\n").printed();
    insta::assert_snapshot!(direct, @r"
    pgfleet.toml:3:1: `direct` is no connection string
    hint: write postgresql://host:5432, or remove it
    ");
    assert!(
        solution("[servers.main]\nurl = \"mysql://host=x\"\n[services.a]\n").printed().contains("no connection string")
    );
}

#[test]
fn no_error_repeats_a_secret() {
    for text in [
        "[seeds.properties]\nadmin_password = hunter2\n",
        "[seeds.properties]\nadmin_password = \"hunter2\n",
        "[seeds.properties]\nadmin_password = [\"hunter2\"]\n",
        "[seeds.properties]\nadmin_password = { hunter2 = 1 }\n",
        "[seeds.properties]\nadmin_password = \"hunter2\\u0000\"\n",
        "[servers.main]\nurl = [\"postgres://a:hunter2@b\"]\n",
        "[servers.main]\nurl = \"postgre://a:hunter2@b\"\n",
        "[servers.main]\nreplicas = \"postgres://a:hunter2@b\"\n",
    ] {
        let error = printed(text);
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn the_property_that_pgfleet_sets() {
    insta::assert_snapshot!(
        solution("[servers.main]\n[services.a.properties]\ntenant = \"x\"\n[seeds.properties]\ntenant = \"y\"\n").printed(),
        @r"
    pgfleet.toml:3:1: the property `tenant` is set by pgfleet: to the tenant's name, or to nothing
    hint: give the property another name
    pgfleet.toml:5:1: the property `tenant` is set by pgfleet: to the tenant's name, or to nothing
    hint: give the property another name
    "
    );
}

#[test]
fn uses_that_cannot_be() {
    insta::assert_snapshot!(
        printed("uses = [\"administration:permission\"]\n[services.administration]\nmodules = [\"permission\"]\n[modules.permission]\nschema = \"permission\"\n"),
        @r#"
    pgfleet.toml:2:1: `uses` of service `trip` is refused by `isolation = "strict"`
    hint: set `isolation = "declared"` in [solution] to allow what `uses` names
    "#
    );
    insta::assert_snapshot!(
        printed("uses = [\"permission\", \":x\", \"a: b\", \"trip:x\", \"administratoin:y\"]\n[services.administration]\n[solution]\nisolation = \"declared\"\n"),
        @r"
    pgfleet.toml:2:1: `uses` must hold `service:module`, found `permission`
    pgfleet.toml:2:1: `uses` must hold `service:module`, found `:x`
    pgfleet.toml:2:1: `uses` must hold `service:module`, found `a: b`
    pgfleet.toml:2:1: service `trip` uses itself
    pgfleet.toml:2:1: `uses` names service `administratoin`, which is not declared
    hint: did you mean `administration`?
    "
    );
}

#[test]
fn modules_that_cannot_be_used_by_others() {
    let uses = "uses = [\"office:permision\", \"office:permission\", \"office:setting\", \"office:feature\", \"office:language\", \"office:audit\"]\n\
                [services.office]\nschema = \"office\"\n\
                modules = [\"permission\", \"setting\", \"feature\", \"language\", \"audit\"]\n\
                [modules.permission]\n[modules.setting]\nschema = \"office\"\n[modules.feature]\nschema = \"shared\"\n\
                [modules.language]\nschema = \"shared\"\n[modules.audit]\nschema = \"audit\"\nhistory = \"audit.versions\"\n\
                [solution]\nisolation = \"declared\"\n";
    insta::assert_snapshot!(printed(uses), @r#"
    pgfleet.toml:2:1: `uses` names `office:permision`, but `permision` is none of the modules of service `office`
    hint: did you mean `permission`?
    pgfleet.toml:2:1: `uses` names `office:permission`, and module `permission` has no schema of its own: all tables of service `office` would be open
    hint: add `schema = "permission"` to [modules.permission]
    pgfleet.toml:2:1: `uses` names `office:setting`, but module `setting` shares schema `office` with service `office` itself
    hint: give the module a schema of its own
    pgfleet.toml:2:1: `uses` names `office:feature`, but module `feature` shares schema `shared` with module `language`
    hint: give the module a schema of its own
    pgfleet.toml:2:1: `uses` names `office:language`, but module `language` shares schema `shared` with module `feature`
    hint: give the module a schema of its own
    pgfleet.toml:2:1: `uses` names `office:audit`, and the history of module `audit` is among its tables
    hint: who can write a history can forge it: remove `history`, or name another schema in it
    "#);
}

#[test]
fn connection_names_that_lead_nowhere() {
    let text = "uses = [\"a:m\", \"b:m\"]\n[services.a]\nmodules = [\"m\"]\n[services.b]\nmodules = [\"m\"]\n\
                [modules.m]\nschema = \"m\"\n[modules.n]\nconnection = \"m\"\n[modules.o]\nconnection = \"Orders\"\n\
                [solution]\nisolation = \"declared\"\n\
                [connections]\nOrders = \"trip\"\n\"a,b\" = \"trip\"\n\"x.y\" = \"trip\"\nx_y = \"trip\"\n";
    insta::assert_snapshot!(printed(text), @r"
    pgfleet.toml:2:1: service `trip` uses `m` of several services
    hint: say in [connections] where m leads
    pgfleet.toml:10:1: modules `m` and `n` have one connection name `m`
    pgfleet.toml:16:1: connection `Orders` is mapped to service `trip`, which does not have its module `o`
    hint: add it to `modules` of [services.trip]
    pgfleet.toml:17:1: connection `a,b` cannot be in a list of names
    hint: write it without commas and blanks around
    pgfleet.toml:19:1: connections `x.y` and `x_y` would have one name in the environment
    ");
}

#[test]
fn a_service_whose_variables_are_those_of_another() {
    insta::assert_snapshot!(printed("[services.trip_read]\n"), @r"
    pgfleet.toml:2:11: services `trip` and `trip_read` would both be handed a URL in PGFLEET_TRIP_READ_URL (the first at pgfleet.toml:1:11)
    hint: rename one of them
    ");
    let text = "uses = [\"user:m\"]\n[services.user]\nmodules = [\"m\"]\n[modules.m]\nschema = \"m\"\n\
                [services.trip-connection-m]\n[solution]\nisolation = \"declared\"\n";
    insta::assert_snapshot!(printed(text), @r"
    pgfleet.toml:7:11: services `trip` and `trip-connection-m` would both be handed a URL in PGFLEET_TRIP_CONNECTION_M_URL (the first at pgfleet.toml:1:11)
    hint: rename one of them
    ");
}

#[test]
fn pairs_that_do_not_fit() {
    insta::assert_snapshot!(
        printed("pool = { max = 2 }\nhistory = \"history\"\n[migrations]\nmin_retry_wait = \"20s\"\n[connections]\nAbp = \"tripp\"\n"),
        @r"
    pgfleet.toml:2:10: pool of service `trip`: `min` (5) is more than `max` (2)
    pgfleet.toml:3:1: `history` must be written as `schema.table`
    pgfleet.toml:5:1: `min_retry_wait` (20s) is longer than `max_retry_wait` (15s)
    pgfleet.toml:7:1: connection `Abp` is mapped to service `tripp`, which is not declared
    hint: did you mean `trip`?
    "
    );
}

#[test]
fn variables_and_flags_that_set_nothing() {
    let case = solution("[services.trip]\n")
        .variable("PGFLEET_SERVICES__TRPI__DATABASE", "x")
        .variable("PGFLEET_SERVICES__TRIP__DATABSE", "x")
        .variable("PGFLEET_SERVERS__OTHER__URL", "x")
        .variable("PGFLEET_SOLUTON__NAME", "x")
        .variable("PGFLEET_MIGRATIONS__LOCK_TRIES", "many")
        .variable("PGFLEET_SOLUTION__ISOLATION", "strikt")
        .flag("migrations.lock_time", "1s")
        .flag("services.tripp.database", "x")
        .flag("services.trip.databse", "x")
        .flag("= =", "x")
        .flag("migrations.lock_timeout", "soon");
    insta::assert_snapshot!(case.printed(), @r#"
    PGFLEET_SERVICES__TRPI__DATABASE names no declared service
    hint: did you mean PGFLEET_SERVICES__TRIP__DATABASE?
    PGFLEET_SERVICES__TRIP__DATABSE names no key of a service
    hint: did you mean PGFLEET_SERVICES__TRIP__DATABASE?
    PGFLEET_SERVERS__OTHER__URL names no declared server
    PGFLEET_SOLUTON__NAME names no key of the manifest
    hint: did you mean PGFLEET_SOLUTION__NAME?
    PGFLEET_MIGRATIONS__LOCK_TRIES must be an integer, found `many`
    PGFLEET_SOLUTION__ISOLATION must be one of "strict", "declared", found `strikt`
    hint: did you mean `strict`?
    there is no setting `migrations.lock_time`
    hint: did you mean `migrations.lock_timeout`?
    `services.tripp.database`: [services.tripp] is not declared
    hint: did you mean `trip`?
    there is no setting `services.trip.databse`
    hint: did you mean `services.trip.database`?
    there is no setting `= =`
    migrations.lock_timeout must be a duration such as "30s", found `soon`
    "#);
}

#[test]
fn a_wrong_value_from_a_variable_names_the_variable() {
    let case = solution("[services.trip]\nserver = \"main\"\n").variable("PGFLEET_SERVICES__TRIP__SERVER", "mian");
    insta::assert_snapshot!(case.printed(), @r"
    there is no server `mian` (set by PGFLEET_SERVICES__TRIP__SERVER)
    hint: did you mean `main`?
    ");
}

#[test]
fn an_environment_that_cannot_be_part_of_a_file_name() {
    insta::assert_snapshot!(solution("[services.trip]\n").env("../x").printed(), @r"
    `../x` cannot be the name of an environment
    hint: use letters, digits, `-` and `_`
    ");
}

#[test]
fn columns_count_characters_and_lines_may_end_in_cr_lf() {
    let case = solution("[services.trip]\r\npool = { \"größe\" = 1, \"ü\" = 2 }\r\nx = 1\r\n");
    let places: Vec<_> = case.errors().iter().map(|error| (error.line, error.column)).collect();
    assert_eq!(places, [(Some(2), Some(10)), (Some(2), Some(23)), (Some(3), Some(1))]);
}

#[test]
fn a_byte_order_mark_does_not_move_the_column() {
    assert_eq!(solution("\u{feff}x = 1\n[services.trip]\n").errors()[0].column, Some(1));
}

#[test]
fn two_services_in_one_schema_of_a_tenants_database() {
    let text = "tenants = \"own\"\n[services.user]\ntenants = \"own\"\n[services.log]\n";
    insta::assert_snapshot!(printed(text), @r#"
    pgfleet.toml:4:1: services `trip` and `user` both keep tenants' data in schema `public`, and a tenant has one database for both
    hint: give each a schema of its own: schema = "…", or say databases = "per-service" in [tenants]
    "#);
    let text = format!("{text}[tenants]\ndatabases = \"per-service\"\n");
    let _loaded = solution(&format!("[services.trip]\n{text}")).load();
}

#[test]
fn a_connection_with_the_name_of_a_service() {
    insta::assert_snapshot!(printed("[services.user]\n[connections]\nuser = \"trip\"\ntrip = \"trip\"\n"), @"pgfleet.toml:4:1: connection `user` has the name of a service, whose main connection it is");
}

#[test]
fn servers_of_tenants_that_do_not_fit() {
    let servers = "tenants = \"own\"\nserver = \"one\"\n[control]\nserver = \"one\"\n[servers.one]\n[servers.two]\n";
    let wrong = |tenants: &str| printed(&format!("{servers}[tenants]\n{tenants}"));
    insta::assert_snapshot!(
        wrong("servers = [\"one\", \"tow\", \"one\"]\nweights = { two = 2, x = 1 }\ncanary = [\"Acme\", \"b\", \"b\"]\n"),
        @r"
    pgfleet.toml:9:1: there is no server `tow`
    hint: did you mean `two`?
    pgfleet.toml:9:1: `servers` names `one` twice
    pgfleet.toml:10:13: server `two` holds no tenants' databases: it is not in `servers` of [tenants]
    hint: add it to `servers`, or name one of them: one, tow, one
    pgfleet.toml:10:22: there is no server `x`
    hint: add it to `servers`, or name one of them: one, tow, one
    pgfleet.toml:11:1: the name of tenant `Acme` has a capital letter; write acme
    pgfleet.toml:11:1: `canary` names `b` twice
    ");
    insta::assert_snapshot!(wrong("placement = \"pinned\"\n"), @r#"
    pgfleet.toml:9:1: `placement` is "pinned", and `server` does not say where
    hint: add `server = "…"`, one of: one
    "#);
    insta::assert_snapshot!(wrong("placement = \"pinned\"\nserver = \"two\"\n"), @r"
    pgfleet.toml:10:1: server `two` holds no tenants' databases: it is not in `servers` of [tenants]
    hint: add it to `servers`, or name one of them: one
    ");
    insta::assert_snapshot!(wrong("placement = \"weighted\"\nweights.one = 0\n"), @r#"
    pgfleet.toml:9:1: `placement` is "weighted", and every server's weight is 0
    hint: give one that takes new tenants a weight of 1
    "#);
    insta::assert_snapshot!(wrong("placement = \"fewest\"\ndrop_after = \"40000d\"\nweights.one = -1\n"), @r#"
    pgfleet.toml:9:13: `placement` must be one of "fewest-databases", "most-room", "weighted", "pinned", found `fewest`
    pgfleet.toml:10:14: `drop_after` must be at most 36500 days
    pgfleet.toml:11:15: `one` must be between 0 and 1000, found -1
    "#);
    insta::assert_snapshot!(printed("[tenants]\nplacement = \"pinned\"\nserver = \"main\"\n"), @r#"
    pgfleet.toml:3:1: there is no server that holds tenants' databases, and `placement` is "pinned"
    hint: say tenants = "own" in the section of a service
    "#);
}
