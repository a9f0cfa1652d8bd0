//! Whether this host gets through what arrives, and how much that is if it does not.
//!
//! Seen from the loop: while more arrives than it gets through, the queue in front of it fills,
//! long before the socket behind that queue drops anything.

use std::time::{Duration, Instant};

/// Watches the queue in front of the loop.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    batches: u32,
    /// Batches behind which the queue was half full or more.
    crowded: u32,
    /// When the last batch was worked off, and whether the queue was crowded then: the time until
    /// the next one went by with work.
    last_at: Instant,
    last_was_crowded: bool,
    /// Such time, and what was worked off in it.
    working: Duration,
    octets: u64,
    /// The most that it got through lately, in kB/s; 0 if the queue was not crowded in the window
    /// before.
    best: u32,
}

impl Pace {
    /// A queue that is watched from now on.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            since: now,
            batches: 0,
            crowded: 0,
            last_at: now,
            last_was_crowded: false,
            working: Duration::ZERO,
            octets: 0,
            best: 0,
        }
    }

    /// A batch of so many octets was worked off at `now`; whether the queue behind it was half
    /// full. Now and then returns what the host gets through, in kB/s, if it is behind and has been
    /// for a while.
    pub fn note(&mut self, now: Instant, octets: usize, is_crowded: bool) -> Option<Option<u32>> {
        if self.last_was_crowded {
            self.working += now.saturating_duration_since(self.last_at);
            self.octets += octets as u64;
        }
        (self.last_at, self.last_was_crowded) = (now, is_crowded);
        self.batches += 1;
        self.crowded += u32::from(is_crowded);
        if now.saturating_duration_since(self.since) < WINDOW {
            return None;
        }
        let before = self.best;
        let best = if self.crowded * 2 > self.batches {
            let kilobytes = u128::from(self.octets) * 1000 / self.working.as_micros().max(1);
            let kilobytes = u32::try_from(kilobytes).unwrap_or(u32::MAX);
            kilobytes.max(before - before / FORGETTING).max(1)
        } else {
            0
        };
        *self = Self { last_was_crowded: is_crowded, best, ..Self::new(now) };
        Some((before > 0 && best > 0).then_some(best))
    }
}

/// Two of them are longer than a host looks away, and shorter than its buffers last. (With one of
/// 20 ms eight receivers on two cores, none of which lost anything, halved the rate now and then.)
const WINDOW: Duration = Duration::from_millis(20);
/// What a host gets through in one of them says little of what it can, if others run on it as
/// well: of the most that it got through so much is forgotten with each. (Eight receivers on two
/// cores said in turn that they got through 30 MB/s, and 200 a moment later; the rate followed the
/// least.)
const FORGETTING: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty batches, 4 ms apart, of so many octets and behind which the queue was crowded or not.
    fn judge(batch: impl Fn(u32) -> (usize, bool)) -> Vec<Option<u32>> {
        judge_at(|number| number * 4, batch)
    }

    /// The same at such times, in milliseconds.
    fn judge_at(at: impl Fn(u32) -> u32, batch: impl Fn(u32) -> (usize, bool)) -> Vec<Option<u32>> {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let note = |number: u32| {
            let (octets, is_crowded) = batch(number);
            pace.note(start + at(number) * Duration::from_millis(1), octets, is_crowded)
        };
        (1..=20).filter_map(note).collect()
    }

    #[test]
    fn a_queue_that_stays_crowded_shows_what_the_host_gets_through() {
        let all = judge(|_| (400_000, true));
        assert_eq!(all, [None, Some(100_000), Some(100_000), Some(100_000)]);
        assert_eq!(judge(|number| (400_000, number <= 10)), [None, Some(100_000), None, None]);
    }

    #[test]
    fn time_without_work_does_not_count() {
        // 1 ms for each batch that waits, and 14 until the next three come.
        let pace =
            judge_at(|number| number / 3 * 16 + number % 3, |number| (400_000, number % 3 < 2));
        assert_eq!(pace.last(), Some(&Some(400_000)), "{pace:?}");
    }

    #[test]
    fn what_it_got_through_before_is_forgotten_by_and_by() {
        let slower = judge(|number| (if number <= 10 { 400_000 } else { 40_000 }, true));
        assert_eq!(slower, [None, Some(100_000), Some(87_500), Some(76_563)]);
        let faster = judge(|number| (if number <= 10 { 40_000 } else { 400_000 }, true));
        assert_eq!(faster, [None, Some(10_000), Some(100_000), Some(100_000)]);
    }

    #[test]
    fn a_moment_of_inattention_is_no_reason() {
        assert_eq!(judge(|number| (400_000, number % 5 < 2)), [None; 4]);
        assert_eq!(judge(|number| (400_000, number <= 5)), [None; 4]);
    }
}
