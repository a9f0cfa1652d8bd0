//! Whether this host gets through what arrives, and how much that is if it does not.
//!
//! While more arrives than it gets through, the queue in front of the loop fills, or the socket
//! behind that queue is never empty, long before it drops anything.

use std::time::{Duration, Instant};

/// What was seen behind a batch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Behind {
    /// The queue is half full or more.
    pub crowded: bool,
    /// The batch did not empty the group's socket; `None` if it is not of that.
    pub more: Option<bool>,
    /// How long the datagrams of the batch had waited …
    pub waited: Duration,
    /// … and how many octets may wait before any is dropped.
    pub room_bytes: usize,
}

impl Behind {
    /// Whether so much waits, at so many kB/s, that some may soon have to be dropped.
    fn is_pressing(&self, kilobytes_per_second: u32) -> bool {
        let waiting = self.waited.as_secs_f64() * f64::from(kilobytes_per_second) * 1000.0;
        waiting >= self.room_bytes as f64 * ROOM_TAKEN
    }
}

/// Watches the queue in front of the loop, and the socket behind it.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    batches: u32,
    /// Batches behind which the queue was crowded …
    crowded: u32,
    /// … those that did not empty the socket, and those behind which there was nothing.
    full: u32,
    emptied: u32,
    /// When the last batch was worked off, and whether more was there: the time until the next one
    /// went by with work.
    last_at: Instant,
    last_had_more: bool,
    /// Such time, and what was worked off in it: while it is behind, of the last windows.
    working: Duration,
    octets: u64,
    /// All that was worked off.
    octets_all: u64,
    /// The most that it got through lately, in kB/s.
    best: u32,
    was_behind: bool,
}

impl Pace {
    /// A queue that is watched from now on.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            since: now,
            batches: 0,
            crowded: 0,
            full: 0,
            emptied: 0,
            last_at: now,
            last_had_more: false,
            working: Duration::ZERO,
            octets: 0,
            octets_all: 0,
            best: 0,
            was_behind: false,
        }
    }

    /// A batch of so many octets was worked off at `now`. Now and then returns what the host gets
    /// through, in kB/s, if it is behind and has been for a while.
    pub fn note(&mut self, now: Instant, octets: usize, behind: Behind) -> Option<Option<u32>> {
        if self.last_had_more {
            self.working += now.saturating_duration_since(self.last_at);
            self.octets += octets as u64;
        }
        self.octets_all += octets as u64;
        let has_more = behind.crowded || behind.more.unwrap_or(self.last_had_more);
        (self.last_at, self.last_had_more) = (now, has_more);
        self.batches += 1;
        self.crowded += u32::from(behind.crowded);
        self.full += u32::from(behind.more == Some(true));
        self.emptied += u32::from(behind.more == Some(false) && !behind.crowded);
        let passed = now.saturating_duration_since(self.since);
        if passed < WINDOW {
            return None;
        }
        let never_emptied = self.full > 0 && self.emptied == 0;
        let is_behind = self.crowded * 2 > self.batches || never_emptied;
        let (was_behind, octets, working) = (self.was_behind, self.octets, self.working);
        let before = self.best - self.best / FORGETTING;
        let best = before.max(kilobytes_per_second(self.octets_all, passed)).max(1);
        *self = Self { last_had_more: has_more, best, was_behind: is_behind, ..Self::new(now) };
        if is_behind {
            self.best = best.max(kilobytes_per_second(octets, working));
            self.octets = octets - octets / u64::from(SMOOTHING);
            self.working = working - working / SMOOTHING;
        }
        Some((was_behind && is_behind && behind.is_pressing(self.best)).then_some(self.best))
    }
}

fn kilobytes_per_second(octets: u64, time: Duration) -> u32 {
    let kilobytes = u128::from(octets) * 1000 / time.as_micros().max(1);
    u32::try_from(kilobytes).unwrap_or(u32::MAX)
}

/// Two of them are longer than a host looks away, and shorter than its buffers last. (With one of
/// 20 ms eight receivers on two cores, none of which lost anything, halved the rate now and then.)
const WINDOW: Duration = Duration::from_millis(20);
/// What a host gets through in one of them says little of what it can, if others run on it as
/// well: with each the ones before count by so much less, …
const SMOOTHING: u32 = 4;
/// … and of the most that these together showed so much is forgotten. (Eight receivers on two
/// cores said in turn that they got through 30 MB/s, and 200 a moment later; the rate followed the
/// least.)
const FORGETTING: u32 = 16;
/// What is queued while this is found out, told and heard of fits into the rest. (Where nobody
/// asked how much waited one receiver packet by packet said so for no reason, and a tenth to a
/// fifth of the time of both cores was left unused.)
const ROOM_TAKEN: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTIED: Behind = Behind {
        crowded: false,
        more: Some(false),
        waited: Duration::from_millis(10),
        room_bytes: 400_000,
    };
    const CROWDED: Behind = Behind { crowded: true, ..EMPTIED };
    const MORE: Behind = Behind { more: Some(true), ..EMPTIED };

    /// Twenty batches, 4 ms apart, of so many octets, and what was seen behind each.
    fn judge(batch: impl Fn(u32) -> (usize, Behind)) -> Vec<Option<u32>> {
        judge_at(|number| number * 4, batch)
    }

    /// The same at such times, in milliseconds.
    fn judge_at(
        at: impl Fn(u32) -> u32,
        batch: impl Fn(u32) -> (usize, Behind),
    ) -> Vec<Option<u32>> {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let note = |number: u32| {
            let (octets, behind) = batch(number);
            pace.note(start + at(number) * Duration::from_millis(1), octets, behind)
        };
        (1..=20).filter_map(note).collect()
    }

    #[test]
    fn a_queue_that_stays_crowded_shows_what_the_host_gets_through() {
        let all = judge(|_| (400_000, CROWDED));
        assert_eq!(all, [None, Some(100_000), Some(100_000), Some(100_000)]);
        let until = |number| if number <= 10 { CROWDED } else { EMPTIED };
        assert_eq!(judge(|number| (400_000, until(number))), [None, Some(100_000), None, None]);
    }

    #[test]
    fn a_socket_that_is_never_empty_does_so_too() {
        let all = judge(|_| (400_000, MORE));
        assert_eq!(all, [None, Some(100_000), Some(100_000), Some(100_000)]);
        let once = |number| if number == 8 { EMPTIED } else { MORE };
        let all = judge(|number| (400_000, once(number)));
        assert_eq!(all, [None, None, None, Some(100_000)], "one look in it was enough");
        let other = Behind { more: None, ..EMPTIED };
        let all = judge(|number| (400_000, if number % 2 == 0 { other } else { MORE }));
        assert_eq!(all[1..], [Some(100_000); 3], "other sockets say nothing of it");
        assert_eq!(judge(|_| (400_000, other)), [None; 4]);
    }

    #[test]
    fn it_says_nothing_while_there_is_room_for_far_more_than_waits() {
        for (waited_millis, room_bytes, says) in [(10, 4_100_000, false), (10, 3_900_000, true)] {
            let waited = Duration::from_millis(waited_millis);
            let all = judge(|_| (400_000, Behind { waited, room_bytes, ..MORE }));
            assert_eq!(all[1].is_some(), says, "{waited:?}, {room_bytes}");
        }
    }

    #[test]
    fn time_without_work_does_not_count() {
        // 1 ms for each batch that waits, and 14 until the next three come.
        let behind = |number| if number % 3 < 2 { CROWDED } else { EMPTIED };
        let pace =
            judge_at(|number| number / 3 * 16 + number % 3, |number| (400_000, behind(number)));
        let last = pace.last().copied().flatten().unwrap();
        assert!((400_000..400_100).contains(&last), "{pace:?}");
    }

    #[test]
    fn what_it_got_through_before_is_forgotten_by_and_by() {
        let slower = judge(|number| (if number <= 10 { 400_000 } else { 40_000 }, CROWDED));
        assert_eq!(slower, [None, Some(100_000), Some(93_750), Some(87_891)]);
        let faster = judge(|number| (if number <= 10 { 40_000 } else { 400_000 }, CROWDED));
        assert_eq!(faster[..2], [None, Some(10_000)]);
        assert!(faster[2] > Some(50_000) && faster[3] > Some(70_000), "{faster:?}");
    }

    #[test]
    fn a_moment_of_inattention_is_no_reason() {
        let now_and_then = |number| if number % 5 < 2 { CROWDED } else { EMPTIED };
        assert_eq!(judge(|number| (400_000, now_and_then(number))), [None; 4]);
        let once = |number| if number <= 5 { CROWDED } else { EMPTIED };
        assert_eq!(judge(|number| (400_000, once(number))), [None; 4]);
    }
}
