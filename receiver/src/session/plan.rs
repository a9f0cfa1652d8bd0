//! What the sender plans for the group, as its SYNCs say.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use imgcast_common::wire::{BlockRange, Sync};

/// The newest word on each block of one stream.
#[derive(Debug, Default)]
pub(super) struct PlanView {
    planned: BTreeMap<u32, BlockRange>,
    /// What the SYNCs covered, from the first block on.
    covered: BTreeMap<u32, Covered>,
}

/// Blocks that a SYNC spoke of.
#[derive(Clone, Copy, Debug)]
struct Covered {
    end: u32,
    /// The SYNC's position in the group's sequence.
    counter: u64,
    heard_at: Instant,
}

impl PlanView {
    /// Takes in a SYNC that stood at `counter` in the group's sequence.
    pub(super) fn update(&mut self, now: Instant, sync: &Sync, counter: u64) {
        let (first, end) = (sync.covers_first, sync.covers_end);
        cut(&mut self.planned, first, end, |range, first, end| BlockRange {
            first,
            run: end - first,
            ..*range
        });
        cut(&mut self.covered, first, end, |covered, _, end| Covered { end, ..*covered });
        self.planned.extend(sync.planned.iter().map(|range| (range.first, *range)));
        if first < end {
            self.covered.insert(first, Covered { end, counter, heard_at: now });
        }
    }

    /// Symbols planned for a block.
    pub(super) fn planned(&self, block: u32) -> Option<u16> {
        let (_, range) = self.planned.range(..=block).next_back()?;
        (block < range.end()).then_some(range.symbols)
    }

    /// Position of the newest SYNC that covers a block; 0 if none does.
    pub(super) fn covered_at(&self, block: u32) -> u64 {
        self.covering(block).map_or(0, |covered| covered.counter)
    }

    /// Whether what is known of a block was said lately: it may have been sent meanwhile, and that
    /// been lost as well.
    pub(super) fn is_fresh(&self, block: u32, now: Instant) -> bool {
        self.covering(block).is_some_and(|covered| now < covered.heard_at + BELIEVED)
    }

    fn covering(&self, block: u32) -> Option<&Covered> {
        let (_, covered) = self.covered.range(..=block).next_back()?;
        (block < covered.end).then_some(covered)
    }

    /// The first block from `block` on that is covered and not listed.
    pub(super) fn next_unplanned(&self, block: u32, end: u32) -> Option<u32> {
        let mut at = block;
        while at < end {
            if let Some((_, range)) = self.planned.range(..=at).next_back()
                && at < range.end()
            {
                at = range.end();
            } else if self.covered_at(at) == 0 {
                at = self.covered.range(at..).next().map_or(end, |(first, _)| *first);
            } else {
                return Some(at);
            }
        }
        None
    }

    /// The first block behind `block` that is not both covered and unlisted.
    pub(super) fn unplanned_end(&self, block: u32, end: u32) -> u32 {
        let listed = self.planned.range(block..).next().map_or(end, |(first, _)| *first);
        let covered = self.covered.range(..=block).next_back();
        let covered = covered.map_or(block, |(_, covered)| covered.end);
        listed.min(covered).min(end)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A run of blocks that knows its end.
trait Run {
    fn end(&self) -> u32;
}

impl Run for BlockRange {
    fn end(&self) -> u32 {
        Self::end(self)
    }
}

impl Run for Covered {
    fn end(&self) -> u32 {
        self.end
    }
}

/// Cuts `first..end` out of the runs of a map.
fn cut<T: Run + Clone>(
    runs: &mut BTreeMap<u32, T>,
    first: u32,
    end: u32,
    resized: impl Fn(&T, u32, u32) -> T,
) {
    let from = runs.range(..first).next_back().map_or(first, |(start, _)| *start);
    let touched: Vec<u32> = runs.range(from..end).map(|(start, _)| *start).collect();
    for start in touched {
        let Some(run) = runs.remove(&start) else { continue };
        if start < first {
            runs.insert(start, resized(&run, start, run.end().min(first)));
        }
        if run.end() > end {
            runs.insert(end, resized(&run, end, run.end()));
        }
    }
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
