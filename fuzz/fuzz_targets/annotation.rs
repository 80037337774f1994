//! Annotations are read or refused at a comment, and what is read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgfleet_sql::annotation::{Annotations, parse, parse_duration};
use pgfleet_sql::checksum::{checksum, with_annotations};

fuzz_target!(|text: &str| {
    if let Ok(duration) = parse_duration(text) {
        assert_eq!(parse_duration(&format!("{}ms", duration.as_millis())), Ok(duration));
    }
    let annotations = match parse(text) {
        Ok(annotations) => annotations,
        Err(error) => {
            assert!(text[error.offset..].starts_with("--"));
            assert!(!error.hint().is_empty() && !error.message.is_empty());
            return;
        }
    };
    assert_eq!(checksum(text), with_annotations(text, &annotations));
    // What follows from the statements is no annotation.
    let annotations = Annotations {
        no_transaction: annotations.no_transaction && !annotations.implied,
        implied: false,
        ..annotations
    };
    let mut written = String::new();
    if annotations.no_transaction {
        written.push_str("-- pgfleet: no-transaction\n");
    }
    if let Some(timeout) = annotations.lock_timeout {
        written.push_str(&format!("-- pgfleet: lock_timeout={}ms\n", timeout.as_millis()));
    }
    for requirement in &annotations.requires {
        written.push_str(&format!("-- pgfleet: requires {}@{}\n", requirement.set, requirement.version));
    }
    assert_eq!(parse(&written).as_ref(), Ok(&annotations), "{written}");
});
