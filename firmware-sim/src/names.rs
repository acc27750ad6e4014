//! What devices, channels and topics are called: `plant/sim-00042/vibration`. In come numbers, out
//! come names, and back again at the far end.

use std::borrow::Cow;

use tidegate_device::Kind;

/// The channels of every device, in their order.
const CHANNELS: [&str; tidegate_device::CHANNELS_MAX] = [
    "temperature",
    "pressure",
    "vibration",
    "level",
    "flow",
    "current",
    "voltage",
    "humidity",
];

/// The name of a device, which is its client id too.
#[must_use]
pub fn device(index: u32) -> String {
    format!("sim-{index:05}")
}

/// The last level of a topic.
#[must_use]
pub fn last_level(kind: Kind, channel: u8) -> &'static str {
    match kind {
        Kind::Alarm => "alarm",
        Kind::Report => "report",
        Kind::Reading => CHANNELS
            .get(usize::from(channel))
            .copied()
            .unwrap_or("reading"),
    }
}

/// The last level of a topic where the readings of a channel go round so many `topics`.
#[must_use]
pub fn spread_level(kind: Kind, channel: u8, seq: u32, topics: u32) -> Cow<'static, str> {
    let level = last_level(kind, channel);
    if kind == Kind::Reading && topics > 1 {
        format!("{level}-{:05}", seq % topics).into()
    } else {
        level.into()
    }
}

/// Device, kind and channel of a topic, by its last two levels: a gateway may put others before them.
#[must_use]
pub fn read(topic: &[u8]) -> Option<(u32, Kind, u8)> {
    let topic = std::str::from_utf8(topic).ok()?;
    let (rest, last) = topic.rsplit_once('/')?;
    let device = rest.rsplit_once('/').map_or(rest, |(_, device)| device);
    let index = device.strip_prefix("sim-")?.parse().ok()?;
    let (kind, channel) = match last {
        "alarm" => (Kind::Alarm, 0),
        "report" => (Kind::Report, 0),
        channel => {
            let channel = channel.split_once('-').map_or(channel, |(name, _)| name);
            let place = CHANNELS.iter().position(|&name| name == channel)?;
            (Kind::Reading, u8::try_from(place).ok()?)
        }
    };
    Some((index, kind, channel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn do_names_come_back_from_topics() {
        for (kind, channel) in [(Kind::Alarm, 0), (Kind::Report, 0), (Kind::Reading, 5)] {
            let topic = format!("site/7/plant/{}/{}", device(42), last_level(kind, channel));
            assert_eq!(read(topic.as_bytes()), Some((42, kind, channel)));
            let spread = spread_level(kind, channel, 7, 5);
            let topic = format!("plant/{}/{spread}", device(42));
            assert_eq!(read(topic.as_bytes()), Some((42, kind, channel)));
        }
        for stranger in [
            "",
            "alarm",
            "plant/other/alarm",
            "plant/sim-1/else",
            "sim-x/alarm",
        ] {
            assert_eq!(read(stranger.as_bytes()), None, "{stranger}");
        }
    }
}
