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
    image::{Image, octets, shape},
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
    kept: Kept,
    /// Claimed blocks that have not been looked for.
    unsearched: BitSet,
    /// Whether the journal tells all that is on the target.
    is_searched: bool,
    /// Blocks that were written though the target held them.
    pub(crate) rewritten: u32,
}

/// What a receiver leaves behind: its target, and what its journal claims of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    target: Vec<u8>,
    /// Without a journal, everything is claimed.
    journal: Option<BitSet>,
    /// Written and being flushed, and written since then.
    windows: [Vec<u32>; 2],
}

impl Kept {
    /// A target with this image on it, but for each so many-th block.
    pub(crate) fn like(image: &Image, changed_every: u32) -> Self {
        let mut target = image.bytes.to_vec();
        for block in (0..image.layout.blocks()).filter(|it| it.is_multiple_of(changed_every)) {
            target[octets(&image.layout, block)].fill(TARGET_BEFORE);
        }
        Self { target, ..Self::default() }
    }
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
            kept: Kept::default(),
            unsearched: BitSet::new(layout.blocks()),
            is_searched: true,
            rewritten: 0,
        }
    }

    /// Goes on with what an earlier run left.
    pub(crate) fn resume(&mut self, kept: Kept) {
        if kept.target.len() == self.target.len() {
            self.target.clone_from(&kept.target);
            self.is_searched = kept.journal.is_some();
            self.kept = Kept { windows: Default::default(), ..kept };
        }
    }

    /// What a run that is killed leaves: all that it wrote, and the journal as it was.
    pub(crate) fn leave(self) -> Kept {
        let blocks = self.layout.blocks();
        let journal = self.kept.journal.or_else(|| Some(BitSet::new(blocks)));
        let journal = journal.filter(|_| self.is_searched);
        Kept { target: self.target, journal, windows: Default::default() }
    }

    /// Blocks that may be on the target from before, but for those that are zero: they are looked
    /// for now.
    pub(crate) fn begin_search(&mut self) -> BitSet {
        let mut claims = BitSet::new(self.layout.blocks());
        let may_be_there = |block: &u32| {
            let zero = self.index.as_ref().is_some_and(|index| index.zero().contains(*block));
            let journal = self.kept.journal.as_ref();
            !zero && !self.kept.target.is_empty() && journal.is_none_or(|it| it.contains(*block))
        };
        for block in (0..self.layout.blocks()).filter(may_be_there) {
            claims.insert(block);
        }
        self.unsearched = claims.clone();
        self.is_searched |= claims.is_empty();
        claims
    }

    /// A block was looked for.
    pub(crate) fn note_searched(&mut self, block: u32) {
        self.unsearched.remove(block);
        self.is_searched |= self.unsearched.is_empty();
    }

    /// Whether the target holds a block.
    pub(crate) fn is_there(&self, block: u32) -> bool {
        let bytes = self.target.get(octets(&self.layout, block));
        let index = self.index.as_ref();
        bytes.is_some_and(|bytes| index.is_some_and(|it| it.verify(&self.layout, block, bytes)))
    }

    /// A block was found: nothing has to be written.
    pub(crate) fn find(&mut self, block: u32) {
        self.written.insert(block);
        self.note(block);
    }

    /// A block is on the target; when a window is full, the one before it is flushed.
    fn note(&mut self, block: u32) {
        let [flushing, filling] = &mut self.kept.windows;
        filling.push(block);
        if filling.len() < WINDOW_BLOCKS {
            return;
        }
        let flushed = std::mem::replace(flushing, std::mem::take(filling));
        let blocks = self.layout.blocks();
        let journal = self.kept.journal.get_or_insert_with(|| BitSet::new(blocks));
        for block in flushed {
            journal.insert(block);
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
                self.rewritten += u32::from(*place == *bytes);
                let len = place.len().min(bytes.len());
                place[..len].copy_from_slice(&bytes[..len]);
            }
            None => place.fill(0),
        }
        self.note(block);
    }

    /// A block did not get to the disk.
    pub(crate) fn lose(&mut self, block: u32) {
        self.written.remove(block);
        if self.fidelity == Fidelity::Real {
            self.target[octets(&self.layout, block)].fill(TARGET_BEFORE);
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
/// Blocks that are flushed together.
pub const WINDOW_BLOCKS: usize = 2;
/// Odds of a failed decode with K, K + 1, K + 2 known symbols, per million.
const FAILURES_PPM: [u32; 3] = [5_000, 100, 1];
