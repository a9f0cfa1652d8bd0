//! A block device as the target, held exclusively from before the first octet to the last.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::libc::O_EXCL;

use super::guard::{self, DeviceUse};
use super::sysfs::DeviceNumber;
use crate::error::Error;

/// An open block device.
#[derive(Debug)]
pub(super) struct Device {
    file: Flock<File>,
    number: DeviceNumber,
    bytes: u64,
}

impl Device {
    /// Opens the device `path`, whose number was seen to be `number`.
    ///
    /// # Errors
    /// [`Error::TargetBusy`] with who uses it, [`Error::TargetReadOnly`], [`Error::TargetOpen`].
    pub(super) fn open(path: &Path, number: DeviceNumber) -> Result<Self, Error> {
        let root = Path::new("/");
        let uses = guard::uses_of(root, number);
        if !uses.is_empty() {
            return Err(Error::TargetBusy { path: path.into(), uses });
        }
        if guard::is_read_only(root, number) {
            return Err(Error::TargetReadOnly { path: path.into() });
        }
        let failed = |source| Error::TargetOpen { path: path.into(), source };
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).custom_flags(O_EXCL).open(path);
        let mut file = opened.map_err(|source| refusal(path, number, source))?;
        let metadata = file.metadata().map_err(failed)?;
        let is_the_same =
            metadata.file_type().is_block_device() && DeviceNumber::of(metadata.rdev()) == number;
        if !is_the_same {
            return Err(failed(io::Error::other("another device took its place meanwhile")));
        }
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let file = locked(file, path)?;
        Ok(Self { file, number, bytes })
    }

    /// The device, open for reading and writing.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Its number, which its names lead to.
    pub(super) const fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Octets it holds.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes a range read as zeroes, the fastest way that guarantees it. A plain discard does not:
    /// what is read after it is up to the device.
    pub(super) fn zero(&self, range: Range<u64>) -> io::Result<()> {
        let mut start = range.start;
        while start < range.end {
            let len = (range.end - start).min(ZERO_PIECE_BYTES);
            if !self.zero_by_kernel(start, len) {
                self.write_zeroes(start..start + len)?;
            }
            start += len;
        }
        Ok(())
    }

    /// The kernel refuses a range that is not whole sectors: the end of an odd image.
    fn zero_by_kernel(&self, start: u64, len: u64) -> bool {
        let (Ok(start), Ok(len)) = (i64::try_from(start), i64::try_from(len)) else { return false };
        // The first gives the space back where device and kernel can do that and promise zeroes;
        // the second always works, at worst by writing them.
        [FallocateFlags::FALLOC_FL_PUNCH_HOLE, FallocateFlags::FALLOC_FL_ZERO_RANGE]
            .into_iter()
            .map(|way| way | FallocateFlags::FALLOC_FL_KEEP_SIZE)
            .any(|way| fallocate(&*self.file, way, start, len).is_ok())
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        let mut start = range.start;
        while start < range.end {
            let rest = usize::try_from(range.end - start).unwrap_or(usize::MAX);
            let piece = &ZEROES[..rest.min(ZEROES.len())];
            self.file.write_all_at(piece, start)?;
            start += piece.len() as u64;
        }
        Ok(())
    }
}

/// Takes the lock that keeps udev and partitioning tools away while the disk is half written
/// (systemd's "Locking Block Device Access").
fn locked(mut file: File, path: &Path) -> Result<Flock<File>, Error> {
    for _ in 0..LOCK_ATTEMPTS {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, Errno::EWOULDBLOCK)) => file = unlocked,
            Err((_, errno)) => {
                return Err(Error::TargetOpen { path: path.into(), source: errno.into() });
            }
        }
        thread::sleep(LOCK_RETRY);
    }
    Err(Error::TargetBusy { path: path.into(), uses: vec![DeviceUse::Locked] })
}

/// What a failed open means.
fn refusal(path: &Path, number: DeviceNumber, source: io::Error) -> Error {
    let path = path.to_path_buf();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => {
            let mut uses = guard::uses_of(Path::new("/"), number);
            if uses.is_empty() {
                uses.push(DeviceUse::Unknown);
            }
            Error::TargetBusy { path, uses }
        }
        Some(Errno::EROFS) => Error::TargetReadOnly { path },
        _ => Error::TargetOpen { path, source },
    }
}

/// One call zeroes no more, so that a slow disk shows progress and can be given up.
const ZERO_PIECE_BYTES: u64 = 64 << 20;
/// udev holds the lock while it probes a new device, for some hundred milliseconds.
const LOCK_RETRY: Duration = Duration::from_millis(50);
/// Two seconds in all: a lock held longer is held by somebody who means it.
const LOCK_ATTEMPTS: u32 = 40;
/// Enough for one system call to be worth it.
static ZEROES: [u8; 256 << 10] = [0; 256 << 10];
