//! Chance that can be had again: everything random in a run comes from its seed.

use std::time::Duration;

/// The splitmix64 generator.
pub(crate) struct Dice(u64);

impl Dice {
    /// Creates a generator; the same seed throws the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// Returns a number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Returns one of `things`.
    pub(crate) fn one_of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(things.len() as u64)).unwrap();
        &things[index]
    }

    /// Returns a time below `limit`.
    pub(crate) fn within(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(limit.as_micros()).unwrap()))
    }

    /// Returns `count` random bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_be_bytes()[0]).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Returns the seed of a run: from the variable `LAKEFORGE_SEED`, else the same each time.
pub(crate) fn seed() -> u64 {
    match std::env::var("LAKEFORGE_SEED").ok().filter(|text| !text.is_empty()) {
        Some(text) => text.parse().expect("LAKEFORGE_SEED is a number"),
        None => 1,
    }
}
