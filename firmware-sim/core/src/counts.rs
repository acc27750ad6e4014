//! Where every sequence number went. Two sums hold at any time, for each kind:
//! `made = dropped + superseded + waiting + sent`, and
//! `sent = acknowledged + refused + in flight + unconfirmed`.

use crate::message::Kind;

/// What became of one kind's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequence numbers given out.
    pub made: u64,
    /// Alarms that found the queue full.
    pub dropped: u64,
    /// Replaced by a newer one before they were sent.
    pub superseded: u64,
    /// Handed to the link for the first time.
    pub sent: u64,
    /// Of these, the ones that asked for no acknowledgement (QoS 0).
    pub unconfirmed: u64,
    /// Handed to the link again; once more for each time.
    pub resent: u64,
    /// Acknowledged by the far end.
    pub acknowledged: u64,
    /// Refused by the far end for good.
    pub refused: u64,
}

/// One for each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByKind<T> {
    /// Of alarms.
    pub alarm: T,
    /// Of reports.
    pub report: T,
    /// Of readings.
    pub reading: T,
}

impl<T> ByKind<T> {
    /// The one of `kind`.
    pub const fn of(&self, kind: Kind) -> &T {
        match kind {
            Kind::Alarm => &self.alarm,
            Kind::Report => &self.report,
            Kind::Reading => &self.reading,
        }
    }

    /// The one of `kind`, to change it.
    pub const fn of_mut(&mut self, kind: Kind) -> &mut T {
        match kind {
            Kind::Alarm => &mut self.alarm,
            Kind::Report => &mut self.report,
            Kind::Reading => &mut self.reading,
        }
    }
}

impl Counts {
    /// Adds another device's, or another start's.
    pub const fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.dropped += other.dropped;
        self.superseded += other.superseded;
        self.sent += other.sent;
        self.unconfirmed += other.unconfirmed;
        self.resent += other.resent;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
    }
}
