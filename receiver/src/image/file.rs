//! A file as the target: a temporary beside the output, which gets its name when it is complete.
//!
//! Whoever opens the output sees the old file or the whole new one. Temporaries that earlier runs
//! left behind when they were killed are not touched: they may belong to a run on another host.
//! What is to be resumed has a temporary of a name of its own, which stays until it is complete,
//! and is locked meanwhile.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use imgcast_common::prng::Prng;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, Flock, FlockArg, RenameFlags, renameat2};
use nix::libc::O_NOFOLLOW;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::geteuid;

use super::guard;
use super::zeroes;
use crate::error::{Error, TargetError};

/// The temporary of an output file. Dropped without [`commit`](Self::commit), it is removed.
#[derive(Debug)]
pub(super) struct OutputFile {
    /// The output, with all links followed.
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    /// Where both are.
    directory: File,
    instead: Instead,
    committed: bool,
    /// Of a temporary that stays.
    lock: Option<Flock<File>>,
    before: Before,
}

/// What is to happen to a file that has the output's name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instead {
    /// Whether it is replaced, though it may appear only later.
    allowed: bool,
    /// Mode and owner of the one that is there.
    of_old: Option<(u32, u32, u32)>,
}

impl Instead {
    /// For an output that may exist as `old`; what does not yet is replaced only if that is
    /// `allowed`.
    pub(super) fn new(old: Option<&Metadata>, allowed: bool) -> Self {
        let of_old = old.map(|old| (old.mode() & MODE_MASK, old.uid(), old.gid()));
        Self { allowed: allowed || of_old.is_some(), of_old }
    }
}

/// What an earlier run left in the temporary.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Before {
    Nothing,
    /// Something that is given up when this run begins to write.
    Dropped,
    /// Something that may be right.
    Kept,
}

impl OutputFile {
    /// Creates the temporary beside `path`, which is canonical.
    ///
    /// # Errors
    /// [`TargetError::Open`] or [`TargetError::Directory`] if the directory does not allow it.
    pub(super) fn create(path: PathBuf, instead: Instead) -> Result<Self, TargetError> {
        let directory = directory_of(&path)?;
        let temporary = temporary_for(&path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(O_NOFOLLOW);
        match options.open(&temporary) {
            Ok(file) => Ok(Self {
                path,
                temporary,
                file,
                directory,
                instead,
                committed: false,
                lock: None,
                before: Before::Nothing,
            }),
            Err(source) => Err(TargetError::Open { path: temporary, source }),
        }
    }

    /// Likewise, with a temporary that stays if it does not get complete, or the one of an earlier
    /// run; with `anew`, whatever that holds is given up.
    ///
    /// # Errors
    /// [`TargetError::Open`], [`TargetError::Directory`]; [`TargetError::Busy`] if another run
    /// writes to it.
    pub(super) fn keep(path: PathBuf, instead: Instead, anew: bool) -> Result<Self, TargetError> {
        let directory = directory_of(&path)?;
        let temporary = kept_beside(&path);
        let failed = |source| TargetError::Open { path: temporary.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(O_NOFOLLOW).open(&temporary).map_err(failed)?;
        let lock = Flock::lock(file.try_clone().map_err(failed)?, FlockArg::LockExclusiveNonblock);
        let lock = match lock {
            Err((_, errno)) if errno != Errno::EWOULDBLOCK => return Err(failed(errno.into())),
            lock => lock.ok(),
        };
        let own = file.metadata().map_err(failed)?;
        // Whoever held the lock may have given the file its name meanwhile.
        let named = fs::symlink_metadata(&temporary).ok();
        let is_named =
            named.is_some_and(|it| (it.dev(), it.ino()) == (own.dev(), own.ino()) && it.is_file());
        let Some(lock) = lock.filter(|_| is_named) else {
            let uses = guard::locked_by(Path::new("/"), &temporary, &own);
            return Err(TargetError::Busy { path: temporary, uses });
        };
        if own.uid() != geteuid().as_raw() || own.nlink() != 1 {
            // It is to become the image: nobody else may have a hand on it.
            let text = "it belongs to somebody else, or has a second name; remove it";
            return Err(failed(io::Error::other(text)));
        }
        let before = match (own.len(), anew) {
            (0, _) => Before::Nothing,
            (_, true) => Before::Dropped,
            (_, false) => Before::Kept,
        };
        let lock = Some(lock);
        Ok(Self { path, temporary, file, directory, instead, committed: false, lock, before })
    }

    /// Whether an earlier run wrote something to it that may be right.
    pub(super) fn had_before(&self) -> bool {
        self.before == Before::Kept
    }

    /// Makes it as long as the image, where nothing is kept all of it a hole.
    pub(super) fn set_len(&self, image_bytes: u64) -> io::Result<()> {
        if self.before == Before::Dropped {
            self.file.set_len(0)?;
        }
        self.file.set_len(image_bytes)
    }

    /// Octets that the temporary takes on disk by now.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.blocks().saturating_mul(512))
    }

    /// Makes a range read as zeroes; only where an earlier run wrote it does not from the start.
    pub(super) fn zero(&self, range: Range<u64>) -> io::Result<()> {
        if !self.had_before() || range.is_empty() {
            return Ok(());
        }
        if zeroes::allocate(&self.file, FallocateFlags::FALLOC_FL_PUNCH_HOLE, &range) {
            return Ok(());
        }
        zeroes::write(&self.file, range)
    }

    /// The output, with all links followed.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The temporary, open for reading and writing.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Octets that this user may still write to the file system.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let space = fstatvfs(&self.file)?;
        Ok(space.blocks_available().saturating_mul(space.fragment_size()))
    }

    /// Gives the temporary the mode and the name of the output, all of it on disk. `shown` is what
    /// the operator calls it.
    ///
    /// # Errors
    /// [`TargetError::Exists`] if there is a file of that name now which may not be replaced: the
    /// temporary is kept, complete as it is. [`Error::Flush`], [`Error::Rename`] or
    /// [`Error::NameSync`] with what the kernel says.
    pub(super) fn commit(mut self, shown: PathBuf) -> Result<(), Error> {
        if let Err(source) = self.give_mode() {
            return Err(Error::Flush { path: shown, offset: 0, unflushed_bytes: 0, source });
        }
        match self.give_name() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.committed = true;
                let kept = Some(self.temporary.clone());
                Err(TargetError::Exists { path: shown, kept }.into())
            }
            Err(source) => Err(Error::Rename { path: shown, source }),
            // Without it the name, though not the file, might be lost with the power.
            Ok(()) => {
                let synced = self.directory.sync_all();
                synced.map_err(|source| Error::NameSync { path: shown, source })
            }
        }
    }

    fn give_mode(&self) -> io::Result<()> {
        let mode = match self.instead.of_old {
            Some((mode, uid, gid)) => {
                // Only root can, and a file that is ours now is no reason to fail.
                let _ = fchown(&self.file, Some(uid), Some(gid));
                mode
            }
            None => 0o666 & !umask(),
        };
        self.file.set_permissions(Permissions::from_mode(mode))?;
        self.file.sync_all()
    }

    fn give_name(&mut self) -> io::Result<()> {
        if self.instead.allowed {
            fs::rename(&self.temporary, &self.path)?;
        } else {
            rename_to_free(&self.temporary, &self.path)?;
        }
        self.committed = true;
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        let is_of_use = self.lock.is_some() && self.file.metadata().is_ok_and(|it| it.len() > 0);
        if !self.committed && !is_of_use {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Renames a file, unless the new name is taken.
fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // Kernels before 3.15, and network file systems. A link is never put over another name.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

/// Opens the directory of `path`, which is canonical, before anything depends on it.
fn directory_of(path: &Path) -> Result<File, TargetError> {
    let directory = path.parent().unwrap_or(path);
    let failed = |source| TargetError::Directory { path: directory.into(), source };
    File::open(directory).map_err(failed)
}

/// The temporary that stays until the output at `path` is complete.
pub(super) fn kept_beside(path: &Path) -> PathBuf {
    beside(path, ".imgcast-part")
}

/// `.name` with an ending, in the directory of `path`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    let own = path.file_name().unwrap_or_default().as_bytes();
    name.push(std::ffi::OsStr::from_bytes(&own[..own.len().min(NAME_OCTETS_MAX)]));
    name.push(ending);
    path.with_file_name(name)
}

/// `.name.01234567.part` in the directory of `path`.
fn temporary_for(path: &Path) -> PathBuf {
    let [_, _, _, _, random @ ..] = Prng::fresh_seed().to_be_bytes();
    beside(path, &format!(".{:08x}.part", u32::from_be_bytes(random)))
}

/// The process's file mode creation mask. To ask umask(2) is to change it, for all threads.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    value.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(UMASK_DEFAULT)
}

/// Permissions without set-uid, set-gid and sticky, which no disk image should have.
const MODE_MASK: u32 = 0o777;
/// What nearly every system has.
const UMASK_DEFAULT: u32 = 0o022;
/// File systems allow 255 octets; the dot and the longest ending take 17.
const NAME_OCTETS_MAX: usize = 238;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::Scratch;

    fn create(path: &Path) -> OutputFile {
        let file = OutputFile::create(path.into(), Instead::new(None, false)).unwrap();
        file.set_len(4096).unwrap();
        file
    }

    #[test]
    fn a_name_that_cannot_be_synced_is_there_and_said_to_be_so() {
        let scratch = Scratch::new();
        let path = scratch.path().join("image");
        let mut file = create(&path);
        // Which cannot be synced.
        file.directory = File::open("/dev/null").unwrap();
        let error = file.commit("shown".into()).unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("name-sync", 8));
        assert!(error.to_string().contains("complete and is called shown, but"), "{error}");
        assert_eq!(scratch.names(), ["image"]);
        assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
    }

    #[test]
    fn a_directory_that_cannot_be_opened_is_refused_before_anything_is_made() {
        let scratch = Scratch::new();
        let path = scratch.path().join("gone/image");
        let error = OutputFile::create(path, Instead::new(None, false)).unwrap_err();
        assert_eq!(error.code(), "target-directory");
        assert!(error.to_string().contains("gone: "), "{error}");
        assert_eq!(scratch.names(), [""; 0]);
    }

    #[test]
    fn what_appears_later_is_replaced_only_where_that_is_allowed() {
        let scratch = Scratch::new();
        let path = scratch.path().join("image");
        for allowed in [false, true] {
            let file = OutputFile::create(path.clone(), Instead::new(None, allowed)).unwrap();
            fs::write(&path, "old").unwrap();
            assert_eq!(file.commit(path.clone()).is_ok(), allowed);
            assert_eq!(fs::read(&path).unwrap().is_empty(), allowed);
        }
    }
}
