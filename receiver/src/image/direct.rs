//! Writes past the page cache (O_DIRECT), to devices and to files.
//!
//! Measured with whole transfers to a file on ext4 and to loop devices: a receiver takes a quarter
//! of the CPU time, next to nothing is left to flush, and no pages are taken from others. Two such
//! writes at a time give up to twice what one gives; two through the page cache give no more than
//! one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc::{O_DIRECT, S_IFREG};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use tracing::debug;

/// A target, open a second time.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: File,
    /// Cleared when the kernel refuses: the page cache always works.
    works: AtomicBool,
}

impl DirectFile {
    /// Opens what `file` is open for writing past the page cache; `None` where that is not to be
    /// had.
    pub(super) fn reopen(file: impl AsFd) -> Option<Self> {
        if is_in_memory(&file) {
            return None;
        }
        let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        match OpenOptions::new().write(true).custom_flags(O_DIRECT).open(link) {
            Ok(file) => Some(Self { file, works: AtomicBool::new(true) }),
            Err(error) => {
                debug!(%error, "writing through the page cache");
                None
            }
        }
    }

    /// Writes as much of the beginning of `bytes` as is possible this way: whole pages, or nothing
    /// at all. Returns how many octets that was.
    pub(super) fn write(
        &self,
        bytes: &[u8],
        offset: u64,
        bounce: &mut Bounce,
    ) -> io::Result<usize> {
        let mut done = 0;
        if !offset.is_multiple_of(ALIGNMENT as u64) || !self.works.load(Ordering::Relaxed) {
            return Ok(done);
        }
        for piece in bytes[..bytes.len() - bytes.len() % ALIGNMENT].chunks(BOUNCE_OCTETS) {
            let written = self.file.write_all_at(bounce.copy(piece), offset + done as u64);
            match written.map_err(|error| (error.raw_os_error().map(Errno::from_raw), error)) {
                Ok(()) => done += piece.len(),
                Err((Some(Errno::EINVAL | Errno::EOPNOTSUPP), error)) => {
                    debug!(%error, "writing through the page cache from now on");
                    self.works.store(false, Ordering::Relaxed);
                    break;
                }
                Err((_, error)) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Whether it is a file that no page cache lies in front of. A device is none, though its name is
/// kept in memory.
pub(super) fn is_in_memory(file: impl AsFd) -> bool {
    let is_file = fstat(&file).is_ok_and(|stat| SFlag::S_IFMT.bits() & stat.st_mode == S_IFREG);
    is_file && fstatfs(file).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC)
}

/// Memory as devices want it, one for each thread that writes; none before the first use.
#[derive(Debug, Default)]
pub(super) struct Bounce(Vec<u8>);

impl Bounce {
    /// A copy of up to [`BOUNCE_OCTETS`] octets that begins at a page.
    fn copy(&mut self, bytes: &[u8]) -> &[u8] {
        let aligned = self.area(bytes.len());
        aligned.copy_from_slice(bytes);
        aligned
    }

    /// Up to [`BOUNCE_OCTETS`] octets that begin at a page.
    pub(super) fn area(&mut self, octets: usize) -> &mut [u8] {
        if self.0.is_empty() {
            self.0 = vec![0; BOUNCE_OCTETS + ALIGNMENT];
        }
        let start = self.0.as_ptr().align_offset(ALIGNMENT);
        &mut self.0[start..start + octets]
    }
}

/// Memory, offset and length of a write are multiples of this: a page, and with it every logical
/// block size that is common.
pub(super) const ALIGNMENT: usize = 4096;
/// Measured: pieces of 256 KiB are a third slower, larger ones no faster.
pub(super) const BOUNCE_OCTETS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::image::testing::{FILLING, LoopDevice};

    #[test]
    fn copies_begin_at_a_page_whatever_their_source() {
        let source: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let mut bounce = Bounce::default();
        for start in [0, 1, 16, 4095] {
            let copy = bounce.copy(&source[start..]);
            assert!(copy == &source[start..]);
            assert_eq!(copy.as_ptr().align_offset(ALIGNMENT), 0);
        }
    }

    #[test]
    fn whole_pages_go_past_the_page_cache_and_the_rest_is_left_over() {
        let test = "whole_pages_go_past_the_page_cache_and_the_rest_is_left_over";
        let Some(device) = LoopDevice::attach(test, 4 << 20) else { return };
        let file = OpenOptions::new().write(true).open(device.path()).unwrap();
        let direct = DirectFile::reopen(&file).unwrap();
        let mut bounce = Bounce::default();
        let bytes = vec![7; (2 << 20) + 5000];
        assert_eq!(direct.write(&bytes, 8192, &mut bounce).unwrap(), (2 << 20) + 4096);
        assert_eq!(direct.write(&bytes[..4095], 0, &mut bounce).unwrap(), 0, "less than a page");
        assert_eq!(direct.write(&bytes, 512, &mut bounce).unwrap(), 0, "an odd place");
        for (at, octet) in device.contents().into_iter().enumerate() {
            let is_written = (8192..8192 + (2 << 20) + 4096).contains(&at);
            assert_eq!(octet, if is_written { 7 } else { FILLING }, "octet {at}");
        }
    }

    #[test]
    fn after_a_refusal_the_page_cache_does_it_and_no_room_is_no_refusal() {
        let test = "after_a_refusal_the_page_cache_does_it_and_no_room_is_no_refusal";
        // The last sector of a device of 512-octet sectors: a page goes beyond it.
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let file = OpenOptions::new().write(true).open(device.path()).unwrap();
        let direct = DirectFile::reopen(&file).unwrap();
        // Whatever the alignment, the kernel has EINVAL for a place that no file has.
        assert_eq!(direct.write(&[7; 4096], 1 << 63, &mut Bounce::default()).unwrap(), 0);
        assert_eq!(direct.write(&[7; 4096], 0, &mut Bounce::default()).unwrap(), 0);
        let beyond = DirectFile::reopen(&file).unwrap();
        let error = beyond.write(&[7; 4096], 1 << 20, &mut Bounce::default()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOSPC), "no reason to try again");
        assert!(fs::read(device.path()).unwrap().iter().all(|octet| *octet == FILLING));
    }
}
