//! What worlds are drawn from.

use std::time::Duration;

use imgcast_common::prng::Prng;

use crate::config::{Loss, ReceiverConfig, When, WorldConfig};

/// Loss that never changes: mostly some percent, and for one in five a third to a half.
pub(super) fn steady_loss(prng: &mut Prng) -> Loss {
    let is_heavy = prng.chance(HEAVY_PPM);
    let (least, most) = if is_heavy { (300_000, 500_000) } else { (10_000, 100_000) };
    Loss::Bernoulli(between(prng, least, most))
}

/// Anybody of the world.
pub(super) fn some_receiver<'a>(
    config: &'a mut WorldConfig,
    prng: &mut Prng,
) -> &'a mut ReceiverConfig {
    let number = usize::try_from(prng.below(config.receivers.len() as u64)).unwrap_or(0);
    &mut config.receivers[number]
}

/// Mostly while symbols flow.
pub(super) fn some_time(prng: &mut Prng) -> When {
    if prng.chance(600_000) {
        When::Progress(between(prng, 0, 1_000_000))
    } else {
        When::At(millis(prng, 0, 3_000))
    }
}

pub(super) fn millis(prng: &mut Prng, from: u32, to: u32) -> Duration {
    let micros = u64::from(from) * 1_000 + prng.below(u64::from(to - from) * 1_000 + 1);
    Duration::from_micros(micros)
}

/// A number from `from` to `to`, both included.
pub(super) fn between(prng: &mut Prng, from: u32, to: u32) -> u32 {
    from + u32::try_from(prng.below(u64::from(to - from) + 1)).unwrap_or(0)
}

/// Of a million losses that never change.
const HEAVY_PPM: u32 = 200_000;
