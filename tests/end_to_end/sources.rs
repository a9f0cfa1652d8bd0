//! The sender's side fails while it sends: the image is cut short, changes or cannot be read any
//! more, or the sender is killed and started again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use imgcast_tests::disks::LoopDisk;
use imgcast_tests::machine::skip;
use imgcast_tests::process::{Process, run, wait_until};
use nix::sys::signal::Signal;

use crate::stage::{BLOCK, DEADLINE, LONG, SLOW, Stage, assert_holds, random};

#[test]
fn an_image_that_is_cut_short_ends_the_session_at_every_receiver_and_nobody_has_it() {
    let stage = Stage::new();
    let image = stage.image("image", &random(LONG));
    let (mut sender, mut receivers) = begin(&stage, &image, LATE);
    File::options().write(true).open(&image).unwrap().set_len(BLOCK as u64).unwrap();
    sender.exit_with(9, DEADLINE);
    assert!(sender.stderr().contains("error[image-truncated]: "), "{}", sender.output());
    let words =
        format!("the image was truncated while it was being sent: to {BLOCK} octets, from ");
    assert_over(&stage, &sender, &mut receivers, &(words + &LONG.to_string()));
}

#[test]
fn an_image_that_is_cut_short_where_nothing_is_read_of_it_is_noticed_all_the_same() {
    let stage = Stage::new();
    // Zeroes are not sent.
    let image = stage.image("image", &[random(LONG), vec![0; 9 * BLOCK]].concat());
    let (mut sender, mut receivers) = begin(&stage, &image, LATE);
    File::options().write(true).open(&image).unwrap().set_len(LONG as u64).unwrap();
    sender.exit_with(9, DEADLINE);
    assert!(sender.stderr().contains("error[image-truncated]: "), "{}", sender.output());
    let words = format!(
        "the image was truncated while it was being sent: to {LONG} octets, from {}",
        LONG + 9 * BLOCK
    );
    assert_over(&stage, &sender, &mut receivers, &words);
}

#[test]
fn an_image_that_is_written_to_where_it_was_read_already_is_noticed_all_the_same() {
    let stage = Stage::new();
    let image = stage.image("image", &[vec![0; BLOCK], random(LONG)].concat());
    let (mut sender, mut receivers) = begin(&stage, &image, LATE);
    let file = OpenOptions::new().write(true).open(&image).unwrap();
    file.write_all_at(b"?", 0).unwrap();
    sender.exit_with(9, DEADLINE);
    assert!(sender.stderr().contains("error[image-changed]: "), "{}", sender.output());
    assert_over(&stage, &sender, &mut receivers, "the image changed while it was being sent: ");
}

#[test]
fn an_image_that_is_written_to_ends_the_session_at_every_receiver_and_nobody_has_it() {
    let stage = Stage::new();
    let image = stage.image("image", &random(LONG));
    let (mut sender, mut receivers) = begin(&stage, &image, LATE);
    let file = OpenOptions::new().write(true).open(&image).unwrap();
    for block in 0..LONG / BLOCK {
        // The last octet of each: nothing of a block is sent before all of it is hashed.
        file.write_all_at(b"?", ((block + 1) * BLOCK - 1) as u64).unwrap();
    }
    sender.exit_with(9, DEADLINE);
    assert_over(&stage, &sender, &mut receivers, "the image changed while it was being sent: ");
}

#[test]
fn an_image_that_cannot_be_read_any_more_ends_the_session_and_nobody_has_it() {
    let name = "an_image_that_cannot_be_read_any_more_ends_the_session_and_nobody_has_it";
    let stage = Stage::new();
    let disk = match LoopDisk::new(&stage.image("image", &random(LONG))) {
        Ok(disk) => disk,
        Err(reason) => return skip(name, &reason),
    };
    let (mut sender, mut receivers) = begin(&stage, disk.path(), LATE);
    // What is behind the device goes away, and with it what the kernel remembers of it.
    disk.cut_to(0);
    run(&["blockdev", "--flushbufs", disk.path().to_str().unwrap()]).unwrap();
    sender.exit_with(8, DEADLINE);
    let said = sender.stderr();
    let words = format!("error[image-read]: cannot read image {}", disk.path().display());
    assert!(said.contains(&words), "{said}");
    assert_over(&stage, &sender, &mut receivers, "cannot read image ");
}

#[test]
fn receivers_of_a_sender_that_is_killed_and_started_again_keep_their_blocks_and_finish() {
    let stage = Stage::new();
    let octets = random(32 * BLOCK);
    let image = stage.image("image", &octets);
    let (mut sender, mut receivers) = begin(&stage, &image, LATE);
    let before = receivers.each_mut().map(|receiver| percent_of(receiver, KILLED_AT));
    sender.kill_nine();
    let again = stage.sender(&image, &[&SLOW[..], &["--min-receivers", "3"]].concat());
    let mut again = stage.start("sender-again", again);
    for (receiver, before) in receivers.iter_mut().zip(before) {
        // It joins a second time, and says nothing of less than it had.
        wait_until("it joins again", DEADLINE, || {
            receiver.stderr().matches("joining ").count() > 1
        });
        let after = percent_of(receiver, 0);
        assert!(after >= before, "{after} % after {before} %: {}", receiver.output());
    }
    for receiver in &mut receivers {
        receiver.succeed(DEADLINE);
    }
    again.succeed(DEADLINE);
    for name in RECEIVERS {
        assert_holds(&stage.output(name), &octets);
    }
}

/// A sender of `image` to three receivers, each of which has begun to receive, and gives up when
/// nothing has come for `timeout`.
fn begin(stage: &Stage, image: &Path, timeout: &str) -> (Process, [Process; 3]) {
    let sender = stage.send(image, &[&SLOW[..], &["--min-receivers", "3"]].concat());
    let mut receivers = RECEIVERS.map(|name| stage.receive(name, &["--receive-timeout", timeout]));
    receivers.iter_mut().for_each(|receiver| receiver.say("loss 0.0 %", DEADLINE));
    (sender, receivers)
}

/// Every receiver was told so and has gone at once, nothing is left of any copy, and no row of the
/// sender's table has one.
fn assert_over(stage: &Stage, sender: &Process, receivers: &mut [Process], words: &str) {
    for receiver in receivers {
        receiver.exit_with(9, AT_ONCE);
        let told = format!("the sender ended the session: {words}");
        assert!(receiver.stderr().contains(&told), "{}", receiver.output());
        let why = "error[image-gone]: the sender has this image no more, with ";
        let line = receiver.stderr().lines().find(|line| line.starts_with(why)).map(str::to_owned);
        assert!(line.is_some_and(|line| line.contains(words)), "{}", receiver.output());
        assert!(!receiver.output().contains("verified "), "{}", receiver.output());
    }
    assert!(!sender.output().contains("has the image"), "{}", sender.output());
    assert!(!sender.stdout().contains(" done "), "{}", sender.output());
    assert_eq!(stage.outputs(), [""; 0]);
}

/// How much a receiver says that it has, once it says so and that is so much at least, since it
/// joined last.
fn percent_of(receiver: &mut Process, least: u32) -> u32 {
    let mut percent = 0;
    wait_until("it has so much", DEADLINE, || {
        receiver.signal(Signal::SIGUSR1);
        sleep(Duration::from_millis(50));
        let said = receiver.stderr();
        let since = said.rsplit("joining ").next().unwrap_or_default();
        let line = since.lines().rfind(|line| line.contains(" %  "));
        let number = line.and_then(|line| line.split('%').next()?.trim().parse().ok());
        percent = number.unwrap_or(0);
        number.is_some_and(|percent: u32| percent >= least)
    });
    percent
}

/// Seconds that a receiver waits for a sender to come back.
const LATE: &str = "40";
/// Much shorter than that.
const AT_ONCE: Duration = Duration::from_secs(10);
const RECEIVERS: [&str; 3] = ["one", "two", "three"];
/// Percent, of an image that takes seven seconds.
const KILLED_AT: u32 = 30;
