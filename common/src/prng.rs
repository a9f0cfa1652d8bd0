//! Seeded randomness (SplitMix64): one seed explains a run.

/// A small deterministic generator; not for secrets.
#[derive(Clone, Debug)]
pub struct Prng(u64);

impl Prng {
    /// A generator whose every draw follows from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed that differs from run to run, for real sessions; simulations choose their own.
    #[must_use]
    pub fn fresh_seed() -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(std::process::id())
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`, or 0 if `end` is 0. The bias of the reduction is below 2^-32 for
    /// every range used here.
    pub const fn below(&mut self, end: u64) -> u64 {
        ((self.bits() as u128 * end as u128) >> 64) as u64
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether an event of this probability, in parts of a million, happens now.
    pub const fn chance(&mut self, parts_per_million: u32) -> bool {
        self.below(1_000_000) < parts_per_million as u64
    }

    /// Fills `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.bits().to_be_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }
}

/// The finalizer of SplitMix64: a good mix of 64 bits, also for hashing small numbers.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_range_and_cover_it() {
        let mut prng = Prng::new(7);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[usize::try_from(prng.below(10)).unwrap()] = true;
            assert!((0.0..1.0).contains(&prng.unit()));
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(prng.below(0), 0);
    }

    #[test]
    fn the_same_seed_gives_the_same_draws() {
        let (mut one, mut two) = (Prng::new(42), Prng::new(42));
        assert!((0..100).all(|_| one.bits() == two.bits()));
    }
}
