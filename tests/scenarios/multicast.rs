//! Multicast that does not work, for one or for all, from the start or later.

use std::time::Duration;

use imgcast_tests::{Ending, ImageConfig, Loss, Window, World, WorldConfig};

use crate::all_done;

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
    all_done(|seed| {
        let mut config = deaf(seed, Duration::from_millis(700), 6).each_receiver(|_, receiver| {
            for window in &mut receiver.down.multicast_cuts {
                window.until = Duration::from_secs(4);
            }
        });
        config.senders[0].rate_max = 1_000_000;
        config
    });
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
