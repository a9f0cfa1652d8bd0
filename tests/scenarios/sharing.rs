//! A survey of two sessions on one link: how they share it. `IMGCAST_SHARINGS` says with how many
//! seeds each combination of link, queue and starts is tried. What single runs have to keep to is
//! in `links`.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::{
    fmt,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    links::{LINKS_SHARED, QUEUE, QUEUE_SMALL, both_send, image_bytes, loss, share, world},
    run,
};

#[test]
fn two_sessions_share_links_of_any_kind_nearly_always_within_a_factor_of_two() {
    let seeds = std::env::var("IMGCAST_SHARINGS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let mut cases = Vec::new();
    for (link, queue_octets) in LINKS_SHARED.into_iter().flat_map(|it| QUEUES.map(|of| (it, of))) {
        for later in LATER {
            let case = |seed| Case { link, queue_octets, later, seed };
            cases.extend((SEED_FIRST..SEED_FIRST + seeds).map(case));
        }
    }
    let outcomes = run_all(&cases);
    let alike = |one: &Outcome, other: &Outcome| one.case.combination() == other.case.combination();
    for outcomes in outcomes.chunk_by(alike) {
        println!("{}: {}", outcomes[0].case, summary(outcomes));
    }
    for outcome in outcomes.iter().filter(|it| it.factor() > 2.0) {
        println!("{outcome}");
    }
    println!("all: {}", summary(&outcomes));
    let above = outcomes.iter().filter(|it| it.factor() > 2.0).count();
    assert!(above <= outcomes.len() / ABOVE_MAX, "{above} above 2");
    assert!(mean(&outcomes, Outcome::factor) < FACTOR_MEAN_MAX);
    assert!(outcomes.iter().all(|it| it.factor() < FACTOR_MAX));
    assert!(mean(&outcomes, Outcome::carried) > CARRIED_MIN);
}

/// Two sessions on a link.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// In Mbit/s.
    link: u64,
    queue_octets: u64,
    /// So many seconds after the first the second one starts.
    later: u64,
    seed: u64,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    case: Case,
    /// What each got, as a share of the link, in the second half of the time that they shared.
    shares: [f64; 2],
    /// What the link dropped then.
    lost: f64,
    /// The same shares, and what was lost, in each second of all that time.
    seconds: Vec<([f64; 2], f64)>,
}

impl Case {
    /// All of it but the seed.
    const fn combination(self) -> (u64, u64, u64) {
        (self.link, self.queue_octets, self.later)
    }
}

impl Outcome {
    fn factor(&self) -> f64 {
        let factor = self.shares[0] / self.shares[1];
        factor.max(1.0 / factor)
    }

    fn carried(&self) -> f64 {
        self.shares[0] + self.shares[1]
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { link, queue_octets, later, seed } = self;
        write!(f, "{link} Mbit/s, {} KiB, {later} s later, seed {seed}", queue_octets >> 10)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2} to 1;", self.case, self.factor())?;
        for ([first, second], lost) in &self.seconds {
            let percent = [first, second, lost].map(|share| share * 100.0);
            write!(f, " {:.0}/{:.0}-{:.1}", percent[0], percent[1], percent[2])?;
        }
        Ok(())
    }
}

fn run_all(cases: &[Case]) -> Vec<Outcome> {
    let (outcomes, next) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = outcome(*case);
            outcomes.lock().unwrap().push(outcome);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|it| (it.case.combination(), it.case.seed));
    outcomes
}

fn outcome(case: Case) -> Outcome {
    let Case { link, queue_octets, later, seed } = case;
    let starts = [Duration::ZERO, Duration::from_secs(later)];
    let mut config = world(seed, link, queue_octets, &starts, RECEIVERS);
    // What the first one gets through while it is alone, and as much as the other then.
    config.images[0].bytes += image_bytes(link, later);
    let report = run(config);
    report.assert_all_done();
    let during = both_send(&report);
    let shares = |during: Range<usize>| [0, 1].map(|it| share(&report, it, during.clone(), link));
    let seconds = during.clone().step_by(10).map(|from| from..(from + 10).min(during.end));
    let seconds = seconds.map(|second| (shares(second.clone()), loss(&report, second))).collect();
    let half = (during.start + during.end) / 2..during.end;
    Outcome { case, shares: shares(half.clone()), lost: loss(&report, half), seconds }
}

fn mean(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(of).sum::<f64>() / outcomes.len() as f64
}

fn summary(outcomes: &[Outcome]) -> String {
    let count = outcomes.len();
    let worst = outcomes.iter().map(Outcome::factor).fold(1.0, f64::max);
    let above = outcomes.iter().filter(|it| it.factor() > 2.0).count();
    format!(
        "{:.2} to 1 in the mean, at worst {worst:.2}, {above} of {count} above 2; \
         carried {:.3}, lost {:.4}",
        mean(outcomes, Outcome::factor),
        mean(outcomes, Outcome::carried),
        mean(outcomes, |it| it.lost)
    )
}

const QUEUES: [u64; 2] = [QUEUE_SMALL, QUEUE];
const LATER: [u64; 3] = [0, 5, 20];
const RECEIVERS: usize = 4;
/// Done within seconds.
const SEEDS: u64 = 1;
/// Others than those of `links`.
const SEED_FIRST: u64 = 1_000;
/// Of so many runs one may be above 2.
const ABOVE_MAX: usize = 18;
const FACTOR_MEAN_MAX: f64 = 1.5;
const FACTOR_MAX: f64 = 3.0;
const CARRIED_MIN: f64 = 0.85;
