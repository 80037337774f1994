//! Statements against a second parser, against the server's grammar, and at random.

use super::*;
use crate::lexer::tests::tricky_text;
use proptest::prelude::*;
use squawk_syntax::ast::{AstNode as _, SourceFile};

fn texts(text: &str) -> Vec<&str> {
    split(text).unwrap().iter().map(|s| s.text(text)).collect()
}

fn fails(text: &str) -> (SyntaxErrorKind, usize) {
    let error = split(text).unwrap_err();
    assert!(!error.hint().is_empty() && !error.to_string().is_empty());
    (error.kind, error.offset)
}

/// The statements that an independent parser sees, without semicolons and surrounding trivia.
fn squawk(text: &str) -> Vec<&str> {
    let file = SourceFile::parse(text).tree();
    let ranges = file.stmts().map(|stmt| {
        let range = stmt.syntax().text_range();
        &text[usize::from(range.start())..usize::from(range.end())]
    });
    ranges.map(bare).filter(|statement| !statement.is_empty()).collect()
}

fn bare(statement: &str) -> &str {
    let tokens: Vec<_> = lexer::significant(statement).collect();
    let last = tokens.iter().rposition(|t| t.kind != TokenKind::Semicolon);
    last.map_or("", |last| &statement[tokens[0].start..tokens[last].end])
}

const TRICKY: &[&str] = &[
    "select 1; select 2",
    ";;select 1;;;select 2;;",
    "select ';', \";\", $$;$$, $a$;$$;$a$, E'\\';', U&';', 1 -- ;\n /* ; /* ; */ ; */; select 2",
    "create function f() returns int language sql begin atomic select 1; select 2; end; select 3;",
    "create or replace procedure p(a int) begin atomic insert into t values (1); delete from t; end",
    "create function f(a int) returns int begin atomic select case when a > 1 then case a when 2 then 1 end else 3 end; end; select 1",
    "create function f() returns int begin atomic; ; select 1;; end; select 1",
    "create function f() returns int begin atomic end; select 1",
    "create function f() returns text begin atomic select 1 as \"end\", t.begin from t; return 'end;'; end; select 2",
    "create function f() returns int return 1; select 2",
    "create function f() returns int as $$ begin; end; $$ language plpgsql; select 2",
    "create rule r as on insert to t do also (insert into u values (1); delete from v;); select 1",
    "begin; select 1; end; begin; commit",
    "select case when true then 1 end; select 2",
    "select 'a'\n'b;'; select 3",
    "create table a$b$ (c int); create table c$b$ (d int)",
    "do $$ begin perform 1; end $$; select 1;",
    "create schema s create table t (a int) create view v as select 1; select 1",
    "select 1 as begin; select 2 as end; select atomic from begin",
    "prepare p as select $1; execute p(1)",
    "insert into t values ('\\'); select 2",
    "create trigger t after insert on a for each row execute function f(); select 1",
];

#[test]
fn tricky_texts_split_as_another_parser_splits_them() {
    for text in TRICKY {
        assert_eq!(texts(text), squawk(text), "{text}");
    }
}

#[test]
fn semicolons_in_quotes_comments_and_bodies_end_nothing() {
    let counts: Vec<_> = TRICKY.iter().map(|text| split(text).unwrap().len()).collect();
    assert_eq!(counts, [2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 2, 5, 2, 2, 2, 2, 2, 3, 2, 2, 2]);
}

/// As the server has it; the parser of the other tests does not know this.
#[test]
fn an_escape_string_that_goes_on_keeps_its_semicolon() {
    assert_eq!(texts("select E'a'\n'\\';'; select 3").len(), 2);
}

#[test]
fn statements_begin_and_end_with_a_token() {
    let text = "-- first\n /* x */ select 1 /* y */ ; -- z\n ; \n select 2 -- end\n";
    assert_eq!(texts(text), ["select 1", "select 2"]);
    let statements = split(text).unwrap();
    assert_eq!(statements.iter().map(|s| s.terminated).collect::<Vec<_>>(), [true, false]);
    assert!(split(" -- nothing\n;;/* */").unwrap().is_empty());
    assert!(split("").unwrap().is_empty());
}

#[test]
fn columns_called_end_or_case_do_not_close_a_body() {
    let text =
        "create function f() returns int begin atomic select 1 end; select t.end, 2 as case from t; end; select 3";
    assert_eq!(texts(text).len(), 2);
    let text = "create function begin(begin atomic) returns int begin atomic select 1; end; select 3";
    assert_eq!(texts(text).len(), 2);
}

#[test]
fn begin_atomic_outside_of_a_routine_is_nothing() {
    assert_eq!(texts("begin atomic; select 1; end"), ["begin atomic", "select 1", "end"]);
    assert_eq!(texts("create table function (begin int); begin; end").len(), 3);
}

#[test]
fn lines_of_psql_are_passed_over() {
    assert_eq!(texts("\\restrict a'b\nselect 1;\n\\unrestrict a'b\n"), ["select 1"]);
}

#[test]
fn an_open_end_names_where_it_began() {
    use SyntaxErrorKind as K;
    assert_eq!(fails("select 1; /* /* */"), (K::OpenComment, 10));
    assert_eq!(fails("select 'ä', 'b; select 2"), (K::OpenQuote, 13));
    assert_eq!(fails("select E'\\'"), (K::OpenQuote, 7));
    assert_eq!(fails("do $body$ $$"), (K::OpenDollarQuote { tag: "body".into() }, 3));
    assert_eq!(fails("do $$ $b$"), (K::OpenDollarQuote { tag: String::new() }, 3));
    assert_eq!(fails("select \"a"), (K::OpenIdentifier, 7));
    assert_eq!(fails("select (1, (2; select 3)"), (K::OpenParen, 7));
    assert_eq!(fails("select 1); select 2"), (K::CloseParen, 8));
    assert_eq!(fails("create function f() returns int begin atomic select 1;"), (K::OpenBody, 32));
}

#[test]
fn quotes_in_copied_rows_blame_the_copy() {
    let error = split("copy t (a) from stdin;\ndon't\n\\.\n").unwrap_err();
    assert!(error.hint().contains("COPY"), "{}", error.hint());
}

#[test]
fn keywords_tell_the_kind() {
    let keyword = |text: &str| split(text).unwrap()[0].keyword().to_owned();
    assert_eq!(keyword("insert into t values (1)"), "INSERT");
    assert_eq!(keyword("create /* x */ unique index concurrently i on t (a)"), "CREATE UNIQUE INDEX");
    assert_eq!(keyword("create or replace function f() returns int return 1"), "CREATE OR REPLACE FUNCTION");
    assert_eq!(keyword("Alter Table t add a int"), "ALTER TABLE");
    assert_eq!(keyword("(select 1)"), "");
    assert_eq!(keyword("drop table \"index\""), "DROP TABLE");
}

/// Statements that two parsers agree on, built around quotes of all kinds.
fn statement() -> impl Strategy<Value = String> {
    let inner = "[a-z;'\"$ \\-/*(\\\\]{0,8}";
    let value = prop_oneof![
        inner.prop_map(|s| format!("'{}'", s.replace('\'', "''"))),
        inner.prop_map(|s| format!("E'{}'", s.replace('\\', "\\\\").replace('\'', "\\'"))),
        inner.prop_map(|s| format!("$q$ {} $q$", s.replace('q', ""))),
        inner.prop_map(|s| format!("$${}$$", s.replace('$', ""))),
        inner.prop_map(|s| format!("1 as \"x{}\"", s.replace('"', "\"\""))),
        inner.prop_map(|s| format!("1 /* {} */", s.replace(['*', '/'], ""))),
        inner.prop_map(|s| format!("1 -- {s}\n")),
        inner.prop_map(|s| format!("(select '{}')", s.replace('\'', "''"))),
        Just("case when a then ';' end".to_owned()),
        Just("x'1f'".to_owned()),
        Just("1.5".to_owned()),
    ];
    let select = prop::collection::vec(value, 1..4).prop_map(|values| format!("select {}", values.join(", ")));
    let body = prop::collection::vec(select.clone(), 1..3).prop_map(|statements| {
        format!("create function f() returns int language sql begin atomic {}; end", statements.join("; "))
    });
    prop_oneof![3 => select, 1 => body]
}

proptest! {
    #[test]
    fn generated_statements_come_back_as_they_were(
        statements in prop::collection::vec(statement(), 0..6),
        separators in prop::collection::vec(prop::sample::select(vec![";", ";\n", " ; ;", ";\r\n-- ;'\n", ";/* ; */"]), 6),
    ) {
        let text: String = statements.iter().zip(&separators).flat_map(|(s, separator)| [s.as_str(), separator]).collect();
        let expected: Vec<&str> = statements.iter().map(|s| bare(s)).collect();
        prop_assert_eq!(texts(&text), expected);
        prop_assert_eq!(texts(&text), squawk(&text));
    }

    #[test]
    fn any_text_splits_into_ordered_ranges_or_fails_at_a_token(text in any_text()) {
        match split(&text) {
            Ok(statements) => holds_every_token(&text, &statements)?,
            Err(error) => {
                prop_assert!(lexer::significant(&text).any(|token| token.start == error.offset), "{error}");
                prop_assert!(!error.hint().is_empty());
            }
        }
    }

    #[test]
    fn a_statement_alone_is_that_statement(text in closed_text()) {
        for statement in split(&text).unwrap() {
            let alone = statement.text(&text);
            prop_assert_eq!(texts(alone), [alone]);
        }
    }

    #[test]
    fn what_follows_a_statement_does_not_change_it(text in closed_text()) {
        let statements = split(&text).unwrap();
        for (index, statement) in statements.iter().enumerate() {
            let begun = split(&text[..statement.end]).unwrap();
            prop_assert_eq!(begun.len(), index + 1);
            for (one, other) in begun.iter().zip(&statements) {
                prop_assert_eq!((one.start, one.end, one.keyword()), (other.start, other.end, other.keyword()));
            }
        }
    }

    #[test]
    fn two_texts_have_the_statements_of_both(first in closed_text(), second in closed_text()) {
        // The line end closes a comment or a line of psql at the end of the first.
        let both = format!("{first}\n;\n{second}");
        let expected: Vec<&str> = texts(&first).into_iter().chain(texts(&second)).collect();
        prop_assert_eq!(texts(&both), expected);
    }

    #[test]
    fn without_bodies_the_semicolons_outside_of_parentheses_end_statements(text in closed_text()) {
        let text = text.replace("atomic", "atom");
        prop_assume!(split(&text).is_ok());
        let mut expected: Vec<(usize, usize)> = Vec::new();
        let (mut depth, mut open) = (0, false);
        for token in lexer::significant(&text).filter(|token| token.kind != TokenKind::MetaCommand) {
            match token.kind {
                TokenKind::OpenParen => depth += 1,
                TokenKind::CloseParen => depth -= 1,
                TokenKind::Semicolon if depth == 0 => {
                    open = false;
                    continue;
                }
                _ => {}
            }
            match expected.last_mut() {
                Some(last) if open => last.1 = token.end,
                _ => expected.push((token.start, token.end)),
            }
            open = true;
        }
        let ranges: Vec<_> = split(&text).unwrap().iter().map(|s| (s.start, s.end)).collect();
        prop_assert_eq!(ranges, expected);
    }
}

/// Texts of all kinds: most cannot be split.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => tricky_text(),
        1 => any::<String>(),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        3 => closed_text(),
        // What is cut off somewhere.
        2 => (closed_text(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
            let end = text.floor_char_boundary(at.index(text.len() + 1));
            text[..end].to_owned()
        }),
    ]
}

/// Texts that can be split: tokens at random, but everything that is opened is closed.
fn closed_text() -> impl Strategy<Value = String> {
    let token = || {
        prop::sample::select(vec![
            "select",
            "a",
            "1",
            "1.5",
            "begin",
            "atomic",
            "end",
            "create",
            "or",
            "replace",
            "function",
            "procedure",
            "as",
            "case",
            "';'",
            "'it''s;'",
            "'\\'",
            "E'\\';'",
            "U&';'",
            "\";\"",
            "U&\"a;\"",
            "$$;$$",
            "$a$ $$;$a$",
            "$ä$;$ä$",
            "$1",
            "-- ;'\n",
            "/* ; */",
            "/* /* ' */ ; */",
            "-",
            "+",
            "*",
            "/",
            "@",
            "<",
            ".",
            "..",
            ":",
            "::",
            ":=",
            ",",
            "[",
            "]",
            "$",
            "ä",
            "{",
            "\\;\n",
            "\n",
            "\r\n",
            "\t",
        ])
    };
    let run = move || prop::collection::vec(token(), 0..8).prop_map(|tokens| tokens.join(" "));
    let with_parens = (run(), prop::sample::select(vec!["", ";", "; ;"]), run())
        .prop_map(|(a, semicolons, b)| format!("({a} {semicolons} ( {b} ))"));
    let header = prop::sample::select(vec![
        "create function f() returns int",
        "create or replace /* ; */ function f(begin atomic) returns begin",
        "CREATE PROCEDURE p(a int default 1)",
        "create function f() returns table (a int) language sql immutable set search_path to begin",
    ]);
    // No word of a body at the place where a statement begins.
    let in_body = (
        prop::sample::select(vec![
            "select",
            "insert into",
            "with",
            "(1)",
            "select begin atomic",
            "select 1 as end",
            "",
        ]),
        run(),
    )
        .prop_map(|(first, rest)| format!("{first} , {rest} ;"));
    let body = (header, prop::collection::vec(in_body, 0..4))
        .prop_map(|(header, statements)| format!("{header} begin atomic {} end", statements.concat()));
    let part = prop_oneof![4 => run(), 2 => with_parens, 2 => body];
    let separator = prop::sample::select(vec![";", " ; ", ";;", ";\n", "; -- ;\n", "; /* ; */"]);
    prop::collection::vec((part, separator), 0..6)
        .prop_map(|parts| parts.iter().flat_map(|(part, separator)| [part.as_str(), "\n", separator]).collect())
        // Tokens at random can open a body all the same: such a text is not closed.
        .prop_filter("an open body", |text: &String| split(text).is_ok())
}

/// The ranges are in order and apart, hold every token that means something, and with what is between them are the text.
fn holds_every_token(text: &str, statements: &[Statement]) -> Result<(), TestCaseError> {
    let mut rebuilt = String::new();
    let mut done = 0;
    for statement in statements {
        prop_assert!(statement.start >= done && statement.end > statement.start);
        rebuilt.push_str(&text[done..statement.start]);
        rebuilt.push_str(statement.text(text));
        done = statement.end;
    }
    rebuilt.push_str(&text[done..]);
    prop_assert_eq!(&rebuilt, text);

    let mut semicolons = vec![0; statements.len() + 1];
    for token in lexer::tokens(text) {
        let before = statements.partition_point(|statement| statement.end <= token.start);
        let inside = statements.get(before).is_some_and(|s| s.start <= token.start && token.end <= s.end);
        let outside = statements.get(before).is_none_or(|s| token.end <= s.start);
        prop_assert!(inside || outside, "a statement ends inside of a token");
        if token.kind == TokenKind::Semicolon && outside {
            semicolons[before] += 1;
        } else if !token.kind.is_trivia() && token.kind != TokenKind::MetaCommand {
            prop_assert!(inside, "{:?} belongs to no statement", token);
        }
    }
    for (index, statement) in statements.iter().enumerate() {
        prop_assert_eq!(statement.terminated, semicolons[index + 1] > 0);
        prop_assert!(statement.terminated || index + 1 == statements.len());
        let first = lexer::significant(statement.text(text)).next().unwrap();
        prop_assert!(first.start == 0 && first.kind != TokenKind::Semicolon);
    }
    Ok(())
}
