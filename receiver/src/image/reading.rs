//! Reads what the medium holds, not what the page cache remembers of it: past a failed write-back
//! the cache has the octets that the disk has not.
//!
//! O_DIRECT does it. Where that is not to be had, the kernel is asked to forget the range before it
//! is read, which works for what is flushed; a file system in memory has nothing else to read from.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc::O_DIRECT;

use super::direct::{ALIGNMENT, BOUNCE_OCTETS, Bounce, is_in_memory};

/// A file or device to be read so, by one thread.
#[derive(Debug)]
pub(super) struct Reading {
    file: File,
    direct: Option<File>,
    bounce: Bounce,
}

impl Reading {
    /// Reads what `file` is open for.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let open = || OpenOptions::new().read(true).custom_flags(O_DIRECT).open(&link).ok();
        let direct = if is_in_memory(file) { None } else { open() };
        Ok(Self { file: file.try_clone()?, direct, bounce: Bounce::default() })
    }

    /// Fills `bytes` with what is at `offset`.
    ///
    /// # Errors
    /// Whatever the kernel says, and what lies beyond the end.
    pub(super) fn read(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        for (piece, at) in bytes.chunks_mut(BOUNCE_OCTETS).zip((offset..).step_by(BOUNCE_OCTETS)) {
            if !self.read_direct(piece, at)? {
                self.read_cached(piece, at)?;
            }
        }
        Ok(())
    }

    /// Whether it could be done.
    fn read_direct(&mut self, piece: &mut [u8], at: u64) -> io::Result<bool> {
        let Some(direct) = &self.direct else { return Ok(false) };
        if !at.is_multiple_of(ALIGNMENT as u64) {
            return Ok(false);
        }
        let area = self.bounce.area(piece.len().next_multiple_of(ALIGNMENT));
        match direct.read_at(area, at) {
            Ok(len) if len >= piece.len() => {
                piece.copy_from_slice(&area[..piece.len()]);
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EINVAL | Errno::EOPNOTSUPP) => {
                    self.direct = None;
                    Ok(false)
                }
                _ => Err(error),
            },
        }
    }

    fn read_cached(&self, piece: &mut [u8], at: u64) -> io::Result<()> {
        // A page of which only a part is named stays.
        let page = ALIGNMENT as u64;
        let start = at - at % page;
        let len = (at + piece.len() as u64).next_multiple_of(page) - start;
        if let (Ok(start), Ok(len)) = (i64::try_from(start), i64::try_from(len)) {
            // Advice: what comes of it is the kernel's business.
            let _ = posix_fadvise(&self.file, start, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        self.file.read_exact_at(piece, at)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use imgcast_common::prng::Prng;

    use super::*;
    use crate::image::testing::Scratch;

    #[test]
    fn any_place_of_a_file_is_read_as_it_is_and_nothing_beyond_its_end() {
        let scratch = Scratch::new();
        let path = scratch.path().join("file");
        let mut octets = vec![0; (2 << 20) + 4099];
        Prng::new(2).fill(&mut octets);
        fs::write(&path, &octets).unwrap();
        let file = File::open(&path).unwrap();
        for cached in [false, true] {
            let mut reading = Reading::new(&file).unwrap();
            reading.direct = reading.direct.filter(|_| !cached);
            for (at, len) in
                [(0, 1), (0, 4096), (4096, 2 << 20), (1 << 20, (1 << 20) + 4099), (512, 70_000)]
            {
                let mut bytes = vec![0; len];
                reading.read(&mut bytes, at as u64).unwrap();
                assert!(bytes == octets[at..at + len], "{len} at {at}");
            }
            let mut beyond = vec![0; 4100];
            assert!(reading.read(&mut beyond, 2 << 20).is_err());
        }
    }
}
