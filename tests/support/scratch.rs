//! Directories for files that nobody needs once the process is over.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A directory of this test process's own; dropping it removes it with all that is in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// One below the system's directory for temporary files.
    ///
    /// # Panics
    ///
    /// As [`Scratch::below`].
    #[must_use]
    pub fn temporary() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// One in memory where the system has a place for that, so that no disk is measured; else as
    /// [`Scratch::temporary`].
    ///
    /// # Panics
    ///
    /// As [`Scratch::below`].
    #[must_use]
    pub fn in_memory() -> Self {
        let memory = Path::new(MEMORY);
        if memory.is_dir() { Self::below(memory) } else { Self::temporary() }
    }

    /// One below `base`.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn below(base: &Path) -> Self {
        static SCRATCHES: AtomicUsize = AtomicUsize::new(0);
        let number = SCRATCHES.fetch_add(1, Ordering::Relaxed);
        let directory = base.join(format!("imgcast-lab-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).expect("a scratch directory can be made");
        Self(directory)
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The path of `name` in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes an image of `mib` MiB that does not compress, the same in every run.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn random_image(&self, mib: u64) -> PathBuf {
        let path = self.path(&format!("{mib}-mib.img"));
        let mut octets = blake3::Hasher::new().update(b"lab image").finalize_xof().take(mib << 20);
        let mut file = File::create(&path).expect("an image can be created");
        io::copy(&mut octets, &mut file).expect("an image can be written");
        file.flush().expect("an image can be written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where Linux has a file system in memory that programs may use.
pub const MEMORY: &str = "/dev/shm";

/// Removes scratch directories below `base` of processes that were killed before they could.
pub fn delete_orphans(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_orphan) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether `name` is of the form `imgcast-lab-PID-…`, with a process that is no more.
#[must_use]
pub fn is_orphan(name: &str) -> bool {
    let pid = name.strip_prefix("imgcast-lab-").and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}
