//! Disks that fill up, fail or vanish, and processes that may take only so much memory: each made
//! of what any Linux has, for root.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::process::{Process, run};

/// A block device on a file; dropping it detaches that one device.
#[derive(Debug)]
pub struct LoopDisk {
    device: PathBuf,
    file: PathBuf,
}

impl LoopDisk {
    /// Attaches the first free device to `file`.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn new(file: &Path) -> Result<Self, String> {
        let device = run(&["losetup", "--find", "--show", &file.display().to_string()])?;
        Ok(Self { device: device.trim().into(), file: file.to_owned() })
    }

    /// The device.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.device
    }

    /// Cuts the file behind it: what lay there cannot be read any more.
    ///
    /// # Panics
    ///
    /// If that cannot be done.
    pub fn cut_to(&self, bytes: u64) {
        let file = OpenOptions::new().write(true).open(&self.file);
        file.and_then(|file| file.set_len(bytes)).expect("a file can be cut");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = run(&["losetup", "--detach", &self.device.display().to_string()]);
    }
}

/// A file system in memory of a limited size; dropping it unmounts it.
#[derive(Debug)]
pub struct SmallFileSystem(PathBuf);

impl SmallFileSystem {
    /// Mounts one that holds so many octets at `directory`, which is made.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn new(directory: &Path, bytes: u64) -> Result<Self, String> {
        fs::create_dir_all(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        let (size, place) = (format!("size={bytes}"), directory.display().to_string());
        run(&["mount", "-t", "tmpfs", "-o", &size, "imgcast-test", &place])?;
        Ok(Self(directory.to_owned()))
    }

    /// Fills it up, with a file beside whatever else is there.
    ///
    /// # Panics
    ///
    /// If not even that file can be made.
    pub fn fill(&self) {
        let mut file = File::create(self.0.join("filling")).expect("a file can be made");
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    /// The path of `name` in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = run(&["umount", "--lazy", &self.0.display().to_string()]);
    }
}

/// A control group whose members get only so much memory, and are killed when they want more.
#[derive(Debug)]
pub struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn new(bytes: u64) -> Result<Self, String> {
        static LIMITS: AtomicUsize = AtomicUsize::new(0);
        let number = LIMITS.fetch_add(1, Ordering::Relaxed);
        let name = format!("imgcast-memory-{}-{number}", std::process::id());
        for (hierarchy, file) in HIERARCHIES {
            let group = Path::new(hierarchy).join(&name);
            if Path::new(hierarchy).join("cgroup.procs").exists() && fs::create_dir(&group).is_ok()
            {
                let limit = Self(group);
                if fs::write(limit.0.join(file), bytes.to_string()).is_ok() {
                    return Ok(limit);
                }
            }
        }
        Err("no control groups that limit memory".into())
    }

    /// Holds `process`, which has just been started.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn hold(&self, process: &Process) -> Result<(), String> {
        let path = self.0.join("cgroup.procs");
        fs::write(&path, process.id().to_string()).map_err(|e| format!("{}: {e}", path.display()))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where groups are made, of cgroup v1 and v2, and which file has their limit.
const HIERARCHIES: [(&str, &str); 2] =
    [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
