//! Has the kernel read a partition table anew.
//!
//! The one call of this program that nix knows only as an unsafe function, and nothing else.
#![expect(unsafe_code, reason = "BLKRRPART has no safe wrapper; see below why this is sound")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

mod calls {
    nix::ioctl_none_bad!(
        /// BLKRRPART of `linux/fs.h`.
        reread_partitions,
        nix::request_code_none!(0x12, 95)
    );
}

/// Has the kernel forget the partitions of a disk and find those that are there now; others, such
/// as udev, may have one open for a moment, so it is tried for a while. A device that has no
/// partitions of its own, such as a partition, has nothing to read.
///
/// # Errors
/// EBUSY if a partition stays in use, EACCES without CAP_SYS_ADMIN.
pub(super) fn reread_partitions(device: &File) -> Result<(), Errno> {
    let mut attempts_left = ATTEMPTS;
    loop {
        // SAFETY: BLKRRPART takes no argument and touches no memory of this process; the
        // descriptor is open as long as `device` is borrowed.
        match unsafe { calls::reread_partitions(device.as_raw_fd()) } {
            Ok(_) | Err(Errno::EINVAL | Errno::ENOTTY) => return Ok(()),
            Err(Errno::EBUSY) if attempts_left > 0 => {
                attempts_left -= 1;
                thread::sleep(RETRY);
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Five seconds in all: whoever holds a partition longer means it.
const ATTEMPTS: u32 = 50;
const RETRY: Duration = Duration::from_millis(100);
