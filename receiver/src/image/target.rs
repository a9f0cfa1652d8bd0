//! Where the image goes: a file or a block device, opened and guarded before the node joins
//! anything.
//!
//! The target knows how to write, zero, flush and finish; in which order, and what becomes of the
//! first block, is the business of the [order](super::order) of writes.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use imgcast_common::bits::BitSet;
use imgcast_common::id::ImageId;
use imgcast_common::layout::Layout;
use imgcast_common::sectors::SectorSize;
use tracing::warn;

use super::device::Device;
use super::direct::{Bounce, DirectFile};
use super::disk::Disk;
use super::file::{Instead, OutputFile};
use super::guard;
use super::holes::Holes;
use super::journal::Journal;
use super::keep::{Keep, Keeper, Kept};
use super::medium::{Flush, Medium};
use super::reading::Reading;
use super::search::Search;
use super::sysfs::DeviceNumber;
use super::writer::lock;
use crate::error::{Error, TargetError};

/// An output that is ready to be written to. Dropped before it is finished, a file leaves nothing
/// behind and a device is as far as it was written.
#[derive(Debug)]
pub struct Target {
    /// As the operator wrote it, for messages.
    path: PathBuf,
    /// Closed first: the lock on the other handle of a device keeps udev away until the end.
    direct: Option<DirectFile>,
    kind: Kind,
    kept: Kept,
    /// Made when something is to be read.
    reading: Mutex<Option<Reading>>,
}

/// What the operator allows and wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct TargetOptions {
    /// Whether a file of the output's name may be replaced.
    pub overwrite: bool,
    /// How ranges of a device come to read as zeroes.
    pub holes: Holes,
}

impl Target {
    /// Opens `path` for an image, without any option.
    ///
    /// # Errors
    /// As of [`open_with`](Self::open_with).
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, TargetOptions::default(), &Keep::default())
    }

    /// Opens `path` for an image, with what is to be known of it beyond the end of this run.
    /// Nothing is overwritten yet: of a file only its temporary is created, a device is only held.
    ///
    /// # Errors
    /// [`TargetError::Kind`], [`TargetError::Exists`], [`TargetError::Busy`],
    /// [`TargetError::ReadOnly`] or [`TargetError::Open`], with `path` in it; [`Error::Usage`] if
    /// the journal cannot be used.
    pub fn open_with(path: &Path, options: TargetOptions, keep: &Keep) -> Result<Self, Error> {
        let kind = open_kind(path, options, keep)?;
        let kept = Kept::open(&kind, keep)?;
        let direct = DirectFile::reopen(kind.file());
        Ok(Self { path: path.into(), direct, kind, kept, reading: Mutex::default() })
    }

    /// The output, as the operator wrote it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Octets that a device holds; `None` for a file.
    #[must_use]
    pub const fn capacity(&self) -> Option<u64> {
        match &self.kind {
            Kind::File(_) => None,
            Kind::Device(device) => Some(device.bytes()),
        }
    }

    /// Whether an image of `image_bytes` can fit at all. A file is sparse, so that
    /// [`check_room`](Self::check_room) decides for it once the zero blocks are known.
    ///
    /// # Errors
    /// [`TargetError::TooSmall`].
    pub fn check_size(&self, image_bytes: u64) -> Result<(), Error> {
        match self.capacity() {
            Some(target_bytes) if target_bytes < image_bytes => {
                let path = self.path.clone();
                Err(TargetError::TooSmall { path, image_bytes, target_bytes }.into())
            }
            _ => Ok(()),
        }
    }

    /// Whether the partition table of an image, which counts in sectors of this size, means
    /// something on this device. A file is of any size.
    ///
    /// # Errors
    /// [`TargetError::SectorSize`].
    pub fn check_sectors(&self, of_image: Option<SectorSize>) -> Result<(), Error> {
        let (Some(image_octets), Kind::Device(device)) = (of_image, &self.kind) else {
            return Ok(());
        };
        match device.sector_octets() {
            Some(target_octets) if target_octets != image_octets.octets() => {
                let path = self.path.clone();
                Err(TargetError::SectorSize { path, target_octets, image_octets }.into())
            }
            _ => Ok(()),
        }
    }

    /// What will be overwritten, if it is a device.
    #[must_use]
    pub fn disk(&self) -> Option<Disk> {
        match &self.kind {
            Kind::File(_) => None,
            Kind::Device(device) => Some(device.disk(&self.path)),
        }
    }

    /// Whether the file system of an output file has room for the `data_bytes` of an image that
    /// lie in blocks that are not zero. Others may fill it up later all the same.
    ///
    /// # Errors
    /// [`TargetError::NoRoom`]. A file system that does not tell has room.
    pub fn check_room(&self, data_bytes: u64) -> Result<(), Error> {
        let Kind::File(file) = &self.kind else { return Ok(()) };
        // What an earlier run wrote has its room.
        let needed_bytes = data_bytes.saturating_sub(file.allocated_bytes());
        match file.free_bytes() {
            Ok(free_bytes) if free_bytes < needed_bytes => {
                let path = self.path.clone();
                Err(TargetError::NoRoom { path, needed_bytes, free_bytes }.into())
            }
            _ => Ok(()),
        }
    }

    /// The same octets for every name of the same target on this host, and no others.
    #[must_use]
    pub fn canonical_key(&self) -> Vec<u8> {
        match &self.kind {
            Kind::File(file) => [b"file ", file.path().as_os_str().as_bytes()].concat(),
            Kind::Device(device) => format!("device {}", device.number()).into_bytes(),
        }
    }

    /// What there may be of an image from before, and where to look for it; and where to note what
    /// is on disk, and whether to read that back.
    pub(super) fn search(
        &mut self,
        image: ImageId,
        layout: &Layout,
        zero: &BitSet,
    ) -> (Option<Search>, Option<Journal>, bool) {
        let mut journal = self.kept.journal.take();
        let claims = journal.as_mut().and_then(|journal| journal.begin(image, layout));
        let places = (self.kept.in_place.then(|| self.kind.file()), self.kept.old.as_ref());
        let search = Search::new(places, claims, layout, zero, self.is_device());
        if let (Some(journal), None) = (&mut journal, &search) {
            journal.note_searched();
        }
        (search, journal, self.kept.reads_back)
    }

    /// Where a run that is ended early leaves what it has; `None` if nowhere.
    #[must_use]
    pub fn keeper(&self, keep: &Keep) -> Option<Keeper> {
        Keeper::new(&self.kind, &self.path, keep)
    }

    /// Whether anything of an image may be there.
    #[must_use]
    pub const fn may_hold_something(&self) -> bool {
        self.kept.in_place || self.kept.old.is_some()
    }

    /// Makes a file as long as the image.
    pub(super) fn set_len(&self, image_bytes: u64) -> Result<(), Error> {
        match &self.kind {
            Kind::File(file) => {
                let grown = file.set_len(image_bytes);
                grown.map_err(|source| self.write_error(image_bytes, source))
            }
            Kind::Device(_) => Ok(()),
        }
    }

    fn write_error(&self, offset: u64, source: io::Error) -> Error {
        Error::Write { path: self.path.clone(), offset, source }
    }
}

impl Medium for Target {
    fn path(&self) -> &Path {
        &self.path
    }

    fn is_device(&self) -> bool {
        matches!(self.kind, Kind::Device(_))
    }

    fn make_room(&self, image_bytes: u64) -> Result<(), Error> {
        self.check_size(image_bytes)?;
        self.set_len(image_bytes)
    }

    fn writes_at_a_time(&self) -> usize {
        if self.direct.is_some() { WRITES_PAST_PAGE_CACHE } else { 1 }
    }

    fn flusher(&self) -> io::Result<Flush> {
        let file = self.kind.file().try_clone()?;
        Ok(Box::new(move || file.sync_data()))
    }

    fn write(&self, bytes: &[u8], offset: u64, bounce: &mut Bounce) -> Result<(), Error> {
        let past_cache = match &self.direct {
            Some(direct) => direct.write(bytes, offset, bounce),
            None => Ok(0),
        };
        // What is left is the odd end of an image: never an octet beyond it.
        let written = past_cache
            .and_then(|done| self.kind.file().write_all_at(&bytes[done..], offset + done as u64));
        written.map_err(|source| self.write_error(offset, source))
    }

    fn zero(&self, range: Range<u64>, anew: bool) -> Result<(), Error> {
        let start = range.start;
        match &self.kind {
            Kind::File(file) => file.zero(range),
            Kind::Device(device) => device.zero(range, anew),
        }
        .map_err(|source| self.write_error(start, source))
    }

    fn flush(&self) -> io::Result<()> {
        self.kind.file().sync_data()
    }

    fn check_sectors(&self, of_image: Option<SectorSize>) -> Result<(), Error> {
        Self::check_sectors(self, of_image)
    }

    /// Gives a file its name; of a device the kernel is to know the new partitions.
    fn commit(self: Box<Self>) -> Result<(), Error> {
        let Self { path, direct, kind, reading, .. } = *self;
        // Other handles of a device keep the kernel from looking at it anew.
        drop((direct, reading));
        match kind {
            Kind::File(file) => file.commit(path),
            Kind::Device(device) => {
                if let Err(error) = device.reread_partitions() {
                    let path = path.display();
                    warn!(%error, "{path} is written, but the kernel keeps to its old partitions");
                }
                Ok(())
            }
        }
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut reading = lock(&self.reading);
        match &mut *reading {
            Some(reading) => reading.read(bytes, offset),
            none => none.insert(Reading::new(self.kind.file())?).read(bytes, offset),
        }
    }
}

#[derive(Debug)]
pub(super) enum Kind {
    File(OutputFile),
    Device(Device),
}

impl Kind {
    pub(super) fn file(&self) -> &File {
        match self {
            Self::File(file) => file.file(),
            Self::Device(device) => device.file(),
        }
    }
}

fn open_kind(path: &Path, options: TargetOptions, keep: &Keep) -> Result<Kind, TargetError> {
    let unfit = |kind| Err(TargetError::Kind { path: path.into(), kind });
    match fs::metadata(path) {
        Ok(metadata) => match unfit_kind(&metadata) {
            Some(kind) => unfit(kind),
            None => open_existing(path, &metadata, options, keep),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(path).is_ok() {
                return unfit("a symbolic link that leads nowhere");
            }
            if path.as_os_str().as_bytes().ends_with(b"/") {
                return unfit("a directory that does not exist");
            }
            let Some(name) = path.file_name() else { return unfit("not a file name") };
            let directory = directory_of(path)?;
            if directory.starts_with("/dev") && !directory.starts_with("/dev/shm") {
                return unfit("not there, and a plain file in /dev would only fill the memory");
            }
            open_file(directory.join(name), None, options, keep)
        }
        Err(source) => Err(TargetError::Open { path: path.into(), source }),
    }
}

fn open_existing(
    path: &Path,
    metadata: &Metadata,
    options: TargetOptions,
    keep: &Keep,
) -> Result<Kind, TargetError> {
    if metadata.file_type().is_block_device() {
        let number = DeviceNumber::of(metadata.rdev());
        return Device::open(path, number, options.holes).map(Kind::Device);
    }
    // Whoever goes on with what is there wants it replaced.
    if !options.overwrite && !keep.resumes {
        return Err(TargetError::Exists { path: path.into(), kept: None });
    }
    let canonical = fs::canonicalize(path);
    let canonical = canonical.map_err(|source| TargetError::Open { path: path.into(), source })?;
    let uses = guard::uses_of_file(Path::new("/"), &canonical, metadata);
    if !uses.is_empty() {
        return Err(TargetError::Busy { path: path.into(), uses });
    }
    open_file(canonical, Some(metadata), options, keep)
}

fn open_file(
    path: PathBuf,
    old: Option<&Metadata>,
    options: TargetOptions,
    keep: &Keep,
) -> Result<Kind, TargetError> {
    let instead = Instead::new(old, options.overwrite);
    let file = if keep.leaves_a_trace() {
        OutputFile::keep(path, instead, !keep.resumes)
    } else {
        OutputFile::create(path, instead)
    };
    file.map(Kind::File)
}

/// What cannot be written to in any order and read back; `None` for a file or block device.
fn unfit_kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_char_device() {
        Some("a character device, which has no offsets to write at")
    } else if kind.is_fifo() {
        Some("a pipe, and blocks arrive in any order")
    } else {
        Some("a socket or something stranger")
    }
}

/// The directory that holds `path`, with all links followed.
fn directory_of(path: &Path) -> Result<PathBuf, TargetError> {
    let parent = path.parent().map_or(OsStr::new("."), Path::as_os_str);
    let parent = Path::new(if parent.is_empty() { OsStr::new(".") } else { parent });
    fs::canonicalize(parent).map_err(|source| TargetError::Open { path: parent.into(), source })
}

/// Measured: two at a time keep a disk busy while a block is copied.
const WRITES_PAST_PAGE_CACHE: usize = 2;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};

    use super::*;
    use crate::image::testing::{FILLING, LoopDevice, Scratch, close, run, skip};

    fn open_error(path: &Path) -> Error {
        Target::open(path).unwrap_err()
    }

    #[test]
    fn what_cannot_hold_an_image_is_refused_with_words() {
        let scratch = Scratch::new();
        let at = |name: &str| scratch.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        for (path, words) in [
            (scratch.path().to_path_buf(), "it is a directory; name a block device"),
            ("/dev/null".into(), "a character device"),
            (at("pipe"), "a pipe"),
            (at("dangling"), "leads nowhere"),
            (at("new/"), "a directory that does not exist"),
            ("/dev/imgcast-misspelt".into(), "a plain file in /dev"),
        ] {
            let error = open_error(&path);
            assert_eq!((error.code(), error.exit_code()), ("target-kind", 7), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = open_error(&at("missing/file"));
        assert_eq!(error.code(), "target-open");
        assert!(error.to_string().contains("missing for writing"), "{error}");
        assert_eq!(scratch.names(), ["dangling", "pipe"]);
    }

    #[test]
    fn a_file_appears_whole_and_a_dropped_one_never() {
        let scratch = Scratch::new();
        let path = scratch.path().join("disk.img");
        let target = Target::open(&path).unwrap();
        target.set_len(1000).unwrap();
        target.write(b"abc", 500, &mut Bounce::default()).unwrap();
        let names = scratch.names();
        let [temporary] = &names[..] else { panic!("{names:?}") };
        assert!(temporary.starts_with(".disk.img.") && temporary.ends_with(".part"));
        let mode = fs::metadata(scratch.path().join(temporary)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "nobody reads half an image");
        drop(target);
        assert_eq!(scratch.names(), [""; 0]);

        let target = Target::open(&path).unwrap();
        target.set_len(1000).unwrap();
        target.write(b"abc", 500, &mut Bounce::default()).unwrap();
        target.zero(600..1000, false).unwrap();
        target.flush().unwrap();
        Box::new(target).commit().unwrap();
        assert_eq!(scratch.names(), ["disk.img"]);
        let contents = fs::read(&path).unwrap();
        assert_eq!((contents.len(), &contents[500..503]), (1000, &b"abc"[..]));
        let fresh = File::create(scratch.path().join("fresh")).unwrap();
        let mode = |file: &Metadata| file.permissions().mode() & 0o7777;
        assert_eq!(
            mode(&fs::metadata(&path).unwrap()),
            mode(&fresh.metadata().unwrap()),
            "the mode of any new file"
        );
    }

    #[test]
    fn whoever_resumes_may_replace_the_file_that_is_there_and_nobody_else() {
        let scratch = Scratch::new();
        let path = scratch.path().join("disk.img");
        fs::write(&path, "old").unwrap();
        assert_eq!(open_error(&path).code(), "target-exists");
        let journal = Some(scratch.path().join("journal"));
        let keep = Keep { journal, ..Keep::default() };
        let error = Target::open_with(&path, TargetOptions::default(), &keep).unwrap_err();
        assert_eq!(error.code(), "target-exists", "a journal alone is no permission");
        let keep = Keep { resumes: true, ..Keep::default() };
        let target = Target::open_with(&path, TargetOptions::default(), &keep).unwrap();
        assert!(target.may_hold_something());
        target.write(b"new", 0, &mut Bounce::default()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        Box::new(target).commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(scratch.names(), ["disk.img"]);
    }

    #[test]
    fn a_replaced_file_stays_until_the_end_and_hands_on_its_mode() {
        let scratch = Scratch::new();
        let path = scratch.path().join("disk.img");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = scratch.path().join("link");
        symlink("disk.img", &link).unwrap();
        let dead_run = scratch.path().join(".disk.img.00000000.part");
        fs::write(&dead_run, "debris").unwrap();

        let options = TargetOptions { overwrite: true, ..TargetOptions::default() };
        let target = Target::open_with(&link, options, &Keep::default()).unwrap();
        target.write(b"new", 0, &mut Bounce::default()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        Box::new(target).commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "the link leads there still");
        assert_eq!(fs::read(&dead_run).unwrap(), b"debris");
    }

    #[test]
    fn a_file_that_is_there_is_refused_and_one_that_comes_meanwhile_is_left_alone() {
        let scratch = Scratch::new();
        let path = scratch.path().join("disk.img");
        fs::write(&path, "old").unwrap();
        let error = open_error(&path);
        assert_eq!((error.code(), error.exit_code()), ("target-exists", 7), "{error}");
        assert_eq!(scratch.names(), ["disk.img"]);

        fs::remove_file(&path).unwrap();
        let target = Target::open(&path).unwrap();
        target.write(b"new", 0, &mut Bounce::default()).unwrap();
        fs::write(&path, "another").unwrap();
        let error = Box::new(target).commit().unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("target-exists", 7), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"another");
        let Error::Target(TargetError::Exists { kept: Some(kept), .. }) = error else {
            panic!("{error}")
        };
        assert_eq!(fs::read(&kept).unwrap(), b"new");
        assert_eq!(scratch.names().len(), 2);
    }

    #[test]
    fn a_file_has_one_key_by_all_its_names() {
        let scratch = Scratch::new();
        let path = scratch.path().join("disk.img");
        symlink(".", scratch.path().join("loop")).unwrap();
        let direct = Target::open(&path).unwrap().canonical_key();
        let detour = Target::open(&scratch.path().join("loop/../loop/disk.img"));
        // `loop/..` is the parent of the directory that `loop` leads to.
        assert!(detour.is_err());
        let detour = Target::open(&scratch.path().join("loop/loop/disk.img")).unwrap();
        assert_eq!(detour.canonical_key(), direct);
        let other = Target::open(&scratch.path().join("other.img")).unwrap();
        assert_ne!(other.canonical_key(), direct);
    }

    #[test]
    fn a_long_name_gets_a_temporary_too() {
        let scratch = Scratch::new();
        let name = "n".repeat(255);
        Box::new(Target::open(&scratch.path().join(&name)).unwrap()).commit().unwrap();
        assert_eq!(scratch.names(), [name]);
    }

    #[test]
    fn a_file_has_no_capacity_but_its_file_system_has_limited_room() {
        let scratch = Scratch::new();
        let target = Target::open(&scratch.path().join("disk.img")).unwrap();
        assert_eq!(target.capacity(), None);
        target.check_size(u64::MAX).unwrap();
        target.check_room(1).unwrap();
        let error = target.check_room(u64::MAX).unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("target-no-room", 7));
        assert!(error.to_string().contains("disk.img"));
    }

    #[test]
    fn a_device_is_held_measured_and_let_go() {
        let test = "a_device_is_held_measured_and_let_go";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let target = Target::open(device.path()).unwrap();
        assert_eq!(target.capacity(), Some(1 << 20));
        target.check_size(1 << 20).unwrap();
        target.check_room(u64::MAX).unwrap();
        let error = target.check_size((1 << 20) + 1).unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("target-too-small", 7));
        assert!(error.to_string().contains("1048576") && error.to_string().contains("1048577"));
        let second = open_error(device.path());
        assert_eq!((second.code(), second.exit_code()), ("target-busy", 7));
        let alias = device.scratch().path().join("alias");
        symlink(device.path(), &alias).unwrap();
        let key = target.canonical_key();
        close(target);
        assert_eq!(Target::open(&alias).unwrap().canonical_key(), key);
        assert!(device.contents().iter().all(|octet| *octet == FILLING), "opening writes nothing");
    }

    #[test]
    fn zeroing_a_device_keeps_to_the_range_even_within_a_sector() {
        let test = "zeroing_a_device_keeps_to_the_range_even_within_a_sector";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let target = Target::open(device.path()).unwrap();
        target.zero(4096..8192, false).unwrap();
        target.zero(65_536..70_001, false).unwrap();
        target.zero(100..100, false).unwrap();
        target.flush().unwrap();
        drop(target);
        for (at, octet) in device.contents().into_iter().enumerate() {
            let zeroed = (4096..8192).contains(&at) || (65_536..70_001).contains(&at);
            assert_eq!(octet, if zeroed { 0 } else { FILLING }, "octet {at}");
        }
    }

    #[test]
    fn a_mounted_device_is_refused_by_mount_point_and_untouched() {
        let test = "a_mounted_device_is_refused_by_mount_point_and_untouched";
        let Some(device) = LoopDevice::attach(test, 4 << 20) else { return };
        let name = device.path().to_str().unwrap();
        let mount_point = device.scratch().path().join("mount point");
        fs::create_dir(&mount_point).unwrap();
        let mounted = run("mkfs.ext4", &["-q", name])
            .and_then(|_| run("mount", &[name, mount_point.to_str().unwrap()]));
        if mounted.is_none() {
            return skip(test, "cannot make and mount an ext4 file system here");
        }
        let before = fs::read(device.path());
        let result = Target::open(device.path());
        let after = fs::read(device.path());
        run("umount", &[mount_point.to_str().unwrap()]).unwrap();
        let error = result.unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("target-busy", 7));
        let words = format!("{name} is mounted on {}", mount_point.display());
        assert!(error.to_string().contains(&words), "{error}");
        assert_eq!(before.unwrap(), after.unwrap());
    }

    #[test]
    fn the_disk_of_a_mounted_partition_is_refused() {
        let test = "the_disk_of_a_mounted_partition_is_refused";
        let Some(device) = LoopDevice::attach(test, 8 << 20) else { return };
        let name = device.path().to_str().unwrap();
        let partition = format!("{name}p1");
        let mount_point = device.scratch().path().join("mnt");
        let mount_point = mount_point.to_str().unwrap();
        fs::create_dir(mount_point).unwrap();
        let mounted = run("addpart", &[name, "1", "2048", "8192"])
            .and_then(|_| run("mkfs.ext4", &["-q", &partition]))
            .and_then(|_| run("mount", &[&partition, mount_point]));
        let result = mounted.as_ref().map(|_| Target::open(device.path()));
        run("umount", &[mount_point]);
        let released = result.as_ref().map(|_| Target::open(device.path()));
        run("delpart", &[name, "1"]);
        let (Some(result), Some(released)) = (result, released) else {
            return skip(test, "cannot mount a partition of a loop device here");
        };
        let error = result.unwrap_err();
        assert_eq!(error.code(), "target-busy");
        let words = format!("{partition} is mounted on {mount_point}");
        assert!(error.to_string().contains(&words), "{error}");
        released.unwrap();
    }

    #[test]
    fn a_read_only_device_is_refused() {
        let test = "a_read_only_device_is_refused";
        let Some(device) = LoopDevice::attach_read_only(test, 1 << 20) else { return };
        let error = open_error(device.path());
        assert_eq!((error.code(), error.exit_code()), ("target-read-only", 7), "{error}");
    }

    #[test]
    fn a_device_that_something_invisible_holds_is_refused() {
        let test = "a_device_that_something_invisible_holds_is_refused";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let mut options = fs::OpenOptions::new();
        let holder = options.read(true).custom_flags(nix::libc::O_EXCL).open(device.path());
        let holder = holder.unwrap();
        let error = open_error(device.path());
        assert_eq!((error.code(), error.exit_code()), ("target-busy", 7));
        assert!(error.to_string().contains("the kernel says it is busy"), "{error}");
        close(holder);
        Target::open(device.path()).unwrap();
    }

    #[test]
    fn a_locked_device_is_refused() {
        let test = "a_locked_device_is_refused";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let file = File::open(device.path()).unwrap();
        let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock);
        let lock = lock.unwrap();
        let error = open_error(device.path());
        assert!(error.to_string().contains("another program has locked it"), "{error}");
        close(lock);
        Target::open(device.path()).unwrap();
    }
}
