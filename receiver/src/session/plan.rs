//! What the sender plans for the group, as its SYNCs say.

use std::time::{Duration, Instant};

use imgcast_common::wire::{BlockRange, Sync};

/// The newest word on each block of one stream.
#[derive(Debug, Default)]
pub(super) struct PlanView {
    planned: Vec<BlockRange>,
    /// What the SYNCs covered.
    covered: Vec<Covered>,
}

/// Blocks that a SYNC spoke of.
#[derive(Clone, Copy, Debug)]
struct Covered {
    first: u32,
    end: u32,
    /// The SYNC's position in the group's sequence.
    counter: u64,
    heard_at: Instant,
}

impl PlanView {
    /// Takes in a SYNC that stood at `counter` in the group's sequence.
    pub(super) fn update(&mut self, now: Instant, sync: &Sync, counter: u64) {
        let (first, end) = (sync.covers_first, sync.covers_end);
        replace(&mut self.planned, first, end, &sync.planned);
        let covered = Covered { first, end, counter, heard_at: now };
        let covered = [covered];
        replace(&mut self.covered, first, end, if first < end { &covered } else { &[] });
    }

    /// Symbols planned for a block.
    pub(super) fn planned(&self, block: u32) -> Option<u16> {
        holding(&self.planned, block).map(|range| range.symbols)
    }

    /// Position of the newest SYNC that covers a block; 0 if none does.
    pub(super) fn covered_at(&self, block: u32) -> u64 {
        holding(&self.covered, block).map_or(0, |covered| covered.counter)
    }

    /// Whether what is known of a block was said lately: it may have been sent meanwhile, and that
    /// been lost as well.
    pub(super) fn is_fresh(&self, block: u32, now: Instant) -> bool {
        holding(&self.covered, block).is_some_and(|covered| now < covered.heard_at + BELIEVED)
    }

    /// The first block from `block` on that is covered and not listed.
    pub(super) fn next_unplanned(&self, block: u32, end: u32) -> Option<u32> {
        let mut at = block;
        while at < end {
            if let Some(range) = holding(&self.planned, at) {
                at = range.end();
            } else if self.covered_at(at) == 0 {
                at = from(&self.covered, at).first().map_or(end, |covered| covered.first);
            } else {
                return Some(at);
            }
        }
        None
    }

    /// The first block behind `block` that is not both covered and unlisted.
    pub(super) fn unplanned_end(&self, block: u32, end: u32) -> u32 {
        let listed = from(&self.planned, block).first().map_or(end, |range| range.first);
        let covered = holding(&self.covered, block).map_or(block, |covered| covered.end);
        listed.min(covered).min(end)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A run of blocks.
trait Run: Copy {
    fn first(&self) -> u32;
    fn end(&self) -> u32;
    /// What is left of it between these blocks.
    fn within(self, first: u32, end: u32) -> Self;
}

impl Run for BlockRange {
    fn first(&self) -> u32 {
        self.first
    }

    fn end(&self) -> u32 {
        Self::end(self)
    }

    fn within(self, first: u32, end: u32) -> Self {
        let first = first.max(self.first);
        Self { first, run: end.min(self.end()) - first, ..self }
    }
}

impl Run for Covered {
    fn first(&self) -> u32 {
        self.first
    }

    fn end(&self) -> u32 {
        self.end
    }

    fn within(self, first: u32, end: u32) -> Self {
        Self { first: first.max(self.first), end: end.min(self.end), ..self }
    }
}

/// The run that a block is in.
fn holding<T: Run>(runs: &[T], block: u32) -> Option<&T> {
    let behind = runs.partition_point(|run| run.first() <= block);
    runs[..behind].last().filter(|run| block < run.end())
}

/// The runs that begin at a block or behind it.
fn from<T: Run>(runs: &[T], block: u32) -> &[T] {
    &runs[runs.partition_point(|run| run.first() < block)..]
}

/// Puts other runs into the place of `first..end`.
fn replace<T: Run>(runs: &mut Vec<T>, first: u32, end: u32, by: &[T]) {
    let begin = runs.partition_point(|run| run.end() <= first);
    let behind = runs.partition_point(|run| run.first() < end).max(begin);
    let touched = &runs[begin..behind];
    let before = touched.first().filter(|run| run.first() < first).map(|run| run.within(0, first));
    let after = touched.last().filter(|run| run.end() > end).map(|run| run.within(end, u32::MAX));
    let all = before.into_iter().chain(by.iter().copied()).chain(after);
    runs.splice(begin..behind, all);
}

/// Several SYNCs, even where the plan takes a few to tell and some are lost.
const BELIEVED: Duration = Duration::from_millis(500);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use imgcast_common::wire::{Poll, SenderState, WHOLE};

    use super::*;

    fn sync(covers_first: u32, covers_end: u32, planned: Vec<BlockRange>) -> Sync {
        Sync {
            time_micros: 1,
            grtt: 0,
            group_log2: 0,
            feedback_window_ms: 0,
            rate_kilobits: 0,
            repair_share: 0,
            state: SenderState::Sending,
            poll: Poll::default(),
            covers_first,
            covers_end,
            planned,
        }
    }

    #[test]
    fn the_newest_word_on_each_block_counts() {
        let (mut plan, now) = (PlanView::default(), Instant::now());
        assert_eq!((plan.planned(5), plan.covered_at(5)), (None, 0));
        let whole = BlockRange { first: 0, run: 100, symbols: WHOLE };
        plan.update(now, &sync(0, 100, vec![whole]), 7);
        assert_eq!((plan.planned(99), plan.covered_at(99)), (Some(WHOLE), 7));
        plan.update(now, &sync(10, 20, vec![BlockRange::one(12, 3)]), 8);
        assert_eq!((plan.planned(9), plan.covered_at(9)), (Some(WHOLE), 7));
        assert_eq!((plan.planned(10), plan.covered_at(10)), (None, 8));
        assert_eq!((plan.planned(12), plan.covered_at(12)), (Some(3), 8));
        assert_eq!((plan.planned(20), plan.covered_at(20)), (Some(WHOLE), 7));
        assert_eq!((plan.planned(100), plan.covered_at(100)), (None, 0));
    }

    #[test]
    fn unplanned_runs_are_found() {
        let (mut plan, now) = (PlanView::default(), Instant::now());
        plan.update(now, &sync(0, 30, vec![BlockRange::one(0, 9), BlockRange::one(12, 3)]), 1);
        assert_eq!(plan.next_unplanned(0, 100), Some(1));
        assert_eq!(plan.unplanned_end(1, 100), 12);
        assert_eq!(plan.next_unplanned(12, 100), Some(13));
        assert_eq!(plan.unplanned_end(13, 100), 30);
        assert_eq!(plan.next_unplanned(30, 100), None);
    }
}
