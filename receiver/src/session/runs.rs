//! Symbols that arrive together, taken in at one stroke where that is the same as one by one.

use std::time::Instant;

use imgcast_common::{
    id::{BlockId, EncodingSymbolId, Stream},
    wire::{DataHead, Header},
};

use super::{Event, Phase, Session, Verdict, Via};

impl Session {
    /// Up to 64 symbols of one block came that were sent one behind the other: `header` and `head`
    /// are those of the first, and those have arrived whose bit is set in `arrived`, the lowest
    /// first. Does what [`handle_symbol`](Self::handle_symbol) does for each in turn; returns, in
    /// the same form, for which of them its verdict is to keep them.
    pub fn handle_symbols(
        &mut self,
        now: Instant,
        via: Via,
        header: &Header,
        head: &DataHead,
        symbol_octets: usize,
        arrived: u64,
    ) -> u64 {
        let (mut left, mut kept) = (arrived, 0);
        while left != 0 {
            if let Some(new) = self.take_together(now, via, header, head, symbol_octets, left) {
                return kept | new;
            }
            let bit = left.trailing_zeros();
            left &= left - 1;
            let Some(esi) = EncodingSymbolId::new(head.esi.get() + bit) else { return kept };
            let before = u16::try_from(bit).unwrap_or(0);
            let still_to_come = head.still_to_come.saturating_sub(before);
            let head = DataHead { esi, still_to_come, ..*head };
            let header = Header { counter: header.counter + u64::from(bit), ..*header };
            let verdict = self.handle_symbol(now, via, &header, &head, symbol_octets);
            kept |= u64::from(matches!(verdict, Verdict::Wanted | Verdict::Enough)) << bit;
        }
        kept
    }

    /// `None`, with nothing done, where each symbol has to be looked at.
    fn take_together(
        &mut self,
        now: Instant,
        via: Via,
        header: &Header,
        head: &DataHead,
        symbol_octets: usize,
        arrived: u64,
    ) -> Option<u64> {
        let offer = self.offer.as_ref().filter(|offer| offer.session == header.session)?;
        let fits = symbol_octets == usize::from(offer.announce.layout.symbol_size());
        let takes = matches!(self.phase, Phase::Member) && self.index_known;
        if !fits || !takes || self.is_one_way() {
            return None;
        }
        let ledger = self.ledger(header.stream)?;
        let (new, verdict) = ledger.accept_sources(now, via, header.counter, head, arrived)?;
        if verdict == Verdict::Enough {
            ledger.begin_check(head.block);
            let block = BlockId { stream: header.stream, number: head.block };
            self.events.push_back(Event::Check(block));
        } else if arrived.ilog2() >= u32::from(head.still_to_come) {
            self.asking.attend();
        }
        if header.stream == Stream::Image {
            self.symbols_received += u64::from(arrived.count_ones());
        }
        if new != 0 {
            self.note_kept(now, header.stream, new.count_ones());
        }
        self.note_contacts(now, via, header.counter, arrived);
        Some(new)
    }
}
