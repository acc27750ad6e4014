//! What the listener knows of one client id: its unanswered messages by packet identifier, and so
//! whether a PUBLISH is new, a resend, or a misuse of an identifier that still names another
//! message. In come packet identifiers, fingerprints and the relay's answers; out goes what to do.
//! It outlives connections (MQTT 5, 4.1), holds no message, and does no input or output.
//!
//! A server may acknowledge in the order in which messages become safe: the ordering rules of MQTT
//! (5, 4.6) bind the client that acknowledges, not the server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use crate::traffic::lanes::Answer;
use crate::traffic::message::QoS;

/// Most QoS 2 messages of one session that wait for PUBREL. MQTT 5 clients are bounded by Receive
/// Maximum before; a 3.1.1 client that leaves so many open never releases any.
pub const RELEASES_MAX: usize = 8 * 1024;

/// Answers of one session that may be remembered between being given and being in the socket; more
/// only cost a repeat when the connection breaks just then.
const UNSAID_MAX: usize = 1024;
/// Of how many the room is kept when all are in the socket: what a window of hundreds needed once would
/// stay with each connection.
const UNSAID_KEPT: usize = 32;

/// What one PUBLISH with a packet identifier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A new message: admit it under this token.
    New {
        /// The message's name towards the relay.
        token: u32,
    },
    /// A resend of a message that the relay has not answered yet: nothing to do, its answer will
    /// come.
    Waiting,
    /// A resend of a message that is answered already: say so again.
    Answered(Reply),
    /// The packet identifier still names another message (MQTT 5: 0x91).
    InUse,
}

/// What a client is told about one of its messages: PUBACK or PUBREC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Which message.
    pub packet_id: u16,
    /// Its QoS.
    pub qos: QoS,
    /// What to tell.
    pub answer: Answer,
}

/// A PUBLISH with a packet identifier, as far as a session looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Packet identifier.
    pub packet_id: u16,
    /// Quality of service, not 0.
    pub qos: QoS,
    /// DUP.
    pub dup: bool,
    /// See [`fingerprint`].
    pub fingerprint: u64,
    /// What the message takes in memory, about, in bytes.
    pub bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The relay has it.
    Unanswered,
    /// Answered while the client was away; it will ask.
    Untold(Answer),
    /// PUBREC is said, PUBREL is awaited.
    Received,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    fingerprint: u64,
    token: u32,
    bytes: u32,
    /// The connection on which the client last sent it.
    connection: u32,
    qos: QoS,
    state: State,
}

/// The state of one client id.
#[derive(Debug, Default)]
pub struct Session {
    pending: HashMap<u16, Pending, PacketIds>,
    /// Unanswered messages whose packet identifier names a newer one (the device was rebooted), by
    /// token.
    displaced: HashMap<u32, u32>,
    /// Final answers that are not in the socket yet.
    unsaid: Vec<(u16, Pending)>,
    unanswered_bytes: u64,
    unanswered: usize,
    in_flight: usize,
    releases: usize,
    connection: u32,
    connected: bool,
    /// The upper half of tokens: tells messages of one packet identifier apart.
    generation: u16,
}

impl Session {
    /// Messages that the relay has not answered.
    #[must_use]
    pub const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// What they take in memory, about, in bytes.
    #[must_use]
    pub const fn unanswered_bytes(&self) -> u64 {
        self.unanswered_bytes
    }

    /// Messages of this connection for which the client awaits PUBACK or PUBCOMP: what Receive
    /// Maximum bounds (MQTT 5, 4.9).
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// QoS 2 messages that wait for PUBREL.
    #[must_use]
    pub const fn releases(&self) -> usize {
        self.releases
    }

    /// A connection takes the session up.
    pub fn connect(&mut self) {
        self.connection = self.connection.wrapping_add(1);
        self.connected = true;
        self.in_flight = 0;
    }

    /// Every answer so far is in the socket. Whether it arrives is not known; if not, the client's
    /// resend is a repeat, as QoS 1 allows.
    #[inline]
    pub fn said(&mut self) {
        self.unsaid.clear();
        self.unsaid.shrink_to(UNSAID_KEPT);
    }

    /// The connection is gone. Answers that nobody asked for are kept while there are few: a client
    /// that resends nothing in all its connections would pile them up.
    pub fn park(&mut self) {
        self.connected = false;
        for (packet_id, pending) in std::mem::take(&mut self.unsaid) {
            self.pending.entry(packet_id).or_insert(pending);
        }
        if self.pending.len() > RELEASES_MAX {
            self.pending
                .retain(|_, pending| !matches!(pending.state, State::Untold(_)));
        }
        self.release_memory();
    }

    /// What to do with a PUBLISH of QoS 1 or 2. A resend is recognised by session, DUP, packet
    /// identifier, topic, payload and QoS together; anything else under a known identifier is a new
    /// message of a rebooted device when it comes on a new connection, and a misuse on the same.
    #[inline]
    pub fn arrive(&mut self, sent: Sent) -> Arrival {
        let connection = self.connection;
        let entry = match self.pending.entry(sent.packet_id) {
            Entry::Vacant(entry) => {
                let token = token(self.generation, sent.packet_id, &self.displaced);
                self.unanswered += 1;
                self.in_flight += 1;
                self.unanswered_bytes += u64::from(sent.bytes);
                entry.insert(sent.pending(token, connection));
                return Arrival::New { token };
            }
            Entry::Occupied(entry) => *entry.get(),
        };
        let same = entry.fingerprint == sent.fingerprint && entry.qos == sent.qos;
        if sent.dup && same {
            self.resent(sent.packet_id, entry)
        } else if entry.connection == connection {
            Arrival::InUse
        } else {
            self.displace(sent.packet_id, entry);
            self.arrive(sent)
        }
    }

    fn resent(&mut self, packet_id: u16, mut pending: Pending) -> Arrival {
        if pending.connection != self.connection {
            pending.connection = self.connection;
            self.in_flight += 1;
            self.pending.insert(packet_id, pending);
        }
        let answer = match pending.state {
            State::Unanswered => return Arrival::Waiting,
            State::Received => Answer::Accepted,
            State::Untold(answer) => {
                self.told(packet_id, pending, answer);
                answer
            }
        };
        Arrival::Answered(Reply {
            packet_id,
            qos: pending.qos,
            answer,
        })
    }

    /// The packet identifier names a newer message from now on.
    fn displace(&mut self, packet_id: u16, old: Pending) {
        self.pending.remove(&packet_id);
        match old.state {
            State::Unanswered => {
                self.displaced.insert(old.token, old.bytes);
                self.generation = self.generation.wrapping_add(1);
            }
            State::Received => self.releases -= 1,
            State::Untold(_) => {}
        }
    }

    /// The relay answered. `None`: there is nobody to tell now.
    #[inline]
    pub fn answer(&mut self, token: u32, answer: Answer) -> Option<Reply> {
        let packet_id = (token & 0xFFFF) as u16;
        let pending = match self.pending.get_mut(&packet_id) {
            Some(pending) if pending.token == token && pending.state == State::Unanswered => {
                pending
            }
            _ => {
                self.answer_displaced(token);
                return None;
            }
        };
        self.unanswered -= 1;
        self.unanswered_bytes -= u64::from(pending.bytes);
        if !self.connected || pending.connection != self.connection {
            pending.state = State::Untold(answer);
            return None;
        }
        let pending = *pending;
        self.told(packet_id, pending, answer);
        Some(Reply {
            packet_id,
            qos: pending.qos,
            answer,
        })
    }

    fn answer_displaced(&mut self, token: u32) {
        if let Some(bytes) = self.displaced.remove(&token) {
            self.unanswered -= 1;
            self.unanswered_bytes -= u64::from(bytes);
        }
    }

    /// The client is told. QoS 2 goes on with PUBREL, unless it was refused: a PUBREC with an error
    /// frees the identifier (MQTT 5, 4.3.3). 3.1.1 clients, which cannot be refused, send a PUBREL
    /// for it all the same and get their PUBCOMP as for any unknown identifier.
    #[inline]
    fn told(&mut self, packet_id: u16, pending: Pending, answer: Answer) {
        if pending.qos == QoS::ExactlyOnce && answer == Answer::Accepted {
            self.releases += 1;
            self.pending.insert(
                packet_id,
                Pending {
                    state: State::Received,
                    ..pending
                },
            );
        } else {
            self.pending.remove(&packet_id);
            self.in_flight = self.in_flight.saturating_sub(1);
            if self.unsaid.len() < UNSAID_MAX {
                let state = State::Untold(answer);
                self.unsaid.push((packet_id, Pending { state, ..pending }));
            }
        }
    }

    /// PUBREL. False: the identifier names nothing (MQTT 5: PUBCOMP with 0x92).
    pub fn release(&mut self, packet_id: u16) -> bool {
        match self.pending.get(&packet_id) {
            Some(pending) if pending.state == State::Received => {
                let here = pending.connection == self.connection;
                self.in_flight = self.in_flight.saturating_sub(usize::from(here));
                self.pending.remove(&packet_id);
                self.releases -= 1;
                true
            }
            _ => false,
        }
    }

    /// A message is not kept: it is forgotten untold, and its resend is a new message. True: the
    /// client has sent it on this connection, as a resend at the latest, and so does not send it
    /// again before the next (MQTT 5, 4.4): only the end of the connection brings it back.
    #[must_use]
    pub fn returned(&mut self, token: u32) -> bool {
        let packet_id = (token & 0xFFFF) as u16;
        match self.pending.get(&packet_id) {
            Some(pending) if pending.token == token && pending.state == State::Unanswered => {
                let here = self.connected && pending.connection == self.connection;
                self.unanswered -= 1;
                self.unanswered_bytes -= u64::from(pending.bytes);
                self.in_flight = self.in_flight.saturating_sub(usize::from(here));
                self.pending.remove(&packet_id);
                self.generation = self.generation.wrapping_add(1);
                here
            }
            _ => {
                self.answer_displaced(token);
                false
            }
        }
    }

    /// Gives memory of past bursts back.
    pub fn release_memory(&mut self) {
        self.pending.shrink_to_fit();
        self.displaced.shrink_to_fit();
        self.unsaid.shrink_to_fit();
    }
}

impl Sent {
    const fn pending(&self, token: u32, connection: u32) -> Pending {
        Pending {
            fingerprint: self.fingerprint,
            token,
            bytes: self.bytes,
            connection,
            qos: self.qos,
            state: State::Unanswered,
        }
    }
}

/// A token that no unanswered message of the session has: no pending message has this packet
/// identifier, and displaced ones are looked at.
#[inline]
fn token(mut generation: u16, packet_id: u16, displaced: &HashMap<u32, u32>) -> u32 {
    loop {
        let token = u32::from(generation) << 16 | u32::from(packet_id);
        if displaced.is_empty() || !displaced.contains_key(&token) {
            return token;
        }
        generation = generation.wrapping_add(1);
    }
}

/// What tells a resend from another message under the same packet identifier: 64 bits over topic
/// and payload, eight bytes at a step. It is not secret: a client that makes two messages collide
/// loses one of its own.
#[must_use]
#[inline]
pub fn fingerprint(topic: &str, payload: &[u8]) -> u64 {
    let topic = fold(0x9E37_79B9_7F4A_7C15, topic.as_bytes());
    fold(topic, payload)
}

#[inline]
fn fold(seed: u64, bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut hash = mix(seed, bytes.len() as u64);
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(tail) {
        *to = *from;
    }
    mix(hash, u64::from_le_bytes(last))
}

/// A multiplication folded onto itself: every bit of the word reaches every bit of the hash.
#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    let wide = u128::from(hash ^ word ^ 0xA076_1D64_78BD_642F) * 0xE703_7ED1_A0B4_28DB;
    (wide as u64) ^ ((wide >> 64) as u64) ^ hash.rotate_left(23)
}

type PacketIds = BuildHasherDefault<PacketIdHasher>;

/// Packet identifiers are small and mostly consecutive: one multiplication spreads them well, and
/// there are too few of them for a client to gain by collisions.
#[derive(Debug, Default)]
struct PacketIdHasher(u64);

impl Hasher for PacketIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u16(u16::from(byte));
        }
    }

    fn write_u16(&mut self, id: u16) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[cfg(test)]
mod tests;
