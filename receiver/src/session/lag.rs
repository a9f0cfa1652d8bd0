//! How much later than at best the group's datagrams are worked off: what waits in queues on the
//! way, most of all in the receiver's own. (What waits in the sender's counts, too; whoever is not
//! behind says nothing of it.)

use std::time::{Duration, Instant};

/// Compares the sender's clock, as SYNC tells it, with this one.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// Where both clocks begin.
    origin: Option<(Instant, u64)>,
    /// By how many microseconds this clock was ahead of the sender's last …
    ahead: i64,
    /// … and the least that it was in this period and in the one before: nothing waited then.
    this: Option<i64>,
    last: Option<i64>,
    since: Option<Instant>,
}

impl Lag {
    /// A SYNC of the group that left at `time_micros` on the sender's clock is worked off.
    pub(super) fn note(&mut self, now: Instant, time_micros: u64) {
        let (began, first_micros) = *self.origin.get_or_insert((now, time_micros));
        let passed = now.saturating_duration_since(began).as_micros();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        self.ahead = passed.saturating_sub(time_micros.wrapping_sub(first_micros).cast_signed());
        let since = *self.since.get_or_insert(now);
        if now >= since + PERIOD {
            (self.last, self.this, self.since) = (self.this, None, Some(now));
        }
        self.this = Some(self.this.map_or(self.ahead, |least| least.min(self.ahead)));
    }

    /// How long the newest SYNC waited.
    pub(super) fn waited(&self) -> Duration {
        let least = self.this.into_iter().chain(self.last).min().unwrap_or(self.ahead);
        Duration::from_micros(u64::try_from(self.ahead.saturating_sub(least)).unwrap_or(0))
    }
}

/// Meanwhile clocks drift apart by a milli or two, and queues are empty now and then.
const PERIOD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of SYNCs that each came so many milliseconds after the first, and had left so
    /// many after it.
    fn waited(syncs: impl IntoIterator<Item = (u64, u64)>) -> Vec<u128> {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let start = Instant::now();
        let mut lag = Lag::default();
        let note = |(came, left): (u64, u64)| {
            // The sender's clock began long ago, and goes on beyond its highest number.
            let time_micros = (u64::MAX - 5_000).wrapping_add(left * 1_000);
            lag.note(start + Duration::from_millis(came), time_micros);
            lag.waited().as_millis()
        };
        syncs.into_iter().map(note).collect()
    }

    #[test]
    fn what_comes_later_than_the_earliest_has_waited() {
        assert_eq!(waited([(0, 0), (10, 10), (25, 20), (30, 30)]), [0, 0, 5, 0]);
        assert_eq!(waited([(0, 0), (5, 10), (15, 20), (30, 30)]), [0, 0, 0, 5], "the first waited");
    }

    #[test]
    fn clocks_that_drift_apart_are_compared_anew() {
        let syncs = (0..10_000).map(|number| (number * 101 / 10, number * 10));
        let waited = waited(syncs);
        assert_eq!(waited[990], 99, "ten seconds");
        assert!(waited.into_iter().all(|millis| millis <= 205));
    }
}
