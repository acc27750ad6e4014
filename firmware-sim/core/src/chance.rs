//! Repeatable chance: a seed goes in, a row of numbers comes out, the same each time. Enough to
//! spread a fleet and to draw a signal; nothing secret may hang on it.

/// SplitMix64 (Steele, Lea, Flood 2014): eight bytes of state, any seed will do.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The row that begins with `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly spread from zero to `end`, `end` included.
    pub const fn up_to(&mut self, end: u64) -> u64 {
        match end.checked_add(1) {
            Some(count) => self.draw() % count,
            None => self.draw(),
        }
    }

    /// True so many times in a million.
    pub const fn in_a_million(&mut self, times: u32) -> bool {
        self.draw() % 1_000_000 < times as u64
    }
}
