//! Names of databases, which say whose they are.
//!
//! `pgt_<seconds>_<key>_<count>_<random>` belongs to the process that drew the key, `pgt_<24 hex digits>` is a
//! template. Lower case, at most 40 bytes, and in no need of quoting.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// What every name begins with.
pub(super) const PREFIX: &str = "pgt_";

/// Digits of a template's hash.
const HASH: usize = 24;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Makes a name that nobody else has, of the process with that key.
pub(super) fn unique(key: u32) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{seconds}_{key:08x}_{number}_{:04x}", rand::random::<u16>())
}

/// The key in a name, also in one that goes on behind it; none for names that are not ours.
pub(super) fn key(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.split('_');
    parts.next()?.parse::<u64>().ok()?;
    let key = parts.next().filter(|key| key.len() == 8)?;
    u32::from_str_radix(key, 16).ok()
}

/// The name of the template with that hash.
pub(super) fn of_template(hash: &str) -> String {
    assert!(is_hash(hash), "`{hash}` are not {HASH} lower-case hex digits");
    format!("{PREFIX}{hash}")
}

/// Whether the name is that of a template.
pub(super) fn is_template(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(is_hash)
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_short_and_tell_their_origin() {
        let (first, second) = (unique(7), unique(u32::MAX));
        assert_ne!(first, unique(7));
        assert!(second.len() <= 40, "{second}");
        assert_eq!((key(&first), key(&second)), (Some(7), Some(u32::MAX)));
        assert_eq!(key(&format!("{first}_tenant_a")), Some(7));
        for other in ["template1", "pgt_shirts", "pgt_1_2_3_4", "pgt_x_00000007_0_abcd"] {
            assert_eq!(key(other), None, "{other}");
        }
    }

    #[test]
    fn templates_are_told_from_databases() {
        let template = of_template("0123456789abcdef01234567");
        assert!(is_template(&template) && key(&template).is_none());
        assert!(!is_template(&unique(7)));
        assert!(!is_template("pgt_0123456789ABCDEF01234567"));
    }
}
