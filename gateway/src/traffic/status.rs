//! What the path says of itself when it is asked: numbers and words, a copy that nothing depends
//! on. The relay fills a [`Status`], the drive sends it back over the channel of an [`Ask`]. It
//! names no topic and no payload, so that it may be shown to everybody on the machine.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::queue::{Delivery, pressure};
use super::settle::Outcome;
use super::settle::ledger::Account;

/// Asks the path how it is: send the end where the [`Status`] is wanted. One that the asker
/// dropped needs no answer.
pub type Ask = mpsc::Sender<oneshot::Sender<Status>>;
/// The other end, for the drive.
pub type Asked = mpsc::Receiver<oneshot::Sender<Status>>;

/// Questions that may wait. Askers take turns, so that there is seldom more than one for each.
const ASKS_MAX: usize = 4;

/// The channel from who asks to the drive.
#[must_use]
pub fn channel() -> (Ask, Asked) {
    mpsc::channel(ASKS_MAX)
}

/// The path at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The classes, the most urgent first, then the built-in class `discard`.
    pub classes: Vec<ClassStatus>,
    /// The connections to the upstream.
    pub links: Vec<LinkStatus>,
    /// The memory that the classes share.
    pub memory: MemoryStatus,
    /// Senders that are known: devices' sessions and connections to brokers.
    pub senders: u64,
    /// The disk.
    pub spool: SpoolStatus,
    /// Payloads that a condition could not read, since the start.
    pub unreadable: u64,
    /// How often a message was set aside so that others pass, since the start.
    pub setbacks: u64,
    /// Topics that were forgotten for want of memory, since the start.
    pub forgotten_topics: u64,
}

/// One class: its account in the ledger, and where its messages are now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassStatus {
    /// Its name.
    pub name: String,
    /// `guaranteed`, `buffered` or `latest`; empty for `discard`.
    pub delivery: Cow<'static, str>,
    /// Messages on disk at a start that the accounts did not know, less those that were missing.
    pub found: i64,
    /// Messages that came in.
    pub received: u64,
    /// Messages made here.
    pub made_here: u64,
    /// Messages that ended, in the order of [`Outcome::ALL`].
    pub ended: Ended,
    /// Messages in memory: waiting, held, in flight, set aside.
    pub in_memory: u64,
    /// What they take, in bytes.
    pub in_memory_bytes: u64,
    /// What the queue takes, in bytes.
    pub queue_bytes: u64,
    /// The most that it may take, in bytes.
    pub queue_bytes_max: u64,
    /// Messages that wait to be sent.
    pub waiting: u64,
    /// Messages without room: unacknowledged, their senders paused.
    pub held: u64,
    /// How hard up it is.
    pub level: Level,
    /// How often that changed, since the start.
    pub pressure_changes: u64,
    /// How often it became calm, coalescing, shedding, since the start.
    pub pressure_entered: [u64; 3],
    /// Values whose keys could not be remembered, since the start: an older one on disk may follow them.
    pub keys_forgotten: u64,
    /// Messages on disk and not in memory: the backlog.
    pub on_disk: u64,
    /// Values that wait for the end of their period (`every`).
    pub parked: u64,
    /// Periods that ended early for want of room, since the start.
    pub periods_forgotten: u64,
    /// Superseded values that had no number to sum up, since the start.
    pub summary_unreadable: u64,
    /// Superseded values of which no summary tells for want of room, or because the value that stood for
    /// them was given up, since the start.
    pub summary_forgotten: u64,
    /// Messages that replay has to send: on disk alone, or read back and not sent yet.
    pub backlog: u64,
    /// Whether the operator stopped the replay of it.
    pub replay_paused: bool,
    /// Dead letters on disk.
    pub dead_letters_on_disk: u64,
    /// Dead letters that the disk did not take, or that gave way there, since the start.
    pub dead_letters_lost: u64,
}

/// How hard up a class is, as the queue's pressure says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// There is room and the front moves.
    #[default]
    Calm,
    /// It gives way where its delivery allows it without loss of the newest.
    Coalescing,
    /// It is full: what it may lose is shed.
    Shedding,
}

impl Level {
    /// All levels, in the order of `pressure_entered`.
    pub const ALL: [Self; 3] = [Self::Calm, Self::Coalescing, Self::Shedding];

    /// The level in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Coalescing => "coalescing",
            Self::Shedding => "shedding",
        }
    }
}

/// The memory that the classes share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStatus {
    /// What messages that were admitted take, and the indices of their keys, in bytes.
    pub bytes: u64,
    /// The most that they may take, in bytes.
    pub bytes_max: u64,
    /// How short it is.
    pub level: Level,
    /// How often it became calm, under pressure, full, since the start.
    pub pressure_entered: [u64; 3],
}

/// Counts by outcome, in the order of [`Outcome::ALL`]; written as a map by the outcomes' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Named", into = "Named")]
pub struct Ended(pub [u64; Outcome::COUNT]);

/// [`Ended`] as it is written: an outcome that the reader does not know is left out.
type Named = std::collections::BTreeMap<Cow<'static, str>, u64>;

/// One connection to the upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    /// `urgent` or `bulk`.
    pub name: Cow<'static, str>,
    /// Whether CONNACK said yes and the connection stands.
    pub up: bool,
    /// What may be in flight, in bytes.
    pub window_bytes: u64,
    /// Messages sent and not acknowledged.
    pub in_flight: u64,
    /// What they take of the window, in bytes.
    pub in_flight_bytes: u64,
    /// The smoothed time from sending to PUBACK; `None` before the first.
    pub ack_micros: Option<u64>,
    /// Connections that the upstream accepted, since the start.
    pub attempts: u64,
}

/// The spool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpoolStatus {
    /// Why the disk does not take what is written, and what to do; `None`: it does.
    pub failing: Option<String>,
    /// Whether everything that earlier starts left has been looked at.
    pub scanned: bool,
    /// Segment files.
    pub segments: u64,
    /// All of them together, in bytes.
    pub file_bytes: u64,
    /// The most that they may take, in bytes.
    pub size_bytes_max: u64,
    /// What is free on the file system, in bytes; `None`: not known.
    pub free_bytes: Option<u64>,
    /// Handed to the writer and not yet safe, in bytes.
    pub unwritten_bytes: u64,
    /// Files that were set aside as damaged.
    pub aside: u64,
    /// Commits of segments, since the start.
    pub commits: u64,
    /// What they took together, in microseconds.
    pub commit_micros: u64,
    /// Synced commits, since the start.
    pub syncs: u64,
    /// Bytes written to the disk, since the start.
    pub bytes_written: u64,
    /// Messages that replay has to send: on disk alone, or read back and not sent yet.
    pub backlog: u64,
    /// Whether backlog is being sent.
    pub replaying: bool,
    /// Whether the operator stopped the replay of every class.
    pub paused: bool,
    /// Messages of the backlog that were sent and acknowledged, since the start.
    pub replayed: u64,
}

impl Status {
    /// Whether any connection to the upstream is up.
    #[must_use]
    pub fn is_uplink_up(&self) -> bool {
        self.links.iter().any(|link| link.up)
    }
}

impl ClassStatus {
    /// A class with this account; its delivery is `None` for `discard`. Where its messages are now is
    /// for the caller to fill in.
    #[must_use]
    pub fn new(account: &Account, delivery: Option<Delivery>) -> Self {
        Self {
            name: account.class.as_ref().to_owned(),
            delivery: delivery.map_or("", word).into(),
            found: account.found,
            received: account.received,
            made_here: account.made_here,
            ended: Ended(account.ended),
            ..Self::default()
        }
    }

    /// Whether its messages are acknowledged only when safe.
    #[must_use]
    pub fn is_guaranteed(&self) -> bool {
        self.delivery == word(Delivery::Guaranteed)
    }

    /// What came in, less what ended and what is still here: 0, or the ledger does not balance.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        let sum = |counts: &[u64]| counts.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
        let came = sum(&[self.received, self.made_here]);
        let came = came.saturating_add_signed(self.found);
        let ended = sum(&self.ended.0);
        let here = sum(&[ended, self.in_memory, self.on_disk]);
        came.checked_signed_diff(here).unwrap_or(i64::MIN)
    }
}

/// A delivery's word, as in the configuration.
const fn word(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Guaranteed => "guaranteed",
        Delivery::Buffered => "buffered",
        Delivery::Latest => "latest",
    }
}

impl From<pressure::Level> for Level {
    fn from(level: pressure::Level) -> Self {
        match level {
            pressure::Level::Calm => Self::Calm,
            pressure::Level::Coalescing => Self::Coalescing,
            pressure::Level::Shedding => Self::Shedding,
        }
    }
}

impl Ended {
    /// Messages that ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.0.get(outcome as usize).copied().unwrap_or_default()
    }
}

/// An outcome's name where names have no blanks: in the ledger's line, in metrics and in JSON.
#[must_use]
pub fn outcome_name(outcome: Outcome) -> Cow<'static, str> {
    match outcome.word() {
        word if word.contains(' ') => word.replace(' ', "_").into(),
        word => word.into(),
    }
}

impl From<Ended> for Named {
    fn from(ended: Ended) -> Self {
        let count = |outcome| (outcome_name(outcome), ended.count(outcome));
        Outcome::ALL.into_iter().map(count).collect()
    }
}

impl From<Named> for Ended {
    fn from(named: Named) -> Self {
        let count = |outcome| named.get(&outcome_name(outcome)).copied();
        Self(Outcome::ALL.map(|outcome| count(outcome).unwrap_or_default()))
    }
}

/// A path with something to say of everything, for tests of what shows it.
#[cfg(test)]
pub(crate) fn sample() -> Status {
    let class = |name: &str, delivery: &'static str| ClassStatus {
        name: name.to_owned(),
        delivery: delivery.into(),
        received: 1_000,
        ended: Ended([900, 40, 0, 0, 0, 0, 0, 0, 3, 0]),
        in_memory: 50,
        in_memory_bytes: 12_800,
        queue_bytes: 10_240,
        queue_bytes_max: 1 << 20,
        waiting: 30,
        held: 12,
        level: Level::Coalescing,
        pressure_changes: 5,
        pressure_entered: [2, 3, 0],
        on_disk: 7,
        dead_letters_on_disk: 2,
        dead_letters_lost: 1,
        ..ClassStatus::default()
    };
    let link = |name: &'static str, up| LinkStatus {
        name: name.into(),
        up,
        window_bytes: 65_536,
        in_flight: 8,
        in_flight_bytes: 2_048,
        ack_micros: up.then_some(45_300),
        attempts: 3,
    };
    Status {
        classes: vec![class("critical", "guaranteed"), class("low", "latest")],
        links: vec![link("urgent", true), link("bulk", false)],
        senders: 42,
        memory: MemoryStatus {
            bytes: 48 << 20,
            bytes_max: 64 << 20,
            level: Level::Coalescing,
            pressure_entered: [0, 1, 0],
        },
        spool: SpoolStatus {
            failing: None,
            scanned: true,
            segments: 3,
            file_bytes: 48 << 20,
            size_bytes_max: 1 << 30,
            free_bytes: Some(5 << 30),
            unwritten_bytes: 777,
            aside: 1,
            commits: 40,
            commit_micros: 120_000,
            syncs: 99,
            bytes_written: 123_456,
            backlog: 7,
            replaying: true,
            paused: false,
            replayed: 4_321,
        },
        unreadable: 2,
        setbacks: 1,
        forgotten_topics: 2,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::ClassId;
    use super::super::settle::ledger::Ledger;
    use super::*;

    #[test]
    fn does_a_class_show_its_account() {
        let mut ledger = Ledger::new(["alarms".into()]);
        for _ in 0..3 {
            ledger.receive(ClassId::FIRST);
        }
        ledger.end(ClassId::FIRST, Outcome::Returned);
        let [alarms, discard] = ledger.accounts() else {
            panic!("two accounts")
        };
        let class = ClassStatus::new(alarms, Some(Delivery::Guaranteed));
        assert!(class.is_guaranteed() && class.name == "alarms");
        assert_eq!(class.ended.count(Outcome::Returned), 1);
        assert_eq!((class.received, class.unaccounted()), (3, 2));
        assert!(!ClassStatus::new(discard, None).is_guaranteed());
    }

    #[test]
    fn is_everything_read_as_it_was_written() {
        let json = serde_json::to_string(&sample()).unwrap();
        assert!(json.contains(r#""dead_letters":3"#), "{json}");
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), sample());
    }

    /// After an update the command may be newer than the gateway that still runs, or older.
    #[test]
    fn is_what_another_version_writes_read_too() {
        let other = r#"{"classes":[{"name":"a","ended":{"delivered":3,"melted":9},"new":1}]}"#;
        let status: Status = serde_json::from_str(other).unwrap();
        assert_eq!(status.classes[0].ended.count(Outcome::Delivered), 3);
        assert_eq!(status.classes[0].ended.count(Outcome::Shed), 0);
    }

    #[test]
    fn does_a_ledger_that_does_not_balance_show() {
        let mut class = sample().classes.remove(0);
        assert_eq!(class.unaccounted(), 0);
        class.on_disk += 3;
        assert_eq!(class.unaccounted(), -3);
        class.received += 5;
        assert_eq!(class.unaccounted(), 2);
    }
}
