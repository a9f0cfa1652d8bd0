//! Receivers that start one after another: what they have to take twice.

use std::time::Duration;

use imgcast_tests::{Loss, Report, When, WorldConfig};

use crate::{crowd::crowd, run};

#[test]
fn receivers_that_join_over_thirty_seconds_get_little_twice() {
    let mut beyond = Vec::new();
    for (receivers, loss_ppm) in [(8, 0), (8, 10_000), (64, 0), (64, 10_000)] {
        // A minute at 100 Mbit/s; the last receiver joins when half of it is over.
        let report = run(staggered(1, receivers, 690, loss_ppm));
        report.assert_all_done();
        beyond.push(tell(&format!("{receivers} receivers, {loss_ppm} ppm"), &report));
    }
    assert!(beyond.iter().all(|percent| *percent <= 5.0), "{beyond:.1?} % beyond need");
}

/// Receivers that join one after another in thirty seconds.
fn staggered(seed: u64, receivers: usize, blocks: u64, loss_ppm: u32) -> WorldConfig {
    let mut config = crowd(seed, receivers, blocks, loss_ppm);
    config.senders[0].receivers_min = 1;
    config.senders[0].rate_start = Some(100_000_000);
    config.senders[0].rate_max = 100_000_000;
    let step = Duration::from_secs(30) / u32::try_from(receivers - 1).unwrap_or(1);
    config.each_receiver(|number, receiver| {
        receiver.starts = When::At(step * u32::try_from(number).unwrap_or(0));
        receiver.up.loss = Loss::None;
    })
}

/// Says what came of it; returns how much the worst receiver got beyond what it needed, in percent.
fn tell(name: &str, report: &Report) -> f64 {
    let beyond = report.receivers.iter().map(|receiver| {
        (receiver.symbols.received as f64 / receiver.symbols.needed as f64 - 1.0) * 100.0
    });
    let beyond: Vec<f64> = beyond.collect();
    let worst = beyond.iter().copied().fold(0.0, f64::max);
    let mean = beyond.iter().sum::<f64>() / beyond.len() as f64;
    println!(
        "{name}: {mean:.1} % beyond need, at worst {worst:.1} %; done at {:?}",
        report.done_at
    );
    worst
}
