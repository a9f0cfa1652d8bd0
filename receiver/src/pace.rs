//! Whether this host gets through what arrives, and how much that is if it does not.
//!
//! Seen from the loop: while more arrives than it gets through, the queue in front of it fills,
//! long before the socket behind that queue drops anything.

use std::time::{Duration, Instant};

/// Watches the queue in front of the loop.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    /// Time that the loop spent on what arrived.
    busy: Duration,
    octets: u64,
    batches: u32,
    /// Batches behind which the queue was half full or more.
    crowded: u32,
    /// The queue was crowded in the window before.
    was_crowded: bool,
}

impl Pace {
    /// A queue that is watched from now on.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            since: now,
            busy: Duration::ZERO,
            octets: 0,
            batches: 0,
            crowded: 0,
            was_crowded: false,
        }
    }

    /// A batch of so many octets was worked off since `begun`; whether the queue behind it was
    /// half full. Now and then returns what the host gets through, in kB/s, if it is behind and has
    /// been for a while: while it works on what arrives, for a pause of another kind passes.
    pub fn note(
        &mut self,
        begun: Instant,
        now: Instant,
        octets: usize,
        is_crowded: bool,
    ) -> Option<Option<u32>> {
        self.busy += now.saturating_duration_since(begun);
        self.octets += octets as u64;
        self.batches += 1;
        self.crowded += u32::from(is_crowded);
        if now.saturating_duration_since(self.since) < WINDOW {
            return None;
        }
        let is_crowded = self.crowded * 2 > self.batches;
        let is_behind = is_crowded && self.was_crowded;
        let micros = self.busy.as_micros().max(1);
        let kilobytes = u128::from(self.octets) * 1000 / micros;
        let kilobytes = u32::try_from(kilobytes).unwrap_or(u32::MAX);
        *self = Self { was_crowded: is_crowded, ..Self::new(now) };
        Some(is_behind.then_some(kilobytes))
    }
}

/// Two of them are longer than a host looks away, and shorter than its buffers last. (With one of
/// 20 ms eight receivers on two cores, none of which lost anything, halved the rate now and then.)
const WINDOW: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty batches of 400 kB, 4 ms apart, each 2 ms of work.
    fn judge(crowded: impl Fn(u32) -> bool) -> Vec<Option<u32>> {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let note = |number: u32| {
            let now = start + number * Duration::from_millis(4);
            pace.note(now - Duration::from_millis(2), now, 400_000, crowded(number))
        };
        (1..=20).filter_map(note).collect()
    }

    #[test]
    fn a_queue_that_stays_crowded_shows_what_the_host_gets_through() {
        assert_eq!(judge(|_| true), [None, Some(200_000), Some(200_000), Some(200_000)]);
        assert_eq!(judge(|number| number <= 10), [None, Some(200_000), None, None]);
    }

    #[test]
    fn a_moment_of_inattention_is_no_reason() {
        assert_eq!(judge(|number| number % 5 < 2), [None; 4]);
        assert_eq!(judge(|number| number <= 5), [None; 4]);
    }
}
