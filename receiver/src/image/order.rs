//! The order of writes: a disk that is half written must never boot nor be mistaken for the old
//! one. On a device the first and the last block, which hold partition tables, are zeroed before
//! anything else changes there, and written last, and of them last of all what makes a disk look
//! like one:
//!
//! ```text
//! zeroes over the first block | flush | over the last one | flush | blocks between | flush
//! last block, first block but its beginning | flush | the beginning of the first block | flush
//! ```
//!
//! Whoever resumes looks at both ends before that: they need not be fetched. If all of the image is
//! found there nothing is zeroed or written, and at any time it is the whole disk that it was;
//! unless a flush fails, which may mean any of it. A block that comes, since others lack it, before
//! it was looked for is written like any other.
//!
//! A file gets its name last and needs none of this.
//!
//! What a failed fsync has dropped from the page cache, a second one does not bring back: blocks
//! that were not written, flushed or kept are reported as lost, to be fetched again. A failed flush
//! may mean whatever was written since the last one that worked began, up to its own end; where
//! nothing was, there is nothing to flush. What is flushed goes into the journal, and nothing
//! before; the ends of a device never do.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
use super::zeroes;
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
    /// Whether a device may have all of the image, so that nothing is to be written.
    may_be_whole: Arc<AtomicBool>,
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
    /// Whether the target is looked at for all of the image.
    pub(super) may_be_whole: bool,
}

impl Order {
    /// Nothing is written yet.
    pub(super) fn new(layout: Layout, is_device: bool, keeping: Keeping) -> Self {
        let may_be_whole = Arc::new(AtomicBool::new(is_device && keeping.may_be_whole));
        let told = Arc::clone(&may_be_whole);
        Self {
            layout,
            is_device,
            read_back: keeping.read_back,
            window_bytes: WINDOW_BYTES,
            beginning_octets: BEGINNING_OCTETS,
            books: Mutex::new(Books::new(layout.blocks(), is_device, told, keeping.journal)),
            may_be_whole,
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
        if self.is_device && lock(&self.books).ends.has(number) {
            return self.hold(output, number, bytes, false);
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

    /// Keeps an end of a device, which has it already if it is `in_place`.
    pub(super) fn hold(
        &self,
        output: &Output,
        number: u32,
        bytes: Vec<u8>,
        in_place: bool,
    ) -> Result<Written, Error> {
        if number == 0 {
            // Announced it was, but only now it is known.
            output.medium.check_sectors(SectorSize::of_gpt(&bytes))?;
        }
        let mut books = lock(&self.books);
        books.store(number);
        if in_place {
            // It may be on its way to the disk only.
            books.window.blocks.push(number);
            books.ends.find(number, bytes);
        } else {
            books.ends.hold(number, bytes);
        }
        Ok(Written::Stored { number, buffer: None })
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
        let (failed_before, was_lost) = {
            let books = lock(&self.books);
            (books.failed_flushes, books.losses.have_any_of(&rest))
        };
        let last = self.layout.block_range(rest.end - 1);
        let range = self.layout.block_range(rest.start).start..last.end;
        let is_zero = self.may_be_whole()
            && reads_as_zero(&*output.medium, range.clone(), || self.may_be_whole());
        if !is_zero && let Err(error) = self.shield(output) {
            return lock(&self.books).lose_window_and(all.collect(), None, error);
        }
        let zeroed = if is_zero { Ok(()) } else { output.medium.zero(range, was_lost) };
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

    /// Something of the image is not on the target: it will be written to.
    pub(super) fn lacks_something(&self) {
        self.may_be_whole.store(false, Ordering::Relaxed);
    }

    /// Whether all of the image may be there.
    pub(super) fn may_be_whole(&self) -> bool {
        self.may_be_whole.load(Ordering::Relaxed)
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
            Ok(()) if window.is_empty() => {
                books.end_search(&window);
                None
            }
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

/// Whether a range reads as zeroes, as far as that was of interest.
pub(super) fn reads_as_zero(
    medium: &dyn Medium,
    range: Range<u64>,
    is_of_interest: impl Fn() -> bool,
) -> bool {
    let mut octets = vec![0; READ_OCTETS];
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(READ_OCTETS as u64);
        let piece = &mut octets[..usize::try_from(len).unwrap_or(READ_OCTETS)];
        if !is_of_interest() || medium.read(piece, at).is_err() || !zeroes::are_zero(piece) {
            return false;
        }
        at += len;
    }
    true
}

/// Enough to keep a disk busy, and little enough to be given up soon.
const READ_OCTETS: usize = 1 << 20;

/// A flush is begun whenever so much is written, and as much more may be written meanwhile: a disk
/// that makes 100 MB/s has two thirds of a second to go when the last block comes. Measured: 64
/// MiB are no faster, and each halving below this is slower.
const WINDOW_BYTES: u64 = 32 << 20;
