//! A tree like the kernel's `/sys` and `/proc`, for tests of what reads them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::testing::Scratch;

/// A machine with the disk `sda` (8:0) and its partitions 1 and 2, and whatever else a test adds.
pub(super) struct Machine(Scratch);

impl Machine {
    pub(super) fn new() -> Self {
        let machine = Self(Scratch::new());
        machine.write("proc/swaps", "Filename Type Size Used Priority\n");
        machine.add("sda", "8:0");
        machine.add("sda/sda1", "8:1");
        machine.add("sda/sda2", "8:2");
        machine
    }

    /// What stands for `/`.
    pub(super) fn root(&self) -> &Path {
        self.0.path()
    }

    /// Adds a device, or a partition of one.
    pub(super) fn add(&self, name: &str, number: &str) {
        self.set(name, "dev", &format!("{number}\n"));
        let devices = format!("sys/devices/{name}");
        let class = if name.contains('/') {
            self.set(name, "partition", "1\n");
            None
        } else {
            Some(self.root().join("sys/block").join(name))
        };
        let link = self.root().join("sys/dev/block").join(number);
        for link in class.into_iter().chain([link]) {
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(self.root().join(&devices), link).unwrap();
        }
    }

    /// Sets an attribute of a device.
    pub(super) fn set(&self, device: &str, attribute: &str, value: &str) {
        self.write(&format!("sys/devices/{device}/{attribute}"), value);
    }

    /// Has `holder`, which is added already, hold a device.
    pub(super) fn hold(&self, device: &str, holder: &str) {
        let link = self.root().join(format!("sys/devices/{device}/holders/{holder}"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(self.root().join("sys/devices").join(holder), link).unwrap();
    }

    /// Writes any other file.
    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
