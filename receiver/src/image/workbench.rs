//! Where blocks are decoded and judged, on all cores.
//!
//! Every answer travels by the closure that came with the question, on a thread of the pool. A
//! wrong block is a fact to report here; what to do about it is the session's business.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use imgcast_common::fec::{FecError, Received, Undecoded};
use imgcast_common::id::{BlockId, Stream};
use imgcast_common::layout::Layout;
use imgcast_common::pool::{Pool, panic_text};
use imgcast_common::tree::Index;

use super::rate::{DrainRate, now};
use super::writer::lock;
use crate::error::Error;

/// Threads that decode and hash. Dropping it waits for the blocks that are queued, not for all
/// zero blocks.
#[derive(Debug)]
pub struct Workbench {
    pool: Arc<Pool>,
    rate: Arc<Mutex<DrainRate>>,
    is_closed: Arc<AtomicBool>,
}

impl Workbench {
    /// Starts so many threads. Up to `queue_max` blocks wait; as many as may be in memory, and
    /// nobody ever waits for room.
    ///
    /// # Errors
    /// [`Error::System`] if there are no threads to be had.
    pub fn new(threads: usize, queue_max: usize) -> Result<Self, Error> {
        let pool = Pool::new("decode", threads, queue_max)
            .map_err(|source| Error::System { action: "start the decoder threads", source })?;
        Ok(Self { pool: Arc::new(pool), rate: Arc::default(), is_closed: Arc::default() })
    }

    /// How many threads it has.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Decodes `block` of the stream that is cut by `layout`, if it needs that, and verifies it
    /// against `index`. Blocks of the index itself need none and are delivered unverified.
    pub fn check(
        &self,
        block: BlockId,
        received: Received,
        index: Option<Arc<Index>>,
        layout: Layout,
        deliver: impl FnOnce(BlockId, Checked) + Send + 'static,
    ) {
        let (rate, threads) = (Arc::clone(&self.rate), self.pool.threads());
        self.pool.submit(move || {
            let start = now();
            let judged =
                catch_unwind(AssertUnwindSafe(|| judge(block, received, index.as_deref(), layout)));
            let checked = judged.unwrap_or_else(|panic| Checked::Failed {
                text: format!("checking {block} panicked: {}", panic_text(panic.as_ref())),
            });
            let octets = match &checked {
                Checked::Whole { bytes } if block.stream == Stream::Image => bytes.len() as u64,
                _ => 0,
            };
            // All threads together are so many times as fast as one.
            let took = now().duration_since(start) / u32::try_from(threads).unwrap_or(u32::MAX);
            lock(&rate).note(octets, took);
            deliver(block, checked);
        });
    }

    /// How fast blocks are decoded and verified when there is no lack of them, in kB/s; 0 while
    /// nothing is known.
    #[must_use]
    pub fn kilobytes_per_second(&self) -> u32 {
        lock(&self.rate).kilobytes_per_second()
    }

    /// Makes so many buffers in the background, each handed to `deliver` once its memory is there:
    /// the kernel clears each page when it is first written to, and would do so while symbols
    /// arrive. Nobody waits for it: of 16 receivers on two cores it takes a tenth of a second.
    pub fn touch(&self, buffers: usize, octets: usize, deliver: impl Fn(Vec<u8>) + Send + 'static) {
        if buffers > 0 {
            self.pool.submit(move || (0..buffers).for_each(|_| deliver(vec![TOUCHED; octets])));
        }
    }

    /// Checks, batch by batch in the background, those of `blocks` that `index` calls zero.
    /// `deliver` is called on several threads, once for each batch, in no certain order, and not
    /// at all if there is none. Between two batches other blocks have their turn.
    ///
    /// # Errors
    /// [`Error::System`] if there is no thread to be had.
    pub fn check_zero(
        &self,
        blocks: Range<u32>,
        index: Arc<Index>,
        layout: Layout,
        deliver: impl Fn(ZeroBatch) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let zero = index.zero().iter().filter(|number| blocks.contains(number));
        let zero: Vec<u32> = zero.collect();
        let per_batch = (ZERO_BATCH_BYTES / layout.block_size()).max(1);
        let per_batch = usize::try_from(per_batch).unwrap_or(usize::MAX);
        let (pool, is_closed) = (Arc::clone(&self.pool), Arc::clone(&self.is_closed));
        let deliver = Arc::new(deliver);
        let feed = move || {
            let (done, is_done) = sync_channel(pool.threads());
            for (batch, number) in zero.chunks(per_batch).zip(0usize..) {
                if number >= pool.threads() && is_done.recv().is_err() {
                    return;
                }
                if is_closed.load(Ordering::Relaxed) {
                    return;
                }
                let (batch, index, deliver) =
                    (batch.to_vec(), Arc::clone(&index), Arc::clone(&deliver));
                let turn = Turn(done.clone());
                pool.submit(move || {
                    deliver(judge_zero(batch, &index, layout));
                    drop(turn);
                });
            }
        };
        let builder = thread::Builder::new().name("zero-blocks".into());
        let spawned = builder.spawn(feed);
        spawned.map_err(|source| Error::System { action: "start a thread", source })?;
        Ok(())
    }
}

impl Drop for Workbench {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

/// What became of a block.
#[derive(Debug)]
pub enum Checked {
    /// It is complete, and right as far as that can be told.
    Whole {
        /// The block.
        bytes: Vec<u8>,
    },
    /// Its symbols do not determine it; more will.
    TooFew {
        /// The symbols, as they were.
        received: Received,
    },
    /// It is complete and wrong.
    Corrupt {
        /// Its memory, for another block.
        buffer: Vec<u8>,
    },
    /// It could not be judged; its symbols are gone.
    Failed {
        /// Why.
        text: String,
    },
}

/// Zero blocks that were checked together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ZeroBatch {
    /// Those that are zero indeed, ascending.
    pub matching: Vec<u32>,
    /// Those whose value says otherwise, ascending: they have to be fetched.
    pub wrong: Vec<u32>,
}

/// A batch in the pool; the next may follow when it is gone, even by a panic.
struct Turn(SyncSender<()>);

impl Drop for Turn {
    fn drop(&mut self) {
        // There is room for as many as are under way.
        let _ = self.0.try_send(());
    }
}

fn judge(block: BlockId, received: Received, index: Option<&Index>, layout: Layout) -> Checked {
    let bytes = match received.decode() {
        Ok(bytes) => bytes,
        Err(Undecoded { error: FecError::TooFew { .. }, received }) => {
            return Checked::TooFew { received: *received };
        }
        Err(Undecoded { error, .. }) => {
            return Checked::Failed { text: format!("decoding {block} failed: {error}") };
        }
    };
    let is_right = match (block.stream, index) {
        (Stream::Index, _) => bytes.len() == layout.block_len(block.number) as usize,
        (Stream::Image, Some(index)) => index.verify(&layout, block.number, &bytes),
        (Stream::Image, None) => {
            return Checked::Failed { text: format!("{block} came before the index") };
        }
    };
    if is_right { Checked::Whole { bytes } } else { Checked::Corrupt { buffer: bytes } }
}

/// A batch whose check panics counts as wrong: its blocks are fetched.
fn judge_zero(batch: Vec<u32>, index: &Index, layout: Layout) -> ZeroBatch {
    let judged =
        catch_unwind(|| batch.iter().partition(|number| index.verify_zero(&layout, **number)));
    match judged {
        Ok((matching, wrong)) => ZeroBatch { matching, wrong },
        Err(_) => ZeroBatch { matching: Vec::new(), wrong: batch },
    }
}

/// Anything but zero, of which the kernel would promise pages and make none.
const TOUCHED: u8 = 1;
/// Some milliseconds of hashing: a decode that is queued behind it waits no longer.
const ZERO_BATCH_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use imgcast_common::bits::BitSet;
    use imgcast_common::fec::{BlockShape, repair_symbols};
    use imgcast_common::id::EncodingSymbolId;
    use imgcast_common::prng::Prng;
    use imgcast_common::tree::{BlockDigest, IndexBuilder};

    use super::*;

    struct World {
        layout: Layout,
        image: Vec<u8>,
        index: Arc<Index>,
    }

    impl World {
        /// An image of four blocks of 16 KiB, the last one odd.
        fn new() -> Self {
            let mut image = vec![0; 3 * 16_384 + 777];
            Prng::new(1).fill(&mut image);
            let layout = Layout::new(image.len() as u64, 14, 1024).unwrap();
            let mut builder = IndexBuilder::new(4);
            for number in 0..4 {
                let block = &image[number as usize * 16_384..][..layout.block_len(number) as usize];
                builder.insert(number, BlockDigest::of(&layout, number, block).unwrap());
            }
            Self { layout, image, index: Arc::new(builder.finish().unwrap()) }
        }

        fn block(&self, number: u32) -> &[u8] {
            &self.image[number as usize * 16_384..][..self.layout.block_len(number) as usize]
        }

        /// Source symbols from `skipped` on, and `repairs` repair symbols.
        fn received(&self, number: u32, skipped: u32, repairs: u32) -> Received {
            let block = self.block(number);
            let shape = BlockShape::new(self.layout.block_len(number), 1024).unwrap();
            let mut received = Received::new(shape, Vec::new());
            for value in skipped..shape.source_symbols() {
                let esi = EncodingSymbolId::new(value).unwrap();
                let mut symbol = block[shape.symbol_range(esi).unwrap()].to_vec();
                symbol.resize(1024, 0);
                received.insert(esi, &symbol);
            }
            let first = EncodingSymbolId::new(shape.padded_symbols() + 7).unwrap();
            let symbols = repair_symbols(&shape, block, first, repairs).unwrap();
            for (symbol, value) in symbols.chunks(1024).zip(first.get()..) {
                received.insert(EncodingSymbolId::new(value).unwrap(), symbol);
            }
            received
        }

        fn check(&self, block: BlockId, received: Received, index: Option<Arc<Index>>) -> Checked {
            let (reports, checked) = channel();
            let workbench = Workbench::new(2, 4).unwrap();
            workbench.check(block, received, index, self.layout, move |block, checked| {
                let _ = reports.send((block, checked));
            });
            let (answered, checked) = checked.recv().unwrap();
            assert_eq!(answered, block);
            let is_of_use =
                block.stream == Stream::Image && matches!(checked, Checked::Whole { .. });
            assert_eq!(workbench.kilobytes_per_second() > 0, is_of_use);
            checked
        }

        fn check_image(&self, number: u32, received: Received) -> Checked {
            self.check(BlockId::image(number), received, Some(Arc::clone(&self.index)))
        }
    }

    #[test]
    fn buffers_are_made_in_the_background_as_many_and_as_long_as_asked_for() {
        let (buffers, made) = channel();
        let workbench = Workbench::new(1, 4).unwrap();
        workbench.touch(0, 10, |_| panic!("none was asked for"));
        workbench.touch(3, 1000, move |buffer| buffers.send(buffer).unwrap());
        drop(workbench);
        let made: Vec<Vec<u8>> = made.iter().collect();
        assert_eq!((made.len(), made.iter().all(|buffer| buffer.len() == 1000)), (3, true));
    }

    #[test]
    fn complete_and_decoded_blocks_are_whole() {
        let world = World::new();
        for number in 0..4 {
            for (skipped, repairs) in [(0, 0), (1, 4)] {
                let checked = world.check_image(number, world.received(number, skipped, repairs));
                let Checked::Whole { bytes } = checked else { panic!("{checked:?}") };
                assert!(bytes == world.block(number), "block {number}");
            }
        }
    }

    #[test]
    fn too_few_symbols_come_back_as_they_were() {
        let world = World::new();
        let received = world.received(1, 3, 1);
        let known = received.known();
        let checked = world.check_image(1, received);
        let Checked::TooFew { received } = checked else { panic!("{checked:?}") };
        assert_eq!(received.known(), known);
    }

    #[test]
    fn a_block_with_false_symbols_or_in_another_place_is_corrupt() {
        let world = World::new();
        let shape = BlockShape::new(16_384, 1024).unwrap();
        let mut polluted = Received::new(shape, Vec::new());
        polluted.insert(EncodingSymbolId::new(0).unwrap(), &[0x66; 1024]);
        for value in 1..16 {
            let symbol = &world.block(0)[value as usize * 1024..][..1024];
            polluted.insert(EncodingSymbolId::new(value).unwrap(), symbol);
        }
        let checked = world.check_image(0, polluted);
        let Checked::Corrupt { buffer } = checked else { panic!("{checked:?}") };
        assert!(buffer.capacity() >= 16_384);
        let elsewhere = world.check_image(2, world.received(1, 0, 0));
        assert!(matches!(elsewhere, Checked::Corrupt { .. }));
        let too_short = world.check_image(1, world.received(3, 0, 0));
        assert!(matches!(too_short, Checked::Corrupt { .. }));
    }

    #[test]
    fn index_blocks_are_only_measured_and_image_blocks_never_go_unjudged() {
        let world = World::new();
        let checked = world.check(BlockId::index(1), world.received(2, 0, 0), None);
        assert!(matches!(checked, Checked::Whole { .. }), "any 16 KiB will do");
        let checked = world.check(BlockId::index(1), world.received(3, 0, 0), None);
        assert!(matches!(checked, Checked::Corrupt { .. }), "block 1 is longer");
        let checked = world.check(BlockId::image(1), world.received(1, 0, 0), None);
        let Checked::Failed { text } = checked else { panic!("{checked:?}") };
        assert_eq!(text, "block 1 came before the index");
    }

    /// Checks the zero blocks of an image of `blocks` blocks of 1 MiB, `false_ones` of which are
    /// not zero.
    fn check_zero(blocks: u32, false_ones: &[u32], range: Range<u32>) -> Vec<ZeroBatch> {
        let layout = Layout::new(u64::from(blocks) << 20, 20, 1024).unwrap();
        let mut builder = IndexBuilder::new(blocks);
        let zeroes = vec![0; 1 << 20];
        for number in 0..blocks {
            builder.insert(number, BlockDigest::of(&layout, number, &zeroes).unwrap());
        }
        let honest = builder.finish().unwrap();
        let mut values: Vec<_> = (0..blocks).map(|it| *honest.value(it).unwrap()).collect();
        for number in false_ones {
            values[*number as usize] = [9; 32];
        }
        let mut zero = BitSet::full(blocks);
        zero.remove(2);
        let index = Arc::new(Index::new(values, zero).unwrap());
        let (reports, batches) = channel();
        let workbench = Workbench::new(2, 1).unwrap();
        let deliver = move |batch| drop(reports.send(batch));
        workbench.check_zero(range, index, layout, deliver).unwrap();
        // Kept alive until the last batch: without a workbench no more are begun.
        let batches = batches.iter().collect();
        drop(workbench);
        batches
    }

    #[test]
    fn zero_blocks_are_checked_in_batches_and_false_ones_found() {
        let batches = check_zero(100, &[5, 99], 0..100);
        assert_eq!(batches.len(), 7, "99 blocks, 16 in a batch");
        let mut matching: Vec<u32> = batches.iter().flat_map(|it| it.matching.clone()).collect();
        let mut wrong: Vec<u32> = batches.into_iter().flat_map(|it| it.wrong).collect();
        matching.sort_unstable();
        wrong.sort_unstable();
        assert!(matching.into_iter().eq((0..99).filter(|number| ![2, 5].contains(number))));
        assert_eq!(wrong, [5, 99]);
    }

    #[test]
    fn only_the_zero_blocks_asked_for_are_checked() {
        let batches = check_zero(8, &[3], 1..4);
        assert_eq!(batches, [ZeroBatch { matching: vec![1], wrong: vec![3] }]);
        assert_eq!(check_zero(8, &[], 2..3), [], "block 2 has data");
    }
}
