//! How fast the node takes data: its target, and the threads that decode for it.

use std::time::{Duration, Instant};

/// Octets over the time somebody was busy with them: what they could do, also while the network
/// gives them less. The recent past weighs most.
#[derive(Clone, Debug, Default)]
pub struct DrainRate {
    octets: u64,
    busy: Duration,
}

impl DrainRate {
    /// Somebody was busy for `took` with `octets`, none for what only takes time.
    pub fn note(&mut self, octets: u64, took: Duration) {
        self.octets = self.octets.saturating_add(octets);
        self.busy = self.busy.saturating_add(took);
        while self.busy > MEMORY {
            self.octets /= 2;
            self.busy /= 2;
        }
    }

    /// Kilobytes (1,000 octets) per second; 0 while nothing is known.
    #[must_use]
    pub fn kilobytes_per_second(&self) -> u32 {
        let octets = u128::from(self.octets);
        let rate = (octets * 1_000_000).checked_div(self.busy.as_nanos()).unwrap_or(0);
        u32::try_from(rate).unwrap_or(u32::MAX)
    }
}

/// What a target takes that is written and flushed at the same time.
#[derive(Clone, Debug, Default)]
pub(super) struct TargetRate {
    writing: DrainRate,
    flushing: DrainRate,
    /// Writes that are under way, and since when their time is not noted.
    active: usize,
    since: Option<Instant>,
}

impl TargetRate {
    /// A write begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.active += 1;
        self.since.get_or_insert(now);
    }

    /// A write of so many octets ended. Time in which several were under way counts once.
    pub(super) fn end(&mut self, now: Instant, octets: u64) {
        self.active = self.active.saturating_sub(1);
        let following = (self.active > 0).then_some(now);
        if let Some(since) = std::mem::replace(&mut self.since, following) {
            self.writing.note(octets, now.saturating_duration_since(since));
        }
    }

    /// So many octets that had been written were flushed in this time.
    pub(super) fn note_flush(&mut self, octets: u64, took: Duration) {
        self.flushing.note(octets, took);
    }

    /// Kilobytes (1,000 octets) per second; 0 while nothing is known.
    pub(super) fn kilobytes_per_second(&self) -> u32 {
        let (writing, flushing) = (&self.writing, &self.flushing);
        smaller_known(writing.kilobytes_per_second(), flushing.kilobytes_per_second())
    }
}

/// The smaller of two rates, of which 0 is none.
pub(super) fn smaller_known(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, known) | (known, 0) => known,
        _ => one.min(other),
    }
}

#[expect(clippy::disallowed_methods, reason = "measures this node and decides nothing by it")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Busy time after which the past counts half: a disk whose cache is full is a slow one from then
/// on. (With 2 s one that became four times slower was sent too much for another four.)
const MEMORY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_at_the_same_time_take_their_time_once() {
        let mut rate = TargetRate::default();
        let start = now();
        let at = |ms| start + Duration::from_millis(ms);
        rate.begin(at(0));
        rate.begin(at(5));
        assert_eq!(rate.kilobytes_per_second(), 0);
        rate.end(at(10), 1_000_000);
        rate.begin(at(10));
        rate.end(at(15), 1_000_000);
        rate.end(at(20), 1_000_000);
        assert_eq!(rate.kilobytes_per_second(), 150_000);
        rate.begin(at(1000));
        rate.end(at(1010), 1_500_000);
        assert_eq!(rate.kilobytes_per_second(), 150_000, "waiting for data is no work");
    }

    #[test]
    fn a_target_is_as_fast_as_its_slower_half() {
        let mut rate = TargetRate::default();
        rate.note_flush(1_000_000, Duration::from_millis(10));
        assert_eq!(rate.kilobytes_per_second(), 100_000);
        let start = now();
        rate.begin(start);
        rate.end(start + Duration::from_millis(1), 1_000_000);
        assert_eq!(rate.kilobytes_per_second(), 100_000);
        rate.note_flush(1_000_000, Duration::ZERO);
        rate.note_flush(98_000_000, Duration::ZERO);
        assert_eq!(rate.kilobytes_per_second(), 1_000_000);
    }

    #[test]
    fn nothing_known_is_no_rate() {
        let mut rate = DrainRate::default();
        assert_eq!(rate.kilobytes_per_second(), 0);
        rate.note(1 << 20, Duration::ZERO);
        assert_eq!(rate.kilobytes_per_second(), 0, "a clock too coarse to tell");
    }

    #[test]
    fn flushes_count_as_time() {
        let mut rate = DrainRate::default();
        rate.note(1_000_000, Duration::from_millis(10));
        assert_eq!(rate.kilobytes_per_second(), 100_000);
        rate.note(0, Duration::from_millis(90));
        assert_eq!(rate.kilobytes_per_second(), 10_000);
    }

    #[test]
    fn a_disk_that_slows_down_is_found_out_within_seconds() {
        let mut rate = DrainRate::default();
        for _ in 0..1000 {
            rate.note(10_000_000, Duration::from_millis(10));
        }
        assert_eq!(rate.kilobytes_per_second(), 1_000_000);
        for _ in 0..3 {
            rate.note(10_000_000, Duration::from_secs(1));
        }
        assert!(rate.kilobytes_per_second() < 100_000, "{rate:?}");
    }
}
