//! The macros as a service uses them.

use crate::embed::{Folder, Seeds};
use crate::test::Builder;

const GOOSE: Folder = pgfleet::migrations!("tests/folders/goose");
static DIESEL: Folder = pgfleet::migrations!("tests/folders/diesel", layout = "diesel");
const SEEDS: Seeds = pgfleet::seeds!("tests/folders/seeds");

fn service() -> Builder {
    pgfleet::Service::builder("own")
}

#[test]
fn folders_are_constants_of_the_program() {
    let goose = [("00001_one.sql", "-- +goose Up\nselect 1;\n-- +goose Down\nselect 2;\n")];
    assert_eq!((GOOSE.path, GOOSE.layout, GOOSE.files), ("tests/folders/goose", "goose", &goose[..]));
    assert_eq!(
        (DIESEL.path, DIESEL.layout, DIESEL.files),
        (
            "tests/folders/diesel",
            "diesel",
            &[
                ("2026-07-30-140000-0000_create_users/metadata.toml", "run_in_transaction = false\n"),
                ("2026-07-30-140000-0000_create_users/up.sql", "create table users ();\n"),
            ][..]
        )
    );
    let seeds = &[("0001_users.sql", "insert into users default values;\n")];
    assert_eq!((SEEDS.path, SEEDS.files), ("tests/folders/seeds", &seeds[..]));
}

#[pgfleet::test]
async fn without_folders_the_service_is_bare(db: Builder) {
    assert_eq!(db, pgfleet::Service::builder("test"));
}

#[pgfleet::test(migrations = "tests/folders/goose", layout = "goose", seeds = "tests/folders/seeds")]
async fn folders_reach_the_service(db: Builder) -> Result<(), std::num::ParseIntError> {
    assert_eq!((db.migrations, db.seeds), (Some(GOOSE), Some(SEEDS)));
    let _: u8 = "1".parse()?;
    std::future::ready(()).await;
    Ok(())
}

#[pgfleet::test(service = service)]
async fn a_function_makes_the_service(mut name: String) {
    name.push('!');
    assert_eq!(name, "own!");
}

mod inner {
    use std::future::ready;

    /// A path is resolved where the test stands.
    #[pgfleet::test(service = super::service)]
    #[should_panic(expected = "not so")]
    async fn a_panic_is_expected_on_the_test(name: String) {
        ready(()).await;
        assert_eq!(name, "", "not so");
    }
}
