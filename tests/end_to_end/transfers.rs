//! Copies are right, whatever gets lost, whoever comes late, and however the image is named.

use std::os::unix::fs::MetadataExt;

use imgcast_tests::process::Process;
use nix::sys::signal::Signal;

use crate::stage::{BLOCK, DEADLINE, LONG, Stage, assert_holds, image_id, random};

#[test]
fn one_receiver_gets_an_image_of_one_octet() {
    transfer(b"x", &[], &[&[]]);
}

#[test]
fn one_receiver_gets_an_image_of_exactly_one_block() {
    transfer(&random(BLOCK), &[], &[&[]]);
}

#[test]
fn one_receiver_that_loses_a_twentieth_gets_three_blocks_and_five_octets() {
    transfer(&random(3 * BLOCK + 5), &[], &[&["--drop", "5%"]]);
}

#[test]
fn four_receivers_with_different_losses_get_the_image() {
    let losses = ["0", "1%", "5%", "20%"].map(|loss| ["--drop", loss]);
    let receivers: Vec<&[&str]> = losses.iter().map(<[&str; 2]>::as_slice).collect();
    transfer(&random(12 * BLOCK + 4_321), &[], &receivers);
}

#[test]
fn a_transfer_without_offload_at_either_end_works() {
    let off = ["--offload", "off"];
    transfer(&random(5 * BLOCK + 1), &off, &[&off, &["--offload", "off", "--drop", "2%"]]);
}

#[test]
fn blocks_of_zeroes_are_not_sent_and_stay_holes() {
    let mut octets = vec![0; LONG];
    octets[7 * BLOCK..8 * BLOCK].copy_from_slice(&random(BLOCK));
    octets[LONG - 1] = 1;
    let stage = transfer(&octets, &[], &[&[], &["--drop", "5%"]]);
    for name in ["copy-0", "copy-1"] {
        let metadata = stage.output(name).metadata().unwrap();
        let stored = metadata.blocks() * 512;
        assert!(stored <= 4 * BLOCK as u64, "{name} takes {stored} octets");
    }
}

#[test]
fn an_image_of_zeroes_only_is_a_hole_as_a_whole() {
    let stage = transfer(&vec![0; 3 * BLOCK + 5], &[], &[&[]]);
    assert_eq!(stage.output("copy-0").metadata().unwrap().blocks(), 0);
}

#[test]
fn an_image_is_chosen_by_its_name_or_by_its_hash() {
    let stage = Stage::new();
    let (one, two) = (random(BLOCK + 1), random(BLOCK + 2));
    let image = stage.image("one", &one);
    let mut first = stage.send(&image, &["--min-receivers", "2", "--name", "first-1.0"]);
    let other = stage.sender(&stage.image("two", &two), &["--min-receivers", "1"]);
    let mut second = stage.start("second-sender", other);
    let mut receivers = [
        stage.receive("by-name", &["--image", "first-1.0"]),
        stage.receive("by-id", &["--image", &image_id(&one)]),
        stage.receive("other", &["--image", &image_id(&two)]),
    ];
    for receiver in &mut receivers {
        receiver.succeed(DEADLINE);
    }
    first.succeed(DEADLINE);
    second.succeed(DEADLINE);
    assert_holds(&stage.output("by-name"), &one);
    assert_holds(&stage.output("by-id"), &one);
    assert_holds(&stage.output("other"), &two);
    assert!(first.stdout().starts_with(&format!("image {} first-1.0 ", image_id(&one))));
}

#[test]
fn a_receiver_that_comes_late_gets_the_image_while_another_one_stands_still() {
    let stage = Stage::new();
    let octets = random(10 * BLOCK);
    let mut sender = stage.send(&stage.image("image", &octets), &["--max-bitrate", "40M"]);
    let mut early = stage.receive("early", &[]);
    early.say("loss 0.0 %", DEADLINE);
    // It keeps the session going until it goes on.
    early.signal(Signal::SIGSTOP);
    let mut late = stage.receive("late", &[]);
    late.succeed(DEADLINE);
    early.signal(Signal::SIGCONT);
    early.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("early"), &octets);
    assert_holds(&stage.output("late"), &octets);
}

#[test]
fn a_sender_starts_with_fewer_when_the_longest_wait_is_over() {
    let stage = Stage::new();
    let octets = random(BLOCK);
    let image = stage.image("image", &octets);
    let mut sender = stage.send(&image, &["--min-receivers", "2", "--max-wait", "1"]);
    let mut receiver = stage.receive("copy", &[]);
    receiver.succeed(DEADLINE);
    sender.exit_with(5, DEADLINE);
    assert!(sender.stderr().contains("starting without 1 of 2 receivers"), "{}", sender.output());
    assert_holds(&stage.output("copy"), &octets);
}

#[test]
fn a_sender_is_found_by_its_own_address() {
    let address = ["--mcast-rdv-address", "127.0.0.1"];
    transfer(&random(2 * BLOCK), &[], &[&address]);
}

/// Sends `octets` to receivers with these options and checks all that is said and written.
fn transfer(octets: &[u8], sender_options: &[&str], receivers: &[&[&str]]) -> Stage {
    let stage = Stage::new();
    let count = receivers.len().to_string();
    let options = [sender_options, &["--min-receivers", &count]].concat();
    let mut sender = stage.send(&stage.image("node.img", octets), &options);
    let names: Vec<String> = (0..receivers.len()).map(|i| format!("copy-{i}")).collect();
    let start = |(name, options): (&String, &&[&str])| stage.receive(name, options);
    let mut running: Vec<Process> = names.iter().zip(receivers).map(start).collect();
    for receiver in &mut running {
        receiver.succeed(DEADLINE);
    }
    sender.succeed(DEADLINE);
    let (id, len) = (image_id(octets), octets.len());
    let said = sender.stdout();
    let offered = format!("image {id} node.img {len} bytes\n");
    assert!(said.starts_with(&offered), "{said}");
    assert_eq!(said.matches(" done ").count(), receivers.len(), "{said}");
    for (receiver, name) in running.iter().zip(&names) {
        let verified = format!("verified {id} node.img {len} bytes in ");
        assert!(receiver.stdout().starts_with(&verified), "{}", receiver.output());
        assert_holds(&stage.output(name), octets);
    }
    assert_eq!(stage.outputs(), names);
    stage
}
