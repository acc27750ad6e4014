//! The demo's fleet: the devices of firmware-sim in a thread of their own. In comes a scenario and the
//! gateway's address, out come counts and at the end every device's ledger. A door.

#![allow(
    clippy::disallowed_methods,
    reason = "a thread of its own, so that a busy screen does not make devices late"
)]

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use firmware_sim::clock::Clock;
use firmware_sim::fleet;
use firmware_sim::fleet::stage::{DrainMax, Stage, Tally};
use firmware_sim::ledger::DeviceLedger;
use firmware_sim::scenario::Scenario;
use firmware_sim::wire::Protocol;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};

use super::figures::FleetFigures;
use super::story::{ACTS, DEVICES};

/// The number of each device's first start. There is one run in this process, so any will do.
pub const FIRST_BOOT: u32 = 1;
/// How often counts are told, and a timer is asked how late it is: a busy machine is late all the time.
const TELL_EVERY: Duration = Duration::from_millis(10);

/// The fleet's thread.
#[derive(Debug)]
pub struct Fleet {
    thread: JoinHandle<io::Result<Vec<DeviceLedger>>>,
    stop: watch::Sender<bool>,
    figures: watch::Receiver<FleetFigures>,
}

impl Fleet {
    /// The fleet plays `scenario` against the gateway at `address`, by `clock`, which has just started.
    ///
    /// # Errors
    /// The system gives no thread or no event loop.
    pub fn start(scenario: Scenario, clock: Clock, address: SocketAddr) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let (tell, figures) = watch::channel(FleetFigures::default());
        let thread = thread::Builder::new().name("demo-fleet".to_owned());
        let thread = thread.spawn(move || {
            let stage = Rc::new(stage(scenario, clock));
            let fleet = fleet::play(&stage, clock, address, DEVICES);
            attend(&runtime, fleet, &stage, clock, stopped, &tell)
        })?;
        Ok(Self {
            thread,
            stop,
            figures,
        })
    }

    /// Ends the story early: nothing more is sampled, and in two seconds at most devices go home.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// How it is.
    #[must_use]
    pub fn figures(&self) -> FleetFigures {
        *self.figures.borrow()
    }

    /// Whether all devices have gone home.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Every device's ledger, and the last figures; `None` when the fleet had a defect, whose panic is
    /// on the terminal, or the system gave it no timer.
    #[must_use]
    pub fn end(self) -> Option<(Vec<DeviceLedger>, FleetFigures)> {
        self.stop();
        let ledgers = self.thread.join().ok()?.ok()?;
        Some((ledgers, *self.figures.borrow()))
    }
}

fn stage(scenario: Scenario, clock: Clock) -> Stage {
    Stage {
        scenario,
        protocol: Protocol::V5,
        seed: 1,
        first_device: 0,
        drain_max: DrainMax::default(),
        first_boot: FIRST_BOOT,
        wall_millis: clock.start_wall_millis(),
        stopped: Cell::new(None),
        tally: Tally::default(),
    }
}

fn attend(
    runtime: &Runtime,
    fleet: impl Future<Output = io::Result<Vec<DeviceLedger>>>,
    stage: &Stage,
    clock: Clock,
    mut stopped: watch::Receiver<bool>,
    tell: &watch::Sender<FleetFigures>,
) -> io::Result<Vec<DeviceLedger>> {
    LocalSet::new().block_on(runtime, async {
        let mut fleet = std::pin::pin!(fleet);
        let mut late_micros = [0; ACTS.len()];
        let mut looks = interval(TELL_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                ledgers = &mut fleet => return ledgers,
                _ = stopped.wait_for(|stop| *stop), if stage.stopped.get().is_none() => {
                    stage.stopped.set(Some(clock.now()));
                }
                due = looks.tick() => {
                    let (act, ..) = stage.scenario.at(clock.now());
                    if let Some(late) = late_micros.get_mut(act) {
                        let micros = due.elapsed().as_micros();
                        *late = u64::try_from(micros).unwrap_or(u64::MAX).max(*late);
                    }
                    let figures = FleetFigures {
                        up: stage.tally.up.get(),
                        sent: stage.tally.sent.get(),
                        late_micros,
                    };
                    tell.send_replace(figures);
                }
            }
        }
    })
}
