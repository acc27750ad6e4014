//! Who publishes beside the fleet of a case: a client gone mad, or a camera among the sensors. Each is a fleet of
//! one device. In comes the case's order, out comes an account.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use firmware_sim::run::{Ended, Order};
use firmware_sim::scenario::Scenario;
use firmware_sim::watch::FarEnd;

use crate::run::play;

/// What the flood publishes on.
pub(crate) const FLOOD_TOPICS: &str = "flood/#";
/// How many topics it goes round.
const FLOOD_TOPIC_COUNT: u32 = 8;
/// Bytes of a payload of the flood.
const FLOOD_BYTES: usize = 100;
/// Bytes of an image. 256 kbit/s take 33 s for one.
const IMAGE_BYTES: usize = 1 << 20;
const IMAGE_EVERY: Duration = Duration::from_secs(60);
/// A device with nothing to report says so once, at its start.
const NO_REPORTS: &str = "report_seconds = 86400";

/// A device that plays beside the fleet.
pub(crate) struct Beside(JoinHandle<io::Result<Ended>>);

impl Beside {
    /// A client that publishes with QoS 0 as fast as TCP takes it, for so long. Nobody waits for what it sent.
    pub(crate) fn flood(like: &Order, load: Duration) -> io::Result<Self> {
        let text = format!(
            "[fleet]\ntopic = \"flood\"\nchannels = 1\ntopics_per_channel = {FLOOD_TOPIC_COUNT}\n\
             payload = \"compact\"\npayload_bytes_min = {FLOOD_BYTES}\n{NO_REPORTS}\n\
             [[phase]]\nkind = \"flat-out\"\nseconds = {}\n",
            load.as_secs_f64()
        );
        Self::start(like, &text, FarEnd::default())
    }

    /// A camera that publishes an image a tenth into the load, and each minute after that. `far_end` is
    /// told what arrives.
    pub(crate) fn camera(like: &Order, load: Duration, far_end: FarEnd) -> io::Result<Self> {
        let mut text = format!(
            "[fleet]\ntopic = \"large\"\nchannels = 1\nreadings_qos = 1\npayload = \"compact\"\n\
             payload_bytes_min = {IMAGE_BYTES}\n{NO_REPORTS}\nreadings_per_second = 0.0001\n\
             alarms_per_minute = 0\n[[phase]]\nkind = \"steady\"\nseconds = {}\n",
            load.as_secs_f64() / 10.0
        );
        let mut due = load / 10;
        while due < load {
            let seconds = IMAGE_EVERY.min(load - due).as_secs_f64();
            text += &format!("[[phase]]\nkind = \"flat-out\"\nseconds = {seconds}\nreadings = 1\n");
            due += IMAGE_EVERY;
        }
        Self::start(like, &text, far_end)
    }

    fn start(like: &Order, text: &str, far_end: FarEnd) -> io::Result<Self> {
        let scenario =
            Scenario::read(text).map_err(|faults| io::Error::other(faults.to_string()))?;
        let order = Order {
            devices: 1,
            first_device: like.first_device + like.devices,
            scenario,
            ..like.clone()
        };
        std::thread::Builder::new()
            .name("beside".to_owned())
            .spawn(move || play(&order, &far_end))
            .map(Self)
    }

    /// Waits until it is done.
    pub(crate) fn finish(self) -> io::Result<Ended> {
        let played = self.0.join();
        played.map_err(|_| io::Error::other("a device beside the fleet panicked"))?
    }
}
