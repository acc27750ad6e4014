//! Where each key's value waits, while a `latest` class coalesces. Calm, there is no index and
//! nothing is merged; it is built when pressure comes and dropped when it ends. A key is known by its
//! fingerprint, so that a long key takes no more room than a short one; there are never more of them
//! than messages that wait, and they count as memory.

use super::super::fingerprint::{ByFingerprint, Fingerprint, Secret, entry_bytes};
use super::super::message::Message;
use super::row::Row;

/// The key of a message: what its latest value is kept for.
#[must_use]
pub fn key_of(message: &Message) -> &[u8] {
    match &message.key {
        Some(key) => key.as_bytes(),
        None => message.body.topic_bytes(),
    }
}

/// For each key the position of its value. Positions count up along the queue and stay with a
/// message for as long as it waits.
#[derive(Debug, Default)]
pub struct Places {
    secret: Secret,
    by_key: ByFingerprint<u64>,
}

impl Places {
    /// What a message's key is called here.
    #[must_use]
    pub fn print(&self, message: &Message) -> Fingerprint {
        self.secret.print(key_of(message))
    }

    /// Where the key's value waits.
    #[must_use]
    pub fn find(&self, key: Fingerprint) -> Option<u64> {
        self.by_key.get(&key).copied()
    }

    /// Notes where a key's value waits.
    pub fn note(&mut self, key: Fingerprint, position: u64) {
        self.by_key.insert(key, position);
    }

    /// Forgets a message that left the queue from `position`.
    pub fn forget(&mut self, message: &Message, position: u64) {
        let key = self.print(message);
        if self.find(key) == Some(position) {
            self.by_key.remove(&key);
        }
    }

    /// What the index takes, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        (self.by_key.len() * entry_bytes::<u64>()) as u64
    }
}

/// The keys of which a value came while older ones may stand on disk: those are worth nothing any more,
/// and must not follow it. It notes from the start on, for what earlier starts left is not known yet.
#[derive(Debug)]
pub struct Seen {
    secret: Secret,
    keys: ByFingerprint<()>,
    keys_max: usize,
    forgotten: u64,
    rests: bool,
}

/// Keys that are remembered so, in one class, where memory allows: 64 times the topics of a large site, in
/// 3 MB. Of further ones old values may follow new ones, marked as replayed.
const SEEN_MAX: usize = 64 * 1024;

impl Seen {
    /// No key yet; what is remembered takes so many bytes at most.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let keys = bytes_max / entry_bytes::<()>() as u64;
        Self {
            secret: Secret::default(),
            keys: ByFingerprint::default(),
            keys_max: usize::try_from(keys).unwrap_or(SEEN_MAX).min(SEEN_MAX),
            forgotten: 0,
            rests: false,
        }
    }

    /// What a message's key is called here; `None` while nothing is noted.
    #[must_use]
    pub fn print(&self, message: &Message) -> Option<Fingerprint> {
        (!self.rests).then(|| self.secret.print(key_of(message)))
    }

    /// A value of this key came.
    pub fn note(&mut self, key: Fingerprint) {
        if self.keys.len() < self.keys_max || self.keys.contains_key(&key) {
            self.keys.insert(key, ());
        } else {
            self.forgotten += 1;
        }
    }

    /// Whether a value of a message's key came.
    #[must_use]
    pub fn has_key_of(&self, message: &Message) -> bool {
        let key = self.print(message);
        key.is_some_and(|key| self.keys.contains_key(&key))
    }

    /// Whether nothing is noted.
    #[must_use]
    pub const fn rests(&self) -> bool {
        self.rests
    }

    /// Notes from now on.
    pub fn wake(&mut self) {
        self.rests = false;
    }

    /// There is nothing older any more: notes nothing, and forgets.
    pub fn rest(&mut self) {
        self.rests = true;
        self.keys = ByFingerprint::default();
    }

    /// Values whose keys could not be remembered.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// What the keys take, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        (self.keys.len() * entry_bytes::<()>()) as u64
    }
}

/// Puts `newer` in the place of `older`, for which it stands from now on; gives `older` back.
pub fn supersede(older: &mut Message, mut newer: Message) -> Message {
    newer.turn = older.turn;
    newer.stands_for = newer.stands_for.saturating_add(older.stands_for);
    std::mem::replace(older, newer)
}

/// Merges what waits: each key keeps its newest value at the place of its oldest, so that no key
/// starves. Gives the index, and the older values.
#[must_use]
pub fn merge(waiting: &mut Row<Option<Message>>, front: u64) -> (Places, Row<Message>) {
    let mut places = Places::default();
    let mut superseded = Row::default();
    let mut kept: Row<Option<Message>> = Row::default();
    for message in std::mem::take(waiting).into_iter().flatten() {
        let key = places.print(&message);
        let place = places.find(key);
        let older = place.and_then(|position| kept.get_mut((position - front) as usize));
        if let Some(Some(older)) = older {
            superseded.push_back(supersede(older, message));
        } else {
            places.note(key, front + kept.len() as u64);
            kept.push_back(Some(message));
        }
    }
    *waiting = kept;
    (places, superseded)
}
