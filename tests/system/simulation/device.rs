//! A simulated device: publishes, keeps what is not acknowledged, stops when it is held, and brings
//! everything unacknowledged again when it reconnects or loses patience.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate::traffic::lanes::{Answer, Batch, Notice};
use tidegate::traffic::message::{Body, ClassId, DoorId, Message, QoS, Receipt, Tick};
use tidegate::traffic::queue::ClassSettings;
use tidegate::traffic::relay::Relay;

use super::{Day, Dice};

/// A device stays unanswered for at most this many messages; one gone mad for more.
const UNANSWERED_MAX: usize = 50;
const MAD_MAX: usize = 500;
/// How long it stays held.
const HOLD_MAX: Duration = Duration::from_secs(30);

pub struct Device {
    pub door: DoorId,
    name: String,
    next: u64,
    token: u32,
    /// Unanswered, by number of the message: its class.
    unanswered: BTreeMap<u64, usize>,
    /// Tokens of this connection, to numbers.
    tokens: HashMap<u32, u64>,
    resend: bool,
    held_since: Option<Tick>,
    acknowledged: Vec<(String, usize)>,
    /// What it was told is not taken.
    refused: HashSet<String>,
    classes: usize,
    payload_bytes: u64,
    /// The most that it publishes in a step.
    burst: u64,
    unanswered_max: usize,
    /// The class that it floods, if it is mad.
    floods: Option<usize>,
}

impl Device {
    pub fn new(index: u64, classes: usize, day: Day, relay: &mut Relay, dice: &mut Dice) -> Self {
        let name = format!("d{index}");
        let floods = match day {
            Day::Flood(class) if index == 0 => Some(class),
            _ => None,
        };
        let busy = floods.is_some() || day == Day::Overload;
        let small = busy || day == Day::SlowLink;
        Self {
            door: relay.open(Arc::from(name.as_str()), dice.permille(200)),
            name,
            next: 0,
            token: 0,
            unanswered: BTreeMap::new(),
            tokens: HashMap::new(),
            resend: false,
            held_since: None,
            acknowledged: Vec::new(),
            refused: HashSet::new(),
            classes,
            payload_bytes: 1 + dice.below(if small { 300 } else { 1500 }),
            burst: if busy { 100 } else { 20 },
            unanswered_max: if busy { MAD_MAX } else { UNANSWERED_MAX },
            floods,
        }
    }

    pub fn is_done(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Whether it was told that a message is not taken.
    pub fn was_refused(&self, identity: &str) -> bool {
        self.refused.contains(identity)
    }

    pub fn acknowledged(&self) -> impl Iterator<Item = (&String, usize)> {
        self.acknowledged
            .iter()
            .map(|(identity, class)| (identity, *class))
    }

    /// A new connection: what is unanswered will be brought again.
    pub fn reconnect(&mut self, relay: &mut Relay) {
        relay.close(self.door);
        self.meet(relay);
    }

    /// The gateway ended and started again.
    pub fn meet(&mut self, relay: &mut Relay) {
        self.door = relay.open(Arc::from(self.name.as_str()), false);
        self.tokens.clear();
        self.held_since = None;
        self.resend = !self.unanswered.is_empty();
    }

    pub fn lose_patience(&mut self, relay: &mut Relay, now: Tick) {
        if self
            .held_since
            .is_some_and(|since| now.since(since) > HOLD_MAX)
        {
            relay.withdraw(self.door, now);
            self.tokens.clear();
            self.held_since = None;
            self.resend = !self.unanswered.is_empty();
        }
    }

    pub fn publish(
        &mut self,
        dice: &mut Dice,
        now: Tick,
        classes: &[ClassSettings],
    ) -> Option<Batch> {
        if self.held_since.is_some() || self.resend || dice.permille(300) {
            return None;
        }
        let mut messages = Vec::new();
        for _ in 0..1 + dice.below(self.burst) {
            if self.unanswered.len() >= self.unanswered_max {
                break;
            }
            self.next += 1;
            let class = dice.below(self.classes as u64) as usize;
            let class = self.floods.unwrap_or(class);
            let qos = if dice.permille(800) {
                QoS::AtLeastOnce
            } else {
                QoS::AtMostOnce
            };
            let mut message = self.message(self.next, class, qos, now, dice.permille(20));
            // Classes that may lose have times to live, some of them short.
            if (1..=2).contains(&class) && dice.permille(300) {
                message.expires = now.after(Duration::from_millis(dice.below(3000)));
            }
            messages.push(message);
        }
        self.batch(messages, now, classes)
    }

    pub fn resend(&mut self, now: Tick, classes: &[ClassSettings]) -> Option<Batch> {
        if !std::mem::take(&mut self.resend) {
            return None;
        }
        let again: Vec<_> = self
            .unanswered
            .iter()
            .map(|(n, class)| (*n, *class))
            .collect();
        let again = again
            .into_iter()
            .map(|(n, class)| self.message(n, class, QoS::AtLeastOnce, now, false))
            .collect();
        self.batch(again, now, classes)
    }

    pub fn notices(&mut self, notices: Vec<Notice>, now: Tick) {
        for notice in notices {
            match notice {
                // Given back on this connection: it ends, and the next one brings everything again.
                Notice::Returned { token } if self.tokens.contains_key(&token) => {
                    self.tokens.clear();
                    self.held_since = None;
                    self.resend = true;
                }
                Notice::Returned { .. } => {}
                Notice::Held => self.held_since = Some(now),
                Notice::Released => self.held_since = None,
                Notice::Slowed { .. } => {}
                Notice::Answer { token, answer } => self.answered(token, answer),
            }
        }
    }

    fn answered(&mut self, token: u32, answer: Answer) {
        // A token of before the last withdrawal names nothing any more.
        let Some(number) = self.tokens.remove(&token) else {
            return;
        };
        let class = self.unanswered.remove(&number).expect("answered twice");
        let identity = identity(&self.name, class, number);
        if answer == Answer::Accepted {
            self.acknowledged.push((identity, class));
        } else {
            self.refused.insert(identity);
        }
    }

    fn message(&mut self, number: u64, class: usize, qos: QoS, now: Tick, large: bool) -> Message {
        let token = (qos != QoS::AtMostOnce).then(|| {
            self.token += 1;
            self.tokens.insert(self.token, number);
            self.unanswered.insert(number, class);
            self.token
        });
        let topic = format!("{}/{class}", self.name);
        let mut payload = identity(&self.name, class, number).into_bytes();
        payload.push(b' ');
        let pad = if large {
            8000
        } else {
            self.payload_bytes as usize
        };
        payload.resize(payload.len().max(pad), b'x');
        let receipt = Receipt {
            door: self.door,
            token,
        };
        let body = Body::new(&topic, &[], &payload);
        Message {
            qos,
            ..Message::new(body, ClassId(class as u8), now, receipt)
        }
    }

    fn batch(&self, messages: Vec<Message>, at: Tick, _classes: &[ClassSettings]) -> Option<Batch> {
        (!messages.is_empty()).then_some(Batch {
            door: self.door,
            at,
            messages,
            unreadable: 0,
            forgotten: 0,
            room: None,
        })
    }
}

/// What the payload begins with: device, class and number.
fn identity(name: &str, class: usize, number: u64) -> String {
    format!("{name}/{class}/{number}")
}
