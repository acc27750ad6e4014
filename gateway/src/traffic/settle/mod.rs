//! The end of every message: exactly one [`Outcome`], counted in the [`ledger`], then its sender is
//! answered.

pub mod kept;
pub mod ledger;

/// How a message ended. Each ends once (promise 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Outcome {
    /// The upstream has it.
    Delivered,
    /// A newer value of its key took its place.
    Superseded,
    /// Given up by a rule that the operator wrote: discarded, or its class was full.
    Shed,
    /// Its time to live ran out.
    Expired,
    /// Removed from the disk for want of room.
    Evicted,
    /// It stood on a part of the disk that cannot be read any more.
    Damaged,
    /// Removed by the operator.
    Purged,
    /// Not taken: its sender was told, where the protocol allows it.
    Refused,
    /// The upstream refuses it for good.
    DeadLetter,
    /// Left unacknowledged: the sender still has it.
    Returned,
}

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = 10;
    /// All, in the order in which the ledger prints them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Delivered,
        Self::Superseded,
        Self::Shed,
        Self::Expired,
        Self::Evicted,
        Self::Damaged,
        Self::Purged,
        Self::Refused,
        Self::DeadLetter,
        Self::Returned,
    ];

    /// Its word in logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Superseded => "superseded",
            Self::Shed => "shed",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Damaged => "damaged",
            Self::Purged => "purged",
            Self::Refused => "refused",
            Self::DeadLetter => "dead letters",
            Self::Returned => "returned",
        }
    }
}
