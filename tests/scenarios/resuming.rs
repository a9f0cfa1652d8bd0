//! Receivers that hold something of the image before it comes, and disks that lose what came.

use std::time::Duration;

use imgcast_common::prng::Prng;
use imgcast_tests::{Ending, WINDOW_BLOCKS, When, WorldConfig};

use crate::{all_done, run};

#[test]
fn killed_at_two_hundred_random_moments_a_receiver_fetches_what_was_not_flushed_and_no_more() {
    let mut resumed = 0;
    for seed in 0.. {
        if resumed >= 200 {
            break;
        }
        let mut prng = Prng::new(seed);
        let moment = When::Progress(u32::try_from(prng.below(1_000_000)).unwrap());
        let others = usize::try_from(prng.below(3)).unwrap();
        let mut config = WorldConfig::small(seed, 1 + others).each_receiver(|number, receiver| {
            if number == 0 {
                receiver.crash = Some(moment);
                receiver.restart_after = Some(Duration::from_millis(100));
                receiver.resumes = true;
                receiver.wants = Some(0);
                receiver.asks = true;
            }
        });
        config.images[0].bytes = 40 * 2048 - 9;
        config.images[0].zero_ppm = 50_000;
        config.senders[0].rate_max = 2_000_000;
        let report = run(config);
        report.assert_clean();
        let runs: Vec<_> = report.receivers.iter().filter(|it| it.config == 0).collect();
        assert!(runs.iter().any(|it| matches!(it.ending, Ending::Done { .. })), "{report}");
        for second in runs.iter().skip(1) {
            resumed += 1;
            let again = second.rewritten as usize;
            assert!(again <= 2 * WINDOW_BLOCKS, "{again} blocks were there: {report}");
        }
    }
}

#[test]
fn of_an_image_that_all_hold_but_for_a_fiftieth_a_fiftieth_is_sent() {
    let reports = all_done(|seed| {
        let mut config = WorldConfig::small(seed, 8).each_receiver(|_, receiver| {
            receiver.resumes = true;
            receiver.old_image_changed_every = Some(50);
        });
        config.images[0].bytes = 400 * 2048;
        config
    });
    for report in reports {
        // Blocks of 32 symbols, with a few that are sent to be sure.
        assert!(report.overhead_ppm < 30_000, "{report}");
        assert!(report.overhead_ppm >= 20_000, "what is lacking has to be sent: {report}");
    }
}

#[test]
fn who_finds_out_first_what_it_lacks_asks_for_all_and_nothing_is_sent_twice() {
    let reports = all_done(|seed| {
        let mut config = WorldConfig::small(seed, 4).each_receiver(|number, receiver| {
            receiver.resumes = true;
            receiver.old_image_changed_every = Some(20);
            // Twenty blocks later than the one before it asks: long after what that got.
            receiver.search_per_block = Duration::from_millis(1 + number as u64);
        });
        config.images[0].bytes = 400 * 2048;
        config
    });
    for report in reports {
        // Blocks of 32 symbols, of which 20 differ.
        let sent = report.group_symbols + report.unicast_symbols;
        assert!((20 * 32..21 * 32).contains(&sent), "{sent} symbols: {report}");
    }
}

#[test]
fn killed_while_it_looks_for_an_old_image_a_receiver_looks_again() {
    for seed in 0..20 {
        let mut config = WorldConfig::small(seed, 1).each_receiver(|_, receiver| {
            receiver.resumes = true;
            receiver.old_image_changed_every = Some(50);
            // It has the index after less than half a second, and looks at a block a millisecond.
            receiver.crash = Some(When::At(Duration::from_millis(480 + seed * 15)));
            receiver.restart_after = Some(Duration::from_millis(100));
        });
        config.images[0].bytes = 400 * 2048;
        config.senders[0].rate_max = 2_000_000;
        let report = run(config);
        report.assert_clean();
        assert!(report.receivers.iter().any(|it| matches!(it.ending, Ending::Done { .. })));
        // A block has 32 symbols, and eight blocks differ.
        assert!(report.group_symbols + report.unicast_symbols < 2 * 8 * 32, "{report}");
    }
}

#[test]
fn who_holds_all_but_one_block_is_sent_that_one_and_who_holds_nothing_gets_it_all() {
    for (seed, every, others) in [(1, u32::MAX, 0), (2, u32::MAX, 2), (3, 1, 2)] {
        let report = run(WorldConfig::small(seed, 2 + others).each_receiver(|number, receiver| {
            if number < 2 {
                receiver.resumes = true;
                receiver.old_image_changed_every = Some(every);
            }
        }));
        report.assert_all_done();
        assert!(others > 0 || report.overhead_ppm < 80_000, "{report}");
    }
}

#[test]
fn what_a_disk_loses_while_it_is_written_or_flushed_is_fetched_again() {
    for (at_write, at_flush) in [(Some(0), 0), (Some(9), 0), (None, 1), (None, 5), (Some(3), 16)] {
        let reports = all_done(|seed| {
            let mut config = WorldConfig::small(seed, 3).each_receiver(|number, receiver| {
                if number == 1 {
                    receiver.disk.loses_at_write = at_write;
                    receiver.disk.loses_at_flush = at_flush;
                }
            });
            config.images[0].zero_ppm = 200_000;
            config
        });
        for report in reports {
            assert!(report.receivers.iter().all(|it| it.polluted == 0), "{report}");
        }
    }
}

#[test]
fn with_loss_and_little_memory_a_resumed_receiver_gets_the_rest() {
    all_done(|seed| {
        WorldConfig::small(seed, 4).each_receiver(|number, receiver| {
            receiver.down.loss = imgcast_tests::Loss::Bernoulli(50_000);
            receiver.memory_blocks = 1;
            receiver.resumes = number % 2 == 0;
            receiver.old_image_changed_every = Some(3);
        })
    });
}
