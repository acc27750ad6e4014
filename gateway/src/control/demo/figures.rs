//! How the story goes at one moment: what is known of fleet, gateway and cloud. Values only.

use std::collections::VecDeque;
use std::time::Duration;

use super::story::ACTS;
use crate::control::admin::Report;

/// Rates are those of the last second.
const RATE_OVER: Duration = Duration::from_secs(1);

/// Everything, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Since the first act began.
    pub since_start: Duration,
    /// How long the acts take altogether.
    pub length: Duration,
    /// The act's index.
    pub act: usize,
    /// The acts are over, or were ended; what is on its way may still arrive.
    pub is_ending: bool,
    /// The fleet.
    pub fleet: FleetFigures,
    /// Messages a second that it sends.
    pub sent_per_second: u64,
    /// The gateway.
    pub gateway: GatewayFigures,
    /// The cloud.
    pub cloud: CloudFigures,
    /// Messages a second that it takes.
    pub taken_per_second: u64,
}

/// The fleet.
#[derive(Clone, Copy, Debug, Default)]
pub struct FleetFigures {
    /// Devices that are connected.
    pub up: u64,
    /// Messages handed to connections, resends too.
    pub sent: u64,
    /// In each act, how late this machine itself was at most: its timers rang so many microseconds
    /// after their time. Nothing in the demo can be quicker than that.
    pub late_micros: [u64; ACTS.len()],
}

/// The gateway.
#[derive(Clone, Debug, Default)]
pub struct GatewayFigures {
    /// Whether its process runs.
    pub runs: bool,
    /// What it said last.
    pub report: Option<Box<Report>>,
}

/// The cloud.
#[derive(Clone, Debug, Default)]
pub struct CloudFigures {
    /// Whether it can be reached.
    pub is_on: bool,
    /// Why it can never be reached again.
    pub fault: Option<String>,
    /// Messages that it took, repeated ones too.
    pub taken: u64,
    /// The alarms of each act, by when they were due; empty before the first.
    pub acts: Vec<ActFigures>,
}

/// The alarms of one act that arrived so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct ActFigures {
    /// How many.
    pub alarms: u64,
    /// The longest time from due to the cloud; 0 without any.
    pub worst_micros: u64,
}

impl Figures {
    /// What arrived of an act's alarms.
    #[must_use]
    pub fn act_figures(&self, act: usize) -> ActFigures {
        self.cloud.acts.get(act).copied().unwrap_or_default()
    }
}

/// Turns a count into a rate.
#[derive(Debug, Default)]
pub struct Meter {
    samples: VecDeque<(Duration, u64)>,
}

impl Meter {
    /// The count at a time; gives what came in the last second.
    pub fn note(&mut self, now: Duration, count: u64) -> u64 {
        self.samples.push_back((now, count));
        let old = now.saturating_sub(RATE_OVER);
        while self.samples.get(1).is_some_and(|(at, _)| *at <= old) {
            self.samples.pop_front();
        }
        let Some((since, before)) = self.samples.front() else {
            return 0;
        };
        let seconds = now.saturating_sub(*since).as_secs_f64().max(0.1);
        (count.saturating_sub(*before) as f64 / seconds).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_rate_that_of_the_last_second() {
        let mut meter = Meter::default();
        let at = |tenths: u64| Duration::from_millis(tenths * 100);
        let rates: Vec<_> = (0..30).map(|n| meter.note(at(n), n.min(20) * 50)).collect();
        assert_eq!((rates[10], rates[20]), (500, 500));
        assert_eq!(rates[25], 250, "half of the last second was silent");
        assert!(meter.samples.len() < 13, "bounded");
    }
}
