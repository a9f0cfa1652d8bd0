//! What receivers reported on the present rate, and what of it counts.
//!
//! Small groups are heard as a whole. Of a large one only those count who were polled: whoever has
//! trouble speaks unasked, and often, and would stand for all the others.
//!
//! A few that suffer far more than all others are *spared*: they do not count, and the others do
//! not wait for them.

use std::{collections::BTreeMap, time::Instant};

use imgcast_common::id::ReceiverId;

/// The newest report of each receiver.
#[derive(Debug, Default)]
pub(super) struct Samples {
    by_receiver: BTreeMap<ReceiverId, Sample>,
    /// Receivers in the group.
    active: u32,
    /// How many of them are spared at most.
    spared_max: u32,
}

/// What one receiver lost since the rate changed last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) loss: f64,
    /// The share of the rate that is too much for this receiver or the way to it: loss above the
    /// receiver's floor that chance does not explain, or what it could not take in.
    pub(super) excess: f64,
    pub(super) is_host: bool,
    /// Its sockets dropped more than next to nothing.
    pub(super) drops: bool,
    /// It answers a poll.
    pub(super) was_asked: bool,
    pub(super) at: Instant,
}

impl Samples {
    /// One of `active` receivers reported.
    pub(super) fn insert(&mut self, id: ReceiverId, sample: Sample, active: u32) {
        self.active = active;
        self.by_receiver.insert(id, sample);
    }

    pub(super) fn loss_of(&self, id: ReceiverId) -> Option<f64> {
        self.by_receiver.get(&id).map(|sample| sample.loss)
    }

    /// At most so many are spared from now on.
    pub(super) const fn spare(&mut self, receivers_max: u32) {
        self.spared_max = receivers_max;
    }

    /// What a receiver reported last on the present rate, and whether it is spared.
    pub(super) fn standing(&self, id: ReceiverId) -> Option<(Sample, bool)> {
        let sample = self.by_receiver.get(&id)?;
        // Whoever misses next to nothing never is: most reports need no look at all the others.
        let is_spared = sample.misses() > EXCESS_MAX && sample.misses() >= self.spared_from();
        Some((*sample, is_spared))
    }

    pub(super) fn forget(&mut self, id: ReceiverId) {
        self.by_receiver.remove(&id);
    }

    pub(super) fn clear(&mut self) {
        self.by_receiver.clear();
    }

    pub(super) fn forget_before(&mut self, since: Option<Instant>) {
        self.by_receiver.retain(|_, sample| since.is_none_or(|since| sample.at > since));
    }

    /// By how much the rate is too high for more than one in twenty of the group, whoever of it has
    /// reported; `None` if it is for no more than that.
    pub(super) fn too_much(&self) -> Option<f64> {
        let mut excesses: Vec<f64> = self.suffering().map(|sample| sample.excess).collect();
        excesses.sort_unstable_by(|one, other| other.total_cmp(one));
        let ignored = self.active / 20;
        excesses.get(usize::try_from(ignored).unwrap_or(usize::MAX)).copied()
    }

    /// Whether it is so for no other reason than the receivers themselves.
    pub(super) fn hosts_alone_suffer(&self) -> bool {
        self.suffering().all(|sample| sample.is_host)
    }

    /// Whether the sockets of any of those drop what arrives.
    pub(super) fn hosts_drop(&self) -> bool {
        self.suffering().any(|sample| sample.drops)
    }

    fn suffering(&self) -> impl Iterator<Item = &Sample> {
        let spared_from = self.spared_from();
        let counts = move |sample: &&Sample| sample.misses() < spared_from;
        self.by_receiver.values().filter(|sample| sample.excess > EXCESS_MAX).filter(counts)
    }

    /// What receivers miss from which on they are spared: of as many as may be, those that get
    /// through far less than any other does.
    fn spared_from(&self) -> f64 {
        if self.spared_max == 0 {
            return f64::INFINITY;
        }
        let misses = self.by_receiver.values().map(Sample::misses);
        let mut worst: Vec<f64> = misses.filter(|misses| *misses > EXCESS_MAX).collect();
        worst.sort_unstable_by(|one, other| other.total_cmp(one));
        let most = worst.len().min(self.spared_max as usize);
        let stands_out = |count: &usize| {
            let next = worst.get(*count).copied().unwrap_or(0.0);
            1.0 - worst[count - 1] < FAR_SLOWER * (1.0 - next)
        };
        let Some(count) = (1..=most).rev().find(stands_out) else { return f64::INFINITY };
        let spared_from = worst[count - 1];
        // Those of a large group who were not asked say nothing of how many there are.
        let asked = || self.by_receiver.values().filter(|sample| sample.was_asked);
        let spared = asked().filter(|sample| sample.misses() >= spared_from).count();
        let many = spared > asked().count() / SPARED_PART + BY_CHANCE;
        if self.active > GROUP_SMALL && many { f64::INFINITY } else { spared_from }
    }

    /// The 0.95-quantile of what counts; `None` if nothing does. In a large group one or
    /// two receivers do not decide it, however few were polled.
    pub(super) fn quantile(&self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        let is_small = self.active <= GROUP_SMALL;
        let spared_from = self.spared_from();
        let counting = self.by_receiver.values().filter(|sample| is_small || sample.was_asked);
        let counting = counting.filter(|sample| sample.misses() < spared_from);
        let mut values: Vec<f64> = counting.map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        let rank = (values.len() * 95).div_ceil(100);
        let rank = if is_small { rank } else { rank.min(values.len().saturating_sub(2)) };
        values.get(rank.checked_sub(1)?).copied()
    }
}

impl Sample {
    /// The share of what is sent that does not get through, whatever for.
    pub(super) const fn misses(&self) -> f64 {
        self.excess.max(self.loss)
    }
}

/// Loss above the floor that is no congestion yet.
pub(super) const EXCESS_MAX: f64 = 0.005;
/// One of so many is more than one in twenty of them.
const GROUP_SMALL: u32 = 20;
/// Whoever gets through less than this part of what any other does would hold them all up; who is
/// but a little slower costs less by being followed than by being served later.
const FAR_SLOWER: f64 = 0.75;
/// At most one in so many of a group is spared …
pub(super) const SPARED_PART: usize = 5;
/// … and so many more of those who are polled may be among them by chance.
const BY_CHANCE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_too_high_by_what_more_than_one_in_twenty_say() {
        let too_much = |active, excesses: &[f64]| {
            let mut samples = Samples::default();
            for (id, excess) in (0..).zip(excesses) {
                samples.insert(ReceiverId(id), sample(*excess), active);
            }
            samples.too_much()
        };
        assert_eq!(too_much(3, &[0.0, 0.0, 0.3]), Some(0.3));
        assert_eq!(too_much(3, &[0.0, 0.0, 0.004]), None);
        assert_eq!(too_much(40, &[0.5, 0.2]), None, "just one in twenty");
        assert_eq!(too_much(40, &[0.1, 0.5, 0.2]), Some(0.1));
    }

    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn sample(excess: f64) -> Sample {
        let at = Instant::now();
        Sample { loss: 0.0, excess, is_host: true, drops: false, was_asked: true, at }
    }

    /// Which of some excesses are spared if at most so many may be.
    fn spared(excesses: &[f64], spared_max: u32) -> Vec<f64> {
        let mut samples = Samples { spared_max, ..Samples::default() };
        let active = u32::try_from(excesses.len()).unwrap();
        for (id, excess) in (0..).zip(excesses) {
            samples.insert(ReceiverId(id), sample(*excess), active);
        }
        let spared = (0..active).filter_map(|id| samples.standing(ReceiverId(id)));
        spared.filter(|(_, spared)| *spared).map(|(sample, _)| sample.excess).collect()
    }

    #[test]
    fn who_gets_through_far_less_than_any_other_is_spared() {
        assert_eq!(spared(&[0.0, 0.9, 0.0], 1), [0.9]);
        assert_eq!(spared(&[0.9], 1), [0.9], "nobody else has said anything yet");
        assert_eq!(spared(&[0.0, 0.9, 0.0], 0), []);
        assert_eq!(spared(&[0.0, 0.2, 0.0], 1), [], "the others can well wait for it");
        assert_eq!(spared(&[0.0, 0.7, 0.9, 0.0], 1), [0.9], "for the other one they wait");
        assert_eq!(spared(&[0.7, 0.7, 0.0, 0.0], 1), [], "they would wait for the other one");
        assert_eq!(spared(&[0.7, 0.9, 0.0, 0.0], 2), [0.7, 0.9]);
        assert_eq!(spared(&[0.9; 8], 1), []);
    }

    #[test]
    fn of_a_large_group_nobody_is_spared_if_many_suffer() {
        let mut excesses = vec![0.0; 100];
        excesses[..20].fill(0.9);
        assert_eq!(spared(&excesses, 20).len(), 20);
        excesses[..30].fill(0.9);
        assert_eq!(spared(&excesses, 40), []);
    }
}
