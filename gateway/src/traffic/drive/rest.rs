//! The relay's end of the lane of the rest. A batch that may not be taken in yet is set aside, so that it
//! keeps back only what brings messages of its classes. In come batches and whether each may be taken in;
//! out they go, each class's in the order of the lane. It decides nothing.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::super::lanes::{Batch, REST_LANE_BATCHES};
use super::super::message::{ClassId, Tick};

/// The lane's end. As many batches may stand aside as the lane has; all are of its bytes.
#[derive(Debug)]
pub(super) struct Rest {
    lane: mpsc::Receiver<Batch>,
    /// In the order of the lane, with their classes.
    aside: VecDeque<(Batch, Vec<ClassId>)>,
}

impl Rest {
    /// Of this lane; nothing stands aside.
    pub(super) const fn new(lane: mpsc::Receiver<Batch>) -> Self {
        Self {
            lane,
            aside: VecDeque::new(),
        }
    }

    /// The first batch that is `taken`, and that no other is in front of with messages of its classes.
    pub(super) fn next(&mut self, taken: impl Fn(&Batch) -> bool) -> Option<Batch> {
        let mut before: Vec<ClassId> = Vec::new();
        for index in 0..self.aside.len() {
            let (batch, classes) = self.aside.get(index)?;
            if !classes.iter().any(|class| before.contains(class)) && taken(batch) {
                return self.aside.remove(index).map(|(batch, _)| batch);
            }
            add(&mut before, classes.iter().copied());
        }
        while self.aside.len() < REST_LANE_BATCHES {
            let batch = self.lane.try_recv().ok()?;
            if !before.iter().any(|class| batch.brings(*class)) && taken(&batch) {
                return Some(batch);
            }
            add(&mut before, self.set_aside(batch).iter().copied());
        }
        None
    }

    /// Waits for one more batch to come. Cancel safe; never ends while as many as may stand aside, nor
    /// when the lane has ended.
    pub(super) async fn come(&mut self) {
        if self.aside.len() < REST_LANE_BATCHES
            && let Some(batch) = self.lane.recv().await
        {
            self.set_aside(batch);
            return;
        }
        std::future::pending().await
    }

    /// The next batch, whether it may be taken in or not. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Batch> {
        match self.aside.pop_front() {
            Some((batch, _)) => Some(batch),
            None => self.lane.recv().await,
        }
    }

    /// When the batches that stand aside were put into the lane.
    pub(super) fn aside_since(&self) -> impl Iterator<Item = Tick> {
        self.aside.iter().map(|(batch, _)| batch.at)
    }

    /// Whether there is no batch.
    pub(super) fn is_empty(&self) -> bool {
        self.aside.is_empty() && self.lane.is_empty()
    }

    fn set_aside(&mut self, batch: Batch) -> &[ClassId] {
        let mut classes = Vec::new();
        add(&mut classes, batch.messages.iter().map(|m| m.class));
        self.aside.push_back((batch, classes));
        self.aside.back().map_or(&[], |(_, classes)| classes)
    }
}

fn add(classes: &mut Vec<ClassId>, more: impl Iterator<Item = ClassId>) {
    for class in more {
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::lanes::{Lane, REST_LANE_BYTES_MAX};
    use crate::traffic::message::{DoorId, sample};

    const SURE: u8 = 1;
    const NORMAL: u8 = 2;
    const LOW: u8 = 3;

    /// A lane with one batch of each sender, whose messages have these classes.
    fn rest(batches: &[&[u8]]) -> Rest {
        let (lane, end) = Lane::new(REST_LANE_BATCHES, REST_LANE_BYTES_MAX);
        for (index, classes) in (0..).zip(batches) {
            let messages = classes.iter().map(|class| {
                let mut message = sample("t", b"x");
                message.class = ClassId(*class);
                message
            });
            let batch = Batch {
                door: DoorId {
                    index,
                    generation: 0,
                },
                at: Tick::ZERO,
                messages: messages.collect(),
                unreadable: 0,
                forgotten: 0,
                room: None,
            };
            lane.try_reserve(1).unwrap().put(batch, None);
        }
        Rest::new(end)
    }

    fn all(rest: &mut Rest, taken: impl Fn(&Batch) -> bool) -> Vec<u32> {
        std::iter::from_fn(|| rest.next(&taken))
            .map(|batch| batch.door.index)
            .collect()
    }

    #[test]
    fn does_a_class_that_is_full_keep_back_the_others() {
        let mut rest = rest(&[&[SURE], &[NORMAL], &[SURE], &[LOW], &[NORMAL]]);
        assert_eq!(all(&mut rest, |b| !b.brings(ClassId(SURE))), [1, 3, 4]);
        assert_eq!(all(&mut rest, |_| true), [0, 2]);
        assert!(rest.is_empty());
    }

    /// The first sender waits for the brake alone.
    #[test]
    fn does_a_class_keep_its_order_behind_a_batch_that_waits() {
        let mut rest = rest(&[&[NORMAL, SURE], &[LOW], &[SURE, LOW], &[LOW], &[NORMAL]]);
        assert_eq!(all(&mut rest, |batch| batch.door.index != 0), [1]);
        assert_eq!(all(&mut rest, |_| true), [0, 2, 3, 4]);
    }

    #[tokio::test]
    async fn is_what_stands_aside_bounded_and_not_lost() {
        let batches = [&[SURE][..]; REST_LANE_BATCHES];
        let mut rest = rest(&batches);
        assert!(all(&mut rest, |_| false).is_empty());
        assert_eq!(rest.aside.len(), REST_LANE_BATCHES);
        tokio::select! {
            biased;
            () = rest.come() => panic!("there is room for no more"),
            () = std::future::ready(()) => {}
        }
        for index in 0..REST_LANE_BATCHES {
            assert_eq!(rest.recv().await.unwrap().door.index as usize, index);
        }
    }
}
