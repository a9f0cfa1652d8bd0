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

    /// All whole devices, sorted by what the kernel calls them.
    pub(super) fn all(root: &Path) -> Vec<Self> {
        let directory = root.join("sys/block");
        let numbers = names_in(&directory).into_iter();
        let numbers = numbers.filter_map(|name| number_in(&directory.join(name)));
        numbers.filter_map(|number| Self::find(root, number)).collect()
    }

    /// Whether the kernel calls a device so, be it whole or a partition.
    pub(super) fn is_called(root: &Path, name: &str) -> bool {
        let disks = Self::all(root);
        let mut devices = disks.iter().flat_map(|disk| disk.partitions(root)).chain(disks.clone());
        devices.any(|device| device.name == name)
    }

    /// Where it is to be found.
    pub(super) fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Its partitions, by number; none if it is one itself.
    pub(super) fn partitions(&self, root: &Path) -> Vec<Self> {
        let children = names_in(&self.directory).into_iter().map(|name| self.directory.join(name));
        let partitions = children.filter(|child| child.join("partition").exists());
        let numbers = partitions.filter_map(|child| number_in(&child));
        let mut found: Vec<Self> = numbers.filter_map(|number| Self::find(root, number)).collect();
        found.sort_by_key(|device| device.number);
        found
    }

    /// The disk that it is a partition of.
    pub(super) fn disk(&self, root: &Path) -> Option<Self> {
        attribute(&self.directory, "partition")?;
        Self::find(root, number_in(self.directory.parent()?)?)
    }

    /// The devices built on it: LVM, crypt, RAID.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let directory = self.directory.join("holders");
        let holder = |name: String| {
            let directory = directory.join(&name);
            Holder {
                number: number_in(&directory),
                given_name: attribute(&directory, "dm/name"),
                uuid: attribute(&directory, "dm/uuid").unwrap_or_default(),
                name,
            }
        };
        names_in(&directory).into_iter().map(holder).collect()
    }

    /// Whether it takes no writes.
    pub(super) fn is_read_only(&self) -> bool {
        attribute(&self.directory, "ro").is_some_and(|value| value == "1")
    }

    /// Octets that it holds.
    pub(super) fn bytes(&self) -> Option<u64> {
        attribute(&self.directory, "size")?.parse::<u64>().ok()?.checked_mul(SIZE_UNIT_OCTETS)
    }

    /// Octets in one of its logical sectors.
    pub(super) fn sector_octets(&self) -> Option<u32> {
        let own = attribute(&self.directory, LOGICAL_SECTOR);
        own.or_else(|| attribute(self.directory.parent()?, LOGICAL_SECTOR))?.parse().ok()
    }

    /// The file that it shows as a device, if it is a loop device.
    pub(super) fn backing_file(&self) -> Option<PathBuf> {
        attribute(&self.directory, "loop/backing_file").map(Into::into)
    }

    /// What its maker calls it.
    pub(super) fn model(&self) -> Option<String> {
        let of_device = |name| attribute(&self.directory, name).filter(|text| !text.is_empty());
        // A number that its bus knows it by tells people nothing.
        let vendor = of_device("device/vendor").filter(|vendor| !vendor.starts_with("0x"));
        let model = of_device("device/model").or_else(|| of_device("device/name"))?;
        Some(vendor.into_iter().chain([model]).collect::<Vec<String>>().join(" "))
    }

    /// What it was labelled as a partition.
    pub(super) fn label(&self) -> Option<String> {
        let lines = attribute(&self.directory, "uevent")?;
        lines.lines().find_map(|line| line.strip_prefix("PARTNAME=").map(str::to_owned))
    }

    /// Its serial numbers, by which its maker knows it: disks have several spellings of one.
    pub(super) fn serials(&self, root: &Path) -> Vec<String> {
        let plain = ["serial", "device/serial"].into_iter();
        let plain = plain.filter_map(|name| attribute(&self.directory, name));
        let page = fs::read(self.directory.join("device/vpd_pg80")).ok();
        // SPC-6, section 7.7.19: a header of four octets.
        let page = page.and_then(|page| Some(String::from_utf8_lossy(page.get(4..)?).into_owned()));
        let known =
            self.known_to_udev(root, &["ID_SERIAL_SHORT", "ID_SERIAL", "SCSI_IDENT_SERIAL"]);
        tidied(plain.chain(page).chain(known))
    }

    /// Its world wide names.
    pub(super) fn wwns(&self, root: &Path) -> Vec<String> {
        let plain = ["wwid", "device/wwid"].into_iter();
        let plain = plain.filter_map(|name| attribute(&self.directory, name));
        let known = self.known_to_udev(root, &["ID_WWN", "ID_WWN_WITH_EXTENSION"]);
        tidied(plain.chain(known))
    }

    /// Properties that udev, where it runs, has found out.
    fn known_to_udev(&self, root: &Path, names: &[&str]) -> Vec<String> {
        let file = root.join(format!("run/udev/data/b{}", self.number));
        let text = fs::read_to_string(file).unwrap_or_default();
        let properties = text.lines().filter_map(|line| line.strip_prefix("E:")?.split_once('='));
        let properties = properties.filter(|(name, _)| names.contains(name));
        properties.map(|(_, value)| value.to_owned()).collect()
    }
}

/// A device that is built on another one.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    /// What the kernel calls it: `dm-0`.
    pub(super) name: String,
    /// Its number, if it tells.
    pub(super) number: Option<DeviceNumber>,
    /// What people call a device mapper's device: `vg-root`.
    pub(super) given_name: Option<String>,
    /// Which begins with what made it: `LVM-`, `CRYPT-`.
    pub(super) uuid: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.given_name {
            Some(given_name) => write!(f, "{} ({given_name})", self.name),
            None => f.write_str(&self.name),
        }
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

fn number_in(directory: &Path) -> Option<DeviceNumber> {
    DeviceNumber::parse(&attribute(directory, "dev")?)
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

/// Without what pads them, and each once.
fn tidied(texts: impl Iterator<Item = String>) -> Vec<String> {
    let padding = |c: char| c.is_whitespace() || c == '\0';
    let mut tidy: Vec<String> = Vec::new();
    for text in texts {
        let text = text.trim_matches(padding);
        if !text.is_empty() && !tidy.iter().any(|other| other == text) {
            tidy.push(text.to_owned());
        }
    }
    tidy
}

/// What `size` counts in, whatever the sectors of the device are.
const SIZE_UNIT_OCTETS: u64 = 512;
const LOGICAL_SECTOR: &str = "queue/logical_block_size";
