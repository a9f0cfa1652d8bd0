//! An output file is whole and verified, or it is what it was before.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use crate::fake_sender::{FakeSender, Fault};
use crate::stage::{BLOCK, DEADLINE, LONG, SLOW, Stage, assert_holds, random};

#[test]
fn a_file_keeps_its_contents_until_the_new_ones_are_verified_and_then_its_mode() {
    let stage = Stage::new();
    let octets = random(4 * BLOCK + 7);
    let output = existing(&stage);
    fs::set_permissions(&output, fs::Permissions::from_mode(0o640)).unwrap();
    let image = stage.image("image", &octets);
    let mut sender = stage.send(&image, &["--max-bitrate", "40M"]);
    let mut receiver = stage.receive("copy", &["--overwrite"]);
    receiver.say("loss 0.0 %", DEADLINE);
    // Its end may be near, but then the file is whole: there is nothing in between.
    let before = fs::read(&output).unwrap();
    assert!(before == OLD || before == octets, "{} octets", before.len());
    receiver.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&output, &octets);
    assert_eq!(output.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(stage.outputs(), ["copy"]);
}

#[test]
fn a_file_that_is_there_is_refused_unless_it_may_be_overwritten() {
    let stage = Stage::new();
    let output = existing(&stage);
    let mut receiver = stage.receive("copy", &["--yes"]);
    receiver.exit_with(7, DEADLINE);
    let said = receiver.stderr();
    let words = format!("error[target-exists]: {} is there already; ", output.display());
    assert!(said.starts_with(&words) && said.contains("--overwrite"), "{said}");
    assert_holds(&output, OLD);
    assert_eq!(stage.outputs(), ["copy"]);
}

#[test]
fn a_file_that_appears_meanwhile_keeps_its_name_and_the_image_is_kept_beside_it() {
    let stage = Stage::new();
    let octets = random(4 * BLOCK + 7);
    let image = stage.image("image", &octets);
    let mut receiver = stage.receive("copy", &[]);
    receiver.say("listening for a sender", DEADLINE);
    let output = existing(&stage);
    let mut sender = stage.send(&image, &[]);
    receiver.exit_with(7, DEADLINE);
    sender.exit_with(5, DEADLINE);
    assert!(receiver.stderr().contains("error[target-exists]: "), "{}", receiver.output());
    assert_holds(&output, OLD);
    let left = stage.outputs();
    let [kept, copy] = &left[..] else { panic!("{left:?}") };
    assert_eq!(copy, "copy");
    assert!(receiver.stderr().contains(&format!("/{kept};")), "{}", receiver.output());
    assert_holds(&stage.output(kept), &octets);
}

#[test]
fn a_file_that_appears_meanwhile_is_replaced_where_that_was_allowed() {
    let stage = Stage::new();
    let octets = random(4 * BLOCK + 7);
    let image = stage.image("image", &octets);
    let mut receiver = stage.receive("copy", &["--overwrite"]);
    receiver.say("listening for a sender", DEADLINE);
    let output = existing(&stage);
    let mut sender = stage.send(&image, &[]);
    receiver.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&output, &octets);
    assert_eq!(stage.outputs(), ["copy"]);
}

#[test]
fn a_refused_or_failed_receiver_leaves_an_existing_file_alone() {
    for (fault, options, code) in [
        (Fault::Full, &["--overwrite"][..], 5),
        (Fault::WrongIndex, &["--overwrite"], 9),
        (Fault::OtherVersion, &["--overwrite", "--start-timeout", "1"], 10),
    ] {
        let stage = Stage::new();
        let output = existing(&stage);
        let _sender = FakeSender::start(stage.portbase, fault);
        stage.receive("copy", options).exit_with(code, DEADLINE);
        assert_holds(&output, OLD);
        assert_eq!(stage.outputs(), ["copy"], "{fault:?}");
    }
}

#[test]
fn a_stopped_receiver_leaves_an_existing_file_alone_and_a_killed_one_too() {
    let stage = Stage::new();
    let output = existing(&stage);
    let image = stage.image("image", &random(LONG));
    let _sender = stage.send(&image, &[&SLOW[..], &["--min-receivers", "2"]].concat());
    let mut stopped = stage.receive("copy", &["--overwrite"]);
    let mut killed = stage.receive("other", &[]);
    stopped.say("loss 0.0 %", DEADLINE);
    killed.say("loss 0.0 %", DEADLINE);
    assert_holds(&output, OLD);
    assert!(!stage.output("other").exists());
    stopped.signal(Signal::SIGTERM);
    stopped.exit_with(143, DEADLINE);
    killed.kill_nine();
    assert_holds(&output, OLD);
    let left = stage.outputs();
    // Only who is killed outright leaves a temporary, and never under the output's name.
    let [temporary, copy] = &left[..] else { panic!("{left:?}") };
    assert_eq!(copy, "copy");
    assert!(temporary.starts_with(".other.") && temporary.ends_with(".part"), "{temporary}");
}

fn existing(stage: &Stage) -> std::path::PathBuf {
    let output = stage.output("copy");
    fs::write(&output, OLD).unwrap();
    output
}

const OLD: &[u8] = b"old contents";
