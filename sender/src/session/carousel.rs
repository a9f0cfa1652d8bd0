//! What the group is owed, block by block, and which block's turn is next.
//!
//! A *whole turn* sends the source symbols of a block and some fresh repair symbols; a *deficit
//! turn* sends as many fresh repair symbols as were planned. The first pass, late joining and the
//! tail are all this one schedule. Who needs what is found out in `needs`; when a symbol may leave
//! is the pacer's business.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use imgcast_common::{
    bits::BitSet,
    fec::BlockShape,
    id::{BlockId, EncodingSymbolId, ReceiverId, Stream},
    layout::Layout,
    wire::{BlockRange, SYMBOLS_PER_BLOCK_MAX, WHOLE, ranges_max},
};

/// The schedule of one stream.
#[derive(Debug)]
pub(super) struct Carousel {
    stream: Stream,
    layout: Layout,
    /// Blocks that hold anything but zeroes.
    sendable: BitSet,
    /// Blocks that are owed a whole turn.
    whole: BitSet,
    /// Blocks of which symbols went to the group since a receiver joined that holds some blocks.
    sent_to_all: BitSet,
    cursor: u32,
    counters: Vec<Counters>,
    active: BTreeMap<u32, Active>,
    /// Blocks with symbols planned that are in no turn yet.
    deficits: BTreeSet<u32>,
    repair_offset: u32,
    whole_was_last: bool,
    sync_from: u32,
}

/// One turn of one block, as it goes out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Plan {
    pub(super) block: BlockId,
    /// The block's turn count.
    pub(super) count: u8,
    /// Source symbols, all or none.
    pub(super) sources: u32,
    pub(super) first_repair: u32,
    pub(super) repairs: u32,
    pub(super) stored_len: u32,
}

/// What is remembered of every block for the whole session.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    repairs_sent: u32,
    turns: u8,
}

/// What is remembered of a block while it is being served, and a little longer.
#[derive(Debug, Default)]
struct Active {
    /// Symbols that deficits asked for and no turn has taken up yet.
    planned: u32,
    /// Symbols of running turns that have not left yet.
    remaining: u32,
    /// Symbols that left, by time.
    sent: VecDeque<(Instant, u32)>,
    reporters: Reporters,
}

/// Who asked for a block since its last turn.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Reporters {
    #[default]
    None,
    One(ReceiverId),
    Many,
}

impl Carousel {
    /// Nothing is owed at first. `repair_offset` is drawn once per session.
    pub(super) fn new(
        stream: Stream,
        layout: Layout,
        sendable: BitSet,
        repair_offset: u32,
    ) -> Self {
        let blocks = layout.blocks();
        Self {
            stream,
            layout,
            sendable,
            whole: BitSet::new(blocks),
            sent_to_all: BitSet::new(blocks),
            cursor: 0,
            counters: vec![Counters::default(); blocks as usize],
            active: BTreeMap::new(),
            deficits: BTreeSet::new(),
            repair_offset,
            whole_was_last: false,
            sync_from: 0,
        }
    }

    /// A fresh receiver needs everything; blocks whose turn runs are left to deficits.
    pub(super) fn owe_all(&mut self) {
        if self.whole.count() == self.sendable.count() {
            return;
        }
        // Words at a time: a thousand JOINs may come at once, for an image of a million blocks.
        let before = std::mem::replace(&mut self.whole, self.sendable.clone());
        let running = self.active.iter().filter(|(_, active)| active.remaining > 0);
        for (block, _) in running.filter(|(block, _)| !before.contains(**block)) {
            self.whole.remove(*block);
        }
    }

    /// A receiver that holds some blocks says what it lacks when it has found that out.
    pub(super) fn expect_needs(&mut self) {
        if !self.sent_to_all.is_empty() {
            self.sent_to_all = BitSet::new(self.layout.blocks());
        }
    }

    /// Whether everybody who may lack a block could hear symbols of it.
    pub(super) fn was_sent_to_all(&self, block: u32) -> bool {
        self.sent_to_all.contains(block)
    }

    /// The first block from `block` on that is not owed a whole turn.
    pub(super) fn first_unowed(&self, block: u32) -> Option<u32> {
        self.whole.first_clear_from(block)
    }

    /// Plans a whole turn of a block, unless one is running. Deficits of it that are planned stay
    /// so: whoever lacks little need not wait for a turn that may be far away.
    fn owe_whole(&mut self, block: u32) {
        let running = self.active.get(&block).is_some_and(|active| active.remaining > 0);
        if !running && self.sendable.contains(block) {
            self.whole.insert(block);
        }
    }

    /// A receiver that stood at `described_at` lacks all of `block`.
    pub(super) fn need_whole(&mut self, block: u32, described_at: Instant) {
        if self.sent_after(block, described_at) < self.layout.source_symbols(block) {
            self.owe_whole(block);
        }
    }

    /// A receiver that stood at `described_at`, and loses a share of what it is sent, lacks
    /// `deficit` symbols of `block`; returns whether more is planned now than before.
    pub(super) fn need_symbols(
        &mut self,
        block: u32,
        deficit: u32,
        loss: f64,
        described_at: Instant,
    ) -> bool {
        let lacking = deficit.saturating_sub(self.sent_after(block, described_at));
        let known = self.active.contains_key(&block);
        if lacking == 0
            || !self.sendable.contains(block)
            || (!known && self.active.len() >= ACTIVE_BLOCKS_MAX)
        {
            return false;
        }
        let Some(shape) = self.shape(block) else { return false };
        let active = self.active.entry(block).or_default();
        let pending = active.planned + active.remaining;
        let wanted = symbols_for(lacking, loss).min(shape.padded_symbols());
        if wanted <= pending {
            return false;
        }
        active.planned += wanted - pending;
        self.deficits.insert(block);
        true
    }

    /// Notes who asked for a block.
    pub(super) fn note_reporter(&mut self, block: u32, receiver: ReceiverId) {
        if self.active.len() >= ACTIVE_BLOCKS_MAX && !self.active.contains_key(&block) {
            return;
        }
        let active = self.active.entry(block).or_default();
        active.reporters = match active.reporters {
            Reporters::None => Reporters::One(receiver),
            Reporters::One(other) if other == receiver => Reporters::One(other),
            _ => Reporters::Many,
        };
    }

    /// Who asked for a block since its last turn.
    pub(super) fn reporters(&self, block: u32) -> Reporters {
        self.active.get(&block).map_or(Reporters::None, |active| active.reporters)
    }

    /// Whether anything of a block is planned, or on its way out.
    pub(super) fn is_planned(&self, block: u32) -> bool {
        let pending = |active: &Active| active.planned + active.remaining > 0;
        self.whole.contains(block) || self.active.get(&block).is_some_and(pending)
    }

    /// Whether symbols of `block` had begun to leave at `time`, as far as that is remembered.
    pub(super) fn had_begun(&self, block: u32, time: Instant) -> bool {
        let first = self.active.get(&block).and_then(|active| active.sent.front());
        first.is_some_and(|(at, _)| *at <= time)
    }

    /// When a symbol of `block` left last, as far as that is remembered.
    pub(super) fn last_sent(&self, block: u32) -> Option<Instant> {
        self.active.get(&block)?.sent.back().map(|(at, _)| *at)
    }

    /// Takes up the next turn: deficits, lowest block first, and whole turns in circular order, by
    /// turns. `repairs_for` says how many repair symbols go with so many source symbols.
    pub(super) fn next_turn(&mut self, repairs_for: impl Fn(u32) -> u32) -> Option<Plan> {
        let deficit = self.deficits.first().copied();
        let whole = self.whole.first_set_from(self.cursor).or_else(|| self.whole.first_set_from(0));
        let take_whole = whole.is_some() && (deficit.is_none() || !self.whole_was_last);
        self.whole_was_last = take_whole;
        let block = if take_whole { whole? } else { deficit? };
        let shape = self.shape(block)?;
        let active = self.active.entry(block).or_default();
        let (sources, repairs) = if take_whole {
            self.whole.remove(block);
            self.cursor = block + 1;
            (shape.source_symbols(), repairs_for(shape.source_symbols()))
        } else {
            (0, active.planned)
        };
        self.deficits.remove(&block);
        active.planned = 0;
        active.remaining += sources + repairs;
        active.reporters = Reporters::None;
        Some(self.plan(block, &shape, sources, repairs))
    }

    /// A turn outside of the schedule, for one receiver by unicast.
    pub(super) fn unicast_turn(&mut self, block: u32, sources: bool, repairs: u32) -> Option<Plan> {
        let shape = self.shape(block).filter(|_| self.sendable.contains(block))?;
        let sources = if sources { shape.source_symbols() } else { 0 };
        Some(self.plan(block, &shape, sources, repairs.min(shape.padded_symbols())))
    }

    fn plan(&mut self, block: u32, shape: &BlockShape, sources: u32, repairs: u32) -> Plan {
        let base = shape.padded_symbols() + self.repair_offset;
        let counters = &mut self.counters[block as usize];
        if base + counters.repairs_sent + repairs > EncodingSymbolId::END {
            // Eight million repair symbols later: whoever still lacks the block has none of them.
            counters.repairs_sent = 0;
        }
        let first_repair = base + counters.repairs_sent;
        counters.repairs_sent += repairs;
        counters.turns = counters.turns.wrapping_add(1);
        Plan {
            block: BlockId { stream: self.stream, number: block },
            count: counters.turns,
            sources,
            first_repair,
            repairs,
            stored_len: shape.stored_len(),
        }
    }

    /// Symbols of a running turn leave for the group at `at`.
    pub(super) fn note_sent(&mut self, block: u32, count: u32, at: Instant) {
        self.sent_to_all.insert(block);
        let Some(active) = self.active.get_mut(&block) else { return };
        active.remaining = active.remaining.saturating_sub(count);
        if active.sent.len() >= SENT_RUNS_MAX {
            active.sent.pop_front();
        }
        active.sent.push_back((at, count));
    }

    /// Symbols of `block` that left for the group after `time`.
    fn sent_after(&self, block: u32, time: Instant) -> u32 {
        let Some(active) = self.active.get(&block) else { return 0 };
        let recent = active.sent.iter().rev().take_while(|(at, _)| *at > time);
        recent.map(|(_, count)| count).sum()
    }

    /// Forgets the history of blocks that have been quiet for long.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.active.retain(|_, active| {
            let quiet = active.sent.back().is_none_or(|(at, _)| now > *at + HISTORY);
            !quiet || active.planned + active.remaining > 0
        });
    }

    /// The next part of the plan for SYNC: what it covers, and the runs planned in there. Coverage
    /// rotates when there are more runs than a SYNC holds.
    pub(super) fn planned(&mut self, now: Instant) -> (u32, u32, Vec<BlockRange>) {
        let blocks = self.layout.blocks();
        let from = if self.sync_from < blocks { self.sync_from } else { 0 };
        let mut ranges: Vec<BlockRange> = Vec::new();
        let mut end = blocks;
        let mut block = from;
        while let Some(next) = self.next_planned(block, now) {
            let symbols = self.planned_symbols(next, now);
            let full = ranges.len() >= ranges_max(self.layout.symbol_size());
            match ranges.last_mut() {
                Some(last) if last.end() == next && last.symbols == symbols => last.run += 1,
                _ if full => {
                    end = next;
                    break;
                }
                _ => ranges.push(BlockRange::one(next, symbols)),
            }
            block = next + 1;
            // A long run of whole turns is skipped at once, up to a block with deficits.
            if symbols == WHOLE
                && let Some(last) = ranges.last_mut()
            {
                let run_end = self.whole.first_clear_from(block).unwrap_or(blocks);
                let run_end = self.next_active(block, now).map_or(run_end, |it| it.min(run_end));
                last.run = run_end - last.first;
                block = run_end;
            }
        }
        self.sync_from = if end < blocks { end } else { 0 };
        (from, end, ranges)
    }

    fn next_planned(&self, from: u32, now: Instant) -> Option<u32> {
        let whole = self.whole.first_set_from(from);
        let active = self.next_active(from, now);
        whole.into_iter().chain(active).min()
    }

    /// The first block from `from` on with symbols to come in turns that run or repair deficits.
    fn next_active(&self, from: u32, now: Instant) -> Option<u32> {
        let mut active = self.active.range(from..);
        active.find(|(_, active)| active.to_come(now) > 0).map(|(block, _)| *block)
    }

    fn planned_symbols(&self, block: u32, now: Instant) -> u16 {
        let to_come = self.active.get(&block).map_or(0, |active| active.to_come(now));
        if to_come == 0 && self.whole.contains(block) {
            return WHOLE;
        }
        u16::try_from(to_come.min(SYMBOLS_PER_BLOCK_MAX)).unwrap_or(WHOLE - 1)
    }

    /// Whether nothing is owed and nothing planned beyond the turns that run.
    pub(super) fn is_idle(&self) -> bool {
        self.whole.is_empty() && self.deficits.is_empty()
    }

    /// Whether no block is owed a whole turn.
    pub(super) fn has_nothing_new(&self) -> bool {
        self.whole.is_empty()
    }

    /// Blocks that are owed a whole turn.
    pub(super) fn owed(&self) -> u32 {
        self.whole.count()
    }

    pub(super) fn sendable(&self) -> &BitSet {
        &self.sendable
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// K of a block; `None` for one that there is not.
    pub(super) fn shape(&self, block: u32) -> Option<BlockShape> {
        BlockShape::new(self.layout.block_len(block), self.layout.symbol_size())
    }
}

impl Active {
    /// Symbols that have not left yet, those handed out ahead of their time included: nobody is to
    /// miss them before.
    fn to_come(&self, now: Instant) -> u32 {
        let handed_out = self.sent.iter().rev().take_while(|(at, _)| *at > now);
        self.planned + self.remaining + handed_out.map(|(_, count)| count).sum::<u32>()
    }
}

/// How many symbols to send so that so many arrive, on average, and one more: with it a block
/// decodes all but certainly.
pub(super) fn symbols_for(lacking: u32, loss: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "≤ 2 · 2^16")]
    let symbols = (f64::from(lacking.min(1 << 16)) / (1.0 - loss.clamp(0.0, 0.5))).ceil() as u32;
    symbols + 1
}

/// Receivers hold at most a few thousand incomplete blocks each; more deficits wait their turn.
const ACTIVE_BLOCKS_MAX: usize = 65_536;
/// Longer ago than any NEED that is still on its way describes.
const HISTORY: Duration = Duration::from_secs(2);
/// A whole turn leaves in a few dozen bursts.
const SENT_RUNS_MAX: usize = 64;
