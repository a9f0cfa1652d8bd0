//! What single receivers are sent by unicast: repairs that nobody else needs, and everything for
//! those who hear no multicast. Each is served from its last NEED, for as long as it reports.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use imgcast_common::{
    id::{BlockId, ReceiverId},
    wire::WHOLE,
};

/// The needs that are answered by unicast, in turn.
#[derive(Debug, Default)]
pub(super) struct Unicast {
    plans: BTreeMap<ReceiverId, Plan>,
    /// Who was served last: the others come first.
    last: Option<ReceiverId>,
}

#[derive(Debug)]
struct Plan {
    needs: BTreeMap<BlockId, u16>,
    described_at: Instant,
    heard_at: Instant,
    /// Symbols in turns that have not left yet.
    remaining: BTreeMap<BlockId, u32>,
    /// Symbols that left, by time.
    sent: VecDeque<(Instant, BlockId, u32)>,
}

impl Unicast {
    /// A receiver that stood at `described_at` needs `symbols` of `block`, which has
    /// `source_symbols`. A NEED that describes a later state replaces what is not yet sent. False
    /// when there is no room for more.
    pub(super) fn need(
        &mut self,
        now: Instant,
        receiver: ReceiverId,
        described_at: Instant,
        (block, symbols, source_symbols): (BlockId, u16, u32),
    ) -> bool {
        if !self.plans.contains_key(&receiver) && self.plans.len() >= PLANS_MAX {
            return false;
        }
        let plan = self.plans.entry(receiver).or_insert_with(|| Plan::new(now, described_at));
        plan.heard_at = now;
        if described_at > plan.described_at + SAME_NEED {
            plan.needs.clear();
            plan.described_at = described_at;
            while plan.sent.front().is_some_and(|(at, ..)| *at <= described_at) {
                plan.sent.pop_front();
            }
        }
        let under_way = plan.under_way(block, described_at);
        let lacking = if symbols == WHOLE { source_symbols } else { u32::from(symbols) };
        let room = plan.needs.len() < NEEDS_MAX;
        if room && under_way < lacking {
            let whole = symbols == WHOLE && under_way == 0;
            let fresh = u16::try_from(lacking - under_way).unwrap_or(WHOLE);
            plan.needs.insert(block, if whole { WHOLE } else { fresh });
        }
        room
    }

    /// Takes up the next need: receiver, block and symbols ([`WHOLE`] for all).
    pub(super) fn next(&mut self, now: Instant) -> Option<(ReceiverId, BlockId, u16)> {
        let behind = self.last.map_or(0, |id| id.0.wrapping_add(1));
        let order = |id: &ReceiverId| id.0.wrapping_sub(behind);
        let served = |plan: &Plan| {
            !plan.needs.is_empty()
                && now < plan.heard_at + SILENCE_MAX
                && plan.remaining.len() < TURNS_PER_RECEIVER_MAX
        };
        let ready = self.plans.iter().filter(|(_, plan)| served(plan)).map(|(id, _)| *id);
        let receiver = ready.min_by_key(order)?;
        let (block, symbols) = self.plans.get_mut(&receiver)?.needs.pop_first()?;
        self.last = Some(receiver);
        Some((receiver, block, symbols))
    }

    /// A turn of so many symbols begins.
    pub(super) fn note_turn(&mut self, receiver: ReceiverId, block: BlockId, symbols: u32) {
        if let Some(plan) = self.plans.get_mut(&receiver) {
            *plan.remaining.entry(block).or_default() += symbols;
        }
    }

    /// Symbols of a turn leave at `at`.
    pub(super) fn note_sent(
        &mut self,
        receiver: ReceiverId,
        block: BlockId,
        symbols: u32,
        at: Instant,
    ) {
        let Some(plan) = self.plans.get_mut(&receiver) else { return };
        if let Some(remaining) = plan.remaining.get_mut(&block) {
            *remaining = remaining.saturating_sub(symbols);
            if *remaining == 0 {
                plan.remaining.remove(&block);
            }
        }
        if plan.sent.len() >= SENT_RUNS_MAX {
            plan.sent.pop_front();
        }
        plan.sent.push_back((at, block, symbols));
    }

    /// Whether anybody waits to be served.
    pub(super) fn is_idle(&self) -> bool {
        self.plans.values().all(|plan| plan.needs.is_empty())
    }

    /// Forgets receivers that are finished, or silent for long.
    pub(super) fn retain(&mut self, now: Instant, takes_part: impl Fn(ReceiverId) -> bool) {
        self.plans.retain(|id, plan| {
            takes_part(*id) && (now < plan.heard_at + FORGET || !plan.remaining.is_empty())
        });
    }
}

impl Plan {
    const fn new(now: Instant, described_at: Instant) -> Self {
        Self {
            needs: BTreeMap::new(),
            described_at,
            heard_at: now,
            remaining: BTreeMap::new(),
            sent: VecDeque::new(),
        }
    }

    /// Symbols of `block` that the receiver could not know of yet.
    fn under_way(&self, block: BlockId, described_at: Instant) -> u32 {
        let left = self.sent.iter().filter(|(at, of, _)| *of == block && *at > described_at);
        let left: u32 = left.map(|(_, _, symbols)| symbols).sum();
        left + self.remaining.get(&block).copied().unwrap_or(0)
    }
}

/// So many are served by unicast at once; more of them ask again later.
const PLANS_MAX: usize = 1_024;
/// A receiver asks for what it can hold; more comes with its next NEED.
const NEEDS_MAX: usize = 1_024;
/// NEEDs that belong together describe moments that close.
const SAME_NEED: Duration = Duration::from_millis(10);
/// Whoever is served reports several times a second; for a silent one nothing is sent.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// Two turns per receiver keep its path busy; with more a new NEED would change nothing.
const TURNS_PER_RECEIVER_MAX: usize = 2;
/// As many bursts as 60 MB take: more is on its way to nobody, unless its NEEDs describe a moment
/// that never passes.
const SENT_RUNS_MAX: usize = 1_024;
/// What was sent so long ago has arrived or is lost.
const FORGET: Duration = Duration::from_secs(10);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_receiver_whose_needs_describe_one_moment_for_ever_has_its_limit() {
        let (mut unicast, start, receiver) = (Unicast::default(), Instant::now(), ReceiverId(1));
        for number in 0..5_000 {
            let now = start + Duration::from_millis(number.into());
            assert!(unicast.need(now, receiver, start, (BlockId::image(number), 1, 16)));
            let (_, block, _) = unicast.next(now).unwrap();
            unicast.note_turn(receiver, block, 2);
            unicast.note_sent(receiver, block, 2, now + Duration::from_micros(1));
        }
        let plan = &unicast.plans[&receiver];
        assert_eq!((plan.sent.len(), plan.needs.len(), plan.remaining.len()), (1_024, 0, 0));
    }
}
