//! MQTT 3.1.1 over rumqttc.

use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, Publish, QoS,
    StateError, SubscribeFilter, SubscribeReasonCode, Transport,
};

use super::{
    Fault, Heard, OUTGOING_BYTES_MAX, REQUESTS_MAX, connect_timeout_seconds, host, keep_alive,
};
use crate::traffic::accept::SourceSettings;
use crate::traffic::accept::source::intake::Publication;
use crate::traffic::accept::source::remote::Access;

pub(super) type Client = AsyncClient;
pub(super) type Wire = EventLoop;

/// A 3.1.1 client cannot announce how large a packet it takes, and a message that is not read is
/// brought again for ever. So packets up to this many times `packet_max` are read, reported and
/// dropped; only beyond it the connection stands still until the operator helps.
const READ_FACTOR: usize = 4;

pub(super) fn open(settings: &SourceSettings, client_id: &str, access: Access) -> (Client, Wire) {
    let mut options = MqttOptions::new(client_id, host(settings), settings.remote.port);
    let read_bytes_max = (settings.packet_bytes_max as usize).saturating_mul(READ_FACTOR);
    options
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_keep_alive(keep_alive(settings))
        .set_inflight(1)
        .set_max_packet_size(read_bytes_max, OUTGOING_BYTES_MAX);
    if let Some((username, password)) = access.login {
        options.set_credentials(username, password);
    }
    if let Some(tls) = access.tls {
        options.set_transport(Transport::tls_with_config(tls.into()));
    }
    let (client, mut wire) = AsyncClient::new(options, REQUESTS_MAX);
    wire.network_options.set_tcp_nodelay(true);
    wire.network_options
        .set_connection_timeout(connect_timeout_seconds(settings));
    (client, wire)
}

pub(super) fn subscribe(client: &Client, filters: &[String]) -> bool {
    let filters = filters
        .iter()
        .map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
    client.try_subscribe_many(filters).is_ok()
}

pub(super) fn acknowledge(client: &Client, packet_id: u16) -> bool {
    let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
    publish.pkid = packet_id;
    client.try_ack(&publish).is_ok()
}

pub(super) async fn hear(wire: &mut Wire) -> Result<Vec<Heard>, Fault> {
    let first = wire.poll().await.map_err(fault)?;
    let events = std::iter::once(first).chain(wire.state.events.drain(..));
    events
        .filter_map(|event| heard(event).transpose())
        .collect()
}

fn heard(event: Event) -> Result<Option<Heard>, Fault> {
    Ok(Some(match event {
        Event::Incoming(Packet::ConnAck(connack)) => Heard::Connected {
            session_present: connack.session_present,
        },
        Event::Incoming(Packet::SubAck(suback)) => {
            Heard::Subscribed(suback.return_codes.into_iter().map(refusal).collect())
        }
        Event::Incoming(Packet::Publish(publish)) => Heard::Published(publication(publish)?),
        Event::Outgoing(Outgoing::Disconnect) => Heard::Goodbye,
        _ => return Ok(None),
    }))
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
            QoS::ExactlyOnce => {
                return Err(Fault::Protocol("it delivers at QoS 2, we subscribed at 1"));
            }
        },
        topic: publish.topic.into(),
        payload: publish.payload,
        properties: None,
        dup: publish.dup,
        retain: publish.retain,
    })
}

fn fault(error: ConnectionError) -> Fault {
    match error {
        ConnectionError::ConnectionRefused(code) => Fault::Refused(format!("{code:?}")),
        ConnectionError::MqttState(StateError::Deserialization(
            CodecError::PayloadSizeLimitExceeded(bytes),
        )) => Fault::TooLarge(bytes),
        ConnectionError::NetworkTimeout => Fault::Broken("no answer within connect_timeout".into()),
        other => Fault::Broken(other.to_string()),
    }
}
