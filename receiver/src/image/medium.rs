//! What the [order](super::order) of writes needs of a target; another one stands in its place
//! where the power is cut ten thousand times.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

use imgcast_common::sectors::SectorSize;

use super::direct::Bounce;
use crate::error::Error;

/// Something that blocks are written to.
pub(super) trait Medium: fmt::Debug + Send + Sync {
    /// What people call it.
    fn path(&self) -> &Path;
    /// Whether something might boot from it, or mount it, before it is whole.
    fn is_device(&self) -> bool;
    /// Whether a partition table that counts in sectors of this size means something there.
    fn check_sectors(&self, _of_image: Option<SectorSize>) -> Result<(), Error> {
        Ok(())
    }
    /// Makes room for an image of so many octets.
    fn make_room(&self, image_bytes: u64) -> Result<(), Error>;
    /// How many writes at a time it is worth to have.
    fn writes_at_a_time(&self) -> usize {
        1
    }
    /// What [`flush`](Self::flush) does, for a thread of its own.
    fn flusher(&self) -> io::Result<Flush>;
    /// Writes at an offset; `bounce` is memory of the thread that does it.
    fn write(&self, bytes: &[u8], offset: u64, bounce: &mut Bounce) -> Result<(), Error>;
    /// Makes a range read as zeroes, and `anew` where it does already: what the disk lost it may
    /// still show.
    fn zero(&self, range: Range<u64>, anew: bool) -> Result<(), Error>;
    /// Has everything written so far on disk.
    fn flush(&self) -> io::Result<()>;
    /// Reads what the disk holds, not what was kept in memory of it.
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Gives a file its name; of a device the kernel is to know the new partitions.
    fn commit(self: Box<Self>) -> Result<(), Error>;
}

/// Has everything written so far on disk.
pub(super) type Flush = Box<dyn FnMut() -> io::Result<()> + Send>;
