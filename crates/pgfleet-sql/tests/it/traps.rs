//! Texts on which splitters go wrong; the mark `‖` stands where the server's grammar ends a statement.

use crate::support::{Parsed, Servers, bare, texts};

const MARK: char = '‖';

const TRAPS: &[&str] = &[
    // Words of a body where they are something else.
    "create function f() returns int begin atomic select begin atomic from t; end‖; select 1‖",
    "create function f() returns int begin atomic select begin atomic; end‖; select 1‖",
    "create procedure f() begin atomic select begin /* ; */ atomic -- end;\n; end‖; select 1‖",
    "create procedure f() begin atomic select * from begin atomic; end‖; select 1‖",
    "create procedure f() begin atomic delete from begin atomic; end‖; select 1‖",
    "create procedure f() begin atomic select a begin, atomic; end‖; select 1‖",
    "create procedure f() begin atomic call x(begin => 1, atomic => 2); end‖; select 1‖",
    "create procedure f() begin atomic alter table begin rename to atomic; end‖; select 1‖",
    "create function f() returns int begin atomic create view begin as select atomic; end‖; select 1‖",
    "create function f() returns int begin atomic select 1 end; end‖; select 3‖",
    // A routine in the body of another; refused later, but one statement.
    "create function f() returns int begin atomic create function g() returns int begin atomic select 1; end; end‖; select 1‖",
    "create function f() returns int begin atomic create or replace procedure g() begin atomic end; end‖; select 1‖",
    "create function f() returns int begin atomic create function g() returns int return 1; select begin atomic; end‖; select 1‖",
    // Headers that hold the words.
    "create function f() returns begin begin atomic select 1; end‖; select 1‖",
    "create function f() returns setof begin begin atomic; end‖; select 1‖",
    "create function f() returns table (begin atomic) begin atomic; end‖; select 1‖",
    "create function f() returns begin.atomic begin atomic; end‖; select 3‖",
    "create function f() returns begin [] begin atomic; end‖; select 3‖",
    "create function f() returns begin array begin atomic; end‖; select 3‖",
    "create function f() returns int set a to begin begin atomic; end‖; select 2‖",
    "create function f() returns int set a to begin, atomic begin atomic; end‖; select 2‖",
    "create function f() returns int set xml option document begin atomic; end‖; select 1‖",
    "create function f() returns int support begin begin atomic; end‖; select 3‖",
    "create function f() returns int transform for type begin begin atomic; end‖; select 3‖",
    "create function f(a int default (select begin atomic)) returns int return 1‖; select 2‖",
    "create function f() returns int language begin return atomic‖; select 2‖",
    "create function f() returns int set a = begin return atomic‖; select 2‖",
    "create function f() returns int return begin‖; select 2‖",
    "create function begin() returns atomic return 1‖; select 2‖",
    "create function atomic(begin atomic) returns atomic return begin‖; select 2‖",
    // Bodies of every length.
    "create function f() returns int begin atomic end‖ ; ; select 1‖",
    "create function f() returns int begin atomic ; end‖; select 3‖",
    "create function f() returns trigger begin atomic with x as (select 1) select 1; end‖; select 1‖",
    "create schema s create table t (a int)‖; select 2‖",
    "create rule r as on insert to t do also (select 1; select 2)‖; select 3‖",
    "select 1‖; end‖; select 3‖",
    "begin‖; commit‖; end‖; start transaction‖; rollback‖; abort‖",
    // Strings that go on.
    "select E'a'\n'\\';'‖; select 1‖",
    "select E'a' -- x\n -- y\n '\\';'‖; select 1‖",
    "select E'a'\u{c}\n'\\''‖; select 1‖",
    "select 'a' -- '\n'b;'‖; select 1‖",
    "select B'1'\n'0;'‖; select 1‖",
    "select N'a;'\n'\\'‖; select 1‖",
    "select U&'a' uescape '!'‖; select 1‖",
    "select U&\"a;\" uescape '!' from t‖; select 1‖",
    "select '\\'‖; select 2‖; -- '",
    "select \"\"\"\"‖; select 2‖",
    "select $é$;$é$‖; select 1‖",
    "select $a$ $b$ $a ; $ a$ $$a$‖; select $$ $a$;$a $$‖",
    // Operators beside comments.
    "select 1 /* ; /* ; */ ; */‖; select 2‖",
    "select 1‖ -- ; /*\n; select 2‖ -- */\n",
    "select 1 -*/*;*/ 2‖; select 2‖",
    "select 1 */*;*/ 2‖; select 2‖",
    "select 1+--;\n2‖; select 3‖",
    "select @-1‖; select 2‖",
    // Nothing.
    "select 1‖;;;; ; select 2‖;",
    "",
    ";",
    " -- x",
    "select 1‖;\n-- end\n",
];

fn expected(marked: &str) -> Vec<&str> {
    let (statements, _) = marked.rsplit_once(MARK).unwrap_or_default();
    statements.split(MARK).map(bare).filter(|statement| !statement.is_empty()).collect()
}

#[test]
fn the_marks_are_where_statements_end() {
    for marked in TRAPS {
        assert_eq!(texts(&marked.replace(MARK, "")), expected(marked), "{marked}");
    }
}

#[test]
fn the_marks_are_where_the_servers_end_statements() {
    let servers = Servers::connect();
    for marked in TRAPS {
        let expected = expected(marked);
        let whole = if expected.len() > 1 { Parsed::Several } else { Parsed::AtMostOne };
        for parsed in servers.parsed(&marked.replace(MARK, "")) {
            assert_eq!(parsed, whole, "{marked}");
        }
        for statement in expected {
            assert_eq!(servers.parsed(statement), [Parsed::AtMostOne, Parsed::AtMostOne], "{statement}");
        }
    }
}
