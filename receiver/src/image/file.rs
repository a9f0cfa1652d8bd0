//! A file as the target: a temporary beside the output, which gets its name when it is complete.
//!
//! Whoever opens the output sees the old file or the whole new one. Temporaries that earlier runs
//! left behind when they were killed are not touched: they may belong to a run on another host.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use imgcast_common::prng::Prng;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc::O_NOFOLLOW;
use nix::sys::statvfs::fstatvfs;

use crate::error::{Error, TargetError};

/// The temporary of an output file. Dropped without [`commit`](Self::commit), it is removed.
#[derive(Debug)]
pub(super) struct OutputFile {
    /// The output, with all links followed.
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    /// Mode and owner of the file that is replaced.
    replaced: Option<(u32, u32, u32)>,
    committed: bool,
}

impl OutputFile {
    /// Creates the temporary beside `path`, which is canonical, and may exist as `replaced`.
    ///
    /// # Errors
    /// [`TargetError::Open`] if the directory does not allow it.
    pub(super) fn create(path: PathBuf, replaced: Option<&Metadata>) -> Result<Self, TargetError> {
        let replaced = replaced.map(|old| (old.mode() & MODE_MASK, old.uid(), old.gid()));
        let temporary = temporary_for(&path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(O_NOFOLLOW);
        match options.open(&temporary) {
            Ok(file) => Ok(Self { path, temporary, file, replaced, committed: false }),
            Err(source) => Err(TargetError::Open { path: temporary, source }),
        }
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
    /// [`TargetError::Exists`] if there is a file of that name now and there was none: the
    /// temporary is kept, complete as it is. [`Error::Rename`] with what the kernel says.
    pub(super) fn commit(mut self, shown: PathBuf) -> Result<(), Error> {
        match self.give_name() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.committed = true;
                let kept = Some(self.temporary.clone());
                Err(TargetError::Exists { path: shown, kept }.into())
            }
            named => named.map_err(|source| Error::Rename { path: shown, source }),
        }
    }

    fn give_name(&mut self) -> io::Result<()> {
        let mode = match self.replaced {
            Some((mode, uid, gid)) => {
                // Only root can, and a file that is ours now is no reason to fail.
                let _ = fchown(&self.file, Some(uid), Some(gid));
                mode
            }
            None => 0o666 & !umask(),
        };
        self.file.set_permissions(Permissions::from_mode(mode))?;
        self.file.sync_all()?;
        match self.replaced {
            Some(_) => fs::rename(&self.temporary, &self.path)?,
            None => rename_to_free(&self.temporary, &self.path)?,
        }
        self.committed = true;
        // Without it the name, though not the file, might be lost with the power.
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if !self.committed {
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

/// `.name.01234567.part` in the directory of `path`.
fn temporary_for(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    let own = path.file_name().unwrap_or_default().as_bytes();
    name.push(std::ffi::OsStr::from_bytes(&own[..own.len().min(NAME_OCTETS_MAX)]));
    let [_, _, _, _, random @ ..] = Prng::fresh_seed().to_be_bytes();
    name.push(format!(".{:08x}.part", u32::from_be_bytes(random)));
    path.with_file_name(name)
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
/// File systems allow 255 octets; the dots, the digits and `part` take 15.
const NAME_OCTETS_MAX: usize = 240;
