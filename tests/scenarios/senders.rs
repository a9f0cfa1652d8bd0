//! Senders that crash, come back, share a group, or lie.

use std::time::Duration;

use imgcast_receiver::session::Failure;
use imgcast_sender::session::Outcome;
use imgcast_tests::{Ending, ImageConfig, Loss, Restart, SenderConfig, When, Window, WorldConfig};

use crate::{all_done, run};

fn restarting(seed: u64, symbol_size: u16, group: u8) -> WorldConfig {
    let mut config = WorldConfig::small(seed, 5)
        .each_receiver(|_, receiver| receiver.down.loss = Loss::Bernoulli(10_000));
    config.senders[0].rate_max = 1_000_000;
    config.senders[0].crash = Some(When::Progress(500_000));
    let after = Duration::from_millis(800);
    config.senders[0].restart = Some(Restart { after, symbol_size, group });
    config
}

#[test]
fn a_sender_that_restarts_goes_on_where_it_was() {
    for report in all_done(|seed| restarting(seed, 64, 0)) {
        assert!(report.overhead_ppm < 1_700_000, "verified blocks are kept: {report}");
    }
}

#[test]
fn a_sender_may_restart_with_another_symbol_size_and_group() {
    all_done(|seed| restarting(seed, 96, 1));
}

#[test]
fn whoever_was_not_let_in_yet_follows_a_sender_that_restarts() {
    all_done(|seed| {
        let mut config = restarting(seed, 64, 0);
        // Receivers have listened for 300 ms and ask to be let in.
        config.senders[0].crash = Some(When::At(Duration::from_millis(305)));
        config
    });
}

#[test]
fn without_a_rendezvous_group_a_sender_that_restarts_is_asked_for() {
    all_done(|seed| {
        restarting(seed, 64, 0).each_receiver(|_, receiver| {
            receiver.asks = true;
            receiver.down.multicast_cuts = vec![Window::always()];
        })
    });
}

#[test]
fn a_sender_that_restarts_while_receivers_flush_or_read_back_is_told_that_they_have_the_image() {
    let reports = all_done(|seed| {
        let mut config = restarting(seed, 64, 0).each_receiver(|number, receiver| {
            // Everything has come by then; some are through when it is back, others are not.
            receiver.disk.flush_takes = Duration::from_secs(4 + number as u64);
            receiver.asks = seed.is_multiple_of(2);
        });
        config.senders[0].crash = Some(When::At(Duration::from_secs(3)));
        config.senders[0].restart.as_mut().unwrap().after = Duration::from_secs(3);
        config
    });
    for report in reports {
        let told = |it: &Ending| *it == Ending::Done { acknowledged: true };
        assert!(report.receivers.iter().all(|it| told(&it.ending)), "{report}");
        assert!(report.done_at < Duration::from_secs(12), "{report}");
    }
}

/// Receiver 0 has everything when its sender is killed, and flushes until before that is back or
/// after; receiver 1 cannot write so fast, and lacks some blocks.
fn of_two_one_has_everything(seed: u64, receivers_min: u32) -> WorldConfig {
    let mut config = restarting(seed, 64, 0);
    config.receivers.truncate(2);
    let seconds = if seed.is_multiple_of(2) { 4 } else { 8 };
    config.receivers[0].disk.flush_takes = Duration::from_secs(seconds);
    config.receivers[1].disk.bytes_per_second = 4_000;
    config.receivers[1].memory_blocks = 8;
    config.senders[0].receivers_min = receivers_min;
    config.senders[0].wait_max = None;
    config.senders[0].crash = Some(When::At(Duration::from_secs(2)));
    let after = Duration::from_secs(4);
    config.senders[0].restart = Some(Restart { after, symbol_size: 64, group: 0 });
    config
}

#[test]
fn who_has_everything_when_a_sender_restarts_counts_as_there_and_the_others_get_the_rest() {
    // Two have to be there; or one, whichever it is, which is not to be taken for all.
    for receivers_min in [2, 1] {
        for report in all_done(|seed| of_two_one_has_everything(seed, receivers_min)) {
            let told = |it: &Ending| *it == Ending::Done { acknowledged: true };
            assert!(report.receivers.iter().all(|it| told(&it.ending)), "{report}");
            assert_eq!(report.senders.last(), Some(&Some(Outcome::Ended { expected: 2, done: 2 })));
            assert!(report.done_at < Duration::from_secs(30), "{report}");
        }
    }
}

#[test]
fn receivers_go_if_their_sender_does_not_come_back() {
    let mut config = restarting(1, 64, 0).each_receiver(|_, receiver| {
        receiver.receive_timeout = Some(Duration::from_secs(20));
    });
    config.senders[0].restart = None;
    let report = run(config);
    report.assert_clean();
    let gone = Ending::Failed(Failure::SenderGone(None));
    assert!(report.receivers.iter().all(|it| it.ending == gone), "{report}");
    assert!(report.duration < Duration::from_secs(30), "{report}");
}

#[test]
fn two_sessions_of_one_image_on_one_group_do_not_mix() {
    all_done(|seed| {
        let mut config = WorldConfig::small(seed, 6).each_receiver(|_, receiver| {
            receiver.down.loss = Loss::Bernoulli(20_000);
            receiver.wants = Some(0);
        });
        config.senders.push(config.senders[0].clone());
        config
    });
}

#[test]
fn two_images_on_one_group_do_not_mix() {
    all_done(|seed| {
        let mut config = WorldConfig::small(seed, 8).each_receiver(|number, receiver| {
            receiver.down.loss = Loss::Bernoulli(20_000);
            receiver.wants = Some(number % 2);
        });
        config.images.push(ImageConfig { bytes: 30_000, ..config.images[0] });
        config.senders[0].receivers_min = 4;
        config.senders.push(SenderConfig { image: 1, ..config.senders[0].clone() });
        config
    });
}

#[test]
fn who_named_no_image_joins_none_of_several() {
    let mut config = WorldConfig::small(3, 3);
    config.images.push(ImageConfig { bytes: 30_000, ..config.images[0] });
    config.senders.push(SenderConfig { image: 1, ..config.senders[0].clone() });
    let report = run(config);
    report.assert_clean();
    let listed = |ending: &Ending| matches!(ending, Ending::Failed(Failure::SeveralImages(_)));
    assert!(report.receivers.iter().all(|it| listed(&it.ending)), "{report}");
    assert_eq!(report.senders, [Some(Outcome::NoReceivers), Some(Outcome::NoReceivers)]);
}

#[test]
fn an_index_that_is_not_the_image_s_is_refused_three_times_and_no_more() {
    let mut config = WorldConfig::small(5, 4);
    config.senders[0].hostile_index = true;
    let report = run(config);
    report.assert_clean();
    let refused = Ending::Failed(Failure::Index);
    assert!(report.receivers.iter().all(|it| it.ending == refused), "{report}");
    assert_eq!(report.senders, [Some(Outcome::Ended { expected: 4, done: 0 })]);
}
