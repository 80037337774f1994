//! The proof, the holes it finds, and provisioning as the cure.

use crate::support::{Solution, until};

#[tokio::test]
async fn a_provisioned_solution_is_tight_and_stays_so() {
    let solution = Solution::new().await;
    solution.pgfleet("provision").exits(0).says("created database {}_trip".replace("{}", &solution.prefix).as_str());
    let ran = solution.pgfleet("isolation verify").exits(0).says("none open");
    assert!(!ran.out.contains("OPEN") && !ran.out.contains("catalog only"), "{}", ran.out);
    for name in ["trip", "user"] {
        let row = ran.out.lines().find(|line| line.starts_with(&solution.name(name))).unwrap();
        let words: Vec<&str> = row.split_whitespace().skip(1).collect();
        assert_eq!(words.iter().filter(|&&word| word == "own").count(), 1, "{row}");
        assert_eq!(words.iter().filter(|&&word| word == "denied").count(), 4, "{row}");
    }
    let all = solution.pgfleet("isolation verify --all").exits(0);
    assert!(all.out.contains("permission denied for database"), "the server's own words:\n{}", all.out);
    solution.pgfleet("provision").exits(0).says("nothing to do");
}

#[tokio::test]
async fn every_hole_is_named_and_provision_closes_them() {
    let solution = Solution::new().await;
    solution.pgfleet("provision").exits(0);
    for sql in [
        "GRANT CONNECT ON DATABASE \"{}_user\" TO PUBLIC",
        "GRANT CONNECT ON DATABASE \"{}_trip\" TO \"{}_user_readonly\"",
        "GRANT \"{}_trip_owner\" TO \"{}_user_app\"",
        "ALTER ROLE \"{}_user_migrator\" SUPERUSER CREATEDB",
    ] {
        solution.sql(sql).await;
    }
    let mut ran = solution.pgfleet("isolation verify").exits(5).prints("OPEN");
    for text in [
        "open: PUBLIC may connect to database {}_user\nhint: pgfleet provision",
        "open: role {}_user_readonly may connect to database {}_trip\nhint: pgfleet provision",
        "open: role {}_user_app is a member of {}_trip_owner\nhint: pgfleet provision",
        "open: role {}_user_migrator has power over the whole server: superuser, createdb\nhint: pgfleet provision",
        "open: role {}_user_migrator may connect to database {}_trip\nhint: pgfleet provision",
        "open: role {}_user_migrator may connect to database {}_control\nhint: pgfleet provision",
    ] {
        ran = ran.says(&text.replace("{}", &solution.prefix));
    }
    ran.says_nothing_of("none open");
    let proof = solution.pgfleet("isolation verify --json").exits(5).json();
    assert_eq!(proof["pairs"].as_array().unwrap().len(), 30);
    solution.pgfleet("provision").exits(0).says("statements ran");
    solution.pgfleet("isolation verify").exits(0).says("none open");
    assert_eq!(
        solution.column("postgres", "SELECT rolsuper::text FROM pg_roles WHERE rolname = '{}_user_migrator'").await,
        ["false"]
    );
}

#[tokio::test]
async fn a_database_that_is_open_to_one_role_is_an_open_pair_and_its_sessions_end() {
    let solution = Solution::new().await;
    solution.pgfleet("provision").exits(0);
    solution.sql("GRANT CONNECT ON DATABASE \"{}_trip\" TO \"{}_user_app\"").await;
    let proof = solution.pgfleet("isolation verify --json").exits(5).json();
    let open: Vec<_> = proof["pairs"].as_array().unwrap().iter().filter(|pair| pair["verdict"] == "open").collect();
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!(open[0]["role"], solution.name("user_app"));
    assert_eq!((&open[0]["database"], &open[0]["login_answer"]), (&solution.name("trip").into(), &"connected".into()));
    // Somebody came in through the hole; closing it must not leave them inside.
    let passfile = solution.folder.path().join(".pgfleet/pgpass");
    let psql = solution.server.bin_dir().join("psql");
    let (host, port) = ("127.0.0.1", solution.server.port());
    let (role, database) = (solution.name("user_app"), solution.name("trip"));
    let mut intruder = std::process::Command::new(psql)
        .arg(format!("host={host} port={port} dbname={database} user={role} passfile={}", passfile.display()))
        .args(["-c", "select pg_sleep(60)"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let session = "SELECT 1 FROM pg_stat_activity WHERE usename = '{}_user_app' AND wait_event = 'PgSleep'";
    until("the intruder is in", async || !solution.column("postgres", session).await.is_empty()).await;
    solution.pgfleet("provision").exits(0).says("1 statement ran");
    assert!(!intruder.wait().unwrap().success());
    assert!(solution.column("postgres", session).await.is_empty());
    solution.pgfleet("isolation verify").exits(0);
}

#[tokio::test]
async fn a_dropped_database_or_role_is_made_again_by_provision() {
    let solution = Solution::new().await;
    solution.pgfleet("migrate").exits(0);
    solution.sql("DROP DATABASE \"{}_trip\" WITH (FORCE)").await;
    solution.sql("ALTER DATABASE \"{}_user\" OWNER TO postgres").await;
    solution.pgfleet("isolation verify").exits(5).says("locked out: role ").says("hint: pgfleet provision");
    solution.pgfleet("provision").exits(0).says("created database");
    solution.pgfleet("isolation verify").exits(0);
    solution.pgfleet("migrate").exits(0).says("applied 1, seeded 1");
    solution.pgfleet("status --check").exits(0);
}

#[tokio::test]
async fn a_dropped_database_and_its_roles_are_made_again_by_migrate() {
    let solution = Solution::new().await;
    solution.pgfleet("migrate").exits(0);
    solution.sql("DROP DATABASE \"{}_trip\" WITH (FORCE)").await;
    solution.pgfleet("migrate").exits(0).says("applied 1, seeded 1");
    solution.sql("DROP DATABASE \"{}_trip\" WITH (FORCE)").await;
    for role in ["owner", "migrator", "app", "readonly"] {
        solution.sql(&format!("DROP ROLE \"{{}}_trip_{role}\"")).await;
    }
    solution.pgfleet("migrate").exits(0).says("applied 1, seeded 1");
    assert_eq!(solution.column("trip", "select count(*) from trips").await, ["1"]);
    solution.pgfleet("isolation verify").exits(0);
}

#[tokio::test]
async fn a_password_that_was_changed_behind_our_back_is_set_again() {
    let solution = Solution::new().await;
    solution.pgfleet("migrate").exits(0);
    solution.sql("ALTER ROLE \"{}_trip_migrator\" PASSWORD 'somebody elses'").await;
    solution.pgfleet("isolation verify").exits(5).says("locked out: role").says("password authentication failed");
    solution.pgfleet("provision").exits(0).says("1 statement ran");
    solution.pgfleet("isolation verify").exits(0);
}

#[tokio::test]
async fn tenants_databases_are_covered_and_it_says_how() {
    let solution = Solution::new().await;
    let path = solution.folder.path().join("pgfleet.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let section = format!("[services.{}]\n", solution.name("trip"));
    assert!(text.contains(&section), "{text}");
    std::fs::write(&path, text.replace(&section, &format!("{section}tenants = \"own\"\n"))).unwrap();
    solution.pgfleet("provision").exits(0);
    solution.pgfleet("tenant create acme globex").exits(0);
    let line = "tenants: 2 databases by their rights, 2 of them also with 12 real logins\n";
    solution.pgfleet("isolation verify").exits(0).says(line).says("none open");
    solution.sql("GRANT CONNECT ON DATABASE \"{}_acme\" TO \"{}_user_readonly\"").await;
    let open = "open: role {}_user_readonly may connect to database {}_acme of tenant acme\n\
                hint: on server main: REVOKE CONNECT ON DATABASE \"{}_acme\" FROM \"{}_user_readonly\"";
    let ran = solution.pgfleet("isolation verify --all").exits(5).says(&open.replace("{}", &solution.prefix));
    ran.says(line).says_nothing_of("none open");
    let proof = solution.pgfleet("isolation verify --json").exits(5).json();
    assert_eq!(proof["tenants"]["holes"][0]["verdict"], "open");
    assert_eq!((&proof["tenants"]["databases"], &proof["tenants"]["logins"]), (&2.into(), &12.into()));
}
