//! How a run goes, as one line for each second. In come running counts, out comes text.

use std::fmt;
use std::time::Duration;

use crate::account::table::grouped;

/// A run at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since the start.
    pub since_start: Duration,
    /// The kind of the phase that is played.
    pub phase: &'static str,
    /// The fleet.
    pub devices: u32,
    /// Connections that stand.
    pub up: u64,
    /// Messages handed to connections so far.
    pub sent: u64,
    /// Resends among them.
    pub resent: u64,
    /// Answered messages.
    pub answered: u64,
    /// Messages that wait for their answer.
    pub unanswered: u64,
    /// Different messages at the far end so far, when it is watched.
    pub arrived: Option<u64>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5} s  {:<20} {:>6} of {} up  sent {}  resent {}  unanswered {}",
            self.since_start.as_secs(),
            self.phase,
            grouped(self.up),
            grouped(u64::from(self.devices)),
            grouped(self.sent),
            grouped(self.resent),
            grouped(self.unanswered),
        )?;
        match self.arrived {
            Some(arrived) => write!(f, "  arrived {}", grouped(arrived)),
            None => Ok(()),
        }
    }
}
