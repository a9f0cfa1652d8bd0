//! From symbols to a flushed target: the parts of this room, put together.
//!
//! ```text
//!  symbols ─► Assembler ─► Workbench (decode, verify) ─► Writer ─► target
//!                             └─ blocks of the index ─► IndexAssembly ─► Index ─┘
//! ```
//!
//! Which symbols to keep and when to check, forget or flush is decided elsewhere.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use imgcast_common::{
    bits::BitSet,
    fec::BlockShape,
    id::{BlockId, EncodingSymbolId, ImageId, Stream},
    layout::{BLOCK_LOG2_DEFAULT, Layout},
    sectors::SectorSize,
    tree::Index,
};
use tracing::warn;

mod hunting;

use super::{
    Assembler, Checked, Found, IndexAssembly, IndexError, Target, Workbench, Writer, Written,
    ZeroBatch,
    medium::Medium,
    order::Keeping,
    rate::smaller_known,
    search::{FOUND_MAX, Hunt},
};
use crate::{error::Error, memory::Memory};

/// The octets of one transfer on their way to the target.
pub struct Store {
    /// Until the index is there and something may be written.
    target: Option<Target>,
    /// How it is written to.
    as_medium: fn(Target) -> Box<dyn Medium>,
    /// What is looked for on the target.
    hunt: Hunt,
    writer: Option<Writer>,
    workbench: Workbench,
    assembler: Assembler,
    assembly: Option<IndexAssembly>,
    index: Option<Arc<Index>>,
    layout: Option<Layout>,
    /// The shape of the last symbol's block: most blocks have the same.
    shape: Option<BlockShape>,
    memory: Memory,
    /// Zero blocks on their way: one run at a time, so that the writer's queue keeps its room for
    /// octets, and nobody waits for a slow disk.
    zero_runs: VecDeque<Range<u32>>,
    is_zeroing: bool,
    /// Blocks that came before the ends of a device were looked at.
    waiting: Vec<(u32, Vec<u8>)>,
    /// Blocks with data that are on the target.
    stored_blocks: u32,
    /// An end was asked for, and nothing was lost since.
    is_ending: bool,
    deliver: Arc<dyn Fn(Work) + Send + Sync>,
}

/// What a thread has done; to be handed to [`Store::take_in`].
#[derive(Debug)]
pub enum Work {
    /// Memory for a block is there.
    Touched(Vec<u8>),
    /// A block was decoded and compared with the index.
    Checked(BlockId, Checked),
    /// Zero blocks were compared with the index.
    Zeroes(ZeroBatch),
    /// A block was looked for on the target.
    Searched(u32, Found),
    /// The writer has something to say.
    Written(Written),
}

/// What came of it.
#[derive(Debug)]
pub enum Progress {
    /// The block is right, and on its way to the target.
    Whole(BlockId),
    /// The block's symbols do not determine it.
    TooFew(BlockId),
    /// The block is wrong.
    Corrupt(BlockId),
    /// Of these zero blocks the first are right and on their way, the others wrong.
    Zeroes(ZeroBatch),
    /// These blocks are on the target.
    Stored(Range<u32>),
    /// The block is not on the target from before.
    Absent(u32),
    /// These blocks are not on the target after all, for this reason: zero blocks are made once
    /// more, others have to be fetched again.
    Lost(Vec<u32>, Error),
    /// The image is flushed and in its place; so many octets were written.
    Flushed(u64),
    /// The target is lost.
    Failed(Error),
}

impl Store {
    /// A store for `target` that keeps to `memory`. `deliver` is called by threads whenever one has
    /// done something.
    ///
    /// # Errors
    /// [`Error::System`] if there are no threads to be had.
    pub fn new(
        target: Target,
        memory: Memory,
        deliver: impl Fn(Work) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let blocks = memory.blocks(1 << BLOCK_LOG2_DEFAULT, 0);
        let threads = memory.threads(1 << BLOCK_LOG2_DEFAULT, 0);
        Ok(Self {
            target: Some(target),
            as_medium: |target| Box::new(target),
            hunt: Hunt::default(),
            writer: None,
            workbench: Workbench::new(threads, blocks as usize)?,
            assembler: Assembler::new(blocks as usize),
            assembly: None,
            index: None,
            layout: None,
            shape: None,
            memory,
            zero_runs: VecDeque::new(),
            is_zeroing: false,
            waiting: Vec::new(),
            stored_blocks: 0,
            is_ending: false,
            deliver: Arc::new(deliver),
        })
    }

    /// Whether the partition table of the image to come means something on the target.
    ///
    /// # Errors
    /// [`Error::Target`].
    pub fn check_sectors(&self, of_image: Option<SectorSize>) -> Result<(), Error> {
        self.target.as_ref().map_or(Ok(()), |target| target.check_sectors(of_image))
    }

    /// An image of this cut is to come. Blocks of an index that is not complete yet are kept if
    /// they are of `same_index`.
    ///
    /// # Errors
    /// [`Error::Target`]; [`Error::Usage`] if there is too little memory for its blocks.
    pub fn begin(&mut self, layout: Layout, same_index: bool) -> Result<(), Error> {
        if let Some(target) = &self.target {
            target.check_size(layout.bytes())?;
        }
        let block_size = layout.block_size();
        let index_bytes = layout.of_index().bytes();
        self.memory.check(block_size, index_bytes)?;
        let threads = self.memory.threads(block_size, index_bytes);
        if threads < self.workbench.threads() {
            // Larger blocks than usual: the scratch of all threads together would be too much.
            let blocks = self.memory.blocks(block_size, 0);
            self.workbench = Workbench::new(threads, blocks as usize)?;
        }
        if self.index.is_none() && !(same_index && self.assembly.is_some()) {
            self.assembly = Some(IndexAssembly::new(layout.of_index()));
        }
        self.layout = Some(layout);
        let symbol_size = u64::from(layout.symbol_size());
        let octets = block_size.next_multiple_of(symbol_size);
        let room = u64::from(self.memory.blocks(block_size, 0)) * block_size;
        let blocks = (PREPARED_BYTES.min(room) / octets).min(layout.blocks().into());
        if let (Ok(octets), Ok(blocks)) = (usize::try_from(octets), usize::try_from(blocks)) {
            let (missing, deliver) = (self.assembler.buffers_missing(blocks), self.deliver.clone());
            self.workbench.touch(missing, octets, move |buffer| deliver(Work::Touched(buffer)));
        }
        Ok(())
    }

    /// Keeps a symbol.
    pub fn keep(&mut self, block: BlockId, stored_len: u32, esi: EncodingSymbolId, symbol: &[u8]) {
        let fits = |shape: &BlockShape| {
            shape.stored_len() == stored_len && shape.symbol_size() == symbol.len()
        };
        if !self.shape.as_ref().is_some_and(fits) {
            let symbol_size = u16::try_from(symbol.len()).unwrap_or(0);
            self.shape = BlockShape::new(stored_len, symbol_size);
        }
        if let Some(shape) = &self.shape {
            self.assembler.insert(block, shape, esi, symbol);
        }
    }

    /// Drops what is held of a block.
    pub fn forget(&mut self, block: BlockId) {
        self.assembler.forget(block);
    }

    /// Decodes and verifies a block in the background; false if nothing of it is held.
    pub fn check(&mut self, block: BlockId) -> bool {
        let (Some(layout), Some(received)) = (self.layout, self.assembler.take(block)) else {
            return false;
        };
        let layout = if block.stream == Stream::Index { layout.of_index() } else { layout };
        let deliver = Arc::clone(&self.deliver);
        self.workbench.check(block, received, self.index.clone(), layout, move |block, checked| {
            deliver(Work::Checked(block, checked));
        });
        true
    }

    /// All blocks of the index are there: returns which blocks of the image are zero. These are
    /// verified and made in the background.
    ///
    /// # Errors
    /// [`Error::Target`], or whatever keeps the target from being written; inside, what is
    /// wrong with the index, which is forgotten then.
    pub fn put_index_together(
        &mut self,
        index_hash: &[u8; 32],
        image: ImageId,
    ) -> Result<Result<BitSet, IndexError>, Error> {
        let (Some(layout), Some(assembly)) = (self.layout, &mut self.assembly) else {
            return Ok(Err(IndexError::Incomplete { missing_blocks: 0 }));
        };
        let index = match assembly.finish(index_hash, layout.blocks(), image) {
            Ok(index) => Arc::new(index),
            Err(error) => return Ok(Err(error)),
        };
        self.index = Some(Arc::clone(&index));
        self.assembly = None;
        self.begin_writing(layout, &index)?;
        Ok(Ok(index.zero().clone()))
    }

    fn begin_writing(&mut self, layout: Layout, index: &Arc<Index>) -> Result<(), Error> {
        let Some(mut target) = self.target.take() else { return Ok(()) };
        let (search, journal, reads_back) = target.search(index.image_id(), &layout, index.zero());
        let read_back = reads_back.then(|| Arc::clone(index));
        let keeping = Keeping { journal, read_back, may_be_whole: search.is_some() };
        let zeroes: u64 = index.zero().iter().map(|block| u64::from(layout.block_len(block))).sum();
        target.check_room(layout.bytes() - zeroes)?;
        let tasks_max = self.memory.blocks(layout.block_size(), 0) as usize + FOUND_MAX;
        let deliver = Arc::clone(&self.deliver);
        let written = move |written| deliver(Work::Written(written));
        let medium = (self.as_medium)(target);
        self.writer = Some(Writer::start(medium, layout, keeping, tasks_max, written)?);
        if let Some(search) = search {
            let (deliver, index) = (Arc::clone(&self.deliver), Arc::clone(index));
            let found = move |number, found| deliver(Work::Searched(number, found));
            self.hunt = Hunt::begin(search, layout, index, found)?;
        }
        let deliver = Arc::clone(&self.deliver);
        self.workbench.check_zero(0..layout.blocks(), Arc::clone(index), layout, move |batch| {
            deliver(Work::Zeroes(batch));
        })
    }

    /// Takes in what a thread has done, and sends it on its way. `None` if nothing came of it that
    /// concerns a block.
    pub fn take_in(&mut self, work: Work) -> Option<Progress> {
        Some(match work {
            Work::Touched(buffer) => {
                self.assembler.recycle(buffer);
                return None;
            }
            Work::Checked(block, checked) => self.checked(block, checked),
            Work::Zeroes(batch) => {
                for run in batch.matching.chunk_by(|one, next| one + 1 == *next) {
                    self.zero_runs.push_back(*run.first()?..run.last()? + 1);
                }
                self.zero_next();
                Progress::Zeroes(batch)
            }
            Work::Written(Written::Stored { number, buffer }) => {
                buffer.into_iter().for_each(|buffer| self.assembler.recycle(buffer));
                self.stored_blocks = self.stored_blocks.saturating_add(1);
                self.search_on_after(number);
                self.end_again();
                Progress::Stored(number..number + 1)
            }
            Work::Written(Written::Zeroed { blocks }) => {
                self.is_zeroing = false;
                self.zero_next();
                self.end_again();
                Progress::Stored(blocks)
            }
            Work::Written(Written::Lost { blocks, buffer, error }) => {
                buffer.into_iter().for_each(|buffer| self.assembler.recycle(buffer));
                self.is_ending = false;
                blocks.iter().for_each(|block| self.lose(*block));
                self.zero_next();
                Progress::Lost(blocks, error)
            }
            Work::Searched(number, found) => self.searched(number, found),
            Work::Written(Written::Flushed { written_bytes }) => Progress::Flushed(written_bytes),
            Work::Written(Written::Failed(error)) => Progress::Failed(error),
        })
    }

    fn zero_next(&mut self) {
        let may_write = !self.is_zeroing && !self.hunt.looks_at_ends();
        if let Some(writer) = self.writer.as_ref().filter(|_| may_write)
            && let Some(run) = self.zero_runs.pop_front()
        {
            self.is_zeroing = true;
            writer.zero(run);
        }
    }

    fn checked(&mut self, block: BlockId, checked: Checked) -> Progress {
        match checked {
            Checked::Whole { bytes } => {
                match (block.stream, &self.writer, &mut self.assembly) {
                    (Stream::Image, Some(_), _) if self.hunt.looks_at_ends() => {
                        self.waiting.push((block.number, bytes));
                    }
                    (Stream::Image, Some(writer), _) => writer.write(block.number, bytes),
                    (Stream::Index, _, Some(assembly)) => {
                        assembly.insert(block.number, &bytes);
                        self.assembler.recycle(bytes);
                    }
                    _ => self.assembler.recycle(bytes),
                }
                Progress::Whole(block)
            }
            Checked::TooFew { received } => {
                let same = self.layout.is_some_and(|layout| {
                    usize::from(layout.symbol_size()) == received.shape().symbol_size()
                });
                if same {
                    self.assembler.put_back(block, received);
                } else {
                    self.assembler.recycle(received.into_buffer());
                }
                Progress::TooFew(block)
            }
            Checked::Corrupt { buffer } => {
                self.assembler.recycle(buffer);
                Progress::Corrupt(block)
            }
            Checked::Failed { text } => {
                warn!(%block, text, "a block could not be decoded; it is fetched again");
                Progress::Corrupt(block)
            }
        }
    }

    /// Flushes the target and puts the image into its place, in the background.
    pub fn flush(&mut self) {
        self.is_ending = true;
        self.end_again();
    }

    /// What was lost may come back after the end was asked for.
    fn end_again(&self) {
        if let Some(writer) = self.writer.as_ref().filter(|_| self.is_ending) {
            writer.finish();
        }
    }

    /// The image's hash as it follows from the index that all blocks were compared with.
    #[must_use]
    pub fn image_id(&self) -> Option<ImageId> {
        self.index.as_ref().map(|index| index.image_id())
    }

    /// What this node can make of what it receives, in kB/s: the target takes no more, or the
    /// threads that decode do no more. 0 while too little is known.
    #[must_use]
    pub fn drain_kilobytes_per_second(&self) -> u32 {
        if self.stored_blocks < KNOWN_BLOCKS_MIN {
            return 0;
        }
        let target = self.writer.as_ref().map_or(0, Writer::drain_kilobytes_per_second);
        smaller_known(target, self.workbench.kilobytes_per_second())
    }
}

/// The first write of a few pages, and the first flush, say nothing about the thousandth block.
const KNOWN_BLOCKS_MIN: u32 = 16;
/// Made ready before the first symbols: by the time that so much has arrived, blocks are written
/// and their memory comes back.
const PREPARED_BYTES: u64 = 32 << 20;

#[cfg(test)]
mod tests;
