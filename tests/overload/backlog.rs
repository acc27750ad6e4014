//! An hour without an uplink, in half a minute: a fleet publishes while the sink is closed. Then the
//! sink opens again, and the backlog is waited for.

use std::io;
use std::time::{Duration, Instant};

use firmware_sim::run::Order;
use firmware_sim::scenario::Scenario;
use firmware_sim::watch::FarEnd;

use crate::figures::Drained;
use crate::run::{Book, play};
use crate::sink::Sink;

const SCENARIO: &str = include_str!("../../config/scenarios/backlog.toml");
/// What the scenario makes in a second.
const PER_SECOND: u64 = 2_000;
/// The gateway writes buffered messages within 5 s, and looks for its uplink at least once a minute.
const COMMITTED: Duration = Duration::from_secs(6);
const RECONNECT_MAX: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A backlog that waits, or drains.
pub(crate) struct Backlog {
    far_end: FarEnd,
    spooled: u64,
    since: Instant,
}

impl Backlog {
    /// Makes it and opens the sink again.
    pub(crate) fn make(like: &Order, messages: u64, sink: &Sink<Book>) -> io::Result<Self> {
        let far_end = FarEnd::default();
        let before = sink.connections();
        sink.set_open(false);
        let seconds = messages as f64 / PER_SECOND as f64;
        let scenario =
            Scenario::read(SCENARIO).map_err(|faults| io::Error::other(faults.to_string()))?;
        let order = Order {
            scenario: scenario.scaled_to(Duration::from_secs_f64(seconds)),
            ..like.clone()
        };
        let ended = play(&order, &far_end)?;
        let account = ended.settle(Duration::ZERO, Duration::ZERO).account;
        std::thread::sleep(COMMITTED);
        sink.with_book(|book| book.far_ends.push(far_end.clone()));
        sink.set_open(true);
        let opened = Instant::now();
        // As many as there were: one that comes later would look like one that was made anew.
        while sink.connections() < 2 * before && opened.elapsed() < RECONNECT_MAX {
            std::thread::sleep(LOOK_EVERY);
        }
        if sink.connections() == before {
            return Err(io::Error::other("it did not come back in 90 s"));
        }
        Ok(Self {
            far_end,
            spooled: account.reading.acknowledged + account.report.acknowledged,
            since: opened,
        })
    }

    /// Waits until it is drained, or too long.
    pub(crate) fn wait(self, longest: Duration) -> Drained {
        while self.far_end.arrived() < self.spooled && self.since.elapsed() < longest {
            std::thread::sleep(LOOK_EVERY);
        }
        Drained {
            spooled: self.spooled,
            arrived: self.far_end.arrived().min(self.spooled),
            took: self.since.elapsed(),
        }
    }
}
