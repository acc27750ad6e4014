//! What the demo's cloud has read and not taken yet. In come senders and batches, out come
//! messages, one from each connection in turn and no faster than the cloud's rate: it knows nothing
//! of alarms, as a real cloud does not.

use std::collections::VecDeque;

use tokio::sync::mpsc::Sender;

use crate::traffic::lanes::{Answer, Batch, DoorEvent, Notice};
use crate::traffic::message::{DoorId, Message, Tick};
use crate::traffic::schedule::bucket::Bucket;

/// The queues of all connections. Bounded: a connection has at most `receive_max` unanswered.
#[derive(Debug)]
pub(super) struct Intake {
    /// Whose turn it is stands in front.
    connections: VecDeque<Connection>,
    opened: u32,
    bucket: Bucket,
}

#[derive(Debug)]
struct Connection {
    door: DoorId,
    notices: Sender<Vec<Notice>>,
    waiting: VecDeque<Message>,
}

impl Intake {
    /// Nobody is connected.
    pub(super) fn new(rate: u64, now: Tick) -> Self {
        Self {
            connections: VecDeque::new(),
            opened: 0,
            bucket: Bucket::new(rate, now),
        }
    }

    /// A connection comes or goes.
    pub(super) fn note(&mut self, event: DoorEvent) {
        match event {
            DoorEvent::Open { notices, id, .. } => {
                let door = DoorId {
                    index: self.opened,
                    generation: 0,
                };
                self.opened = self.opened.wrapping_add(1);
                self.connections.push_back(Connection {
                    door,
                    notices,
                    waiting: VecDeque::new(),
                });
                // Whoever is gone already closes it.
                let _ = id.send(door);
            }
            DoorEvent::Withdraw { door, .. } | DoorEvent::Close(door) => {
                self.connections
                    .retain(|connection| connection.door != door);
            }
        }
    }

    /// What a connection sent.
    pub(super) fn put(&mut self, batch: Batch) {
        let mut connections = self.connections.iter_mut();
        if let Some(connection) = connections.find(|c| c.door == batch.door) {
            connection.waiting.extend(batch.messages);
        }
    }

    /// The next message that may be taken now. It is acknowledged.
    pub(super) fn take(&mut self, now: Tick) -> Option<Message> {
        let next = self
            .connections
            .iter()
            .position(|c| !c.waiting.is_empty())?;
        if !self.bucket.open(now) {
            return None;
        }
        self.connections.rotate_left(next);
        let mut connection = self.connections.pop_front()?;
        let message = connection.waiting.pop_front();
        if let Some(token) = message.as_ref().and_then(|m| m.receipt.token) {
            let answer = Answer::Accepted;
            // It has room for all that can be unanswered, or its connection is gone.
            let told = connection
                .notices
                .try_send(vec![Notice::Answer { token, answer }]);
            drop(told);
        }
        self.connections.push_back(connection);
        self.bucket.take(1);
        message
    }

    /// When to look again; `None`: nothing waits.
    pub(super) fn opens_at(&self) -> Option<Tick> {
        let waits = self.connections.iter().any(|c| !c.waiting.is_empty());
        waits.then(|| self.bucket.opens_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::message::sample;
    use std::time::Duration;
    use tokio::sync::{mpsc, oneshot};

    fn open(intake: &mut Intake) -> (DoorId, mpsc::Receiver<Vec<Notice>>) {
        let (notices, told) = mpsc::channel(1_000);
        let (id, mut given) = oneshot::channel();
        intake.note(DoorEvent::Open {
            notices,
            client: "gateway".into(),
            site: false,
            id,
        });
        (given.try_recv().unwrap(), told)
    }

    fn batch(door: DoorId, topic: &str, messages: u32) -> Batch {
        let message = |token| {
            let mut message = sample(topic, b"1");
            message.receipt.token = Some(token);
            message
        };
        Batch {
            door,
            at: Tick::ZERO,
            messages: (0..messages).map(message).collect(),
            unreadable: 0,
            forgotten: 0,
            room: None,
        }
    }

    #[test]
    fn does_a_connection_with_little_wait_for_one_with_much() {
        let mut intake = Intake::new(1_000, Tick::ZERO);
        let (bulk, _told) = open(&mut intake);
        let (urgent, mut answers) = open(&mut intake);
        intake.put(batch(bulk, "bulk", 200));
        intake.put(batch(urgent, "urgent", 1));
        let first: Vec<_> = (0..2).filter_map(|_| intake.take(Tick::ZERO)).collect();
        assert!(first.iter().any(|m| m.body.topic() == "urgent"));
        assert!(answers.try_recv().is_ok(), "it is acknowledged");
    }

    #[test]
    fn does_the_cloud_take_no_more_than_its_rate() {
        let mut intake = Intake::new(1_000, Tick::ZERO);
        let (door, _told) = open(&mut intake);
        intake.put(batch(door, "t", 900));
        while intake.take(Tick::ZERO).is_some() {}
        let later = Tick::ZERO.after(Duration::from_millis(50));
        let taken = (0..).map_while(|_| intake.take(later)).count();
        assert!((49..=51).contains(&taken), "{taken}");
        assert!(intake.opens_at().unwrap() > later);
    }

    #[test]
    fn is_a_connection_that_closed_forgotten() {
        let mut intake = Intake::new(1_000, Tick::ZERO);
        let (door, _told) = open(&mut intake);
        intake.put(batch(door, "t", 3));
        intake.note(DoorEvent::Close(door));
        assert!(intake.take(Tick::ZERO).is_none() && intake.opens_at().is_none());
        intake.put(batch(door, "t", 3));
        assert!(intake.take(Tick::ZERO).is_none(), "a late batch of nobody");
    }
}
