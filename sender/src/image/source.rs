//! The image as a file: opened once, read anywhere by anybody.
//!
//! Decides what may be sent as an image and what it takes to be the same image as another time.
//! Whether its bytes are still those that were indexed is found out by who reads blocks. Programs
//! that lock what they write to are kept from it: no receiver on this host overwrites a disk while
//! that is being sent.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use imgcast_common::layout::IMAGE_BYTES_MAX;
use imgcast_common::units::ByteSize;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::error::Error;

/// An image that is open for reading.
#[derive(Debug)]
pub struct ImageSource {
    path: PathBuf,
    file: File,
    bytes: u64,
    identity: Option<Identity>,
    /// Held until it is dropped; `None` where the file system knows no locks.
    _lock: Option<Flock<File>>,
}

impl ImageSource {
    /// Opens a regular file or a block device, never for writing, and shares a lock on it with
    /// whoever else only reads it.
    ///
    /// # Errors
    /// [`Error::ImageOpen`], [`Error::ImageKind`], [`Error::ImageLocked`], [`Error::ImageEmpty`],
    /// [`Error::ImageTooLarge`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let refused = |source| Error::ImageOpen { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        // Otherwise a pipe would block until somebody writes to it. Files and disks do not care.
        options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let file = options.open(path).map_err(refused)?;
        let metadata = file.metadata().map_err(refused)?;
        if let Some(kind) = unfit_kind(&metadata) {
            return Err(Error::ImageKind { path: path.to_owned(), kind });
        }
        let lock = shared_lock(&file, path)?;
        let identity = metadata.is_file().then(|| Identity::of(&metadata));
        let bytes = match identity {
            Some(identity) => identity.bytes,
            None => (&file).seek(SeekFrom::End(0)).map_err(refused)?,
        };
        match bytes {
            0 => Err(Error::ImageEmpty { path: path.to_owned() }),
            1..=IMAGE_BYTES_MAX => {
                Ok(Self { path: path.to_owned(), file, bytes, identity, _lock: lock })
            }
            _ => Err(Error::ImageTooLarge {
                path: path.to_owned(),
                size: ByteSize(bytes),
                size_max: ByteSize(IMAGE_BYTES_MAX),
            }),
        }
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length when it was opened, in octets; at least 1.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `buffer` with the octets from `offset` on; any number of threads may read at once.
    ///
    /// # Errors
    /// [`Error::ImageRead`], or [`Error::ImageTruncated`] if the file has become shorter.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.file.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.changed_at(offset),
            _ => Error::ImageRead { path: self.path.clone(), offset, source },
        })
    }

    /// What it was when it was opened. `None` for a block device: it changes without a trace, so
    /// that nothing may be remembered about it.
    #[must_use]
    pub const fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Whether somebody has written to the file since it was opened, as far as its length and
    /// times tell; for a block device they never do.
    ///
    /// A new name or owner is no change.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.identity.is_some_and(|then| {
            // A file that cannot be asked has gone, along with its server.
            self.file.metadata().map_or(true, |metadata| {
                let now = Identity::of(&metadata);
                (now.bytes, now.modified_ns) != (then.bytes, then.modified_ns)
            })
        })
    }

    /// The error that says the image has changed, noticed at `offset`, or become shorter.
    pub(super) fn changed_at(&self, offset: u64) -> Error {
        let path = self.path.clone();
        match (&self.file).seek(SeekFrom::End(0)) {
            Ok(bytes_now) if bytes_now < self.bytes => {
                Error::ImageTruncated { path, bytes_before: self.bytes, bytes_now }
            }
            _ => Error::ImageChanged { path, offset },
        }
    }
}

/// What tells one state of a file from all others on this host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The file system's device.
    pub device: u64,
    /// The file's number in it.
    pub inode: u64,
    /// Its length, in octets.
    pub bytes: u64,
    /// When it was last written to, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// When anything about it last changed, in nanoseconds since 1970; cannot be set by hand.
    pub changed_ns: i128,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Locks an image as whoever reads it does (systemd's "Locking Block Device Access" for devices).
fn shared_lock(file: &File, path: &Path) -> Result<Option<Flock<File>>, Error> {
    let refused = |source| Error::ImageOpen { path: path.to_owned(), source };
    match Flock::lock(file.try_clone().map_err(refused)?, FlockArg::LockSharedNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(Error::ImageLocked { path: path.to_owned() }),
        // Some file systems, most of them on a network, have no locks: that is no reason to fail.
        Err(_) => Ok(None),
    }
}

/// What a file is, in the operator's words, if it is nothing that can be sent.
fn unfit_kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        None
    } else if kind.is_dir() {
        Some("directory")
    } else if kind.is_fifo() {
        Some("pipe")
    } else if kind.is_char_device() {
        Some("character device")
    } else {
        Some("special file")
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::image::testing::TestDir;

    #[test]
    fn reads_anywhere_and_refuses_to_read_beyond_the_end() {
        let dir = TestDir::new("source-read");
        let source = ImageSource::open(&dir.file("image", b"0123456789")).unwrap();
        assert_eq!(source.bytes(), 10);
        let mut three = [0; 3];
        source.read_at(7, &mut three).unwrap();
        assert_eq!(&three, b"789");
        let error = source.read_at(8, &mut three).unwrap_err();
        assert!(
            matches!(error, Error::ImageChanged { offset: 8, .. }),
            "as long as it was: {error}"
        );
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let dir = TestDir::new("source-refused");
        let pipe = dir.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        for (path, kind) in [
            (dir.path(), "directory"),
            (pipe.as_path(), "pipe"),
            (Path::new("/dev/null"), "character device"),
        ] {
            let error = ImageSource::open(path).unwrap_err();
            assert_eq!(error.code(), "image-kind");
            let text = error.to_string();
            assert!(text.contains(kind) && text.contains(path.to_str().unwrap()), "{text}");
        }
        let empty = ImageSource::open(&dir.file("empty", b"")).unwrap_err();
        assert_eq!(empty.code(), "image-empty");
        let missing = ImageSource::open(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.code(), "image-open");
    }

    #[test]
    fn whoever_reads_an_image_shares_a_lock_that_keeps_writers_away() {
        let dir = TestDir::new("source-locked");
        let path = dir.file("image", b"0123456789");
        let sources = [ImageSource::open(&path).unwrap(), ImageSource::open(&path).unwrap()];
        let exclusive = || Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock);
        for source in sources {
            assert_eq!(exclusive().unwrap_err().1, Errno::EWOULDBLOCK);
            drop(source);
        }
        let _writer = exclusive().unwrap();
        let error = ImageSource::open(&path).unwrap_err();
        assert_eq!(error.code(), "image-locked");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }

    #[test]
    fn an_image_above_8_tib_is_refused_where_the_file_system_can_hold_one() {
        let dir = TestDir::new("source-large");
        let path = dir.file("image", b"");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        if file.set_len(IMAGE_BYTES_MAX + 1).is_ok() {
            assert_eq!(ImageSource::open(&path).unwrap_err().code(), "image-too-large");
        }
    }

    #[test]
    fn writing_is_noticed_and_renaming_is_not() {
        let dir = TestDir::new("source-changed");
        let path = dir.file("image", b"0123456789");
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        let modified = UNIX_EPOCH + Duration::new(1_000_000_000, 5);
        writer.set_modified(modified).unwrap();

        let source = ImageSource::open(&path).unwrap();
        let identity = source.identity().unwrap();
        assert_eq!((identity.bytes, identity.modified_ns), (10, 1_000_000_000_000_000_005));
        fs::rename(&path, dir.path().join("renamed")).unwrap();
        assert!(!source.has_changed());
        writer.set_modified(modified + Duration::from_nanos(1)).unwrap();
        assert!(source.has_changed());

        writer.set_modified(modified).unwrap();
        assert!(!source.has_changed());
        writer.set_len(9).unwrap();
        writer.set_modified(modified).unwrap();
        assert!(source.has_changed());
    }
}
