//! Hosts with little memory and slow disks.

use std::time::Duration;

use imgcast_tests::netns::Lab;
use imgcast_tests::process::run;
use imgcast_tests::scratch::Scratch;
use imgcast_tests::throttle::Throttle;

use crate::devices::LoopDevice;
use crate::image::text;
use crate::needs::{Need, begin};
use crate::transfer::{TRANSFER_DEADLINE, Transfer};

#[test]
fn a_disk_ten_times_slower_than_the_network_delays_no_other_receiver() {
    let name = "a_disk_ten_times_slower_than_the_network_delays_no_other_receiver";
    let needs = [Need::Lab, Need::Mounts, Need::Throttle];
    let Some(_guard) = begin(name, &needs) else { return };
    let (scratch, lab) = (Scratch::in_memory(), Lab::new(8).unwrap());
    lab.limit_rate(70).unwrap();
    let image = scratch.random_image(16);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "60M" };
    let device = LoopDevice::new(&scratch.path("disk"), 16).unwrap();
    let throttle = Throttle::new(device.path(), DISK_BYTES_PER_SECOND).unwrap();
    let undisturbed = transfer.time_group(7, &[]);

    let sent_before = lab.sent_bytes();
    let mut sender = transfer.start_sender(8);
    // With memory for all of the image its disk would be in nobody's way.
    let mut slow = transfer.start_receiver_with(7, device.path(), &["--memory", "16M"]);
    throttle.hold(&slow).unwrap();
    let mut others: Vec<_> =
        (0..7).map(|i| transfer.start_receiver(i, &transfer.copy(i))).collect();
    let ages = transfer.ages_at_first_symbols(&mut sender, sent_before, &others);
    let age_of_slow = slow.age();
    let beside = transfer.slowest_since(&ages, &mut others);
    let took = slow.succeed(TRANSFER_DEADLINE).saturating_sub(age_of_slow);
    run(&["cmp", text(&image), text(device.path())]).unwrap();
    let disk = Duration::from_secs(16 << 20) / u32::try_from(DISK_BYTES_PER_SECOND).unwrap();
    println!(
        "beside a slow disk {beside:.2?}, without it {undisturbed:.2?}; the slow one {took:.2?}, \
         its disk alone {disk:.2?}"
    );
    let most = undisturbed.mul_f64(1.05) + BUSY;
    assert!(beside <= most, "{beside:?}, without it {undisturbed:?}");
    assert!(took <= disk.mul_f64(1.5), "{took:?}, its disk alone {disk:?}");
}

#[test]
fn a_receiver_with_memory_for_eight_blocks_gets_the_image() {
    let name = "a_receiver_with_memory_for_eight_blocks_gets_the_image";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::in_memory(), Lab::new(4).unwrap());
    lab.limit_rate(100).unwrap();
    (0..4).for_each(|receiver| lab.lose(receiver, 30).unwrap());
    let image = scratch.random_image(48);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "80M" };
    let roomy = transfer.time_group(4, &[]);
    let tight = transfer.time_group(4, &["--memory", "16M"]);
    println!("with --memory 16M {tight:.2?}, without {roomy:.2?}, at 3 % loss");
    assert!(tight <= roomy * 3, "{tight:?}, with more memory {roomy:?}");
}

/// What a busy machine may cost a transfer that takes two seconds: to be waited for would cost
/// twenty. The simulator has the five percent alone.
const BUSY: Duration = Duration::from_millis(500);
/// A tenth of what the network brings.
const DISK_BYTES_PER_SECOND: u64 = 700_000;
