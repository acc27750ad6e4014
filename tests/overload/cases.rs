//! What is played, over what, and what the gateway promises in it.

use std::time::Duration;

use firmware_sim::scenario::Scenario;

use crate::figures::Figures;
use crate::options::{CaseName, Options};
use crate::systems::System;

const OVERLOAD: &str = include_str!("../../config/scenarios/overload.toml");
const SLOW_LINK: &str = include_str!("../../config/scenarios/slow-link.toml");
const TRICKLE: &str = include_str!("../../config/scenarios/trickle.toml");
const NEIGHBOURS: &str = include_str!("../../config/scenarios/neighbours.toml");
const ON_AND_OFF: &str = include_str!("../../config/scenarios/on-and-off.toml");
const MANY_TOPICS: &str = include_str!("../../config/scenarios/many-topics.toml");

/// What the uplink takes in a second.
const UPLINK: u32 = 2_000;
/// The same beside a flood: more than the others send (1,055), less than the flood.
const UPLINK_BESIDE_FLOOD: u32 = 5_000;
/// The same in the case of many topics: half of what comes.
const UPLINK_MANY_TOPICS: u32 = 5_000;
/// `memory_max` by default, and what the process itself may take beside it.
const PEAK_MAX_MIB: f64 = 64.0 + 32.0;
/// A 1 MiB reading needs 33 s of a 256 kbit/s link; final values come after it.
const LARGE_SETTLE: Duration = Duration::from_secs(75);
/// Topics of the case `topics`: of ten devices, so many each.
const TOPICS_PER_DEVICE: [u32; 5] = [1, 10, 100, 1_000, 10_000];

/// One case.
pub(crate) struct Case {
    pub(crate) name: CaseName,
    pub(crate) label: String,
    pub(crate) scenario: Scenario,
    pub(crate) devices: u32,
    /// Messages a second that the sink takes; all without it.
    pub(crate) uplink_per_second: Option<u32>,
    /// The link to the sink; the loopback without it.
    pub(crate) link_kbit: Option<u32>,
    /// A reading of 1 MiB now and then.
    pub(crate) large: bool,
    /// A client floods this class.
    pub(crate) flood: Option<&'static str>,
    /// Messages on disk first.
    pub(crate) backlog: Option<u64>,
    /// How long to wait for what is on its way in the end.
    pub(crate) settle_max: Duration,
    pub(crate) targets: Vec<Target>,
}

/// A promise of the gateway: a figure that is to be at most so much.
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) at_most: f64,
    pub(crate) figure: fn(&Figures) -> Option<f64>,
}

impl Case {
    /// Whether the system can be set up for it: two bridges need topics that filters tell apart.
    pub(crate) fn suits(&self, system: System) -> bool {
        system != System::TwoBridges || self.scenario.fleet.topics_per_channel == 1
    }

    /// How many topics readings have.
    pub(crate) fn topics(&self) -> u64 {
        let fleet = &self.scenario.fleet;
        u64::from(self.devices) * u64::from(fleet.channels) * u64::from(fleet.topics_per_channel)
    }

    /// Whether readings may be superseded, so that their last value is promised.
    pub(crate) fn readings_are_latest(&self) -> bool {
        self.backlog.is_none()
    }

    fn of(name: CaseName, label: &str, scenario: &str, devices: u32) -> Self {
        Self {
            name,
            label: label.to_owned(),
            scenario: Scenario::read(scenario).expect("the tests of firmware-sim read it too"),
            devices,
            uplink_per_second: None,
            link_kbit: None,
            large: false,
            flood: None,
            backlog: None,
            settle_max: Duration::from_secs(15),
            targets: vec![ALARMS_LOST],
        }
    }

    fn lasting(mut self, length: Duration) -> Self {
        self.scenario = self.scenario.scaled_to(length);
        self
    }

    /// Targets of this case; that the last values arrive is one wherever readings are `latest`.
    fn promising(mut self, targets: impl IntoIterator<Item = Target>) -> Self {
        if self.readings_are_latest() {
            self.targets.push(FINAL_VALUES);
        }
        self.targets.extend(targets);
        self
    }
}

/// All cases that the options ask for.
pub(crate) fn cases(options: &Options) -> Vec<Case> {
    let mut cases = vec![
        overload(options),
        slow_link(options),
        large_reading(options),
        backlog(options),
        flood(options, CaseName::FloodLow, "low", 10.0),
        flood(options, CaseName::FloodNormal, "normal", 10.0),
        flood(options, CaseName::FloodCritical, "critical", 100.0),
        on_and_off(options),
    ];
    cases.extend(TOPICS_PER_DEVICE.map(|topics| many_topics(options, topics)));
    cases.retain(|case| options.has_case(case.name));
    cases
}

fn overload(options: &Options) -> Case {
    let label = "overload: 20,000 readings/s on 200 topics, 20 alarms/s, an uplink of 2,000/s";
    Case {
        uplink_per_second: Some(UPLINK),
        ..Case::of(CaseName::Overload, label, OVERLOAD, 50)
    }
    .lasting(options.length(30))
    .promising([
        alarm_p99(5.0),
        Target {
            what: "age of a reading that arrives, p50 in ms",
            at_most: 150.0,
            figure: |figures| figures.readings.of_arrived_ms(0.5),
        },
        READINGS_HELD_BACK,
        PEAK,
        Target {
            what: "changes of pressure during the steady load",
            at_most: 0.0,
            figure: |figures| {
                figures
                    .pressure_changes_steady
                    .map(|changes| changes as f64)
            },
        },
        LEDGER,
    ])
}

fn slow_link(options: &Options) -> Case {
    let label = "slow link: 256 kbit/s, 2,000 readings/s, 5 alarms/s";
    Case {
        link_kbit: Some(256),
        ..Case::of(CaseName::SlowLink, label, SLOW_LINK, 50)
    }
    .lasting(options.length(60))
    .promising([alarm_p99(200.0), LINK_UNUSED, PEAK, LEDGER])
}

fn large_reading(options: &Options) -> Case {
    let label = "slow link, and a reading of 1 MiB now and then";
    Case {
        link_kbit: Some(256),
        large: true,
        settle_max: LARGE_SETTLE,
        ..Case::of(CaseName::LargeReading, label, SLOW_LINK, 50)
    }
    .lasting(options.length(90))
    .promising([
        alarm_p99(400.0),
        Target {
            what: "readings of 1 MiB that did not arrive",
            at_most: 0.0,
            figure: |figures| {
                let large = figures.large.as_ref()?;
                Some(large.sent.saturating_sub(large.arrived) as f64)
            },
        },
        PEAK,
        LEDGER,
    ])
}

fn backlog(options: &Options) -> Case {
    let messages = options.backlog();
    let label = format!("link of 50 kbit/s and a backlog of {messages} messages");
    Case {
        link_kbit: Some(50),
        backlog: Some(messages),
        ..Case::of(CaseName::Backlog, &label, TRICKLE, 10)
    }
    .lasting(options.length(300))
    .promising([
        alarm_p99(1_000.0),
        Target {
            what: "connections that ended",
            at_most: 0.0,
            figure: |figures| Some(figures.reconnects as f64),
        },
        Target {
            what: "messages of the backlog that did not arrive in time",
            at_most: 0.0,
            figure: |figures| {
                let backlog = figures.backlog.as_ref()?;
                Some(backlog.spooled.saturating_sub(backlog.arrived) as f64)
            },
        },
        PEAK,
        LEDGER,
    ])
}

fn flood(options: &Options, name: CaseName, class: &'static str, p99_ms: f64) -> Case {
    let label = format!(
        "flood: one client at full speed in `{class}`, 50 others, an uplink of {UPLINK_BESIDE_FLOOD}/s"
    );
    Case {
        uplink_per_second: Some(UPLINK_BESIDE_FLOOD),
        flood: Some(class),
        ..Case::of(name, &label, NEIGHBOURS, 50)
    }
    .lasting(options.length(20))
    .promising([alarm_p99(p99_ms), READINGS_HELD_BACK, PEAK, LEDGER])
}

fn on_and_off(options: &Options) -> Case {
    let label = "pressure on and off every 5 s: 20,000 and 1,000 readings/s, an uplink of 2,000/s";
    let mut case = Case {
        uplink_per_second: Some(UPLINK),
        ..Case::of(CaseName::OnAndOff, label, ON_AND_OFF, 50)
    };
    let length = options.length(600);
    case.scenario = if options.quick {
        case.scenario.scaled_to(length)
    } else {
        case.scenario.repeated_for(length)
    };
    case.promising([
        alarm_p99(5.0),
        LEDGER,
        PEAK,
        Target {
            what: "changes of pressure in each round of on and off",
            at_most: 4.0,
            figure: |figures| Some(figures.pressure_changes? as f64 / figures.rounds),
        },
        Target {
            what: "growth of resident memory from the second quarter to the last, MiB",
            at_most: 4.0,
            figure: |figures| figures.memory_growth_mib,
        },
    ])
}

fn many_topics(options: &Options, topics_per_device: u32) -> Case {
    let label = format!(
        "{} topics, 10,000 readings/s, an uplink of {UPLINK_MANY_TOPICS}/s",
        10 * topics_per_device
    );
    let mut case = Case {
        uplink_per_second: Some(UPLINK_MANY_TOPICS),
        // 100,000 last values need 20 s.
        settle_max: Duration::from_secs(40),
        ..Case::of(CaseName::Topics, &label, MANY_TOPICS, 10)
    };
    case.scenario.fleet.topics_per_channel = topics_per_device;
    case.lasting(options.length(20)).promising([PEAK, LEDGER])
}

const ALARMS_LOST: Target = Target {
    what: "alarms that were due and did not arrive",
    at_most: 0.0,
    figure: |figures| Some(figures.alarms.lost() as f64),
};

const FINAL_VALUES: Target = Target {
    what: "final values missing",
    at_most: 0.0,
    figure: |figures| figures.final_values_missing.map(|missing| missing as f64),
};

const fn alarm_p99(at_most: f64) -> Target {
    Target {
        what: "alarms, p99 in ms from when they were due",
        at_most,
        figure: |figures| figures.alarms.of_due_ms(0.99),
    }
}

const READINGS_HELD_BACK: Target = Target {
    what: "longest time that a device waited for a reading's acknowledgement, ms",
    at_most: 100.0,
    figure: |figures| Some(figures.held_back_ms()),
};

const PEAK: Target = Target {
    what: "peak of resident memory, MiB",
    at_most: PEAK_MAX_MIB,
    figure: |figures| Some(figures.peak_mib),
};

const LEDGER: Target = Target {
    what: "messages that the ledger does not account for",
    at_most: 0.0,
    figure: |figures| figures.unaccounted,
};

const LINK_UNUSED: Target = Target {
    what: "part of the link that nothing useful went over, %",
    at_most: 10.0,
    figure: |figures| Some(100.0 - figures.link.as_ref()?.useful_percent),
};
