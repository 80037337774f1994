//! Statements hold all that means something; each alone is itself; and the checks keep every byte in its place.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgfleet_fuzz::{assert_complete, tokens};
use pgfleet_sql::check::{Checked, check, check_no_transaction, needs_no_transaction};
use pgfleet_sql::statement::split;

fuzz_target!(|text: &str| {
    let statements = match split(text) {
        Ok(statements) => statements,
        Err(error) => {
            assert!(tokens(text).iter().any(|token| token.start == error.offset));
            assert!(!error.hint().is_empty());
            return;
        }
    };
    assert_complete(text, &statements);
    for statement in &statements {
        let alone = statement.text(text);
        let again = split(alone).expect("a statement can be split");
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].start, again[0].end, again[0].keyword()), (0, alone.len(), statement.keyword()));
        let _ = needs_no_transaction(alone);
    }
    for (checked, in_parts) in [(check(text, &statements), false), (check_no_transaction(text, &statements), true)] {
        match checked {
            Ok(Checked { text: sent, statements: kept }) => {
                assert_eq!(sent.len(), text.len());
                assert_complete(&sent, &kept);
                let again = split(&sent).expect("what was split before");
                if in_parts {
                    // A BEGIN and its COMMIT are one statement with all that is between.
                    for one in &kept {
                        let first = again.iter().position(|part| part.start == one.start).expect("a first statement");
                        assert!(again[first..].iter().any(|part| part.end == one.end));
                    }
                } else {
                    assert_eq!(again, kept);
                }
            }
            Err(refusal) => {
                assert!(refusal.offset < text.len() && text.is_char_boundary(refusal.offset));
                assert!(refusal.statement.is_none_or(|index| index < statements.len()));
            }
        }
    }
});
