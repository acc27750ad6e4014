//! The packets of MQTT 5. Topic aliases are not announced, so the broker uses none.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode, Filter, Login, Packet as Wire, Publish,
    RetainForwardRule, Subscribe, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error, QoS};

use super::{Decoded, Fault, Heard, Incomplete, Packet, SUBSCRIBE_ID, keep_alive, qos2};
use crate::traffic::accept::source::intake::Publication;
use crate::traffic::accept::{RetainedPolicy, SourceSettings};

/// How long the broker keeps our session while we are away (MQTT 5, 3.1.2.11.2): a week, as long as
/// a box may lie unpowered over holidays. The broker may shorten it.
const SESSION_EXPIRY_SECONDS: u32 = 7 * 24 * 3600;
/// Unacknowledged publishes that the broker may have on the way (MQTT 5, 3.1.2.11.3): enough for
/// 400 messages a second at a satellite's 600 ms. A hint;
/// [`UNANSWERED_MAX`](super::super::UNANSWERED_MAX) binds.
const RECEIVE_MAX: u16 = 256;

/// CONNECT for a session that the broker keeps.
pub(super) fn connect(
    settings: &SourceSettings,
    client_id: &str,
    login: Option<(String, String)>,
) -> BytesMut {
    let connect = Connect {
        keep_alive: u16::try_from(keep_alive(settings).as_secs()).unwrap_or(u16::MAX),
        client_id: client_id.to_owned(),
        clean_start: false,
        properties: Some(ConnectProperties {
            session_expiry_interval: Some(SESSION_EXPIRY_SECONDS),
            receive_maximum: Some(RECEIVE_MAX),
            max_packet_size: Some(settings.packet_bytes_max),
            ..ConnectProperties::new()
        }),
    };
    let login = login.map(|(username, password)| Login::new(username, password));
    encode(&Wire::Connect(connect, None, login))
}

/// SUBSCRIBE at QoS 1. Retain As Published lets RETAIN say what the publisher set (3.8.3.1). That
/// leaves nothing on a message to tell a stored one by, so to skip those the broker must not send
/// any: Retain Handling 2. (1 would send them with each new session: old alarms would fire again
/// after the broker lost its state.) To take them: 1, so that a reconnect does not bring them again.
pub(super) fn subscribe(filters: &[String], retained: RetainedPolicy) -> BytesMut {
    let retain_forward_rule = match retained {
        RetainedPolicy::Skip => RetainForwardRule::Never,
        RetainedPolicy::Take => RetainForwardRule::OnNewSubscribe,
    };
    let filters = filters.iter().map(|path| Filter {
        path: path.clone(),
        qos: QoS::AtLeastOnce,
        nolocal: false,
        preserve_retain: true,
        retain_forward_rule: retain_forward_rule.clone(),
    });
    encode(&Wire::Subscribe(Subscribe {
        pkid: SUBSCRIBE_ID,
        filters: filters.collect(),
        properties: None,
    }))
}

/// The configuration has checked what could be too long for a packet.
fn encode(packet: &Wire) -> BytesMut {
    let mut bytes = BytesMut::new();
    if let Err(error) = packet.write(&mut bytes, None) {
        tracing::error!("a packet for the source's broker could not be made: {error}");
    }
    bytes
}

/// The first packet of what was read.
pub(super) fn decode(input: &mut BytesMut, packet_bytes_max: u32) -> Decoded {
    match Wire::read(input, Some(packet_bytes_max)) {
        Ok(packet) => understand(packet).map_err(Incomplete::Fault),
        Err(Error::InsufficientBytes(_)) => Err(Incomplete::Short),
        Err(Error::PayloadSizeLimitExceeded { .. }) => Err(Incomplete::TooLarge),
        Err(error) => Err(Incomplete::Fault(Fault::Protocol(error.to_string()))),
    }
}

fn understand(packet: Wire) -> Result<Packet, Fault> {
    Ok(match packet {
        Wire::ConnAck(connack) if connack.code == ConnectReturnCode::Success => Packet::Connack {
            session_present: connack.session_present,
            keep_alive: connack
                .properties
                .and_then(|properties| properties.server_keep_alive)
                .map(|seconds| Duration::from_secs(seconds.into())),
        },
        Wire::ConnAck(connack) => return Err(Fault::Refused(format!("{:?}", connack.code))),
        Wire::SubAck(suback) => Packet::Heard(Heard::Subscribed(
            suback.return_codes.into_iter().map(refusal).collect(),
        )),
        Wire::Publish(publish) => Packet::Heard(Heard::Published(publication(publish)?)),
        Wire::Disconnect(disconnect) => {
            let why = format!("the broker said goodbye: {:?}", disconnect.reason_code);
            return Err(Fault::Broken(why));
        }
        _ => Packet::Heard(Heard::Alive),
    })
}

fn refusal(code: SubscribeReasonCode) -> Option<String> {
    match code {
        SubscribeReasonCode::Success(_) => None,
        refused => Some(format!("{refused:?}")),
    }
}

fn publication(publish: Publish) -> Result<Publication, Fault> {
    Ok(Publication {
        packet_bytes: publish.size(),
        packet_id: match publish.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(publish.pkid),
            QoS::ExactlyOnce => return Err(qos2()),
        },
        topic: publish.topic,
        payload: publish.payload,
        properties: publish.properties,
        dup: publish.dup,
        retain: publish.retain,
    })
}
