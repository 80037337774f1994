//! Choosing a TCP port that nobody listens on.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::error::{Kind, Result};
use crate::state::Fingerprint;

const FIRST: u16 = 54_300;
const COUNT: u16 = 4_000;

/// How many ports are probed before giving up.
const PROBES: u16 = 500;

/// Where a solution begins to look, so that two of them rarely meet.
pub(crate) fn base(fingerprint: Fingerprint) -> u16 {
    FIRST + fingerprint.number() % COUNT
}

/// The first free port from `from` up.
///
/// Nothing reserves it until the server binds it; whoever loses that race asks again for the next.
pub(crate) fn free_from(from: u16) -> Result<u16> {
    let first = from.max(1024);
    (0..PROBES)
        .filter_map(|step| first.checked_add(step))
        .find(|port| is_free(*port))
        .ok_or_else(|| Kind::NoPort { first, tried: PROBES }.into())
}

/// True when the port can be bound and nothing answers on it.
///
/// Both are asked because some systems let a specific address be bound beside a wildcard listener,
/// and clients would then reach one of the two.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && !answers(port)
}

/// True when something accepts connections on that port.
pub(crate) fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_passed_over() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert!(!is_free(taken));
        assert!(answers(taken));
        if let Ok(port) = free_from(taken) {
            assert_ne!(port, taken);
        }
    }
}
