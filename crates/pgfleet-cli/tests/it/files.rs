//! Files as people leave them: edited, lost, late, cut off, badly encoded.

use crate::support::Bare;

#[tokio::test]
async fn two_files_with_one_version_are_both_named() {
    let bare = Bare::new().await;
    bare.file("7_trips.sql", "create table trips (id int);");
    bare.file("07_cars.sql", "create table cars (id int);");
    let ran = bare.migrate(&[]).exits(1).says("error: cannot read the migrations of main");
    let ran = ran.says("m/7_trips.sql").says("07_cars.sql").says("hint: give one of the files another version");
    assert!(!ran.err.contains(bare.folder.path().to_str().unwrap()), "the path is relative: {}", ran.err);
    assert!(bare.versions().await.is_empty() && bare.tables().await.is_empty());
}

#[tokio::test]
async fn a_name_that_fits_no_layout_is_refused_with_an_example() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "create table a (id int);");
    bare.file("notes.sql", "select 1;");
    bare.migrate(&[])
        .exits(1)
        .says("  caused by: m/notes.sql: not the name of a migration in the layout of pgfleet")
        .says("hint: name it like 0001_create_users.sql");
    assert!(bare.tables().await.is_empty(), "nothing is applied before all files can be read");
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let bare = Bare::new().await;
    let ran = bare.folder.run(&["migrate", "--url", &bare.database.url(), "--dir", "nowhere"]).exits(1);
    ran.says("  caused by: nowhere: the folder of migrations does not exist").says("hint: ");
}

#[tokio::test]
async fn an_edited_migration_is_an_error_and_a_comment_is_a_note() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "create table a (id int);\n");
    bare.file("2_b.sql", "create table b (id int);\n");
    bare.migrate(&[]).exits(0);
    bare.file("1_a.sql", "-- explained at last\ncreate table a\n  (id int);\n");
    bare.migrate(&[]).exits(0).says("note: ").says("1_a");
    bare.file("1_a.sql", "create table a (id bigint);\n");
    bare.file("3_c.sql", "create table c (id int);\n");
    bare.migrate(&[]).exits(1).says("error: ").says("1_a").says("hint: ");
    assert_eq!(bare.versions().await, ["1", "2"], "nothing is applied on top of an edited file");
    assert_eq!(bare.tables().await, ["a", "b"]);
    // `--check` in CI finds it too.
    bare.migrate(&["--check"]).exits(5).says("-create table a").says("+create table a (id bigint);");
}

#[tokio::test]
async fn a_missing_and_an_out_of_order_migration_are_errors() {
    let bare = Bare::new().await;
    for name in ["1_a", "3_c"] {
        bare.file(&format!("{name}.sql"), format!("create table t{name} (id int);"));
    }
    bare.migrate(&[]).exits(0);
    bare.file("2_late.sql", "create table late (id int);");
    bare.migrate(&[]).exits(1).says("2_late").says("hint: ");
    bare.remove("2_late.sql");
    bare.remove("1_a.sql");
    bare.migrate(&[]).exits(1).says("1_a").says("hint: put the file back into m,");
    bare.migrate(&["--check"]).exits(5);
    assert_eq!(bare.versions().await, ["1", "3"]);
}

#[tokio::test]
async fn a_database_ahead_of_the_files_is_fine_and_noted() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "create table a (id int);");
    bare.file("2_b.sql", "create table b (id int);");
    bare.migrate(&[]).exits(0);
    bare.remove("2_b.sql");
    bare.migrate(&[]).exits(0).says("note: ").says("ahead");
    assert_eq!(bare.versions().await, ["1", "2"]);
}

#[tokio::test]
async fn files_of_any_make_are_applied() {
    let bare = Bare::new().await;
    bare.file("1_empty.sql", "");
    bare.file("2_comment.sql", "-- nothing yet");
    bare.file("3_crlf.sql", "\u{feff}create table crlf (\r\n  id int\r\n);\r\nselect 1;\r\n");
    bare.file("4_no_newline.sql", "create table bare_end (id int)");
    bare.file("5_restrict.sql", "\\restrict abcdef\ncreate table dumped (id int);\n\\unrestrict abcdef\n");
    bare.file("6_own_transaction.sql", "begin;\ncreate table wrapped (id int);\ncommit;\n");
    bare.migrate(&[]).exits(0).says("applied 6, now at 6");
    assert_eq!(bare.tables().await, ["bare_end", "crlf", "dumped", "wrapped"]);
    bare.migrate(&[]).exits(0).says("nothing to do, at 6");
}

#[tokio::test]
async fn a_place_after_a_byte_order_mark_and_crlf_is_exact() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", "\u{feff}create table a (x int);\r\nselect nope from a;\r\n");
    bare.migrate(&[]).exits(1).says("at m/1_a.sql:2:8\n      select nope from a;\n             ^\n");
}

#[tokio::test]
async fn bytes_that_are_not_utf8_are_placed() {
    let bare = Bare::new().await;
    bare.file("1_a.sql", b"select 1;\n-- \xff\n");
    bare.migrate(&[]).exits(1).says("m/1_a.sql:2:4: not UTF-8").says("hint: save the file as UTF-8");
}

/// Refused before anything is sent: place and hint.
async fn refused(text: &str, place: &str, cause: &str, hint: &str) {
    let bare = Bare::new().await;
    bare.file("1_good.sql", "create table good (id int);");
    bare.file("2_bad.sql", text);
    let ran = bare.migrate(&[]).exits(1);
    ran.says("error: cannot apply 2_bad to ")
        .says(&format!("  caused by: {cause}"))
        .says(&format!("at m/2_bad.sql:{place}\n"))
        .says("\nhint: ")
        .says(hint);
    assert!(!bare.versions().await.contains(&"2".to_owned()));
    assert!(!bare.tables().await.contains(&"bad".to_owned()));
}

#[tokio::test]
async fn what_cannot_run_as_a_migration_is_refused_with_its_place() {
    refused("create table bad (id int);\n/* never closed\n", "2:1", "the comment that begins here", "*/").await;
    refused("create table bad (id int);\nselect 'open\n", "2:8", "the string that begins here", "close the string")
        .await;
    refused("create table bad (id int);\nCOPY bad FROM stdin;\n1\n\\.\n", "2:15", "COPY FROM stdin waits", "INSERT")
        .await;
    refused(
        "create table bad (id int);\n\\connect other\n",
        "2:1",
        "`\\connect` is a command of psql",
        "remove the line",
    )
    .await;
    refused(
        "create table bad (id int);\ncommit;\nselect 1;\n",
        "2:1",
        "COMMIT inside of a migration",
        "split the file",
    )
    .await;
}

#[tokio::test]
async fn what_a_file_leaves_behind_does_not_reach_the_next() {
    let bare = Bare::new().await;
    bare.file(
        "1_a.sql",
        "create schema other;\nset search_path = other;\nset role pg_monitor;\nset statement_timeout = '1ms';\n",
    );
    bare.file("2_b.sql", "create table b (id int);\nselect pg_sleep(0.02);\n");
    bare.migrate(&[]).exits(0);
    assert_eq!(bare.tables().await, ["b"]);
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'b'";
    assert_eq!(bare.column(owner).await, ["postgres"]);
}

#[tokio::test]
async fn a_file_of_twenty_megabytes_is_applied() {
    let bare = Bare::new().await;
    let mut text = String::from("create table big (id int, note text);\n");
    let note = "x".repeat(1000);
    for chunk in 0..20 {
        text.push_str("insert into big values\n");
        for row in 0..1000 {
            let end = if row == 999 { ";\n" } else { ",\n" };
            text.push_str(&format!("({}, '{note}'){end}", chunk * 1000 + row));
        }
    }
    assert!(text.len() > 20_000_000);
    bare.file("1_big.sql", &text);
    bare.migrate(&[]).exits(0).says("applied 1");
    assert_eq!(bare.column("SELECT count(*) FROM big").await, ["20000"]);
}
