//! What one device sent, and what was acknowledged to it: for each of its starts and each of its
//! streams, the sequence numbers. In come sent and acknowledged messages; at the end the account
//! holds it against what arrived.

use tidegate_device::{ByKind, Counts, Kind, Message};

use crate::marks::Marks;

/// What is counted of a device beside its own counts.
#[derive(Debug, Default)]
pub struct DeviceLedger {
    /// Its starts, the first one first.
    pub starts: Vec<StartLedger>,
    /// What the device counted itself, all starts together.
    pub counts: ByKind<Counts>,
    /// Messages that waited in its memory when the power went, or when the run ended.
    pub left: ByKind<u64>,
    /// Of those that were sent, the ones never answered.
    pub unanswered: ByKind<u64>,
}

/// One start of a device.
#[derive(Debug)]
pub struct StartLedger {
    /// Its number, as messages carry it.
    pub boot: u32,
    /// By [`stream_of`].
    pub streams: Vec<SentStream>,
}

/// One stream: the alarms, the reports, or the readings of one channel.
#[derive(Debug, Default)]
pub struct SentStream {
    /// Sequence numbers that were handed to a connection.
    pub sent: Marks,
    /// Those of them that were acknowledged.
    pub acknowledged: Marks,
}

/// Index of a message's stream in its device.
#[must_use]
pub fn stream_of(kind: Kind, channel: u8) -> usize {
    match kind {
        Kind::Alarm => 0,
        Kind::Report => 1,
        Kind::Reading => 2 + usize::from(channel),
    }
}

/// The kind of the stream with this index.
#[must_use]
pub const fn kind_of(stream: usize) -> Kind {
    match stream {
        0 => Kind::Alarm,
        1 => Kind::Report,
        _ => Kind::Reading,
    }
}

impl DeviceLedger {
    /// The device was switched on.
    pub fn start(&mut self, boot: u32) {
        self.starts.push(StartLedger {
            boot,
            streams: Vec::new(),
        });
    }

    /// A message went out for the first time.
    pub fn sent(&mut self, message: &Message) {
        if let Some(stream) = self.stream(message) {
            stream.sent.insert(message.seq);
        }
    }

    /// A message was acknowledged.
    pub fn acknowledged(&mut self, message: &Message) {
        if let Some(stream) = self.stream(message) {
            stream.acknowledged.insert(message.seq);
        }
    }

    /// The device was switched off: what it counted, what waited, what was not answered.
    pub fn end<'m>(
        &mut self,
        counts: &ByKind<Counts>,
        waiting: impl Iterator<Item = &'m Message>,
        in_flight: impl Iterator<Item = &'m Message>,
    ) {
        for kind in Kind::ALL {
            self.counts.of_mut(kind).add(counts.of(kind));
        }
        for message in waiting {
            *self.left.of_mut(message.kind()) += 1;
        }
        for message in in_flight {
            *self.unanswered.of_mut(message.kind()) += 1;
        }
    }

    fn stream(&mut self, message: &Message) -> Option<&mut SentStream> {
        let start = self.starts.last_mut()?;
        debug_assert_eq!(start.boot, message.boot, "only the running start sends");
        let index = stream_of(message.kind(), message.channel);
        if start.streams.len() <= index {
            start.streams.resize_with(index + 1, SentStream::default);
        }
        start.streams.get_mut(index)
    }
}
