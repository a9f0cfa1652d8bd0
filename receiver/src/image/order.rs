//! The order of writes: a disk that is half written must never boot nor be mistaken for the old
//! one. On a device the first and the last block, which hold partition tables, are zeroed at the
//! start and written last, and of them last of all what makes a disk look like one:
//!
//! ```text
//! zeroes over the first block | flush | over the last one | flush | blocks between | flush
//! last block, first block but its beginning | flush | the beginning of the first block | flush
//! ```
//!
//! A file gets its name last and needs none of this.
//!
//! What a failed fsync has dropped from the page cache, a second one does not bring back: blocks
//! that were not written, flushed or kept are reported as lost, to be fetched again. A failed flush
//! may mean whatever was written since the last one that worked began, up to its own end. What is
//! flushed goes into the journal, and nothing before; the ends of a device never do.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use imgcast_common::layout::Layout;
use imgcast_common::sectors::SectorSize;
use imgcast_common::tree::Index;
use nix::errno::Errno;

use super::books::Books;
use super::direct::Bounce;
use super::finish::BEGINNING_OCTETS;
use super::flusher::{Flusher, Window};
use super::journal::Journal;
use super::medium::{Flush, Medium};
use super::rate::{TargetRate, now};
use super::writer::{Written, lock};
use crate::error::Error;

/// What all threads that write have to agree on.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) layout: Layout,
    pub(super) is_device: bool,
    pub(super) read_back: Option<Arc<Index>>,
    /// A flush is begun whenever so much is written.
    pub(super) window_bytes: u64,
    /// What of the first block is written last.
    pub(super) beginning_octets: usize,
    pub(super) books: Mutex<Books>,
    /// Held by the thread that flushes, and by whoever zeroes the ends of a device.
    flushing: Mutex<()>,
    rate: Mutex<TargetRate>,
    drain_kilobytes_per_second: AtomicU32,
    /// Blocks that were read back and are right, while that goes on.
    pub(super) proved_blocks: AtomicU32,
}

/// Where blocks go. Dropped in this order, as the thread that flushes holds the target open.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) flusher: Flusher,
    pub(super) medium: Box<dyn Medium>,
}

/// What is to be known of a transfer beyond its end, or before it counts as ended.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Where to note what is on disk.
    pub(super) journal: Option<Journal>,
    /// What everything is to be compared with once it is on disk.
    pub(super) read_back: Option<Arc<Index>>,
}

impl Order {
    /// Nothing is written yet.
    pub(super) fn new(layout: Layout, is_device: bool, keeping: Keeping) -> Self {
        Self {
            layout,
            is_device,
            read_back: keeping.read_back,
            window_bytes: WINDOW_BYTES,
            beginning_octets: BEGINNING_OCTETS,
            books: Mutex::new(Books::new(layout.blocks(), is_device, keeping.journal)),
            flushing: Mutex::default(),
            rate: Mutex::default(),
            drain_kilobytes_per_second: AtomicU32::new(0),
            proved_blocks: AtomicU32::new(0),
        }
    }

    /// Writes a verified block, through the memory of the thread that does it, or keeps it for the
    /// end; waits if the disk lags behind.
    pub(super) fn write(
        &self,
        output: &Output,
        number: u32,
        bytes: Vec<u8>,
        bounce: &mut Bounce,
    ) -> Result<Written, Error> {
        if bytes.is_empty() || bytes.len() != self.layout.block_len(number) as usize {
            let text = format!("block {number} was to be written with {} octets", bytes.len());
            return Err(Error::Internal { text });
        }
        if self.is_device {
            let mut books = lock(&self.books);
            if books.ends.has(number) {
                if number == 0 {
                    // Announced it was, but only now it is known.
                    output.medium.check_sectors(SectorSize::of_gpt(&bytes))?;
                }
                books.store(number);
                books.ends.hold(number, bytes);
                return Ok(Written::Stored { number, buffer: None });
            }
        }
        if let Err(error) = self.shield(output) {
            return lock(&self.books).lose_window_and(vec![number], Some(bytes), error);
        }
        lock(&self.rate).begin(now());
        let written = self.put(output, number, bytes, bounce);
        // A wait for the disk is the disk's time, too.
        let rate = &mut lock(&self.rate);
        rate.end(now(), u64::from(self.layout.block_len(number)));
        self.publish(rate);
        written
    }

    fn put(
        &self,
        output: &Output,
        number: u32,
        bytes: Vec<u8>,
        bounce: &mut Bounce,
    ) -> Result<Written, Error> {
        let offset = self.layout.block_range(number).start;
        let failed_before = lock(&self.books).failed_flushes;
        let written = output.medium.write(&bytes, offset, bounce);
        let mut books = lock(&self.books);
        if let Err(error) = written {
            return books.lose(vec![number], Some(bytes), error);
        }
        if books.failed_flushes != failed_before {
            // That flush may have been told of these octets, and nobody will be again.
            let error = books.flush_error(output.medium.path(), Errno::EIO.into());
            return books.lose(vec![number], Some(bytes), error);
        }
        books.store(number);
        books.window.blocks.push(number);
        books.note(offset, bytes.len());
        if books.window.octets >= self.window_bytes {
            begin_flush(output, books)?;
        }
        Ok(Written::Stored { number, buffer: Some(bytes) })
    }

    /// All that was found has been stored: once that is on disk, the journal tells everything.
    pub(super) fn end_search(&self, output: &Output) -> Result<(), Error> {
        let mut books = lock(&self.books);
        if books.journal.is_none() {
            return Ok(());
        }
        books.window.ends_search = true;
        begin_flush(output, books)
    }

    /// A block was found to be there.
    pub(super) fn find(&self, number: u32) -> Written {
        let mut books = lock(&self.books);
        books.store(number);
        // It may be on its way to the disk only.
        books.window.blocks.push(number);
        Written::Stored { number, buffer: None }
    }

    /// Makes a run of blocks read as zeroes.
    pub(super) fn zero(&self, output: &Output, blocks: Range<u32>) -> Result<Written, Error> {
        let all = blocks.start..blocks.end.min(self.layout.blocks());
        let mut rest = all.clone();
        if self.is_device {
            rest = lock(&self.books).ends.zero(&rest);
        }
        if rest.is_empty() {
            all.for_each(|number| lock(&self.books).store(number));
            return Ok(Written::Zeroed { blocks });
        }
        if let Err(error) = self.shield(output) {
            return lock(&self.books).lose_window_and(all.collect(), None, error);
        }
        let failed_before = lock(&self.books).failed_flushes;
        let last = self.layout.block_range(rest.end - 1);
        let zeroed = output.medium.zero(self.layout.block_range(rest.start).start..last.end);
        let mut books = lock(&self.books);
        let error = match zeroed {
            Err(error) => Some(error),
            Ok(()) if books.failed_flushes != failed_before => {
                Some(books.flush_error(output.medium.path(), Errno::EIO.into()))
            }
            Ok(()) => None,
        };
        if let Some(error) = error {
            return books.lose(all.collect(), None, error);
        }
        books.window.zeroed.push(rest);
        all.for_each(|number| books.store(number));
        Ok(Written::Zeroed { blocks })
    }

    /// A window was flushed, or was not; what has to be reported of it.
    pub(super) fn note_flush(
        &self,
        path: &Path,
        window: Window,
        result: io::Result<()>,
        took: Duration,
    ) -> Option<Result<Written, Error>> {
        let mut books = lock(&self.books);
        match result {
            Ok(()) if window.failed_flushes != books.failed_flushes => {
                // The flush before failed while this window waited, and took its error along.
                Some(books.lose_along(path, window))
            }
            Ok(()) => {
                let octets = window.octets;
                books.keep(window);
                drop(books);
                let rate = &mut lock(&self.rate);
                rate.note_flush(octets, took);
                self.publish(rate);
                None
            }
            Err(source) => Some(books.lose_window(path, window, source)),
        }
    }

    /// Puts what is whole into its place.
    pub(super) fn commit(&self, output: Output, written_bytes: u64) -> Result<Written, Error> {
        let Output { flusher, medium } = output;
        drop(flusher);
        medium.commit()?;
        if let Some(journal) = lock(&self.books).journal.take() {
            journal.remove();
        }
        Ok(Written::Flushed { written_bytes })
    }

    /// Has nothing on a device that looks like a disk, before anything else changes there.
    fn shield(&self, output: &Output) -> Result<(), Error> {
        // Whoever comes second waits.
        let mut books = lock(&self.books);
        if books.is_shielded() {
            return Ok(());
        }
        // An error that is told to the other thread would be one of these zeroes.
        let _turn = lock(&self.flushing);
        books.shield(&*output.medium, &self.layout)
    }

    /// Flushes, for the thread that does.
    pub(super) fn flush_by(&self, flush: &mut Flush) -> io::Result<()> {
        let _turn = lock(&self.flushing);
        flush()
    }

    /// How fast the target takes data, flushes included, in kB/s; 0 while nothing is known.
    pub(super) fn drain_kilobytes_per_second(&self) -> u32 {
        self.drain_kilobytes_per_second.load(Ordering::Relaxed)
    }

    fn publish(&self, rate: &TargetRate) {
        let rate = rate.kilobytes_per_second();
        self.drain_kilobytes_per_second.store(rate, Ordering::Relaxed);
    }
}

/// Hands over what was written since the last time.
fn begin_flush(output: &Output, mut books: MutexGuard<'_, Books>) -> Result<(), Error> {
    let mut window = std::mem::take(&mut books.window);
    window.failed_flushes = books.failed_flushes;
    drop(books);
    if output.flusher.begin(window) {
        return Ok(());
    }
    Err(Error::Internal { text: "the thread that flushes has ended".into() })
}

/// A flush is begun whenever so much is written, and as much more may be written meanwhile: a disk
/// that makes 100 MB/s has two thirds of a second to go when the last block comes. Measured: 64
/// MiB are no faster, and each halving below this is slower.
const WINDOW_BYTES: u64 = 32 << 20;
