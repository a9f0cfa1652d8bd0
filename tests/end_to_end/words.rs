//! What people read: what is waited for, what is on offer, and how each receiver fared.

use std::collections::BTreeSet;

use imgcast_tests::process::Process;
use serde_json::Value;

use crate::stage::{BLOCK, DEADLINE, Stage, assert_holds, image_id, random, under};

#[test]
fn both_ends_say_what_they_wait_for() {
    let stage = Stage::new();
    let mut receiver = stage.receive("copy", &[]);
    let place = format!("on lo (239.255.63.30:{})", stage.portbase);
    receiver.say(&format!("listening for a sender {place}\n"), DEADLINE);
    receiver.say(&format!("waiting for a sender: none heard {place} for "), DEADLINE);
    let mut sender = stage.send(&stage.image("image", b"x"), &["--min-receivers", "2"]);
    sender.say("on the nodes: imgcast-receiver receive --output TARGET\n", DEADLINE);
    sender.say("waiting for receivers: 0 of 2 joined, starts at 2, gives up in ", DEADLINE);
    receiver.say("joining 127.0.0.1 for image (1 B)", DEADLINE);
    receiver.say("waiting for the sender to start: 1 of 2 receivers joined", DEADLINE);
    sender.say("(127.0.0.1) joined\n", DEADLINE);
    sender.say("waiting for receivers: 1 of 2 joined, starts at 2\n", DEADLINE);
}

#[test]
fn a_receiver_that_wants_one_image_says_so_and_how_many_others_there_are() {
    let stage = Stage::new();
    let _sender = stage.send(&stage.image("image", b"x"), &[]);
    let mut receiver = stage.receive("copy", &["--image", "another"]);
    receiver.say("waiting for a sender of another: 1 other offer heard on lo", DEADLINE);
}

#[test]
fn a_quiet_program_says_nothing_until_it_ends() {
    let stage = Stage::new();
    let octets = random(BLOCK);
    let mut sender = stage.send(&stage.image("image", &octets), &["--quiet"]);
    let mut receiver = stage.receive("copy", &["--quiet"]);
    receiver.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    for said in [receiver.stderr(), sender.stderr()] {
        assert!(!said.contains(" %") && !said.contains("waiting"), "{said}");
    }
    assert!(sender.stdout().contains("receiver  ") && receiver.stdout().starts_with("verified "));
}

#[test]
fn receivers_at_the_same_address_are_told_apart_by_their_ports() {
    let stage = Stage::new();
    let image = stage.image("image", &random(2 * BLOCK));
    let mut sender = stage.send(&image, &["--min-receivers", "2"]);
    for mut receiver in ["one", "two"].map(|name| stage.receive(name, &[])) {
        receiver.succeed(DEADLINE);
    }
    sender.succeed(DEADLINE);
    let rows = table(&sender);
    let places: BTreeSet<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    assert_eq!(places.len(), 2, "{rows:?}");
    for place in places {
        assert!(place.starts_with("127.0.0.1:"), "{rows:?}");
        let words = format!(" ({place}) has the image\n");
        assert!(sender.stderr().contains(&words), "{}", sender.output());
    }
    for row in rows {
        assert!(row[3].parse::<f64>().unwrap() > 0.0, "{row:?}");
    }
}

#[test]
fn zeroes_that_are_not_sent_make_no_speed() {
    let stage = Stage::new();
    let mut sender = stage.send(&stage.image("image", &vec![0; 3 * BLOCK]), &[]);
    stage.receive("copy", &[]).succeed(DEADLINE);
    sender.succeed(DEADLINE);
    let rows = table(&sender);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0][1..4], ["127.0.0.1", "done", "0.0"]);
}

#[test]
fn a_list_shows_what_is_on_offer() {
    let stage = Stage::new();
    let octets = random(BLOCK + 1);
    let options = ["--name", "node-1.0", "--min-receivers", "2"];
    let mut sender = stage.send(&stage.image("image", &octets), &options);
    let mut receiver = stage.receive("copy", &[]);
    sender.say(" joined\n", DEADLINE);
    let id = image_id(&octets);

    let mut table = stage.list(&["--wait", "3"]);
    table.succeed(DEADLINE);
    let shown = table.stdout();
    let lines: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let [head, row] = &lines[..] else { panic!("{shown}") };
    assert_eq!(head[..], ["name", "size", "sender", "state", "receivers", "image"]);
    assert_eq!((row[0], row[row.len() - 1]), ("node-1.0", id.as_str()));
    assert!(shown.contains("127.0.0.1") && shown.contains("gathering 1 of 2 "), "{shown}");

    let mut json = stage.list(&["--json"]);
    json.succeed(DEADLINE);
    let shown: Value = serde_json::from_str(&json.stdout()).unwrap();
    let offer = &shown["offers"][0];
    assert_eq!((&shown["v"], shown["offers"].as_array().unwrap().len()), (&1.into(), 1));
    assert_eq!(offer["name"], "node-1.0");
    assert_eq!(offer["image"], id);
    assert_eq!(offer["bytes"], octets.len());
    assert_eq!(offer["sender"], "127.0.0.1");
    assert_eq!(offer["state"], "gathering");
    assert_eq!((&offer["receivers_joined"], &offer["receivers_expected"]), (&1.into(), &2.into()));

    let mut asked = stage.list(&["--mcast-rdv-address", "127.0.0.1"]);
    asked.succeed(DEADLINE);
    assert!(asked.stdout().contains("node-1.0"), "{}", asked.output());
    assert!(receiver.poll().is_none(), "{}", receiver.output());
}

#[test]
fn a_list_of_nothing_is_empty() {
    let stage = Stage::new();
    let mut table = stage.list(&["--wait", "0.2"]);
    table.succeed(DEADLINE);
    assert_eq!(table.stdout(), "");
    let words = format!("nothing is on offer at 239.255.63.30:{}\n", stage.portbase);
    assert_eq!(table.stderr(), words);
    let mut json = stage.list(&["--wait", "0.2", "--json"]);
    json.succeed(DEADLINE);
    assert_eq!(json.stdout(), "{\"offers\":[],\"v\":1}\n");
}

#[test]
fn standard_output_that_takes_nothing_is_told_of_and_no_transfer_hangs_on_it() {
    let stage = Stage::new();
    let octets = random(BLOCK + 1);
    let path = stage.image("image", &octets);
    let full = |command: &_| under("exec \"$0\" \"$@\" >/dev/full", command);
    let mut receiver = stage.start("receiver", full(&stage.receiver(&stage.output("copy"), &[])));
    let mut sender = stage.start("sender", full(&stage.sender(&path, &[])));
    receiver.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("copy"), &octets);
    for (process, line) in [(&receiver, "verified "), (&sender, "image ")] {
        let words = format!(
            "cannot write to standard output: No space left on device (os error 28): {line}"
        );
        assert!(process.stderr().contains(&words), "{}", process.output());
    }
    let mut list = stage.start("list", full(&stage.lister(&["--json", "--wait", "0.2"])));
    list.exit_with(1, DEADLINE);
    let words = "error[system]: cannot write to standard output: No space left on device";
    assert!(list.stderr().starts_with(words), "{}", list.output());
}

/// The rows of the table at a sender's end.
fn table(sender: &Process) -> Vec<Vec<String>> {
    let said = sender.stdout();
    let rows = said.lines().skip_while(|line| !line.starts_with("receiver ")).skip(1);
    rows.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}
