//! What the kernel says about a block device, read from sysfs: an initramfs has no udev and no
//! lsblk to ask.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// A block device as sysfs shows it, whole or a partition.
#[derive(Clone, Debug)]
pub(super) struct BlockDevice {
    /// Its number.
    pub(super) number: DeviceNumber,
    /// What the kernel calls it: `sda2`.
    pub(super) name: String,
    directory: PathBuf,
}

impl BlockDevice {
    /// Looks a device up; `root` is `/` but in tests. `None` if sysfs does not know it.
    pub(super) fn find(root: &Path, number: DeviceNumber) -> Option<Self> {
        let link = root.join("sys/dev/block").join(number.to_string());
        let directory = fs::canonicalize(link).ok()?;
        let name = directory.file_name()?.to_string_lossy().replace('!', "/");
        Some(Self { number, name, directory })
    }

    /// Its partitions, by number; none if it is one itself.
    pub(super) fn partitions(&self, root: &Path) -> Vec<Self> {
        let children = names_in(&self.directory).into_iter().map(|name| self.directory.join(name));
        let partitions = children.filter(|child| child.join("partition").exists());
        let numbers =
            partitions.filter_map(|child| DeviceNumber::parse(&attribute(&child, "dev")?));
        let mut found: Vec<Self> = numbers.filter_map(|number| Self::find(root, number)).collect();
        found.sort_by_key(|device| device.number);
        found
    }

    /// The devices built on it (LVM, crypt, RAID), with the name people gave them where there is
    /// one: `dm-0 (vg-root)`.
    pub(super) fn holders(&self) -> Vec<String> {
        let directory = self.directory.join("holders");
        let named = |holder: String| match attribute(&directory.join(&holder), "dm/name") {
            Some(name) => format!("{holder} ({name})"),
            None => holder,
        };
        names_in(&directory).into_iter().map(named).collect()
    }

    /// Whether it takes no writes.
    pub(super) fn is_read_only(&self) -> bool {
        attribute(&self.directory, "ro").is_some_and(|value| value == "1")
    }
}

/// The number of a device: major and minor.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct DeviceNumber {
    major: u64,
    minor: u64,
}

impl DeviceNumber {
    /// From `st_rdev`.
    pub(super) const fn of(rdev: u64) -> Self {
        Self { major: major(rdev), minor: minor(rdev) }
    }

    /// Reads `8:2`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

fn attribute(directory: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(directory.join(name)).ok()?;
    Some(text.trim().to_owned())
}

/// The names in a directory, sorted; none if it cannot be read.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}
