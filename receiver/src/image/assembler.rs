//! The incomplete blocks: symbols land in their place as they arrive.
//!
//! It holds memory. Which block may take some, and which one is given up when there
//! is none left, is the session's decision.

use std::collections::BTreeMap;

use imgcast_common::fec::{BlockShape, Insertion, Received};
use imgcast_common::id::{BlockId, EncodingSymbolId};

/// The blocks of which some symbols are here, and memory of earlier ones for the next.
#[derive(Debug)]
pub struct Assembler {
    blocks: BTreeMap<BlockId, Received>,
    spare: Vec<Vec<u8>>,
    spare_max: usize,
}

impl Assembler {
    /// No block yet. Up to `spare_max` buffers of blocks that are gone are kept for new ones.
    #[must_use]
    pub const fn new(spare_max: usize) -> Self {
        Self { blocks: BTreeMap::new(), spare: Vec::new(), spare_max }
    }

    /// How many more buffers it takes until so many blocks can be begun without new memory.
    #[must_use]
    pub fn buffers_missing(&self, blocks: usize) -> usize {
        blocks.min(self.spare_max).saturating_sub(self.blocks.len() + self.spare.len())
    }

    /// Takes a symbol in; the first one of a block opens it. A symbol for another shape than its
    /// block was opened with is [`Insertion::Malformed`], as is one that no block of its shape
    /// has; such a one opens no block.
    pub fn insert(
        &mut self,
        block: BlockId,
        shape: &BlockShape,
        esi: EncodingSymbolId,
        symbol: &[u8],
    ) -> Insertion {
        if let Some(received) = self.blocks.get_mut(&block) {
            if received.shape() != shape {
                return Insertion::Malformed;
            }
            return received.insert(esi, symbol);
        }
        let buffer = self.spare.pop().unwrap_or_default();
        let mut received = Received::new(*shape, buffer);
        let insertion = received.insert(esi, symbol);
        if insertion == Insertion::New {
            self.put_back(block, received);
        } else {
            self.recycle(received.into_buffer());
        }
        insertion
    }

    /// The symbols at hand of a block.
    #[must_use]
    pub fn received(&self, block: BlockId) -> Option<&Received> {
        self.blocks.get(&block)
    }

    /// Hands a block over, to be decoded.
    pub fn take(&mut self, block: BlockId) -> Option<Received> {
        self.blocks.remove(&block)
    }

    /// Takes a block back that could not be decoded. Symbols that arrived meanwhile are dropped
    /// if they are fewer than it has, and otherwise the block that came back is.
    pub fn put_back(&mut self, block: BlockId, received: Received) {
        let newer = self.take(block);
        let (kept, dropped) = match newer {
            Some(newer) if newer.known() > received.known() => (newer, Some(received)),
            other => (received, other),
        };
        self.blocks.insert(block, kept);
        if let Some(dropped) = dropped {
            self.recycle(dropped.into_buffer());
        }
    }

    /// Gives up all symbols of a block; whether there were any.
    pub fn forget(&mut self, block: BlockId) -> bool {
        match self.take(block) {
            Some(received) => {
                self.recycle(received.into_buffer());
                true
            }
            None => false,
        }
    }

    /// Keeps the memory of a block that is done with.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < self.spare_max && buffer.capacity() > 0 {
            self.spare.push(buffer);
        }
    }

    /// How many blocks are incomplete here.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 640 octets in symbols of 64: S = K = 10.
    fn shape() -> BlockShape {
        BlockShape::new(640, 64).unwrap()
    }

    fn esi(value: u32) -> EncodingSymbolId {
        EncodingSymbolId::new(value).unwrap()
    }

    #[test]
    fn symbols_find_their_block_and_their_place() {
        let mut assembler = Assembler::new(4);
        for number in [3, 1] {
            for value in (0..10).rev() {
                let symbol = [u8::try_from(value + number).unwrap(); 64];
                let block = BlockId::image(number);
                assert_eq!(assembler.insert(block, &shape(), esi(value), &symbol), Insertion::New);
            }
        }
        let again = assembler.insert(BlockId::image(1), &shape(), esi(3), &[0; 64]);
        assert_eq!((again, assembler.blocks()), (Insertion::Duplicate, 2));
        assert!(assembler.take(BlockId::index(1)).is_none(), "another stream");
        let bytes = assembler.take(BlockId::image(1)).unwrap().decode().unwrap();
        assert!(bytes.chunks(64).zip(1..).all(|(symbol, value)| symbol == [value; 64]));
        assert!(assembler.take(BlockId::image(1)).is_none());
    }

    #[test]
    fn what_fits_no_block_opens_none() {
        let mut assembler = Assembler::new(4);
        let block = BlockId::image(0);
        assert_eq!(assembler.insert(block, &shape(), esi(0), &[0; 63]), Insertion::Malformed);
        assert_eq!(assembler.blocks(), 0);
        assert_eq!(assembler.insert(block, &shape(), esi(0), &[0; 64]), Insertion::New);
        let other = BlockShape::new(576, 64).unwrap();
        assert_eq!(assembler.insert(block, &other, esi(1), &[0; 64]), Insertion::Malformed);
        assert_eq!(assembler.received(block).map(Received::known), Some(1));
    }

    #[test]
    fn memory_is_used_again() {
        let mut assembler = Assembler::new(1);
        for number in 0..3 {
            let block = BlockId::image(number);
            assembler.insert(block, &shape(), esi(0), &[0; 64]);
            assembler.insert(block, &shape(), esi(1000), &[0; 64]);
        }
        for number in 0..3 {
            assert!(assembler.forget(BlockId::image(number)));
            assert!(!assembler.forget(BlockId::image(number)));
        }
        assert_eq!(assembler.blocks(), 0);
        assert_eq!(assembler.spare.len(), 1, "spare memory has its limit too");
        assembler.insert(BlockId::image(9), &shape(), esi(0), &[0; 64]);
        assert_eq!(assembler.spare.len(), 0);
    }

    #[test]
    fn memory_that_is_handed_in_is_used_and_no_more_is_missing_than_may_be_kept() {
        let mut assembler = Assembler::new(2);
        assert_eq!((assembler.buffers_missing(9), assembler.buffers_missing(1)), (2, 1));
        let buffer = vec![1; 640];
        let memory = buffer.as_ptr();
        assembler.recycle(buffer);
        assert_eq!((assembler.buffers_missing(9), assembler.buffers_missing(1)), (1, 0));
        assembler.insert(BlockId::image(0), &shape(), esi(0), &[0; 64]);
        assert_eq!(assembler.buffers_missing(9), 1, "the block has it");
        let buffer = assembler.take(BlockId::image(0)).unwrap().into_buffer();
        assert_eq!(buffer.as_ptr(), memory);
    }

    #[test]
    fn of_a_block_that_comes_back_and_its_heir_the_fuller_one_stays() {
        let block = BlockId::image(0);
        for (before, meanwhile, kept) in [(5, 2, 5), (2, 5, 5), (3, 3, 3), (4, 0, 4)] {
            let mut assembler = Assembler::new(4);
            let fill = |assembler: &mut Assembler, symbols| {
                for value in 0..symbols {
                    assembler.insert(block, &shape(), esi(value), &[0; 64]);
                }
            };
            fill(&mut assembler, before);
            let received = assembler.take(block).unwrap();
            fill(&mut assembler, meanwhile);
            assembler.put_back(block, received);
            assert_eq!(assembler.received(block).map(Received::known), Some(kept));
        }
    }
}
