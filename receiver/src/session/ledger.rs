//! What is there and what is missing of one stream, block by block.
//!
//! ```text
//!             first symbol        enough symbols          hash right
//!  untouched ─────────────► partial ─────────────► checking ─────────► verified
//!      ▲                      │ ▲  too few after all │ │
//!      └──────forgotten───────┘ └────────────────────┘ │
//!      └───────────────hash wrong (polluted)───────────┘
//! ```

mod claims;

use std::{collections::BTreeMap, time::Instant};

use imgcast_common::{bits::BitSet, fec::BlockShape, layout::Layout, wire::DataHead};

use super::{Verdict, Via, symbol_set::SymbolSet};

/// The books of one stream.
#[derive(Debug)]
pub(super) struct Ledger {
    layout: Layout,
    untouched: BitSet,
    claimed: BitSet,
    partial: BTreeMap<u32, Partial>,
    checking: BTreeMap<u32, Partial>,
    verified: BitSet,
    pollution: BTreeMap<u32, u8>,
    refetched: u32,
}

/// One block of which something has arrived.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    symbols: SymbolSet,
    /// Symbols beyond K that decoding waits for.
    extra: u32,
    turn: u8,
    /// Whether a symbol of the newest turn said that none follows.
    turn_ended: bool,
    /// Position of the last symbol in the group's sequence.
    last_counter: u64,
    last_at: Instant,
}

/// What a check of a block came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Setback {
    /// It needs more symbols.
    Waits,
    /// What was held is forgotten; so many times this has happened to it.
    Polluted(u8),
}

impl Ledger {
    /// Every block is missing.
    pub(super) fn new(layout: Layout) -> Self {
        let blocks = layout.blocks();
        Self {
            layout,
            untouched: BitSet::full(blocks),
            claimed: BitSet::new(blocks),
            partial: BTreeMap::new(),
            checking: BTreeMap::new(),
            verified: BitSet::new(blocks),
            pollution: BTreeMap::new(),
            refetched: 0,
        }
    }

    /// A symbol is offered. `room`: whether one more block may be begun.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        via: Via,
        counter: u64,
        head: &DataHead,
        room: bool,
    ) -> Verdict {
        let block = head.block;
        let known = self.partial.contains_key(&block);
        if !known && !self.is_untouched(block) {
            return Verdict::Unwanted;
        }
        if head.stored_len != self.layout.block_len(block) {
            return Verdict::Mismatched;
        }
        if via != Via::Unicast && self.wants_unicast(block) {
            return Verdict::Unwanted;
        }
        if !known && !room {
            return Verdict::NoRoom;
        }
        let Some(partial) = self.partial.get_mut(&block) else {
            return self.begin(now, via, counter, head);
        };
        if !partial.symbols.insert(head.esi) {
            return Verdict::Unwanted;
        }
        partial.note(now, via, counter, head);
        partial.verdict()
    }

    /// Source symbols of a block that has begun are offered together: `head` and `counter` are of
    /// the first that was sent, and those came whose bit is set in `arrived`. Returns which of them
    /// were missing, and what becomes of the block; `None`, with nothing done, where only
    /// [`accept`](Self::accept) can tell, one by one.
    pub(super) fn accept_sources(
        &mut self,
        now: Instant,
        via: Via,
        counter: u64,
        head: &DataHead,
        arrived: u64,
    ) -> Option<(u64, Verdict)> {
        let block = head.block;
        let trusted = via == Via::Unicast || !self.wants_unicast(block);
        if !trusted || head.stored_len != self.layout.block_len(block) {
            return None;
        }
        let last = arrived.checked_ilog2()?;
        let partial = self.partial.get_mut(&block)?;
        let symbols = &mut partial.symbols;
        let all = symbols.known() + arrived.count_ones();
        let sources = head.esi.get() + last < self.layout.source_symbols(block);
        if !sources || partial.extra > 0 || all > symbols.padded_symbols() {
            return None;
        }
        let new = symbols.insert_sources(head.esi.get(), arrived);
        if let Some(last) = new.checked_ilog2() {
            let before = u16::try_from(last).unwrap_or(0);
            let head =
                DataHead { still_to_come: head.still_to_come.saturating_sub(before), ..*head };
            partial.note(now, via, counter + u64::from(last), &head);
        }
        Some((new, if new == 0 { Verdict::Unwanted } else { partial.verdict() }))
    }

    /// The first symbol of a block.
    fn begin(&mut self, now: Instant, via: Via, counter: u64, head: &DataHead) -> Verdict {
        let Some(shape) = BlockShape::new(head.stored_len, self.layout.symbol_size()) else {
            return Verdict::Mismatched;
        };
        let mut partial = Partial::new(shape, head, now);
        if !partial.symbols.insert(head.esi) {
            return Verdict::Unwanted;
        }
        partial.note(now, via, counter, head);
        let verdict = partial.verdict();
        self.untouched.remove(head.block);
        self.partial.insert(head.block, partial);
        verdict
    }

    /// Moves a block with enough symbols to those that are being checked.
    pub(super) fn begin_check(&mut self, block: u32) -> bool {
        let Some(partial) = self.partial.remove(&block) else { return false };
        self.checking.insert(block, partial);
        true
    }

    /// Blocks with enough symbols that nobody checks yet.
    pub(super) fn decodable(&self) -> Vec<u32> {
        let enough = self.partial.iter().filter(|(_, partial)| partial.is_decodable());
        enough.map(|(block, _)| *block).collect()
    }

    /// The block's hash was right; returns whether other symbols of it were held meanwhile.
    pub(super) fn verify(&mut self, block: u32) -> bool {
        self.checking.remove(&block);
        self.untouched.remove(block);
        self.claimed.remove(block);
        self.verified.insert(block);
        self.partial.remove(&block).is_some()
    }

    /// A zero block is not asked for: its hash over zeroes is being computed.
    pub(super) fn begin_zero(&mut self, block: u32) {
        self.partial.remove(&block);
        self.untouched.remove(block);
    }

    /// The symbols did not determine the block.
    pub(super) fn too_few(&mut self, block: u32) -> Option<Setback> {
        let mut partial = self.checking.remove(&block)?;
        let known_extra = partial.symbols.known().saturating_sub(partial.symbols.padded_symbols());
        partial.extra = match partial.extra.max(known_extra) {
            0 => 1,
            1 => 2,
            more => more + 2,
        };
        if partial.extra > EXTRA_SYMBOLS_MAX {
            return Some(self.pollute(block));
        }
        self.partial.insert(block, partial);
        Some(Setback::Waits)
    }

    /// The block's hash was wrong, or no honest symbols could have failed to decode.
    pub(super) fn pollute(&mut self, block: u32) -> Setback {
        self.checking.remove(&block);
        self.partial.remove(&block);
        self.release(block);
        self.refetched += 1;
        let times = self.pollution.entry(block).or_default();
        *times = times.saturating_add(1);
        Setback::Polluted(*times)
    }

    /// Forgets everything that is not verified yet; returns what was held.
    pub(super) fn forget_partial(&mut self) -> Vec<u32> {
        let held: Vec<u32> = self.partial.keys().copied().collect();
        for block in &held {
            self.partial.remove(block);
            self.release(*block);
        }
        held
    }

    /// Goes on with another T: what is verified stays, everything else is forgotten.
    pub(super) fn recut(&mut self, layout: Layout) -> Vec<u32> {
        let mut held = self.forget_partial();
        if layout.block_log2() == self.layout.block_log2() {
            held.extend(self.checking.keys());
            let checking = std::mem::take(&mut self.checking);
            checking.into_keys().for_each(|block| self.release(block));
            self.layout = layout;
        }
        held
    }

    /// Begins the stream anew: it was wrong as a whole.
    pub(super) fn forget_all(&mut self) {
        self.refetched += self.verified.count();
        let (pollution, refetched) = (std::mem::take(&mut self.pollution), self.refetched);
        *self = Self { pollution, refetched, ..Self::new(self.layout) };
    }

    /// A new session sends the same blocks with its own counters and turns.
    pub(super) fn begin_session(&mut self) {
        for partial in self.partial.values_mut().chain(self.checking.values_mut()) {
            partial.last_counter = 0;
            partial.turn_ended = false;
        }
    }

    /// Whether what arrived of every block has been judged: each is verified or waits for symbols.
    pub(super) fn is_judged(&self) -> bool {
        let begun = u32::try_from(self.partial.len()).unwrap_or(u32::MAX);
        self.checking.is_empty()
            && self.claimed.is_empty()
            && self.verified.count() + self.untouched.count() + begun >= self.layout.blocks()
    }

    /// Whether a block was polluted so often that only unicast symbols of it are trusted.
    pub(super) fn wants_unicast(&self, block: u32) -> bool {
        self.pollution.get(&block).is_some_and(|times| *times >= POLLUTED_BEFORE_UNICAST)
    }

    /// Missing blocks of which only unicast symbols are trusted, with what each lacks; `None` for
    /// all of it.
    pub(super) fn by_unicast(&self) -> impl Iterator<Item = (u32, Option<u32>)> {
        let troubled = self.pollution.keys().copied().filter(|block| self.wants_unicast(*block));
        let troubled = troubled.filter(|block| !self.claimed.contains(*block));
        troubled.filter_map(|block| match self.partial.get(&block) {
            Some(partial) => Some((block, Some(partial.deficit()))),
            None => self.untouched.contains(block).then_some((block, None)),
        })
    }

    pub(super) fn partial(&self) -> impl Iterator<Item = (u32, &Partial)> {
        self.partial.iter().map(|(block, partial)| (*block, partial))
    }

    pub(super) const fn untouched(&self) -> &BitSet {
        &self.untouched
    }

    pub(super) const fn verified(&self) -> &BitSet {
        &self.verified
    }

    /// Blocks whose octets are held, or were handed out to be checked.
    pub(super) fn held(&self) -> usize {
        self.partial.len() + self.checking.len()
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Blocks that had to be fetched again.
    pub(super) const fn refetched(&self) -> u32 {
        self.refetched
    }
}

impl Partial {
    fn new(shape: BlockShape, head: &DataHead, now: Instant) -> Self {
        Self {
            symbols: SymbolSet::new(shape),
            extra: 0,
            turn: head.turn,
            turn_ended: false,
            last_counter: 0,
            last_at: now,
        }
    }

    fn note(&mut self, now: Instant, via: Via, counter: u64, head: &DataHead) {
        self.last_at = now;
        if via == Via::Group {
            self.last_counter = self.last_counter.max(counter);
        }
        // Serial number arithmetic on 8 bits, as RFC 1982 has it.
        let ahead = head.turn.wrapping_sub(self.turn);
        if ahead < 128 {
            let newer = ahead > 0;
            self.turn = head.turn;
            self.turn_ended = (self.turn_ended && !newer) || head.still_to_come == 0;
        }
    }

    /// Whether every source symbol is there, or enough symbols to try. While more of the turn is
    /// to come a few are waited for: of ten thousand receivers fifty would try with K in vain, and
    /// have let pass what would have helped them.
    fn is_decodable(&self) -> bool {
        let extra = if self.turn_ended { 0 } else { EXTRA_SYMBOLS_SURE };
        self.symbols.is_complete() || self.has_beyond_k(self.extra.max(extra))
    }

    /// Whether there are enough symbols to try, if no more of the turn are to come.
    pub(super) fn is_decodable_when_over(&self) -> bool {
        self.has_beyond_k(self.extra)
    }

    fn has_beyond_k(&self, extra: u32) -> bool {
        self.symbols.known() >= self.symbols.padded_symbols() + extra
    }

    fn verdict(&self) -> Verdict {
        if self.is_decodable() { Verdict::Enough } else { Verdict::Wanted }
    }

    /// Symbols that are lacking, at least one.
    pub(super) fn deficit(&self) -> u32 {
        (self.symbols.padded_symbols() + self.extra).saturating_sub(self.symbols.known()).max(1)
    }

    pub(super) const fn turn_ended(&self) -> bool {
        self.turn_ended
    }

    pub(super) const fn last_counter(&self) -> u64 {
        self.last_counter
    }

    pub(super) const fn last_at(&self) -> Instant {
        self.last_at
    }
}

/// With so many symbols beyond K honest ones fail to decode once in 256^11 blocks.
const EXTRA_SYMBOLS_MAX: u32 = 10;
/// K + 2 symbols fail to determine a block once in a million times, K once in two hundred.
const EXTRA_SYMBOLS_SURE: u32 = 2;
/// Somebody poisons the group: the sender's own word is asked for.
const POLLUTED_BEFORE_UNICAST: u8 = 3;
