//! A run whose far end is the caller's own. In come what arrives there and, when the devices are done, their
//! ledgers; out comes the account, when the caller asks for it.
#![allow(
    clippy::disallowed_methods,
    reason = "waits for what is on its way, outside of any event loop"
)]

use std::time::{Duration, Instant};

use tidegate_device::Kind;

use super::LOOK_EVERY;
use crate::account::{Account, Run};
use crate::fleet::pace::Pace;
use crate::fleet::stage::DRAIN_MAX;
use crate::ledger::DeviceLedger;
use crate::watch::FarEnd;
use crate::watch::arrivals::Arrivals;

/// A far end of the caller's own.
#[derive(Clone, Debug)]
pub struct OwnFarEnd {
    /// Is told what arrives.
    pub far_end: FarEnd,
    /// How long devices go on after the end, or after a stop, to deliver what waits.
    pub drain_max: Duration,
}

impl From<FarEnd> for OwnFarEnd {
    /// Devices deliver as long as those of the command line do.
    fn from(far_end: FarEnd) -> Self {
        Self {
            far_end,
            drain_max: DRAIN_MAX,
        }
    }
}

/// A run whose devices are done; what they sent may still be on its way to the caller's far end.
#[derive(Debug)]
pub struct Ended {
    pub(super) run: Run,
    pub(super) ledgers: Vec<DeviceLedger>,
    pub(super) phases: Vec<&'static str>,
    pub(super) pace: Pace,
    pub(super) far_end: FarEnd,
}

impl Ended {
    /// Waits until all that was sent has arrived, until nothing arrived for `quiet_max` (longer than one large
    /// message keeps the link), or for `settle_max`; what comes later has not arrived.
    #[must_use]
    pub fn settle(self, settle_max: Duration, quiet_max: Duration) -> Played {
        let sent = sent(&self.ledgers);
        let begun = Instant::now();
        let mut seen = (self.far_end.arrived(), begun);
        while seen.0 < sent && seen.1.elapsed() < quiet_max && begun.elapsed() < settle_max {
            std::thread::sleep(LOOK_EVERY);
            let arrived = self.far_end.arrived();
            if arrived > seen.0 {
                seen = (arrived, Instant::now());
            }
        }
        let account = |arrivals: Option<&Arrivals>| {
            Account::new(self.run, &self.ledgers, arrivals, &self.phases)
        };
        Played {
            account: self.far_end.with(account),
            pace: self.pace,
        }
    }

    /// Messages that were sent with a wish for an answer that never came.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        let ledgers = self.ledgers.iter();
        ledgers
            .flat_map(|ledger| Kind::ALL.map(|kind| *ledger.unanswered.of(kind)))
            .sum()
    }
}

/// How many different messages were sent.
pub(super) fn sent(ledgers: &[DeviceLedger]) -> u64 {
    let starts = ledgers.iter().flat_map(|ledger| &ledger.starts);
    let streams = starts.flat_map(|start| &start.streams);
    streams.map(|stream| stream.sent.count()).sum()
}

/// What a run came to.
#[derive(Debug)]
pub struct Played {
    /// Every message.
    pub account: Account,
    /// Whether the fleet kept its time.
    pub pace: Pace,
}
