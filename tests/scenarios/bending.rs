//! Datagrams that arrive out of order, twice, cut short, or changed.

use std::time::Duration;

use imgcast_tests::{LinkConfig, WorldConfig};

use crate::{all_done, mean};

fn bent(seed: u64, change: impl Fn(&mut LinkConfig)) -> WorldConfig {
    WorldConfig::small(seed, 6).each_receiver(|_, receiver| {
        change(&mut receiver.down);
        change(&mut receiver.up);
    })
}

#[test]
fn reordering_costs_little() {
    let reports = all_done(|seed| {
        bent(seed, |link| {
            (link.jitter, link.jitter_ppm) = (Duration::from_millis(5), 200_000);
        })
    });
    let overhead = mean(&reports, |report| report.overhead_ppm);
    assert!(overhead < 1_100_000, "{overhead}");
}

#[test]
fn duplicates_change_nothing() {
    for report in all_done(|seed| bent(seed, |link| link.duplicate_ppm = 200_000)) {
        assert_eq!(report.group_symbols, 502, "{report}");
    }
}

#[test]
fn what_is_cut_short_counts_as_lost() {
    all_done(|seed| bent(seed, |link| link.truncate_ppm = 50_000));
}

#[test]
fn flipped_bits_are_found_by_the_checksum() {
    for report in all_done(|seed| bent(seed, |link| link.flip_ppm = 50_000)) {
        assert!(report.receivers.iter().all(|it| it.polluted == 0), "{report}");
    }
}

#[test]
fn symbols_that_were_changed_with_care_are_found_by_the_block_s_hash() {
    let reports = all_done(|seed| bent(seed, |link| link.forge_ppm = 3_000));
    // 32 symbols a block: of 20 times 16 blocks at 6 receivers about 170 were hit.
    let polluted: u32 =
        reports.iter().flat_map(|report| &report.receivers).map(|it| it.polluted).sum();
    assert!(polluted > 50, "{polluted}");
}
