//! What a failed statement looks like: the server's words, the place in the file, what to do; and
//! that nothing of the failed migration stays.

use crate::support::Bare;

/// Applies one good migration, then one that fails, and returns what was said.
async fn failing(name: &str, text: &str) -> String {
    let bare = Bare::new().await;
    bare.file("0_first.sql", "create table kept (id int primary key);\n");
    bare.migrate(&[]).exits(0);
    bare.file(name, text);
    let ran = bare.migrate(&[]).exits(1);
    assert_eq!(ran.out, "", "data goes to stdout, errors do not");
    assert_eq!(bare.versions().await, ["0"]);
    assert_eq!(bare.tables().await, ["kept"], "nothing of the failed migration stays");
    ran.plain(&bare.database.name)
}

#[tokio::test]
async fn a_syntax_error_names_the_third_of_five_statements() {
    let said = failing(
        "202501070002_create_trips.sql",
        "create table trips (id int);\ncreate table cars (id int);\n  creat table seats (id int);\nselect 1;\nselect 2;\n",
    )
    .await;
    assert_eq!(
        said,
        "error: cannot apply 202501070002_create_trips to db\n  \
         caused by: ERROR: syntax error at or near \"creat\" (SQLSTATE 42601)\n  \
         caused by: at m/202501070002_create_trips.sql:3:3\n        creat table seats (id int);\n        ^\n"
    );
}

#[tokio::test]
async fn a_missing_column_is_shown_where_it_stands() {
    let said = failing("2_a.sql", "create table a (id int);\n\nselect id,\n       nope from a;\n").await;
    assert_eq!(
        said,
        "error: cannot apply 2_a to db\n  caused by: ERROR: column \"nope\" does not exist (SQLSTATE 42703)\n  \
         caused by: at m/2_a.sql:4:8\n             nope from a;\n             ^\n"
    );
}

#[tokio::test]
async fn a_table_that_is_there_already_is_named() {
    let said = failing("2_a.sql", "create table a (id int);\ncreate table a (id int);\nselect 1;\n").await;
    assert!(said.contains("relation \"a\" already exists (SQLSTATE 42P07)"), "{said}");
    assert!(said.contains("at m/2_a.sql:2:1\n      create table a (id int);\n      ^\n"), "{said}");
}

#[tokio::test]
async fn a_division_by_zero_is_placed_though_the_server_gives_no_position() {
    let said =
        failing("2_a.sql", "create table a (id int);\nselect 1;\n\n-- and now\nselect 1 / 0;\nselect 3;\n").await;
    assert!(said.contains("division by zero (SQLSTATE 22012)"), "{said}");
    assert!(said.contains("at m/2_a.sql:5:1\n"), "{said}");
}

#[tokio::test]
async fn a_duplicate_key_in_the_third_of_five_statements_shows_the_key() {
    let said = failing(
        "2_a.sql",
        "create table a (id int primary key);\ninsert into a values (7);\ninsert into a\n  values (7);\nselect 1;\nselect 2;",
    )
    .await;
    assert!(said.contains("duplicate key value violates unique constraint \"a_pkey\" (SQLSTATE 23505)"), "{said}");
    assert!(said.contains("caused by: detail: Key (id)=(7) already exists."), "{said}");
    assert!(said.contains("at m/2_a.sql:3:1\n      insert into a\n"), "{said}");
}

#[tokio::test]
async fn an_error_inside_of_a_do_block_is_placed_on_its_line() {
    let said =
        failing("2_a.sql", "select 1;\ndo $$\nbegin\n  perform 1;\n  perform nope();\nend $$;\nselect 2;\n").await;
    assert!(said.contains("function nope() does not exist (SQLSTATE 42883)"), "{said}");
    assert!(said.contains("at m/2_a.sql:5"), "{said}");
    assert!(said.contains("perform nope();"), "{said}");
    assert!(said.contains("\nhint: No function matches"), "the server's hint is passed on: {said}");
}

#[tokio::test]
async fn an_error_inside_of_a_function_body_is_placed_in_the_file() {
    let said = failing("2_a.sql", "create function f() returns int language sql as $$\n  select nope\n$$;\n").await;
    assert!(said.contains("at m/2_a.sql:2:10\n        select nope\n               ^\n"), "{said}");
    let said =
        failing("2_a.sql", "create function f() returns int language plpgsql as $$\nbegin\n  retur 1;\nend $$;\n")
            .await;
    assert!(said.contains("at m/2_a.sql:3:3\n"), "{said}");
}

#[tokio::test]
async fn an_error_of_a_function_that_is_called_is_placed_at_the_call() {
    let said = failing(
        "2_a.sql",
        "create function f() returns int language plpgsql as $$\nbegin\n  return 1 / 0;\nend $$;\nselect f();\n",
    )
    .await;
    assert!(said.contains("division by zero"), "{said}");
    assert!(said.contains("in: PL/pgSQL function f() line 3"), "{said}");
    assert!(said.contains("at m/2_a.sql:5:1\n"), "{said}");
}

#[tokio::test]
async fn paths_outside_of_the_present_folder_are_whole() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "select nope;");
    let elsewhere = crate::support::Folder::new();
    let folder = bare.folder.path().join("m").display().to_string();
    let url = bare.database.url();
    let ran = elsewhere.run(&["migrate", "--url", &url, "--dir", &folder]).exits(1);
    ran.says(&format!("at {folder}/1_a.sql:1:8"));
}
