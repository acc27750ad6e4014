//! What the fleet does: 20 devices of firmware-sim, flat out or at light load. In come the case's wishes,
//! out come scenarios; 100 bytes of payload in every one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use firmware_sim::names::device;
use firmware_sim::run::Order;
use firmware_sim::scenario::Scenario;
use firmware_sim::wire::Protocol;

/// As many devices as most cases have, each with a connection of its own.
pub(crate) const DEVICES: u32 = 20;
/// Bytes of payload of every message.
pub(crate) const PAYLOAD_BYTES: usize = 100;
/// Readings a second and alarms a minute of one device at light load: 1,000 and 10 a second of all.
const LIGHT_READINGS: u32 = 50;
const LIGHT_ALARMS: u32 = 30;

/// The traffic of one run.
#[derive(Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) protocol: Protocol,
    pub(crate) pace: Pace,
    pub(crate) devices: u32,
    /// Topics of all devices together.
    pub(crate) topics: u32,
    /// Before it is measured.
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// How fast it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// QoS 1 as fast as acknowledged, so many unacknowledged on each connection.
    Acknowledged {
        /// How many.
        window: u8,
    },
    /// QoS 0 as fast as TCP takes it.
    Unacknowledged,
    /// QoS 1, 1,000 readings and 10 alarms a second.
    Light,
}

impl Traffic {
    /// What is played to warm up, and what is measured.
    ///
    /// # Panics
    /// When this file writes no scenario.
    fn scenario(&self, length: Duration) -> Scenario {
        let (qos, window, kind) = match self.pace {
            Pace::Acknowledged { window } => (1, window, "flat-out"),
            Pace::Unacknowledged => (0, 1, "flat-out"),
            Pace::Light => (1, 4, "steady"),
        };
        let text = format!(
            "[fleet]\nchannels = 1\npayload = \"compact\"\npayload_bytes_min = {PAYLOAD_BYTES}\n\
             readings_qos = {qos}\nwindow = {window}\ntopics_per_channel = {topics}\n\
             readings_per_second = {LIGHT_READINGS}\nalarms_per_minute = {LIGHT_ALARMS}\n\
             [[phase]]\nkind = \"{kind}\"\nseconds = {seconds:?}\n",
            topics = self.topics / self.devices,
            seconds = length.as_secs_f64(),
        );
        Scenario::read(&text).expect("the benchmark's own scenario")
    }

    /// The devices against the system at this address, for so long; the same each time.
    pub(crate) fn order(&self, system: SocketAddr, length: Duration) -> io::Result<Order> {
        let connect = system.to_string().parse().map_err(io::Error::other)?;
        Ok(Order {
            protocol: self.protocol,
            ..Order::new(connect, self.devices, self.scenario(length))
        })
    }

    /// Whether an arrival is promised for each message.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.pace != Pace::Unacknowledged
    }
}

/// So many filters: each matches what one device publishes, a single one what all do. Most are of devices
/// that there are not.
pub(crate) fn filters(count: u32) -> Vec<String> {
    match count {
        1 => vec!["plant/+/#".to_owned()],
        _ => (0..count)
            .map(|number| format!("plant/{}/#", device(number)))
            .collect(),
    }
}
