//! What a connection does with the packets it has read: messages are classified and go to their
//! lane, everything else is answered here. No input or output, no waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, Ending};
use super::greet::check_topic;
use crate::traffic::accept::decode::{Fault, Packet, Publish, frame, packet, reason};
use crate::traffic::accept::encode;
use crate::traffic::accept::session::{Arrival, RELEASES_MAX, Reply, Sent, fingerprint};
use crate::traffic::accept::{Protocol, SubscribePolicy};
use crate::traffic::classify::Verdict;
use crate::traffic::lanes::{Answer, Refusal};
use crate::traffic::message::{Body, ClassId, Message, QoS, Receipt, Tick};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes whole packets from the buffer while there is room for what they bring. True: it
    /// stopped for want of room.
    pub(super) fn take_packets(&mut self, now: Tick) -> Result<bool, Ending> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let taken = loop {
            if self.is_full() {
                break Ok(true);
            }
            let unread = buffer.unread();
            let (first, body, len) = match frame(unread, self.shared.settings.packet_bytes_max) {
                Ok(Some(frame)) => match frame.body(unread) {
                    Some(body) => (frame.first, body, frame.total_len),
                    None => break Ok(false),
                },
                Ok(None) => break Ok(false),
                Err(fault) => break Err(fault.into()),
            };
            if let Err(ending) = self.take_packet(first, body, now) {
                break Err(ending);
            }
            buffer.take(len);
            self.unfinished_since = None;
        };
        self.buffer = buffer;
        taken
    }

    #[inline]
    fn take_packet(&mut self, first: u8, body: &[u8], now: Tick) -> Result<(), Ending> {
        match packet(first, body, self.voice.protocol)? {
            Packet::Publish(publish) => self.take_publish(&publish, now)?,
            Packet::Release { packet_id } => self.take_release(packet_id),
            Packet::Subscribe { packet_id, filters } => {
                let codes: Vec<u8> = filters
                    .asked()
                    .map(|qos| self.subscribe_code(qos))
                    .collect();
                let said = encode::suback(&mut self.out, self.voice, packet_id, &codes);
                fits(said)?;
            }
            Packet::Unsubscribe { packet_id, filters } => {
                let codes = vec![self.unsubscribe_code(); filters];
                let said = encode::unsuback(&mut self.out, self.voice, packet_id, &codes);
                fits(said)?;
            }
            Packet::Ping => encode::pingresp(&mut self.out),
            Packet::Disconnect {
                reason,
                session_expiry_seconds,
            } => return Err(self.take_disconnect(reason, session_expiry_seconds)),
        }
        Ok(())
    }

    #[inline]
    fn take_publish(&mut self, publish: &Publish<'_>, now: Tick) -> Result<(), Fault> {
        let named;
        let topic = match publish.alias {
            None => publish.topic,
            Some(alias) => {
                named = self.resolve(alias, publish.topic)?;
                &named
            }
        };
        check_topic(topic, &self.shared.settings)?;
        if publish.qos == QoS::AtMostOnce {
            self.admit(topic, publish, None, now);
            return Ok(());
        }
        self.check_receive_max()?;
        let sent = Sent {
            packet_id: publish.packet_id,
            qos: publish.qos,
            dup: publish.dup,
            fingerprint: fingerprint(topic, publish.payload),
            bytes: u32::try_from(size_of::<Message>() + topic.len() + publish.content_bytes())
                .unwrap_or(u32::MAX),
        };
        match self.kept.session.arrive(sent) {
            Arrival::New { token } => self.admit(topic, publish, Some(token), now),
            Arrival::Waiting => {}
            Arrival::Answered(reply) => self.reply(reply),
            Arrival::InUse => self.refuse_packet_id(publish)?,
        }
        Ok(())
    }

    /// MQTT 5, 3.3.2.3.4. At most `topic_alias_max` topics of bounded length are remembered.
    fn resolve(&mut self, alias: u16, topic: &str) -> Result<Arc<str>, Fault> {
        if alias > self.shared.settings.topic_alias_max {
            return Err(Fault::new(
                reason::TOPIC_ALIAS_INVALID,
                "used a topic alias above the maximum",
            ));
        }
        if topic.is_empty() {
            return self
                .aliases
                .get(&alias)
                .map(Arc::clone)
                .ok_or(Fault::protocol("used a topic alias that it never set"));
        }
        check_topic(topic, &self.shared.settings)?;
        let topic: Arc<str> = Arc::from(topic);
        self.aliases.insert(alias, Arc::clone(&topic));
        Ok(topic)
    }

    /// MQTT 5, 4.9. A resend on the same connection is not allowed there (4.4), so every PUBLISH
    /// takes a place.
    fn check_receive_max(&self) -> Result<(), Fault> {
        let session = &self.kept.session;
        let receive_max = usize::from(self.shared.settings.receive_max);
        if self.voice.protocol == Protocol::V5 && session.in_flight() >= receive_max {
            return Err(Fault::new(
                reason::RECEIVE_MAX_EXCEEDED,
                "sent more unanswered messages than its Receive Maximum allows",
            ));
        }
        if session.releases() >= RELEASES_MAX {
            return Err(Fault::new(
                reason::RECEIVE_MAX_EXCEEDED,
                "left thousands of QoS 2 messages without PUBREL",
            ));
        }
        Ok(())
    }

    #[inline]
    fn admit(&mut self, topic: &str, publish: &Publish<'_>, token: Option<u32>, now: Tick) {
        let verdict = self.classifier.classify(topic, publish.payload);
        self.pace.took(verdict.class == ClassId::FIRST, now);
        if self.pace.is_paced() {
            self.paced = !self.pace.is_open(now);
        }
        let publisher = publisher_expires(now, publish.expiry_seconds);
        let expires = expires(now, &verdict, publisher);
        let body = Body::new(topic, &publish.forwardable(), publish.payload);
        let receipt = Receipt {
            door: self.kept.door,
            token,
        };
        let message = Message {
            key: verdict.key,
            qos: publish.qos,
            retain: publish.retain,
            expires,
            publisher_expires: publisher,
            ..Message::new(body, verdict.class, now, receipt)
        };
        self.lanes.unsent.push(message);
    }

    /// PUBACK or PUBREC.
    #[inline]
    pub(super) fn reply(&mut self, reply: Reply) {
        let (reason, text) = match reply.answer {
            Answer::Accepted => (0, ""),
            Answer::Refused(Refusal::TooLarge) => (
                reason::IMPLEMENTATION_SPECIFIC,
                "larger than the uplink takes",
            ),
            Answer::Refused(Refusal::Upstream) => (
                reason::IMPLEMENTATION_SPECIFIC,
                "the upstream refuses it for good",
            ),
            Answer::Refused(Refusal::Full) => (reason::QUOTA_EXCEEDED, "no room for its class"),
        };
        self.acknowledge(reply.qos, reply.packet_id, reason, text);
    }

    #[inline]
    fn acknowledge(&mut self, qos: QoS, packet_id: u16, reason: u8, text: &str) {
        let say = match qos {
            QoS::ExactlyOnce => encode::pubrec,
            _ => encode::puback,
        };
        say(&mut self.out, self.voice, packet_id, reason, text);
    }

    fn refuse_packet_id(&mut self, publish: &Publish<'_>) -> Result<(), Fault> {
        if self.voice.protocol == Protocol::V311 {
            return Err(Fault::new(
                reason::PACKET_ID_IN_USE,
                "sent a different message under a packet identifier that is still in use",
            ));
        }
        self.acknowledge(
            publish.qos,
            publish.packet_id,
            reason::PACKET_ID_IN_USE,
            "its packet identifier is still in use",
        );
        Ok(())
    }

    fn take_release(&mut self, packet_id: u16) {
        let known = self.kept.session.release(packet_id);
        let reason = if known {
            0
        } else {
            reason::PACKET_ID_NOT_FOUND
        };
        encode::pubcomp(&mut self.out, self.voice, packet_id, reason);
    }

    /// MQTT 5, 3.14. The session's expiry may be changed, but a session that was to end with the
    /// connection cannot be kept.
    fn take_disconnect(&mut self, reason: u8, session_expiry_seconds: Option<u32>) -> Ending {
        if let Some(seconds) = session_expiry_seconds {
            if seconds > 0 && self.session_expiry.is_zero() {
                return Ending::Fault(Fault::protocol(
                    "asked at DISCONNECT to keep a session that it had asked not to keep",
                ));
            }
            let asked = Duration::from_secs(u64::from(seconds));
            self.session_expiry = asked.min(self.shared.settings.session_expiry_max);
        }
        Ending::Disconnected { will: reason != 0 }
    }

    /// 0x83, "valid, but the Server does not accept it", says best that there is nothing here to
    /// subscribe to; 3.1.1 has 0x80 alone.
    fn subscribe_code(&self, qos: u8) -> u8 {
        match (self.shared.settings.subscribe, self.voice.protocol) {
            (SubscribePolicy::Accept, _) => qos,
            (SubscribePolicy::Refuse, Protocol::V311) => 0x80,
            (SubscribePolicy::Refuse, Protocol::V5) => reason::IMPLEMENTATION_SPECIFIC,
        }
    }

    /// 0x11: no subscription existed.
    fn unsubscribe_code(&self) -> u8 {
        match self.shared.settings.subscribe {
            SubscribePolicy::Accept => 0,
            SubscribePolicy::Refuse => 0x11,
        }
    }
}

/// An answer to a packet of many filters that the client itself does not take.
fn fits(said: bool) -> Result<(), Fault> {
    if said {
        return Ok(());
    }
    Err(Fault::new(
        reason::IMPLEMENTATION_SPECIFIC,
        "sent a packet whose answer exceeds its own Maximum Packet Size",
    ))
}

/// When the publisher's own expiry ends (MQTT 5, 3.3.2.3.3).
#[inline]
pub(super) fn publisher_expires(now: Tick, seconds: Option<u32>) -> Tick {
    seconds.map_or(Tick::NEVER, |seconds| {
        now.after(Duration::from_secs(u64::from(seconds)))
    })
}

/// The earlier of what the rules and what the publisher say.
#[inline]
pub(super) fn expires(now: Tick, verdict: &Verdict, publisher: Tick) -> Tick {
    let rules = verdict.ttl.map_or(Tick::NEVER, |ttl| now.after(ttl));
    rules.min(publisher)
}
