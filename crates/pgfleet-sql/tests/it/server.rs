//! What the server completes when a script comes in one message, which is how migrations are sent.

use crate::scripts::script;
use crate::support::{Servers, bare, squawk, texts};
use proptest::prop_assert_eq;
use proptest::test_runner::{Config, TestRunner};

#[test]
fn servers_complete_as_many_statements_as_there_are() {
    let servers = Servers::connect();
    servers.run("create table ruled (a int)");
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let result = runner.run(&script(), |(statements, text)| {
        let expected: Vec<&str> = statements.iter().map(|statement| bare(statement)).collect();
        prop_assert_eq!(texts(&text), &expected[..]);
        let completed = servers.completed(&text);
        // The script may have left a transaction open.
        servers.run("rollback");
        prop_assert_eq!(completed, Ok(vec![expected.len(); 2]));
        for statement in expected {
            let completed = servers.completed(statement);
            servers.run("rollback");
            prop_assert_eq!(completed, Ok(vec![1, 1]), "{}", statement);
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn another_parser_sees_the_same_statements_in_scripts_at_random() {
    let mut runner = TestRunner::new(Config { cases: 1000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&script(), |(_, text)| {
        // It takes the second part of an escape string for a plain one; the server does not (see the traps).
        if !text.contains("E'") {
            prop_assert_eq!(texts(&text), squawk(&text));
        }
        Ok(())
    });
    result.unwrap();
}
