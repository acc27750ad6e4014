//! Reads what the upstream sends on a connection that is up: PUBACK, PINGRESP and, with MQTT 5,
//! DISCONNECT; anything else ends the connection. In come bytes, out go acknowledgements in the
//! order in which they came. PUBACKs are read by hand, in bulk: this is the hot path. Pure, and
//! strict: nothing here believes a length that the far end names.

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::DisconnectProperties;

use super::Ack;
use crate::traffic::accept::Protocol;

/// Longest packet taken from the upstream. A PUBACK has 4 bytes; with MQTT 5 a reason string and
/// user properties may come with it, which is all that can make one long.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What a walk over received bytes found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// Bytes of whole packets; what comes after them waits for more.
    pub(super) used: usize,
    /// Why the connection ends here, if it does. What was acknowledged before it counts.
    pub(super) end: Option<End>,
}

/// Why the upstream's bytes end a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It said DISCONNECT (MQTT 5, 3.14).
    Disconnect {
        /// Reason code; 0 when it gave none.
        reason: u8,
        /// Reason string, as it came.
        text: Option<String>,
    },
    /// It sent something that it must not send.
    Broken(Broken),
}

/// What the upstream must not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A length that no packet can have (1.5.5).
    Length,
    /// A packet over [`ANSWER_BYTES_MAX`].
    TooLong,
    /// A packet of this type, which has no place here.
    Unexpected(u8),
    /// A packet of this type whose content is wrong.
    Malformed(u8),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length => f.write_str("a packet with a malformed length"),
            Self::TooLong => write!(f, "a packet over {ANSWER_BYTES_MAX} bytes"),
            Self::Unexpected(kind) => write!(f, "{} where it has no place", name(*kind)),
            Self::Malformed(kind) => write!(f, "a malformed {}", name(*kind)),
        }
    }
}

fn name(kind: u8) -> &'static str {
    const NAMES: [&str; 16] = [
        "packet type 0",
        "CONNECT",
        "CONNACK",
        "PUBLISH",
        "PUBACK",
        "PUBREC",
        "PUBREL",
        "PUBCOMP",
        "SUBSCRIBE",
        "SUBACK",
        "UNSUBSCRIBE",
        "UNSUBACK",
        "PINGREQ",
        "PINGRESP",
        "DISCONNECT",
        "AUTH",
    ];
    NAMES.get(usize::from(kind)).copied().unwrap_or("packet")
}

/// Walks over all whole packets in `bytes` and puts their acknowledgements behind `acks`.
pub(super) fn walk(bytes: &[u8], protocol: Protocol, acks: &mut Vec<Ack>) -> Walk {
    let mut used = 0;
    loop {
        let rest = bytes.get(used..).unwrap_or_default();
        let step = match first_packet(rest) {
            Ok(Some((packet, size))) => {
                take(packet, protocol, acks).map(|()| used = used.saturating_add(size))
            }
            Ok(None) => return Walk { used, end: None },
            Err(broken) => Err(End::Broken(broken)),
        };
        if let Err(end) = step {
            return Walk {
                used,
                end: Some(end),
            };
        }
    }
}

/// One packet: its first byte, and what comes after the length.
#[derive(Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) first: u8,
    pub(super) body: &'a [u8],
}

/// The first packet in `bytes` and its size, fixed header included; `None` while it is not whole.
pub(super) fn first_packet(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, Broken> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some((length, digits)) = length(rest)? else {
        return Ok(None);
    };
    if length > ANSWER_BYTES_MAX {
        return Err(Broken::TooLong);
    }
    let end = digits.saturating_add(length);
    Ok(rest
        .get(digits..end)
        .map(|body| (Packet { first, body }, end.saturating_add(1))))
}

/// A variable byte integer and how many bytes it takes (MQTT 5, 1.5.5); `None` while it is not whole.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Broken> {
    let mut value = 0usize;
    for (digit, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * digit);
        if byte & 0x80 == 0 {
            // More digits than needed are not allowed (1.5.5-1).
            let wasted = digit > 0 && byte == 0;
            return if wasted {
                Err(Broken::Length)
            } else {
                Ok(Some((value, digit + 1)))
            };
        }
    }
    if bytes.len() >= 4 {
        Err(Broken::Length)
    } else {
        Ok(None)
    }
}

fn take(packet: Packet<'_>, protocol: Protocol, acks: &mut Vec<Ack>) -> Result<(), End> {
    let malformed = End::Broken(Broken::Malformed(packet.first >> 4));
    match (packet.first, protocol) {
        (0x40, _) => {
            acks.push(puback(packet.body, protocol).ok_or(malformed)?);
            Ok(())
        }
        (0xD0, _) if packet.body.is_empty() => Ok(()),
        (0xE0, Protocol::V5) => Err(disconnect(packet.body).unwrap_or(malformed)),
        (0x41..=0x4F | 0xD0..=0xDF, _) | (0xE1..=0xEF, Protocol::V5) => Err(malformed),
        (first, _) => Err(End::Broken(Broken::Unexpected(first >> 4))),
    }
}

/// PUBACK: packet identifier, with MQTT 5 also reason code and properties when they are not the
/// default (3.4.2).
fn puback(body: &[u8], protocol: Protocol) -> Option<Ack> {
    let (&[high, low], rest) = body.split_first_chunk::<2>()?;
    let packet_id = u16::from_be_bytes([high, low]);
    let reason = match (rest, protocol) {
        ([], _) => 0,
        (_, Protocol::V311) => return None,
        (&[reason], Protocol::V5) => reason,
        (&[reason, ref properties @ ..], Protocol::V5) => {
            whole_properties(properties)?;
            reason
        }
    };
    (packet_id != 0).then_some(Ack { packet_id, reason })
}

/// DISCONNECT of the server: reason code and properties, both left out when they are the default
/// (3.14.2).
fn disconnect(body: &[u8]) -> Option<End> {
    let (reason, properties) = match body {
        [] => (0, &[][..]),
        [reason, properties @ ..] => (*reason, properties),
    };
    if !properties.is_empty() {
        whole_properties(properties)?;
    }
    Some(End::Disconnect {
        reason,
        text: reason_string(properties),
    })
}

/// Properties whose length says exactly what is there.
fn whole_properties(bytes: &[u8]) -> Option<()> {
    let (said, digits) = length(bytes).ok()??;
    (bytes.len() == said.checked_add(digits)?).then_some(())
}

/// For the log only: a server whose properties cannot be read says nothing.
fn reason_string(properties: &[u8]) -> Option<String> {
    let mut bytes = Bytes::copy_from_slice(properties);
    let properties = DisconnectProperties::extract(&mut bytes).ok()??;
    properties.reason_string.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{V5, V311};

    fn walked(bytes: &[u8], protocol: Protocol) -> (Walk, Vec<(u16, u8)>) {
        let mut acks = Vec::new();
        let walk = walk(bytes, protocol, &mut acks);
        (
            walk,
            acks.into_iter()
                .map(|ack| (ack.packet_id, ack.reason))
                .collect(),
        )
    }

    fn ended(bytes: &[u8], protocol: Protocol) -> Option<End> {
        walked(bytes, protocol).0.end
    }

    #[test]
    fn are_acknowledgements_taken_in_order_and_a_part_left_for_later() {
        let bytes = [0x40, 2, 0, 1, 0xD0, 0, 0x40, 2, 1, 0, 0x40, 2, 0];
        for protocol in [V311, V5] {
            let (walk, acks) = walked(&bytes, protocol);
            assert_eq!(
                walk,
                Walk {
                    used: 10,
                    end: None
                }
            );
            assert_eq!(acks, [(1, 0), (256, 0)]);
        }
    }

    #[test]
    fn are_reasons_read_with_and_without_properties() {
        let bytes = [
            0x40, 3, 0, 1, 0x97, 0x40, 4, 0, 2, 0x10, 0, 0x40, 8, 0, 3, 0x87, 4, 0x1F, 0, 1, b'x',
        ];
        assert_eq!(walked(&bytes, V5).1, [(1, 0x97), (2, 0x10), (3, 0x87)]);
    }

    #[test]
    fn does_what_must_not_come_end_the_connection() {
        let broken = |broken| Some(End::Broken(broken));
        assert_eq!(ended(&[0x40, 2, 0, 0], V5), broken(Broken::Malformed(4)));
        assert_eq!(ended(&[0x42, 2, 0, 1], V5), broken(Broken::Malformed(4)));
        assert_eq!(ended(&[0x40, 1, 0], V5), broken(Broken::Malformed(4)));
        assert_eq!(
            ended(&[0x40, 3, 0, 1, 0], V311),
            broken(Broken::Malformed(4))
        );
        assert_eq!(
            ended(&[0x40, 4, 0, 1, 0, 9], V5),
            broken(Broken::Malformed(4))
        );
        assert_eq!(ended(&[0xD0, 1, 0], V5), broken(Broken::Malformed(13)));
        assert_eq!(ended(&[0x20, 2, 0, 0], V5), broken(Broken::Unexpected(2)));
        assert_eq!(
            ended(&[0x30, 3, 0, 1, b'a'], V5),
            broken(Broken::Unexpected(3))
        );
        assert_eq!(ended(&[0xE0, 0], V311), broken(Broken::Unexpected(14)));
        assert_eq!(ended(&[0xF0, 0], V5), broken(Broken::Unexpected(15)));
        assert_eq!(ended(&[0x40, 0x82, 0x00, 0, 1], V5), broken(Broken::Length));
        assert_eq!(
            ended(&[0x40, 0xFF, 0xFF, 0xFF, 0xFF], V5),
            broken(Broken::Length)
        );
        assert_eq!(
            ended(&[0x40, 0xFF, 0xFF, 0xFF, 0x7F], V5),
            broken(Broken::TooLong)
        );
    }

    #[test]
    fn is_a_disconnect_read_in_all_its_lengths() {
        let said = |reason, text: Option<&str>| {
            Some(End::Disconnect {
                reason,
                text: text.map(str::to_owned),
            })
        };
        assert_eq!(ended(&[0xE0, 0], V5), said(0, None));
        assert_eq!(ended(&[0xE0, 1, 0x8E], V5), said(0x8E, None));
        assert_eq!(ended(&[0xE0, 2, 0x8B, 0], V5), said(0x8B, None));
        assert_eq!(
            ended(&[0xE0, 6, 0x98, 4, 0x1F, 0, 1, b'x'], V5),
            said(0x98, Some("x"))
        );
    }

    #[test]
    fn do_acknowledgements_before_the_end_count() {
        let (walk, acks) = walked(&[0x40, 2, 0, 7, 0xE0, 0, 0x40, 2, 0, 8], V5);
        assert!(walk.end.is_some());
        assert_eq!(acks, [(7, 0)]);
    }

    /// Half a million mutated streams: no panic, nothing used that was not there, nothing made up.
    #[test]
    fn does_any_garbage_only_end_the_connection() {
        let seeds: [&[u8]; 5] = [
            &[0x40, 2, 0, 1, 0x40, 2, 0, 2, 0xD0, 0],
            &[0x40, 3, 0, 1, 0x97, 0x40, 4, 0, 2, 0x10, 0],
            &[0x40, 8, 0, 3, 0x87, 4, 0x1F, 0, 1, b'x', 0x40, 2, 0, 4],
            &[0xE0, 6, 0x98, 4, 0x1F, 0, 1, b'x'],
            &[0xE0, 12, 0x98, 10, 0x26, 0, 1, b'k', 0, 1, b'v', 0x1C, 0, 0],
        ];
        let mut random = 0x2545_F491_4F6C_DD1Du64;
        let mut draw = move |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for _ in 0..500_000 {
            let mut bytes = seeds[draw(seeds.len())].to_vec();
            for _ in 0..=draw(4) {
                let at = draw(bytes.len());
                match draw(4) {
                    0 => bytes[at] = draw(256) as u8,
                    1 => bytes[at] ^= 1 << draw(8),
                    2 => bytes.insert(at, draw(256) as u8),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let protocol = if draw(2) == 0 { V311 } else { V5 };
            let (walk, acks) = walked(&bytes, protocol);
            assert!(walk.used <= bytes.len() && acks.len() * 4 <= walk.used);
            assert!(acks.iter().all(|&(packet_id, _)| packet_id != 0));
        }
    }
}
