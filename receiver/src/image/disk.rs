//! A block device in the words by which people tell it from others.

use std::fmt;
use std::path::{Path, PathBuf};

use imgcast_common::units::ByteSize;

use super::sysfs::BlockDevice;

/// A block device and what is on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disk {
    /// Where it is.
    pub path: PathBuf,
    /// Octets that it holds.
    pub bytes: u64,
    /// What its maker calls it, or the file behind a loop device.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its world wide name.
    pub wwn: Option<String>,
    /// What it is divided into.
    pub partitions: Vec<Partition>,
}

/// A part of a disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Partition {
    /// Where it is.
    pub path: PathBuf,
    /// Octets that it holds.
    pub bytes: u64,
    /// What the partition table calls it.
    pub label: Option<String>,
}

impl Disk {
    /// One of which nothing else is known.
    pub(super) fn unknown(path: &Path, bytes: u64) -> Self {
        let (path, partitions) = (path.into(), Vec::new());
        Self { path, bytes, model: None, serial: None, wwn: None, partitions }
    }

    /// As sysfs shows it; `root` is `/` but in tests.
    pub(super) fn of(root: &Path, device: &BlockDevice) -> Self {
        let file = device.backing_file().map(|file| format!("loop device on {}", file.display()));
        let partition = |part: BlockDevice| Partition {
            path: part.path(),
            bytes: part.bytes().unwrap_or(0),
            label: part.label().filter(|label| !label.is_empty()).map(|label| printable(&label)),
        };
        Self {
            path: device.path(),
            bytes: device.bytes().unwrap_or(0),
            model: device.model().or(file).map(|model| printable(&model)),
            serial: device.serials(root).first().map(|serial| printable(serial)),
            wwn: device.wwns(root).first().map(|wwn| printable(wwn)),
            partitions: device.partitions(root).into_iter().map(partition).collect(),
        }
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.path.display(), ByteSize(self.bytes))?;
        if let Some(model) = &self.model {
            write!(f, ", {model}")?;
        }
        for (kind, name) in [("serial", &self.serial), ("wwn", &self.wwn)] {
            if let Some(name) = name {
                write!(f, ", {kind}={name}")?;
            }
        }
        f.write_str(")")
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.path.display(), ByteSize(self.bytes))?;
        self.label.as_ref().map_or(Ok(()), |label| write!(f, "  {label}"))
    }
}

/// What a stick or a partition table calls itself must not steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::machine::Machine;
    use crate::image::sysfs::DeviceNumber;

    fn disk(machine: &Machine, number: &str) -> Disk {
        let number = DeviceNumber::parse(number).unwrap();
        Disk::of(machine.root(), &BlockDevice::find(machine.root(), number).unwrap())
    }

    #[test]
    fn a_disk_is_told_by_size_model_serial_and_partitions() {
        let machine = Machine::new();
        machine.set("sda", "size", "2097152\n");
        machine.set("sda", "device/vendor", "ATA     \n");
        machine.set("sda", "device/model", "Samsung SSD 870 \n");
        machine.set("sda", "device/vpd_pg80", "\0\u{1}\0\u{8}  S5Y1NJ0R\0");
        machine.set("sda", "device/wwid", "naa.5002538f42205b1c\n");
        machine.set("sda/sda1", "size", "2048\n");
        machine.set("sda/sda1", "uevent", "MAJOR=8\nPARTNAME=EFI\u{1b}[2J system\n");
        let disk = disk(&machine, "8:0");
        assert_eq!(
            disk.to_string(),
            "/dev/sda (1.0 GiB, ATA Samsung SSD 870, serial=S5Y1NJ0R, wwn=naa.5002538f42205b1c)"
        );
        let partitions: Vec<String> = disk.partitions.iter().map(Partition::to_string).collect();
        assert_eq!(partitions, ["/dev/sda1  1.0 MiB  EFI?[2J system", "/dev/sda2  0 B"]);
    }

    #[test]
    fn a_device_that_tells_nothing_has_its_size_and_a_loop_device_its_file() {
        let machine = Machine::new();
        assert_eq!(disk(&machine, "8:0").to_string(), "/dev/sda (0 B)");
        machine.set("sda", "loop/backing_file", "/srv/disk.img\n");
        machine.set("sda", "device/vendor", "0x1af4\n");
        assert_eq!(
            disk(&machine, "8:0").to_string(),
            "/dev/sda (0 B, loop device on /srv/disk.img)"
        );
    }
}
