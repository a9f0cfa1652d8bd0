//! What the driver does for a session, and what has to hold of what the session says.

use imgcast_common::{
    bits::BitSet,
    fec::BlockShape,
    id::{BlockId, ImageId, SessionId, Stream},
    layout::Layout,
    wire::{Header, Message, Need, Role, SenderState, padded_len},
};
use imgcast_receiver::session::{Checked, Event, Offer, Outcome};

use super::Table;
use crate::targets::messages::assert_is_list;

impl Table {
    pub(super) fn drain(&mut self) {
        while let Some(transmit) = self.session.poll_transmit() {
            let header = Header { session: SessionId(1), stream: transmit.stream, counter: 1 };
            let datagram = transmit.message.emit(&header, transmit.octets_min);
            assert!(datagram.len() <= padded_len(64).max(512), "{:?}", transmit.message);
            let read = Message::parse(&datagram, Role::Sender);
            assert!(read.is_ok(), "{read:?}: {:?}", transmit.message);
            assert!(!self.is_one_way || transmit.session == SessionId::NONE, "{transmit:?}");
            match transmit.message {
                Message::Join(join) if !join.mtu => self.nonce = join.nonce,
                Message::Need(need) => self.check_need(transmit.stream, &need),
                Message::Done(done) => assert!(!done.succeeded || self.is_flushed),
                _ => {}
            }
        }
        while let Some(event) = self.session.poll_event() {
            self.obey(event);
        }
        let held = self.kept.keys().filter(|block| block.stream == Stream::Image).count();
        assert!(held <= self.memory_blocks, "{held} of {} blocks", self.memory_blocks);
    }

    pub(super) fn obey(&mut self, event: Event) {
        match event {
            Event::Chosen(offer) => {
                self.choose(&offer);
            }
            Event::Check(block) => {
                assert!(!self.verified.contains(&block.number) || block.stream == Stream::Index);
                self.kept.remove(&block);
                self.checking.push(block);
            }
            Event::Forget(block) => drop(self.kept.remove(&block)),
            Event::IndexWhole => self.is_index_whole = true,
            Event::Flush => {
                let blocks = self.layout.blocks();
                assert!(self.is_index_right && self.stored.len() == blocks as usize, "too early");
                self.is_flushing = true;
            }
            Event::Finished(outcome) => {
                let is_done = matches!(outcome, Outcome::Done { .. });
                assert!(!is_done || self.is_flushed, "success without a flushed target");
                self.outcome.get_or_insert(outcome);
            }
            Event::RenewMembership | Event::Notice(_) => {}
        }
    }

    /// Another session takes the place of none, or of one of the same image.
    fn choose(&mut self, offer: &Offer) {
        let announce = &offer.announce;
        assert_ne!(announce.state, SenderState::Closing);
        let (image, index_hash) = *self.chosen.get_or_insert((announce.image, announce.index_hash));
        assert_eq!(image, announce.image, "it goes on with another image");
        let is_recut = self.layout != announce.layout;
        if is_recut || index_hash != announce.index_hash {
            // As the driver does with what its threads did for the cut of before.
            self.checking.retain(|block| block.stream == Stream::Image && !is_recut);
            self.is_index_whole = false;
        }
        self.chosen = Some((image, announce.index_hash));
        (self.layout, self.is_one_way) = (announce.layout, announce.one_way);
        if self.zero.len() != self.layout.blocks() {
            self.zero = BitSet::new(self.layout.blocks());
        }
        self.own = offer.session;
        self.session.handle_joined(self.now);
    }

    pub(super) fn keep(&mut self, block: BlockId, esi: u32) {
        let layout = self.layout_of(block.stream);
        assert!(block.number < layout.blocks(), "{block} of {}", layout.blocks());
        assert!(block.stream == Stream::Index || !self.verified.contains(&block.number), "{block}");
        assert!(self.kept.entry(block).or_default().insert(esi), "{block} ESI {esi}: kept twice");
        let shape = self.shape(block);
        let repairs =
            self.kept[&block].iter().filter(|esi| **esi >= shape.source_symbols()).count();
        assert!(repairs <= shape.padded_symbols() as usize + 64, "{block}: {repairs} repairs");
    }

    /// A check has come to something.
    pub(super) fn judge(&mut self, which: usize, how: Checked) {
        if self.checking.is_empty() {
            return;
        }
        let block = self.checking.remove(which % self.checking.len());
        match how {
            Checked::Whole if block.stream == Stream::Image => {
                if !self.is_index_right {
                    return self.checking.push(block);
                }
                self.kept.remove(&block);
                self.verified.insert(block.number);
                self.writing.push(block.number);
            }
            Checked::Whole => drop(self.kept.remove(&block)),
            // What the session holds again then is not modelled.
            Checked::TooFew | Checked::Corrupt => {}
        }
        self.session.handle_checked(self.now, block, how);
        self.drain();
    }

    pub(super) fn put_index_together(&mut self, is_right: bool) {
        if !std::mem::take(&mut self.is_index_whole) {
            return;
        }
        self.is_index_right = is_right;
        let zero = self.zero.clone();
        self.session.handle_index(self.now, is_right.then_some(&zero));
        if is_right {
            let zero: Vec<u32> = zero.iter().filter(|it| !self.verified.contains(it)).collect();
            self.checking.extend(zero.into_iter().map(BlockId::image));
        }
        self.drain();
    }

    pub(super) fn store(&mut self, which: usize) {
        if !self.writing.is_empty() {
            let block = self.writing.remove(which % self.writing.len());
            self.stored.insert(block);
            self.session.handle_stored(self.now, block);
        }
    }

    pub(super) fn finish_flush(&mut self) {
        if std::mem::take(&mut self.is_flushing) {
            self.is_flushed = true;
            self.session.handle_flushed(self.now, ImageId([1; 32]), self.layout.bytes());
        }
    }

    fn check_need(&self, stream: Stream, need: &Need) {
        assert_is_list(&need.needs);
        for range in &need.needs {
            assert!(range.end() <= self.layout_of(stream).blocks(), "{need:?}");
            let is_there = |block| stream == Stream::Image && self.verified.contains(&block);
            assert!(!(range.first..range.end()).any(is_there), "{need:?}");
        }
    }

    pub(super) fn layout_of(&self, stream: Stream) -> Layout {
        match stream {
            Stream::Image => self.layout,
            Stream::Index => self.layout.of_index(),
        }
    }

    fn shape(&self, block: BlockId) -> BlockShape {
        let layout = self.layout_of(block.stream);
        let shape = BlockShape::new(layout.block_len(block.number), layout.symbol_size());
        shape.unwrap_or_else(|| panic!("{block} has no shape"))
    }
}
