//! What machines get through, the sender's own and those of receivers: they share their limit with
//! nobody, and the way back up to it is short.

use super::search::Limit;

/// How far the rate may go when a machine was the limit last.
#[derive(Debug)]
pub(super) struct Reach {
    /// The rate that got through then, or has since.
    through: u64,
    /// Up, since then.
    steps: u32,
}

impl Reach {
    pub(super) const fn new(rate_max: u64) -> Self {
        Self { through: rate_max, steps: 0 }
    }

    /// No more than this, which it returns, gets through.
    pub(super) const fn limit(&mut self, through: u64) -> u64 {
        *self = Self { through, steps: 0 };
        through
    }

    /// No more than this of `rate` does now, but nothing was lost: it may be so for a moment,
    /// because of what else runs on that machine.
    pub(super) fn limit_for_a_moment(&mut self, rate: u64, through: u64) {
        let before = rate.min(self.through);
        let is_moment = through > before / 2;
        let remembered = if is_moment { before - before / FORGETTING } else { 0 };
        self.limit(through.max(remembered));
    }

    /// So much got through.
    pub(super) fn reached(&mut self, rate: u64) {
        self.through = self.through.max(rate);
    }

    /// By how much to raise the rate while machines of this kind are its limit.
    pub(super) fn step(&mut self, limit: Limit, rate: u64) -> u64 {
        let first = self.through / STEPS;
        match limit {
            Limit::Local => rate / STEPS_LOCAL,
            _ if rate < self.through - first => (self.through - rate) / 2,
            _ => {
                self.steps += 1;
                first << (self.steps - 1).min(4)
            }
        }
    }
}

/// The first step beyond what got through is cautious; each that follows is twice the one before,
/// for what held hosts up may have been a moment's.
const STEPS: u64 = 8;
/// The sender's own link says without loss that the rate is too high: it may be tried sooner.
const STEPS_LOCAL: u64 = 4;
/// Of what hosts got through so much is forgotten each time that they fall behind.
const FORGETTING: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that follow one in five periods.
    fn climb(reach: &mut Reach, mut rate: u64) -> Vec<u64> {
        let mut next = || {
            rate += reach.step(Limit::Hosts, rate);
            reach.reached(rate);
            rate
        };
        (0..5).map(|_| next()).collect()
    }

    #[test]
    fn hosts_are_tried_by_larger_and_larger_steps() {
        let mut reach = Reach::new(10_000);
        reach.limit(800);
        assert_eq!(climb(&mut reach, 760), [860, 1_074, 1_610, 3_218, 9_650]);
    }

    #[test]
    fn what_may_have_been_a_moment_s_is_half_made_up_for_at_once() {
        let mut reach = Reach::new(10_000);
        reach.limit_for_a_moment(1_000, 600);
        assert_eq!(climb(&mut reach, 570)[..3], [722, 798, 907], "towards 875");
        reach.limit(1_000);
        reach.limit_for_a_moment(2_000, 600);
        assert_eq!(climb(&mut reach, 570)[0], 722, "2,000 never got through");
        reach.limit_for_a_moment(1_000, 400);
        assert_eq!(climb(&mut reach, 380)[0], 430, "less than half is none");
    }
}
