//! Checksums that change when the meaning of a migration can have changed, and not when a comment did.
//!
//! A checksum is stored with every applied migration and compared for ever, so the algorithm behind a prefix never
//! changes; a better one gets a new prefix beside it. The golden values in the tests hold that.

use crate::annotation::{self, Annotations};
use crate::check;
use crate::lexer::{self, TokenKind};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Ends each piece; the byte does not occur in UTF-8, so no two sequences of pieces give the same bytes.
const END: u8 = 0xff;
/// Begins an annotation, which so differs from any token.
const ANNOTATION: u8 = 0xfe;
/// How much is collected before it is hashed.
const BUFFER: usize = 64 * 1024;

/// Returns the checksum of a migration's text: `v1:` and 64 hexadecimal digits.
///
/// Comments and white space do not count, nor does the case of keywords and unquoted names. Everything quoted and
/// every number counts byte for byte, and so do the annotations that [`annotation::parse`] knows; if these are in
/// error, the text counts as having none.
pub fn checksum(text: &str) -> String {
    with_annotations(text, &annotation::parse(text).unwrap_or_default())
}

/// Returns the checksum of a text whose annotations are known, because they also stand elsewhere than in the text.
pub fn with_annotations(text: &str, annotations: &Annotations) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut hasher = Sha256::new();
    let mut buffer: Vec<u8> = Vec::with_capacity(BUFFER);
    for line in annotations.normalised() {
        buffer.push(ANNOTATION);
        buffer.extend_from_slice(line.as_bytes());
        buffer.push(END);
    }
    for token in lexer::significant(text) {
        let bytes = token.text(text).as_bytes();
        if buffer.len() + bytes.len() + 1 > BUFFER {
            hasher.update(&buffer);
            buffer.clear();
        }
        match token.kind {
            // pg_dump writes another random word into these lines every time.
            TokenKind::MetaCommand if check::is_restrict(token.text(text)) => continue,
            TokenKind::Identifier => {
                let start = buffer.len();
                buffer.extend_from_slice(bytes);
                buffer[start..].make_ascii_lowercase();
            }
            _ => buffer.extend_from_slice(bytes),
        }
        buffer.push(END);
    }
    hasher.update(&buffer);
    format!("v1:{}", hex(&hasher.finalize()))
}

/// Returns the SHA-256 of the bytes as 64 hexadecimal digits.
pub fn raw_hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::tests::tricky_text;
    use proptest::prelude::*;

    /// Stored in databases everywhere: if this test fails, the code is wrong.
    #[test]
    fn checksums_of_old_never_change() {
        let golden = [
            ("", "v1:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("select 1;", "v1:d66d6c98ef9de1427ededf144641cdcd274d4078bbc5721d626377e630d094f9"),
            (
                "CREATE TABLE t (größe text DEFAULT 'A''b' /* x */, \"N\" int, CHECK (a >= -1.50)); -- end",
                "v1:9c8d523581fb8e1311fd626ff41cd9bc10ff3f060460a06e4e0db8214a0220eb",
            ),
            (
                "-- pgfleet: no-transaction\n-- pgfleet: lock_timeout=10s\n-- pgfleet: requires b@2, a@01\ncreate index concurrently i on t (a)",
                "v1:498ecf7038fb06fec2e0538d1dc044af024082fffe1f37c420645bc850861b47",
            ),
            (
                "do $a$ begin null; end $a$; select E'\\'', U&\"x\", $1, a::b[1:2]",
                "v1:caff0e377dbba1e7a46fa6fcf85ba5ada8dd22feff94addce5ba00a87cb75933",
            ),
        ];
        for (text, expected) in golden {
            assert_eq!(checksum(text), expected, "{text}");
        }
        assert_eq!(raw_hash(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn comments_white_space_and_case_do_not_count() {
        let expected = checksum("create table t (a int default -1);");
        for text in [
            "\u{feff}CREATE  TABLE\r\n\tT(a INT/* x */DEFAULT - 1) ; -- y",
            "-- x\n/* pgfleet: no-transaction */\ncreate table t\n(a int default -1);\n\n",
            "\\restrict abc\ncreate table t (a int default -1);\r\n\\unrestrict abc\r\n",
        ] {
            assert_eq!(checksum(text), expected, "{text}");
        }
    }

    #[test]
    fn what_can_change_the_meaning_counts() {
        let texts = [
            "select a",
            "select \"a\"",
            "select \"A\"",
            "select 'a'",
            "select 'A'",
            "select 'a\n'",
            "select 'a\r\n'",
            "select E'a'",
            "select $$a$$",
            "select $b$a$b$",
            "select 1.0",
            "select 1.00",
            "select 1",
            "select - 1",
            "select a b",
            "select ab",
            "select a;",
            "select a < = b",
            "select a <= b",
            "select größe",
            "select GRÖSSE",
            "select $$ -- a\n$$",
            "select $$ -- b\n$$",
            "\\d",
            "-- pgfleet: no-transaction\nselect a",
            "-- pgfleet: lock_timeout=1s\nselect a",
            "-- pgfleet: requires a@1\nselect a",
        ];
        let mut checksums: Vec<_> = texts.iter().map(|text| checksum(text)).collect();
        checksums.sort();
        checksums.dedup();
        assert_eq!(checksums.len(), texts.len());
    }

    #[test]
    fn one_wish_in_several_words_is_one_checksum() {
        let expected = checksum("-- pgfleet: no-transaction\nselect 1");
        assert_eq!(checksum("-- no-transaction\nselect 1"), expected);
        assert_eq!(checksum("-- why\n--PGFLEET:no-transaction \r\nselect 1"), expected);
        assert_eq!(
            with_annotations("select 1", &Annotations { no_transaction: true, ..Annotations::default() }),
            expected
        );
        assert_eq!(
            checksum("-- pgfleet: lock_timeout=60s\nselect 1"),
            checksum("-- pgfleet: lock_timeout = 1min\nselect 1")
        );
    }

    #[test]
    fn tokens_longer_than_the_buffer_are_hashed_whole() {
        let long = |end: &str| checksum(&format!("select '{}{end}'", "x".repeat(3 * BUFFER)));
        assert_ne!(long("a"), long("b"));
        let many = |end: &str| checksum(&format!("{}{end}", "a ".repeat(BUFFER)));
        assert_ne!(many("a"), many("b"));
    }

    proptest! {
        #[test]
        fn trivia_between_tokens_changes_nothing(
            tokens in prop::collection::vec(prop::sample::select(vec![
                "select", "A", "\"a\"", "'b;--'", "E'\\''", "$$ ' $$", "1.5", "$1", "<=", "-", "(", ")", ",", ";", "::", "U&'x'",
            ]), 0..12),
            gaps in prop::collection::vec(prop::sample::select(vec![" ", "\t", "/* ' */ ", " -- \"\n ", " /* /* */ */ "]), 12),
        ) {
            let plain = tokens.join(" ");
            let spaced: String = tokens.iter().zip(&gaps).flat_map(|(token, gap)| [*token, *gap]).collect();
            prop_assert_eq!(checksum(&plain), checksum(&spaced));
        }

        #[test]
        fn a_change_inside_of_quotes_changes_the_checksum(a in "[a-z \n/*-]{0,8}", b in "[a-z \n/*-]{0,8}") {
            for (open, close) in [("'", "'"), ("\"", "\""), ("$q$", "$q$"), ("E'", "'")] {
                let sum = |inner: &str| checksum(&format!("select {open}{inner}{close}"));
                prop_assert_eq!(sum(&a) == sum(&b), a == b);
            }
        }

        #[test]
        fn any_text_has_a_checksum(text in tricky_text()) {
            prop_assert_eq!(checksum(&text).len(), 67);
        }
    }
}
