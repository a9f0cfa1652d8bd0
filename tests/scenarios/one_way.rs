//! Networks without a way back: receivers listen, and say nothing.

use std::time::Duration;

use imgcast_receiver::session::{Failure, Lack, LackEnd};
use imgcast_sender::session::{OneWay, Outcome};
use imgcast_tests::{Ending, ImageConfig, Loss, Report, When, Window, WorldConfig};

use crate::run;

/// 64 blocks, 16 receivers that can tell nobody anything.
fn one_way(seed: u64, passes: u8, loss_ppm: u32) -> WorldConfig {
    let mut config = WorldConfig::small(seed, 16).each_receiver(|_, receiver| {
        receiver.up.cuts = vec![Window::always()];
        receiver.down.loss = Loss::Bernoulli(loss_ppm);
    });
    config.images[0] = ImageConfig { bytes: 64 * 2048 - 700, ..config.images[0] };
    let sender = &mut config.senders[0];
    sender.one_way = Some(OneWay { passes, repair_percent: 5 });
    sender.receivers_min = 0;
    sender.wait_min = Duration::from_secs(2);
    sender.wait_max = None;
    config
}

/// What holds however much arrives.
fn assert_one_way(report: &Report) {
    report.assert_clean();
    assert_eq!(report.from_receivers, 0, "{report}");
    assert_eq!(report.unicast_symbols, 0, "{report}");
    assert_eq!(report.senders, [Some(Outcome::Ended { expected: 0, done: 0 })]);
}

fn assert_all_have_it(report: &Report) {
    assert_one_way(report);
    let silent = Ending::Done { acknowledged: false };
    assert!(report.receivers.iter().all(|it| it.ending == silent), "{report}");
}

fn lack(ending: &Ending) -> &Lack {
    match ending {
        Ending::Failed(Failure::Lacking(lack)) => lack,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_passes_make_up_for_a_hundredth_of_loss() {
    for seed in 0..20 {
        assert_all_have_it(&run(one_way(seed, 2, 10_000)));
    }
}

#[test]
fn one_pass_is_enough_where_nothing_is_lost_and_nobody_waits_for_the_end() {
    let report = run(one_way(1, 1, 0));
    assert_all_have_it(&report);
    assert!(report.overhead_ppm < 1_200_000, "{report}");
    let ended = report.started_at + Duration::from_secs(2);
    assert!(report.receivers.iter().all(|it| it.at < ended), "{report}");
}

#[test]
fn what_a_single_pass_could_not_bring_is_told_as_soon_as_it_is_over() {
    for seed in 0..20 {
        let report = run(one_way(seed, 1, 300_000));
        assert_one_way(&report);
        assert_eq!(report.done(), 0, "{report}");
        for receiver in &report.receivers {
            let lack = lack(&receiver.ending);
            assert!(lack.blocks > 32 && lack.bytes > 32 * 1_348 && lack.bytes < 64 * 2048);
            assert!(!lack.runs.is_empty() && lack.begun.0 > 0, "{lack:?}");
            assert_eq!((lack.passes_heard, lack.passes), (1, 1));
            assert!((15..=45).contains(&lack.loss_percent), "{lack:?}");
            assert_eq!(lack.end, LackEnd::Sent);
            assert!(receiver.at < report.started_at + Duration::from_secs(3), "{report}");
        }
    }
}

#[test]
fn many_passes_make_up_for_heavy_loss() {
    for seed in 0..5 {
        assert_all_have_it(&run(one_way(seed, 12, 300_000)));
    }
}

#[test]
fn who_comes_in_the_midst_of_a_pass_gets_the_rest_with_the_next() {
    for (seed, progress) in [(1, 1_000), (2, 300_000), (3, 700_000), (4, 1_000_000)] {
        let mut config = one_way(seed, 2, 0).each_receiver(|number, receiver| {
            if number >= 8 {
                receiver.starts = When::Progress(progress);
                receiver.wants = Some(0);
            }
        });
        config.senders[0].rate_max = 200_000;
        assert_all_have_it(&run(config));
    }
}

#[test]
fn who_comes_in_the_midst_of_the_last_pass_lacks_what_it_missed_and_nothing_else() {
    let mut config = one_way(1, 1, 0).each_receiver(|number, receiver| {
        if number >= 8 {
            receiver.starts = When::Progress(500_000);
            receiver.wants = Some(0);
        }
    });
    config.senders[0].rate_max = 200_000;
    let report = run(config);
    assert_one_way(&report);
    assert_eq!(report.done(), 8, "{report}");
    for receiver in report.receivers.iter().filter(|it| it.config >= 8) {
        let lack = lack(&receiver.ending);
        assert!((24..48).contains(&lack.blocks) && !lack.index, "{lack:?}");
        assert_eq!(lack.runs[0].0, 0, "{lack:?}");
    }
}

#[test]
fn an_outage_in_one_pass_that_takes_announcements_too_is_made_up_for_by_the_next() {
    let mut config = one_way(3, 2, 10_000).each_receiver(|_, receiver| {
        receiver.down.multicast_cuts = vec![Window::millis(5_000, 12_000)];
    });
    config.senders[0].rate_max = 200_000;
    assert_all_have_it(&run(config));
}

#[test]
fn who_never_hears_the_end_gives_up_when_nothing_came_for_its_patience() {
    let mut config = one_way(4, 1, 0).each_receiver(|number, receiver| {
        receiver.receive_timeout = Some(Duration::from_secs(20));
        if number == 0 {
            receiver.down.multicast_cuts = vec![Window::millis(5_000, 3_600_000)];
        }
    });
    config.senders[0].rate_max = 200_000;
    let report = run(config);
    assert_one_way(&report);
    assert_eq!(report.done(), 15, "{report}");
    let cut_off = &report.receivers[0];
    assert_eq!(lack(&cut_off.ending).end, LackEnd::Silence);
    assert!((25..30).contains(&cut_off.at.as_secs()), "{report}");
}

#[test]
fn a_pass_that_takes_longer_than_anybody_s_patience_is_waited_for() {
    let mut config = one_way(5, 2, 0).each_receiver(|number, receiver| {
        receiver.receive_timeout = Some(Duration::from_secs(8));
        if number == 0 {
            // It lacks a few blocks in the midst, and nothing for long but these.
            receiver.down.multicast_cuts = vec![Window::millis(8_000, 9_000)];
        }
    });
    config.senders[0].rate_max = 100_000;
    let report = run(config);
    assert_all_have_it(&report);
    assert!(report.duration > Duration::from_secs(30), "{report}");
}

#[test]
fn a_sender_that_comes_back_is_listened_to_again() {
    let mut config = one_way(6, 1, 0);
    config.senders[0].rate_max = 200_000;
    config.senders[0].crash = Some(When::Progress(500_000));
    config.senders[0].restart =
        Some(imgcast_tests::Restart { after: Duration::from_secs(5), symbol_size: 64, group: 1 });
    let report = run(config);
    report.assert_clean();
    assert_eq!((report.done(), report.from_receivers), (16, 0), "{report}");
}
