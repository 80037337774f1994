//! The proof, the holes it finds, and provisioning as the cure.

use crate::support::Solution;

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

/// Opens a hole, sees it named, closes it.
async fn hole(open: &[&str], named: &[&str]) {
    let solution = Solution::new().await;
    solution.pgfleet("provision").exits(0);
    for sql in open {
        solution.sql(sql).await;
    }
    let mut ran = solution.pgfleet("isolation verify").exits(5);
    for text in named {
        ran = ran.says(&text.replace("{}", &solution.prefix));
    }
    ran.says("hint: pgfleet provision").says_nothing_of("none open");
    let proof = solution.pgfleet("isolation verify --json").exits(5).json();
    assert!(proof["pairs"].as_array().unwrap().len() == 30);
    solution.pgfleet("provision").exits(0).says_nothing_of("nothing to do");
    solution.pgfleet("isolation verify").exits(0).says("none open");
}

#[tokio::test]
async fn a_database_open_to_public_is_found_and_closed() {
    hole(&["GRANT CONNECT ON DATABASE \"{}_trip\" TO PUBLIC"], &["open: PUBLIC may connect to database {}_trip"]).await;
}

#[tokio::test]
async fn a_database_open_to_another_services_role_is_found_and_closed() {
    hole(
        &["GRANT CONNECT ON DATABASE \"{}_trip\" TO \"{}_user_readonly\""],
        &["open: role {}_user_readonly may connect to database {}_trip"],
    )
    .await;
}

#[tokio::test]
async fn a_member_of_another_owner_is_found_and_closed() {
    hole(&["GRANT \"{}_trip_owner\" TO \"{}_user_app\""], &["open: role {}_user_app is a member of {}_trip_owner"])
        .await;
}

#[tokio::test]
async fn a_service_role_that_is_superuser_is_found_and_closed() {
    hole(
        &["ALTER ROLE \"{}_user_migrator\" SUPERUSER CREATEDB"],
        &[
            "open: role {}_user_migrator has power over the whole server: superuser, createdb",
            "open: role {}_user_migrator may connect to database {}_trip",
        ],
    )
    .await;
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
