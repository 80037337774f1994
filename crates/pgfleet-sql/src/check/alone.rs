//! Statements that the server runs only outside of a transaction.

use crate::lexer::{self, TokenKind};

/// Names the kind of a statement that the server runs only outside of a transaction.
///
/// For the hint behind the server's error 25001; what is not known here is `None`, and the server decides.
pub fn needs_no_transaction(statement: &str) -> Option<&'static str> {
    let words: Vec<String> = lexer::significant(statement)
        .map(|t| match t.kind {
            TokenKind::Identifier => t.text(statement).to_ascii_uppercase(),
            TokenKind::OpenParen => "(".into(),
            TokenKind::CloseParen => ")".into(),
            // Neither a name nor a value is a keyword.
            _ => String::new(),
        })
        .take(64)
        .collect();
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let has = |wanted: &str| words.iter().any(|w| w == wanted);
    match (word(0), word(1)) {
        ("CREATE", "INDEX") if word(2) == "CONCURRENTLY" => Some("CREATE INDEX CONCURRENTLY"),
        ("CREATE", "UNIQUE") if word(2) == "INDEX" && word(3) == "CONCURRENTLY" => Some("CREATE INDEX CONCURRENTLY"),
        ("DROP", "INDEX") if word(2) == "CONCURRENTLY" => Some("DROP INDEX CONCURRENTLY"),
        ("REINDEX", _) => reindex(&words),
        ("VACUUM", _) => Some("VACUUM"),
        ("CREATE", "DATABASE") => Some("CREATE DATABASE"),
        ("DROP", "DATABASE") => Some("DROP DATABASE"),
        ("CREATE", "TABLESPACE") => Some("CREATE TABLESPACE"),
        ("DROP", "TABLESPACE") => Some("DROP TABLESPACE"),
        ("ALTER", "SYSTEM") => Some("ALTER SYSTEM"),
        ("ALTER", "DATABASE") if word(3) == "SET" && word(4) == "TABLESPACE" => Some("ALTER DATABASE SET TABLESPACE"),
        ("ALTER", "TABLE") if has("DETACH") && word(words.len() - 1) == "CONCURRENTLY" => {
            Some("DETACH PARTITION CONCURRENTLY")
        }
        ("CLUSTER", _) if cluster_everything(&words) => Some("CLUSTER without a table"),
        ("CREATE", "SUBSCRIPTION") => Some("CREATE SUBSCRIPTION"),
        ("DROP", "SUBSCRIPTION") => Some("DROP SUBSCRIPTION"),
        _ => None,
    }
}

fn reindex(words: &[String]) -> Option<&'static str> {
    let options_end = if words.get(1).is_some_and(|w| w == "(") { words.iter().position(|w| w == ")")? } else { 0 };
    let object = words.get(options_end + 1).map_or("", String::as_str);
    let concurrently = words[..=options_end].iter().any(|w| w == "CONCURRENTLY")
        || words.get(options_end + 2).is_some_and(|w| w == "CONCURRENTLY");
    match object {
        "DATABASE" => Some("REINDEX DATABASE"),
        "SYSTEM" => Some("REINDEX SYSTEM"),
        "SCHEMA" => Some("REINDEX SCHEMA"),
        _ if concurrently => Some("REINDEX CONCURRENTLY"),
        _ => None,
    }
}

fn cluster_everything(words: &[String]) -> bool {
    match words.get(1).map(String::as_str) {
        None => true,
        Some("VERBOSE") => words.len() == 2,
        Some("(") => words.last().is_some_and(|w| w == ")"),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::tests::tricky_text;
    use proptest::prelude::*;

    #[test]
    fn statements_that_need_to_be_alone_are_named() {
        for (text, expected) in [
            ("create index concurrently i on t (a)", Some("CREATE INDEX CONCURRENTLY")),
            ("create unique index /* x */ concurrently if not exists i on t (a)", Some("CREATE INDEX CONCURRENTLY")),
            ("create index \"concurrently\" on t (a)", None),
            ("drop index concurrently i", Some("DROP INDEX CONCURRENTLY")),
            ("reindex table concurrently t", Some("REINDEX CONCURRENTLY")),
            ("reindex (verbose, concurrently) index i", Some("REINDEX CONCURRENTLY")),
            ("reindex (verbose) schema s", Some("REINDEX SCHEMA")),
            ("reindex database", Some("REINDEX DATABASE")),
            ("reindex system d", Some("REINDEX SYSTEM")),
            ("reindex table t", None),
            ("vacuum (analyze) t", Some("VACUUM")),
            ("create database d", Some("CREATE DATABASE")),
            ("drop database d", Some("DROP DATABASE")),
            ("create tablespace t location 'x'", Some("CREATE TABLESPACE")),
            ("drop tablespace t", Some("DROP TABLESPACE")),
            ("alter system set a = 1", Some("ALTER SYSTEM")),
            ("alter database d set tablespace t", Some("ALTER DATABASE SET TABLESPACE")),
            ("alter database d set search_path to tablespace", None),
            ("alter table t detach partition p concurrently", Some("DETACH PARTITION CONCURRENTLY")),
            ("alter table t detach partition p", None),
            ("cluster", Some("CLUSTER without a table")),
            ("cluster verbose", Some("CLUSTER without a table")),
            ("cluster (verbose)", Some("CLUSTER without a table")),
            ("cluster (verbose) t", None),
            ("cluster verbose t using i", None),
            ("refresh materialized view concurrently v", None),
            ("", None),
        ] {
            assert_eq!(needs_no_transaction(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_statement_can_be_asked_about(text in tricky_text()) {
            let _ = needs_no_transaction(&text);
            let _ = needs_no_transaction(&format!("reindex ({text}"));
        }
    }
}
