//! Worlds drawn entirely from a seed: ten thousand that stay the same, or as many as
//! `IMGCAST_WORLDS` says, and one that nobody has seen.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use imgcast_common::prng::Prng;
use imgcast_tests::{
    Report, World, WorldConfig,
    random::{self, Fault},
};

use crate::run;

#[test]
fn ten_thousand_worlds_end_well() {
    let failures: Mutex<Vec<Report>> = Mutex::new(Vec::new());
    let worlds = std::env::var("IMGCAST_WORLDS").map_or(WORLDS, |worlds| worlds.parse().unwrap());
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= worlds {
                return;
            }
            let report = run(random::config(seed));
            if !report.violations.is_empty() {
                failures.lock().unwrap().push(report);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort_by_key(|report| report.seed);
    for report in &failures {
        let faults = random::faults(report.seed);
        eprintln!("{}\n{faults:?}\n{report}\n", replay_line(report.seed));
    }
    assert!(failures.is_empty(), "{} of {worlds} worlds failed", failures.len());
}

#[test]
fn a_world_that_nobody_has_seen_ends_well() {
    let seed = Prng::fresh_seed();
    println!("{}", replay_line(seed));
    let report = run(random::config(seed));
    assert!(report.violations.is_empty(), "{}\n{report}", replay_line(seed));
}

/// The world of `IMGCAST_SEED`, told in full; without it world 0, for this to be a test.
#[test]
fn replay() {
    let seed = std::env::var("IMGCAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let config = WorldConfig { trace: seed.is_some(), ..random::config(seed.unwrap_or(0)) };
    if seed.is_some() {
        println!("{config:#?}");
    }
    let report = World::new(config).run();
    report.trace.iter().for_each(|line| println!("{line}"));
    println!("{report}");
    report.assert_clean();
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in (0..WORLDS).step_by(200) {
        let hash = || run(random::config(seed)).trace_hash;
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}

#[test]
fn the_worlds_are_large_and_troubled_enough() {
    let mut shares: BTreeMap<Fault, u64> = Fault::ALL.map(|fault| (fault, 0)).into();
    let (mut receivers, mut blocks) = (Vec::new(), Vec::new());
    let (mut lossy, mut heavily) = (0, 0);
    for seed in 0..WORLDS {
        let config = random::config(seed);
        receivers.push(config.receivers.len());
        blocks.push(config.images[0].bytes >> config.images[0].block_log2);
        lossy += u64::from(loses(&config, 10_000));
        heavily += u64::from(loses(&config, 300_000));
        for fault in random::faults(seed) {
            *shares.entry(fault).or_default() += 1;
        }
    }
    receivers.sort_unstable();
    blocks.sort_unstable();
    let middle = receivers.len() / 2;
    println!("receivers {}, blocks {}", receivers[middle], blocks[middle]);
    println!("lossy {lossy}, heavily {heavily}");
    shares.iter().for_each(|(fault, count)| println!("{fault:?}: {count}"));
    assert!(receivers[middle] >= 8 && blocks[middle] >= 12);
    assert!(lossy >= WORLDS / 2 && heavily >= WORLDS / 7);
    for (fault, count) in shares {
        assert!(count >= WORLDS / 20, "{fault:?} befalls only {count} of {WORLDS} worlds");
    }
}

/// Whether some receiver loses so many parts of a million, or more, of what it is sent.
fn loses(config: &WorldConfig, ppm: u32) -> bool {
    let lossy = |receiver: &imgcast_tests::ReceiverConfig| receiver.down.loss.mean_ppm() >= ppm;
    config.shared_loss.mean_ppm() >= ppm || config.receivers.iter().any(lossy)
}

fn replay_line(seed: u64) -> String {
    format!(
        "IMGCAST_SEED={seed} cargo test -p imgcast-tests --test scenarios replay -- --nocapture"
    )
}

/// A minute or two on two cores.
const WORLDS: u64 = 10_000;
