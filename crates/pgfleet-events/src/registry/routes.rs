//! From names to stores.

use std::cmp::Reverse;
use std::sync::Arc;

use super::Routing;
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Routes {
    default: usize,
    /// The longest first, and of one length names before beginnings: the first that fits counts.
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    text: Arc<str>,
    /// Whether it is a whole name.
    is_name: bool,
    store: usize,
}

impl Pattern {
    fn fits(&self, name: &str) -> bool {
        if self.is_name { *self.text == *name } else { name.starts_with(&*self.text) }
    }
}

impl Routes {
    pub(super) fn new(routing: &Routing, find: impl Fn(&str) -> Option<usize>) -> Result<Self, Error> {
        let store = |name: &str| {
            find(name).ok_or_else(|| {
                Error::invalid(format!("streams or queues are to be in store {name}, which is not there"))
                    .with_hint("name one of the stores that were given")
            })
        };
        let mut patterns = Vec::new();
        for (pattern, name) in &routing.routes {
            let (text, is_name) = match pattern.strip_suffix('*') {
                Some(beginning) => (beginning, false),
                None => (pattern.as_str(), true),
            };
            if pattern.is_empty() || text.contains('*') {
                return Err(Error::invalid(format!("{pattern:?} is no pattern of names"))
                    .with_hint("a pattern is a name, or the beginning of names with a * behind it"));
            }
            patterns.push(Pattern { text: text.into(), is_name, store: store(name)? });
        }
        patterns.sort_by_key(|pattern| Reverse((pattern.text.len(), pattern.is_name)));
        Ok(Self { default: store(&routing.default)?, patterns })
    }

    /// The store of a name.
    pub(super) fn of(&self, name: &str) -> usize {
        self.patterns.iter().find(|pattern| pattern.fits(name)).map_or(self.default, |pattern| pattern.store)
    }

    /// The stores of all names that begin so, each once, in order.
    pub(super) fn reachable(&self, prefix: &str) -> Vec<usize> {
        // What most such names are in, and what more particular patterns say.
        let most = self.patterns.iter().find(|pattern| !pattern.is_name && prefix.starts_with(&*pattern.text));
        let mut stores = vec![most.map_or(self.default, |pattern| pattern.store)];
        let particular = self.patterns.iter().filter(|pattern| pattern.text.starts_with(prefix));
        // The pattern of just that beginning is the one that most are in.
        stores.extend(particular.filter(|pattern| pattern.is_name || *pattern.text != *prefix).map(|p| p.store));
        stores.sort_unstable();
        stores.dedup();
        stores
    }

    /// The stores of all names that fit a pattern of the same kind.
    pub(super) fn of_pattern(&self, pattern: &str) -> Vec<usize> {
        pattern.strip_suffix('*').map_or_else(|| vec![self.of(pattern)], |prefix| self.reachable(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let routing =
            Routing::new("0").route("a*", "1").route("ab*", "2").route("ab", "3").route("abc", "0").route("z", "1");
        Routes::new(&routing, |name| name.parse().ok()).unwrap()
    }

    #[test]
    fn the_longest_pattern_counts_and_a_name_before_a_beginning() {
        let routes = routes();
        for (name, store) in [
            ("", 0),
            ("b", 0),
            ("a", 1),
            ("ax", 1),
            ("ab", 3),
            ("abx", 2),
            ("abc", 0),
            ("abcd", 2),
            ("z", 1),
            ("zz", 0),
        ] {
            assert_eq!(routes.of(name), store, "{name}");
        }
        let everything = Routes::new(&Routing::new("0").route("*", "1"), |name| name.parse().ok()).unwrap();
        assert_eq!((everything.of("x"), everything.reachable("")), (1, vec![1]));
    }

    #[test]
    fn the_stores_of_a_beginning_are_those_that_some_name_leads_to() {
        let routes = routes();
        for (prefix, stores) in [
            ("", &[0, 1, 2, 3][..]),
            ("a", &[0, 1, 2, 3]),
            ("ax", &[1]),
            ("ab", &[0, 2, 3]),
            ("abc", &[0, 2]),
            ("abcd", &[2]),
            ("b", &[0]),
            ("z", &[0, 1]),
        ] {
            assert_eq!(routes.reachable(prefix), stores, "{prefix}");
        }
        // Each name that begins so is in one of them.
        let names = ["a", "ab", "abc", "abcd", "abx", "ax", "b", "z", "zz"];
        for name in names {
            for end in 0..=name.len() {
                assert!(routes.reachable(&name[..end]).contains(&routes.of(name)), "{name} by {}", &name[..end]);
            }
        }
        assert_eq!((routes.of_pattern("ax*"), routes.of_pattern("ab")), (vec![1], vec![3]));
    }
}
