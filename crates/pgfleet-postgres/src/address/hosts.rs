//! The same database and role at other hosts.

use super::{Address, SessionKind};
use crate::Error;
use crate::dial::{Target, To};

impl Address {
    /// Returns the same database and role on whichever of this address' hosts and those of others is the primary: one
    /// of the others may have become it. This address' own hosts are tried first.
    ///
    /// # Errors
    ///
    /// Addresses that do not go together, as a socket's folder with a list of IP addresses.
    pub fn primary_among(&self, others: &[Self]) -> Result<Self, Error> {
        let mut targets: Vec<&Target> = self.targets().iter().collect();
        for target in others.iter().flat_map(Self::targets) {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        self.at(&targets, SessionKind::Primary)
    }

    /// Returns the same database and role at the one of its hosts that bears this label, `host:port`.
    pub(crate) fn only_at(&self, label: &str) -> Result<Self, Error> {
        let targets: Vec<&Target> = self.targets().iter().filter(|target| target.label == label).take(1).collect();
        if targets.is_empty() { Ok(self.clone()) } else { self.at(&targets, SessionKind::Any) }
    }

    fn at(&self, targets: &[&Target], kind: SessionKind) -> Result<Self, Error> {
        let list = |texts: Vec<String>| texts.join(",");
        let mut said = self.said.clone();
        said.set("host", list(targets.iter().map(|target| target.name.clone()).collect()));
        said.set("port", list(targets.iter().map(|target| target.port.to_string()).collect()));
        // Addresses go with the names one by one; where a name is the address, that is enough.
        let addresses: Option<Vec<String>> =
            targets.iter().map(|target| if let To::Ip(ip) = target.to { Some(ip.to_string()) } else { None }).collect();
        said.set("hostaddr", addresses.map(list).unwrap_or_default());
        said.set("target_session_attrs", if kind == SessionKind::Any { "" } else { kind.word() });
        Self::of(said, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_hosts_are_tried_for_the_primary() {
        let main = Address::parse("postgresql://app:secret@a:5433/trip?connect_timeout=3&pool_max=7").unwrap();
        let replica = Address::parse("host=b,a port=5434,5433 user=other dbname=x").unwrap();
        let among = main.primary_among(&[replica]).unwrap();
        assert_eq!(among.servers(), "a:5433, b:5434");
        assert_eq!((among.user(), among.database()), ("app", "trip"));
        assert_eq!(among.session_kind(), SessionKind::Primary);
        assert_eq!(among.pool_settings().max, Some(7));
        let only = among.only_at("b:5434").unwrap();
        assert_eq!(only.to_string(), "postgresql://app@b:5434/trip");
        assert_eq!(only.pool_settings().connect_timeout, Some(std::time::Duration::from_secs(3)));
        assert_eq!(only.session_kind(), SessionKind::Any);
        let mixed = Address::parse("host=/run/pg user=u").unwrap();
        let ip = Address::parse("hostaddr=127.0.0.1 port=6000 user=u").unwrap();
        assert_eq!(mixed.primary_among(&[ip]).unwrap().servers(), "/run/pg:5432, 127.0.0.1:6000");
    }
}
