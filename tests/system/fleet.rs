//! A fleet of firmware-sim beside a test: real firmware that never gives up, and an account of every message
//! at the end. What a far end sees has to be told to [`FarEnd`].

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use firmware_sim::run::{Order, OwnFarEnd, Played, play_to};
use firmware_sim::scenario::Scenario;
use firmware_sim::watch::FarEnd;
use firmware_sim::wire::Protocol;
use tokio::sync::oneshot;

use crate::wait::wait_until;

/// A fleet that plays.
pub(crate) struct Fleet {
    devices: u32,
    /// How many are connected, as of the last second.
    up: Arc<Mutex<u64>>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<Played, String>>,
}

impl Fleet {
    /// Lets devices play a scenario against the gateway at this port, which has to be there.
    #[track_caller]
    pub(crate) fn start(port: u16, devices: u32, scenario: &str, far_end: FarEnd) -> Self {
        let order = Order {
            devices,
            scenario: Scenario::read(scenario).unwrap_or_else(|faults| panic!("{faults}")),
            protocol: Protocol::V5,
            connect: format!("127.0.0.1:{port}").parse().unwrap(),
            watch: None,
            seed: 1,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let up = Arc::new(Mutex::new(0));
        let shared = Arc::clone(&up);
        let thread = thread::spawn(move || {
            let own = OwnFarEnd {
                far_end,
                settle_max: Duration::MAX,
                quiet_max: crate::spool_site::HOME,
            };
            let stopped = async { drop(stopped.await) };
            play_to(&order, &own, stopped, |progress| {
                *shared.lock().unwrap() = progress.up;
            })
            .map_err(|error| error.to_string())
        });
        Self {
            devices,
            up,
            stop,
            thread,
        }
    }

    /// Ends it once all devices are connected, waits until all it sent arrived or nothing more does, and
    /// gives the account.
    #[track_caller]
    pub(crate) fn finish(self, connected_max: Duration) -> Played {
        wait_until("the whole fleet is connected", connected_max, || {
            assert!(!self.thread.is_finished(), "the fleet ended by itself");
            *self.up.lock().unwrap() == u64::from(self.devices)
        });
        let _ = self.stop.send(());
        let played = self.thread.join().expect("the fleet broke");
        played.unwrap_or_else(|error| panic!("{error}"))
    }
}
