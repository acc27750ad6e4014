//! The packets of MQTT 3.1.1.

use bytes::BytesMut;
use rumqttc::mqttbytes::Error;
use rumqttc::{
    Connect, ConnectReturnCode, Login, Packet as Wire, Publish, QoS, Subscribe, SubscribeFilter,
    SubscribeReasonCode,
};

use super::{Decoded, Fault, Heard, Incomplete, Packet, SUBSCRIBE_ID, keep_alive, qos2};
use crate::traffic::accept::SourceSettings;
use crate::traffic::accept::source::intake::Publication;

/// CONNECT for a session that the broker keeps.
pub(super) fn connect(
    settings: &SourceSettings,
    client_id: &str,
    login: Option<(String, String)>,
) -> BytesMut {
    let mut connect = Connect::new(client_id);
    connect.clean_session = false;
    connect.keep_alive = u16::try_from(keep_alive(settings).as_secs()).unwrap_or(u16::MAX);
    connect.login = login.map(|(username, password)| Login::new(username, password));
    encode(&Wire::Connect(connect))
}

/// SUBSCRIBE at QoS 1.
pub(super) fn subscribe(filters: &[String]) -> BytesMut {
    let filters = filters
        .iter()
        .map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
    let mut subscribe = Subscribe::new_many(filters);
    subscribe.pkid = SUBSCRIBE_ID;
    encode(&Wire::Subscribe(subscribe))
}

/// The configuration has checked what could be too long for a packet.
fn encode(packet: &Wire) -> BytesMut {
    let mut bytes = BytesMut::new();
    if let Err(error) = packet.write(&mut bytes, usize::MAX) {
        tracing::error!("a packet for the source's broker could not be made: {error}");
    }
    bytes
}

/// The first packet of what was read.
pub(super) fn decode(input: &mut BytesMut, packet_bytes_max: u32) -> Decoded {
    match Wire::read(input, packet_bytes_max as usize) {
        Ok(packet) => understand(packet).map_err(Incomplete::Fault),
        Err(Error::InsufficientBytes(_)) => Err(Incomplete::Short),
        Err(Error::PayloadSizeLimitExceeded(_)) => Err(Incomplete::TooLarge),
        Err(error) => Err(Incomplete::Fault(Fault::Protocol(error.to_string()))),
    }
}

fn understand(packet: Wire) -> Result<Packet, Fault> {
    Ok(match packet {
        Wire::ConnAck(connack) if connack.code == ConnectReturnCode::Success => Packet::Connack {
            session_present: connack.session_present,
            keep_alive: None,
        },
        Wire::ConnAck(connack) => return Err(Fault::Refused(format!("{:?}", connack.code))),
        Wire::SubAck(suback) => Packet::Heard(Heard::Subscribed(
            suback.return_codes.into_iter().map(refusal).collect(),
        )),
        Wire::Publish(publish) => Packet::Heard(Heard::Published(publication(publish)?)),
        _ => Packet::Heard(Heard::Alive),
    })
}

fn refusal(code: SubscribeReasonCode) -> Option<String> {
    (code == SubscribeReasonCode::Failure).then(|| "failure".to_owned())
}

fn publication(publish: Publish) -> Result<Publication, Fault> {
    Ok(Publication {
        packet_bytes: publish.size(),
        packet_id: match publish.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(publish.pkid),
            QoS::ExactlyOnce => return Err(qos2()),
        },
        topic: publish.topic.into(),
        payload: publish.payload,
        properties: None,
        dup: publish.dup,
        retain: publish.retain,
    })
}
