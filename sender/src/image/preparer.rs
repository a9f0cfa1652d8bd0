//! The symbols of a turn: a block read and verified, with as many fresh repair symbols as asked
//! for.
//!
//! Jobs run on a pool of their own; whatever becomes of one, its result is delivered. Which blocks
//! have a turn, how many repair symbols and from which ESI on, is decided by the session.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imgcast_common::fec::{BlockShape, repair_symbols};
use imgcast_common::id::{BlockId, EncodingSymbolId, Stream};
use imgcast_common::layout::Layout;
use imgcast_common::pool::{Pool, panic_text};
use imgcast_common::tree::Index;

use super::source::ImageSource;
use crate::error::Error;

/// Prepares turns of the blocks of one image and its index.
///
/// Dropping it waits until every turn that was asked for is delivered.
#[derive(Debug)]
pub struct Preparer {
    blocks: Arc<Blocks>,
    pool: Pool,
}

impl Preparer {
    /// Starts `threads` threads, at least one, on the image that is cut by `layout` and indexed by
    /// `index`, whose octets are `index_bytes`. Up to `queue_max` turns wait for a thread.
    ///
    /// # Errors
    /// [`Error::System`] if there are no threads to be had.
    pub fn new(
        source: Arc<ImageSource>,
        index: Arc<Index>,
        index_bytes: Arc<Vec<u8>>,
        layout: Layout,
        threads: usize,
        queue_max: usize,
    ) -> Result<Self, Error> {
        let pool = Pool::new("prepare", threads, queue_max)
            .map_err(|source| Error::System { what: "threads to prepare blocks", source })?;
        let (recent, spare) = (Mutex::new(Recent::default()), Arc::new(Spare::default()));
        let blocks = Blocks { source, index, index_bytes, layout, recent, spare };
        Ok(Self { blocks: Arc::new(blocks), pool })
    }

    /// Prepares a turn and hands it to `deliver` on one of the threads, exactly once; waits for
    /// room while the queue is full. Turns may be delivered in another order than asked for.
    pub fn prepare(&self, request: TurnRequest, deliver: impl FnOnce(Prepared) + Send + 'static) {
        let blocks = Arc::clone(&self.blocks);
        self.pool.submit(move || {
            let block = contained(request.block, || blocks.prepare(&request));
            deliver(Prepared { turn: request.turn, block });
        });
    }
}

/// What a turn takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TurnRequest {
    /// Comes back with the result; means nothing here.
    pub turn: u64,
    /// The block whose turn it is.
    pub block: BlockId,
    /// ESI of the first repair symbol; K or above, unless there are none.
    pub first_repair: EncodingSymbolId,
    /// How many repair symbols.
    pub repairs: u32,
}

/// What became of a request.
#[derive(Debug)]
pub struct Prepared {
    /// The request's.
    pub turn: u64,
    /// The symbols; [`Error::ImageChanged`] if the block is not any more what was indexed,
    /// [`Error::ImageRead`] if it cannot be read, [`Error::Internal`] for what is no block.
    pub block: Result<PreparedBlock, Error>,
}

/// All source symbols of a block and the repair symbols of one turn; a clone shares them.
#[derive(Clone, Debug)]
pub struct PreparedBlock {
    shape: BlockShape,
    source: Arc<Symbols>,
    first_repair: EncodingSymbolId,
    repairs: Arc<Vec<u8>>,
}

impl PreparedBlock {
    /// How the block is cut.
    #[must_use]
    pub const fn shape(&self) -> &BlockShape {
        &self.shape
    }

    /// The T octets of a source symbol, zero-padded, or of one of this turn's repair symbols;
    /// `None` for any other.
    #[must_use]
    pub fn symbol(&self, esi: EncodingSymbolId) -> Option<&[u8]> {
        let (symbols, position) = if esi.get() < self.shape.source_symbols() {
            (&self.source.octets, esi.get())
        } else {
            (&*self.repairs, esi.get().checked_sub(self.first_repair.get())?)
        };
        let start = (position as usize).checked_mul(self.shape.symbol_size())?;
        symbols.get(start..)?.get(..self.shape.symbol_size())
    }
}

#[cfg(test)]
impl PreparedBlock {
    /// A block of zeroes without repair symbols.
    pub(crate) fn sample(source_symbols: u32, symbol_size: u16) -> Self {
        let stored_len = source_symbols * u32::from(symbol_size);
        let shape = BlockShape::new(stored_len, symbol_size).unwrap();
        let source = Spare::take(&Arc::new(Spare::default()), stored_len as usize);
        let first_repair = EncodingSymbolId::new(shape.padded_symbols()).unwrap();
        Self { shape, source: Arc::new(source), first_repair, repairs: Arc::default() }
    }
}

/// What the jobs share.
#[derive(Debug)]
struct Blocks {
    source: Arc<ImageSource>,
    index: Arc<Index>,
    index_bytes: Arc<Vec<u8>>,
    layout: Layout,
    recent: Mutex<Recent>,
    spare: Arc<Spare>,
}

impl Blocks {
    fn prepare(&self, request: &TurnRequest) -> Result<PreparedBlock, Error> {
        let TurnRequest { block, first_repair, repairs, .. } = *request;
        let layout = match block.stream {
            Stream::Image => self.layout,
            Stream::Index => self.layout.of_index(),
        };
        let shape = BlockShape::new(layout.block_len(block.number), layout.symbol_size())
            .ok_or_else(|| internal(block, "there is no such block".to_owned()))?;
        let source = self.source_symbols(block, &layout, &shape)?;
        let repairs = if repairs == 0 {
            Vec::new()
        } else {
            let stored = &source.octets[..shape.stored_len() as usize];
            repair_symbols(&shape, stored, first_repair, repairs)
                .map_err(|error| internal(block, error.to_string()))?
        };
        Ok(PreparedBlock { shape, source, first_repair, repairs: Arc::new(repairs) })
    }

    /// The block, verified and zero-padded to S·T octets.
    fn source_symbols(
        &self,
        block: BlockId,
        layout: &Layout,
        shape: &BlockShape,
    ) -> Result<Arc<Symbols>, Error> {
        if let Some(source) = self.recent().find(block) {
            return Ok(source);
        }
        let symbols_len = shape.source_symbols() as usize * shape.symbol_size();
        let mut source = Spare::take(&self.spare, symbols_len);
        let (stored, padding) = source.octets.split_at_mut(shape.stored_len() as usize);
        padding.fill(0);
        let range = layout.block_range(block.number);
        match block.stream {
            Stream::Image => {
                self.source.read_at(range.start, stored)?;
                if !self.index.verify(layout, block.number, stored) {
                    return Err(self.source.changed_at(range.start));
                }
            }
            Stream::Index => {
                let start = usize::try_from(range.start).unwrap_or(usize::MAX);
                let slice = self.index_bytes.get(start..).and_then(|rest| rest.get(..stored.len()));
                let missing = || internal(block, "the index is too short".to_owned());
                stored.copy_from_slice(slice.ok_or_else(missing)?);
            }
        }
        let source = Arc::new(source);
        let recent_max = RECENT_OCTETS_MAX / usize::try_from(layout.block_size()).unwrap_or(1);
        let recent_max = recent_max.clamp(RECENT_BLOCKS_MIN, RECENT_BLOCKS_MAX);
        self.recent().insert(block, &source, recent_max);
        Ok(source)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // Whatever panicked, each of its operations leaves it whole.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The blocks that were prepared last, the latest first: repair follows a whole turn soon, and
/// then needs neither disk nor hash.
#[derive(Debug, Default)]
struct Recent(VecDeque<(BlockId, Arc<Symbols>)>);

impl Recent {
    fn find(&mut self, block: BlockId) -> Option<Arc<Symbols>> {
        let position = self.0.iter().position(|(id, _)| *id == block)?;
        let entry = self.0.remove(position)?;
        let source = Arc::clone(&entry.1);
        self.0.push_front(entry);
        Some(source)
    }

    fn insert(&mut self, block: BlockId, source: &Arc<Symbols>, blocks_max: usize) {
        // Two jobs may have read the same block at the same time.
        self.0.retain(|(id, _)| *id != block);
        self.0.push_front((block, Arc::clone(source)));
        self.0.truncate(blocks_max);
    }
}

/// The source symbols of a block. Their memory goes back to where it came from.
#[derive(Debug)]
struct Symbols {
    octets: Vec<u8>,
    home: Arc<Spare>,
}

impl Drop for Symbols {
    fn drop(&mut self) {
        let mut spare = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        let octets = spare.len() * self.octets.capacity();
        if octets < SPARE_OCTETS_MAX {
            spare.push(std::mem::take(&mut self.octets));
        }
    }
}

/// Memory of blocks that are gone, for those to come: fresh memory costs a page fault every 4 KiB,
/// which takes longer than to read them.
#[derive(Debug, Default)]
struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// Room for so many octets, of any value.
    fn take(home: &Arc<Self>, octets: usize) -> Symbols {
        let used = home.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = used.unwrap_or_default();
        buffer.resize(octets, 0);
        Symbols { octets: buffer, home: Arc::clone(home) }
    }
}

/// Runs a job on a block and turns its panic into an error.
fn contained<T>(block: BlockId, job: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // Jobs share nothing that a panic could leave half done.
    catch_unwind(AssertUnwindSafe(job))
        .unwrap_or_else(|panic| Err(internal(block, panic_text(panic.as_ref()).to_owned())))
}

fn internal(block: BlockId, reason: String) -> Error {
    Error::Internal { task: format!("prepare {block}"), reason }
}

/// What a link of 1 Gbit/s carries until the needs for a block have come back. After that the
/// kernel's page cache serves, at the price of hashing again.
const RECENT_OCTETS_MAX: usize = 16 << 20;
/// Those that are interleaved on the wire.
const RECENT_BLOCKS_MIN: usize = 4;
/// Looking through more takes longer than it saves.
const RECENT_BLOCKS_MAX: usize = 16;
/// More is hardly ever given back at once while other blocks are read.
const SPARE_OCTETS_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;
    use std::sync::mpsc::channel;

    use imgcast_common::fec::padded_symbols;

    use super::*;
    use crate::image::build_index;
    use crate::image::testing::{TestDir, random_bytes};

    const SYMBOL_SIZE: u16 = 64;
    const BLOCK_SIZE: usize = 1 << 12;
    /// 40 whole blocks, one of 1,000 octets.
    const IMAGE_LEN: usize = 40 * BLOCK_SIZE + 1000;

    struct Bench {
        path: PathBuf,
        image: Vec<u8>,
        index_bytes: Arc<Vec<u8>>,
        preparer: Preparer,
        _dir: TestDir,
    }

    impl Bench {
        fn new(name: &str) -> Self {
            let dir = TestDir::new(name);
            let image = random_bytes(5, IMAGE_LEN);
            let path = dir.file("image", &image);
            let source = Arc::new(ImageSource::open(&path).unwrap());
            let layout = Layout::new(source.bytes(), 12, SYMBOL_SIZE).unwrap();
            let index = Arc::new(build_index(&source, &layout, 2, |_| ()).unwrap());
            let index_bytes = Arc::new(index.to_bytes());
            let bytes = Arc::clone(&index_bytes);
            let preparer = Preparer::new(source, index, bytes, layout, 2, 4).unwrap();
            Self { path, image, index_bytes, preparer, _dir: dir }
        }

        fn prepare(
            &self,
            block: BlockId,
            first: u32,
            repairs: u32,
        ) -> Result<PreparedBlock, Error> {
            let (results, received) = channel();
            let first_repair = EncodingSymbolId::new(first).unwrap();
            let request = TurnRequest { turn: 77, block, first_repair, repairs };
            self.preparer.prepare(request, move |prepared| results.send(prepared).unwrap());
            let prepared = received.recv().unwrap();
            assert_eq!(prepared.turn, 77);
            prepared.block
        }

        /// Bends the first octet of an image block.
        fn write_to(&self, number: usize) {
            let file = OpenOptions::new().write(true).open(&self.path).unwrap();
            let offset = number * BLOCK_SIZE;
            file.write_all_at(&[!self.image[offset]], offset as u64).unwrap();
        }
    }

    /// Compares all symbols of a turn of `repairs` repair symbols from ESI `first` on.
    fn assert_symbols(prepared: &PreparedBlock, stored: &[u8], first: u32, repairs: u32) {
        let esi = |number| EncodingSymbolId::new(number).unwrap();
        let shape = BlockShape::new(u32::try_from(stored.len()).unwrap(), SYMBOL_SIZE).unwrap();
        assert_eq!(prepared.shape(), &shape);
        for number in 0..shape.source_symbols() {
            let mut expected = stored[shape.symbol_range(esi(number)).unwrap()].to_vec();
            expected.resize(SYMBOL_SIZE.into(), 0);
            assert_eq!(prepared.symbol(esi(number)), Some(expected.as_slice()), "ESI {number}");
        }
        let expected = repair_symbols(&shape, stored, esi(first), repairs).unwrap();
        let mut number = first;
        for symbol in expected.chunks(SYMBOL_SIZE.into()) {
            assert_eq!(prepared.symbol(esi(number)), Some(symbol), "ESI {number}");
            number += 1;
        }
        assert_eq!(number, first + repairs);
        let none = [shape.source_symbols(), first.saturating_sub(1).max(64), number, 0xff_ffff];
        assert!(none.iter().all(|number| prepared.symbol(esi(*number)).is_none()));
    }

    #[test]
    fn a_turn_has_the_source_symbols_and_the_repair_symbols_asked_for() {
        let bench = Bench::new("preparer-turn");
        let last = u32::try_from(IMAGE_LEN / BLOCK_SIZE).unwrap();
        for (number, repairs) in [(0, 3), (7, 1), (last, 5), (last, 2)] {
            let first = 8_000_000 + number;
            let prepared = bench.prepare(BlockId::image(number), first, repairs).unwrap();
            let start = number as usize * BLOCK_SIZE;
            let stored = &bench.image[start..(start + BLOCK_SIZE).min(IMAGE_LEN)];
            assert_symbols(&prepared, stored, first, repairs);
        }
    }

    #[test]
    fn a_turn_without_repair_symbols_needs_no_esi() {
        let bench = Bench::new("preparer-none");
        let prepared = bench.prepare(BlockId::image(1), 0, 0).unwrap();
        assert!(prepared.symbol(EncodingSymbolId::new(63).unwrap()).is_some());
        assert!(prepared.symbol(EncodingSymbolId::new(64).unwrap()).is_none());
    }

    #[test]
    fn index_blocks_are_slices_of_the_index() {
        let bench = Bench::new("preparer-index");
        assert_eq!(bench.index_bytes.len(), 41 * 32 + 6);
        let first = padded_symbols(21).unwrap();
        let prepared = bench.prepare(BlockId::index(0), first, 4).unwrap();
        assert_symbols(&prepared, &bench.index_bytes, first, 4);
        assert_eq!(bench.prepare(BlockId::index(1), first, 4).unwrap_err().code(), "internal");
    }

    #[test]
    fn an_image_that_changes_is_noticed_with_path_and_offset() {
        let bench = Bench::new("preparer-changed");
        bench.write_to(3);
        assert!(bench.prepare(BlockId::image(2), 8_000_000, 1).is_ok());
        let error = bench.prepare(BlockId::image(3), 8_000_000, 1).unwrap_err();
        let Error::ImageChanged { path, offset } = &error else { panic!("{error}") };
        assert_eq!((path, *offset), (&bench.path, 3 * BLOCK_SIZE as u64));
        OpenOptions::new().write(true).open(&bench.path).unwrap().set_len(5000).unwrap();
        let error = bench.prepare(BlockId::image(40), 8_000_000, 1).unwrap_err();
        assert!(matches!(error, Error::ImageTruncated { bytes_now: 5000, .. }), "{error}");
    }

    #[test]
    fn a_block_prepared_just_now_is_neither_read_nor_hashed_again() {
        let bench = Bench::new("preparer-recent");
        let prepare = |number, repairs| bench.prepare(BlockId::image(number), 8_000_000, repairs);
        prepare(0, 0).unwrap();
        bench.write_to(0);
        let repair = prepare(0, 2).unwrap();
        assert_symbols(&repair, &bench.image[..BLOCK_SIZE], 8_000_000, 2);
        for number in 1..=40 {
            prepare(number, 0).unwrap();
        }
        assert_eq!(prepare(0, 2).unwrap_err().code(), "image-changed", "no longer recent");
    }

    #[test]
    fn impossible_requests_and_panics_come_back_as_errors() {
        let bench = Bench::new("preparer-impossible");
        for (block, first) in [
            (BlockId::image(41), 8_000_000),
            (BlockId::image(u32::MAX), 8_000_000),
            (BlockId::image(0), 5),
            (BlockId::image(0), EncodingSymbolId::END - 1),
        ] {
            let error = bench.prepare(block, first, 2).unwrap_err();
            assert_eq!(error.code(), "internal");
            assert!(error.to_string().contains(&block.to_string()), "{error}");
        }
        let job = || -> Result<(), Error> { panic!("planned panic {}", 1) };
        let error = contained(BlockId::image(9), job).unwrap_err();
        assert!(error.to_string().contains("cannot prepare block 9: planned panic 1"), "{error}");
        assert!(bench.prepare(BlockId::image(0), 8_000_000, 1).is_ok());
    }

    #[test]
    fn all_turns_are_delivered_before_the_preparer_is_gone() {
        let bench = Bench::new("preparer-all");
        let (results, received) = channel();
        for turn in 0..82 {
            let block = BlockId::image(u32::try_from(turn % 41).unwrap());
            let first_repair = EncodingSymbolId::new(1 << 23).unwrap();
            let results = results.clone();
            let request = TurnRequest { turn, block, first_repair, repairs: 1 };
            bench.preparer.prepare(request, move |prepared| results.send(prepared).unwrap());
        }
        drop((results, bench.preparer));
        let mut turns: Vec<u64> = received.iter().map(|prepared| prepared.turn).collect();
        turns.sort_unstable();
        assert!(turns.into_iter().eq(0..82));
    }
}
