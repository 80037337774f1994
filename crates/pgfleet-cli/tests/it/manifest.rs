//! Mistakes in the manifest and names that make others stumble.

use crate::support::{Folder, Solution};

#[test]
fn a_wrong_type_is_named_with_its_line() {
    let folder = Folder::new();
    folder.file("pgfleet.toml", "[solution]\nname = \"s\"\n\n[servers.main]\nurl = \"local\"\n\n[services.trip]\n\n[migrations]\nlock_tries = \"many\"\n");
    let ran = folder.pgfleet("config show").exits(3);
    assert_eq!(ran.out, "");
    ran.says("error: the configuration cannot be used").says("  caused by: pgfleet.toml:10:").says("lock_tries");
}

#[test]
fn an_unknown_key_comes_with_a_suggestion_and_its_line() {
    let folder = Folder::new();
    folder.file(
        "pgfleet.toml",
        "[solution]\nname = \"s\"\n\n[servers.main]\nurl = \"local\"\n\n[services.trip]\nmigratons = \"x\"\n",
    );
    folder.pgfleet("status").exits(3).says("pgfleet.toml:8:").says("hint: did you mean `migrations`?");
}

#[test]
fn a_file_that_is_no_toml_is_placed() {
    let folder = Folder::new();
    folder.file("pgfleet.toml", "[solution\nname = \"s\"\n");
    folder.pgfleet("status").exits(3).says("pgfleet.toml:1:");
}

#[test]
fn two_services_with_one_database_are_refused() {
    let folder = Folder::new();
    folder.file(
        "pgfleet.toml",
        "[solution]\nname = \"s\"\n\n[servers.main]\nurl = \"local\"\n\n[services.trip]\ndatabase = \"one\"\n\n[services.user]\ndatabase = \"one\"\n",
    );
    folder.pgfleet("up").exits(3).says("pgfleet.toml:11:").says("`one`").says("`trip`");
    assert!(!folder.path().join(".pgfleet").exists(), "nothing was started");
}

#[test]
fn no_manifest_is_said_with_the_ways_out() {
    let folder = Folder::new();
    folder
        .pgfleet("status")
        .exits(3)
        .says("error: there is no pgfleet.toml here or above")
        .says("hint: make one: pgfleet init, or name it: --manifest FILE");
}

#[test]
fn a_misspelt_variable_comes_with_a_suggestion() {
    let mut folder = Folder::new();
    folder.file("pgfleet.toml", "[solution]\nname = \"s\"\n[servers.main]\nurl = \"local\"\n[services.trip]\n");
    folder.set("PGFLEET_MIGRATIONS__LOCK_TRYS", "3");
    folder
        .pgfleet("status")
        .exits(3)
        .says("PGFLEET_MIGRATIONS__LOCK_TRYS")
        .says("hint: did you mean PGFLEET_MIGRATIONS__LOCK_TRIES?");
}

#[tokio::test]
async fn an_unknown_service_comes_with_a_suggestion() {
    let solution = Solution::new().await;
    let near = solution.name("trop");
    let hint = format!("hint: did you mean `{}`?", solution.name("trip"));
    for line in [
        "migrate --service",
        "status --service",
        "revert --steps 1 --service",
        "seed --service",
        "psql",
        "migration new x --service",
    ] {
        let ran = solution.pgfleet(&format!("{line} {near}")).exits(3);
        ran.says(&format!("there is no service `{near}` in pgfleet.toml")).says(&hint);
    }
}

#[tokio::test]
async fn names_with_quotes_capitals_and_eighty_characters_work() {
    let solution = Solution::new().await;
    let quoted = format!("{} o'Brien \"Nord\"", solution.prefix);
    let capital = solution.name("Order");
    let lower = solution.name("order");
    let long = format!("{}_{}", solution.prefix, "a".repeat(80 - solution.prefix.len() - 1));
    assert_eq!(long.len(), 80);
    let names = [&quoted, &capital, &long];
    let mut services = String::new();
    for name in names {
        let key = toml_string(name);
        services.push_str(&format!("[services.{key}]\nmigrations = \"m\"\nseeds = \"s\"\n"));
        if name == &long {
            // A database's name is what the manifest says; only the roles' names are ours to shorten.
            services.push_str(&format!("database = \"{}\"\n", solution.name("long")));
        }
    }
    solution.manifest(&services);
    solution.folder.file("m/1_a.sql", "create table a (id int);\n");
    solution.pgfleet("provision").exits(0);
    solution.pgfleet("migrate").exits(0).says("3 databases: 3 changed");
    let proof = solution.pgfleet("isolation verify").exits(0).says("none open").prints(&capital).prints("o'Brien");
    assert!(!proof.out.contains(&capital.to_uppercase()), "names are printed as they are:\n{}", proof.out);
    solution.pgfleet("provision").exits(0).says("nothing to do");
    let ran = solution.folder.run(&["psql", &quoted, "--", "-Atc", "select current_database()"]).exits(0);
    assert_eq!(ran.out.trim_end(), quoted);
    // `order` and `Order` would be handed their URLs in one variable.
    solution.manifest(&format!("[services.{lower}]\n[services.{capital}]\n"));
    solution.pgfleet("status").exits(3).says("would both be handed a URL");
}

fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
