//! A block device as the target, held exclusively from before the first octet to the last.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg};
use nix::libc::O_EXCL;

use super::disk::Disk;
use super::guard::{self, DeviceUse};
use super::holes::Holes;
use super::reading::Reading;
use super::rescan::reread_partitions;
use super::sysfs::{BlockDevice, DeviceNumber};
use super::zeroes;
use crate::error::TargetError;

/// An open block device.
#[derive(Debug)]
pub(super) struct Device {
    file: Flock<File>,
    number: DeviceNumber,
    bytes: u64,
    holes: Holes,
}

impl Device {
    /// Opens the device `path`, whose number was seen to be `number`.
    ///
    /// # Errors
    /// [`TargetError::Busy`] with who uses it, [`TargetError::ReadOnly`], [`TargetError::Kind`] if
    /// there is no medium in it, [`TargetError::Open`].
    pub(super) fn open(
        path: &Path,
        number: DeviceNumber,
        holes: Holes,
    ) -> Result<Self, TargetError> {
        let root = Path::new("/");
        let uses = guard::uses_of(root, number);
        if !uses.is_empty() {
            return Err(TargetError::Busy { path: path.into(), uses });
        }
        if guard::is_read_only(root, number) {
            return Err(TargetError::ReadOnly { path: path.into() });
        }
        let uses = lasting(|| guard::writers_of(root, number));
        if !uses.is_empty() {
            return Err(TargetError::Busy { path: path.into(), uses });
        }
        let failed = |source| TargetError::Open { path: path.into(), source };
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
        if bytes == 0 {
            return Err(TargetError::Kind { path: path.into(), kind: EMPTY });
        }
        let file = locked(file, path)?;
        Ok(Self { file, number, bytes, holes })
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

    /// What it is, for people.
    pub(super) fn disk(&self, path: &Path) -> Disk {
        let root = Path::new("/");
        let known = BlockDevice::find(root, self.number).map(|device| Disk::of(root, &device));
        known.unwrap_or_else(|| Disk::unknown(path, self.bytes))
    }

    /// Octets in one of its logical sectors, if the kernel tells.
    pub(super) fn sector_octets(&self) -> Option<u32> {
        BlockDevice::find(Path::new("/"), self.number)?.sector_octets()
    }

    /// Has the kernel read the partition table that is on it now.
    pub(super) fn reread_partitions(&self) -> Result<(), Errno> {
        reread_partitions(&self.file)
    }

    /// Makes a range read as zeroes, in the way that the operator has chosen, but where it is done
    /// `anew` leaves nothing as it is. A plain discard is none: what is read after it is up to the
    /// device. To punch a hole into a device is to discard the range where that makes zeroes of it
    /// for sure, and fails elsewhere. To zero a range keeps its space and always works, at worst by
    /// writing (BLKZEROOUT).
    pub(super) fn zero(&self, range: Range<u64>, anew: bool) -> io::Result<()> {
        let mut start = range.start;
        let holes = if anew && self.holes == Holes::Skip { Holes::Zero } else { self.holes };
        // What the disk holds, not what is left in memory of a flush that failed.
        let mut reading = match holes {
            Holes::Skip => Some(Reading::new(&self.file)?),
            Holes::Zero | Holes::Discard => None,
        };
        while start < range.end {
            let piece_max = if holes == Holes::Skip { READ_BYTES } else { ZERO_PIECE_BYTES };
            let piece = start..piece_end(start, range.end, piece_max);
            start = piece.end;
            let is_done = match (holes, &mut reading) {
                (Holes::Skip, Some(reading)) => is_zero(reading, &piece)?,
                (Holes::Zero | Holes::Skip, _) => false,
                (Holes::Discard, _) => {
                    zeroes::allocate(&self.file, FallocateFlags::FALLOC_FL_PUNCH_HOLE, &piece)
                }
            };
            // The kernel refuses the odd end of an image.
            let way = FallocateFlags::FALLOC_FL_ZERO_RANGE;
            if !is_done && !zeroes::allocate(&self.file, way, &piece) {
                zeroes::write(&self.file, piece)?;
            }
        }
        Ok(())
    }
}

fn is_zero(reading: &mut Reading, range: &Range<u64>) -> io::Result<bool> {
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut octets = vec![0; len];
    reading.read(&mut octets, range.start)?;
    Ok(zeroes::are_zero(&octets))
}

/// Where a piece of what is to be zeroed ends: at whole sectors, but for what is less than one.
fn piece_end(start: u64, end: u64, piece_max: u64) -> u64 {
    let even = end - end % SECTOR_OCTETS_MAX;
    start.saturating_add(piece_max).min(if even > start { even } else { end })
}

/// Takes the lock that keeps udev and partitioning tools away while the disk is half written
/// (systemd's "Locking Block Device Access").
fn locked(mut file: File, path: &Path) -> Result<Flock<File>, TargetError> {
    for _ in 0..LOCK_ATTEMPTS {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, Errno::EWOULDBLOCK)) => file = unlocked,
            Err((_, errno)) => {
                return Err(TargetError::Open { path: path.into(), source: errno.into() });
            }
        }
        thread::sleep(LOCK_RETRY);
    }
    let metadata = file.metadata();
    let metadata = metadata.map_err(|source| TargetError::Open { path: path.into(), source })?;
    let uses = guard::locked_by(Path::new("/"), path, &metadata);
    Err(TargetError::Busy { path: path.into(), uses })
}

/// Uses that do not end within [`LOCK_ATTEMPTS`]: whoever has just been ended may take a moment to
/// close what it had open.
fn lasting(uses: impl Fn() -> Vec<DeviceUse>) -> Vec<DeviceUse> {
    for _ in 0..LOCK_ATTEMPTS {
        if uses().is_empty() {
            return Vec::new();
        }
        thread::sleep(LOCK_RETRY);
    }
    uses()
}

/// What a failed open means.
fn refusal(path: &Path, number: DeviceNumber, source: io::Error) -> TargetError {
    let path = path.to_path_buf();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => {
            let mut uses = guard::uses_of(Path::new("/"), number);
            if uses.is_empty() {
                uses = guard::uses_elsewhere(Path::new("/"), number);
            }
            if uses.is_empty() {
                uses = guard::open_in(Path::new("/"), number);
            }
            if uses.is_empty() {
                uses.push(DeviceUse::Unknown);
            }
            TargetError::Busy { path, uses }
        }
        Some(Errno::EROFS) => TargetError::ReadOnly { path },
        Some(Errno::ENOMEDIUM | Errno::ENXIO) => TargetError::Kind { path, kind: EMPTY },
        _ => TargetError::Open { path, source },
    }
}

/// Where there should be a disk.
const EMPTY: &str = "a block device without a medium, or a loop device without a file";
/// Every usual logical sector size divides it.
const SECTOR_OCTETS_MAX: u64 = 4096;
/// Read at a time: nearly always all of it is alike.
const READ_BYTES: u64 = 1 << 20;
/// One call zeroes no more, so that a slow disk shows progress and can be given up.
const ZERO_PIECE_BYTES: u64 = 64 << 20;
/// udev holds the lock while it probes a new device, for some hundred milliseconds.
const LOCK_RETRY: Duration = Duration::from_millis(50);
/// Two seconds in all: a lock held longer is held by somebody who means it.
const LOCK_ATTEMPTS: u32 = 40;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::error::Error;
    use crate::image::medium::Medium;
    use crate::image::testing::{FILLING, LoopDevice, close, run};
    use crate::image::{Keep, Target, TargetOptions};

    fn open(device: &LoopDevice, holes: Holes) -> Target {
        let options = TargetOptions { holes, ..TargetOptions::default() };
        Target::open_with(device.path(), options, &Keep::default()).unwrap()
    }

    /// Octets that the file behind a device takes up.
    fn taken(device: &LoopDevice) -> u64 {
        device.contents();
        fs::metadata(device.backing()).unwrap().blocks() * 512
    }

    #[test]
    fn zeroes_are_written_or_left_alone_or_their_space_is_given_back() {
        let test = "zeroes_are_written_or_left_alone_or_their_space_is_given_back";
        let (whole, half) = (8 << 20, 4 << 20);
        let ways = [
            (Holes::Zero, false, whole),
            (Holes::Skip, false, half),
            (Holes::Skip, true, whole),
            (Holes::Discard, false, 0),
        ];
        for (holes, anew, expected) in ways {
            let Some(device) = LoopDevice::attach(test, 8 << 20) else { return };
            // A hole reads as zeroes already.
            let before = open(&device, Holes::Discard);
            before.zero(half..whole, false).unwrap();
            before.flush().unwrap();
            drop(before);
            assert!(taken(&device).abs_diff(half) < 65_536, "{holes:?}: {}", taken(&device));

            let target = open(&device, holes);
            // An odd end is zeroed, too, and to the octet.
            target.zero(0..whole - 1000, anew).unwrap();
            target.flush().unwrap();
            drop(target);
            assert!(device.contents().iter().all(|octet| *octet == 0), "{holes:?}");
            let taken = taken(&device);
            assert!(taken.abs_diff(expected) < 65_536, "{holes:?}: {taken} of {expected}");
        }
    }

    #[test]
    fn what_is_skipped_is_skipped_only_where_it_is_all_zero() {
        let test = "what_is_skipped_is_skipped_only_where_it_is_all_zero";
        let Some(device) = LoopDevice::attach(test, 4 << 20) else { return };
        let mut octets = vec![0; 4 << 20];
        octets[(1 << 20) + 5] = 1;
        octets[(3 << 20) - 1] = 1;
        octets[3 << 20] = FILLING;
        fs::write(device.path(), &octets).unwrap();
        let target = open(&device, Holes::Skip);
        target.zero(0..3 << 20, false).unwrap();
        target.flush().unwrap();
        drop(target);
        let contents = device.contents();
        assert!(contents[..3 << 20].iter().all(|octet| *octet == 0));
        assert_eq!(contents[3 << 20], FILLING);
    }

    #[test]
    fn sectors_of_another_size_than_the_partition_table_has_are_refused() {
        let test = "sectors_of_another_size_than_the_partition_table_has_are_refused";
        for octets in [512, 4096] {
            let device = LoopDevice::attach_of_sectors(test, 1 << 20, octets);
            let Some(device) = device else { return };
            let target = open(&device, Holes::Zero);
            let of_gpt = |octets| imgcast_common::sectors::SectorSize::from_octets(octets);
            target.check_sectors(None).unwrap();
            target.check_sectors(of_gpt(octets)).unwrap();
            let other = 4096 + 512 - octets;
            let error = target.check_sectors(of_gpt(other)).unwrap_err();
            assert_eq!((error.code(), error.exit_code()), ("target-sector-size", 7));
            let words = format!("has sectors of {octets} octets, and");
            assert!(error.to_string().contains(&words), "{error}");
            assert!(error.to_string().contains(&format!("sectors of {other}:")), "{error}");
        }
    }

    #[test]
    fn a_device_without_a_medium_is_refused() {
        let test = "a_device_without_a_medium_is_refused";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        fs::File::options().write(true).open(device.backing()).unwrap().set_len(0).unwrap();
        run("losetup", &["--set-capacity", device.path().to_str().unwrap()]).unwrap();
        let error = Target::open(device.path()).unwrap_err();
        assert!(matches!(error, Error::Target(TargetError::Kind { kind: EMPTY, .. })), "{error}");
    }

    #[test]
    fn the_kernel_forgets_the_old_partitions_once_nobody_has_one_open() {
        let test = "the_kernel_forgets_the_old_partitions_once_nobody_has_one_open";
        let Some(device) = LoopDevice::attach(test, 4 << 20) else { return };
        let name = device.path().to_str().unwrap();
        if run("addpart", &[name, "1", "2048", "2048"]).is_none() {
            return crate::image::testing::skip(test, "cannot make a partition of a loop device");
        }
        let target = open(&device, Holes::Zero);
        target.write(&[0; 512], 0, &mut super::super::direct::Bounce::default()).unwrap();
        target.flush().unwrap();
        let old = File::open(format!("{name}p1")).unwrap();
        let (closing, closed) = channel();
        let other = thread::spawn(move || {
            thread::sleep(3 * LOCK_RETRY);
            closing.send(()).unwrap();
            close(old);
        });
        Box::new(target).commit().unwrap();
        assert!(closed.try_recv().is_ok(), "it waited");
        other.join().unwrap();
        let partition = format!("{name}p1");
        assert!(!Path::new(&partition).exists(), "it was in no table that is on the disk now");
    }
}
