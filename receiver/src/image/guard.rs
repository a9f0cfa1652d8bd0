//! Finds out who uses a block device, before the kernel just says "busy".
//!
//! This room only explains: what keeps a device from being opened is O_EXCL, which the kernel
//! refuses while the device, or a part of it, is mounted, swapped to or built upon, in any mount
//! namespace.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::sysfs::{BlockDevice, DeviceNumber};

/// One thing that uses a block device, and how to end that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeviceUse {
    /// It, or a partition of it, is mounted.
    Mounted {
        /// The device or partition.
        device: String,
        /// Where.
        mount_point: PathBuf,
    },
    /// It, or a partition of it, is swapped to.
    Swap {
        /// The device or partition.
        device: String,
    },
    /// Another device is built on it or on a partition of it.
    Held {
        /// The device or partition.
        device: String,
        /// The other device.
        holder: String,
    },
    /// Another program has locked it.
    Locked,
    /// The kernel says so, and nothing shows by whom.
    Unknown,
}

impl fmt::Display for DeviceUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { device, mount_point } => {
                let mount_point = mount_point.display();
                write!(f, "{device} is mounted on {mount_point} (umount {mount_point})")
            }
            Self::Swap { device } => write!(f, "{device} is used as swap (swapoff {device})"),
            Self::Held { device, holder } => write!(
                f,
                "{device} is held by {holder} (close it with vgchange -an, dmsetup remove, \
                 cryptsetup close or mdadm --stop)"
            ),
            Self::Locked => {
                f.write_str("another program has locked it, perhaps a second receiver or an fsck")
            }
            Self::Unknown => f.write_str(
                "the kernel says it is busy: it may be mounted in another mount namespace \
                 (a container), or opened exclusively by another program",
            ),
        }
    }
}

/// Everything that is known to use the device or its partitions; `root` is `/` but in tests.
pub(super) fn uses_of(root: &Path, number: DeviceNumber) -> Vec<DeviceUse> {
    let Some(device) = BlockDevice::find(root, number) else { return Vec::new() };
    let mut family = device.partitions(root);
    family.insert(0, device);
    let read = |path| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut uses = mounts(&read("proc/self/mountinfo"), &family);
    uses.extend(swaps(&read("proc/swaps"), &family));
    for device in &family {
        let held = |holder| DeviceUse::Held { device: path_of(device), holder };
        uses.extend(device.holders().into_iter().map(held));
    }
    uses
}

/// Whether sysfs calls the device read-only.
pub(super) fn is_read_only(root: &Path, number: DeviceNumber) -> bool {
    BlockDevice::find(root, number).is_some_and(|device| device.is_read_only())
}

/// Mounts of these devices, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)):
/// `id parent major:minor root mount-point options [fields] - type source options`.
fn mounts(mountinfo: &str, family: &[BlockDevice]) -> Vec<DeviceUse> {
    let mounted = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let number = DeviceNumber::parse(before.next()?)?;
        let mount_point = before.nth(1)?;
        // File systems over several devices, such as btrfs, have a number of their own.
        let source = after.split(' ').nth(1)?;
        let device =
            family.iter().find(|device| device.number == number || path_of(device) == source)?;
        let mount_point = PathBuf::from(unescaped(mount_point));
        Some(DeviceUse::Mounted { device: path_of(device), mount_point })
    };
    let mut uses: Vec<DeviceUse> = mountinfo.lines().filter_map(mounted).collect();
    uses.dedup();
    uses
}

/// Which of these devices are in `/proc/swaps`: a heading, then a path at the start of each line.
fn swaps(swaps: &str, family: &[BlockDevice]) -> Vec<DeviceUse> {
    let paths = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let ours = paths.map(unescaped).filter(|path| family.iter().any(|it| path_of(it) == *path));
    ours.map(|device| DeviceUse::Swap { device }).collect()
}

fn path_of(device: &BlockDevice) -> String {
    format!("/dev/{}", device.name)
}

/// Undoes the kernel's `\040` for a space and its like.
fn unescaped(text: &str) -> String {
    let mut pieces = text.split('\\');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let octal = piece.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(octet) => {
                plain.push(char::from(octet));
                plain.push_str(&piece[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(piece);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::image::testing::Scratch;

    /// A tree like the kernel's, with the disk `sda` (8:0) and its partitions 1 and 2.
    fn machine(mountinfo: &str, swaps: &str) -> Scratch {
        let scratch = Scratch::new();
        let write = |path: &str, text: &str| {
            let path = scratch.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/self/mountinfo", mountinfo);
        write("proc/swaps", &format!("Filename Type Size Used Priority\n{swaps}"));
        write("sys/devices/sda/ro", "0\n");
        fs::create_dir_all(scratch.path().join("sys/dev/block")).unwrap();
        for (name, number) in [("sda", "8:0"), ("sda/sda1", "8:1"), ("sda/sda2", "8:2")] {
            write(&format!("sys/devices/{name}/dev"), &format!("{number}\n"));
            if name != "sda" {
                write(&format!("sys/devices/{name}/partition"), "1\n");
            }
            fs::create_dir_all(scratch.path().join(format!("sys/devices/{name}/holders"))).unwrap();
            let link = scratch.path().join("sys/dev/block").join(number);
            symlink(format!("../../devices/{name}"), link).unwrap();
        }
        scratch
    }

    fn uses(machine: &Scratch, number: &str) -> Vec<String> {
        let uses = uses_of(machine.path(), DeviceNumber::parse(number).unwrap());
        uses.iter().map(DeviceUse::to_string).collect()
    }

    #[test]
    fn nobody_uses_an_idle_disk_among_busy_ones() {
        let machine = machine(
            "22 1 8:16 / / rw - ext4 /dev/sdb rw\n23 22 0:21 / /proc rw - proc proc rw\n",
            "/dev/sdb2 partition 1024 0 -2\n",
        );
        assert_eq!(uses(&machine, "8:0"), [""; 0]);
        assert_eq!(uses(&machine, "9:9"), [""; 0], "a device that sysfs does not know");
    }

    #[test]
    fn a_mounted_partition_is_named_with_its_mount_point() {
        let machine =
            machine("40 1 8:2 / /srv/my\\040data rw,relatime shared:1 - ext4 /dev/sda2 rw\n", "");
        let expected = "/dev/sda2 is mounted on /srv/my data (umount /srv/my data)";
        assert_eq!(uses(&machine, "8:0"), [expected], "the whole disk");
        assert_eq!(uses(&machine, "8:2"), [expected], "the partition itself");
        assert_eq!(uses(&machine, "8:1"), [""; 0], "its neighbour");
    }

    #[test]
    fn a_file_system_with_a_number_of_its_own_is_found_by_its_source() {
        let machine = machine("40 1 0:33 /@home /home rw - btrfs /dev/sda1 rw,ssd\n", "");
        assert_eq!(uses(&machine, "8:0"), ["/dev/sda1 is mounted on /home (umount /home)"]);
    }

    #[test]
    fn swap_and_holders_are_named() {
        let machine = machine("", "/dev/sda1 partition 1024 0 -2\n/swapfile file 1 0 -3\n");
        let holder = machine.path().join("sys/devices/sda/sda2/holders/dm-0/dm");
        fs::create_dir_all(&holder).unwrap();
        fs::write(holder.join("name"), "vg-root\n").unwrap();
        let uses = uses(&machine, "8:0");
        assert_eq!(uses[0], "/dev/sda1 is used as swap (swapoff /dev/sda1)");
        assert!(uses[1].starts_with("/dev/sda2 is held by dm-0 (vg-root) (close it with"));
        assert_eq!(uses.len(), 2);
    }

    #[test]
    fn the_read_only_flag_is_read() {
        let machine = machine("", "");
        let number = DeviceNumber::parse("8:0").unwrap();
        assert!(!is_read_only(machine.path(), number));
        fs::write(machine.path().join("sys/devices/sda/ro"), "1\n").unwrap();
        assert!(is_read_only(machine.path(), number));
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(unescaped("a\\040b\\011c"), "a b\tc");
        assert_eq!(unescaped("\\04"), "\\04");
        assert_eq!(unescaped("\\\u{e9}0"), "\\\u{e9}0");
        assert_eq!(unescaped("\\777x"), "\\777x");
    }
}
