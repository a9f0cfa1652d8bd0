//! Images made of random octets, and what a sender knows of them.

use std::rc::Rc;

use imgcast_common::{
    bits::BitSet,
    fec::BlockShape,
    id::{BlockId, ImageId, Stream},
    layout::Layout,
    prng::Prng,
    tree::{BlockDigest, Index, IndexBuilder, index_hash},
};

use crate::config::{Fidelity, ImageConfig};

/// An image and its index.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) bytes: Rc<[u8]>,
    pub(crate) layout: Layout,
    pub(crate) index: Rc<Index>,
    /// The index as it is sent.
    pub(crate) index_bytes: Vec<u8>,
    pub(crate) id: ImageId,
    pub(crate) index_hash: [u8; 32],
}

impl Image {
    /// Random octets; at [`Fidelity::Rank`] there are none, and the hashes are made up.
    pub(crate) fn new(config: &ImageConfig, fidelity: Fidelity, prng: &mut Prng) -> Self {
        let layout = layout(config.bytes, config.block_log2, config.symbol_size);
        if fidelity == Fidelity::Rank {
            return Self::without_octets(layout, prng);
        }
        let mut bytes = vec![0; usize::try_from(config.bytes).unwrap_or(0)];
        prng.fill(&mut bytes);
        for number in 0..layout.blocks() {
            if prng.chance(config.zero_ppm) {
                bytes[octets(&layout, number)].fill(0);
            }
        }
        Self::of(bytes.into(), layout)
    }

    fn of(bytes: Rc<[u8]>, layout: Layout) -> Self {
        let mut builder = IndexBuilder::new(layout.blocks());
        for number in 0..layout.blocks() {
            if let Some(digest) = BlockDigest::of(&layout, number, &bytes[octets(&layout, number)])
            {
                builder.insert(number, digest);
            }
        }
        let Some(index) = builder.finish() else { unreachable!("every block was hashed") };
        let index_bytes = index.to_bytes();
        let (id, index_hash) = (index.image_id(), index_hash(&index_bytes));
        Self { bytes, layout, index: index.into(), index_bytes, id, index_hash }
    }

    fn without_octets(layout: Layout, prng: &mut Prng) -> Self {
        let values = vec![[0; 32]; layout.blocks() as usize];
        let Some(index) = Index::new(values, BitSet::new(layout.blocks())) else {
            unreachable!("an image has a block")
        };
        let mut id = [0; 32];
        prng.fill(&mut id);
        let index_bytes = Vec::new();
        let (bytes, index) = ([].into(), index.into());
        Self { bytes, layout, index, index_bytes, id: ImageId(id), index_hash: id }
    }

    /// The same image cut with another T.
    pub(crate) fn recut(&self, symbol_size: u16) -> Self {
        let layout = layout(self.layout.bytes(), self.layout.block_log2(), symbol_size);
        Self::of(Rc::clone(&self.bytes), layout)
    }

    /// The same image with an index that is another's, announced by its own hash.
    pub(crate) fn with_wrong_index(&self) -> Self {
        let mut index_bytes = self.index_bytes.clone();
        index_bytes[0] ^= 1;
        let index_hash = index_hash(&index_bytes);
        Self {
            bytes: Rc::clone(&self.bytes),
            layout: self.layout,
            index: Rc::clone(&self.index),
            index_bytes,
            id: self.id,
            index_hash,
        }
    }

    /// How a stream is cut.
    pub(crate) fn layout_of(&self, stream: Stream) -> Layout {
        match stream {
            Stream::Image => self.layout,
            Stream::Index => self.layout.of_index(),
        }
    }

    /// The octets of a block.
    pub(crate) fn block(&self, block: BlockId) -> &[u8] {
        let octets = octets(&self.layout_of(block.stream), block.number);
        match block.stream {
            Stream::Image => &self.bytes[octets],
            Stream::Index => &self.index_bytes[octets],
        }
    }

    /// Source symbols of the image that are sent at all.
    pub(crate) fn source_symbols(&self) -> u64 {
        let sent = (0..self.layout.blocks()).filter(|block| !self.index.zero().contains(*block));
        sent.map(|block| u64::from(self.layout.source_symbols(block))).sum()
    }
}

/// Where a block's octets lie.
pub(crate) fn octets(layout: &Layout, number: u32) -> std::ops::Range<usize> {
    let range = layout.block_range(number);
    usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0)
}

/// The shape of a block.
pub(crate) fn shape(layout: &Layout, number: u32) -> BlockShape {
    BlockShape::new(layout.block_len(number), layout.symbol_size())
        .unwrap_or_else(|| panic!("block {number} of {layout:?} has no shape"))
}

fn layout(bytes: u64, block_log2: u8, symbol_size: u16) -> Layout {
    Layout::new(bytes, block_log2, symbol_size)
        .unwrap_or_else(|| panic!("no layout: {bytes} octets, 2^{block_log2}, T = {symbol_size}"))
}
