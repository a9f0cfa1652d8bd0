//! The order of writes: a disk that is half written must never boot nor be mistaken for the old
//! one. On a device the first and the last block, which hold partition tables, are zeroed at the
//! start and written last, and of them last of all what makes a disk look like one:
//!
//! ```text
//! zeroes over both ends | flush | blocks between, in any order | flush
//! last block, first block but its beginning | flush | the beginning of the first block | flush
//! ```
//!
//! A file gets its name last and needs none of this. An error is final: what a failed
//! fsync has dropped from the page cache, a second one does not bring back.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use imgcast_common::bits::BitSet;
use imgcast_common::layout::Layout;
use imgcast_common::sectors::SectorSize;

use super::direct::Bounce;
use super::ends::{End, Ends};
use super::flusher::Flusher;
use super::rate::{TargetRate, now};
use super::target::Target;
use super::writer::{Written, lock};
use crate::error::Error;

/// What all threads that write have to agree on.
#[derive(Debug)]
pub(super) struct Order {
    layout: Layout,
    is_device: bool,
    books: Mutex<Books>,
    rate: Mutex<TargetRate>,
    drain_kilobytes_per_second: AtomicU32,
}

/// Where blocks go. Dropped in this order, as the thread that flushes holds the target open.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) flusher: Flusher,
    pub(super) target: Target,
}

/// What is where.
#[derive(Debug)]
struct Books {
    /// What the ends of a device are to be, at last.
    ends: Ends,
    /// Whether nothing on the target can be mistaken for a whole disk: for a device, whether its
    /// ends have been zeroed.
    is_shielded: bool,
    stored: BitSet,
    /// Since a flush was begun.
    unflushed_bytes: u64,
    last_offset: u64,
    written_bytes: u64,
}

impl Order {
    /// Nothing is written yet.
    pub(super) fn new(layout: Layout, target: &Target) -> Self {
        let books = Books {
            ends: Ends::new(layout.blocks()),
            is_shielded: !target.is_device(),
            stored: BitSet::new(layout.blocks()),
            unflushed_bytes: 0,
            last_offset: 0,
            written_bytes: 0,
        };
        Self {
            layout,
            is_device: target.is_device(),
            books: Mutex::new(books),
            rate: Mutex::default(),
            drain_kilobytes_per_second: AtomicU32::new(0),
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
                    output.target.check_sectors(SectorSize::of_gpt(&bytes))?;
                }
                books.stored.insert(number);
                books.ends.hold(number, bytes);
                return Ok(Written::Stored { number, buffer: None });
            }
        }
        self.shield(&output.target)?;
        lock(&self.rate).begin(now());
        let written = self.put(output, number, &bytes, bounce);
        // A wait for the disk is the disk's time, too.
        let rate = &mut lock(&self.rate);
        rate.end(now(), bytes.len() as u64);
        self.publish(rate);
        written.map(|()| Written::Stored { number, buffer: Some(bytes) })
    }

    fn put(
        &self,
        output: &Output,
        number: u32,
        bytes: &[u8],
        bounce: &mut Bounce,
    ) -> Result<(), Error> {
        let offset = self.layout.block_range(number).start;
        output.target.write(bytes, offset, bounce)?;
        let mut books = lock(&self.books);
        books.stored.insert(number);
        books.note(offset, bytes.len());
        if books.unflushed_bytes < FLUSH_BYTES {
            return Ok(());
        }
        let window = std::mem::take(&mut books.unflushed_bytes);
        drop(books);
        let flush = output.flusher.begin(window);
        flush.map_err(|source| flush_error(&output.target, offset, window, source))
    }

    /// Makes a run of blocks read as zeroes.
    pub(super) fn zero(&self, output: &Output, blocks: Range<u32>) -> Result<Written, Error> {
        let mut rest = blocks.start..blocks.end.min(self.layout.blocks());
        if self.is_device {
            rest = lock(&self.books).ends.zero(&rest);
        }
        if !rest.is_empty() {
            self.shield(&output.target)?;
            let last = self.layout.block_range(rest.end - 1);
            output.target.zero(self.layout.block_range(rest.start).start..last.end)?;
        }
        let mut books = lock(&self.books);
        for number in blocks.start..blocks.end.min(self.layout.blocks()) {
            books.stored.insert(number);
        }
        Ok(Written::Zeroed { blocks })
    }

    /// Makes the target what it is to be, once nothing else is under way any more.
    pub(super) fn finish(&self, output: Output) -> Result<Written, Error> {
        let Output { flusher, target } = output;
        let mut books = lock(&self.books);
        let (offset, window) = (books.last_offset, books.unflushed_bytes);
        flusher.finish().map_err(|source| flush_error(&target, offset, window, source))?;
        if !books.stored.is_full() {
            let missing = books.stored.len() - books.stored.count();
            let text = format!("the image was to be finished with {missing} blocks missing");
            return Err(Error::Internal { text });
        }
        books.flush(&target)?;
        if self.is_device {
            books.write_ends(&target, &self.layout)?;
        }
        target.commit()?;
        Ok(Written::Flushed { written_bytes: books.written_bytes })
    }

    /// Zeroes the ends of a device, on disk, before anything else changes there.
    fn shield(&self, target: &Target) -> Result<(), Error> {
        // Whoever comes second waits.
        lock(&self.books).shield(target, &self.layout)
    }

    /// So many octets were flushed in this time.
    pub(super) fn note_flush(&self, octets: u64, took: Duration) {
        let rate = &mut lock(&self.rate);
        rate.note_flush(octets, took);
        self.publish(rate);
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

impl Books {
    fn note(&mut self, offset: u64, octets: usize) {
        self.last_offset = offset;
        self.unflushed_bytes += octets as u64;
        self.written_bytes += octets as u64;
    }

    fn shield(&mut self, target: &Target, layout: &Layout) -> Result<(), Error> {
        if !self.is_shielded {
            for number in self.ends.numbers() {
                target.zero(layout.block_range(number))?;
            }
            self.flush(target)?;
            self.is_shielded = true;
        }
        Ok(())
    }

    /// Makes the ends what they are to be: the beginning of the first one last, once the rest of
    /// both is on disk.
    fn write_ends(&mut self, target: &Target, layout: &Layout) -> Result<(), Error> {
        self.shield(target, layout)?;
        let mut bounce = Bounce::default();
        let mut beginning = Vec::new();
        for number in self.ends.numbers() {
            let End::Held(bytes) = self.ends.take(number) else { continue };
            let kept = if number == 0 { bytes.len().min(BEGINNING_OCTETS) } else { 0 };
            let offset = layout.block_range(number).start + kept as u64;
            target.write(&bytes[kept..], offset, &mut bounce)?;
            self.note(offset, bytes.len() - kept);
            if number == 0 {
                beginning = bytes;
                beginning.truncate(kept);
            }
        }
        self.flush(target)?;
        target.write(&beginning, 0, &mut bounce)?;
        self.note(0, beginning.len());
        self.flush(target)
    }

    fn flush(&mut self, target: &Target) -> Result<(), Error> {
        let (offset, window) = (self.last_offset, self.unflushed_bytes);
        target.flush().map_err(|source| flush_error(target, offset, window, source))?;
        self.unflushed_bytes = 0;
        Ok(())
    }
}

fn flush_error(
    target: &Target,
    offset: u64,
    unflushed_bytes: u64,
    source: std::io::Error,
) -> Error {
    Error::Flush { path: target.path().into(), offset, unflushed_bytes, source }
}

/// Without it a disk has no partition table: the header of a GPT is in the second sector, and a
/// sector has up to 4096 octets.
const BEGINNING_OCTETS: usize = 8192;
/// A flush is begun whenever so much is written, and as much more may be written meanwhile: a disk
/// that makes 100 MB/s has two thirds of a second to go when the last block comes. Measured: 64
/// MiB are no faster, and each halving below this is slower.
const FLUSH_BYTES: u64 = 32 << 20;
