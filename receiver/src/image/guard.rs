//! Finds out who uses a block device, before the kernel just says "busy".
//!
//! What keeps a device from being opened is O_EXCL, which the kernel refuses while the device, or a
//! part of it, is mounted, swapped to or built upon, in any mount namespace: that this room only
//! explains. Nothing to the kernel are loop devices on top of it, and processes that write to it
//! without a word to anybody, such as virtual machines and databases.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::openers::{Opener, openers, processes};
use super::sysfs::{BlockDevice, DeviceNumber, Holder};

/// One thing that uses a block device, and how to end that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeviceUse {
    /// This system runs from it.
    Root {
        /// The device, a partition of it, or what is built on it.
        device: String,
    },
    /// It, a partition of it or what is built on it is mounted.
    Mounted {
        /// The device that is.
        device: String,
        /// Where.
        mount_point: PathBuf,
    },
    /// The same, but only other processes see it.
    MountedElsewhere {
        /// The device that is.
        device: String,
        /// Where, for them.
        mount_point: PathBuf,
        /// One of them.
        process: u32,
    },
    /// It, a partition of it or what is built on it is swapped to.
    Swap {
        /// The device that is.
        device: String,
    },
    /// Another device is built on it or on a partition of it.
    Held {
        /// The device or partition.
        device: String,
        /// The other device.
        holder: String,
        /// The command that ends it.
        release: String,
    },
    /// It, a partition of it or its disk is open in another process, which may have it to itself.
    Open {
        /// The output.
        device: String,
        /// What the process is called.
        name: String,
        /// Its number.
        process: u32,
    },
    /// Another process may write to it, a partition of it, its disk or the file it shows.
    Written {
        /// The one that is.
        device: String,
        /// What the process is called.
        name: String,
        /// Its number.
        process: u32,
    },
    /// Another process has locked it, a partition of it, its disk or the file it shows.
    LockedBy {
        /// The one that is.
        device: String,
        /// What the process is called.
        name: String,
        /// Its number.
        process: u32,
    },
    /// Another program has locked it, and nothing shows which.
    Locked,
    /// The kernel says so, and nothing shows by whom.
    Unknown,
}

impl fmt::Display for DeviceUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root { device } => write!(
                f,
                "this system runs from {device}, its root file system; to overwrite it, boot \
                 another one, such as an initramfs"
            ),
            Self::Mounted { device, mount_point } => {
                let mount_point = mount_point.display();
                write!(f, "{device} is mounted on {mount_point} (umount {mount_point})")
            }
            Self::MountedElsewhere { device, mount_point, process } => {
                let mount_point = mount_point.display();
                write!(
                    f,
                    "{device} is mounted on {mount_point} in the mount namespace of process \
                     {process} (nsenter -t {process} -m umount {mount_point})"
                )
            }
            Self::Swap { device } => write!(f, "{device} is used as swap (swapoff {device})"),
            Self::Held { device, holder, release } => {
                write!(f, "{device} is held by {holder} ({release})")
            }
            Self::Open { device, name, process } => {
                write!(f, "{device} is open in {name}, process {process} (kill {process})")
            }
            Self::Written { device, name, process } => write!(
                f,
                "{device} is open for writing in {name}, process {process} (end that as it should \
                 be ended, or: kill {process})"
            ),
            Self::LockedBy { device, name, process } => {
                write!(f, "{device} is locked by {name}, process {process} (kill {process})")
            }
            Self::Locked => {
                f.write_str("another program has locked it, perhaps a second receiver or an fsck")
            }
            Self::Unknown => f.write_str(
                "the kernel says it is busy, and no process that can be seen from here has it \
                 open: it may belong to a mounted file system as its external journal or as a \
                 further member (btrfs, bcachefs, ZFS), or be mounted or opened exclusively in a \
                 container, or by another user; unmount that file system, or end that program",
            ),
        }
    }
}

/// Everything that is known to use the device, its partitions or the disk that it is a partition
/// of, in the order in which to end it. If the system runs from it, that alone: whatever else is
/// ended, it stays so. `root` is `/` but in tests.
pub(super) fn uses_of(root: &Path, number: DeviceNumber) -> Vec<DeviceUse> {
    let mut family = family_of(root, number);
    let loops: Vec<BlockDevice> =
        BlockDevice::all(root).into_iter().filter(|it| it.backing_file().is_some()).collect();
    let mut holds = Vec::new();
    let mut seen: BTreeSet<DeviceNumber> = family.iter().map(|device| device.number).collect();
    // Grows while it is walked: what is built on it, what is built on that, and so on.
    let mut at = 0;
    while let Some(device) = family.get(at).cloned() {
        for (holder, number, release) in holders(&device, &loops) {
            holds.push(DeviceUse::Held { device: path_of(&device), holder, release });
            let found = number.filter(|number| seen.insert(*number));
            family.extend(found.and_then(|number| BlockDevice::find(root, number)));
        }
        at += 1;
    }
    let read = |path| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut uses = mounts(&read("proc/self/mountinfo"), &family);
    uses.extend(swaps(&read("proc/swaps"), &family));
    // What is built last is to be taken down first.
    uses.extend(holds.into_iter().rev());
    let is_root = |it: &DeviceUse| matches!(it, DeviceUse::Root { .. });
    if uses.iter().any(is_root) {
        uses.retain(is_root);
    }
    uses
}

/// Mounts of the device or its partitions that this process does not see, one for each namespace.
pub(super) fn uses_elsewhere(root: &Path, number: DeviceNumber) -> Vec<DeviceUse> {
    let Some(device) = BlockDevice::find(root, number) else { return Vec::new() };
    let mut family = device.partitions(root);
    family.insert(0, device);
    let (mut namespaces, mut uses) = (BTreeSet::new(), Vec::new());
    for process in processes(root) {
        let directory = root.join("proc").join(process.to_string());
        let Ok(namespace) = fs::read_link(directory.join("ns/mnt")) else { continue };
        if namespaces.insert(namespace) {
            let mountinfo = fs::read_to_string(directory.join("mountinfo")).unwrap_or_default();
            let mounts = mount_points(&mountinfo, &family);
            uses.extend(mounts.into_iter().map(|(device, mount_point)| {
                DeviceUse::MountedElsewhere { device, mount_point, process }
            }));
        }
    }
    uses
}

/// Processes that have the device, a partition of it or its disk open: one of them has what the
/// kernel refuses to a second one.
pub(super) fn open_in(root: &Path, number: DeviceNumber) -> Vec<DeviceUse> {
    let family = family_of(root, number);
    let Some(shown) = family.first().map(path_of) else { return Vec::new() };
    let opened = openers(root, |link| behind(link, &family).map(drop));
    let opened = opened.into_iter().map(|it| DeviceUse::Open {
        device: shown.clone(),
        name: it.name,
        process: it.process,
    });
    opened.collect()
}

/// Processes that have the device, a partition of it or its disk open for writing, and those that
/// have locked a partition or the disk: its own lock is for whoever takes it to judge. Who only
/// reads it is not among them. Of a loop device the file that it shows counts as well: a sender
/// has that locked.
pub(super) fn writers_of(root: &Path, number: DeviceNumber) -> Vec<DeviceUse> {
    let family = family_of(root, number);
    let opened = openers(root, |link| behind(link, &family).map(|it| (it.number, path_of(it))));
    let others = opened.into_iter().filter(|it| it.may_write || it.what.0 != number);
    let uses = others.filter_map(|it| written_or_locked(it.what.1.clone(), it));
    let shown = family.iter().filter_map(BlockDevice::backing_file);
    uses.chain(shown.flat_map(|file| writers_of_file(root, &file))).collect()
}

/// Processes that may write to a file or have locked it; none of one that is found no more.
fn writers_of_file(root: &Path, path: &Path) -> Vec<DeviceUse> {
    let Ok(file) = fs::metadata(path) else { return Vec::new() };
    let opened = openers_of(root, &file).into_iter();
    opened.filter_map(|it| written_or_locked(path.display().to_string(), it)).collect()
}

/// What a process does to `device`, which it has open, if it is more than reading.
fn written_or_locked<T>(device: String, opener: Opener<T>) -> Option<DeviceUse> {
    let Opener { name, process, may_write, holds_lock, .. } = opener;
    if may_write {
        Some(DeviceUse::Written { device, name, process })
    } else {
        holds_lock.then_some(DeviceUse::LockedBy { device, name, process })
    }
}

/// Who has this file or device open.
fn openers_of(root: &Path, of: &Metadata) -> Vec<Opener<()>> {
    let is_it = |link: &Path| fs::metadata(link).is_ok_and(|it| is_same(&it, of));
    openers(root, |link| is_it(link).then_some(()))
}

/// Whether both are one file or one device.
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    let are_devices = one.file_type().is_block_device() && other.file_type().is_block_device();
    are_devices && one.rdev() == other.rdev()
        || (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The device, its partitions and the disk that it is a partition of.
fn family_of(root: &Path, number: DeviceNumber) -> Vec<BlockDevice> {
    let Some(device) = BlockDevice::find(root, number) else { return Vec::new() };
    let mut family = device.partitions(root);
    family.extend(device.disk(root));
    family.insert(0, device);
    family
}

/// Which of these devices a link of `/proc/PID/fd` leads to.
fn behind<'a>(link: &Path, family: &'a [BlockDevice]) -> Option<&'a BlockDevice> {
    // Most are sockets and pipes, whose links are no paths.
    let path = fs::read_link(link).ok().filter(|path| path.is_absolute())?;
    match fs::metadata(link) {
        Ok(it) if it.file_type().is_block_device() => {
            let number = DeviceNumber::of(it.rdev());
            family.iter().find(|device| device.number == number)
        }
        Ok(_) => None,
        Err(_) => family.iter().find(|device| device.path() == path),
    }
}

/// Who has locked what is at `path` and was seen to be `of`; at least one.
pub(super) fn locked_by(root: &Path, path: &Path, of: &Metadata) -> Vec<DeviceUse> {
    let mut uses: Vec<DeviceUse> = openers_of(root, of)
        .into_iter()
        .filter(|opener| opener.holds_lock)
        .map(|opener| DeviceUse::LockedBy {
            device: path.display().to_string(),
            name: opener.name,
            process: opener.process,
        })
        .collect();
    if uses.is_empty() {
        uses.push(DeviceUse::Locked);
    }
    uses
}

/// Loop devices that show this file, which was seen to be `file`, and what uses them.
pub(super) fn uses_of_file(root: &Path, path: &Path, file: &Metadata) -> Vec<DeviceUse> {
    let is_it =
        |behind: &Path| behind == path || fs::metadata(behind).is_ok_and(|it| is_same(&it, file));
    let mut uses = Vec::new();
    for device in BlockDevice::all(root) {
        if device.backing_file().is_some_and(|behind| is_it(&behind)) {
            uses.extend(uses_of(root, device.number));
            let release = format!("losetup -d {}", device.path().display());
            let file = path.display().to_string();
            uses.push(DeviceUse::Held { device: file, holder: device.name, release });
        }
    }
    uses
}

/// Whether sysfs calls the device read-only.
pub(super) fn is_read_only(root: &Path, number: DeviceNumber) -> bool {
    BlockDevice::find(root, number).is_some_and(|device| device.is_read_only())
}

/// What is built on a device, with its number and the command that takes it down.
fn holders(
    device: &BlockDevice,
    loops: &[BlockDevice],
) -> Vec<(String, Option<DeviceNumber>, String)> {
    let held = |holder: Holder| (holder.to_string(), holder.number, release_of(&holder));
    let path = device.path();
    let looped = loops.iter().filter(|it| it.backing_file().as_ref() == Some(&path)).map(|it| {
        (it.name.clone(), Some(it.number), format!("losetup -d {}", it.path().display()))
    });
    device.holders().into_iter().map(held).chain(looped).collect()
}

/// How to take a device down that is built on others.
fn release_of(holder: &Holder) -> String {
    let name = &holder.name;
    let Some(given_name) = &holder.given_name else {
        return match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "md" => format!("mdadm --stop /dev/{name}"),
            "bcache" => format!("echo 1 > /sys/block/{name}/bcache/stop"),
            _ => format!("find out what made {name}, and close it there"),
        };
    };
    match holder.uuid.split('-').next().unwrap_or_default() {
        "LVM" => format!("vgchange -an, or: dmsetup remove {given_name}"),
        "CRYPT" => format!("cryptsetup close {given_name}"),
        "mpath" => format!("multipath -f {given_name}, or write to /dev/mapper/{given_name}"),
        _ => format!("dmsetup remove {given_name}"),
    }
}

/// Mounts of these devices that this process sees.
fn mounts(mountinfo: &str, family: &[BlockDevice]) -> Vec<DeviceUse> {
    let mounted = |(device, mount_point): (String, PathBuf)| match mount_point.to_str() {
        Some("/") => DeviceUse::Root { device },
        _ => DeviceUse::Mounted { device, mount_point },
    };
    let mut uses: Vec<DeviceUse> =
        mount_points(mountinfo, family).into_iter().map(mounted).collect();
    uses.dedup();
    uses
}

/// Which of these devices is mounted where, from a mountinfo (proc_pid_mountinfo(5)):
/// `id parent major:minor root mount-point options [fields] - type source options`.
fn mount_points(mountinfo: &str, family: &[BlockDevice]) -> Vec<(String, PathBuf)> {
    let mounted = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let number = DeviceNumber::parse(before.next()?)?;
        let mount_point = before.nth(1)?;
        // File systems over several devices, such as btrfs, have a number of their own.
        let source = after.split(' ').nth(1)?;
        let device =
            family.iter().find(|device| device.number == number || path_of(device) == source)?;
        Some((path_of(device), PathBuf::from(unescaped(mount_point))))
    };
    mountinfo.lines().filter_map(mounted).collect()
}

/// Which of these devices are in `/proc/swaps`: a heading, then a path at the start of each line.
fn swaps(swaps: &str, family: &[BlockDevice]) -> Vec<DeviceUse> {
    let paths = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let ours = paths.map(unescaped).filter(|path| family.iter().any(|it| path_of(it) == *path));
    ours.map(|device| DeviceUse::Swap { device }).collect()
}

fn path_of(device: &BlockDevice) -> String {
    device.path().display().to_string()
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
    use crate::image::machine::Machine;

    fn machine(mountinfo: &str, swaps: &str) -> Machine {
        let machine = Machine::new();
        machine.write("proc/self/mountinfo", mountinfo);
        machine.write("proc/swaps", &format!("Filename Type Size Used Priority\n{swaps}"));
        machine
    }

    fn uses(machine: &Machine, number: &str) -> Vec<String> {
        let uses = uses_of(machine.root(), DeviceNumber::parse(number).unwrap());
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
        machine.add("dm-0", "253:0");
        machine.set("dm-0", "dm/name", "vg-root\n");
        machine.set("dm-0", "dm/uuid", "LVM-abc\n");
        machine.hold("sda/sda2", "dm-0");
        let held = "/dev/sda2 is held by dm-0 (vg-root) (vgchange -an, or: dmsetup remove vg-root)";
        let swap = "/dev/sda1 is used as swap (swapoff /dev/sda1)";
        assert_eq!(uses(&machine, "8:0"), [swap, held]);
    }

    #[test]
    fn what_is_built_on_what_is_built_on_it_is_found_and_comes_down_first() {
        let mountinfo = "40 1 253:1 / /home rw - ext4 /dev/mapper/home rw\n";
        let machine = machine(mountinfo, "/dev/dm-1 partition 1024 0 -2\n");
        for (name, number, given, uuid) in
            [("dm-0", "253:0", "crypt", "CRYPT-LUKS2-1"), ("dm-1", "253:1", "home", "LVM-2")]
        {
            machine.add(name, number);
            machine.set(name, "dm/name", given);
            machine.set(name, "dm/uuid", uuid);
        }
        machine.hold("sda/sda1", "dm-0");
        machine.hold("dm-0", "dm-1");
        // Whatever the kernel shows, this must end.
        machine.hold("dm-1", "dm-0");
        let expected = [
            "/dev/dm-1 is mounted on /home (umount /home)",
            "/dev/dm-1 is used as swap (swapoff /dev/dm-1)",
            "/dev/dm-1 is held by dm-0 (crypt) (cryptsetup close crypt)",
            "/dev/dm-0 is held by dm-1 (home) (vgchange -an, or: dmsetup remove home)",
            "/dev/sda1 is held by dm-0 (crypt) (cryptsetup close crypt)",
        ];
        assert_eq!(uses(&machine, "8:0"), expected);
        assert_eq!(uses(&machine, "8:2"), [""; 0], "the other partition");
    }

    #[test]
    fn a_partition_is_used_where_its_disk_is() {
        let machine = machine("40 1 8:0 / /srv rw - ext4 /dev/sda rw\n", "");
        machine.add("md127", "9:127");
        machine.hold("sda", "md127");
        let mounted = "/dev/sda is mounted on /srv (umount /srv)";
        let held = "/dev/sda is held by md127 (mdadm --stop /dev/md127)";
        for number in ["8:0", "8:1", "8:2"] {
            assert_eq!(uses(&machine, number), [mounted, held], "{number}");
        }
    }

    #[test]
    fn each_maker_of_devices_has_a_command_that_takes_them_down() {
        let release = |name: &str, given_name: Option<&str>, uuid: &str| {
            let given_name = given_name.map(str::to_owned);
            release_of(&Holder { name: name.into(), number: None, given_name, uuid: uuid.into() })
        };
        let mapped = |uuid| release("dm-3", Some("x"), uuid);
        assert_eq!(mapped("mpath-36"), "multipath -f x, or write to /dev/mapper/x");
        assert_eq!(mapped(""), "dmsetup remove x");
        assert_eq!(release("bcache2", None, ""), "echo 1 > /sys/block/bcache2/bcache/stop");
        assert!(release("drbd0", None, "").contains("drbd0"));
    }

    #[test]
    fn the_disk_that_the_system_runs_from_is_called_so() {
        let machine = machine(
            "21 1 8:2 /netns /run/netns rw - ext4 /dev/root rw\n\
             22 1 8:2 / / rw - ext4 /dev/root rw\n23 22 8:1 / /boot rw - ext4 /dev/sda1 rw\n",
            "/dev/sda1 partition 1024 0 -2\n",
        );
        // Nothing that can be unmounted or closed would help.
        machine.add("dm-0", "253:0");
        machine.hold("sda/sda2", "dm-0");
        let uses = uses(&machine, "8:0");
        assert!(uses[0].starts_with("this system runs from /dev/sda2, its root"), "{uses:?}");
        assert_eq!(uses.len(), 1);
    }

    #[test]
    fn a_loop_device_on_a_partition_holds_it() {
        let machine = machine("", "");
        machine.add("loop3", "7:3");
        machine.set("loop3", "loop/backing_file", "/dev/sda2\n");
        let held = "/dev/sda2 is held by loop3 (losetup -d /dev/loop3)";
        assert_eq!(uses(&machine, "8:0"), [held]);
        assert_eq!(uses(&machine, "7:3"), [""; 0]);
    }

    #[test]
    fn a_mount_that_only_others_see_is_told_once_with_one_of_them() {
        let machine = machine("", "");
        for (process, namespace) in [(30, 2), (4, 1), (200, 2)] {
            let mountinfo = "40 1 8:1 / /data rw - ext4 /dev/sda1 rw\n";
            let mountinfo = if namespace == 2 { mountinfo } else { "" };
            machine.write(&format!("proc/{process}/mountinfo"), mountinfo);
            machine.write(&format!("proc/{process}/ns/net"), "");
            let link = machine.root().join(format!("proc/{process}/ns/mnt"));
            symlink(format!("mnt:[{namespace}]"), link).unwrap();
        }
        let number = DeviceNumber::parse("8:0").unwrap();
        let uses = uses_elsewhere(machine.root(), number);
        let [only] = &uses[..] else { panic!("{uses:?}") };
        assert_eq!(
            only.to_string(),
            "/dev/sda1 is mounted on /data in the mount namespace of process 30 (nsenter -t 30 -m \
             umount /data)"
        );
    }

    #[test]
    fn whoever_has_the_device_a_partition_or_its_disk_open_is_named() {
        let machine = machine("", "");
        for (process, path) in [(30, "/dev/sda1"), (4, "/dev/sda"), (5, "/dev/sda2"), (6, "/x")] {
            machine.write(&format!("proc/{process}/comm"), &format!("p{process}\n"));
            let link = machine.root().join(format!("proc/{process}/fd/3"));
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(path, link).unwrap();
        }
        let open = |number: &str| -> Vec<String> {
            let uses = open_in(machine.root(), DeviceNumber::parse(number).unwrap());
            uses.iter().map(DeviceUse::to_string).collect()
        };
        let said = |device, process| {
            format!("{device} is open in p{process}, process {process} (kill {process})")
        };
        assert_eq!(open("8:1"), [said("/dev/sda1", 4), said("/dev/sda1", 30)]);
        assert_eq!(open("8:0"), [4, 5, 30].map(|process| said("/dev/sda", process)));
        assert_eq!(open("9:9"), [""; 0]);
    }

    #[test]
    fn whoever_writes_to_the_device_a_partition_or_its_disk_is_named_and_readers_are_not() {
        let machine = Machine::new();
        let lock = "lock:\t1: FLOCK  ADVISORY  READ 7 00:05:9 0 EOF\n";
        for (process, path, flags, lock) in [
            (30, "/dev/sda1", "02", ""),
            (4, "/dev/sda", "0100001", ""),
            (5, "/dev/sda2", "0100000", ""),
            (6, "/dev/sda2", "0", lock),
            (7, "/dev/sda", "0", lock),
            (8, "/x", "02", lock),
            (9, "socket:[1]", "02", ""),
        ] {
            machine.write(&format!("proc/{process}/comm"), &format!("p{process}\n"));
            let about = format!("pos:\t0\nflags:\t{flags}\n{lock}");
            machine.write(&format!("proc/{process}/fdinfo/3"), &about);
            let link = machine.root().join(format!("proc/{process}/fd/3"));
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(path, link).unwrap();
        }
        // Ourselves.
        symlink("30", machine.root().join("proc/self")).unwrap();
        let uses = |number: &str| -> Vec<String> {
            let uses = writers_of(machine.root(), DeviceNumber::parse(number).unwrap());
            uses.iter().map(DeviceUse::to_string).collect()
        };
        let whole = "/dev/sda is open for writing in p4, process 4 (end that as it should be \
                     ended, or: kill 4)";
        let part = "/dev/sda2 is locked by p6, process 6 (kill 6)";
        let disk = "/dev/sda is locked by p7, process 7 (kill 7)";
        assert_eq!(uses("8:0"), [whole, part]);
        assert_eq!(uses("8:1"), [whole, disk]);
        assert_eq!(uses("9:9"), [""; 0]);
    }

    #[test]
    fn whoever_writes_to_the_file_that_a_loop_device_shows_or_has_it_locked_is_named() {
        let machine = machine("", "");
        machine.write("srv/disk.img", "");
        let path = machine.root().join("srv/disk.img");
        machine.add("loop3", "7:3");
        machine.add("loop3/loop3p1", "259:1");
        machine.set("loop3", "loop/backing_file", &format!("{}\n", path.display()));
        let lock = "lock:\t1: FLOCK  ADVISORY  READ 7 00:05:9 0 EOF\n";
        for (process, flags, lock) in [(4, "02", ""), (5, "0", ""), (6, "0", lock)] {
            machine.write(&format!("proc/{process}/comm"), &format!("p{process}\n"));
            let about = format!("pos:\t0\nflags:\t{flags}\n{lock}");
            machine.write(&format!("proc/{process}/fdinfo/3"), &about);
            let link = machine.root().join(format!("proc/{process}/fd/3"));
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(&path, link).unwrap();
        }
        let uses = |number: &str| -> Vec<String> {
            let uses = writers_of(machine.root(), DeviceNumber::parse(number).unwrap());
            uses.iter().map(DeviceUse::to_string).collect()
        };
        let shown = path.display();
        let writer = format!(
            "{shown} is open for writing in p4, process 4 (end that as it should be ended, or: \
             kill 4)"
        );
        let sender = format!("{shown} is locked by p6, process 6 (kill 6)");
        assert_eq!(uses("7:3"), [writer.clone(), sender.clone()]);
        assert_eq!(uses("259:1"), [writer, sender], "a partition of it");
        fs::remove_file(&path).unwrap();
        assert_eq!(uses("7:3"), [""; 0]);
    }

    #[test]
    fn a_file_is_used_by_the_loop_devices_that_show_it_and_by_what_uses_them() {
        let machine = machine("40 1 7:3 / /mnt rw - ext4 /dev/loop3 rw\n", "");
        machine.write("srv/disk.img", "");
        machine.write("srv/other.img", "");
        let path = machine.root().join("srv/disk.img");
        let other = machine.root().join("srv/other.img");
        machine.add("loop3", "7:3");
        machine.set("loop3", "loop/backing_file", &format!("{}\n", path.display()));
        let uses = |path: &Path| -> Vec<String> {
            let uses = uses_of_file(machine.root(), path, &fs::metadata(path).unwrap());
            uses.iter().map(DeviceUse::to_string).collect()
        };
        let mounted = "/dev/loop3 is mounted on /mnt (umount /mnt)".to_owned();
        let held =
            |path: &Path| format!("{} is held by loop3 (losetup -d /dev/loop3)", path.display());
        assert_eq!(uses(&path), [mounted.clone(), held(&path)]);
        assert_eq!(uses(&other), [""; 0]);
        // By any name.
        let second = machine.root().join("srv/second");
        fs::hard_link(&path, &second).unwrap();
        assert_eq!(uses(&second), [mounted, held(&second)]);
    }

    #[test]
    fn the_read_only_flag_is_read() {
        let machine = machine("", "");
        let number = DeviceNumber::parse("8:0").unwrap();
        machine.set("sda", "ro", "0\n");
        assert!(!is_read_only(machine.root(), number));
        machine.set("sda", "ro", "1\n");
        assert!(is_read_only(machine.root(), number));
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(unescaped("a\\040b\\011c"), "a b\tc");
        assert_eq!(unescaped("\\04"), "\\04");
        assert_eq!(unescaped("\\\u{e9}0"), "\\\u{e9}0");
        assert_eq!(unescaped("\\777x"), "\\777x");
    }
}
