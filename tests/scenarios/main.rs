//! Whole worlds, one behaviour at a time; a file for each kind of trouble.

mod bending;
mod coming_and_going;
mod crowd;
mod efficiency;
mod feedback;
mod limits;
mod links;
mod loss;
mod multicast;
mod one_way;
mod planted;
mod quiet;
mod random;
mod resuming;
mod senders;
mod sharing;
mod slow;
mod staggered;
mod storage;

use imgcast_tests::{Report, World, WorldConfig};

/// Runs a world.
fn run(config: WorldConfig) -> Report {
    World::new(config).run()
}

/// Runs the same world with some seeds; everybody must get the image each time.
fn all_done(config: impl Fn(u64) -> WorldConfig) -> Vec<Report> {
    let reports: Vec<Report> = (0..SEEDS).map(|seed| run(config(seed))).collect();
    reports.iter().for_each(Report::assert_all_done);
    reports
}

/// The mean of something over several runs.
fn mean(reports: &[Report], value: impl Fn(&Report) -> u64) -> u64 {
    reports.iter().map(value).sum::<u64>() / reports.len() as u64
}

/// Enough to meet what is rare, few enough to be done at once.
const SEEDS: u64 = 20;
