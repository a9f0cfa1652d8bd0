//! What the sender ends with, each exit code from a real process. An interface that takes no
//! datagrams (6) needs hardware that fails.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use imgcast_tests::machine::skip;

use crate::stage::{BLOCK, DEADLINE, LONG, SLOW, Stage, random, said_without_files, under};

#[test]
fn a_sender_that_cannot_get_what_every_program_needs_exits_with_1() {
    let stage = Stage::new();
    let sender = stage.sender(&stage.image("image", b"x"), &["--start-timeout", "1"]);
    let said = said_without_files("sender", &stage, &sender);
    assert!(said.contains("error[system]: cannot start an event loop: "), "{said}");
    assert!(said.contains("open files of this process (ulimit -n)"), "{said}");
}

#[test]
fn a_sender_whose_files_may_not_become_large_sends_all_the_same() {
    let stage = Stage::new();
    let octets = random(40 * BLOCK);
    let image = stage.image("image", &octets);
    // Less than the index of so many blocks takes, which is only not remembered then.
    let limited = under("ulimit -f 1; exec \"$0\" \"$@\"", &stage.sender(&image, &["--quiet"]));
    let mut sender = stage.start("sender", limited);
    stage.receive("copy", &[]).succeed(DEADLINE);
    sender.succeed(DEADLINE);
}

#[test]
fn a_sender_with_a_senseless_command_line_exits_with_2() {
    let stage = Stage::new();
    let image = stage.image("image", b"x");
    for (options, words) in [
        (&["--min-receivers", "0"][..], "--min-receivers"),
        (&["--slow-receivers", "hurry"], "possible values: detach, wait, drop"),
        (&["--mcast-rdv-address", "10.0.0.1"], "error[not-a-group]: "),
        (&["--mcast-rdv-address", "ff15::1", "--mcast-data-address", "239.1.1.1"], "families"),
        (&["--min-wait", "2m", "--max-wait", "1m"], "error[waits-cross]: "),
        (&["--one-way"], "error[one-way-rate]: --one-way needs --max-bitrate"),
        (&["--one-way", "--max-bitrate", "9M", "--min-receivers", "2"], "error[one-way-waits]: "),
        (&["--passes", "3"], "error[not-one-way]: --passes is for --one-way only"),
    ] {
        let mut sender = stage.send(&image, options);
        sender.exit_with(2, DEADLINE);
        assert!(sender.stderr().contains(words), "{}", sender.output());
    }
}

#[test]
fn a_sender_without_a_usable_image_or_interface_exits_with_3() {
    let stage = Stage::new();
    let image = stage.image("image", b"x");
    let directory = stage.output("directory");
    fs::create_dir(&directory).unwrap();
    for (image, options, words) in [
        (stage.path("missing"), &[][..], "error[image-open]: "),
        (stage.image("empty", b""), &[], "error[image-empty]: "),
        (directory, &[], "error[image-kind]: "),
        (image, &["--interface", "no-such-0"], "error[interface]: "),
    ] {
        let mut sender = stage.send(&image, options);
        sender.exit_with(3, DEADLINE);
        assert!(sender.stderr().starts_with(words), "{}", sender.output());
        assert_eq!(sender.stdout(), "", "nothing was offered");
    }
}

#[test]
fn a_sender_that_nobody_joins_exits_with_4() {
    let stage = Stage::new();
    let image = stage.image("image", b"x");
    let mut sender = stage.send(&image, &["--start-timeout", "1", "--min-receivers", "3"]);
    sender.exit_with(4, DEADLINE);
    let words = "error[no-receivers]: no receiver has joined within 1s; check that they run ";
    assert!(sender.stderr().contains(words), "{}", sender.output());
}

#[test]
fn a_sender_whose_image_cannot_be_read_exits_with_8() {
    let name = "a_sender_whose_image_cannot_be_read_exits_with_8";
    // A regular file, and the kernel has no answer to what is in it: loopback has no speed.
    let image = Path::new("/sys/class/net/lo/speed");
    if !image.is_file() || fs::read(image).is_ok() {
        return skip(name, "no file that opens and cannot be read");
    }
    let stage = Stage::new();
    let mut sender = stage.send(image, &["--start-timeout", "1"]);
    sender.exit_with(8, DEADLINE);
    let words = "error[image-read]: cannot read image /sys/class/net/lo/speed at offset 0: ";
    assert!(sender.stderr().contains(words), "{}", sender.output());
}

#[test]
fn a_sender_whose_image_changes_exits_with_9_and_tells_the_receivers() {
    let stage = Stage::new();
    let image = stage.image("image", &random(LONG));
    let mut sender = stage.send(&image, &SLOW);
    let mut receiver = stage.receive("copy", &[]);
    receiver.say("loss 0.0 %", DEADLINE);
    let file = OpenOptions::new().write(true).open(&image).unwrap();
    for block in 0..LONG / BLOCK {
        file.write_all_at(b"changed", (block * BLOCK) as u64).unwrap();
    }
    sender.exit_with(9, DEADLINE);
    let said = sender.stderr();
    let words = "error[image-changed]: the image changed while it was being sent: ";
    assert!(said.contains(words) && said.contains(image.to_str().unwrap()), "{said}");
    receiver.exit_with(9, DEADLINE);
    let said = receiver.stderr();
    assert!(said.contains("the sender ended the session: the image changed"), "{said}");
    assert!(said.contains("error[image-gone]: the sender has this image no more"), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}
