//! Scripts at random that any server runs, of statements that are hard to split.

use proptest::prelude::*;
use proptest::sample::select;

/// Text that means something to a splitter which does not know where it is.
fn inner() -> impl Strategy<Value = String> {
    let pieces = vec![
        ";",
        "'",
        "\"",
        "$",
        "$$",
        "$a$",
        "\\",
        "--",
        "/*",
        "*/",
        "\n",
        " ",
        "begin atomic",
        "end;",
        "E'",
        "x",
        "ä",
        "😀",
    ];
    prop::collection::vec(select(pieces), 0..6).prop_map(|pieces| pieces.concat())
}

/// An expression with a value, perhaps under a name.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        inner().prop_map(|s| format!("'{}'", s.replace('\'', "''"))),
        inner().prop_map(|s| format!("E'{}'", s.replace('\\', "\\\\").replace('\'', "\\'"))),
        inner().prop_map(|s| format!("e'{}'", s.replace('\\', "\\\\").replace('\'', "''"))),
        inner().prop_map(|s| format!("U&'{}\\003b'", s.replace('\\', "\\\\").replace('\'', "''"))),
        inner().prop_map(|s| format!("n'{}'", s.replace('\'', "''"))),
        inner().prop_map(|s| format!("$q$ {s} $q$")),
        inner().prop_map(|s| format!("$${}$$", s.replace('$', ""))),
        inner().prop_map(|s| format!("$größe_1${}$größe_1$", s.replace('$', "$ "))),
        (inner(), inner()).prop_map(|(a, b)| format!("'{}'\n  '{}'", a.replace('\'', "''"), b.replace('\'', "''"))),
        (inner(), inner()).prop_map(|(a, b)| {
            let escape = |s: String| s.replace('\\', "\\\\").replace('\'', "\\'");
            format!("E'{}' -- {}\n\t'{}'", escape(a), b.replace('\n', " "), escape(b.clone()))
        }),
        inner().prop_map(|s| format!("1 as \"x{}\"", s.replace('"', "\"\""))),
        inner().prop_map(|s| format!("1 as U&\"x{}\\003b\"", s.replace('\\', "\\\\").replace('"', "\"\""))),
        inner().prop_map(|s| format!("1 /* {} /* ; */ */", s.replace(['*', '/'], ""))),
        inner().prop_map(|s| format!("1 -- {}\n", s.replace('\n', ""))),
        value_in_parentheses(),
        select(vec![
            "b'01'",
            "X'1f'",
            "1.5e3",
            ".5",
            "- -1",
            "2 *-3",
            "1 -/*;*/ 2",
            "1 */*;*/ 2",
            "@ -1",
            "1<-1",
            "'a'||';'",
            "case when true then ';' else 'end' end",
            "case 1 when 1 then 2 end as end_of",
            "(array[1, 2])[1:2]",
            "'1'::int",
            "t.begin",
            "begin atomic_",
            "t.atomic as \"end\"",
            "a$b",
        ])
        .prop_map(str::to_owned),
    ]
}

fn value_in_parentheses() -> impl Strategy<Value = String> {
    inner().prop_map(|s| format!("(select max(v) from (values ('{}'), (';')) as inner_t(v))", s.replace('\'', "''")))
}

fn query() -> impl Strategy<Value = String> {
    prop::collection::vec(value(), 1..4)
        .prop_map(|values| format!("select {} from (values (1, 2, 3)) as t(begin, atomic, a$b)", values.join(", ")))
}

fn statement() -> impl Strategy<Value = String> {
    let queries = prop::collection::vec(query(), 0..4);
    prop_oneof![
        6 => query(),
        2 => (queries, select(vec!["", " ;", ";;"])).prop_map(|(queries, empty)| {
            let body: String = queries.iter().flat_map(|query| [query.as_str(), ";\n"]).collect();
            format!("create or replace procedure made() language sql begin atomic {empty} {body} end")
        }),
        1 => query().prop_map(|query| format!("create or replace function f() returns void begin atomic {query}; end")),
        1 => query().prop_map(|query| {
            format!("create or replace rule r as on update to ruled do also ({query}; select 1; ; notify n)")
        }),
        1 => inner().prop_map(|s| format!("do $do$ begin perform $x${}$x$; end; $do$", s.replace('$', ""))),
        1 => inner().prop_map(|s| format!("comment on table ruled is '{}'", s.replace('\'', "''"))),
        1 => query().prop_map(|query| format!("explain {query}")),
        2 => select(vec![
            "begin", "commit", "end", "start transaction read write", "set local search_path = public", "show timezone",
            "insert into ruled default values", "table ruled", "values (';'), ('--')", "(select 1)",
            "create temp table if not exists kept (a int, check (a <> 1), unique (a))",
        ])
        .prop_map(str::to_owned),
    ]
}

/// Statements, at least one of them, and the text in which they come.
pub(crate) fn script() -> impl Strategy<Value = (Vec<String>, String)> {
    let separators = select(vec![";", ";\n", " ; ;", ";\r\n-- ;'\n", ";/* ; /* ' */ */", "\n;\t-- $$\n;"]);
    prop::collection::vec((statement(), separators), 1..8).prop_map(|parts| {
        let text = parts.iter().flat_map(|(statement, separator)| [statement.as_str(), separator]).collect();
        (parts.into_iter().map(|(statement, _)| statement).collect(), text)
    })
}
