//! A target that fails once, and has lost by that what it was to write or flush: what comes of it
//! in the rooms above.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use imgcast_common::sectors::SectorSize;
use nix::errno::Errno;

use super::Target;
use super::direct::Bounce;
use super::medium::{Flush, Medium};
use super::writer::lock;
use crate::error::Error;

/// A target, and what goes wrong with it.
#[derive(Debug)]
pub(super) struct Flaky(Arc<Inner>);

/// Which operation of its kind fails, counted from 1; none with 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) write: u32,
    pub(super) zero: u32,
    pub(super) flush: u32,
    pub(super) read: u32,
    /// This one reads something else.
    pub(super) wrong_read: u32,
}

#[derive(Debug)]
struct Inner {
    target: Target,
    faults: Mutex<Faults>,
    /// Written since the last flush.
    unflushed: Mutex<Vec<Range<u64>>>,
}

impl Flaky {
    pub(super) fn new(target: Target, faults: Faults) -> Self {
        let (faults, unflushed) = (Mutex::new(faults), Mutex::default());
        Self(Arc::new(Inner { target, faults, unflushed }))
    }
}

impl Inner {
    /// Whether this is the one that fails.
    fn fails(&self, counter: impl FnOnce(&mut Faults) -> &mut u32) -> bool {
        let faults = &mut *lock(&self.faults);
        let left = counter(faults);
        let fails = *left == 1;
        *left = left.saturating_sub(1);
        fails
    }

    fn flush(&self) -> io::Result<()> {
        let mut unflushed = lock(&self.unflushed);
        let written = std::mem::take(&mut *unflushed);
        if self.fails(|faults| &mut faults.flush) {
            for range in written {
                self.spoil(range);
            }
            return Err(Errno::EIO.into());
        }
        self.target.flush()
    }

    /// Has something else there than was written.
    fn spoil(&self, range: Range<u64>) {
        let octets = vec![SPOILT; usize::try_from(range.end - range.start).unwrap()];
        self.target.write(&octets, range.start, &mut Bounce::default()).unwrap();
    }

    fn error(&self, offset: u64) -> Error {
        Error::Write { path: self.target.path().into(), offset, source: Errno::EIO.into() }
    }
}

impl Medium for Flaky {
    fn path(&self) -> &Path {
        self.0.target.path()
    }

    fn is_device(&self) -> bool {
        self.0.target.is_device()
    }

    fn check_sectors(&self, of_image: Option<SectorSize>) -> Result<(), Error> {
        self.0.target.check_sectors(of_image)
    }

    fn make_room(&self, image_bytes: u64) -> Result<(), Error> {
        self.0.target.make_room(image_bytes)
    }

    fn writes_at_a_time(&self) -> usize {
        self.0.target.writes_at_a_time()
    }

    fn flusher(&self) -> io::Result<Flush> {
        let inner = Arc::clone(&self.0);
        Ok(Box::new(move || inner.flush()))
    }

    fn write(&self, bytes: &[u8], offset: u64, bounce: &mut Bounce) -> Result<(), Error> {
        // Not while somebody flushes, or it could not be told what is flushed.
        let mut unflushed = lock(&self.0.unflushed);
        let range = offset..offset + bytes.len() as u64;
        if self.0.fails(|faults| &mut faults.write) {
            self.0.spoil(range);
            return Err(self.0.error(offset));
        }
        unflushed.push(range);
        self.0.target.write(bytes, offset, bounce)
    }

    fn zero(&self, range: Range<u64>, anew: bool) -> Result<(), Error> {
        let mut unflushed = lock(&self.0.unflushed);
        if self.0.fails(|faults| &mut faults.zero) {
            return Err(self.0.error(range.start));
        }
        if self.is_device() {
            // Of a file a hole is left as it is: there is nothing to be lost.
            unflushed.push(range.clone());
        }
        self.0.target.zero(range, anew)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if self.0.fails(|faults| &mut faults.read) {
            return Err(Errno::EIO.into());
        }
        self.0.target.read(bytes, offset)?;
        if self.0.fails(|faults| &mut faults.wrong_read) {
            bytes[0] ^= 1;
        }
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), Error> {
        let inner = Arc::into_inner(self.0).unwrap();
        Box::new(inner.target).commit()
    }
}

/// An octet that no image has all over a block.
const SPOILT: u8 = 0xdd;
