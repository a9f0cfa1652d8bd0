//! What machines get through, the sender's own and those of receivers: they share their limit with
//! nobody, and the way back up to it is short.

use super::search::Limit;

/// How far the rate may go when a machine was the limit last.
#[derive(Debug)]
pub(super) struct Reach {
    /// The rate that got through then, or has since.
    through: u64,
    /// By how much it goes up next where that has been reached again.
    step: u64,
}

impl Reach {
    pub(super) const fn new(rate_max: u64) -> Self {
        Self { through: rate_max, step: rate_max / STEPS }
    }

    /// No more than this gets through.
    pub(super) const fn limit(&mut self, through: u64) {
        *self = Self { through, step: through / STEPS };
    }

    /// So much of `rate` gets through now, but nothing was lost: it may be so for a moment, because
    /// of what else runs on that machine. Else no more than `kept` is taken to do.
    pub(super) fn limit_for_a_moment(&mut self, rate: u64, through: u64, kept: u64) {
        let before = rate.min(self.through);
        let is_moment = through >= before / 2;
        let remembered = if is_moment { before - before / FORGETTING } else { 0 };
        self.limit(kept.max(remembered));
    }

    /// So much got through.
    pub(super) fn reached(&mut self, rate: u64) {
        self.through = self.through.max(rate);
    }

    /// By how much to raise the rate while machines of this kind are its limit.
    pub(super) fn step(&mut self, limit: Limit, rate: u64) -> u64 {
        match limit {
            Limit::Local => rate / STEPS_LOCAL,
            _ if rate < self.through - self.through / STEPS => (self.through - rate) / 2,
            _ => {
                let next = self.step.saturating_mul(2).min(self.through);
                std::mem::replace(&mut self.step, next)
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
            let step = reach.step(Limit::Hosts, rate);
            reach.reached(rate);
            rate += step;
            rate
        };
        (0..5).map(|_| next()).collect()
    }

    #[test]
    fn hosts_are_tried_by_larger_and_larger_steps() {
        let mut reach = Reach::new(10_000);
        reach.limit(800);
        assert_eq!(climb(&mut reach, 760), [860, 1_060, 1_460, 2_260, 3_320]);
    }

    #[test]
    fn what_may_have_been_a_moment_s_is_half_made_up_for_at_once() {
        let mut reach = Reach::new(10_000);
        reach.limit_for_a_moment(1_000, 600, 600);
        assert_eq!(climb(&mut reach, 570)[..3], [722, 798, 907], "towards 875");
        reach.limit(1_000);
        reach.limit_for_a_moment(2_000, 600, 1_000);
        assert_eq!(climb(&mut reach, 950)[0], 1_075, "half of the rate");
        reach.limit(1_000);
        reach.limit_for_a_moment(1_000, 400, 500);
        assert_eq!(climb(&mut reach, 475)[0], 537, "less than half is none");
    }
}
