//! The way back, or both ways, fail for a while.

use std::time::Duration;

use imgcast_tests::{Loss, Window, WorldConfig};

use crate::all_done;

/// Symbols flow from 0.3 to 1.0 s, and repairs a little longer.
fn lossy(seed: u64) -> WorldConfig {
    let mut config = WorldConfig::small(seed, 6)
        .each_receiver(|_, receiver| receiver.down.loss = Loss::Bernoulli(50_000));
    config.senders[0].rate_max = 1_000_000;
    config
}

#[test]
fn without_a_way_back_for_a_while_needs_are_met_later() {
    let reports = all_done(|seed| {
        lossy(seed).each_receiver(|number, receiver| {
            if number < 3 {
                receiver.up.cuts = vec![Window::millis(700, 6_000)];
            }
        })
    });
    for report in reports {
        assert!(report.done_at < Duration::from_secs(12), "{report}");
    }
}

#[test]
fn without_any_way_back_from_all_the_sender_waits() {
    let reports = all_done(|seed| {
        lossy(seed).each_receiver(|_, receiver| {
            receiver.up.cuts = vec![Window::millis(700, 10_700)];
        })
    });
    for report in reports {
        assert!(report.done_at < Duration::from_secs(20), "{report}");
        assert!(report.overhead_ppm < 1_300_000, "it does not send into the blue: {report}");
    }
}

#[test]
fn a_partition_of_ten_seconds_heals() {
    let reports = all_done(|seed| {
        lossy(seed).each_receiver(|number, receiver| {
            if number.is_multiple_of(2) {
                receiver.up.cuts = vec![Window::millis(750, 10_750)];
                receiver.down.cuts = vec![Window::millis(750, 10_750)];
            }
        })
    });
    for report in reports {
        assert!(report.done_at > Duration::from_millis(10_750), "it cut nobody off: {report}");
    }
}

#[test]
fn a_partition_of_one_of_half_or_of_all_from_a_tenth_of_a_second_to_ten_heals() {
    for (cut_off, millis) in
        [1, 3, 6].into_iter().flat_map(|n| [100, 1_000, 10_000].map(|t| (n, t)))
    {
        let reports = all_done(|seed| {
            lossy(seed).each_receiver(|number, receiver| {
                if number < cut_off {
                    receiver.up.cuts = vec![Window::millis(750, 750 + millis)];
                    receiver.down.cuts = vec![Window::millis(750, 750 + millis)];
                }
            })
        });
        for report in reports {
            let others = report.receivers.iter().filter(|it| it.config >= cut_off);
            let others = others.map(|it| it.at).max().unwrap_or_default();
            assert!(others < Duration::from_secs(5), "{cut_off} for {millis} ms: {report}");
            let over = Duration::from_millis(750 + millis);
            assert!(report.done_at > over, "{cut_off} for {millis} ms cut nobody off: {report}");
        }
    }
}

#[test]
fn a_partition_while_joining_is_not_taken_for_a_small_mtu() {
    all_done(|seed| {
        let mut config = lossy(seed).each_receiver(|number, receiver| {
            if number < 3 {
                receiver.up.cuts = vec![Window::millis(600, 4_000)];
                receiver.up.loss = Loss::Bernoulli(300_000);
            }
        });
        config.senders[0].wait_max = None;
        config
    });
}

#[test]
fn many_short_partitions_heal() {
    all_done(|seed| {
        let cuts: Vec<Window> =
            (0..20).map(|number| Window::millis(650 + 500 * number, 900 + 500 * number)).collect();
        let mut config = lossy(seed).each_receiver(|_, receiver| {
            receiver.up.cuts.clone_from(&cuts);
            receiver.down.cuts.clone_from(&cuts);
        });
        config.senders[0].rate_max = 1_000_000;
        config
    });
}
