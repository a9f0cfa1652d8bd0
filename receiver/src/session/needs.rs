//! What to ask for: the blocks whose turn is over and that lack symbols which the sender does not
//! plan. When to ask is the business of `asking`.

use std::time::{Duration, Instant};

use imgcast_common::{
    id::Stream,
    wire::{BlockRange, WHOLE, is_much},
};

use super::{PlanView, Session};

impl Session {
    /// Blocks of which only unicast symbols are trusted.
    pub(super) fn needs_by_unicast(&mut self, stream: Stream) -> Vec<BlockRange> {
        let most = self.ranges_max();
        let Some(ledger) = self.ledger(stream) else { return Vec::new() };
        let needs = ledger.by_unicast().map(|(block, deficit)| {
            BlockRange::one(block, deficit.map_or(WHOLE, symbols_of_deficit))
        });
        needs.take(most).collect()
    }

    /// Everything else that is lacking, in order. `asking`: leaves out, and counts, what enough
    /// seems to be planned for; the second value is how many symbols these lack.
    pub(super) fn needs(
        &mut self,
        now: Instant,
        stream: Stream,
        asking: bool,
    ) -> (Vec<BlockRange>, u64) {
        let deaf = self.contact.no_multicast();
        let quiet = now.checked_sub(4 * self.asking.grtt() + DEAF_QUIET).unwrap_or(now);
        let free = if stream == Stream::Index { usize::MAX } else { self.free_blocks() };
        let plan = &self.plans[stream as usize];
        let ledger = match stream {
            Stream::Image => self.image.as_mut(),
            Stream::Index => self.index.as_mut(),
        };
        let Some(ledger) = ledger else { return (Vec::new(), 0) };
        let trusted: Vec<u32> = ledger.by_unicast().map(|(block, _)| block).collect();
        let (mut needs, mut planned_symbols) = (Vec::new(), 0);
        for (block, partial) in ledger.partial() {
            let planned = plan.planned(block);
            let over = if deaf {
                partial.turn_ended() || partial.last_at() <= quiet
            } else {
                // What a turn that runs still brings is counted; another whole one begins anew.
                partial.turn_ended()
                    || (planned.is_none_or(|symbols| symbols == WHOLE)
                        && plan.covered_at(block) > partial.last_counter())
            };
            if !over || trusted.contains(&block) {
                continue;
            }
            let deficit = symbols_of_deficit(partial.deficit());
            let much = is_much(partial.deficit(), ledger.layout().source_symbols(block));
            if asking && !deaf && is_enough(planned, deficit, much) && plan.is_fresh(block, now) {
                planned_symbols += u64::from(deficit);
                continue;
            }
            needs.push(BlockRange::one(block, deficit));
        }
        let untouched = ledger.untouched();
        let mut whole = Vec::new();
        let mut left = u32::try_from(free).unwrap_or(u32::MAX);
        for (first, run) in untouched.runs() {
            let mut block = first;
            while left > 0
                && whole.len() < WHOLE_RUNS_MAX
                && let Some(start) = next_whole(plan, deaf, block, first + run)
            {
                let end = if deaf { first + run } else { plan.unplanned_end(start, first + run) };
                let run = (end - start).min(left);
                whole.push(BlockRange { first: start, run, symbols: WHOLE });
                left -= run;
                block = end;
            }
        }
        needs.extend(whole.into_iter().flat_map(|range| without(range, &trusted)));
        needs.sort_unstable_by_key(|range| range.first);
        (joined(needs), planned_symbols)
    }
}

/// What is left of a run when some blocks are taken out of it.
fn without(range: BlockRange, blocks: &[u32]) -> Vec<BlockRange> {
    let mut first = range.first;
    let mut left = Vec::new();
    let inside = blocks.iter().filter(|block| (range.first..range.end()).contains(block));
    for end in inside.copied().chain([range.end()]) {
        if end > first {
            left.push(BlockRange { first, run: end - first, ..range });
        }
        first = end + 1;
    }
    left
}

/// The next block of a run that the sender does not plan, or for who hears no plan, the next one.
fn next_whole(plan: &PlanView, deaf: bool, block: u32, end: u32) -> Option<u32> {
    if deaf { (block < end).then_some(block) } else { plan.next_unplanned(block, end) }
}

/// Whether what is planned for a block covers this deficit, but for two symbols: the sender plans
/// one more than the largest deficit that it hears of. A whole turn that is owed may be far away:
/// only if `much` is lacking it is waited for.
fn is_enough(planned: Option<u16>, deficit: u16, much: bool) -> bool {
    planned.is_some_and(|planned| if planned == WHOLE { much } else { planned + 2 >= deficit })
}

fn symbols_of_deficit(deficit: u32) -> u16 {
    u16::try_from(deficit).unwrap_or(u16::MAX - 1)
}

/// Joins neighbouring runs that need the same.
fn joined(needs: Vec<BlockRange>) -> Vec<BlockRange> {
    let mut joined: Vec<BlockRange> = Vec::with_capacity(needs.len());
    for need in needs {
        match joined.last_mut() {
            Some(last) if last.end() == need.first && last.symbols == need.symbols => {
                last.run += need.run;
            }
            _ => joined.push(need),
        }
    }
    joined
}

/// By unicast a turn is over when nothing of it came for so long, and four round trips.
const DEAF_QUIET: Duration = Duration::from_millis(50);
/// Four NEEDs' worth; more is asked for when these have come.
const WHOLE_RUNS_MAX: usize = 512;
