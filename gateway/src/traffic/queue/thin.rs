//! Thinning by time: of each key one value for each period. [`Every`] lets one value of a key pass and
//! keeps the newest of the others until the period's end, always; [`Curve`] keeps one value for each key
//! and period of those that were superseded, for the disk. In come values and the time; out goes what
//! may pass and what gave way. Nothing is sent or written here.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::fingerprint::{ByFingerprint, Fingerprint, Secret, entry_bytes};
use super::super::message::{DoorId, Message, Tick};
use super::coalesce::{key_of, supersede};

/// Keys of one class whose periods are known at once, where memory allows: more than a site has topics.
/// Beyond, the oldest period ends early, and is counted.
pub const KEYS_MAX: usize = 128 * 1024;

/// Without values, room is kept for this many keys and the rest given back, so that memory after a crowd of
/// keys is what it was before.
const SPARE_KEYS_MAX: usize = 1024;

/// The periods of the keys. One begins with a value, never by the clock: the keys' periods do not
/// all end at once.
#[derive(Debug)]
pub struct Periods {
    length: Duration,
    keys_max: usize,
    secret: Secret,
    /// When the period of a key ends.
    running: ByFingerprint<Tick>,
    /// The ends, in the order in which the periods began. One of a period that was begun anew is stale.
    ends: VecDeque<(Tick, Fingerprint)>,
    forgotten: u64,
}

impl Periods {
    /// What a key takes, in bytes: a queue of ends doubles.
    const KEY_BYTES: usize = entry_bytes::<Tick>() + 2 * size_of::<(Tick, Fingerprint)>();

    /// None has begun; each is this long. At most so many are known at once; at least one.
    #[must_use]
    pub fn new(length: Duration, keys_max: u64) -> Self {
        let keys_max = usize::try_from(keys_max).unwrap_or(KEYS_MAX);
        Self {
            length,
            keys_max: keys_max.clamp(1, KEYS_MAX),
            secret: Secret::default(),
            running: ByFingerprint::default(),
            ends: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// What a message's key is called here.
    #[must_use]
    pub fn print(&self, message: &Message) -> Fingerprint {
        self.secret.print(key_of(message))
    }

    /// Whether the key's period has not ended at `at`.
    #[must_use]
    pub fn is_running(&self, key: Fingerprint, at: Tick) -> bool {
        self.running.get(&key).is_some_and(|end| at < *end)
    }

    /// Begins a period of the key at `at`. Gives the key whose period ends early for it, if one must.
    pub fn begin(&mut self, key: Fingerprint, at: Tick) -> Option<Fingerprint> {
        let mut early = None;
        if self.ends.len() >= self.keys_max
            && let Some((end, oldest)) = self.ends.pop_front()
        {
            early = self.end(oldest, end).filter(|oldest| *oldest != key);
            self.forgotten += u64::from(early.is_some() && at < end);
        }
        let end = at.after(self.length);
        self.running.insert(key, end);
        self.ends.push_back((end, key));
        early
    }

    /// A key whose period has ended at `now`; to be asked until there is none.
    pub fn ended(&mut self, now: Tick) -> Option<Fingerprint> {
        while let Some((end, key)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            if let Some(key) = self.end(key, end) {
                return Some(key);
            }
        }
        if self.ends.is_empty() {
            self.running.shrink_to(SPARE_KEYS_MAX);
            self.ends.shrink_to(SPARE_KEYS_MAX);
        }
        None
    }

    /// Ends the oldest period.
    pub fn end_oldest(&mut self) -> Option<Fingerprint> {
        while let Some((end, key)) = self.ends.pop_front() {
            if let Some(key) = self.end(key, end) {
                return Some(key);
            }
        }
        None
    }

    /// When the next period ends.
    #[must_use]
    pub fn next_end(&self) -> Tick {
        self.ends.front().map_or(Tick::NEVER, |(end, _)| *end)
    }

    /// Periods that ended early, for want of room.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn end(&mut self, key: Fingerprint, end: Tick) -> Option<Fingerprint> {
        let stale = self.running.get(&key) != Some(&end);
        (!stale).then(|| self.running.remove(&key).map(|_| key))?
    }
}

/// At most one value for each key and period goes out: the first of a quiet key at once, then the newest
/// at the end of each period. So the last value of a key that falls silent goes out too.
#[derive(Debug)]
pub struct Every {
    periods: Periods,
    /// The newest value of each key that waits for its period's end.
    parked: ByFingerprint<Box<Message>>,
    parked_bytes: u64,
    /// Values whose periods ended early.
    early: Vec<Message>,
}

/// What becomes of a value whose turn has come.
#[derive(Debug)]
#[must_use]
pub enum Passage {
    /// It goes out.
    Open(Box<Message>),
    /// It waits for the end of its key's period.
    Parked,
    /// Likewise, and this older value gave way.
    Superseded(Box<Message>),
}

impl Every {
    /// Nothing has passed yet. The values themselves not counted, it takes at most so many bytes.
    #[must_use]
    pub fn new(period: Duration, bytes_max: u64) -> Self {
        let key_bytes = Periods::KEY_BYTES + entry_bytes::<Box<Message>>();
        Self {
            periods: Periods::new(period, bytes_max / key_bytes as u64),
            parked: ByFingerprint::default(),
            parked_bytes: 0,
            early: Vec::new(),
        }
    }

    /// A value's turn has come. [`Every::due`] must have been asked for the same time.
    pub fn pass(&mut self, message: Message, now: Tick) -> Passage {
        let key = self.periods.print(&message);
        if !self.periods.is_running(key, now) {
            if let Some(early) = self.periods.begin(key, now) {
                let early = self.take(early);
                self.early.extend(early);
            }
            return Passage::Open(Box::new(message));
        }
        let Some(parked) = self.parked.get_mut(&key) else {
            self.parked_bytes += message.memory_bytes();
            self.parked.insert(key, Box::new(message));
            return Passage::Parked;
        };
        // What was sent and comes back is older than what waits meanwhile.
        if message.sequence < parked.sequence {
            parked.stands_for = parked.stands_for.saturating_add(message.stands_for);
            return Passage::Superseded(Box::new(message));
        }
        self.parked_bytes += message.memory_bytes();
        let older = supersede(parked, message);
        self.parked_bytes -= older.memory_bytes();
        Passage::Superseded(Box::new(older))
    }

    /// The values whose periods have ended.
    pub fn due(&mut self, now: Tick) -> Vec<Message> {
        let mut due = std::mem::take(&mut self.early);
        while let Some(key) = self.periods.ended(now) {
            due.extend(self.take(key));
        }
        if self.parked.is_empty() {
            self.parked.shrink_to(SPARE_KEYS_MAX);
        }
        due
    }

    /// All values that wait: their periods end now.
    pub fn take_all(&mut self) -> Vec<Message> {
        self.parked_bytes = 0;
        let parked = self.parked.drain().map(|(_, message)| *message);
        self.early.drain(..).chain(parked).collect()
    }

    /// The value that has waited longest, to give way for want of room.
    pub fn take_oldest(&mut self) -> Option<Message> {
        while let Some(key) = self.periods.end_oldest() {
            if let Some(message) = self.take(key) {
                return Some(message);
            }
        }
        None
    }

    /// Values that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.parked.len() + self.early.len()
    }

    /// What those take in memory that wait for their period's end, in bytes.
    #[must_use]
    pub const fn parked_bytes(&self) -> u64 {
        self.parked_bytes
    }

    /// When the next value may be due; [`Tick::NEVER`] when none waits.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        match self.waiting() {
            0 => Tick::NEVER,
            _ if !self.early.is_empty() => Tick::ZERO,
            _ => self.periods.next_end(),
        }
    }

    /// Periods that ended early, for want of room.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.periods.forgotten()
    }

    fn take(&mut self, key: Fingerprint) -> Option<Message> {
        let message = *self.parked.remove(&key)?;
        self.parked_bytes -= message.memory_bytes();
        Some(message)
    }
}

/// Of what was superseded, one value for each key and period goes to the disk: an outage leaves a
/// coarser curve there, not a hole. Here it waits until it is safe.
#[derive(Debug)]
pub struct Curve {
    periods: Periods,
    /// Values on their way to the disk, the oldest first.
    kept: VecDeque<Message>,
    kept_bytes: u64,
    /// Of these, not handed to the disk.
    unwritten: usize,
    /// What the values of a key that are looked at together still count of those that were kept.
    counted: ByFingerprint<u32>,
}

impl Curve {
    /// Nothing is kept yet. The values themselves not counted, it takes at most so many bytes.
    #[must_use]
    pub fn new(period: Duration, bytes_max: u64) -> Self {
        Self {
            periods: Periods::new(period, bytes_max / Periods::KEY_BYTES as u64),
            kept: VecDeque::new(),
            kept_bytes: 0,
            unwritten: 0,
            counted: ByFingerprint::default(),
        }
    }

    /// Whether a superseded value is the first of a period: it is to be kept then, and stands only for
    /// what is not kept.
    pub fn takes(&mut self, message: &mut Message) -> bool {
        let key = self.periods.print(message);
        if self.periods.is_running(key, message.received) {
            return false;
        }
        let _ = self.periods.begin(key, message.received);
        let counted = self.counted.entry(key).or_default();
        let own = message.stands_for.saturating_sub(*counted).max(1);
        *counted = message.stands_for;
        message.stands_for = own;
        true
    }

    /// What was superseded together has been looked at.
    pub fn looked(&mut self) {
        self.counted.clear();
    }

    /// Keeps a message until it is on disk. Its sender has nothing to do with it any more.
    pub fn keep(&mut self, mut message: Message) -> &Message {
        message.receipt.door = DoorId::NOBODY;
        self.kept_bytes += message.memory_bytes();
        self.unwritten += usize::from(message.spooled.is_none());
        self.kept.push_back(message);
        let last = self.kept.len() - 1;
        &self.kept[last]
    }

    /// Hands what is not written to `write`, which says whether it took it, until it does not.
    pub fn write(&mut self, mut write: impl FnMut(&mut Message) -> bool) {
        if self.unwritten == 0 {
            return;
        }
        let unwritten = |message: &&mut Message| message.spooled.is_none();
        for message in self.kept.iter_mut().filter(unwritten) {
            if !write(message) {
                return;
            }
            self.unwritten -= 1;
        }
    }

    /// Gives the oldest up, if `is_safe`.
    pub fn take_safe(&mut self, is_safe: impl FnOnce(&Message) -> bool) -> Option<Message> {
        let message = self.kept.pop_front_if(|message| is_safe(message))?;
        self.kept_bytes -= message.memory_bytes();
        Some(message)
    }

    /// Gives up what is not written: the disk does not take it.
    pub fn take_unwritten(&mut self) -> Vec<Message> {
        if self.unwritten == 0 {
            return Vec::new();
        }
        let kept = std::mem::take(&mut self.kept);
        let (unwritten, kept): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|m| m.spooled.is_none());
        self.kept = kept.into();
        self.count_again();
        unwritten
    }

    /// All that is kept, at the end.
    pub fn take_all(&mut self) -> Vec<Message> {
        let kept = std::mem::take(&mut self.kept).into();
        self.count_again();
        kept
    }

    /// All that is kept, to have its marks taken off.
    pub fn change(&mut self, change: impl FnMut(&mut Message)) {
        self.kept.iter_mut().for_each(change);
        self.count_again();
    }

    /// Forgets the periods that have ended.
    pub fn tidy(&mut self, now: Tick) {
        while self.periods.ended(now).is_some() {}
    }

    /// Messages that are kept until they are safe.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.kept.len()
    }

    /// What they take in memory, in bytes.
    #[must_use]
    pub const fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Whether all of them were handed to the disk.
    #[must_use]
    pub const fn is_written(&self) -> bool {
        self.unwritten == 0
    }

    /// Periods that ended early, for want of room.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.periods.forgotten()
    }

    fn count_again(&mut self) {
        self.kept_bytes = self.kept.iter().map(Message::memory_bytes).sum();
        let unwritten = self.kept.iter().filter(|m| m.spooled.is_none());
        self.unwritten = unwritten.count();
    }
}

#[cfg(test)]
#[path = "thin_tests.rs"]
mod tests;
