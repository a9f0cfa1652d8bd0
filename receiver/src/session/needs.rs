//! What to ask for: the blocks whose turn is over and that lack symbols which the sender does not
//! plan. When to ask is the business of `asking`.

use std::time::{Duration, Instant};

use imgcast_common::{
    id::{BlockId, Stream},
    wire::{BlockRange, WHOLE, is_much},
};

use super::{Event, OneWay, PlanView, Session, ledger::Partial};

impl Session {
    /// Blocks of which only unicast symbols are trusted.
    pub(super) fn needs_by_unicast(&self, stream: Stream) -> Vec<BlockRange> {
        let most = self.ranges_max();
        let Some(ledger) = self.ledger_of(stream) else { return Vec::new() };
        let needs = ledger.by_unicast().map(|(block, deficit)| {
            BlockRange::one(block, deficit.map_or(WHOLE, symbols_of_deficit))
        });
        needs.take(most).collect()
    }

    /// Blocks of which enough is known and whose turn's end was lost are checked.
    pub(super) fn check_what_is_over(&mut self, now: Instant, stream: Stream) {
        let Some(ledger) = self.ledger_of(stream) else { return };
        if stream == Stream::Image && !self.index_known {
            return;
        }
        let view = self.view(now, &self.plans[stream as usize]);
        let all =
            self.one_way.as_ref().is_some_and(OneWay::has_ended) || self.contact.has_lost_image();
        let is_over = |(block, partial): &(u32, &Partial)| {
            partial.is_decodable_when_over() && (all || view.is_over(*block, partial))
        };
        let over: Vec<u32> = ledger.partial().filter(is_over).map(|(block, _)| block).collect();
        for number in over {
            if let Some(ledger) = self.ledger(stream) {
                ledger.begin_check(number);
                self.events.push_back(Event::Check(BlockId { stream, number }));
            }
        }
    }

    /// Whether anything is lacking, planned or not.
    pub(super) fn has_needs(&self, now: Instant, stream: Stream) -> bool {
        let plan = &self.plans[stream as usize];
        let Some(ledger) = self.ledger_of(stream) else { return false };
        let view = self.view(now, plan);
        let mut partial = ledger.lacking();
        ledger.by_unicast().next().is_some()
            || partial.any(|(block, partial)| view.is_over(block, partial))
            || (self.room_for_whole(stream) > 0
                && ledger
                    .untouched()
                    .runs()
                    .any(|(first, run)| next_whole(plan, view.deaf, first, first + run).is_some()))
    }

    /// Everything that is lacking and not planned, in order, but for what is trusted by unicast
    /// only, and for blocks of which something came behind `position` in the group's sequence; and
    /// how many symbols of it are planned.
    pub(super) fn needs(
        &self,
        now: Instant,
        stream: Stream,
        position: u64,
    ) -> (Vec<BlockRange>, u64) {
        let plan = &self.plans[stream as usize];
        let Some(ledger) = self.ledger_of(stream) else { return (Vec::new(), 0) };
        let view = self.view(now, plan);
        let trusted: Vec<u32> = ledger.by_unicast().map(|(block, _)| block).collect();
        let (mut needs, mut planned_symbols) = (Vec::new(), 0);
        for (block, partial) in ledger.lacking() {
            if !view.is_over(block, partial) || trusted.contains(&block) {
                continue;
            }
            let deficit = symbols_of_deficit(partial.deficit());
            let much = is_much(partial.deficit(), ledger.layout().source_symbols(block));
            let enough = is_enough(plan.planned(block), deficit, much);
            if enough && plan.is_fresh(block, now) && !view.deaf {
                planned_symbols += u64::from(deficit);
            } else if view.deaf || partial.last_counter() <= position {
                needs.push(BlockRange::one(block, deficit));
            }
        }
        let mut whole = Vec::new();
        let mut left = u32::try_from(self.room_for_whole(stream)).unwrap_or(u32::MAX);
        for (first, run) in ledger.untouched().runs() {
            let mut block = first;
            while left > 0
                && whole.len() < WHOLE_RUNS_MAX
                && let Some(start) = next_whole(plan, view.deaf, block, first + run)
            {
                let end =
                    if view.deaf { first + run } else { plan.unplanned_end(start, first + run) };
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

    /// Blocks that may be asked for as a whole.
    fn room_for_whole(&self, stream: Stream) -> usize {
        if stream == Stream::Index { usize::MAX } else { self.free_blocks() }
    }

    fn view<'a>(&self, now: Instant, plan: &'a PlanView) -> View<'a> {
        let quiet = now.checked_sub(4 * self.asking.grtt() + DEAF_QUIET).unwrap_or(now);
        View { plan, deaf: self.contact.no_multicast(), quiet }
    }
}

/// What tells whether a block's turn is over.
struct View<'a> {
    plan: &'a PlanView,
    /// The group is not heard, nor what it is told.
    deaf: bool,
    /// Then nothing more comes of what was silent since.
    quiet: Instant,
}

impl View<'_> {
    fn is_over(&self, block: u32, partial: &Partial) -> bool {
        partial.turn_ended()
            || if self.deaf {
                partial.last_at() <= self.quiet
            } else {
                // What a turn that runs still brings is counted; another whole one begins anew.
                self.plan.planned(block).is_none_or(|symbols| symbols == WHOLE)
                    && self.plan.covered_at(block) > partial.last_counter()
            }
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
