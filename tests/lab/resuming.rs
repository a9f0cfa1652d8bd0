//! Block devices that hold a part of an image already, from a run that was killed or from an older
//! image: only the rest is sent, and until that is there no device looks like a whole one.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use imgcast_tests::netns::Lab;
use imgcast_tests::process::{Process, run};
use imgcast_tests::scratch::Scratch;

use crate::devices::LoopDevice;
use crate::image::text;
use crate::needs::{Need, begin};
use crate::transfer::{SENDER_DEADLINE, TRANSFER_DEADLINE, Transfer};

#[test]
fn a_device_of_a_run_that_was_killed_has_no_ends_and_gets_only_what_was_not_flushed() {
    let name = "a_device_of_a_run_that_was_killed_has_no_ends_and_gets_only_what_was_not_flushed";
    let Some(_guard) = begin(name, &[Need::Lab, Need::Mounts]) else { return };
    let (scratch, memory) = (Scratch::temporary(), Scratch::in_memory());
    let lab = Lab::new(1).unwrap();
    let image = scratch.random_image(BLOCKS);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "200M" };
    let device = old_device(&scratch.path("target"));
    let journal = memory.path("journal");
    let options = ["--resume", "--journal", text(&journal), "--read-back", "-v"];

    let resumed = resume_after_kill(&transfer, device.path(), &options);
    assert!(!journal.exists());
    // Two windows of 32 MiB may have been under way, and what the threads had in hand.
    let found = found_blocks(&resumed);
    assert!(found >= SENT_WHEN_KILLED - 2 * 32 - 32, "{found}\n{}", resumed.output());
    assert_only_the_rest_was_sent(&resumed, found);
}

#[test]
fn what_a_device_holds_is_found_without_a_journal_and_an_image_that_changed_a_little_costs_little()
{
    let name = "what_a_device_holds_is_found_without_a_journal_and_an_image_that_changed_a_little_\
                costs_little";
    let Some(_guard) = begin(name, &[Need::Lab, Need::Mounts]) else { return };
    let scratch = Scratch::temporary();
    let lab = Lab::new(1).unwrap();
    let image = scratch.random_image(BLOCKS);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "200M" };
    let device = old_device(&scratch.path("target"));
    let options = ["--resume", "-v"];

    let resumed = resume_after_kill(&transfer, device.path(), &options);
    // The machine did not lose its power: all that was written is there.
    let found = found_blocks(&resumed);
    assert!(found >= SENT_WHEN_KILLED - 32, "{found}\n{}", resumed.output());
    assert_only_the_rest_was_sent(&resumed, found);

    // Three blocks of 160: two in a hundred.
    let file = File::options().write(true).open(&image).unwrap();
    for block in [40, 41, 97] {
        file.write_all_at(b"changed", (block << 20) + 4711).unwrap();
    }
    let sent_before = lab.sent_bytes();
    let mut sender = transfer.start_sender(1);
    let mut changed = transfer.start_receiver_with(0, device.path(), &options);
    changed.succeed(TRANSFER_DEADLINE);
    let sent = lab.sent_bytes() - sent_before;
    sender.succeed(SENDER_DEADLINE);
    assert_is(device.path(), &image);
    let found = found_blocks(&changed);
    assert_eq!(found, BLOCKS - 3, "{}", changed.output());
    let words = format!("overwriting {} (", text(device.path()));
    assert!(changed.stderr().contains(&words), "{}", changed.output());
    assert_only_the_rest_was_sent(&changed, found);
    assert!(sent < 8 << 20, "{sent} octets left the sender for three blocks of a MiB");
}

#[test]
fn a_device_that_has_all_of_the_image_is_sent_nothing_and_not_written_to() {
    let name = "a_device_that_has_all_of_the_image_is_sent_nothing_and_not_written_to";
    let Some(_guard) = begin(name, &[Need::Lab, Need::Mounts]) else { return };
    let scratch = Scratch::temporary();
    let lab = Lab::new(1).unwrap();
    let image = scratch.random_image(BLOCKS);
    // Blocks of zeroes, at an end and between, are there as well, and left alone.
    let file = File::options().write(true).open(&image).unwrap();
    for block in [30, 31, BLOCKS - 1] {
        file.write_all_at(&[0; MIB], block << 20).unwrap();
    }
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "200M" };
    let device = old_device(&scratch.path("target"));
    let target = text(device.path());
    run(&["dd", &format!("if={}", text(&image)), &format!("of={target}"), "bs=1M"]).unwrap();
    run(&["blockdev", "--flushbufs", target]).unwrap();
    let written_before = written_sectors(device.path());

    let mut sender = transfer.start_sender(1);
    let options = ["--resume", "--read-back", "-v"];
    let mut receiver = transfer.start_receiver_with(0, device.path(), &options);
    receiver.succeed(TRANSFER_DEADLINE);
    sender.succeed(SENDER_DEADLINE);
    assert_eq!(receiver.found_of(BLOCKS - 3), Some(BLOCKS - 3), "{}", receiver.output());
    assert_eq!(receiver.symbols_logged().0, 0, "{}", receiver.output());
    assert_eq!(written_sectors(device.path()), written_before, "{}", receiver.output());
    assert!(!receiver.stderr().contains("overwriting "), "{}", receiver.output());
    assert_is(device.path(), &image);
}

/// What the kernel has written to a device since it is there, or zeroed or discarded there.
fn written_sectors(device: &Path) -> [u64; 2] {
    let name = device.file_name().unwrap().to_str().unwrap();
    let stat = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
    let numbers: Vec<u64> = stat.split_whitespace().map(|it| it.parse().unwrap()).collect();
    // Documentation/block/stat.rst: write sectors, discard sectors.
    [numbers[6], numbers[13]]
}

/// The receiver that goes on, and finishes, where one was killed in the midst of the image.
fn resume_after_kill(transfer: &Transfer<'_>, device: &Path, options: &[&str]) -> Process {
    let sent_before = transfer.lab.sent_bytes();
    let mut sender = transfer.start_sender(1);
    let mut killed = transfer.start_receiver_with(0, device, options);
    transfer.wait_for(SENT_WHEN_KILLED << 20, &mut sender, sent_before);
    killed.kill_nine();
    assert_has_no_ends(device);
    let mut resumed = transfer.start_receiver_with(0, device, options);
    resumed.succeed(TRANSFER_DEADLINE);
    sender.succeed(SENDER_DEADLINE);
    assert_is(device, transfer.image);
    resumed
}

/// A device with something at the ends of where the image goes.
fn old_device(file: &Path) -> LoopDevice {
    let device = LoopDevice::new(file, BLOCKS + 16).unwrap();
    let target = File::options().write(true).open(device.path()).unwrap();
    for block in [0, BLOCKS - 1] {
        target.write_all_at(&[0xee; MIB], block << 20).unwrap();
    }
    target.sync_all().unwrap();
    device
}

/// Neither the old ends of a device nor the new ones are there, and something between them is.
fn assert_has_no_ends(device: &Path) {
    let device = File::open(device).unwrap();
    let is_zero = |block: u64| {
        let mut octets = vec![1; MIB];
        device.read_exact_at(&mut octets, block << 20).unwrap();
        octets.iter().all(|octet| *octet == 0)
    };
    assert!(is_zero(0) && is_zero(BLOCKS - 1), "it may look whole");
    assert!((1..BLOCKS - 1).any(|block| !is_zero(block)), "nothing was written");
}

fn assert_is(device: &Path, image: &Path) {
    let octets = fs::metadata(image).unwrap().len().to_string();
    run(&["cmp", "--bytes", &octets, text(image), text(device)]).unwrap();
}

/// What the receiver says that it found.
fn found_blocks(receiver: &Process) -> u64 {
    let found = receiver.found_of(BLOCKS);
    found.unwrap_or_else(|| panic!("nothing was found\n{}", receiver.output()))
}

/// Symbols of no more than the blocks that were not found, and two more, have come.
fn assert_only_the_rest_was_sent(receiver: &Process, found: u64) {
    let (received, all) = receiver.symbols_logged();
    let rest = all * (BLOCKS - found + 2) / BLOCKS;
    assert!(received <= rest, "{received} of {all} with {found} found\n{}", receiver.output());
}

/// Of an image, of 1 MiB each.
const BLOCKS: u64 = 160;
const MIB: usize = 1 << 20;
/// MiB that have left the sender when its receiver is killed.
const SENT_WHEN_KILLED: u64 = 130;
