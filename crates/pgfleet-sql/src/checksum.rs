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
