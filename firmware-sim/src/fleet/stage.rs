//! What all devices of a run share: what is played, when it ends, and running counts for whoever
//! watches. One thread; nobody waits for anybody here.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tidegate_device::Tick;

use super::pace::Pace;
use crate::names;
use crate::scenario::{Act, Scenario};
use crate::wire::Protocol;

/// The stage of a run.
#[derive(Debug)]
pub struct Stage {
    /// What is played.
    pub scenario: Scenario,
    /// What the devices speak.
    pub protocol: Protocol,
    /// All chance comes from here.
    pub seed: u64,
    /// The number of the first device.
    pub first_device: u32,
    /// How long devices go on after the end.
    pub drain_max: DrainMax,
    /// The number of each device's first start. Later ones count on from it; messages of another run
    /// are told by it.
    pub first_boot: u32,
    /// The true wall clock at tick 0, in milliseconds since 1970.
    pub wall_millis: i64,
    /// When the run was stopped before its end.
    pub stopped: Cell<Option<Tick>>,
    /// Running counts.
    pub tally: Tally,
}

/// How long after a scenario's end devices may go on to deliver what waits.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How long after the end devices may go on to deliver what waits.
#[derive(Clone, Copy, Debug)]
pub struct DrainMax {
    /// After the scenario's end.
    pub ended: Duration,
    /// After a stop.
    pub stopped: Duration,
}

impl Default for DrainMax {
    fn default() -> Self {
        Self {
            ended: DRAIN_MAX,
            // Somebody sits and waits for the account.
            stopped: Duration::from_secs(2),
        }
    }
}

/// Counts of the whole fleet, since its start.
#[derive(Debug, Default)]
pub struct Tally {
    /// Messages handed to connections, resends too.
    pub sent: Cell<u64>,
    /// Of these, the ones that asked for an acknowledgement and went for the first time.
    pub asked: Cell<u64>,
    /// Answered messages.
    pub answered: Cell<u64>,
    /// Resends.
    pub resent: Cell<u64>,
    /// Connections that stand now.
    pub up: Cell<u64>,
    /// Connections that a server refused in its CONNACK.
    pub refused: Cell<u64>,
    /// Connections that ended, or never came, without the scenario's doing.
    pub broken: Cell<u64>,
    /// How late samples were taken, and how long answers took.
    pub pace: RefCell<Pace>,
}

impl Stage {
    /// No sample is due after this.
    #[must_use]
    pub fn end(&self) -> Tick {
        let stopped = self.stopped.get().unwrap_or(Tick::NEVER);
        self.scenario.end().min(stopped)
    }

    /// The name of the fleet's device `index`, which is its client id too.
    #[must_use]
    pub fn device(&self, index: u32) -> String {
        names::device(self.first_device.saturating_add(index))
    }

    /// When the fleet's device `index` is switched on: the fleet comes up in a ramp, unless the story
    /// begins with all at once.
    #[must_use]
    pub fn start_of(&self, index: u32) -> Tick {
        match self.scenario.phases().next().map(|phase| phase.act) {
            Some(Act::AllAtOnce { .. }) => Tick::ZERO,
            _ => {
                let seconds = f64::from(index) / self.scenario.fleet.connect_per_second;
                Tick::from_micros((seconds * 1e6) as u64)
            }
        }
    }
}

/// One more.
pub fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// One less.
pub fn uncount(cell: &Cell<u64>) {
    cell.set(cell.get().saturating_sub(1));
}
