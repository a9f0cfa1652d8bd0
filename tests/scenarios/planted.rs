//! The checkers, proved on mistakes made on purpose: each must be found, by the kind of check that
//! it is a mistake for, and the same worlds without it must be clean.

use std::time::Duration;

use imgcast_tests::{
    ImageConfig, Loss, PlantedBug, Report, SenderConfig, Violation, Window, WorldConfig,
};

use crate::run;

#[test]
fn each_planted_bug_is_found() {
    for bug in PlantedBug::ALL {
        let (found_after, report) = find(bug);
        let kinds = kinds(bug);
        let first = kind(&report.violations[0]);
        assert!(kinds.contains(&first), "{bug:?} was found by {first}: {report}");
        println!("{bug:?}: world {found_after}, {}", report.violations[0]);
    }
}

#[test]
fn the_same_worlds_without_bugs_are_clean() {
    for bug in PlantedBug::ALL {
        for seed in 0..10 {
            run(world(bug, seed)).assert_clean();
        }
    }
}

/// The first world in which a bug is found.
fn find(bug: PlantedBug) -> (u64, Report) {
    let mut worlds = (0..WORLDS_MAX).map(|seed| (seed, run(world(bug, seed).planted(bug))));
    let found = worlds.find(|(_, report)| !report.violations.is_empty());
    found.unwrap_or_else(|| panic!("{bug:?} is not found in {WORLDS_MAX} worlds"))
}

/// A world in which a mistake matters.
fn world(bug: PlantedBug, seed: u64) -> WorldConfig {
    let mut config = WorldConfig::small(seed, 6);
    config.receivers.iter_mut().for_each(|it| it.down.loss = Loss::Bernoulli(20_000));
    match bug {
        PlantedBug::HashCheckSkipped | PlantedBug::IndexCheckSkipped => {
            config.each_receiver(|_, receiver| receiver.down.forge_ppm = 5_000)
        }
        PlantedBug::SessionCheckSkipped => {
            config.images.push(ImageConfig { bytes: 30_000, ..config.images[0] });
            config.senders[0].receivers_min = 3;
            config.senders.push(SenderConfig { image: 1, ..config.senders[0].clone() });
            config.each_receiver(|number, receiver| receiver.wants = Some(number % 2))
        }
        PlantedBug::StoredBeforeWritten | PlantedBug::EndTooEarly => {
            config.each_receiver(|number, receiver| {
                receiver.disk.bytes_per_second = 20_000 * (number as u64 + 1);
            })
        }
        PlantedBug::WriteErrorIgnored => {
            config.each_receiver(|_, receiver| receiver.disk.fails_at_write = Some(5))
        }
        PlantedBug::ZeroBlocksSkipped => {
            config.images[0].zero_ppm = 300_000;
            config
        }
        PlantedBug::ClaimsBelieved => config.each_receiver(|_, receiver| {
            receiver.resumes = true;
            receiver.old_image_changed_every = Some(4);
        }),
        PlantedBug::JoinSentOnce => {
            config.each_receiver(|_, receiver| receiver.up.loss = Loss::Bernoulli(200_000))
        }
        PlantedBug::AckOnlyToGroup => config.each_receiver(|_, receiver| {
            receiver.asks = true;
            receiver.down.loss = Loss::None;
            receiver.down.multicast_cuts = vec![Window::always()];
        }),
        PlantedBug::WholeNeedsIgnored => {
            config.senders[0].rate_max = 1_000_000;
            config.senders[0].wait_min = Duration::from_millis(100);
            config.each_receiver(|number, receiver| {
                if number == 0 {
                    receiver.down.cuts = vec![Window::millis(850, 1_100)];
                }
            })
        }
        _ => config,
    }
}

/// The checks that should find it.
const fn kinds(bug: PlantedBug) -> &'static [&'static str] {
    match bug {
        PlantedBug::JoinSentOnce
        | PlantedBug::AckOnlyToGroup
        | PlantedBug::DeficitsIgnored
        | PlantedBug::WholeNeedsIgnored => &["liveness"],
        PlantedBug::NeedsRepeated => &["thrift"],
        PlantedBug::RepairRepeated => &["safety", "thrift"],
        _ => &["safety"],
    }
}

const fn kind(violation: &Violation) -> &'static str {
    match violation {
        Violation::Safety { .. } => "safety",
        Violation::Liveness { .. } => "liveness",
        Violation::Thrift { .. } => "thrift",
    }
}

/// A failed decode, for one, is rare: one in 200.
const WORLDS_MAX: u64 = 100;
