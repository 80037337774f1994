//! SQL as people write it where it is hard to split. The first line of a file says how many statements it has.

use crate::support::{Parsed, Servers, squawk, texts};

const CORPUS: [(&str, &str); 4] = [
    ("bodies", include_str!("corpus/bodies.sql")),
    ("comments", include_str!("corpus/comments.sql")),
    ("objects", include_str!("corpus/objects.sql")),
    ("quotes", include_str!("corpus/quotes.sql")),
];

fn expected(text: &str) -> usize {
    text.strip_prefix("-- ").and_then(|rest| rest.split_once(' ')).and_then(|(count, _)| count.parse().ok()).unwrap()
}

#[test]
fn each_file_has_the_statements_that_it_says() {
    for (name, text) in CORPUS {
        assert_eq!(texts(text).len(), expected(text), "{name}");
    }
}

#[test]
fn another_parser_sees_the_same_statements() {
    for (name, text) in CORPUS {
        assert_eq!(texts(text), squawk(text), "{name}");
        let windows = text.replace('\n', "\r\n");
        assert_eq!(texts(&windows), squawk(&windows), "{name} with the line ends of Windows");
    }
}

#[test]
fn the_servers_grammar_takes_each_as_one_statement() {
    let servers = Servers::connect();
    for (name, text) in CORPUS {
        assert_eq!(servers.parsed(text), [Parsed::Several, Parsed::Several], "{name}");
        for statement in texts(text) {
            assert_eq!(servers.parsed(statement), [Parsed::AtMostOne, Parsed::AtMostOne], "{name}: {statement}");
        }
    }
}
