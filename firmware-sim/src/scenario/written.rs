//! A scenario as it stands in a file: names, types and places, nothing about what is possible.

use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScenarioFile {
    #[serde(default)]
    pub(super) fleet: FleetFile,
    #[serde(default)]
    pub(super) phase: Vec<Spanned<PhaseFile>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct FleetFile {
    pub(super) channels: Option<Spanned<u8>>,
    pub(super) payload: Option<Payload>,
    pub(super) readings_qos: Option<Spanned<u8>>,
    pub(super) topic: Option<Spanned<String>>,
    pub(super) connect_per_second: Option<Spanned<f64>>,
    pub(super) topics_per_channel: Option<Spanned<u32>>,
    pub(super) report_seconds: Option<Spanned<f64>>,
    pub(super) window: Option<Spanned<u8>>,
    pub(super) payload_bytes_min: Option<Spanned<u32>>,
    pub(super) readings_per_second: Option<Spanned<f64>>,
    pub(super) alarms_per_minute: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Payload {
    Json,
    Compact,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PhaseFile {
    pub(super) kind: Kind,
    pub(super) seconds: Spanned<f64>,
    pub(super) readings_per_second: Option<Spanned<f64>>,
    pub(super) alarms_per_minute: Option<Spanned<f64>>,
    pub(super) factor: Option<Spanned<f64>>,
    pub(super) share: Option<Spanned<f64>>,
    pub(super) up_seconds: Option<Spanned<f64>>,
    pub(super) down_seconds: Option<Spanned<f64>>,
    pub(super) every_seconds: Option<Spanned<f64>>,
    pub(super) off_seconds: Option<Spanned<f64>>,
    pub(super) skew_seconds: Option<Spanned<f64>>,
    pub(super) devices: Option<Spanned<u32>>,
    pub(super) readings: Option<Spanned<u32>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Steady,
    Burst,
    AlarmStorm,
    Flapping,
    Rebooting,
    ClockSkew,
    Mad,
    FlatOut,
    AllAtOnce,
}

impl Kind {
    /// Its name in the file, and the keys that mean something in it.
    pub(super) const fn words(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Steady => ("steady", &[]),
            Self::Burst => ("burst", &["factor"]),
            Self::AlarmStorm => ("alarm-storm", &["share"]),
            Self::Flapping => ("flapping", &["share", "up_seconds", "down_seconds"]),
            Self::Rebooting => ("rebooting", &["share", "every_seconds", "off_seconds"]),
            Self::ClockSkew => ("clock-skew", &["share", "skew_seconds"]),
            Self::Mad => ("mad", &["devices", "factor"]),
            Self::FlatOut => ("flat-out", &["readings"]),
            Self::AllAtOnce => ("all-at-once", &["off_seconds"]),
        }
    }
}
