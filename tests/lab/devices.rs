//! Block devices as targets.

use std::fs::File;
use std::path::{Path, PathBuf};

use imgcast_tests::netns::Lab;
use imgcast_tests::process::run;
use imgcast_tests::scratch::Scratch;

use crate::image::{sha256, text};
use crate::needs::{Need, begin};
use crate::transfer::{SENDER_DEADLINE, TRANSFER_DEADLINE, Transfer};

#[test]
fn a_loop_device_as_target_works_and_a_mounted_one_is_refused_and_stays_untouched() {
    let name = "a_loop_device_as_target_works_and_a_mounted_one_is_refused_and_stays_untouched";
    let Some(_guard) = begin(name, &[Need::Lab, Need::Mounts]) else { return };
    let scratch = Scratch::temporary();
    let lab = Lab::new(1).unwrap();
    let image = scratch.random_image(48);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "200M" };
    let device = LoopDevice::new(&scratch.path("target"), 64).unwrap();

    let mut sender = transfer.start_sender(1);
    let mut receiver = transfer.start_receiver(0, device.path());
    receiver.succeed(TRANSFER_DEADLINE);
    sender.succeed(SENDER_DEADLINE);
    let words = format!("overwriting {} (64.0 MiB, ", text(device.path()));
    assert!(receiver.stderr().contains(&words), "{}", receiver.output());
    let image_bytes = image.metadata().unwrap().len();
    run(&["cmp", "--bytes", &image_bytes.to_string(), text(&image), text(device.path())]).unwrap();

    device.format().unwrap();
    let _mounted = device.mount(&scratch.path("mounted")).unwrap();
    let before = sha256(device.path());
    // The sender is there: only the receiver's own judgement protects the device.
    let _sender = transfer.start_sender(1);
    let mut receiver = transfer.start_receiver(0, device.path());
    let end = receiver.wait(TRANSFER_DEADLINE);
    assert_eq!(end.status.code(), Some(EXIT_REFUSED), "{}", receiver.output());
    assert_eq!(sha256(device.path()), before);
}

/// A loop device on a file; dropping it detaches that one device.
#[derive(Debug)]
pub(crate) struct LoopDevice(PathBuf);

impl LoopDevice {
    /// Makes a file of `mib` MiB and attaches the first free device to it.
    pub(crate) fn new(file: &Path, mib: u64) -> Result<Self, String> {
        Self::with(file, mib, &[])
    }

    /// The same with options of losetup.
    pub(crate) fn with(file: &Path, mib: u64, options: &[&str]) -> Result<Self, String> {
        let length = File::create(file).and_then(|file| file.set_len(mib << 20));
        length.map_err(|e| format!("{}: {e}", file.display()))?;
        Self::on(file, options)
    }

    /// Attaches the first free device to a file that is there, with options of losetup.
    pub(crate) fn on(file: &Path, options: &[&str]) -> Result<Self, String> {
        let command = [&["losetup", "--find", "--show"], options, &[text(file)]].concat();
        run(&command).map(|name| Self(name.trim().into()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes an ext4 on it.
    pub(crate) fn format(&self) -> Result<(), String> {
        run(&["mkfs.ext4", "-q", "-F", text(&self.0)]).map(drop)
    }

    /// Mounts it at `directory`, which is made. Read-only: a journal that is mounted for writing
    /// changes the device by itself, seconds later. The device itself stays writable.
    pub(crate) fn mount(&self, directory: &Path) -> Result<Mount, String> {
        std::fs::create_dir_all(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        run(&["mount", "-o", "ro", text(&self.0), text(directory)])?;
        Ok(Mount(directory.to_owned()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = run(&["losetup", "--detach", text(&self.0)]);
    }
}

/// A mounted file system; dropping it unmounts it.
#[derive(Debug)]
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn path(&self) -> &str {
        text(&self.0)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run(&["umount", self.path()]);
    }
}

/// The receiver's exit code for a target that it must not write to.
const EXIT_REFUSED: i32 = 7;
