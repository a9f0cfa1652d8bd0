//! Disks that take only so much: a control group whose members write no faster to one device.
//!
//! Made where the system has the controller ready, `blkio` of cgroup v1 or `io` of v2; nothing of
//! the system's own groups is changed. Writes through the page cache are not held up by v1.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::process::Process;
use crate::scratch::is_orphan;

/// The control group; dropping it removes it, once its members have ended.
#[derive(Debug)]
pub struct Throttle(PathBuf);

impl Throttle {
    /// Whoever is held by it writes no more than so many octets a second to `device`.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn new(device: &Path, bytes_per_second: u64) -> Result<Self, String> {
        let failed = |error| format!("{}: {error}", device.display());
        let number = fs::metadata(device).map_err(failed)?.rdev();
        let number = format!("{}:{}", major(number), minor(number));
        let name = format!("imgcast-lab-{}-disk", std::process::id());
        let limits =
            [format!("{number} {bytes_per_second}"), format!("{number} wbps={bytes_per_second}")];
        for ((hierarchy, file), limit) in HIERARCHIES.into_iter().zip(limits) {
            let group = Path::new(hierarchy).join(&name);
            if is_hierarchy(hierarchy) && fs::create_dir(&group).is_ok() {
                let throttle = Self(group);
                if throttle.write(file, &limit).is_ok() {
                    return Ok(throttle);
                }
            }
        }
        Err("no control groups that limit writes to a device".into())
    }

    /// Holds `process`, which has just been started.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn hold(&self, process: &Process) -> Result<(), String> {
        self.write("cgroup.procs", &process.id().to_string())
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        let path = self.0.join(file);
        let file = OpenOptions::new().write(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Removes groups of test processes that were killed before they could.
pub fn delete_orphans() {
    for (hierarchy, _) in HIERARCHIES.into_iter().filter(|(hierarchy, _)| is_hierarchy(hierarchy)) {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_orphan) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// With cgroup v1 the place of v2's groups may be an ordinary directory.
fn is_hierarchy(path: &str) -> bool {
    Path::new(path).join("cgroup.procs").exists()
}

/// Where groups are made, and which file has their limit for writes.
const HIERARCHIES: [(&str, &str); 2] =
    [("/sys/fs/cgroup/blkio", "blkio.throttle.write_bps_device"), ("/sys/fs/cgroup", "io.max")];
