//! What becomes of a publication that a broker brought: a classified message, or nothing, with the
//! reason. Payload and properties are copied out of the read buffer here, and only here. It does no
//! input or output and never fails.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::traffic::accept::{Protocol, RetainedPolicy, SourceSettings};
use crate::traffic::classify::{Classifier, Rules};
use crate::traffic::message::{Body, DoorId, Message, QoS, Receipt, Tick};

/// A PUBLISH as the library read it; it pins the read buffer, so it is short-lived.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    pub(super) properties: Option<PublishProperties>,
    /// `None`: QoS 0.
    pub(super) packet_id: Option<u16>,
    pub(super) dup: bool,
    pub(super) retain: bool,
    /// Size of the whole packet.
    pub(super) packet_bytes: usize,
}

/// Which of a source's two connections. Both are subscribed to everything; each topic belongs to
/// one of them, so that a flood in one TCP stream does not hold an alarm in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// The topics that a rule for a guaranteed class can reach.
    Urgent,
    /// All others.
    Rest,
}

impl Share {
    /// Both.
    pub(super) const BOTH: [Self; 2] = [Self::Urgent, Self::Rest];

    /// Its word in client ids and logs.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Rest => "rest",
        }
    }
}

/// Why a publication is acknowledged and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// The other connection has it too, and takes it.
    NotOurs,
    /// A retained message that the broker sent because of the subscription.
    Retained,
    /// Its topic breaks a rule of MQTT or a limit.
    Topic(&'static str),
    /// Larger than `packet_max`; only where the broker cannot be told (MQTT 3.1.1).
    TooLarge(usize),
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs => f.write_str("the other connection takes it"),
            Self::Retained => f.write_str("it is retained"),
            Self::Topic(why) => write!(f, "its topic {why}"),
            Self::TooLarge(bytes) => write!(f, "its packet has {bytes} bytes"),
        }
    }
}

/// One connection's view of what comes.
#[derive(Debug)]
pub(super) struct Intake {
    settings: Arc<SourceSettings>,
    share: Share,
    rules: Arc<Rules>,
    classifier: Classifier,
}

impl Intake {
    /// The view of the connection that owns `share`.
    pub(super) fn new(settings: Arc<SourceSettings>, share: Share, rules: Arc<Rules>) -> Self {
        Self {
            settings,
            share,
            classifier: Classifier::new(Arc::clone(&rules)),
            rules,
        }
    }

    /// The message that this publication is, without a token. With `any_share` a resend is taken
    /// whomever its topic belongs to.
    pub(super) fn message(
        &mut self,
        publication: &Publication,
        door: DoorId,
        any_share: bool,
        now: Tick,
    ) -> Result<Message, Dropped> {
        let topic = self.topic(publication)?;
        if !(self.owns(topic) || any_share && publication.dup) {
            return Err(Dropped::NotOurs);
        }
        if publication.packet_bytes > self.settings.packet_bytes_max as usize {
            return Err(Dropped::TooLarge(publication.packet_bytes));
        }
        if self.is_stale(publication) {
            return Err(Dropped::Retained);
        }
        let verdict = self.classifier.classify(topic, &publication.payload);
        let expires = verdict.ttl.map_or(Tick::NEVER, |ttl| now.after(ttl));
        let properties = publication.properties.as_ref();
        let encoded = properties
            .map(super::properties::encode)
            .unwrap_or_default();
        let publisher_expires = super::properties::expiry(properties, now);
        let body = Body::new(topic, &encoded, &publication.payload);
        let receipt = Receipt { door, token: None };
        Ok(Message {
            key: verdict.key,
            qos: match publication.packet_id {
                Some(_) => QoS::AtLeastOnce,
                None => QoS::AtMostOnce,
            },
            retain: publication.retain,
            expires: expires.min(publisher_expires),
            publisher_expires,
            ..Message::new(body, verdict.class, now, receipt)
        })
    }

    /// Payloads that a condition could not read since the last call.
    pub(super) fn take_unreadable(&mut self) -> u32 {
        self.classifier.take_unreadable()
    }

    /// Topics that were forgotten since the last call.
    pub(super) fn take_forgotten(&mut self) -> u32 {
        self.classifier.take_forgotten()
    }

    fn owns(&self, topic: &str) -> bool {
        self.rules.guaranteed_can_reach(topic) == (self.share == Share::Urgent)
    }

    /// In MQTT 3.1.1 a message that is delivered with RETAIN was stored (3.3.1.3). In MQTT 5 with
    /// Retain As Published RETAIN says only what the publisher set: there the broker is told with
    /// Retain Handling not to send stored ones.
    fn is_stale(&self, publication: &Publication) -> bool {
        publication.retain
            && self.settings.protocol == Protocol::V311
            && self.settings.retained == RetainedPolicy::Skip
    }

    /// The topic, if it is one (MQTT 5, 3.3.2.1 and 4.7) within the limits.
    fn topic<'a>(&self, publication: &'a Publication) -> Result<&'a str, Dropped> {
        let topic =
            std::str::from_utf8(&publication.topic).map_err(|_| Dropped::Topic("is not UTF-8"))?;
        if topic.is_empty() {
            return Err(Dropped::Topic("is empty"));
        }
        if topic.contains(['+', '#', '\0']) {
            return Err(Dropped::Topic("has a wildcard or NUL in it"));
        }
        if topic.len() > self.settings.topic_bytes_max {
            return Err(Dropped::Topic("is longer than topic_bytes_max"));
        }
        if topic.split('/').count() > self.settings.topic_levels_max {
            return Err(Dropped::Topic("has more levels than topic_levels_max"));
        }
        Ok(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::message::ClassId;

    fn intake(share: Share) -> Intake {
        let rules = Rules::compile(&[], &[], ClassId(1), 1 << 20).unwrap();
        let settings = SourceSettings {
            name: "source 1".into(),
            remote: crate::traffic::send::RemoteSettings {
                host: "h".into(),
                port: 1,
                tls: None,
                username: None,
                password: None,
                connect_timeout: std::time::Duration::ZERO,
                keep_alive: std::time::Duration::ZERO,
            },
            topics: vec!["#".into()],
            protocol: Protocol::V5,
            client_id: "c".into(),
            retained: RetainedPolicy::Skip,
            packet_bytes_max: 100,
            topic_bytes_max: 10,
            topic_levels_max: 3,
            hold_max: std::time::Duration::ZERO,
        };
        Intake::new(Arc::new(settings), share, Arc::new(rules))
    }

    fn taken(
        share: Share,
        topic: &'static [u8],
        dup: bool,
        any_share: bool,
    ) -> Result<(), Dropped> {
        let publication = Publication {
            topic: Bytes::from_static(topic),
            payload: Bytes::from_static(b"x"),
            properties: None,
            packet_id: Some(1),
            dup,
            retain: true,
            packet_bytes: 10,
        };
        let door = DoorId {
            index: 0,
            generation: 0,
        };
        let message = intake(share).message(&publication, door, any_share, Tick::ZERO);
        message.map(drop)
    }

    /// A topic that the urgent connection owned belongs to the other after a restart with other
    /// rules. The other has dropped its copy long ago: the resend is the only one left.
    #[test]
    fn does_a_change_of_rules_lose_what_was_not_acknowledged() {
        assert_eq!(taken(Share::Rest, b"a", false, true), Ok(()));
        assert_eq!(
            taken(Share::Urgent, b"a", false, true),
            Err(Dropped::NotOurs)
        );
        assert_eq!(
            taken(Share::Urgent, b"a", true, false),
            Err(Dropped::NotOurs)
        );
        assert_eq!(taken(Share::Urgent, b"a", true, true), Ok(()));
    }

    #[test]
    fn which_topics_are_none() {
        for topic in [
            &b""[..],
            b"a/+",
            b"#",
            b"a\0",
            b"\xff",
            b"a/b/c/d",
            b"12345678901",
        ] {
            let dropped = taken(Share::Rest, topic, false, false);
            assert!(
                matches!(dropped, Err(Dropped::Topic(_))),
                "{topic:?}: {dropped:?}"
            );
        }
        assert_eq!(taken(Share::Rest, b"/a/b", false, false), Ok(()));
    }
}
