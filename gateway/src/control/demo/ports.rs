//! Ports of this machine that nobody has. A door.

#![allow(
    clippy::disallowed_methods,
    reason = "whether a port is free is known when it was bound"
)]

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below 32768, where Linux begins to give ports to outgoing connections: a device that tries to
/// reach a gateway which is being restarted must not be given the gateway's own port.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

/// Every port that was tried is taken.
#[derive(Debug)]
pub struct NoPorts;

impl fmt::Display for NoPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no two ports of 127.0.0.1 between {FIRST} and {LAST} can be had; stop what listens there, \
             or allow this user to listen"
        )
    }
}

/// Two free ports of 127.0.0.1. `first` says where to begin to look, so that two demos at once look
/// in different places.
///
/// # Errors
/// There are none.
pub fn two_free(first: u32) -> Result<[SocketAddr; 2], NoPorts> {
    let count = LAST - FIRST + 1;
    let first = u16::try_from(first % u32::from(count)).unwrap_or_default();
    let ports = (0..count).map(|n| FIRST + (first + n) % count);
    let mut free = ports.filter_map(bound);
    // Both are held until both are found.
    let (one, other) = (free.next().ok_or(NoPorts)?, free.next().ok_or(NoPorts)?);
    Ok([one.1, other.1])
}

fn bound(port: u16) -> Option<(TcpListener, SocketAddr)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address).ok()?;
    Some((listener, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_port_that_somebody_has_passed_over() {
        let [one, other] = two_free(5).unwrap();
        assert_ne!(one, other);
        let _taken = TcpListener::bind(one).unwrap();
        let [next, _] = two_free(5).unwrap();
        assert_ne!(next, one);
        assert!(two_free(u32::MAX).is_ok());
    }
}
