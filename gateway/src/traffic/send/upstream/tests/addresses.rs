//! A name with several addresses: is each tried, and does one that is dead cost the others their time?

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::ends::{far_end, free_port, settings};
use crate::clock::Clock;
use crate::traffic::accept::Protocol;
use crate::traffic::send::Link;
use crate::traffic::send::dial::{Caller, Dialed};
use crate::traffic::send::no_connection::DialError;

/// CONNACK of MQTT 5 (3.2) with this reason and no properties.
const fn connack(reason: u8) -> [u8; 5] {
    [0x20, 3, 0, reason, 0]
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn call(addresses: &[SocketAddr], patience: Duration) -> Result<Dialed, DialError> {
    let clock = Clock::start();
    let settings = settings(0, Protocol::V5);
    let caller = Caller::prepare(&settings, Link::Bulk, clock).await.unwrap();
    let deadline = clock.now().after(patience);
    caller.call_each(addresses.to_vec(), deadline).await
}

#[tokio::test]
async fn is_the_next_address_tried_when_one_is_closed_or_silent() {
    let far = at(far_end(|_, _, mut stream| {
        stream.write_all(&connack(0)).unwrap();
    }));
    let closed = at(free_port());
    // It listens, and nobody takes the connection.
    let silent = TcpListener::bind(at(0)).unwrap();
    let silent = silent.local_addr().unwrap();
    for addresses in [
        &[far, closed][..],
        &[closed, far],
        &[silent, far],
        &[closed, silent, far],
    ] {
        let start = Instant::now();
        let dialed = call(addresses, Duration::from_secs(15)).await;
        let dialed = dialed.unwrap_or_else(|error| panic!("{addresses:?}: {error}"));
        assert_eq!(dialed.address, far);
        assert!(start.elapsed() < Duration::from_secs(15));
    }
    let error = call(&[closed, closed], Duration::from_secs(15)).await;
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(&closed.to_string()), "{error}");
}

#[tokio::test]
async fn does_a_refusal_end_the_search() {
    let refusing = at(far_end(|_, _, mut stream| {
        stream.write_all(&connack(0x87)).unwrap();
    }));
    let other = at(far_end(|_, _, _| {
        panic!("asked, though the cloud has answered")
    }));
    let refused = call(&[refusing, other], Duration::from_secs(3)).await;
    assert!(matches!(refused, Err(DialError::Refused(0x87, _))));
}
