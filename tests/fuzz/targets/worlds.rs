//! Whole transfers on a network that does what the input says: both real sessions, real symbols
//! and hashes, and the simulator's checker. However bad the network is, nothing wrong is stored
//! and nobody reports what is not so; that everything ends is promised below half of loss only.

use std::time::Duration;

use imgcast_tests::{
    ImageConfig, LinkConfig, Loss, ReceiverConfig, Restart, SlowReceivers, Violation, When, Window,
    World, WorldConfig,
};

use super::input::Input;

pub(super) fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let receivers = 1 + usize::from(input.u8() % 3);
    let mut config = WorldConfig::small(input.u64(), receivers);
    config.images[0] = ImageConfig {
        bytes: 1 + u64::from(input.u16() % (8 * 1024)),
        block_log2: 10,
        symbol_size: [64, 128, 256][usize::from(input.u8() % 3)],
        zero_ppm: u32::from(input.u8() % 4) * 250_000,
    };
    config.shared_loss = loss(&mut input);
    let sender = &mut config.senders[0];
    sender.turn_delay = input.time().min(Duration::from_millis(50));
    let policies = [SlowReceivers::Detach, SlowReceivers::Wait, SlowReceivers::Drop];
    sender.slow_receivers = policies[usize::from(input.u8() % 3)];
    sender.hostile_index = input.u8() == 255;
    if input.u8() % 8 == 7 {
        sender.crash = Some(when(&mut input));
        let restart = Restart { after: input.time(), symbol_size: 64, group: input.u8() % 2 };
        sender.restart = (!input.u8().is_multiple_of(4)).then_some(restart);
    }
    for receiver in &mut config.receivers {
        befall(receiver, &mut input);
    }
    let report = World::new(config).run();
    let is_wrong = |violation: &&Violation| matches!(violation, Violation::Safety { .. });
    assert_eq!(report.violations.iter().filter(is_wrong).count(), 0, "{report}");
}

fn befall(receiver: &mut ReceiverConfig, input: &mut Input<'_>) {
    bend(&mut receiver.down, input);
    bend(&mut receiver.up, input);
    receiver.receive_timeout = Some(Duration::from_secs(10));
    receiver.asks = input.chance();
    if input.u8() % 4 == 3 {
        receiver.starts = when(input);
    }
    if input.u8() % 8 == 7 {
        receiver.crash = Some(when(input));
        receiver.restart_after = input.chance().then(|| input.time());
    }
    if input.u8() % 4 == 3 {
        receiver.memory_blocks = u64::from(input.u8());
        receiver.disk.bytes_per_second = 1_000 + 100 * u64::from(input.u8());
    }
    if input.u8() % 8 == 7 {
        receiver.disk.fails_at_write = Some(u32::from(input.u8() % 16));
    }
}

fn bend(link: &mut LinkConfig, input: &mut Input<'_>) {
    link.loss = loss(input);
    let share = |octet: u8| if octet < 128 { 0 } else { u32::from(octet - 127) * 4_000 };
    (link.jitter, link.jitter_ppm) = (input.time().min(Duration::from_secs(2)), share(input.u8()));
    link.duplicate_ppm = share(input.u8());
    link.truncate_ppm = share(input.u8());
    link.flip_ppm = share(input.u8());
    link.forge_ppm = share(input.u8()) / 8;
    let windows = input.u8() % 4;
    let cuts = (0..windows).map(|_| window(input)).collect();
    if input.chance() {
        link.cuts = cuts
    } else {
        link.multicast_cuts = cuts
    };
}

fn window(input: &mut Input<'_>) -> Window {
    let from = u64::from(input.u16() % 8_192);
    Window::millis(from, from + u64::from(input.u16() % 16_384))
}

fn when(input: &mut Input<'_>) -> When {
    match input.chance() {
        true => When::Progress(u32::from(input.u8()) * 4_000),
        false => When::At(Duration::from_millis(u64::from(input.u16() % 4_096))),
    }
}

fn loss(input: &mut Input<'_>) -> Loss {
    match input.u8() {
        0..=127 => Loss::None,
        octet @ 128..=219 => Loss::Bernoulli(u32::from(octet - 127) * 8_000),
        octet => Loss::Bursts {
            enter_ppm: 10_000,
            leave_ppm: 1_000 + 1_000 * u32::from(octet - 219),
            loss_ppm: 900_000,
        },
    }
}
