//! Receivers that come late, die, or come back.

use std::time::Duration;

use imgcast_sender::session::Outcome;
use imgcast_tests::{Ending, Report, When, Window, WorldConfig};

use crate::{all_done, run};

fn joining_at(seed: u64, progress_ppm: u32) -> WorldConfig {
    let mut config = WorldConfig::small(seed, 6).each_receiver(|number, receiver| {
        if number == 0 {
            // It keeps the session open: 32 KB at 20 kB/s.
            receiver.disk.bytes_per_second = 20_000;
        }
        if number >= 4 {
            receiver.starts = When::Progress(progress_ppm);
            // Who knows what to ask for need not listen first.
            receiver.wants = Some(0);
            receiver.asks = true;
        }
    });
    config.senders[0].receivers_min = 4;
    config.senders[0].rate_max = 1_000_000;
    config
}

#[test]
fn receivers_that_join_at_a_tenth_get_what_they_missed() {
    for report in all_done(|seed| joining_at(seed, 100_000)) {
        assert!(report.overhead_ppm < 1_500_000, "{report}");
    }
}

#[test]
fn receivers_that_join_halfway_get_what_they_missed() {
    for report in all_done(|seed| joining_at(seed, 500_000)) {
        assert!(report.overhead_ppm < 1_900_000, "{report}");
    }
}

#[test]
fn receivers_that_join_at_the_end_get_everything() {
    for report in all_done(|seed| joining_at(seed, 990_000)) {
        assert!(report.overhead_ppm < 2_300_000, "{report}");
    }
}

#[test]
fn a_receiver_that_dies_halfway_holds_up_nobody() {
    for seed in 0..20 {
        let report = run(WorldConfig::small(seed, 6).each_receiver(|number, receiver| {
            if number == 2 {
                receiver.crash = Some(When::Progress(500_000));
            }
        }));
        report.assert_clean();
        assert_eq!(report.receivers[2].ending, Ending::Crashed);
        assert_eq!(report.done(), 5, "{report}");
        assert!(report.done_at < Duration::from_secs(2), "{report}");
        // It counts as lost in the end, and the operator is told.
        assert_eq!(report.senders, [Some(Outcome::Ended { expected: 6, done: 5 })]);
    }
}

#[test]
fn a_receiver_that_starts_again_takes_the_place_of_its_former_run() {
    for seed in 0..20 {
        let mut config = WorldConfig::small(seed, 4).each_receiver(|number, receiver| {
            if number == 1 {
                receiver.crash = Some(When::Progress(700_000));
                receiver.restart_after = Some(Duration::from_millis(100));
                receiver.wants = Some(0);
                receiver.asks = true;
            }
        });
        config.senders[0].rate_max = 1_000_000;
        let report: Report = run(config);
        report.assert_clean();
        assert_eq!(report.done(), 4, "{report}");
        assert_eq!(report.senders, [Some(Outcome::Ended { expected: 4, done: 4 })]);
        assert!(report.duration < Duration::from_secs(20), "nobody waits for the dead: {report}");
    }
}

#[test]
fn whoever_heard_everything_without_being_let_in_has_the_image_all_the_same() {
    let report = run(WorldConfig::small(1, 3).each_receiver(|number, receiver| {
        if number == 2 {
            receiver.up.cuts = vec![Window::always()];
            receiver.receive_timeout = Some(Duration::from_secs(15));
        }
    }));
    report.assert_clean();
    assert_eq!(report.receivers.iter().filter(|it| it.config == 2).count(), 1);
    let unknown = Ending::Done { acknowledged: false };
    assert!(report.receivers.iter().all(|it| it.config != 2 || it.ending == unknown), "{report}");
}
