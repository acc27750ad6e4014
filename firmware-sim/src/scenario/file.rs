//! Reads a scenario. In comes TOML, out comes a [`Scenario`] or every fault with its line; an unknown
//! key is a fault, and so is one that means nothing in its phase.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use tidegate_device::CHANNELS_MAX;
use tidegate_device::outbox::WINDOW_MAX;
use tidegate_device::payload::Form;
use toml::Spanned;

use super::written::{FleetFile, Kind, Payload, PhaseFile, ScenarioFile};
use super::{Act, Fleet, Phase, Scenario};
use crate::marks::SEQ_MAX;

/// A week: longer runs are several.
const SECONDS: RangeInclusive<f64> = 0.1..=604_800.0;
/// Seconds of an up, a down, a pause.
const PAUSE_SECONDS: RangeInclusive<f64> = 0.05..=86_400.0;
/// Of one channel. The timers of the host tick each millisecond; ten samples fit in one turn.
const READINGS_PER_SECOND: RangeInclusive<f64> = 0.0001..=10_000.0;
const ALARMS_PER_MINUTE: RangeInclusive<f64> = 0.0..=60_000.0;
const FACTOR: RangeInclusive<f64> = 0.01..=100_000.0;
const SHARE: RangeInclusive<f64> = 0.0..=1.0;
/// Five digits, so that all names are of one length.
const TOPICS_PER_CHANNEL: RangeInclusive<u32> = 1..=100_000;
/// To a mebibyte: an image.
const PAYLOAD_BYTES_MIN: RangeInclusive<u32> = 0..=1_048_576;
const CONNECT_PER_SECOND: RangeInclusive<f64> = 1.0..=100_000.0;

/// Everything that is wrong with a scenario.
#[derive(Debug)]
pub struct Faults(pub Vec<Fault>);

/// One thing that is wrong, and what to do about it.
#[derive(Debug)]
pub struct Fault {
    /// Counted from 1; 0 when it is of the whole file.
    pub line: usize,
    /// In words, for whoever wrote the file.
    pub what: String,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Fault { line, what }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            match line {
                0 => write!(f, "{separator}{what}")?,
                line => write!(f, "{separator}line {line}: {what}")?,
            }
        }
        Ok(())
    }
}

pub(super) fn read(text: &str) -> Result<Scenario, Faults> {
    let file: ScenarioFile = toml::from_str(text).map_err(|error| {
        Faults(vec![Fault {
            line: error.span().map_or(0, |span| line_of(text, span.start)),
            what: error.message().to_owned(),
        }])
    })?;
    let mut check = Check {
        text,
        faults: Vec::new(),
    };
    match check.scenario(&file) {
        Some(scenario) if check.faults.is_empty() => Ok(scenario),
        _ => Err(Faults(check.faults)),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// Turns what is written into what is meant, and notes what cannot be.
struct Check<'t> {
    text: &'t str,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn scenario(&mut self, file: &ScenarioFile) -> Option<Scenario> {
        let fleet = self.fleet(&file.fleet);
        let phases = file.phase.iter();
        let phases: Vec<_> = phases.map(|p| self.phase(&fleet, &file.fleet, p)).collect();
        let mut phases = phases.into_iter();
        let Some(first) = phases.next() else {
            self.fault(0, "there is no [[phase]]: a scenario needs at least one");
            return None;
        };
        Some(Scenario {
            fleet,
            first,
            others: phases.collect(),
        })
    }

    fn fleet(&mut self, file: &FleetFile) -> Fleet {
        let channels_max = u8::try_from(CHANNELS_MAX).unwrap_or(u8::MAX);
        let window_max = u8::try_from(WINDOW_MAX).unwrap_or(u8::MAX);
        let report = self.number(
            file.report_seconds.as_ref(),
            "report_seconds",
            PAUSE_SECONDS,
        );
        Fleet {
            channels: self.integer(file.channels.as_ref(), "channels", 1..=channels_max, 4),
            payload: match file.payload {
                Some(Payload::Compact) => Form::Compact,
                Some(Payload::Json) | None => Form::Json,
            },
            readings_confirmed: self.integer(file.readings_qos.as_ref(), "readings_qos", 0..=1, 0)
                == 1,
            topic: self.topic(file.topic.as_ref()),
            connect_per_second: self
                .number(
                    file.connect_per_second.as_ref(),
                    "connect_per_second",
                    CONNECT_PER_SECOND,
                )
                .unwrap_or(1_000.0),
            topics_per_channel: self.integer(
                file.topics_per_channel.as_ref(),
                "topics_per_channel",
                TOPICS_PER_CHANNEL,
                1,
            ),
            report_period: Duration::from_secs_f64(report.unwrap_or(10.0)),
            window: self
                .integer(file.window.as_ref(), "window", 1..=window_max, 4)
                .into(),
            payload_bytes_min: self.integer(
                file.payload_bytes_min.as_ref(),
                "payload_bytes_min",
                PAYLOAD_BYTES_MIN,
                0,
            ) as usize,
        }
    }

    fn phase(&mut self, fleet: &Fleet, base: &FleetFile, spanned: &Spanned<PhaseFile>) -> Phase {
        let file = spanned.get_ref();
        let (name, _) = file.kind.words();
        self.refuse_strangers(file);
        let seconds = self.number(Some(&file.seconds), "seconds", SECONDS);
        let readings = file.readings_per_second.as_ref();
        let readings = readings.or(base.readings_per_second.as_ref());
        let readings = self.number(readings, "readings_per_second", READINGS_PER_SECOND);
        let alarms = file.alarms_per_minute.as_ref();
        let alarms = alarms.or(base.alarms_per_minute.as_ref());
        let alarms = self.number(alarms, "alarms_per_minute", ALARMS_PER_MINUTE);
        let phase = Phase {
            name,
            length: Duration::from_secs_f64(seconds.unwrap_or(1.0)),
            readings_per_second: readings.unwrap_or(1.0),
            alarms_per_minute: alarms.unwrap_or(0.5),
            act: self.act(file, alarms),
        };
        self.refuse_impossible_rates(fleet, &phase, line_of(self.text, spanned.span().start));
        phase
    }

    fn act(&mut self, file: &PhaseFile, alarms: Option<f64>) -> Act {
        let share = |check: &mut Self, default| {
            let share = check.number(file.share.as_ref(), "share", SHARE);
            share.unwrap_or(default)
        };
        let factor = |check: &mut Self, default| {
            let factor = check.number(file.factor.as_ref(), "factor", FACTOR);
            factor.unwrap_or(default)
        };
        let pause = |check: &mut Self, given: &Option<Spanned<f64>>, name, default| {
            let seconds = check.number(given.as_ref(), name, PAUSE_SECONDS);
            Duration::from_secs_f64(seconds.unwrap_or(default))
        };
        match file.kind {
            Kind::Steady => Act::Steady,
            Kind::Burst => Act::Burst {
                factor: factor(self, 10.0),
            },
            Kind::AlarmStorm => Act::AlarmStorm {
                share: share(self, 1.0),
                alarms_per_minute: match file.alarms_per_minute {
                    Some(_) => alarms.unwrap_or(60.0),
                    None => 60.0,
                },
            },
            Kind::Flapping => Act::Flapping {
                share: share(self, 0.3),
                up: pause(self, &file.up_seconds, "up_seconds", 3.0),
                down: pause(self, &file.down_seconds, "down_seconds", 2.0),
            },
            Kind::Rebooting => Act::Rebooting {
                share: share(self, 0.3),
                every: pause(self, &file.every_seconds, "every_seconds", 5.0),
                off: pause(self, &file.off_seconds, "off_seconds", 1.0),
            },
            Kind::ClockSkew => Act::ClockSkew {
                share: share(self, 0.5),
                skew: pause(self, &file.skew_seconds, "skew_seconds", 3_600.0),
            },
            Kind::Mad => Act::Mad {
                devices: self.integer(file.devices.as_ref(), "devices", 1..=20_000, 1),
                factor: factor(self, 1_000.0),
            },
            Kind::FlatOut => Act::FlatOut {
                readings_max: match &file.readings {
                    None => u64::MAX,
                    given => self
                        .integer(given.as_ref(), "readings", 1..=SEQ_MAX, 1)
                        .into(),
                },
            },
            Kind::AllAtOnce => Act::AllAtOnce {
                off: pause(self, &file.off_seconds, "off_seconds", 1.0),
            },
        }
    }

    /// Keys that are known but mean nothing in a phase of this kind.
    fn refuse_strangers(&mut self, file: &PhaseFile) {
        let start = |key: &Option<Spanned<f64>>| key.as_ref().map(|key| key.span().start);
        let given = [
            ("factor", start(&file.factor)),
            ("share", start(&file.share)),
            ("up_seconds", start(&file.up_seconds)),
            ("down_seconds", start(&file.down_seconds)),
            ("every_seconds", start(&file.every_seconds)),
            ("off_seconds", start(&file.off_seconds)),
            ("skew_seconds", start(&file.skew_seconds)),
            ("devices", file.devices.as_ref().map(|key| key.span().start)),
            (
                "readings",
                file.readings.as_ref().map(|key| key.span().start),
            ),
        ];
        let (name, known) = file.kind.words();
        for (key, offset) in given {
            let Some(offset) = offset.filter(|_| !known.contains(&key)) else {
                continue;
            };
            let known = match known {
                [] => "it has no keys of its own".to_owned(),
                known => format!("its own keys are: {}", known.join(", ")),
            };
            let line = line_of(self.text, offset);
            self.fault(
                line,
                format!("`{key}` means nothing in a phase of kind \"{name}\"; {known}"),
            );
        }
    }

    /// What no device could do: sample faster than timers tick, or alarm more often than it samples.
    fn refuse_impossible_rates(&mut self, fleet: &Fleet, phase: &Phase, line: usize) {
        let factor = match phase.act {
            Act::Burst { factor } | Act::Mad { factor, .. } => factor,
            _ => 1.0,
        };
        let fastest = phase.readings_per_second * factor;
        if !READINGS_PER_SECOND.contains(&fastest) {
            let (low, high) = (READINGS_PER_SECOND.start(), READINGS_PER_SECOND.end());
            self.fault(line, format!(
                "readings_per_second times factor is {fastest}; it must be {low} to {high}: lower one of them"
            ));
        }
        let samples = phase.readings_per_second * 60.0 * f64::from(fleet.channels);
        let alarms = match phase.act {
            Act::AlarmStorm {
                alarms_per_minute, ..
            } => alarms_per_minute,
            _ => phase.alarms_per_minute,
        };
        if alarms > samples {
            self.fault(line, format!(
                "{alarms} alarms a minute need as many samples, and a device takes {samples} a minute: \
                 raise readings_per_second or channels"
            ));
        }
    }

    fn topic(&mut self, topic: Option<&Spanned<String>>) -> String {
        let Some(topic) = topic else {
            return "plant".to_owned();
        };
        let text = topic.get_ref();
        if text.is_empty() || text.len() > 200 || text.contains(['+', '#', '\0']) {
            let line = line_of(self.text, topic.span().start);
            self.fault(line, "`topic` must have 1 to 200 bytes and no '+' or '#'");
        }
        text.clone()
    }

    fn number(
        &mut self,
        given: Option<&Spanned<f64>>,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Option<f64> {
        let given = given?;
        let number = *given.get_ref();
        if range.contains(&number) {
            return Some(number);
        }
        let line = line_of(self.text, given.span().start);
        let (low, high) = (range.start(), range.end());
        self.fault(
            line,
            format!("`{name}` is {number}; it must be {low} to {high}"),
        );
        None
    }

    fn integer<T: Copy + Into<u64>>(
        &mut self,
        given: Option<&Spanned<T>>,
        name: &str,
        range: RangeInclusive<T>,
        default: T,
    ) -> T {
        let Some(given) = given else { return default };
        let (number, low, high) = (*given.get_ref(), *range.start(), *range.end());
        if (low.into()..=high.into()).contains(&number.into()) {
            return number;
        }
        let line = line_of(self.text, given.span().start);
        let (number, low, high) = (number.into(), low.into(), high.into());
        self.fault(
            line,
            format!("`{name}` is {number}; it must be {low} to {high}"),
        );
        default
    }

    fn fault(&mut self, line: usize, what: impl Into<String>) {
        let what = what.into();
        // A default of [fleet] that is out of range is read for each phase, and told once.
        if !self.faults.iter().any(|f| f.line == line && f.what == what) {
            self.faults.push(Fault { line, what });
        }
    }
}
