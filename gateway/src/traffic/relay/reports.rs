//! What the upstream's connections report, and what the relay makes of it: a PUBACK ends a message or
//! says why it does not, a broken connection gives back what was in flight, and an acknowledgement that
//! is late gives an alarm its second chance.

use std::collections::HashSet;

use super::super::message::{Message, MessageId, Tick, WallTime};
use super::super::queue::Delivery;
use super::super::send::{Ack, Link, LinkEvent};
use super::super::settle::Outcome;
use super::doubles::Standing;
use super::setbacks::{Ruling, is_older};
use super::{QUOTA_PAUSE, Relay};

impl Relay {
    /// Something happened on a connection to the upstream.
    pub fn link_event(&mut self, event: LinkEvent, now: Tick) {
        match event {
            LinkEvent::Up {
                link,
                attempt,
                limits,
            } => self.outbound.up(link, attempt, limits),
            LinkEvent::Down {
                link,
                attempt,
                by_peer,
                ..
            } => self.link_down(link, attempt, by_peer, now),
            LinkEvent::Acks {
                link,
                attempt,
                acks,
            } => {
                for ack in acks {
                    self.acknowledged(link, attempt, ack, now);
                }
            }
            LinkEvent::Written {
                link,
                attempt,
                total,
            } => {
                for message in self.outbound.written(link, attempt, total, now) {
                    self.end_sent(message, Outcome::Delivered);
                }
            }
        }
        self.put_back();
        self.settle();
    }

    fn acknowledged(&mut self, link: Link, attempt: u64, ack: Ack, now: Tick) {
        let Some(sent) = self.outbound.acknowledge(link, attempt, ack.packet_id, now) else {
            return;
        };
        let id = sent.message.id();
        // 0x10: nobody subscribes there, which is not our concern (MQTT 5, 3.4.2.1).
        let success = matches!(ack.reason, 0x00 | 0x10);
        if sent.doubled {
            let standing = match success {
                true => self.doubles.acknowledged(id),
                false => self.doubles.dropped(id),
            };
            match standing {
                Standing::Last => {}
                Standing::Settled => return,
                // The other copy decides.
                Standing::FirstOf(_) if !success => {
                    return self.single(link.other(), &HashSet::from([id]), false);
                }
                Standing::FirstOf(original) if original == link => {}
                Standing::FirstOf(original) => self.outbound.give_up(original),
            }
        }
        if success {
            self.delivered += 1;
            self.end_sent(sent.message, Outcome::Delivered);
        } else {
            self.refused(link, sent.message, ack.reason, now);
        }
    }

    /// A message that the upstream did not take, for the reason that its PUBACK gives.
    fn refused(&mut self, link: Link, message: Message, reason: u8, now: Tick) {
        if !matches!(reason, 0x90 | 0x95 | 0x99) && self.is_overtaken(&message) {
            return self.end_sent(message, Outcome::Superseded);
        }
        match reason {
            0x90 => self.dead_letter(message, "the upstream calls its topic invalid (0x90)", now),
            0x95 => self.dead_letter(message, "the upstream calls it too large (0x95)", now),
            0x99 => self.dead_letter(
                message,
                "the upstream calls its payload invalid (0x99)",
                now,
            ),
            0x97 => {
                self.outbound.pause(link, now.after(QUOTA_PAUSE));
                self.back.push(message);
            }
            // Others are tried meanwhile, and it in an hour.
            _ if self.spool.is_tried(&message) => {
                self.dead_letter(message, &format!("the upstream says {reason:#04x}"), now);
            }
            _ => {
                tracing::warn!(
                    "the upstream refuses a message of class {} on {:?} ({reason:#04x}); it is tried again later",
                    self.classes[message.class.index()].name,
                    message.body.topic(),
                );
                let ruling = self.setbacks.refusal(message, now);
                self.follow(link, ruling, "", now);
            }
        }
    }

    /// Whether a newer value of a `latest` class's key is in flight: the older one must not follow it.
    fn is_overtaken(&mut self, message: &Message) -> bool {
        let latest = self.classes[message.class.index()].delivery == Delivery::Latest;
        let mut sent = self.outbound.sent_mut();
        latest && sent.any(|sent| is_older(message, &sent.message))
    }

    /// What waits aside and is older than a value of a `latest` class that is sent now ends with it.
    pub(super) fn supersede_aside(&mut self, newer: &mut Message) {
        if self.classes[newer.class.index()].delivery != Delivery::Latest {
            return;
        }
        for older in self.setbacks.take_older(newer) {
            newer.stands_for = newer.stands_for.saturating_add(older.stands_for);
            self.end_sent(older, Outcome::Superseded);
        }
    }

    fn link_down(&mut self, link: Link, attempt: u64, by_peer: bool, now: Tick) {
        let Some((sent, alone)) = self.outbound.down(link, attempt) else {
            return;
        };
        let mut singles = HashSet::new();
        for sent in sent {
            let id = sent.message.id();
            match sent.doubled.then(|| self.doubles.dropped(id)) {
                Some(Standing::FirstOf(_)) => {
                    singles.insert(id);
                    continue;
                }
                Some(Standing::Settled) => continue,
                Some(Standing::Last) | None => {}
            }
            if self.spool.is_tried(&sent.message) {
                // Whoever ended it: behind live messages it is never alone, and would end the next one too.
                let why = "the connection ended when it was sent";
                self.dead_letter(sent.message, why, now);
            } else if alone && by_peer {
                let ruling = self.setbacks.strike(sent.message, self.delivered, now);
                let why = "the upstream ends the connection whenever it is sent";
                self.follow(link, ruling, why, now);
            } else {
                self.back.push(sent.message);
            }
        }
        if !singles.is_empty() {
            self.single(link.other(), &singles, true);
        }
    }

    /// Messages whose copy over the other connection is gone are in flight once again, and may get
    /// another second chance: later ones that get theirs must not overtake them. `overdue`: at once, for
    /// until then no later one may go over the other connection.
    fn single(&mut self, link: Link, ids: &HashSet<MessageId>, overdue: bool) {
        for id in ids {
            self.doubles.forget(*id);
        }
        self.outbound.undouble(link, ids, overdue);
    }

    fn follow(&mut self, link: Link, ruling: Ruling, why: &str, now: Tick) {
        match ruling {
            Ruling::Aside => {}
            Ruling::BackToFront(message) => {
                // So many refusals are the upstream's doing: it is not asked at full speed again.
                self.outbound.pause(link, now.after(QUOTA_PAUSE));
                self.back.push(*message);
            }
            Ruling::DeadLetter(message) => self.dead_letter(*message, why, now),
        }
    }

    pub(super) fn end_sent(&mut self, message: Message, outcome: Outcome) {
        self.queues.release(&message);
        self.ends.push_back((message, outcome));
    }

    /// Puts what came back into its queues, each at the place of its receipt.
    pub(super) fn put_back(&mut self) {
        if !self.back.is_empty() {
            let mut back = std::mem::take(&mut self.back);
            let replayed = back.extract_if(.., |message| message.replayed);
            self.spool.put_back(replayed.collect());
            self.queues.put_back(back, &mut self.ends);
        }
    }

    /// The second chance of the first class: what is not acknowledged in time also goes over the
    /// other connection, with the same id.
    pub(super) fn double_overdue(&mut self, now: Tick, wall: WallTime) {
        self.outbound.give_up_overdue(now);
        for link in Link::BOTH {
            while let Some(message) = self.outbound.double_next(link, now) {
                let id = message.id();
                self.doubles.doubled(id, message.class, link);
                if self.outbound.send(link.other(), message, now, wall).is_ok() {
                    self.outbound.mark_copy(link.other());
                } else {
                    let _ = self.doubles.dropped(id);
                }
            }
        }
    }
}
