//! Copies are right whatever the network loses.

use imgcast_tests::netns::Lab;
use imgcast_tests::process::Process;
use imgcast_tests::scratch::Scratch;

use crate::image::{b3sum, check_root_file_system, debian, printed_image_id, sha256};
use crate::needs::{Need, begin};
use crate::transfer::{SENDER_DEADLINE, TRANSFER_DEADLINE, Transfer};

#[test]
fn four_receivers_with_0_1_5_and_20_percent_loss_get_the_image() {
    let name = "four_receivers_with_0_1_5_and_20_percent_loss_get_the_image";
    let Some(_guard) = begin(name, &[Need::Lab, Need::DebianImage]) else { return };
    let losses_per_mille = [0, 10, 50, 200];
    let scratch = Scratch::temporary();
    let lab = Lab::new(losses_per_mille.len()).unwrap();
    for (receiver, per_mille) in losses_per_mille.into_iter().enumerate() {
        lab.lose(receiver, per_mille).unwrap();
    }
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: debian(), max_bitrate: "300M" };
    let mut sender = transfer.start_sender(losses_per_mille.len());
    let copies: Vec<_> =
        (0..losses_per_mille.len()).map(|i| scratch.path(&format!("copy-{i}.img"))).collect();
    let mut receivers: Vec<Process> =
        copies.iter().enumerate().map(|(i, copy)| transfer.start_receiver(i, copy)).collect();
    for receiver in &mut receivers {
        receiver.succeed(TRANSFER_DEADLINE);
    }
    sender.succeed(SENDER_DEADLINE);

    let sha256_of_source = sha256(debian());
    for (copy, per_mille) in copies.iter().zip(losses_per_mille) {
        assert_eq!(sha256(copy), sha256_of_source, "at a loss of {per_mille} per mille");
    }
    assert_eq!(printed_image_id(&sender.stdout()), Some(b3sum(debian())), "{}", sender.output());
    check_root_file_system(copies.last().unwrap(), &scratch).unwrap();
}

#[test]
fn a_receiver_that_joins_when_half_is_sent_finishes() {
    let name = "a_receiver_that_joins_when_half_is_sent_finishes";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let scratch = Scratch::temporary();
    let lab = Lab::new(2).unwrap();
    let image = scratch.random_image(96);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "200M" };
    let copies = [scratch.path("early.img"), scratch.path("late.img")];
    let mut sender = transfer.start_sender(1);
    let mut early = transfer.start_receiver(0, &copies[0]);
    transfer.wait_for_half(&mut sender, 0);
    let mut late = transfer.start_receiver(1, &copies[1]);
    early.succeed(TRANSFER_DEADLINE);
    late.succeed(TRANSFER_DEADLINE);
    sender.succeed(SENDER_DEADLINE);
    for copy in &copies {
        assert_eq!(sha256(copy), sha256(&image), "{}", copy.display());
    }
}
