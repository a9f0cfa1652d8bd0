//! What the receiver ends with, each exit code from a real process.

use std::fs;

use crate::fake_sender::{FakeSender, Fault};
use crate::stage::{
    BLOCK, DEADLINE, LONG, SLOW, Stage, assert_holds, random, said_without_files, under,
};

#[test]
fn a_receiver_that_cannot_get_what_every_program_needs_exits_with_1() {
    let stage = Stage::new();
    let receiver = stage.receiver(&stage.output("copy"), &["--start-timeout", "1"]);
    let said = said_without_files("receiver", &stage, &receiver);
    assert!(said.contains("error[system]: cannot start an event loop: "), "{said}");
    assert!(said.contains("open files of this process (ulimit -n)"), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_whose_file_may_not_become_so_large_exits_with_8_and_says_which_limit() {
    let stage = Stage::new();
    let _sender = stage.send(&stage.image("image", &random(2 * BLOCK)), &[]);
    // In units of 512 or 1024 octets, as the shell likes.
    let receiver = stage.receiver(&stage.output("copy"), &[]);
    let limited = under("ulimit -f 100; exec \"$0\" \"$@\"", &receiver);
    let mut receiver = stage.start("receiver", limited);
    receiver.exit_with(8, DEADLINE);
    let said = receiver.stderr();
    assert!(said.contains("error[write]: ") && said.contains("outputs/copy"), "{said}");
    assert!(said.contains("File too large") && said.contains("(ulimit -f)"), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_with_a_senseless_command_line_exits_with_2() {
    let stage = Stage::new();
    for (output, words) in [
        ("seral=X1", "\"seral=X1\" names no disk: that is done by serial=... or wwn=..."),
        ("SERIAL=abc", "a file of that name is \"./SERIAL=abc\""),
    ] {
        let mut typo = stage.start("typo", stage.receiver(output.as_ref(), &[]));
        typo.exit_with(2, DEADLINE);
        assert!(typo.stderr().contains(words), "{}", typo.output());
    }
    for (option, words) in [
        (&["--image", "not/a/name"][..], "--image"),
        (&["--portbase", "0"], "--portbase"),
        (&["--such-an-option"], "--such-an-option"),
    ] {
        let mut receiver = stage.receive("copy", option);
        receiver.exit_with(2, DEADLINE);
        assert!(receiver.stderr().contains(words), "{}", receiver.output());
    }
    let mut pipe = stage.start("receiver", stage.receiver("-".as_ref(), &[]));
    pipe.exit_with(2, DEADLINE);
    assert!(pipe.stderr().contains("error[usage]: --output: "), "{}", pipe.output());
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_on_an_interface_that_is_not_there_exits_with_3() {
    let stage = Stage::new();
    let mut receiver = stage.receive("copy", &["--interface", "no-such-0"]);
    receiver.exit_with(3, DEADLINE);
    assert!(receiver.stderr().contains("no-such-0"), "{}", receiver.output());
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_that_hears_no_sender_exits_with_4() {
    let stage = Stage::new();
    let mut receiver = stage.receive("copy", &["--start-timeout", "1"]);
    receiver.exit_with(4, DEADLINE);
    let said = receiver.stderr();
    assert!(said.contains("error[no-sender]: no sender within 1s"), "{said}");
    assert!(said.contains("interface lo") && said.contains("nothing at all"), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_whose_sender_is_killed_exits_with_4() {
    let stage = Stage::new();
    let image = stage.image("image", &random(LONG));
    let mut sender = stage.send(&image, &SLOW);
    let mut receiver = stage.receive("copy", &["--receive-timeout", "3"]);
    receiver.say("loss 0.0 %", DEADLINE);
    sender.kill_nine();
    receiver.exit_with(4, DEADLINE);
    let said = receiver.stderr();
    assert!(said.contains("the sender fell silent\n"), "{said}");
    assert!(said.contains("no sender heard on lo (239.255.63.30:"), "{said}");
    assert!(said.contains("error[sender-gone]: the sender is gone"), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_that_another_run_replaces_exits_with_5_and_the_other_gets_the_image() {
    let stage = Stage::new();
    let octets = random(6 * BLOCK);
    let image = stage.image("image", &octets);
    let mut sender = stage.send(&image, &["--min-receivers", "2"]);
    let mut first = stage.receive("copy", &[]);
    sender.say(" joined\n", DEADLINE);
    let again = stage.receiver(&stage.output("copy"), &[]);
    let mut second = stage.start("second", again);
    first.exit_with(5, DEADLINE);
    assert!(first.stderr().contains("error[ejected]: "), "{}", first.output());
    assert!(first.stderr().contains("another run with the same host name and output"));
    let mut other = stage.receive("other", &[]);
    second.succeed(DEADLINE);
    other.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("copy"), &octets);
    let table = sender.stdout();
    let last = table.lines().last().unwrap_or_default();
    assert!(last.contains(" replaced ") && last.ends_with("joined anew"), "{table}");
    assert_eq!(stage.outputs(), ["copy", "other"]);
}

#[test]
fn a_receiver_that_hears_only_a_session_that_is_ending_says_so_and_exits_with_4() {
    let stage = Stage::new();
    let _sender = FakeSender::start(stage.portbase, Fault::Ending);
    let mut receiver = stage.receive("copy", &["--start-timeout", "2"]);
    receiver.exit_with(4, DEADLINE);
    let said = receiver.stderr();
    assert!(said.contains("is ending, and lets nobody in"), "{said}");
    assert!(said.contains("error[session-ending]: no sender within 2s but one"), "{said}");
    assert!(said.contains("fake.img (3.0 MiB, "), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_that_is_refused_exits_with_5() {
    let stage = Stage::new();
    let _sender = FakeSender::start(stage.portbase, Fault::Full);
    let mut receiver = stage.receive("copy", &[]);
    receiver.exit_with(5, DEADLINE);
    assert!(receiver.stderr().contains("error[refused]: "), "{}", receiver.output());
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_that_is_dropped_for_being_slow_exits_with_5() {
    let stage = Stage::new();
    let _sender = FakeSender::start(stage.portbase, Fault::Ejects);
    let mut receiver = stage.receive("copy", &[]);
    receiver.exit_with(5, DEADLINE);
    let said = receiver.stderr();
    assert!(
        said.contains("error[ejected]: ") && said.contains("--slow-receivers detach"),
        "{said}"
    );
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_that_gets_no_symbols_exits_with_6() {
    let stage = Stage::new();
    let _sender = FakeSender::start(stage.portbase, Fault::NoSymbols);
    let mut receiver = stage.receive("copy", &["--receive-timeout", "3"]);
    receiver.exit_with(6, DEADLINE);
    let said = receiver.stderr();
    assert!(said.contains("error[stalled]: no block was completed for 3s"), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_without_a_target_exits_with_7() {
    let stage = Stage::new();
    let directory = stage.output("directory");
    fs::create_dir(&directory).unwrap();
    let targets = [
        (directory, "error[target-kind]: "),
        ("/dev/null".into(), "error[target-kind]: "),
        (stage.output("missing/copy"), "error[target-open]: "),
    ];
    for (target, words) in targets {
        let mut receiver = stage.start("receiver", stage.receiver(&target, &[]));
        receiver.exit_with(7, DEADLINE);
        assert!(receiver.stderr().starts_with(words), "{}", receiver.output());
        let name = target.to_str().unwrap().trim_end_matches("/copy");
        assert!(receiver.stderr().contains(name), "{}", receiver.output());
    }
    assert_eq!(stage.outputs(), ["directory"]);
}

#[test]
fn a_receiver_that_wants_another_image_than_is_on_offer_exits_with_7() {
    let stage = Stage::new();
    let _sender = stage.send(&stage.image("on-offer", b"x"), &[]);
    let other = "0".repeat(64);
    for wanted in ["another", &other] {
        let options = ["--image", wanted, "--start-timeout", "2"];
        let mut receiver = stage.receive("copy", &options);
        receiver.exit_with(7, DEADLINE);
        let said = receiver.stderr();
        assert!(said.contains("error[image-not-offered]: "), "{said}");
        assert!(said.contains(wanted) && said.contains("on offer: on-offer (1 B"), "{said}");
    }
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_that_cannot_choose_between_images_lists_them_and_exits_with_7() {
    let stage = Stage::new();
    let _one = stage.send(&stage.image("one", b"1"), &[]);
    let other = stage.sender(&stage.image("two", b"2"), &[]);
    let _two = stage.start("other-sender", other);
    let mut list = stage.list(&["--json", "--wait", "3"]);
    list.succeed(DEADLINE);
    assert!(list.stdout().contains("one") && list.stdout().contains("two"), "{}", list.output());
    let mut receiver = stage.receive("copy", &[]);
    receiver.exit_with(7, DEADLINE);
    let said = receiver.stderr();
    assert!(said.contains("error[several-images]: "), "{said}");
    assert!(said.contains("one (1 B") && said.contains("two (1 B"), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_whose_disk_takes_no_more_exits_with_8_and_the_others_get_the_image() {
    let stage = Stage::new();
    let octets = random(3 * BLOCK);
    let image = stage.image("image", &octets);
    let mut sender = stage.send(&image, &["--min-receivers", "2"]);
    let mut healthy = stage.receive("healthy", &[]);
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"";
    let command = stage.receiver(&stage.output("full"), &[]);
    let mut full = stage.start("full", under(script, &command));
    full.exit_with(8, DEADLINE);
    assert!(full.stderr().contains("error[write]: cannot write "), "{}", full.output());
    assert!(full.stderr().contains("outputs/full at offset "), "{}", full.output());
    healthy.succeed(DEADLINE);
    sender.exit_with(5, DEADLINE);
    assert_holds(&stage.output("healthy"), &octets);
    let table = sender.stdout();
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert!(rows.len() == 2 && rows[0].contains(" failed ") && rows[1].contains(" done "));
    assert!(rows[0].contains("cannot write ") && rows[0].ends_with("(exit 8)"), "{table}");
    assert_eq!(stage.outputs(), ["healthy"]);
}

#[test]
fn a_receiver_that_gets_a_wrong_index_three_times_exits_with_9() {
    let stage = Stage::new();
    let _sender = FakeSender::start(stage.portbase, Fault::WrongIndex);
    let mut receiver = stage.receive("copy", &[]);
    receiver.exit_with(9, DEADLINE);
    let said = receiver.stderr();
    assert!(said.contains("error[index-wrong]: ") && said.contains("was wrong 3 times"), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_that_hears_only_another_version_exits_with_10() {
    let stage = Stage::new();
    let _sender = FakeSender::start(stage.portbase, Fault::OtherVersion);
    let mut receiver = stage.receive("copy", &["--start-timeout", "1"]);
    receiver.exit_with(10, DEADLINE);
    let said = receiver.stderr();
    assert!(said.contains("a sender of protocol version 2 is heard"), "{said}");
    assert!(said.contains("error[version]: only protocol version 2 is on offer"), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}
