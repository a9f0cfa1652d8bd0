//! Sending to receivers that cannot answer.

use crate::stage::{BLOCK, DEADLINE, LONG, Stage, assert_holds, image_id, random};

#[test]
fn an_image_that_is_sent_one_way_arrives_and_nothing_is_answered() {
    let stage = Stage::new();
    let octets = random(6 * BLOCK + 5);
    let options = ["--one-way", "--passes", "2", "--max-bitrate", "100M", "--min-wait", "4"];
    let mut sender = stage.send(&stage.image("node.img", &octets), &options);
    let mut receivers = [
        stage.receive("whole", &[]),
        stage.receive("lossy", &["--drop", "2%"]),
        stage.receive("by-id", &["--image", &image_id(&octets)]),
    ];
    let mut list = stage.list(&[]);
    list.succeed(DEADLINE);
    assert!(list.stdout().contains("gathering pass 0 of 2"), "{}", list.output());
    for receiver in &mut receivers {
        receiver.succeed(DEADLINE);
        let verified = format!("verified {} node.img {} bytes", image_id(&octets), octets.len());
        assert!(receiver.stdout().starts_with(&verified), "{}", receiver.output());
        let said = receiver.stderr();
        assert!(said.contains("one way, in 2 passes") && !said.contains("warning"), "{said}");
    }
    sender.succeed(DEADLINE);
    let said = sender.stderr();
    assert!(!said.contains(" joined") && said.contains("2 of 2 passes sent, one way"), "{said}");
    for name in ["whole", "lossy", "by-id"] {
        assert_holds(&stage.output(name), &octets);
    }
}

#[test]
fn a_receiver_that_lacks_something_when_all_was_sent_one_way_says_so_and_exits_with_11() {
    let stage = Stage::new();
    let image = stage.image("image", &random(6 * BLOCK));
    let options = ["--one-way", "--passes", "1", "--max-bitrate", "100M", "--min-wait", "4"];
    let mut sender = stage.send(&image, &options);
    let mut receiver = stage.receive("copy", &["--drop", "30%"]);
    receiver.exit_with(11, DEADLINE);
    sender.succeed(DEADLINE);
    let said = receiver.stderr();
    assert!(said.contains("error[lacking]: all was sent one way, and 6 of 6 blocks"), "{said}");
    assert!(said.contains("1 of 1 pass,") && said.contains("more --passes"), "{said}");
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_that_comes_during_a_pass_gets_the_rest_with_the_next() {
    let stage = Stage::new();
    let octets = random(LONG / 4);
    let options = ["--one-way", "--passes", "2", "--max-bitrate", "60M"];
    let mut sender = stage.send(&stage.image("image", &octets), &options);
    let mut early = stage.receive("early", &[]);
    early.say("pass 1 of 2", DEADLINE);
    let mut late = stage.receive("late", &[]);
    early.succeed(DEADLINE);
    late.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("early"), &octets);
    assert_holds(&stage.output("late"), &octets);
}
