//! Ways to have a range of a file or device read as zeroes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, fallocate};

/// Whether the kernel did it in this way, without anything being written from here.
pub(super) fn allocate(file: &File, way: FallocateFlags, range: &Range<u64>) -> bool {
    let (Ok(start), Ok(end)) = (i64::try_from(range.start), i64::try_from(range.end)) else {
        return false;
    };
    fallocate(file, way | FallocateFlags::FALLOC_FL_KEEP_SIZE, start, end - start).is_ok()
}

/// Writes zeroes.
pub(super) fn write(file: &File, range: Range<u64>) -> io::Result<()> {
    let mut start = range.start;
    while start < range.end {
        let rest = usize::try_from(range.end - start).unwrap_or(usize::MAX);
        let piece = &ZEROES[..rest.min(ZEROES.len())];
        file.write_all_at(piece, start)?;
        start += piece.len() as u64;
    }
    Ok(())
}

/// Whether these octets are zero.
pub(super) fn are_zero(octets: &[u8]) -> bool {
    octets.chunks(ZEROES.len()).all(|piece| *piece == ZEROES[..piece.len()])
}

/// Enough for one system call to be worth it.
static ZEROES: [u8; 256 << 10] = [0; 256 << 10];
