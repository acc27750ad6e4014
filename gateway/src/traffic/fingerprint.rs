//! Names a text by 128 bits instead of keeping it: what is remembered of it then lies in one place, has
//! one size, and is found in one cache miss.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// 128 bits of the standard library's SipHash under a [`Secret`]. Devices choose topics and keys: a hash
/// that can be guessed would let one make every look-up walk through all of them, or pass its own
/// off as another's. Chance makes two of a billion alike once in 10^20 secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64, u64);

/// The key of the hash, drawn anew by whoever remembers.
#[derive(Clone, Debug, Default)]
pub struct Secret(RandomState);

impl Secret {
    /// The fingerprint of a text. The second half hashes one byte more, which makes it independent of the
    /// first.
    #[must_use]
    pub fn print(&self, text: &[u8]) -> Fingerprint {
        let mut hasher = self.0.build_hasher();
        hasher.write(text);
        let first = hasher.finish();
        hasher.write_u8(0);
        Fingerprint(first, hasher.finish())
    }
}

/// What is remembered of texts, by their fingerprints.
pub type ByFingerprint<V> = HashMap<Fingerprint, V, BuildHasherDefault<Hashed>>;

/// What one entry of a [`ByFingerprint`] takes, in bytes: a hash table doubles when seven eighths full, so
/// an entry may stand for up to 16/7 of one, with one byte of control.
#[must_use]
pub const fn entry_bytes<V>() -> usize {
    (size_of::<(Fingerprint, V)>() + 1) * 16 / 7
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Takes a [`Fingerprint`] for what it is: a hash already.
#[derive(Debug, Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
