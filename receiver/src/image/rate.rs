//! How fast the target takes data.

use std::time::Duration;

/// Octets over the time the target was busy with them: what it could do, also while the network
/// gives it less. The recent past weighs most.
#[derive(Clone, Debug, Default)]
pub(super) struct DrainRate {
    octets: u64,
    busy: Duration,
}

impl DrainRate {
    /// The target was busy for `took` with `octets`, none for a flush.
    pub(super) fn note(&mut self, octets: u64, took: Duration) {
        self.octets = self.octets.saturating_add(octets);
        self.busy = self.busy.saturating_add(took);
        while self.busy > MEMORY {
            self.octets /= 2;
            self.busy /= 2;
        }
    }

    /// Kilobytes (1,000 octets) per second; 0 while nothing is known.
    pub(super) fn kilobytes_per_second(&self) -> u32 {
        let busy_us = self.busy.as_micros();
        let rate = (u128::from(self.octets) * 1_000).checked_div(busy_us).unwrap_or(0);
        u32::try_from(rate).unwrap_or(u32::MAX)
    }
}

/// Busy time after which the past counts half: several flushes of a slow disk.
const MEMORY: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

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
        for _ in 0..12 {
            rate.note(10_000_000, Duration::from_secs(1));
        }
        assert!(rate.kilobytes_per_second() < 100_000, "{rate:?}");
    }
}
