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
fn datagrams_that_ten_thousand_others_overtake_are_no_harm() {
    let reports = all_done(|seed| {
        let mut config = bent(seed, |link| {
            (link.jitter, link.jitter_ppm) = (LATE, 20_000);
        });
        config.images[0].bytes = 512 * 2048;
        config.senders[0].rate_max = 10_000_000;
        config
    });
    for report in reports {
        // A datagram of 64 octets takes 174 on the wire.
        let in_time = u64::try_from(LATE.as_millis()).unwrap() * 10_000 / 8 / 174;
        assert!(in_time > 10_000 && report.group_symbols > in_time, "{report}");
        assert!(report.overhead_ppm < 1_300_000, "{report}");
    }
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

/// How late some are, at most.
const LATE: Duration = Duration::from_millis(1_500);
