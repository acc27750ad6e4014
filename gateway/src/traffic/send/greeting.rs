//! CONNECT as we say it and CONNACK as we take it. In come settings and bytes, out go bytes and
//! what the upstream announced, or why it refused. Pure.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5::{self, ConnAckProperties};

use super::answers::Packet;
use super::secret::Revealed;
use super::{Link, LinkLimits, UplinkSettings, reason};
use crate::traffic::accept::Protocol;

/// The client id of a link: with two connections each must have its own.
pub(super) fn client_id(settings: &UplinkSettings, link: Link) -> String {
    match link {
        Link::Urgent => format!("{}-urgent", settings.client_id),
        Link::Bulk => settings.client_id.clone(),
    }
}

/// The CONNECT packet: a clean session each time, since what is not acknowledged waits here and
/// not at the upstream; no will.
pub(super) fn connect(
    settings: &UplinkSettings,
    link: Link,
    password: Option<&Revealed>,
) -> Result<BytesMut, String> {
    let mut packet = BytesMut::new();
    let (username, password) = (
        settings.remote.username.clone().unwrap_or_default(),
        password.map_or_else(String::new, |secret| secret.expose().to_owned()),
    );
    let login = !(username.is_empty() && password.is_empty());
    let (client_id, keep_alive) = (client_id(settings, link), keep_alive_seconds(settings));
    let written = match settings.protocol {
        Protocol::V311 => v4::Connect {
            protocol: rumqttc::Protocol::V4,
            keep_alive,
            client_id,
            clean_session: true,
            last_will: None,
            login: login.then_some(v4::Login { username, password }),
        }
        .write(&mut packet)
        .map_err(|error| error.to_string()),
        Protocol::V5 => v5::Connect {
            keep_alive,
            client_id,
            clean_start: true,
            properties: None,
        }
        .write(
            &None,
            &login.then_some(v5::Login { username, password }),
            &mut packet,
        )
        .map_err(|error| error.to_string()),
    };
    written.map(|_| packet)
}

/// Whole seconds, as CONNECT carries them (3.1.2.10); a part of a second counts as one, since zero
/// would switch the keep-alive off.
fn keep_alive_seconds(settings: &UplinkSettings) -> u16 {
    let millis = settings.remote.keep_alive.as_millis();
    u16::try_from(millis.div_ceil(1_000)).unwrap_or(u16::MAX)
}

/// A CONNACK that said yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    /// What the upstream takes.
    pub(super) limits: LinkLimits,
    /// The keep-alive that the server imposes, if it does (MQTT 5, 3.2.2.3.14); zero: none.
    pub(super) keep_alive: Option<Duration>,
}

/// A first packet that did not say yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// CONNACK with this code, and what it means.
    Code(u8, String),
    /// It takes no QoS 1, and QoS 0 is never acknowledged.
    NoQos1,
    /// Not a CONNACK, or a malformed one.
    Malformed,
}

/// Reads the first packet of the upstream.
pub(super) fn connack(packet: Packet<'_>, protocol: Protocol) -> Result<Welcome, Refusal> {
    let (&[flags, code], rest) = match (packet.first, packet.body.split_first_chunk::<2>()) {
        (0x20, Some(parts)) => parts,
        _ => return Err(Refusal::Malformed),
    };
    match (code, protocol) {
        (0, _) if flags != 0 => Err(Refusal::Malformed),
        (0, Protocol::V311) if rest.is_empty() => Ok(Welcome::with(None)),
        (0, Protocol::V311) => Err(Refusal::Malformed),
        (0, Protocol::V5) => welcome_v5(rest),
        (code, Protocol::V311) => Err(Refusal::Code(code, reason::refused_v311(code))),
        (code, Protocol::V5) => Err(Refusal::Code(code, refused_v5(code, rest))),
    }
}

fn welcome_v5(properties: &[u8]) -> Result<Welcome, Refusal> {
    let mut bytes = Bytes::copy_from_slice(properties);
    let properties = ConnAckProperties::read(&mut bytes).map_err(|_| Refusal::Malformed)?;
    // Zero would stop everything, and is a protocol error (3.2.2.3.3, 3.2.2.3.6).
    let zero = properties
        .as_ref()
        .is_some_and(|p| p.receive_max == Some(0) || p.max_packet_size == Some(0));
    if zero || !bytes.is_empty() {
        return Err(Refusal::Malformed);
    }
    let welcome = Welcome::with(properties.as_ref());
    match welcome.limits.qos_max {
        0 => Err(Refusal::NoQos1),
        _ => Ok(welcome),
    }
}

impl Welcome {
    /// What was announced, with the protocol's defaults where nothing was.
    fn with(said: Option<&ConnAckProperties>) -> Self {
        Self {
            limits: LinkLimits {
                receive_max: said.and_then(|p| p.receive_max).unwrap_or(u16::MAX),
                packet_bytes_max: said.and_then(|p| p.max_packet_size).unwrap_or(u32::MAX),
                qos_max: said.and_then(|p| p.max_qos).unwrap_or(2),
                retain: said.and_then(|p| p.retain_available) != Some(0),
            },
            keep_alive: said
                .and_then(|p| p.server_keep_alive)
                .map(|seconds| Duration::from_secs(seconds.into())),
        }
    }
}

/// What was refused and why, with the words of the server where it has some.
fn refused_v5(code: u8, properties: &[u8]) -> String {
    let mut bytes = Bytes::copy_from_slice(properties);
    let said = ConnAckProperties::read(&mut bytes).ok().flatten();
    let mut words = reason::refused_v5(code);
    let texts = said.map(|p| (p.reason_string, p.server_reference));
    if let Some((text, server)) = texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            words.push_str(&format!("; it says: {}", reason::shown(&text)));
        }
        if let Some(server) = server.filter(|server| !server.is_empty()) {
            words.push_str(&format!("; it names {}", reason::shown(&server)));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::send::answers::first_packet;

    fn answer(bytes: &[u8], protocol: Protocol) -> Result<Welcome, Refusal> {
        let (packet, size) = first_packet(bytes).unwrap().unwrap();
        assert_eq!(size, bytes.len());
        connack(packet, protocol)
    }

    const UNLIMITED: LinkLimits = LinkLimits {
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        qos_max: 2,
        retain: true,
    };

    #[test]
    fn do_the_protocols_defaults_stand_where_nothing_is_said() {
        for (bytes, protocol) in [
            (&[0x20, 2, 0, 0][..], Protocol::V311),
            (&[0x20, 3, 0, 0, 0], Protocol::V5),
        ] {
            let welcome = answer(bytes, protocol).unwrap();
            assert_eq!((welcome.limits, welcome.keep_alive), (UNLIMITED, None));
        }
    }

    #[test]
    fn is_all_that_is_announced_taken() {
        let bytes = [
            0x20, 18, 0, 0, 15, 0x21, 0, 10, 0x27, 0, 1, 0, 0, 0x24, 1, 0x25, 0, 0x13, 0, 30,
        ];
        let welcome = answer(&bytes, Protocol::V5).unwrap();
        let limits = LinkLimits {
            receive_max: 10,
            packet_bytes_max: 65_536,
            qos_max: 1,
            retain: false,
        };
        assert_eq!(
            welcome,
            Welcome {
                limits,
                keep_alive: Some(Duration::from_secs(30))
            }
        );
    }

    #[test]
    fn is_an_upstream_without_qos_1_refused() {
        assert_eq!(
            answer(&[0x20, 5, 0, 0, 2, 0x24, 0], Protocol::V5),
            Err(Refusal::NoQos1)
        );
    }

    #[test]
    fn does_each_refusal_say_what_to_do() {
        for (code, protocol, words) in [
            (1, Protocol::V311, "protocol = \"5\""),
            (2, Protocol::V311, "client_id"),
            (3, Protocol::V311, "not available"),
            (4, Protocol::V311, "password"),
            (5, Protocol::V311, "authorise"),
            (0x01, Protocol::V5, "3.1.1"),
            (0x84, Protocol::V5, "3.1.1"),
            (0x85, Protocol::V5, "client_id"),
            (0x86, Protocol::V5, "password"),
            (0x87, Protocol::V5, "authorise"),
            (0x88, Protocol::V5, "not available"),
            (0x97, Protocol::V5, "quota"),
            (0x9C, Protocol::V5, "another server"),
            (0x9D, Protocol::V5, "moved"),
            (0xFE, Protocol::V5, "0xFE"),
        ] {
            let Err(Refusal::Code(said, sentence)) = answer(&[0x20, 2, 0, code], protocol) else {
                panic!("{code} was taken");
            };
            assert_eq!(said, code);
            assert!(sentence.contains(words), "{code:#x}: {sentence}");
        }
    }

    #[test]
    fn are_the_servers_own_words_shown() {
        let bytes = [0x20, 10, 0, 0x9D, 7, 0x1F, 0, 1, b'x', 0x1C, 0, 0];
        let Err(Refusal::Code(_, sentence)) = answer(&bytes, Protocol::V5) else {
            panic!()
        };
        assert!(sentence.contains("it says: x"), "{sentence}");
    }

    #[test]
    fn is_a_malformed_greeting_refused() {
        for (bytes, protocol) in [
            (&[0x20, 2, 1, 0][..], Protocol::V311),
            (&[0x20, 3, 0, 0, 0], Protocol::V311),
            (&[0x20, 2, 0, 0], Protocol::V5),
            (&[0x20, 6, 0, 0, 3, 0x21, 0, 0], Protocol::V5),
            (&[0x20, 4, 0, 0, 0, 0], Protocol::V5),
            (&[0x20, 1, 0], Protocol::V5),
            (&[0x40, 2, 0, 0], Protocol::V5),
        ] {
            assert_eq!(
                answer(bytes, protocol),
                Err(Refusal::Malformed),
                "{bytes:?}"
            );
        }
    }
}
