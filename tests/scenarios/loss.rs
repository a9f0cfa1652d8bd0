//! Datagrams get lost, one by one, in bursts, or for all at once.

use std::time::Duration;

use imgcast_tests::{Loss, WorldConfig};

use crate::{
    all_done,
    crowd::crowd,
    links::{QUEUE, image_bytes, world},
    mean, run,
};

fn lossy(seed: u64, loss: Loss) -> WorldConfig {
    WorldConfig::small(seed, 8).each_receiver(|_, receiver| {
        receiver.down.loss = loss;
        receiver.up.loss = loss;
    })
}

const BURSTS: Loss = Loss::Bursts { enter_ppm: 10_000, leave_ppm: 100_000, loss_ppm: 800_000 };

#[test]
fn independent_loss_is_repaired_for_all_at_once() {
    let reports = all_done(|seed| lossy(seed, Loss::Bernoulli(20_000)));
    // 8 receivers lose 2 % each, 16 % between them; repair symbols serve several.
    let overhead = mean(&reports, |report| report.overhead_ppm);
    assert!(overhead < 1_120_000, "{overhead}");
}

#[test]
fn bursts_are_repaired() {
    all_done(|seed| lossy(seed, BURSTS));
}

#[test]
fn what_all_lost_is_asked_for_by_few_and_sent_once() {
    let reports = all_done(|seed| {
        let mut config = WorldConfig::small(seed, 64);
        config.shared_loss = BURSTS;
        config
    });
    // About 7 % of the symbols, and one more for every block.
    let overhead = mean(&reports, |report| report.overhead_ppm);
    assert!(overhead < 1_250_000, "{overhead}");
    // 64 receivers that all lost the same would ask 64 times for each of 16 blocks.
    let needs = mean(&reports, |report| report.needs);
    assert!(needs < 100, "{needs}");
}

#[test]
fn one_receiver_that_loses_much_costs_the_others_little() {
    let reports = all_done(|seed| {
        WorldConfig::small(seed, 8).each_receiver(|number, receiver| {
            if number == 3 {
                receiver.down.loss = Loss::Bernoulli(300_000);
                receiver.up.loss = Loss::Bernoulli(300_000);
            }
        })
    });
    let done_at = |report: &imgcast_tests::Report| {
        let others = report.receivers.iter().filter(|it| it.config != 3);
        others.map(|it| it.at.as_millis()).max().and_then(|at| u64::try_from(at).ok()).unwrap_or(0)
    };
    // Without it they have it after 0.8 s; it may need a few tries to join.
    let others = mean(&reports, done_at);
    assert!(others < 3_000, "{others} ms");
}

#[test]
fn all_may_lose_a_third() {
    all_done(|seed| lossy(seed, Loss::Bernoulli(300_000)));
}

#[test]
fn microbursts_cost_what_they_take_though_nothing_is_repaired_in_advance() {
    for (length, every, receivers) in [(1, 20_000, 16), (10, 20_000, 16), (40, 20_000, 256)] {
        let reports = all_done(|seed| {
            let mut config = crowd(seed, receivers, 128, 0);
            config.shared_loss = Loss::Bursts {
                enter_ppm: 1_000_000 / every,
                leave_ppm: 1_000_000 / length,
                loss_ppm: 1_000_000,
            };
            config
        });
        // How much that takes is chance: five bursts of any length in each run.
        let lost_ppm = u64::from(length) * 1_000_000 / u64::from(every);
        let allowed = 1_000_000 + 2 * lost_ppm + 1_000;
        let overhead = mean(&reports, |report| report.overhead_ppm);
        assert!(overhead <= allowed, "{length} of {every}: {overhead}");
        let worst = reports.iter().flat_map(imgcast_tests::Report::needs_by_window).max();
        assert!(worst <= Some(100), "{length} of {every}: {worst:?} NEEDs in a window");
    }
}

/// Reports speak of a few bursts each, so that one says nothing and the next a tenth.
#[test]
fn where_nobody_set_the_rate_long_bursts_of_loss_never_stop_the_session() {
    for (link, receivers) in [(100, 1), (100, 16), (1_000, 1), (1_000, 16)] {
        let seeds = 101..109;
        let times = seeds.clone().map(|seed| {
            let config = world(seed, link, QUEUE, &[Duration::ZERO], receivers);
            let mut config = config.each_receiver(|_, receiver| {
                receiver.down.loss = Loss::in_bursts(50, 50_000);
                receiver.up.loss = Loss::Bernoulli(50_000);
            });
            config.images[0].bytes = image_bytes(link, IMAGE_SECONDS);
            let report = run(config);
            let name = format!("{link} Mbit/s, {receivers} receivers, seed {seed}");
            assert_eq!(report.done(), receivers, "{name}: {report}");
            let took = report.done_at.saturating_sub(report.started_at).as_secs_f64();
            let times = took / IMAGE_SECONDS as f64;
            assert!(times < 5.0, "{name}: {times:.2} times what the wire takes");
            times
        });
        let mean = times.sum::<f64>() / seeds.count() as f64;
        println!("{link} Mbit/s, {receivers} receivers: {mean:.2} times what the wire takes");
        assert!(mean < 2.5, "{link} Mbit/s, {receivers} receivers: {mean:.2}");
    }
}

/// What the link takes for the image alone.
const IMAGE_SECONDS: u64 = 14;
