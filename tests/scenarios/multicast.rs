//! Multicast that does not work, for one or for all, from the start or later.

use std::{ops::Range, time::Duration};

use imgcast_tests::{Ending, ImageConfig, Loss, RackConfig, Report, Window, World, WorldConfig};

use crate::{all_done, crowd::crowd, run};

fn deaf(seed: u64, from: Duration, number_of_deaf: usize) -> WorldConfig {
    WorldConfig::small(seed, 6).each_receiver(|number, receiver| {
        if number < number_of_deaf {
            receiver.asks = true;
            receiver.down.multicast_cuts = vec![Window { from, until: Duration::MAX }];
        }
    })
}

#[test]
fn one_that_hears_no_multicast_gets_everything_by_unicast() {
    for report in all_done(|seed| deaf(seed, Duration::ZERO, 1)) {
        assert!(report.unicast_symbols >= 502, "{report}");
        let known = Ending::Done { acknowledged: true };
        assert!(report.receivers.iter().all(|it| it.ending == known), "{report}");
    }
}

#[test]
fn where_nobody_hears_multicast_everybody_gets_everything_by_unicast() {
    for report in all_done(|seed| deaf(seed, Duration::ZERO, 6)) {
        assert!(report.unicast_symbols >= 6 * 502, "{report}");
        let known = Ending::Done { acknowledged: true };
        assert!(report.receivers.iter().all(|it| it.ending == known), "{report}");
    }
}

#[test]
fn where_nobody_hears_multicast_the_rate_stays_up_for_as_long_as_it_takes() {
    let mut config = deaf(1, Duration::ZERO, 6);
    config.images[0] = ImageConfig { bytes: 4 << 20, block_log2: 13, ..config.images[0] };
    config.senders[0].rate_max = 10_000_000;
    let symbol_size = f64::from(config.images[0].symbol_size);
    let on_the_wire = 6.0 * f64::from(4 << 20) * (symbol_size + 110.0) / symbol_size;
    let ideal_seconds = on_the_wire * 8.0 / 1e7;
    assert!(ideal_seconds > 30.0, "long enough for the circuit to break");
    let report = World::new(config).run();
    report.assert_clean();
    report.assert_all_done();
    let took = report.done_at - report.started_at;
    assert!(took.as_secs_f64() < 1.5 * ideal_seconds, "{took:?} of {ideal_seconds} s");
}

#[test]
fn multicast_that_dies_on_the_way_is_replaced() {
    all_done(|seed| deaf(seed, Duration::from_millis(700), 1));
    all_done(|seed| deaf(seed, Duration::from_millis(700), 6));
}

#[test]
fn multicast_that_comes_back_is_used_again() {
    let reports = all_done(|seed| {
        let mut config = deaf(seed, Duration::from_millis(700), 6).each_receiver(|_, receiver| {
            for window in &mut receiver.down.multicast_cuts {
                window.until = BACK;
            }
        });
        // By multicast this takes six seconds, by unicast to each of the six half a minute.
        config.images[0].bytes *= 8;
        config.senders[0].rate_max = 1_000_000;
        config
    });
    for report in reports {
        let by_unicast = |during: Range<Duration>| {
            let sent = || report.sent.iter().filter(|it| during.contains(&it.at));
            let alone: u64 = sent().filter(|it| it.by_unicast).map(|it| it.symbols).sum();
            alone as f64 / sent().map(|it| it.symbols).sum::<u64>() as f64
        };
        let cut_off = by_unicast(BACK - Duration::from_secs(2)..BACK);
        let again = by_unicast(BACK + USED_AGAIN..report.done_at);
        println!("seed {}: {cut_off:.3} by unicast, then {again:.3}", report.seed);
        assert!(cut_off > 0.99, "{cut_off}: {report}");
        // What they asked for last meanwhile is still sent, beside what the group is.
        assert!(again < UNICAST_BESIDE_MAX, "{again}: {report}");
    }
}

#[test]
fn unicast_may_lose_too() {
    all_done(|seed| {
        deaf(seed, Duration::ZERO, 3).each_receiver(|_, receiver| {
            receiver.down.loss = Loss::Bernoulli(100_000);
            receiver.up.loss = Loss::Bernoulli(100_000);
        })
    });
}

#[test]
fn sixteen_without_multicast_among_two_hundred_do_not_hurt_the_others() {
    for loss_ppm in [0, 10_000] {
        let without = run(crowd(1, 184, BLOCKS, loss_ppm));
        let with = run(cut_off(crowd(1, 200, BLOCKS, loss_ppm), |number| number < 16));
        hurts_nobody(&format!("16 of 200, {loss_ppm} ppm"), &with, &without, |it| it >= 16);
    }
}

#[test]
fn multicast_that_reaches_three_racks_of_four_serves_them_as_if_all_were_reached() {
    for loss_ppm in [0, 10_000] {
        let racks = |receivers| {
            let rack = RackConfig { receivers: RACK, loss: Loss::Bernoulli(loss_ppm) };
            WorldConfig { racks: Some(rack), ..crowd(1, receivers, BLOCKS, 0) }
        };
        let is_reached = |number| !(RACK..2 * RACK).contains(&number);
        let without = run(racks(3 * RACK));
        let with = run(cut_off(racks(4 * RACK), |number| !is_reached(number)));
        hurts_nobody(&format!("a rack of 4, {loss_ppm} ppm"), &with, &without, is_reached);
    }
}

/// The same, with some that hear no multicast.
fn cut_off(config: WorldConfig, is_deaf: impl Fn(usize) -> bool) -> WorldConfig {
    config.each_receiver(|number, receiver| {
        if is_deaf(number) {
            receiver.asks = true;
            receiver.down.multicast_cuts = vec![Window::always()];
        }
    })
}

/// All get the image, and those who hear multicast as soon as without the others; the group costs
/// no more symbols, and unicast little while the group is served.
fn hurts_nobody(name: &str, with: &Report, without: &Report, hears: impl Fn(usize) -> bool) {
    with.assert_all_done();
    without.assert_all_done();
    let took = |report: &Report, hears: &dyn Fn(usize) -> bool| {
        let at = report.receivers.iter().filter(|it| hears(it.config)).map(|it| it.at);
        (at.max().unwrap_or_default() - report.started_at).as_secs_f64()
    };
    let delay = took(with, &hears) / took(without, &|_| true);
    let bytes = with.group_symbols as f64 / without.group_symbols as f64;
    println!(
        "{name}: the others take {delay:.3} of their time, the group {bytes:.3} of its symbols, \
         unicast meanwhile {} ppm; all done after {:.2} s",
        with.unicast_beside_ppm,
        took(with, &|_| true),
    );
    assert!(delay <= 1.0 / 0.92, "{name}: {delay}");
    assert!(bytes <= 1.02, "{name}: {bytes}");
    assert!(with.unicast_beside_ppm <= 80_000, "{name}: {} ppm", with.unicast_beside_ppm);
}

/// When multicast comes back.
const BACK: Duration = Duration::from_secs(4);
/// It has to be heard for two seconds before a receiver says so.
const USED_AGAIN: Duration = Duration::from_secs(3);
/// More of the rate never goes to single receivers while the group is owed anything.
const UNICAST_BESIDE_MAX: f64 = 0.08;
/// Two seconds at 1 Gbit/s.
const BLOCKS: u64 = 224;
/// Receivers in one.
const RACK: usize = 48;
