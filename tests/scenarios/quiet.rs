//! A network that loses nothing.

use imgcast_tests::{World, WorldConfig};

use crate::all_done;

#[test]
fn without_loss_one_pass_serves_everybody_and_nobody_asks() {
    for report in all_done(|seed| WorldConfig::small(seed, 8)) {
        assert_eq!((report.needs, report.unicast_symbols), (0, 0), "{report}");
        // 32,068 octets in symbols of 64: the last one is padded.
        assert_eq!(report.group_symbols, 502, "{report}");
    }
}

#[test]
fn a_lone_receiver_is_served_at_once() {
    for report in all_done(|seed| WorldConfig::small(seed, 1)) {
        assert_eq!((report.group_symbols, report.needs), (502, 0), "{report}");
    }
}

#[test]
fn an_image_of_zeroes_is_never_sent() {
    let reports = all_done(|seed| {
        let mut config = WorldConfig::small(seed, 4);
        config.images[0].zero_ppm = 1_000_000;
        config
    });
    assert!(reports.iter().all(|report| report.group_symbols == 0));
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let hash = |seed| World::new(WorldConfig::small(seed, 5)).run().trace_hash;
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
