//! Which device or file the operator means by `--output`.
//!
//! Names of disks change from boot to boot, serial numbers do not. Whatever fits more than one
//! disk is refused: the second one might be the one that matters.

use std::fs::{self, DirEntry};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::sysfs::{BlockDevice, DeviceNumber};
use crate::error::{Error, TargetError};

/// What is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Selected {
    /// The device, with all links followed; or the file, as it was named.
    pub path: PathBuf,
    /// Where the name leads to, if it is not plain.
    pub leads_to: Option<PathBuf>,
}

impl Selected {
    /// Finds out what `output` means: `serial=...`, `wwn=...`, or a path.
    ///
    /// # Errors
    /// [`TargetError::NotFound`] if no disk is called so, [`TargetError::Ambiguous`] if several
    /// are, with those that there are; [`Error::Usage`] without anything to look for, or if it is
    /// likely to be misspelt.
    pub fn find(output: &Path) -> Result<Self, Error> {
        Self::find_below(Path::new("/"), output)
    }

    /// The same, with `/` only but in tests.
    fn find_below(root: &Path, output: &Path) -> Result<Self, Error> {
        let text = output.to_str().unwrap_or_default();
        match text.split_once('=') {
            Some(("serial", serial)) => {
                by_property(root, text, serial, |disk, wanted| is_serial(root, disk, wanted))
            }
            Some(("wwn", wwn)) => {
                by_property(root, text, wwn, |disk, wanted| is_wwn(root, disk, wanted))
            }
            _ => {
                check_spelling(root, output)?;
                by_path(root, output)
            }
        }
    }
}

fn by_property(
    root: &Path,
    wanted: &str,
    value: &str,
    fits: impl Fn(&BlockDevice, &str) -> bool,
) -> Result<Selected, Error> {
    let value = value.trim();
    if value.is_empty() {
        let text = format!("{wanted:?} says not which; a file of that name is \"./{wanted}\"");
        return Err(Error::Usage { option: "--output", text });
    }
    let disks = BlockDevice::all(root);
    let found: Vec<&BlockDevice> = disks.iter().filter(|disk| fits(disk, value)).collect();
    match found[..] {
        [disk] => {
            let path = disk.path();
            // Whoever fills /dev may give names of its own.
            if fs::metadata(&path).is_ok_and(|it| DeviceNumber::of(it.rdev()) != disk.number) {
                return Err(TargetError::Kind { path, kind: MISNAMED }.into());
            }
            Ok(Selected { leads_to: Some(path.clone()), path })
        }
        [] => {
            Err(TargetError::NotFound { wanted: wanted.into(), disks: shown(root, &disks) }.into())
        }
        _ => {
            let candidates = found.into_iter().map(|disk| Disk::of(root, disk)).collect();
            Err(TargetError::Ambiguous { wanted: wanted.into(), candidates }.into())
        }
    }
}

/// Refuses what looks like the name of a disk, and would become a file of that name. One with a
/// slash in it means what it says.
fn check_spelling(root: &Path, output: &Path) -> Result<(), Error> {
    let text = output.to_str().filter(|text| !text.contains('/')).unwrap_or_default();
    let refused = |text| Err(Error::Usage { option: "--output", text });
    if text.contains('=') {
        return refused(format!(
            "{text:?} names no disk: that is done by serial=... or wwn=..., in small letters; a \
             file of that name is \"./{text}\""
        ));
    }
    if !text.is_empty() && !output.exists() && BlockDevice::is_called(root, text) {
        return refused(format!(
            "there is no file {text:?} here; if the disk is meant, that is /dev/{text}; a new \
             file of that name is \"./{text}\""
        ));
    }
    Ok(())
}

fn by_path(root: &Path, output: &Path) -> Result<Selected, Error> {
    if output.starts_with(LINKS) && fs::symlink_metadata(output).is_err() {
        let disks = shown(root, &BlockDevice::all(root));
        let wanted = output.display().to_string();
        return Err(TargetError::NotFound { wanted, disks }.into());
    }
    // What is not there yet, or leads nowhere, is judged by who opens it.
    let Ok(canonical) = fs::canonicalize(output) else {
        return Ok(Selected { path: output.into(), leads_to: None });
    };
    let leads_to = Some(canonical.clone()).filter(|path| path != output);
    let is_device = fs::metadata(&canonical).is_ok_and(|it| it.file_type().is_block_device());
    if !is_device {
        let is_link = fs::symlink_metadata(output).is_ok_and(|it| it.is_symlink());
        return Ok(Selected { path: output.into(), leads_to: leads_to.filter(|_| is_link) });
    }
    let mut link = output.to_path_buf();
    for _ in 0..LINKS_MAX {
        let claims = claims(root, &link);
        if claims.len() > 1 {
            let candidates = claims.iter().map(|device| Disk::of(root, device)).collect();
            let wanted = link.display().to_string();
            return Err(TargetError::Ambiguous { wanted, candidates }.into());
        }
        let Ok(target) = fs::read_link(&link) else { break };
        link = link.parent().map(|parent| parent.join(&target)).unwrap_or(target);
    }
    Ok(Selected { path: canonical, leads_to })
}

/// The devices that udev found to have the right to a link below /dev, such as
/// `/dev/disk/by-label/root`: of those with the highest priority it has taken just any.
fn claims(root: &Path, link: &Path) -> Vec<BlockDevice> {
    let Some(name) = link.to_str().and_then(|link| link.strip_prefix("/dev")) else {
        return Vec::new();
    };
    let name = name.replace('\\', "\\x5c").replace('/', "\\x2f");
    // Releases of udev differ by the first stroke.
    let names = [name.as_str(), name.strip_prefix("\\x2f").unwrap_or_default()];
    let directories = names.map(|name| root.join("run/udev/links").join(name));
    let Some(entries) = directories.iter().find_map(|directory| fs::read_dir(directory).ok())
    else {
        return Vec::new();
    };
    let claim = |entry: DirEntry| {
        // b8:1, and where udev is recent a link to PRIORITY:NAME.
        let number = DeviceNumber::parse(entry.file_name().to_str()?.strip_prefix('b')?)?;
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let priority = target.to_str().and_then(|target| target.split(':').next()?.parse().ok());
        Some((priority.unwrap_or(0), number))
    };
    let mut claims: Vec<(i32, DeviceNumber)> = entries.flatten().filter_map(claim).collect();
    let highest = claims.iter().map(|(priority, _)| *priority).max();
    claims.retain(|(priority, _)| Some(*priority) == highest);
    claims.sort_unstable();
    claims.into_iter().filter_map(|(_, number)| BlockDevice::find(root, number)).collect()
}

fn is_serial(root: &Path, disk: &BlockDevice, wanted: &str) -> bool {
    disk.serials(root).iter().any(|serial| serial == wanted)
}

fn is_wwn(root: &Path, disk: &BlockDevice, wanted: &str) -> bool {
    disk.wwns(root).iter().any(|wwn| bare(wwn) == bare(wanted))
}

/// A world wide name without what kernel, udev and people put before it: `naa.5000c5`, `0x5000c5`.
fn bare(wwn: &str) -> String {
    let lower = wwn.to_ascii_lowercase();
    let mut bare = lower.as_str();
    for prefix in ["wwn-", "nvme-", "naa.", "eui.", "uuid.", "0x"] {
        bare = bare.strip_prefix(prefix).unwrap_or(bare);
    }
    bare.to_owned()
}

/// Those that could be meant: what is empty, such as a loop device without a file, cannot.
fn shown(root: &Path, disks: &[BlockDevice]) -> Vec<Disk> {
    let disks = disks.iter().map(|disk| Disk::of(root, disk));
    disks.filter(|disk| disk.bytes > 0).collect()
}

/// A name that means one thing to the kernel and another one in /dev.
const MISNAMED: &str = "another device than the one that the kernel calls so";
/// Where udev puts the stable names of disks.
const LINKS: &str = "/dev/disk";
/// The kernel follows no more.
const LINKS_MAX: u32 = 40;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::image::machine::Machine;
    use crate::image::testing::Scratch;

    /// With a second disk, `nvme0n1`.
    fn machine() -> Machine {
        let machine = Machine::new();
        machine.add("nvme0n1", "259:0");
        machine.set("nvme0n1", "serial", "");
        machine.set("nvme0n1", "device/serial", "S4EV 0001      \n");
        machine.set("nvme0n1", "wwid", "eui.0025385B71B00001\n");
        machine.set("nvme0n1", "size", "2048\n");
        machine.set("sda", "device/vpd_pg80", "\0\u{1}\0\u{8}WD-1234\n");
        machine.set("sda", "device/wwid", "naa.50014ee2b1c2d3e4\n");
        machine.set("sda", "size", "4096\n");
        machine
    }

    fn find(machine: &Machine, output: &str) -> Result<PathBuf, Error> {
        Selected::find_below(machine.root(), Path::new(output)).map(|selected| selected.path)
    }

    fn error(machine: &Machine, output: &str) -> String {
        find(machine, output).unwrap_err().to_string()
    }

    #[test]
    fn a_disk_is_found_by_serial_number_and_world_wide_name_in_any_spelling() {
        let machine = machine();
        for (output, disk) in [
            ("serial=S4EV 0001", "/dev/nvme0n1"),
            ("serial=WD-1234", "/dev/sda"),
            ("wwn=naa.50014ee2b1c2d3e4", "/dev/sda"),
            ("wwn=0x50014EE2B1C2D3E4", "/dev/sda"),
            ("wwn=wwn-0x50014ee2b1c2d3e4", "/dev/sda"),
            ("wwn=nvme-eui.0025385b71b00001", "/dev/nvme0n1"),
        ] {
            assert_eq!(find(&machine, output).unwrap(), Path::new(disk), "{output}");
        }
        machine.write("run/udev/data/b8:0", "E:ID_SERIAL=WDC_1\nE:ID_WWN=0x77\nE:OTHER=x\n");
        assert_eq!(find(&machine, "serial=WDC_1").unwrap(), Path::new("/dev/sda"));
        assert_eq!(find(&machine, "wwn=77").unwrap(), Path::new("/dev/sda"));
        assert!(find(&machine, "serial=x").is_err());
    }

    #[test]
    fn what_no_disk_is_called_is_refused_with_the_disks_that_there_are() {
        let machine = machine();
        machine.add("loop0", "7:0");
        let text = error(&machine, "serial=WD-123");
        assert_eq!(
            text,
            "no disk here is serial=WD-123; there are: /dev/nvme0n1 (1.0 MiB, serial=S4EV 0001, \
             wwn=eui.0025385B71B00001); /dev/sda (2.0 MiB, serial=WD-1234, \
             wwn=naa.50014ee2b1c2d3e4)"
        );
        assert!(error(&machine, "/dev/disk/by-id/imgcast-none").contains("/dev/sda"));
        let nothing = find(&machine, "serial= ").unwrap_err();
        assert_eq!(nothing.code(), "usage");
    }

    #[test]
    fn what_is_nearly_the_name_of_a_disk_is_no_file() {
        let machine = machine();
        for (output, words) in [
            ("seral=WD-1234", "names no disk: that is done by serial=... or wwn=..."),
            ("SERIAL=WD-1234", "in small letters; a file of that name is \"./SERIAL=WD-1234\""),
            ("WWN=1", "\"./WWN=1\""),
            ("=", "names no disk"),
            ("sda", "that is /dev/sda; a new file of that name is \"./sda\""),
            ("sda2", "that is /dev/sda2"),
        ] {
            let error = find(&machine, output).unwrap_err();
            assert_eq!((error.code(), error.exit_code()), ("usage", 2), "{output}");
            assert!(error.to_string().contains(words), "{error}");
        }
        for output in ["./seral=WD-1234", "a/SERIAL=x", "./sda", "sdb", "sda.img", "disk.img"] {
            assert_eq!(find(&machine, output).unwrap(), Path::new(output));
        }
        // One that is there is meant.
        machine.add("Cargo.toml", "8:16");
        assert!(Path::new("Cargo.toml").exists(), "tests run in the directory of the crate");
        assert_eq!(find(&machine, "Cargo.toml").unwrap(), Path::new("Cargo.toml"));
    }

    #[test]
    fn what_two_disks_are_called_is_refused_with_both() {
        let machine = machine();
        machine.set("nvme0n1", "device/serial", "WD-1234\n");
        machine.set("nvme0n1", "wwid", "uuid.50014ee2b1c2d3e4\n");
        for output in ["serial=WD-1234", "wwn=50014ee2b1c2d3e4"] {
            let text = error(&machine, output);
            assert!(text.starts_with(&format!("{output} is more than one disk")), "{text}");
            assert!(text.contains("/dev/sda") && text.contains("/dev/nvme0n1"), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_another_devices_in_dev_is_refused() {
        let machine = machine();
        machine.add("null", "8:96");
        machine.set("null", "serial", "S3\n");
        let error = find(&machine, "serial=S3").unwrap_err();
        assert_eq!(error.code(), "target-kind");
        assert!(error.to_string().contains("/dev/null: it is another device"), "{error}");
    }

    #[test]
    fn of_the_claims_to_a_link_those_with_the_highest_priority_count() {
        let machine = machine();
        let claimed = |link: &str| {
            let claims = claims(machine.root(), Path::new(link));
            claims.into_iter().map(|device| device.name).collect::<Vec<String>>()
        };
        let claim = |directory: &str, number: &str, priority: &str| {
            let directory = machine.root().join("run/udev/links").join(directory);
            fs::create_dir_all(&directory).unwrap();
            symlink(format!("{priority}:x"), directory.join(number)).unwrap();
        };
        machine.write("run/udev/links/\\x2fdisk\\x2fby-label\\x2froot/b8:1", "");
        machine.write("run/udev/links/\\x2fdisk\\x2fby-label\\x2froot/b259:0", "");
        assert_eq!(claimed("/dev/disk/by-label/root"), ["sda1", "nvme0n1"]);
        let recent = "disk\\x2fby-label\\x2fa\\x5cx20b";
        claim(recent, "b8:2", "-100");
        claim(recent, "b8:1", "0");
        assert_eq!(claimed("/dev/disk/by-label/a\\x20b"), ["sda1"]);
        claim(recent, "b259:0", "0");
        assert_eq!(claimed("/dev/disk/by-label/a\\x20b"), ["sda1", "nvme0n1"]);
        assert_eq!(claimed("/dev/disk/by-label/other"), [""; 0]);
        assert_eq!(claimed("/dev"), [""; 0]);
    }

    #[test]
    fn a_file_keeps_its_name_and_a_link_to_one_is_shown() {
        let scratch = Scratch::new();
        let (file, link) = (scratch.path().join("serial=x"), scratch.path().join("link"));
        let selected = Selected::find(&file).unwrap();
        assert_eq!(selected, Selected { path: file.clone(), leads_to: None }, "not there yet");
        fs::write(&file, "").unwrap();
        symlink(&file, &link).unwrap();
        let selected = Selected::find(&file).unwrap();
        assert_eq!(selected, Selected { path: file.clone(), leads_to: None });
        let leads_to = Some(fs::canonicalize(&file).unwrap());
        assert_eq!(Selected::find(&link).unwrap(), Selected { path: link, leads_to });
    }
}
