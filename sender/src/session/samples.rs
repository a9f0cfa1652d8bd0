//! What receivers reported on the present rate, and what of it counts.
//!
//! Small groups are heard as a whole. Of a large one only those count who were polled: whoever has
//! trouble speaks unasked, and often, and would stand for all the others.

use std::{collections::BTreeMap, time::Instant};

use imgcast_common::id::ReceiverId;

/// The newest report of each receiver.
#[derive(Debug, Default)]
pub(super) struct Samples {
    by_receiver: BTreeMap<ReceiverId, Sample>,
    /// Receivers in the group.
    active: u32,
}

/// What one receiver lost since the rate changed last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) loss: f64,
    /// The share of the rate that is too much for this receiver or the way to it: loss above the
    /// receiver's floor that chance does not explain, or what it could not take in.
    pub(super) excess: f64,
    pub(super) is_host: bool,
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

    pub(super) fn clear(&mut self) {
        self.by_receiver.clear();
    }

    pub(super) fn forget_before(&mut self, since: Option<Instant>) {
        self.by_receiver.retain(|_, sample| since.is_none_or(|since| sample.at > since));
    }

    /// Whether the rate is too high for more than one in twenty of the group, whoever of it has
    /// reported.
    pub(super) fn is_too_much(&self) -> bool {
        self.suffering().count() as u64 * 20 > u64::from(self.active)
    }

    /// Whether it is so for no other reason than the receivers themselves.
    pub(super) fn hosts_alone_suffer(&self) -> bool {
        self.suffering().all(|sample| sample.is_host)
    }

    fn suffering(&self) -> impl Iterator<Item = &Sample> {
        self.by_receiver.values().filter(|sample| sample.excess > EXCESS_MAX)
    }

    /// The 0.95-quantile of what counts; `None` if nothing does. In a large group one or
    /// two receivers do not decide it, however few were polled.
    pub(super) fn quantile(&self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        let is_small = self.active <= GROUP_SMALL;
        let counting = self.by_receiver.values().filter(|sample| is_small || sample.was_asked);
        let mut values: Vec<f64> = counting.map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        let rank = (values.len() * 95).div_ceil(100);
        let rank = if is_small { rank } else { rank.min(values.len().saturating_sub(2)) };
        values.get(rank.checked_sub(1)?).copied()
    }
}

/// Loss above the floor that is no congestion yet.
pub(super) const EXCESS_MAX: f64 = 0.005;
/// One of so many is more than one in twenty of them.
const GROUP_SMALL: u32 = 20;
