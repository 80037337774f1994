//! Checksums that are stored in databases everywhere.
//!
//! THE VALUES IN THIS FILE MAY NEVER CHANGE. A checksum is written beside every applied migration and compared for
//! ever; a change here would tell every user that all of their migrations were edited. If a test fails, the code is
//! wrong. A better algorithm gets a prefix of its own, `v2:`, and values of its own beside these.

use pgfleet_sql::checksum::{checksum, raw_hash};
use pgfleet_sql::layout::{MigrationFile, Repeatable, read_files};
use std::path::Path;

#[test]
fn checksums_of_texts_never_change() {
    let golden: &[(&str, &str)] = &[
        ("", "v1:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (
            " \t\r\n\u{b}\u{c}-- only\n/* trivia */",
            "v1:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (";", "v1:4cf78defbc6e8d4befcdbf7504db6fafac5d86ab1325713b9e66f3486d268f1f"),
        ("select 1;", "v1:d66d6c98ef9de1427ededf144641cdcd274d4078bbc5721d626377e630d094f9"),
        ("SELECT 1;", "v1:d66d6c98ef9de1427ededf144641cdcd274d4078bbc5721d626377e630d094f9"),
        ("select 1", "v1:06afd69c7fa7fdf2585da4d64c930fa45e5963804f3e32ca080db5c7148b0e76"),
        ("\u{feff}select 1;\r\n", "v1:d66d6c98ef9de1427ededf144641cdcd274d4078bbc5721d626377e630d094f9"),
        (
            "create table t (\n    id bigint primary key,\n    name text not null default 'a;b'\n);\ncreate index on t (name);\n",
            "v1:979a858a04bc6744339b181bf2000b6c7868f09581642444dab893f9100187cd",
        ),
        (
            "insert into \"T\" values (1, -2, 3.0, .5, 1e3, 0x1F, 1_000, $1, $2);",
            "v1:696b4dc8ab9d1b340c8c94257910e6120ac09339eafcbb82dc2ae2286e4e0c13",
        ),
        (
            "select 'it''s', E'it\\'s', U&'\\0061', u&\"x\\0061\", N'n', B'01', X'1f';",
            "v1:8e431367243534247fffbc5578cbd2549c57808e27b86a21e83269bee500bdaf",
        ),
        ("select E'a'\n'\\'b';", "v1:19d7d1e08d8a93e1d3b46d7428de8928960493bfa94f6d58e8e56bd879c94ca2"),
        ("select 'a'\n'b';", "v1:e5174e3bd99336954175e6f839f49ba8e61809ca41ce763f81bdbfc6a19c89cb"),
        (
            "select $$a$$, $tag$ $$ $tag$, $größe$ä$größe$;",
            "v1:bd955a89371934bf5700f8667b74eccc97b94246ba639a13cd964b1084be84da",
        ),
        (
            "do $$ begin\n  -- kept: a comment inside of quotes\n  perform 1;\nend $$;",
            "v1:bf0c9c697ad269d41f1c40e9ff0d06cdbf580d5aea5a2b538bdf20fd0721bd9e",
        ),
        (
            "select a->>'b', a#>>'{c}', a@>b, a||b, a<=b, a!=b, a<>-1, @-1, a::int, b[1:2], c => 1, d := 2, e..f;",
            "v1:dd7d3705242fbdf3c7f7525a5bfb7a48fbedad014bc31eff657303553b20f24b",
        ),
        (
            "select /* a /* nested */ comment */ 1 -- and a line\n;",
            "v1:d66d6c98ef9de1427ededf144641cdcd274d4078bbc5721d626377e630d094f9",
        ),
        (
            "create function f() returns int begin atomic select 1; end; select 2;",
            "v1:831aee42e9c93a54daefbe3ec548c292b2a2b062303ab5773c13121792c20efd",
        ),
        ("select größe, \"Größe\", ÄÖÜ, '😀';", "v1:eb2d11546a5d9b06772be9c5b7d714ec78b64fb3a2cad2124b11cf7d5e4153b4"),
        (
            "-- pgfleet: no-transaction\ncreate index concurrently i on t (a);",
            "v1:17b50b0d26a14289e666bc9221cfd1505ff949a9f2e82bd8e8eaf2da7a7392ec",
        ),
        (
            "-- no-transaction\ncreate index concurrently i on t (a);",
            "v1:17b50b0d26a14289e666bc9221cfd1505ff949a9f2e82bd8e8eaf2da7a7392ec",
        ),
        (
            "-- pgfleet: lock_timeout=90s\nalter table t add a int;",
            "v1:b344e7763fd443fa10180e91b08b6afadb4d8ad3de354f37a7ba94e315ed012d",
        ),
        (
            "-- pgfleet: requires b@2\n-- pgfleet: requires a@01\nselect 1;",
            "v1:a8be31df2f2199a38c3408036328b23af3f37eaad2024578e6bc7de2536b0550",
        ),
        (
            "-- pgfleet: requires a@01, b@2\n-- pgfleet: no-transaction\n-- pgfleet: lock_timeout=0\nselect 1;",
            "v1:22678533085ed9cb4fc0c4b7d86cda82a165cefc308f1e468c001a482d9dbdcb",
        ),
        ("-- pgfleet: nonsense\nselect 1;", "v1:d66d6c98ef9de1427ededf144641cdcd274d4078bbc5721d626377e630d094f9"),
        (
            "select 1;\n-- pgfleet: no-transaction\n",
            "v1:d66d6c98ef9de1427ededf144641cdcd274d4078bbc5721d626377e630d094f9",
        ),
        (
            "\\restrict Xk2\nselect 1;\n\\unrestrict Xk2\n",
            "v1:d66d6c98ef9de1427ededf144641cdcd274d4078bbc5721d626377e630d094f9",
        ),
        ("\\echo hi\nselect 1;", "v1:d59777b9fd0c55178f7b75224be435b009855ecd00a9308393bda463aa67a305"),
        ("select 'open", "v1:56d2f7eb5d84e1d71bf80fe26941c22dec31abb4eb375e091828c7bc876c31f3"),
        ("select $$open", "v1:ff7596ac06627c57d7b90bb75f3e2d18125f2df5063edb4a2ccbe482b84774e6"),
        ("select \"open", "v1:d17ab958f94cb996047392c480558c67607c6efedf8d1e0ffcb7d7b26a7e9137"),
        ("/* open", "v1:47f29da4ce5200d2e998b0cf18b8347558aa336d1258ecc49e831430b6aa2d3b"),
        ("select { } $ ` \u{1} ~ ? % ^ & |;", "v1:fca9e5a07b7a5f8fbfb26a016c513f73b73ed43599d7a2d208162b62eb4bde17"),
        ("begin;\nselect 1;\ncommit;", "v1:a2b8cb387adb61de92774915982b3c77d596f4f293dc36023fa772bf8dd602be"),
    ];
    for (text, expected) in golden {
        assert_eq!(checksum(text), *expected, "{text}");
    }
    let long = format!("select '{}', {};", "x".repeat(200_000), "a, ".repeat(50_000));
    assert_eq!(checksum(&long), "v1:2bed26253a4ba8b736d13958b102da0386516aa1983e303fc8213102c91e3190");
}

#[test]
fn hashes_of_bytes_never_change() {
    assert_eq!(raw_hash(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(raw_hash(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/// Annotations can stand outside of the text that is run, and count all the same.
#[test]
fn checksums_of_files_never_change() {
    let golden = [
        (
            "1_a.sql",
            "-- no-transaction\nselect 1;\n",
            "v1:edd21d7455ea43a5dc98fd21eb9a26fd0701636cc51886c6a8df6154799c2b7e",
        ),
        (
            "1_a.sql",
            "-- pgfleet: requires a@1\n-- +goose NO TRANSACTION\n-- +goose Up\n-- +goose StatementBegin\nselect 1;\n-- +goose StatementEnd\n-- +goose Down\nselect 2;\n",
            "v1:8d284f1c0c1b873af72f6f423773fc465fc603bccd0c28fdbdae803a78fdeb34",
        ),
        (
            "1_a.sql",
            "-- migrate:up transaction:false\nselect 1;\n-- migrate:down\nselect 2;\n",
            "v1:edd21d7455ea43a5dc98fd21eb9a26fd0701636cc51886c6a8df6154799c2b7e",
        ),
        ("V1__a.sql", "select ${x};\n", "v1:b0de877a5a0567445d4f54922ccebebd82b38eb4ca9279c80ecbee391e100542"),
        (
            "R__a.sql",
            "create or replace view v as select 1;\n",
            "v1:0451accfcf018ebb8db15cbc7cb776545e1aa14ce576e8a5e05aaf46d9a8919b",
        ),
    ];
    for (name, text, expected) in golden {
        let folder = read_files(Path::new(""), vec![(name.into(), text.as_bytes().to_vec())], None).unwrap();
        let versioned = folder.migrations.iter().map(MigrationFile::checksum);
        let checksums: Vec<_> = versioned.chain(folder.repeatables.iter().map(Repeatable::checksum)).collect();
        assert_eq!(checksums, [expected], "{text}");
    }
    let diesel = [("1_a/up.sql", "select 1;\n"), ("1_a/metadata.toml", "run_in_transaction = false")];
    let files = diesel.map(|(name, text)| (name.into(), text.as_bytes().to_vec())).to_vec();
    let folder = read_files(Path::new(""), files, None).unwrap();
    assert_eq!(folder.migrations[0].checksum(), "v1:edd21d7455ea43a5dc98fd21eb9a26fd0701636cc51886c6a8df6154799c2b7e");
}
