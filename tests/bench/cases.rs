//! What is compared with what, and what the gateway promises in it.

use std::time::Duration;

use firmware_sim::wire::Protocol;

use crate::measure::Plan;
use crate::options::{CaseName, Options};
use crate::systems::{Rules, Setup, System};
use crate::traffic::{DEVICES, Pace, Traffic};

/// Before anything is measured, so that no start is.
const WARM_UP: Duration = Duration::from_secs(1);
/// The same where every topic has to be met once.
const WARM_UP_TOPICS: Duration = Duration::from_secs(3);

/// Labels of the case `rules`.
const FEW: &str = "tidegate, 1 rule, 20 topics";
const MANY_RULES: &str = "tidegate, 1,000 rules, 20 topics";
const MANY: &str = "tidegate, 1,000 rules, 100,000 topics";

/// One comparison.
pub(crate) struct Case {
    pub(crate) name: CaseName,
    pub(crate) title: &'static str,
    pub(crate) variants: Vec<Variant>,
    pub(crate) targets: Vec<Target>,
}

/// One system in one set-up.
pub(crate) struct Variant {
    pub(crate) label: &'static str,
    pub(crate) system: System,
    setup: Setup,
    traffic: Traffic,
}

/// A promise of the gateway. Variants are named by their labels.
pub(crate) enum Target {
    /// CPU per message, of one to the other.
    Cpu {
        of: &'static str,
        to: &'static str,
        at_most: f64,
    },
    /// Most memory ever resident.
    PeakMemory { at_most_mib: f64 },
    /// Memory resident at the end.
    Memory { at_most_mib: f64 },
    /// Latency of alarms, 99 of 100.
    AlarmLatency { at_most_ms: f64 },
    /// Every message carries an id.
    MessageIds,
}

impl Variant {
    /// The plan of one run.
    pub(crate) fn plan<'a>(&self, options: &'a Options, count_syscalls: bool) -> Plan<'a> {
        Plan {
            system: self.system,
            gateway: &options.gateway,
            setup: self.setup,
            traffic: self.traffic,
            count_syscalls,
        }
    }

    /// Whether the system promised that everything arrives.
    pub(crate) fn promises_arrival(&self) -> bool {
        self.traffic.is_acknowledged()
    }

    /// Whether devices publish as fast as they may.
    pub(crate) fn is_flat(&self) -> bool {
        self.traffic.pace != Pace::Light
    }
}

/// All cases that the options ask for.
pub(crate) fn cases(options: &Options) -> Vec<Case> {
    let mut cases = vec![
        forward(options, CaseName::Mqtt311, Protocol::V311),
        forward(options, CaseName::Mqtt5, Protocol::V5),
        qos0(options),
        light(options),
        rules(options),
    ];
    cases.retain(|case| options.has_case(case.name));
    for case in &mut cases {
        case.variants
            .retain(|variant| options.has_system(variant.system));
    }
    cases
}

fn forward(options: &Options, name: CaseName, protocol: Protocol) -> Case {
    let pace = Pace::Acknowledged {
        window: options.window,
    };
    let variant = |system| plain(system, flat(options, protocol, pace));
    let mut targets = vec![cpu_target(0.25), Target::PeakMemory { at_most_mib: 128.0 }];
    let title = match protocol {
        Protocol::V311 => "QoS 1 in, QoS 1 out, MQTT 3.1.1 on both sides",
        Protocol::V5 => "QoS 1 in, QoS 1 out, MQTT 5 on both sides, with message ids",
    };
    if protocol == Protocol::V5 {
        targets.push(Target::MessageIds);
    }
    Case {
        name,
        title,
        variants: all_systems().map(variant).into(),
        targets,
    }
}

fn qos0(options: &Options) -> Case {
    let traffic = flat(options, Protocol::V5, Pace::Unacknowledged);
    Case {
        name: CaseName::Qos0,
        title: "QoS 0 in, flat out, MQTT 5; tidegate and floor forward at QoS 1, mosquitto at QoS 0",
        variants: all_systems()
            .map(|system| {
                let mut variant = plain(system, traffic);
                variant.setup.bridge_qos = 0;
                variant
            })
            .into(),
        targets: vec![cpu_target(0.5)],
    }
}

fn light(options: &Options) -> Case {
    let traffic = Traffic {
        protocol: Protocol::V5,
        pace: Pace::Light,
        devices: DEVICES,
        topics: DEVICES,
        warm_up: WARM_UP,
        length: Duration::from_secs(options.seconds),
    };
    Case {
        name: CaseName::Light,
        title: "Light load: 1,000 messages and 10 alarms a second, QoS 1, MQTT 5",
        variants: all_systems()
            .map(|system| {
                let mut variant = plain(system, traffic);
                variant.setup.rules = Rules::Alarm;
                variant
            })
            .into(),
        targets: vec![
            Target::AlarmLatency { at_most_ms: 1.5 },
            Target::Memory { at_most_mib: 24.0 },
        ],
    }
}

fn rules(options: &Options) -> Case {
    let pace = Pace::Acknowledged {
        window: options.window,
    };
    let variant = |label, rules, topics| Variant {
        label,
        system: System::Tidegate,
        setup: Setup {
            protocol: Protocol::V5,
            bridge_qos: 1,
            rules: Rules::Devices(rules),
        },
        traffic: Traffic {
            topics,
            // Every topic is met once before it is measured: it is remembered then.
            warm_up: WARM_UP_TOPICS,
            ..flat(options, Protocol::V5, pace)
        },
    };
    Case {
        name: CaseName::Rules,
        title: "Rules and topics: QoS 1 in and out, MQTT 5, every topic met before",
        variants: vec![
            variant(FEW, 1, DEVICES),
            variant(MANY_RULES, 1_000, DEVICES),
            variant(MANY, 1_000, 100_000),
        ],
        targets: vec![Target::Cpu {
            of: MANY,
            to: FEW,
            at_most: 1.2,
        }],
    }
}

fn all_systems() -> [System; 3] {
    [System::Tidegate, System::Mosquitto, System::Floor]
}

fn plain(system: System, traffic: Traffic) -> Variant {
    Variant {
        label: system.name(),
        system,
        setup: Setup {
            protocol: traffic.protocol,
            bridge_qos: 1,
            rules: Rules::None,
        },
        traffic,
    }
}

fn flat(options: &Options, protocol: Protocol, pace: Pace) -> Traffic {
    Traffic {
        protocol,
        pace,
        devices: DEVICES,
        topics: DEVICES,
        warm_up: WARM_UP,
        length: Duration::from_secs_f64(options.flat_seconds),
    }
}

fn cpu_target(at_most: f64) -> Target {
    Target::Cpu {
        of: System::Tidegate.name(),
        to: System::Mosquitto.name(),
        at_most,
    }
}
