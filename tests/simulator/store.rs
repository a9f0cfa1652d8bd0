//! What a receiver holds and writes: the real assembler and verification in front of a target in
//! memory, or, at [`Fidelity::Rank`], only how many symbols there are.

use std::{collections::BTreeMap, rc::Rc};

use imgcast_common::{
    bits::BitSet,
    fec::{Insertion, Received},
    id::{BlockId, ImageId, Stream},
    layout::Layout,
    prng::Prng,
    tree::Index,
    wire::DataHead,
};
use imgcast_receiver::image::{Assembler, IndexAssembly};

use crate::{
    config::Fidelity,
    image::{octets, shape},
};

/// Everything of one receiver that is not its session.
#[derive(Debug)]
pub(crate) struct Store {
    fidelity: Fidelity,
    pub(crate) layout: Layout,
    assembler: Assembler,
    ranks: BTreeMap<BlockId, Rank>,
    assembly: IndexAssembly,
    pub(crate) index: Option<Rc<Index>>,
    target: Vec<u8>,
    written: BitSet,
}

/// Symbols of one block, counted.
#[derive(Clone, Copy, Debug, Default)]
struct Rank {
    sources: u32,
    repairs: u32,
}

/// What came out of a check.
#[derive(Debug)]
pub(crate) enum Judged {
    Whole(Vec<u8>),
    TooFew(Option<Box<Received>>),
    Corrupt(Vec<u8>),
}

impl Store {
    pub(crate) fn new(fidelity: Fidelity, layout: Layout) -> Self {
        let octets = if fidelity == Fidelity::Real { layout.bytes() } else { 0 };
        Self {
            fidelity,
            layout,
            assembler: Assembler::new(SPARE_BUFFERS),
            ranks: BTreeMap::new(),
            assembly: IndexAssembly::new(layout.of_index()),
            index: None,
            target: vec![TARGET_BEFORE; usize::try_from(octets).unwrap_or(0)],
            written: BitSet::new(layout.blocks()),
        }
    }

    /// Another session of the same image cuts it like this.
    pub(crate) fn recut(&mut self, layout: Layout, same_index: bool) {
        self.layout = layout;
        if !same_index {
            self.assembly = IndexAssembly::new(layout.of_index());
        }
    }

    pub(crate) fn layout_of(&self, stream: Stream) -> Layout {
        match stream {
            Stream::Image => self.layout,
            Stream::Index => self.layout.of_index(),
        }
    }

    /// Takes in a symbol that the session wants; an error says why that was impossible.
    pub(crate) fn insert(
        &mut self,
        block: BlockId,
        head: &DataHead,
        symbol: &[u8],
    ) -> Result<(), String> {
        if self.fidelity == Fidelity::Rank {
            self.count(block, head, 1);
            return Ok(());
        }
        let layout = self.layout_of(block.stream);
        let shape = shape(&layout, block.number);
        match self.assembler.insert(block, &shape, head.esi, symbol) {
            Insertion::New => Ok(()),
            other => {
                Err(format!("{block} ESI {}: wanted, but {other:?} in the store", head.esi.get()))
            }
        }
    }

    /// Counts so many symbols of one kind, of which `head` is one.
    pub(crate) fn count(&mut self, block: BlockId, head: &DataHead, symbols: u32) {
        let sources = self.layout_of(block.stream).source_symbols(block.number);
        let rank = self.ranks.entry(block).or_default();
        let of_kind = if head.esi.get() < sources { &mut rank.sources } else { &mut rank.repairs };
        *of_kind += symbols;
    }

    pub(crate) fn forget(&mut self, block: BlockId) {
        self.assembler.forget(block);
        self.ranks.remove(&block);
    }

    /// Takes a block out and decodes and verifies it; an error if nothing of it is here, or less
    /// than K.
    pub(crate) fn judge(&mut self, block: BlockId, prng: &mut Prng) -> Result<Judged, String> {
        let shape = shape(&self.layout_of(block.stream), block.number);
        if self.fidelity == Fidelity::Rank {
            let rank = self.ranks.remove(&block).ok_or_else(|| format!("{block}: no symbols"))?;
            let known =
                rank.sources + rank.repairs + shape.padded_symbols() - shape.source_symbols();
            let extra = known.checked_sub(shape.padded_symbols());
            let extra = extra.ok_or_else(|| format!("{block}: {known} symbols known"))?;
            let odds = FAILURES_PPM.get(extra as usize).copied().unwrap_or(0);
            if rank.sources < shape.source_symbols() && prng.chance(odds) {
                self.ranks.insert(block, rank);
                return Ok(Judged::TooFew(None));
            }
            return Ok(Judged::Whole(Vec::new()));
        }
        let received = self.assembler.take(block).ok_or_else(|| format!("{block}: no symbols"))?;
        let (known, needed) = (received.known(), shape.padded_symbols());
        if received.shape() != &shape {
            return Err(format!("{block}: of another shape"));
        }
        if known < needed {
            return Err(format!("{block} is to be decoded from {known} of {needed} symbols"));
        }
        let bytes = match received.decode() {
            Ok(bytes) => bytes,
            Err(undecoded) => return Ok(Judged::TooFew(Some(undecoded.received))),
        };
        let right = match (block.stream, &self.index) {
            (Stream::Index, _) => true,
            (Stream::Image, Some(index)) => index.verify(&self.layout, block.number, &bytes),
            (Stream::Image, None) => return Err(format!("{block} is judged without an index")),
        };
        Ok(if right { Judged::Whole(bytes) } else { Judged::Corrupt(bytes) })
    }

    pub(crate) fn put_back(&mut self, block: BlockId, received: Option<Box<Received>>) {
        if let Some(received) = received {
            self.assembler.put_back(block, *received);
        }
    }

    pub(crate) fn insert_index_block(&mut self, number: u32, bytes: &[u8]) {
        if self.fidelity == Fidelity::Real {
            self.assembly.insert(number, bytes);
        }
    }

    /// Puts the index together; `true_index` stands for it where there are no octets.
    pub(crate) fn finish_index(
        &mut self,
        hash: &[u8; 32],
        image: ImageId,
        true_index: &Rc<Index>,
    ) -> Option<Rc<Index>> {
        if self.fidelity == Fidelity::Rank {
            return Some(Rc::clone(true_index));
        }
        self.assembly.finish(hash, self.layout.blocks(), image).ok().map(Rc::new)
    }

    pub(crate) fn is_zero_indeed(&self, block: u32) -> bool {
        self.index.as_ref().is_some_and(|index| index.verify_zero(&self.layout, block))
    }

    /// Writes a block; `None` stands for zeroes.
    pub(crate) fn write(&mut self, block: u32, bytes: Option<&[u8]>) {
        self.written.insert(block);
        if self.fidelity == Fidelity::Rank {
            return;
        }
        let place = &mut self.target[octets(&self.layout, block)];
        match bytes {
            Some(bytes) => {
                let len = place.len().min(bytes.len());
                place[..len].copy_from_slice(&bytes[..len]);
            }
            None => place.fill(0),
        }
    }

    /// Whether the target holds these octets, every block of them written.
    pub(crate) fn holds(&self, image: &[u8]) -> bool {
        self.written.is_full() && self.target == image
    }

    /// Incomplete blocks of the image.
    pub(crate) fn image_blocks_held(&self) -> usize {
        let of_index = (0..self.layout.of_index().blocks())
            .filter(|block| self.assembler.received(BlockId::index(*block)).is_some());
        self.assembler.blocks().saturating_sub(of_index.count())
    }
}

/// What was on the target before: no image is full of it.
const TARGET_BEFORE: u8 = 0xA5;
const SPARE_BUFFERS: usize = 4;
/// Odds of a failed decode with K, K + 1, K + 2 known symbols, per million.
const FAILURES_PPM: [u32; 3] = [5_000, 100, 1];
