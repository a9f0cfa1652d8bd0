//! What receivers cost each other: many at once, and some that come later than others.

use std::thread::sleep;
use std::time::Duration;

use imgcast_tests::netns::Lab;
use imgcast_tests::process::Process;
use imgcast_tests::scratch::Scratch;

use crate::needs::{Need, begin};
use crate::transfer::{SENDER_DEADLINE, Transfer};

#[test]
fn thirty_two_receivers_at_one_percent_loss_take_as_long_as_one() {
    let name = "thirty_two_receivers_at_one_percent_loss_take_as_long_as_one";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::in_memory(), Lab::new(32).unwrap());
    lab.limit_rate(24).unwrap();
    (0..32).for_each(|receiver| lab.lose(receiver, 10).unwrap());
    let image = scratch.random_image(16);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "20M" };
    let alone = transfer.time_group(1, &[]);
    let slowest = transfer.time_group(32, &[]);
    let ratio = slowest.as_secs_f64() / alone.as_secs_f64();
    println!("32 receivers, 1 % loss each: {slowest:.2?}, one: {alone:.2?}, ratio {ratio:.3}");
    assert!(ratio <= 1.1, "{slowest:?} with 32 receivers, {alone:?} with one");
}

#[test]
fn receivers_that_start_one_after_another_get_little_twice() {
    let name = "receivers_that_start_one_after_another_get_little_twice";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::in_memory(), Lab::new(8).unwrap());
    lab.limit_rate(30).unwrap();
    (0..8).for_each(|receiver| lab.lose(receiver, 5).unwrap());
    let image = scratch.random_image(96);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "20M" };
    let mut sender = transfer.start_sender(1);
    // The image takes forty seconds, and the last one comes after three quarters of it.
    let mut receivers: Vec<Process> = Vec::new();
    for receiver in 0..8 {
        if receiver > 0 {
            sleep(Duration::from_secs(30) / 7);
        }
        let options = ["--log-filter", "imgcast_receiver::driver=debug"];
        let copy = transfer.copy(receiver);
        receivers.push(transfer.start_receiver_with(receiver, &copy, &options));
    }
    transfer.finish(0, &mut receivers);
    sender.succeed(SENDER_DEADLINE);
    let beyond: Vec<f64> = receivers.iter().map(percent_beyond_need).collect();
    println!("received beyond need, in %, by time of joining: {beyond:.1?}");
    // Its symbols leave in bursts that a host may miss: the simulator has five percent for each.
    let mean = beyond.iter().sum::<f64>() / beyond.len() as f64;
    assert!(mean <= 5.0 && beyond.iter().all(|percent| *percent <= 10.0), "{beyond:.1?} %");
}

/// What a receiver got of the image beyond what it needed, in percent of that, as it says itself.
fn percent_beyond_need(receiver: &Process) -> f64 {
    let (received, needed) = receiver.symbols_logged();
    (received as f64 / needed as f64 - 1.0) * 100.0
}
