//! Names that fit: the server cuts identifiers at 63 bytes with a notice, and two names cut at the
//! same place become one.

use sha2::{Digest as _, Sha256};

/// The longest name that the server keeps whole, in bytes.
pub const LONGEST: usize = 63;

/// Returns `base` followed by `suffix`, shortened to 63 bytes when it is longer.
///
/// A shortened name keeps the beginning of the base and gets eight hex digits of the base's
/// SHA-256, so that different bases stay different.
///
/// ```
/// use pgfleet_postgres::name::short_name;
/// assert_eq!(short_name("trip", "_owner"), "trip_owner");
/// let long = short_name(&"x".repeat(80), "_owner");
/// assert_eq!(long.len(), 63);
/// assert!(long.ends_with("_owner"));
/// ```
pub fn short_name(base: &str, suffix: &str) -> String {
    if base.len() + suffix.len() <= LONGEST {
        return format!("{base}{suffix}");
    }
    let digest = Sha256::digest(base.as_bytes());
    let hash = format!("{:08x}", u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
    let mut end = LONGEST - suffix.len() - 1 - hash.len();
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{hash}{suffix}", &base[..end])
}
