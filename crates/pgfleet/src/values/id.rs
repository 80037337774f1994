//! Ids that know what they are the id of.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::error::ValueError;
use super::text;

/// How many digits stand behind the prefix.
const DIGITS: usize = 32;

/// What the standard column `id varchar(50)` leaves for a prefix.
const LONGEST_PREFIX: usize = 50 - DIGITS;

/// Something with prefixed ids; usually a type without content.
///
/// ```
/// use pgfleet::values::Entity;
///
/// struct Driver;
///
/// impl Entity for Driver {
///     const PREFIX: &'static str = "d_";
/// }
/// ```
pub trait Entity {
    /// What its ids begin with, the separator included: 1 to 18 characters of `a` to `z`, `0` to `9` and `_`. Another
    /// one does not compile where an id is made or read.
    const PREFIX: &'static str;
}

/// Makes the prefix's rules a matter of the compiler.
const fn check(prefix: &str) {
    let bytes = prefix.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= LONGEST_PREFIX, "a prefix has 1 to 18 characters");
    let mut at = 0;
    while at < bytes.len() {
        assert!(matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'_'), "a prefix is made of a to z, 0 to 9 and _");
        at += 1;
    }
}

macro_rules! id {
    ($name:ident $(<$bound:ident>)?, $($doc:literal)*) => {
        $(#[doc = $doc])*
        pub struct $name<E> {
            uuid: Uuid,
            entity: PhantomData<fn() -> E>,
        }

        impl<E $(: $bound)?> $name<E> {
            /// Makes a new one: a UUID of version 7, greater than those that this process made before.
            #[must_use]
            pub fn generate() -> Self {
                Self::from_uuid(Uuid::now_v7())
            }

            /// The id with that UUID, of whatever version.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self { uuid, entity: PhantomData }
            }

            /// Returns the UUID.
            pub const fn uuid(self) -> Uuid {
                self.uuid
            }
        }

        // By hand, since derived ones would ask the same of the entity, which is no value.
        impl<E> Clone for $name<E> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<E> Copy for $name<E> {}

        impl<E> PartialEq for $name<E> {
            fn eq(&self, other: &Self) -> bool {
                self.uuid == other.uuid
            }
        }

        impl<E> Eq for $name<E> {}

        impl<E> PartialOrd for $name<E> {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl<E> Ord for $name<E> {
            fn cmp(&self, other: &Self) -> Ordering {
                self.uuid.cmp(&other.uuid)
            }
        }

        impl<E> Hash for $name<E> {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.uuid.hash(state);
            }
        }

        impl<E $(: $bound)?> fmt::Debug for $name<E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl<E $(: $bound)?> Serialize for $name<E> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

id! { Id<Entity>,
    "The id of an `E` as a text with a prefix: `d_` and the 32 hexadecimal digits of a UUID."
    ""
    "For columns like `id varchar(50)`. Ids of one entity are no ids of another:"
    ""
    "```"
    "use pgfleet::values::{Entity, Id};"
    ""
    "struct Driver;"
    "impl Entity for Driver {"
    "    const PREFIX: &'static str = \"d_\";"
    "}"
    ""
    "let id: Id<Driver> = Id::generate();"
    "assert!(id.to_string().starts_with(\"d_\"));"
    "assert_eq!(id.to_string().parse(), Ok(id));"
    "let error = \"t_0193\".parse::<Id<Driver>>().unwrap_err();"
    "assert_eq!(error.to_string(), \"\\\"t_0193\\\" is not the id of a Driver: d_ and 32 digits of 0 to 9 and a to f\");"
    "```"
    ""
    "```compile_fail,E0308"
    "# use pgfleet::values::{Entity, Id};"
    "# struct Driver;"
    "# impl Entity for Driver { const PREFIX: &'static str = \"d_\"; }"
    "# struct Trip;"
    "# impl Entity for Trip { const PREFIX: &'static str = \"t_\"; }"
    "fn cancel(trip: Id<Trip>) {}"
    ""
    "let driver: Id<Driver> = Id::generate();"
    "cancel(driver); // does not compile"
    "```"
    ""
    "The digits are lower-case. Upper-case ones are refused, because the database would take them for another id. Order"
    "is that of the text in a column with collation `C`, and of the time when they were made."
}

id! { Uid,
    "The id of an `E` as a UUID, for columns of type `uuid`."
    ""
    "`E` is any type; it says what the id is of."
    ""
    "```"
    "use pgfleet::values::Uid;"
    ""
    "struct Quest;"
    ""
    "let id: Uid<Quest> = Uid::generate();"
    "assert_eq!(id.to_string().len(), 36);"
    "assert_eq!(id.to_string().parse(), Ok(id));"
    "```"
    ""
    "```compile_fail,E0308"
    "# use pgfleet::values::Uid;"
    "# struct Quest;"
    "# struct Player;"
    "fn finish(quest: Uid<Quest>) {}"
    ""
    "let player: Uid<Player> = Uid::generate();"
    "finish(player); // does not compile"
    "```"
}

impl<E: Entity> fmt::Display for Id<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const { check(E::PREFIX) }
        write!(f, "{}{}", E::PREFIX, self.uuid.as_simple())
    }
}

impl<E> fmt::Display for Uid<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.uuid.as_hyphenated(), f)
    }
}

impl<E: Entity> FromStr for Id<E> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const { check(E::PREFIX) }
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        text.strip_prefix(E::PREFIX)
            .filter(|digits| digits.len() == DIGITS && digits.bytes().all(is_digit))
            .and_then(|digits| Uuid::try_parse(digits).ok())
            .map(Self::from_uuid)
            .ok_or_else(|| {
                let expected =
                    format!("the id of a {}: {} and {DIGITS} digits of 0 to 9 and a to f", name::<E>(), E::PREFIX);
                ValueError::text(text, expected)
            })
    }
}

impl<E> FromStr for Uid<E> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Uuid::try_parse(text)
            .map(Self::from_uuid)
            .map_err(|_| ValueError::text(text, format!("the id of a {}: a UUID", name::<E>())))
    }
}

impl<'de, E: Entity> Deserialize<'de> for Id<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer, "an id as a text")
    }
}

impl<'de, E> Deserialize<'de> for Uid<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer, "a UUID as a text")
    }
}

/// The same id for a column of the other kind.
impl<E: Entity> From<Uid<E>> for Id<E> {
    fn from(id: Uid<E>) -> Self {
        Self::from_uuid(id.uuid)
    }
}

/// The same id for a column of the other kind.
impl<E: Entity> From<Id<E>> for Uid<E> {
    fn from(id: Id<E>) -> Self {
        Self::from_uuid(id.uuid)
    }
}

/// The entity's name without the modules it is in.
fn name<E>() -> &'static str {
    let path = std::any::type_name::<E>();
    let end = path.find('<').unwrap_or(path.len());
    path[..end].rfind("::").map_or(path, |at| &path[at + 2..])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    struct Driver;

    impl Entity for Driver {
        const PREFIX: &'static str = "d_";
    }

    #[test]
    fn ids_are_ordered_by_when_they_were_made_also_as_texts() {
        let ids: Vec<Id<Driver>> = (0..1000).map(|_| Id::generate()).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().map(ToString::to_string).is_sorted());
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 1000);
        assert_eq!(ids[0].uuid().get_version_num(), 7);
    }

    #[test]
    fn an_id_has_one_spelling() {
        let good = "d_0193abcdef0123456789abcdef012345";
        assert_eq!(good.parse::<Id<Driver>>().unwrap().to_string(), good);
        for bad in [
            "",
            "d_",
            "d_0193ABCDEF0123456789abcdef012345",
            "t_0193abcdef0123456789abcdef012345",
            "D_0193abcdef0123456789abcdef012345",
            "0193abcdef0123456789abcdef012345",
            "d_0193abcdef0123456789abcdef01234",
            "d_0193abcdef0123456789abcdef0123456",
            "d_0193abcd-ef01-2345-6789-abcdef012345",
            "d_+193abcdef0123456789abcdef012345",
            " d_0193abcdef0123456789abcdef012345",
            "d_0193abcdef0123456789abcdef01234é",
        ] {
            let error = bad.parse::<Id<Driver>>().unwrap_err().to_string();
            assert!(error.contains("is not the id of a Driver: d_ and 32 digits"), "{error}");
        }
        let long = "x".repeat(10_000).parse::<Id<Driver>>().unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn ids_are_texts_in_json() {
        let id: Id<Driver> = Id::generate();
        let uid = Uid::from(id);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<Id<Driver>>(&format!("\"{id}\"")).unwrap(), id);
        assert_eq!(serde_json::from_str::<Uid<Driver>>(&serde_json::to_string(&uid).unwrap()).unwrap(), uid);
        assert_eq!(Id::from(uid), id);
        let error = serde_json::from_str::<Id<Driver>>("7").unwrap_err().to_string();
        assert!(error.contains("invalid type: integer `7`, expected an id as a text"), "{error}");
        let error = serde_json::from_str::<Uid<Driver>>("\"d_7\"").unwrap_err().to_string();
        assert!(error.contains("\"d_7\" is not the id of a Driver: a UUID"), "{error}");
    }
}
