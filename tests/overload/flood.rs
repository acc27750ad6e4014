//! The client gone mad: one connection that publishes as fast as it is let, beside the fleet.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::load::{Load, Manner};
use crate::wire::Protocol;
use crate::workload::Workload;

/// What it publishes on.
pub(crate) const TOPICS: &str = "flood/#";
/// More than anybody takes in the time.
const MESSAGES: u64 = 1 << 40;
/// What the gateway's default `receive_max` allows.
const WINDOW: u16 = 256;

/// A flood that goes on.
pub(crate) struct Flood(JoinHandle<io::Result<u64>>);

impl Flood {
    /// Begins one: QoS 0, as fast as TCP takes it, or in a guaranteed class QoS 1, as fast as it is
    /// acknowledged.
    pub(crate) fn start(address: SocketAddr, class: &str, length: Duration) -> io::Result<Self> {
        let manner = Manner {
            protocol: Protocol::V5,
            qos: u8::from(class == "critical"),
            window: WINDOW,
        };
        let load = Load::connect(address, manner, &Arc::new(Workload::flood()))?;
        std::thread::Builder::new()
            .name("flood".to_owned())
            .spawn(move || {
                let sent = load.publish(MESSAGES, Instant::now() + length)?;
                Ok(sent.messages)
            })
            .map(Self)
    }

    /// Waits for its end; how many it sent. A flood that is not answered has sent what nobody knows.
    pub(crate) fn finish(self) -> Option<u64> {
        self.0.join().ok()?.ok()
    }
}
