//! MQTT 5 over rumqttc. Topic aliases are never announced: the library loses the topic of the
//! second message that uses one.

use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, Filter, Packet, Publish, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error as CodecError, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, Outgoing, Transport};

use super::{Fault, Heard, REQUESTS_MAX, connect_timeout_seconds, host, keep_alive};
use crate::traffic::accept::source::intake::Publication;
use crate::traffic::accept::source::remote::Access;
use crate::traffic::accept::{RetainedPolicy, SourceSettings};

pub(super) type Client = AsyncClient;
pub(super) type Wire = EventLoop;

/// How long the broker keeps our session while we are away (MQTT 5, 3.1.2.11.2): a week, as long as
/// a box may lie unpowered over holidays. The broker may shorten it.
const SESSION_EXPIRY_SECONDS: u32 = 7 * 24 * 3600;
/// Unacknowledged publishes that the broker may have on the way (MQTT 5, 3.1.2.11.3): enough for
/// 400 messages a second at a satellite's 600 ms. A hint; [`super::super::UNANSWERED_MAX`] binds.
const RECEIVE_MAX: u16 = 256;

pub(super) fn open(settings: &SourceSettings, client_id: &str, access: Access) -> (Client, Wire) {
    let mut options = MqttOptions::new(client_id, host(settings), settings.remote.port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_clean_start(false)
        .set_manual_acks(true)
        .set_keep_alive(keep_alive(settings))
        .set_connection_timeout(connect_timeout_seconds(settings))
        .set_connect_properties(ConnectProperties {
            session_expiry_interval: Some(SESSION_EXPIRY_SECONDS),
            receive_maximum: Some(RECEIVE_MAX),
            max_packet_size: Some(settings.packet_bytes_max),
            ..ConnectProperties::new()
        })
        // We publish nothing; without this the library sets 65,536 slots aside for it.
        .set_outgoing_inflight_upper_limit(1)
        .set_network_options(network);
    if let Some((username, password)) = access.login {
        options.set_credentials(username, password);
    }
    if let Some(tls) = access.tls {
        options.set_transport(Transport::tls_with_config(tls.into()));
    }
    AsyncClient::new(options, REQUESTS_MAX)
}

/// Retain As Published lets RETAIN say what the publisher set (3.8.3.1). That leaves nothing on a
/// message to tell a stored one by, so to skip them the broker must not send any: Retain Handling
/// 2. (1 would send them with each new session: old alarms would fire again after a broker lost its
/// state.) To take them: 1, so that a reconnect does not bring them again.
pub(super) fn subscribe(client: &Client, filters: &[String], retained: RetainedPolicy) -> bool {
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
    client.try_subscribe_many(filters).is_ok()
}

pub(super) fn acknowledge(client: &Client, packet_id: u16) -> bool {
    let publish = Publish {
        qos: QoS::AtLeastOnce,
        pkid: packet_id,
        ..Publish::default()
    };
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
            QoS::ExactlyOnce => {
                return Err(Fault::Protocol("it delivers at QoS 2, we subscribed at 1"));
            }
        },
        topic: publish.topic,
        payload: publish.payload,
        properties: publish.properties,
        dup: publish.dup,
        retain: publish.retain,
    })
}

fn fault(error: ConnectionError) -> Fault {
    match error {
        ConnectionError::ConnectionRefused(code) => Fault::Refused(format!("{code:?}")),
        ConnectionError::MqttState(StateError::Deserialization(
            CodecError::PayloadSizeLimitExceeded { pkt_size, .. },
        )) => Fault::TooLarge(pkt_size),
        ConnectionError::Timeout(_) => Fault::Broken("no answer within connect_timeout".into()),
        other => Fault::Broken(other.to_string()),
    }
}
