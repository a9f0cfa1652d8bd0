//! What becomes of each block: symbols wanted or not, checks passed or failed, and the memory that
//! all of it takes.

use std::time::Instant;

use imgcast_common::{
    bits::BitSet,
    id::{BlockId, Stream},
    wire::{DataHead, Header},
};

use super::{
    Event, Failure, Notice, Phase, Session, Symbols, Verdict, Via,
    ledger::{Ledger, Setback},
};

/// What a check of a block came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Checked {
    /// It is what the index says (a block of the index: it could be decoded).
    Whole,
    /// The symbols do not determine it; they are still held.
    TooFew,
    /// Its hash is wrong; nothing of it is held any more.
    Corrupt,
}

impl Session {
    /// A symbol came; the verdict says what to do with its octets.
    pub fn handle_symbol(
        &mut self,
        now: Instant,
        via: Via,
        header: &Header,
        head: &DataHead,
        symbol_octets: usize,
    ) -> Verdict {
        let Some(offer) = self.offer.as_ref().filter(|offer| offer.session == header.session)
        else {
            return Verdict::Mismatched;
        };
        if symbol_octets != usize::from(offer.announce.layout.symbol_size()) {
            return Verdict::Mismatched;
        }
        self.note_contact(now, via, header.counter);
        self.symbols_received += u64::from(header.stream == Stream::Image);
        if !matches!(self.phase, Phase::Joining(_) | Phase::Member) {
            return Verdict::Unwanted;
        }
        // Nobody can be asked for others, whatever becomes of those of the group.
        let trusted_as = if self.is_one_way() { Via::Unicast } else { via };
        let room = header.stream == Stream::Index || self.has_room_for(via, head, symbol_octets);
        let judged = header.stream == Stream::Index || self.index_known;
        let Some(ledger) = self.ledger(header.stream) else { return Verdict::Unwanted };
        let verdict = ledger.accept(now, trusted_as, header.counter, head, room);
        let ended = head.still_to_come == 0;
        if verdict == Verdict::Enough && judged {
            ledger.begin_check(head.block);
            let block = BlockId { stream: header.stream, number: head.block };
            self.events.push_back(Event::Check(block));
        } else if ended {
            self.asking.attend();
        }
        if let Some(one_way) = self.one_way.as_mut().filter(|_| header.stream == Stream::Image) {
            one_way.on_symbol(head.turn, verdict);
        }
        if matches!(verdict, Verdict::Wanted | Verdict::Enough) {
            self.note_kept(now, header.stream, 1);
        }
        verdict
    }

    /// So many symbols came that were lacking.
    pub(super) fn note_kept(&mut self, now: Instant, stream: Stream, symbols: u32) {
        self.progress_at = now;
        if stream == Stream::Image {
            self.symbols_kept += u64::from(symbols);
        }
    }

    /// A block has been checked.
    pub fn handle_checked(&mut self, now: Instant, block: BlockId, checked: Checked) {
        let Some(ledger) = self.ledger(block.stream) else { return };
        if checked != Checked::Whole && ledger.verified().contains(block.number) {
            // It was found on the target meanwhile.
            self.events.push_back(Event::Forget(block));
            return;
        }
        let setback = match checked {
            Checked::Whole => {
                if ledger.verify(block.number) {
                    self.events.push_back(Event::Forget(block));
                }
                self.progress_at = now;
                if block.stream == Stream::Image {
                    let new = self.writing.insert(block.number);
                    let zero = self.zero.contains(block.number);
                    self.writing_zero += u32::from(new && zero);
                } else if self.index.as_ref().is_some_and(|index| index.verified().is_full()) {
                    self.events.push_back(Event::IndexWhole);
                }
                None
            }
            Checked::TooFew => ledger.too_few(block.number),
            Checked::Corrupt => Some(ledger.pollute(block.number)),
        };
        if let Some(Setback::Polluted(times)) = setback {
            self.events.push_back(Event::Forget(block));
            self.events.push_back(Event::Notice(Notice::Polluted(block, times)));
            if times >= POLLUTED_MAX {
                self.fail(now, Failure::Block(block));
            }
        }
        self.asking.attend();
        self.settle(now);
    }

    /// The index has been put together: which blocks are all zero, if it was right. These are
    /// being computed and made by the driver, which reports them as checked and stored.
    pub fn handle_index(&mut self, now: Instant, zero_blocks: Option<&BitSet>) {
        let (Some(index), Some(image)) = (&mut self.index, &mut self.image) else { return };
        match zero_blocks {
            Some(zero) => {
                self.index_known = true;
                self.zero = zero.clone();
                for block in zero.iter() {
                    image.begin_zero(block);
                    self.events.push_back(Event::Forget(BlockId::image(block)));
                }
                for block in image.decodable() {
                    image.begin_check(block);
                    self.events.push_back(Event::Check(BlockId::image(block)));
                }
                let notice = Notice::Indexed { zero_blocks: zero.count() };
                self.events.push_back(Event::Notice(notice));
            }
            None => {
                index.forget_all();
                self.index_failures += 1;
                self.events.push_back(Event::Notice(Notice::WrongIndex));
                if self.index_failures >= INDEX_FAILURES_MAX {
                    self.fail(now, Failure::Index);
                }
            }
        }
        self.asking.attend();
        self.settle(now);
    }

    /// A block of the image has been written, or made zero.
    pub fn handle_stored(&mut self, now: Instant, block: u32) {
        self.progress_at = now;
        let was_writing = self.writing.remove(block);
        self.writing_zero -= u32::from(was_writing && self.zero.contains(block));
        self.settle(now);
    }

    /// What came of the image, and what was needed.
    #[must_use]
    pub fn symbols(&self) -> Symbols {
        let Some(layout) = self.image.as_ref().map(|image| *image.layout()) else {
            return Symbols { received: 0, needed: 0 };
        };
        let sent = (0..layout.blocks()).filter(|block| !self.zero.contains(*block));
        let needed = sent.map(|block| u64::from(layout.source_symbols(block))).sum();
        Symbols { received: self.symbols_received, needed }
    }

    pub(super) fn ledger(&mut self, stream: Stream) -> Option<&mut Ledger> {
        match stream {
            Stream::Image => self.image.as_mut(),
            Stream::Index => self.index.as_mut(),
        }
    }

    /// Whether another block may be begun with this symbol. Where little room is left only blocks
    /// are of which most is still to come: others would fill it, and lack what the group was sent
    /// before.
    fn has_room_for(&self, via: Via, head: &DataHead, symbol_octets: usize) -> bool {
        let all = self.memory_blocks();
        let free = self.free_of(all);
        let symbols = u64::from(head.stored_len) / symbol_octets.max(1) as u64;
        let most = u64::from(head.still_to_come) * 8 >= symbols * 7;
        free > 0 && (most || via != Via::Group || free * 4 >= all)
    }

    pub(super) const fn ledger_of(&self, stream: Stream) -> Option<&Ledger> {
        match stream {
            Stream::Image => self.image.as_ref(),
            Stream::Index => self.index.as_ref(),
        }
    }

    /// Blocks that may still be begun.
    pub(super) fn free_blocks(&self) -> usize {
        self.free_of(self.memory_blocks())
    }

    /// Whether all that came or was found has been judged, and an index that is whole put together.
    pub(super) fn is_all_judged(&self) -> bool {
        let index_due = !self.index_known
            && self.index.as_ref().is_some_and(|index| index.verified().is_full());
        let judged = |ledger: &Option<Ledger>| ledger.as_ref().is_none_or(Ledger::is_judged);
        !index_due && judged(&self.index) && judged(&self.image)
    }

    /// Those of so many that none is held in.
    fn free_of(&self, blocks: usize) -> usize {
        let Some(image) = &self.image else { return 0 };
        let index_held = self.index.as_ref().map_or(0, Ledger::held);
        let writing = (self.writing.count() - self.writing_zero) as usize;
        blocks.saturating_sub(image.held() + index_held + writing)
    }

    /// Blocks that memory holds.
    pub(super) fn memory_blocks(&self) -> usize {
        let Some(image) = &self.image else { return 0 };
        let index_bytes = self.index.as_ref().map_or(0, |index| index.layout().bytes());
        let block_size = image.layout().block_size();
        self.config.memory.blocks(block_size, index_bytes) as usize
    }
}

/// A block that was wrong so often will not get right.
const POLLUTED_MAX: u8 = 8;
/// An index that was wrong so often is not the one that was announced.
const INDEX_FAILURES_MAX: u8 = 3;
