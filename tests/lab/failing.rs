//! Disks that fail for a while.

use std::fs::File;

use imgcast_tests::disks::LoopDisk;
use imgcast_tests::netns::Lab;
use imgcast_tests::process::run;
use imgcast_tests::scratch::Scratch;

use crate::devices::LoopDevice;
use crate::image::text;
use crate::needs::{Need, begin};
use crate::transfer::{SENDER_DEADLINE, TRANSFER_DEADLINE, Transfer};

#[test]
fn a_disk_that_fails_for_a_while_gets_what_it_did_not_take_once_more() {
    let name = "a_disk_that_fails_for_a_while_gets_what_it_did_not_take_once_more";
    let Some(_guard) = begin(name, &[Need::Lab, Need::Mounts]) else { return };
    let scratch = Scratch::temporary();
    let lab = Lab::new(1).unwrap();
    let image = scratch.random_image(24);
    let outer = LoopDevice::new(&scratch.path("outer"), 64).unwrap();
    outer.format().unwrap();
    let mounted = outer.mount(&scratch.path("mounted")).unwrap();
    run(&["mount", "-o", "remount,rw", mounted.path()]).unwrap();
    let file = format!("{}/disk", mounted.path());
    File::create(&file).unwrap().set_len(32 << 20).unwrap();
    let disk = LoopDisk::new(file.as_ref()).unwrap();

    // Two blocks a second: there is time to mend it before it is given up.
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "16M" };
    let sent_before = lab.sent_bytes();
    let mut sender = transfer.start_sender(1);
    let mut receiver = transfer.start_receiver_with(0, disk.path(), &["--read-back", "-v"]);
    transfer.wait_for(6 << 20, &mut sender, sent_before);
    // What is behind the device takes no writes: to whoever writes to it they fail with EIO. A full
    // file system there would be told as such, and be final.
    run(&["chattr", "+i", &file]).unwrap();
    receiver.say("not on the target after all (write): to be fetched again", TRANSFER_DEADLINE);
    run(&["chattr", "-i", &file]).unwrap();
    receiver.succeed(TRANSFER_DEADLINE);
    sender.succeed(SENDER_DEADLINE);
    run(&["cmp", "--bytes", &(24 << 20).to_string(), text(&image), text(disk.path())]).unwrap();
    let (received, needed) = receiver.symbols_logged();
    assert!(received > needed, "{received} of {needed}: nothing came twice");
}
