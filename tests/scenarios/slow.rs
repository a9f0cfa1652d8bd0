//! Receivers that are far slower than all others: with `detach` nobody waits for them and they get
//! there all the same, with `wait` the others go at their pace, with `drop` they are sent away.

use std::time::Duration;

use imgcast_common::wire::EjectReason;
use imgcast_receiver::session::Failure;
use imgcast_tests::{
    Disk, Ending, Fidelity, ImageConfig, IntakeConfig, Loss, ReceiverConfig, Report, SenderConfig,
    SlowReceivers, Window, WorldConfig,
};

use crate::run;

#[test]
fn a_disk_ten_times_slower_delays_nobody_and_is_kept_busy() {
    for (receivers, loss_ppm, memory, rate_known) in [
        (8, 0, 64, false),
        (8, 0, 64, true),
        (8, 10_000, 64, true),
        (16, 0, 64, true),
        (16, 10_000, 64, false),
        (8, 0, 8, true),
        (8, 0, 256, true),
        (2, 0, 64, true),
    ] {
        let undisturbed = run(World { loss_ppm, rate_known, ..World::of(receivers - 1) }.config());
        let mut config = World { loss_ppm, rate_known, ..World::of(receivers) }.config();
        config.receivers[0].disk.bytes_per_second = SLOW_DISK;
        config.receivers[0].memory_blocks = memory;
        let report = run(config);
        report.assert_all_done();
        let delay = slowest(&report, 1..receivers) / slowest(&undisturbed, 0..receivers - 1);
        let slow = took(&report, 0) / DISK_SECONDS;
        println!(
            "{receivers} receivers, {loss_ppm} ppm, memory for {memory} blocks, rate known: \
             {rate_known}: the others take {delay:.3} of their time, the slow one {slow:.3} of its \
             disk's; {} symbols by unicast, {} to the group; {:?}",
            report.unicast_symbols, report.group_symbols, report.detached
        );
        assert!(delay < 1.05, "{delay}");
        assert!(slow < 1.5, "{slow}");
        assert_eq!(report.detached.first().map(|(_, host, _)| *host), Some(0));
    }
}

#[test]
fn whoever_is_dropped_is_told_so_and_the_others_are_unharmed() {
    let undisturbed = run(World::of(7).config());
    let mut config = World::of(8).config();
    config.senders[0].slow_receivers = SlowReceivers::Drop;
    config.receivers[3].disk.bytes_per_second = SLOW_DISK;
    config.receivers[3].memory_blocks = 64;
    let report = run(config);
    report.assert_clean();
    let failure = Failure::Ejected(EjectReason::Slow);
    assert_eq!(report.receivers[3].ending, Ending::Failed(failure), "{report}");
    assert_eq!(report.done(), 7, "{report}");
    let delay = slowest(&report, (0..8).filter(|it| *it != 3)) / slowest(&undisturbed, 0..7);
    println!("after a drop the others take {delay:.3} of their time");
    assert!(delay < 1.05, "{delay}");
}

#[test]
fn the_others_wait_if_they_are_told_to() {
    let mut config = World::of(8).config();
    config.senders[0].slow_receivers = SlowReceivers::Wait;
    config.receivers[0].disk.bytes_per_second = SLOW_DISK;
    config.receivers[0].memory_blocks = 64;
    let report = run(config);
    report.assert_all_done();
    let slow = took(&report, 0) / DISK_SECONDS;
    let others = slowest(&report, 1..8) / DISK_SECONDS;
    println!("waited for, a slow disk takes {slow:.3} of its time, the others {others:.3}");
    assert!((0.7..1.2).contains(&others) && slow < 1.2, "{others}, {slow}");
    assert!(report.detached.is_empty());
}

#[test]
fn the_last_ones_are_neither_detached_nor_dropped_and_set_the_pace() {
    for policy in [SlowReceivers::Detach, SlowReceivers::Drop] {
        for (slow, receivers) in [(1, 1), (2, 2), (8, 8), (2, 3)] {
            let mut config = World::of(receivers).config();
            config.senders[0].slow_receivers = policy;
            for receiver in &mut config.receivers[..slow] {
                receiver.disk.bytes_per_second = SLOW_DISK;
                receiver.memory_blocks = 64;
            }
            let report = run(config);
            report.assert_all_done();
            let time = took(&report, 0) / DISK_SECONDS;
            println!("{slow} of {receivers}, {policy:?}: {time:.3}; {:?}", report.detached);
            assert!(time < 1.2, "{slow} of {receivers}, {policy:?}: {time}");
            assert!(report.detached.is_empty(), "{slow} of {receivers}: {:?}", report.detached);
        }
    }
}

#[test]
fn of_many_slow_ones_a_fifth_is_detached_and_the_slowest_of_the_rest_set_the_pace() {
    let mut config = World::of(10).config();
    for (number, receiver) in config.receivers[..3].iter_mut().enumerate() {
        receiver.disk.bytes_per_second = if number == 2 { 4 * SLOW_DISK } else { SLOW_DISK };
        receiver.memory_blocks = 64;
    }
    let report = run(config);
    report.assert_all_done();
    let pace = slowest(&report, 2..10) / (DISK_SECONDS / 4.0);
    let slow = slowest(&report, 0..2) / DISK_SECONDS;
    println!("3 of 10: the others take {pace:.3}, the slowest {slow:.3}; {:?}", report.detached);
    assert!((0.8..1.2).contains(&pace), "{pace}");
    assert!(slow < 1.5, "{slow}");
}

#[test]
fn a_host_or_a_path_that_gets_less_through_than_others_slows_nobody_else() {
    let undisturbed = run(World::of(7).config());
    for (name, delay_max) in [("host", 1.05), ("path", 1.25)] {
        let mut config = World::of(8).config();
        let it = &mut config.receivers[0];
        if name == "host" {
            let bytes_per_second = RATE / 8 / 4;
            it.intake = Some(IntakeConfig { bytes_per_second, buffer_bytes: 4 << 20 });
        } else {
            it.down.loss = Loss::Bernoulli(150_000);
        }
        let report = run(config);
        report.assert_all_done();
        let alone = slowest(&undisturbed, 0..7);
        let (delay, slow) = (slowest(&report, 1..8) / alone, took(&report, 0) / alone);
        println!("slow {name}: the others {delay:.3}, itself {slow:.2}; {:?}", report.detached);
        assert!(delay < delay_max, "{name}: {delay}");
        assert_eq!(report.detached.first().map(|(_, host, _)| *host), Some(0), "{name}");
    }
}

#[test]
fn a_port_five_times_slower_slows_nobody_else() {
    let world = |receivers| {
        let mut config = World::of(receivers).config();
        config.fidelity = Fidelity::Real;
        config.images[0] = ImageConfig { bytes: 10 << 20, block_log2: 16, ..config.images[0] };
        config.senders[0].rate_max = PORTS_RATE;
        config.senders[0].rate_start = Some(PORTS_RATE);
        config.uplink_bits_per_second = 2 * PORTS_RATE;
        config
    };
    let undisturbed = run(world(7));
    let mut config = world(8);
    config.receivers[0].down.bits_per_second = Some(PORTS_RATE / 5);
    let report = run(config);
    report.assert_all_done();
    let alone = slowest(&undisturbed, 0..7);
    let (delay, slow) = (slowest(&report, 1..8) / alone, took(&report, 0) / alone);
    println!("slow port: the others {delay:.3}, itself {slow:.2}; {:?}", report.detached);
    assert!(delay < 1.05, "{delay}");
}

#[test]
fn who_is_slow_for_a_while_comes_back() {
    let mut config = World::of(8).config();
    config.images[0].bytes *= 2;
    config.receivers[0].memory_blocks = 64;
    let begins = |number: u64| 1_000 + 100 * number;
    let stalls = (0..50).map(begins).map(|at| Window::millis(at, at + 99));
    config.receivers[0].disk.stalls = stalls.collect();
    let report = run(config);
    report.assert_all_done();
    println!("{:?}; {:.3}", report.detached, took(&report, 0) / slowest(&report, 1..8));
    let changes: Vec<bool> = report.detached.iter().map(|(_, _, detached)| *detached).collect();
    assert_eq!(changes, [true, false]);
}

/// Hosts on a gigabit network, with disks that are faster than it.
#[derive(Clone, Copy, Debug)]
struct World {
    receivers: usize,
    loss_ppm: u32,
    /// Whether the operator gave the rate.
    rate_known: bool,
}

impl World {
    const fn of(receivers: usize) -> Self {
        Self { receivers, loss_ppm: 0, rate_known: true }
    }

    fn config(self) -> WorldConfig {
        let image =
            ImageConfig { bytes: IMAGE_BYTES, block_log2: 20, symbol_size: 1_408, zero_ppm: 0 };
        let sender = SenderConfig {
            rate_start: self.rate_known.then_some(RATE),
            rate_max: RATE,
            wait_max: None,
            turn_delay: Duration::from_millis(2),
            ..SenderConfig::new(u32::try_from(self.receivers).unwrap_or(u32::MAX))
        };
        let disk = Disk { bytes_per_second: 1 << 30, ..ReceiverConfig::default().disk };
        let receiver = ReceiverConfig { disk, ..ReceiverConfig::default() };
        let config = WorldConfig {
            fidelity: Fidelity::Rank,
            images: vec![image],
            senders: vec![sender],
            receivers: vec![receiver; self.receivers],
            uplink_bits_per_second: 20 * RATE,
            ..WorldConfig::small(1, 0)
        };
        config.each_receiver(|_, receiver| {
            receiver.down.loss = Loss::Bernoulli(self.loss_ppm);
            receiver.up.loss = Loss::Bernoulli(self.loss_ppm);
        })
    }
}

/// Seconds that a receiver took.
fn took(report: &Report, number: usize) -> f64 {
    (report.receivers[number].at - report.started_at).as_secs_f64()
}

/// Seconds that the last of some receivers took.
fn slowest(report: &Report, numbers: impl Iterator<Item = usize>) -> f64 {
    numbers.map(|number| took(report, number)).fold(0.0, f64::max)
}

const RATE: u64 = 1_000_000_000;
/// At this one each symbol can be modelled.
const PORTS_RATE: u64 = 20_000_000;
/// Eight seconds at that rate.
const IMAGE_BYTES: u64 = RATE * 1_408 / 1_518;
/// Octets per second: a tenth of what the network brings.
const SLOW_DISK: u64 = RATE / 8 / 10 * 1_408 / 1_518;
/// What such a disk needs for the image.
const DISK_SECONDS: f64 = IMAGE_BYTES as f64 / SLOW_DISK as f64;
