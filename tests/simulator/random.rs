//! Whole worlds drawn from a seed.

mod draws;

use std::{collections::BTreeSet, time::Duration};

use imgcast_common::prng::{Prng, mix};
use imgcast_sender::session::SlowReceivers;

use crate::config::{
    Fidelity, ImageConfig, IntakeConfig, LinkConfig, Loss, ReceiverConfig, Restart, SenderConfig,
    When, Window, WorldConfig,
};
use draws::{between, millis, some_receiver, some_time, steady_loss};

/// The world of a seed.
#[must_use]
pub fn config(seed: u64) -> WorldConfig {
    let mut prng = Prng::new(mix(seed ^ 0xC0FF_EE00));
    let mut config = quiet(seed, &mut prng);
    let faults = draw_faults(&mut prng);
    for fault in faults {
        fault.befall(&mut config, &mut prng);
    }
    let policies = [SlowReceivers::Wait, SlowReceivers::Drop];
    let policy = policies.get(usize::try_from(prng.below(8)).unwrap_or(0)).copied();
    config.senders.iter_mut().for_each(|it| it.slow_receivers = policy.unwrap_or_default());
    config
}

/// What can go wrong, or be unusual.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum Fault {
    IndependentLoss,
    BurstyLoss,
    SharedLoss,
    OneLosesMuch,
    LateJoiners,
    ReceiverDies,
    ReceiverRestarts,
    NoMulticastForOne,
    NoMulticastForAll,
    MulticastFails,
    FeedbackCut,
    Partition,
    Reordering,
    Duplication,
    Truncation,
    BitFlips,
    ForgedSymbols,
    SenderRestarts,
    SenderRestartsOtherwise,
    TwoSendersOfOneImage,
    TwoSendersOfTwoImages,
    SlowDisk,
    FailingDisk,
    StalledDisk,
    SmallMemory,
    SlowLink,
    SlowSenderLink,
    SlowIntake,
    ZeroBlocks,
    OneReceiver,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::IndependentLoss,
        Self::BurstyLoss,
        Self::SharedLoss,
        Self::OneLosesMuch,
        Self::LateJoiners,
        Self::ReceiverDies,
        Self::ReceiverRestarts,
        Self::NoMulticastForOne,
        Self::NoMulticastForAll,
        Self::MulticastFails,
        Self::FeedbackCut,
        Self::Partition,
        Self::Reordering,
        Self::Duplication,
        Self::Truncation,
        Self::BitFlips,
        Self::ForgedSymbols,
        Self::SenderRestarts,
        Self::SenderRestartsOtherwise,
        Self::TwoSendersOfOneImage,
        Self::TwoSendersOfTwoImages,
        Self::SlowDisk,
        Self::FailingDisk,
        Self::StalledDisk,
        Self::SmallMemory,
        Self::SlowLink,
        Self::SlowSenderLink,
        Self::SlowIntake,
        Self::ZeroBlocks,
        Self::OneReceiver,
    ];

    /// How many worlds of a million it befalls.
    const fn share_ppm(self) -> u32 {
        match self {
            Self::IndependentLoss => 400_000,
            Self::BurstyLoss | Self::SharedLoss | Self::ZeroBlocks => 200_000,
            Self::OneReceiver => 60_000,
            _ => 85_000,
        }
    }

    fn befall(self, config: &mut WorldConfig, prng: &mut Prng) {
        match self {
            Self::IndependentLoss | Self::BurstyLoss | Self::SharedLoss | Self::OneLosesMuch => {
                self.lose(config, prng);
            }
            Self::Reordering
            | Self::Duplication
            | Self::Truncation
            | Self::BitFlips
            | Self::ForgedSymbols => self.bend(config, prng),
            Self::LateJoiners | Self::ReceiverDies | Self::ReceiverRestarts => {
                self.come_and_go(config, prng);
            }
            Self::NoMulticastForOne
            | Self::NoMulticastForAll
            | Self::MulticastFails
            | Self::FeedbackCut
            | Self::Partition
            | Self::SlowLink => self.cut(config, prng),
            Self::SenderRestarts
            | Self::SenderRestartsOtherwise
            | Self::TwoSendersOfOneImage
            | Self::TwoSendersOfTwoImages => self.disturb_sender(config, prng),
            Self::SlowDisk | Self::FailingDisk | Self::StalledDisk => self.wear(config, prng),
            Self::SlowSenderLink => {
                let rate_max = config.senders[0].rate_max;
                let slow = rate_max * u64::from(between(prng, 10, 80)) / 100;
                let link = Some(slow.max(SENDER_LINK_MIN));
                config.senders.iter_mut().for_each(|it| it.link_bits_per_second = link);
            }
            Self::SlowIntake => {
                let bytes_per_second =
                    config.senders[0].rate_max / 8 * u64::from(between(prng, 10, 120)) / 100;
                let buffer_bytes = 1 << between(prng, 12, 16);
                let intake = Some(IntakeConfig { bytes_per_second, buffer_bytes });
                if prng.chance(500_000) {
                    config.receivers.iter_mut().for_each(|it| it.intake = intake);
                }
                some_receiver(config, prng).intake = intake;
            }
            Self::SmallMemory => {
                config.receivers.iter_mut().for_each(|it| it.memory_blocks = 1);
            }
            Self::ZeroBlocks => {
                config.images[0].zero_ppm = between(prng, 50_000, 500_000);
            }
            Self::OneReceiver => {
                config.receivers.truncate(1);
                config.senders[0].receivers_min = 1;
            }
        }
    }

    fn lose(self, config: &mut WorldConfig, prng: &mut Prng) {
        let independent = steady_loss(prng);
        let bursts = Loss::Bursts {
            enter_ppm: between(prng, 5_000, 20_000),
            leave_ppm: between(prng, 50_000, 200_000),
            loss_ppm: between(prng, 300_000, 1_000_000),
        };
        match self {
            Self::SharedLoss => {
                config.shared_loss = if prng.chance(500_000) { independent } else { bursts };
            }
            Self::OneLosesMuch => {
                let loss = between(prng, 300_000, 500_000);
                some_receiver(config, prng).down.loss = Loss::Bernoulli(loss);
            }
            _ => {
                let loss = if self == Self::BurstyLoss { bursts } else { independent };
                for receiver in &mut config.receivers {
                    receiver.down.loss = loss;
                    receiver.up.loss = loss;
                }
            }
        }
    }

    fn bend(self, config: &mut WorldConfig, prng: &mut Prng) {
        let often = between(prng, 5_000, 100_000);
        let rarely = between(prng, 300, 2_000);
        let jitter = Duration::from_micros(between(prng, 200, 20_000).into());
        for receiver in &mut config.receivers {
            for link in [&mut receiver.down, &mut receiver.up] {
                match self {
                    Self::Reordering => (link.jitter, link.jitter_ppm) = (jitter, often),
                    Self::Duplication => link.duplicate_ppm = often,
                    Self::Truncation => link.truncate_ppm = often / 2,
                    Self::BitFlips => link.flip_ppm = often / 2,
                    _ => {}
                }
            }
            if self == Self::ForgedSymbols && prng.chance(400_000) {
                receiver.down.forge_ppm = rarely;
            }
        }
        if self == Self::ForgedSymbols {
            some_receiver(config, prng).down.forge_ppm = rarely;
        }
    }

    fn come_and_go(self, config: &mut WorldConfig, prng: &mut Prng) {
        let count = between(prng, 1, 3);
        let restart_after = Duration::from_millis(between(prng, 10, 5_000).into());
        for _ in 0..count {
            let when = some_time(prng);
            let receiver = some_receiver(config, prng);
            match self {
                Self::LateJoiners => {
                    receiver.starts = when;
                    receiver.asks = true;
                    receiver.wants = receiver.wants.or(Some(0));
                }
                Self::ReceiverDies => receiver.crash = Some(when),
                _ => {
                    receiver.crash = Some(when);
                    receiver.restart_after = Some(restart_after);
                }
            }
        }
        if self == Self::LateJoiners {
            let early = config.receivers.iter().filter(|it| it.starts == When::At(Duration::ZERO));
            config.senders[0].receivers_min = u32::try_from(early.count()).unwrap_or(1).max(1);
        }
    }

    fn cut(self, config: &mut WorldConfig, prng: &mut Prng) {
        let from = millis(prng, 0, 2_500);
        let window = Window { from, until: from + millis(prng, 100, 10_000) };
        let slow = config.senders[0].rate_max * u64::from(between(prng, 30, 80)) / 100;
        let everybody = prng.chance(200_000) || self == Self::NoMulticastForAll;
        let (up, down) = (prng.chance(700_000), prng.chance(700_000));
        let chosen = prng.below(config.receivers.len() as u64);
        for (number, receiver) in (0..).zip(&mut config.receivers) {
            if number != chosen && !everybody {
                continue;
            }
            match self {
                Self::NoMulticastForOne | Self::NoMulticastForAll => {
                    receiver.down.multicast_cuts = vec![Window::always()];
                    receiver.asks = true;
                }
                Self::MulticastFails => {
                    let until = if prng.chance(500_000) { Duration::MAX } else { window.until };
                    receiver.down.multicast_cuts.push(Window { from, until });
                    receiver.asks = true;
                }
                Self::FeedbackCut => receiver.up.cuts.push(window),
                Self::Partition => {
                    if up || !down {
                        receiver.up.cuts.push(window);
                    }
                    if down || !up {
                        receiver.down.cuts.push(window);
                    }
                }
                _ => receiver.down.bits_per_second = Some(slow),
            }
        }
    }

    fn disturb_sender(self, config: &mut WorldConfig, prng: &mut Prng) {
        let symbol_size = config.images[0].symbol_size;
        let otherwise = self == Self::SenderRestartsOtherwise;
        match self {
            Self::SenderRestarts | Self::SenderRestartsOtherwise => {
                let sizes = [64, 96, 128].into_iter().filter(|it| *it != symbol_size);
                let other = sizes.take(1 + usize::from(prng.chance(500_000))).last();
                config.senders[0].crash = Some(some_time(prng));
                config.senders[0].restart = Some(Restart {
                    after: millis(prng, 10, 8_000),
                    symbol_size: other.filter(|_| otherwise).unwrap_or(symbol_size),
                    group: u8::from(otherwise && prng.chance(500_000)),
                });
                for receiver in &mut config.receivers {
                    if prng.chance(300_000) {
                        receiver.disk.flush_takes = millis(prng, 0, 10_000);
                    }
                }
            }
            Self::TwoSendersOfOneImage => {
                let starts_at = millis(prng, 0, 1_500);
                let second = SenderConfig { starts_at, ..config.senders[0].clone() };
                config.senders.push(SenderConfig { crash: None, ..second });
            }
            _ => {
                let image = config.images[0];
                let bytes = image.bytes - u64::from(between(prng, 1, 500));
                config.images.push(ImageConfig { bytes, ..image });
                let other = config.images.len() - 1;
                config.senders.push(SenderConfig { image: other, ..config.senders[0].clone() });
                for receiver in &mut config.receivers {
                    receiver.wants = Some(if prng.chance(500_000) { other } else { 0 });
                }
            }
        }
    }

    fn wear(self, config: &mut WorldConfig, prng: &mut Prng) {
        let blocks = config.images[0].bytes >> config.images[0].block_log2;
        let fails_at = between(prng, 0, u32::try_from(blocks).unwrap_or(1));
        let slow = config.senders[0].rate_max / 8 * u64::from(between(prng, 10, 90)) / 100;
        let from = millis(prng, 500, 2_000);
        let stall = Window { from, until: from + millis(prng, 100, 8_000) };
        let disk = &mut some_receiver(config, prng).disk;
        match self {
            Self::SlowDisk => disk.bytes_per_second = slow,
            Self::FailingDisk => disk.fails_at_write = Some(fails_at),
            _ => disk.stalls.push(stall),
        }
    }
}

/// What befalls a world, seen from outside.
#[must_use]
pub fn faults(seed: u64) -> BTreeSet<Fault> {
    let mut prng = Prng::new(mix(seed ^ 0xC0FF_EE00));
    let _ = quiet(seed, &mut prng);
    draw_faults(&mut prng).into_iter().collect()
}

fn draw_faults(prng: &mut Prng) -> Vec<Fault> {
    let mut faults = Fault::ALL.to_vec();
    faults.retain(|fault| prng.chance(fault.share_ppm()));
    // A single receiver is chosen before anything befalls it.
    faults.sort_by_key(|fault| *fault != Fault::OneReceiver);
    faults
}

/// A world before anything befalls it.
fn quiet(seed: u64, prng: &mut Prng) -> WorldConfig {
    let block_log2 = [10, 10, 11, 11, 12][usize::try_from(prng.below(5)).unwrap_or(0)];
    let symbol_size = [64, 96, 128][usize::try_from(prng.below(3)).unwrap_or(0)];
    let blocks = u64::from(between(prng, 10, 24));
    let bytes = (blocks << block_log2) - prng.below(1 << block_log2);
    let image = ImageConfig { bytes, block_log2, symbol_size, zero_ppm: 0 };
    let count = usize::try_from(between(prng, 5, 14)).unwrap_or(1);
    let delays = [millis(prng, 0, 5), millis(prng, 0, 1), Duration::from_micros(60)];
    let receiver = |prng: &mut Prng| {
        let delay = delays[usize::try_from(prng.below(3)).unwrap_or(0)];
        let link = LinkConfig { delay, queue: millis(prng, 5, 50), ..LinkConfig::default() };
        ReceiverConfig {
            down: link.clone(),
            up: link,
            receive_timeout: Some(Duration::from_secs(30)),
            ..ReceiverConfig::default()
        }
    };
    let receivers: Vec<ReceiverConfig> = (0..count).map(|_| receiver(prng)).collect();
    let awaited = u32::try_from(count).unwrap_or(1);
    let sender = SenderConfig {
        wait_min: millis(prng, 0, 500),
        rate_max: u64::from(between(prng, 1_500, 16_000)) * 1_000,
        turn_delay: if prng.chance(300_000) { Duration::ZERO } else { millis(prng, 1, 8) },
        wait_max: Some(Duration::from_secs(20)),
        ..SenderConfig::new(awaited)
    };
    WorldConfig {
        seed,
        fidelity: Fidelity::Real,
        images: vec![image],
        senders: vec![sender],
        receivers,
        uplink_bits_per_second: 1_000_000_000,
        backbone: None,
        shared_loss: Loss::None,
        racks: None,
        planted: None,
        trace: false,
    }
}

/// Less does not even carry what a dozen receivers without multicast are told.
const SENDER_LINK_MIN: u64 = 2_000_000;
