//! What is where on the target, as far as that is known: the books of the [order](super::order) of
//! writes.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use imgcast_common::bits::BitSet;
use imgcast_common::layout::Layout;
use nix::errno::Errno;

use super::ends::Ends;
use super::flusher::Window;
use super::journal::Journal;
use super::losses::Losses;
use super::medium::Medium;
use super::writer::Written;
use crate::error::Error;

/// What is where.
#[derive(Debug)]
pub(super) struct Books {
    is_device: bool,
    /// Whether a device may have all of the image, so that nothing is to be written.
    may_be_whole: Arc<AtomicBool>,
    /// What the ends of a device are to be, at last.
    pub(super) ends: Ends,
    /// Whether nothing on the target can be mistaken for a whole disk: for a device, whether its
    /// ends have been zeroed.
    is_shielded: bool,
    pub(super) stored: BitSet,
    /// Stored, and not reported as that yet: what is lost before is not to be.
    pub(super) untold: BitSet,
    /// Reported as lost, and not stored again.
    pub(super) lost: BTreeSet<u32>,
    pub(super) losses: Losses,
    /// Since a flush was begun.
    pub(super) window: Window,
    /// Flushes that failed: what was being written meanwhile is lost, too.
    pub(super) failed_flushes: u64,
    /// Blocks that were read back and are right.
    pub(super) proved: BitSet,
    pub(super) journal: Option<Journal>,
    pub(super) last_offset: u64,
    pub(super) written_bytes: u64,
}

impl Books {
    /// Nothing is written yet.
    pub(super) fn new(
        blocks: u32,
        is_device: bool,
        may_be_whole: Arc<AtomicBool>,
        journal: Option<Journal>,
    ) -> Self {
        Self {
            is_device,
            may_be_whole,
            ends: Ends::new(blocks),
            is_shielded: !is_device,
            stored: BitSet::new(blocks),
            untold: BitSet::new(blocks),
            lost: BTreeSet::new(),
            losses: Losses::default(),
            window: Window::default(),
            failed_flushes: 0,
            proved: BitSet::new(blocks),
            journal,
            last_offset: 0,
            written_bytes: 0,
        }
    }

    pub(super) fn note(&mut self, offset: u64, octets: usize) {
        self.last_offset = offset;
        self.window.octets += octets as u64;
        self.written_bytes += octets as u64;
    }

    pub(super) fn store(&mut self, number: u32) {
        self.stored.insert(number);
        self.untold.insert(number);
        self.lost.remove(&number);
        self.proved.remove(number);
    }

    /// Whether nothing on the target can be mistaken for a whole disk.
    pub(super) const fn is_shielded(&self) -> bool {
        self.is_shielded
    }

    /// Zeroes both ends of a device, on disk; the first one before the last, as an old disk with
    /// half its tables must not look whole either. One that failed begins anew.
    pub(super) fn shield(&mut self, medium: &dyn Medium, layout: &Layout) -> Result<(), Error> {
        if self.is_shielded {
            return Ok(());
        }
        // It is written to from here on; and what is found of an end may be gone if this fails.
        self.may_be_whole.store(false, Ordering::Relaxed);
        let mut numbers: Vec<u32> = self.ends.numbers().collect();
        numbers.reverse();
        for number in numbers {
            medium.zero(layout.block_range(number), self.losses.have_any_of(&ALL))?;
            if let Err(source) = medium.flush() {
                self.failed_flushes += 1;
                return Err(self.flush_error(medium.path(), source));
            }
        }
        self.is_shielded = true;
        Ok(())
    }

    /// Flushes what is left, while nobody writes; what is lost if that fails.
    pub(super) fn flush(&mut self, medium: &dyn Medium) -> Result<Option<Written>, Error> {
        if self.window.is_empty() {
            // The flush before has said of everything that it is there.
            return Ok(None);
        }
        match medium.flush() {
            Ok(()) => {
                let window = std::mem::take(&mut self.window);
                self.keep(window);
                Ok(None)
            }
            Err(source) => self.lose_window(medium.path(), Window::default(), source).map(Some),
        }
    }

    /// A window is on disk. The ends of a device are not claimed for good: the next run begins by
    /// zeroing them.
    pub(super) fn keep(&mut self, mut window: Window) {
        self.losses.note_success();
        if self.is_device {
            window.blocks.retain(|number| !self.ends.has(*number));
        }
        if let Some(journal) = &mut self.journal {
            journal.append(&window.blocks);
        }
        self.end_search(&window);
    }

    /// If with this window nothing is left to look for, the journal tells everything, unless a
    /// flush has failed since.
    pub(super) fn end_search(&mut self, window: &Window) {
        if window.ends_search
            && window.failed_flushes == self.failed_flushes
            && let Some(journal) = &mut self.journal
        {
            journal.note_searched();
        }
    }

    /// A flush failed that was to have this window on disk.
    pub(super) fn lose_window(
        &mut self,
        path: &Path,
        window: Window,
        source: io::Error,
    ) -> Result<Written, Error> {
        self.failed_flushes += 1;
        let since = std::mem::take(&mut self.window);
        let mut error = self.flush_error(path, source);
        if let Error::Flush { unflushed_bytes, .. } = &mut error {
            *unflushed_bytes = window.octets + since.octets;
        }
        self.lose_all([window, since], error)
    }

    /// Another flush failed while this window waited for its own.
    pub(super) fn lose_along(&mut self, path: &Path, window: Window) -> Result<Written, Error> {
        let error = self.flush_error(path, Errno::EIO.into());
        self.lose_all([window, Window::default()], error)
    }

    fn lose_all(&mut self, windows: [Window; 2], error: Error) -> Result<Written, Error> {
        let mut lost = BTreeSet::new();
        for Window { blocks, zeroed, .. } in windows {
            lost.extend(blocks);
            lost.extend(zeroed.into_iter().flatten());
        }
        self.lose(lost.into_iter().collect(), None, error)
    }

    /// These blocks were not written, and no flush could be had of what was written before.
    pub(super) fn lose_window_and(
        &mut self,
        blocks: Vec<u32>,
        buffer: Option<Vec<u8>>,
        error: Error,
    ) -> Result<Written, Error> {
        let window = std::mem::take(&mut self.window);
        let mut lost: BTreeSet<u32> = blocks.into_iter().chain(window.blocks).collect();
        lost.extend(window.zeroed.into_iter().flatten());
        self.lose(lost.into_iter().collect(), buffer, error)
    }

    /// These blocks are not on disk, for this reason.
    pub(super) fn lose(
        &mut self,
        blocks: Vec<u32>,
        buffer: Option<Vec<u8>>,
        error: Error,
    ) -> Result<Written, Error> {
        // What is there all the same, and zeroes that are, may have been on their way only.
        self.may_be_whole.store(false, Ordering::Relaxed);
        let error = self.losses.note(&blocks, error)?;
        for number in &blocks {
            self.stored.remove(*number);
            self.untold.remove(*number);
            self.proved.remove(*number);
            self.lost.insert(*number);
        }
        Ok(Written::Lost { blocks, buffer, error })
    }

    pub(super) fn flush_error(&self, path: &Path, source: io::Error) -> Error {
        let (offset, unflushed_bytes) = (self.last_offset, self.window.octets);
        Error::Flush { path: path.into(), offset, unflushed_bytes, source }
    }
}

/// Whatever blocks an image has.
const ALL: Range<u32> = 0..u32::MAX;
