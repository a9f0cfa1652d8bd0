//! How fast to send: as fast as the group can take it.
//!
//! *Congestion is loss that rises with the rate.* What the way to a receiver loses at any rate is
//! the business of repair; `Floor`, its lowest loss of the last half minute, stands for it. Loss
//! above the floor slows the session (AIMD, so that two sessions share a link); receivers that
//! report nothing at all slow it too, and stop it in the end (RFC 8085 section 3.1.10, circuit
//! breaker).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use imgcast_common::id::ReceiverId;

/// Decides the rate.
#[derive(Debug)]
pub(super) struct Governor {
    rate: u64,
    rate_max: u64,
    /// The rate that got through when there was congestion last.
    capacity: u64,
    starting: bool,
    period_at: Instant,
    /// Datagrams that had been sent to the group when the rate changed last.
    sent_at_change: u64,
    samples: BTreeMap<ReceiverId, Sample>,
    floors: BTreeMap<ReceiverId, Floor>,
    rest_periods: u32,
    silent_periods: u32,
    reported: bool,
    probe: Probe,
    loss: f64,
}

/// What one receiver lost since the rate changed last.
#[derive(Clone, Copy, Debug)]
struct Sample {
    loss: f64,
    /// Loss above the receiver's floor that chance does not explain.
    excess: f64,
    at: Instant,
}

/// The lowest loss of one receiver, by as much higher as it may have been by chance, in this
/// quarter of a minute and the one before.
#[derive(Clone, Copy, Debug)]
struct Floor {
    this: f64,
    last: f64,
    since: Instant,
}

/// Every ten seconds of loss the floor is measured anew, at half the rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Probe {
    Due(Instant),
    Running { back_to: u64 },
}

impl Governor {
    /// Starts at `rate_start`, or at `rate_max` if that is lower.
    pub(super) fn new(rate_start: u64, rate_max: u64, now: Instant) -> Self {
        Self {
            rate: rate_start.min(rate_max),
            rate_max,
            capacity: rate_max,
            starting: rate_start < rate_max,
            period_at: now,
            sent_at_change: 0,
            samples: BTreeMap::new(),
            floors: BTreeMap::new(),
            rest_periods: 0,
            silent_periods: 0,
            reported: false,
            probe: Probe::Due(now),
            loss: 0.0,
        }
    }

    pub(super) const fn rate(&self) -> u64 {
        self.rate
    }

    /// The loss of the receiver that 95 % of the others do not exceed, in the last period.
    pub(super) const fn loss(&self) -> f64 {
        self.loss
    }

    /// A receiver reported what the network lost. `sent_by_then` is how many datagrams had gone to
    /// the group when the SYNC that it echoes left; `None` if that is not known.
    pub(super) fn on_report(
        &mut self,
        now: Instant,
        id: ReceiverId,
        loss: f64,
        sent_by_then: Option<u64>,
    ) {
        self.on_sign_of_life();
        let datagrams = sent_by_then.and_then(|sent| sent.checked_sub(self.sent_at_change));
        let Some(datagrams) = datagrams.filter(|datagrams| *datagrams >= DATAGRAMS_JUDGED_MIN)
        else {
            return;
        };
        // A receiver that loses this much may by chance report so much more or less.
        let datagrams = datagrams.min(DATAGRAMS_PER_REPORT) as f64;
        let chance = 3.0 * (loss.max(1.0 / datagrams) / datagrams).sqrt();
        let floor = self.floors.entry(id).or_insert_with(|| Floor::new(now));
        let excess = loss - chance - floor.lower(now, loss + chance);
        self.samples.insert(id, Sample { loss, excess, at: now });
    }

    /// A receiver said something, be it only that it hears nothing of the group.
    pub(super) const fn on_sign_of_life(&mut self) {
        // After an outage the way up is as short as at the start.
        self.starting |= self.silent_periods >= SILENT_PERIODS_BREAK;
        self.silent_periods = 0;
        self.reported = true;
    }

    /// Data begins to flow.
    pub(super) fn on_start(&mut self, now: Instant) {
        self.period_at = now + START_PERIOD_MIN;
        self.silent_periods = 0;
    }

    /// Ends a control period when its time has come; returns whether a poll is due. `sent` is how
    /// many datagrams have gone to the group so far.
    pub(super) fn handle_timeout(&mut self, now: Instant, grtt: Duration, sent: u64) -> bool {
        if now < self.period_at {
            return false;
        }
        let period = if self.starting {
            (4 * grtt).max(START_PERIOD_MIN)
        } else {
            (20 * grtt).max(PERIOD_MIN)
        };
        self.period_at = now + period;
        self.samples.retain(|_, sample| now < sample.at + 5 * period);
        if !std::mem::take(&mut self.reported) {
            self.on_silence(sent);
        } else if let Some(loss) = self.quantile(|sample| sample.loss)
            && let Some(excess) = self.quantile(|sample| sample.excess)
        {
            self.on_loss(now, loss, excess, sent);
        }
        true
    }

    pub(super) const fn poll_timeout(&self) -> Instant {
        self.period_at
    }

    /// The 0.95-quantile of what was reported since the rate changed last.
    fn quantile(&self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.samples.values().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get((values.len() * 95).div_ceil(100).max(1) - 1).copied()
    }

    fn on_silence(&mut self, sent: u64) {
        self.silent_periods += 1;
        if self.silent_periods >= SILENT_PERIODS_BREAK {
            self.set_rate(RATE_MIN, sent);
        } else if self.silent_periods.is_multiple_of(SILENT_PERIODS_MAX) {
            self.starting = false;
            self.set_rate(self.rate / 2, sent);
        }
    }

    fn on_loss(&mut self, now: Instant, loss: f64, excess: f64, sent: u64) {
        self.loss = loss;
        if let Probe::Running { back_to } = self.probe {
            self.probe = Probe::Due(now + PROBE_INTERVAL);
            self.set_rate(back_to, sent);
            return;
        }
        if excess > EXCESS_MAX {
            self.starting = false;
            if self.rest_periods == 0 {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "≤ 900"
                )]
                let permille = ((0.9 - excess).max(0.5) * 1000.0) as u64;
                self.capacity = self.rate / 1000 * (permille + 100);
                self.set_rate(self.rate / 1000 * permille, sent);
                self.rest_periods = REST_PERIODS;
                return;
            }
        } else if self.probe_is_due(now, loss) {
            self.starting = false;
            self.probe = Probe::Running { back_to: self.rate };
            self.set_rate(self.rate / 2, sent);
            return;
        } else if self.rest_periods == 0 {
            let step = if self.starting { self.rate } else { self.capacity / STEPS };
            self.set_rate(self.rate + step.max(RATE_MIN / STEPS), sent);
            self.capacity = self.capacity.max(self.rate);
            self.starting &= self.rate < self.rate_max;
        }
        self.rest_periods = self.rest_periods.saturating_sub(1);
    }

    fn probe_is_due(&self, now: Instant, loss: f64) -> bool {
        loss > PROBE_LOSS_MIN && matches!(self.probe, Probe::Due(at) if now >= at)
    }

    /// Reports on the old rate do not count any more.
    fn set_rate(&mut self, rate: u64, sent: u64) {
        let rate = rate.clamp(RATE_MIN.min(self.rate_max), self.rate_max);
        if rate != self.rate {
            self.rate = rate;
            self.sent_at_change = sent;
            self.samples.clear();
        }
    }
}

impl Floor {
    const fn new(now: Instant) -> Self {
        Self { this: 1.0, last: 1.0, since: now }
    }

    /// Takes in a loss; returns the lowest.
    fn lower(&mut self, now: Instant, loss: f64) -> f64 {
        if now >= self.since + FLOOR_MEMORY / 2 {
            *self = Self { this: 1.0, last: self.this, since: now };
        }
        self.this = self.this.min(loss);
        self.this.min(self.last)
    }
}

/// A gigabit link carries it five times over, a link of 100 Mbit/s shows it as loss at once.
pub(super) const RATE_START: u64 = 200_000_000;
/// Below it a session makes no progress that anybody would wait for.
const RATE_MIN: u64 = 1_000_000;
/// Periods while the rate doubles.
const START_PERIOD_MIN: Duration = Duration::from_millis(25);
/// Periods afterwards.
const PERIOD_MIN: Duration = Duration::from_millis(200);
/// Fewer say nothing about a loss of a few percent.
const DATAGRAMS_JUDGED_MIN: u64 = 300;
/// Reports speak of the last few thousand datagrams, however long the rate has been the same.
const DATAGRAMS_PER_REPORT: u64 = 4_096;
/// Loss above the floor that is no congestion yet.
const EXCESS_MAX: f64 = 0.005;
/// After slowing down the queues need so long to drain.
const REST_PERIODS: u32 = 2;
/// Without any report for so long the rate is halved.
const SILENT_PERIODS_MAX: u32 = 10;
/// Without any for so long the sender all but stops, and probes with a few datagrams.
const SILENT_PERIODS_BREAK: u32 = 40;
/// From nothing to what got through last in so many periods; it does not depend on the rate, so
/// that two sessions share a link.
const STEPS: u64 = 64;
/// A medium's own loss changes slowly.
const FLOOR_MEMORY: Duration = Duration::from_secs(30);
/// Half the rate for one period in so long costs one percent.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Less loss than this needs no measurement of its floor.
const PROBE_LOSS_MIN: f64 = 0.01;

#[cfg(test)]
mod tests {
    use imgcast_common::prng::Prng;

    use super::*;

    /// A governor, the time, and what was sent so far.
    struct Trial {
        governor: Governor,
        now: Instant,
        sent: u64,
        prng: Prng,
    }

    impl Trial {
        fn new(rate_start: u64, rate_max: u64) -> Self {
            let governor = Governor::new(rate_start, rate_max, start());
            Self { governor, now: start(), sent: 0, prng: Prng::new(1) }
        }

        /// One control period, at the end of which each of `reports` is made.
        fn period(&mut self, reports: &[(u32, f64)]) {
            self.now += Duration::from_millis(201);
            self.sent += self.governor.rate() / 8 / 1518 / 5;
            for (id, loss) in reports {
                self.governor.on_report(self.now, ReceiverId(*id), *loss, Some(self.sent));
            }
            self.governor.handle_timeout(self.now, Duration::from_millis(1), self.sent);
        }

        /// Receivers report `loss` at each rate for `periods`, as exactly as datagrams allow.
        fn run(&mut self, periods: u32, loss: impl Fn(u64) -> f64) {
            for _ in 0..periods {
                let expected = loss(self.governor.rate());
                let counted = (self.governor.rate() / 8 / 1518 / 5).clamp(1, 4_096);
                let mut report = |id| {
                    let lost = (0..counted).filter(|_| self.prng.unit() < expected).count();
                    (id, lost as f64 / counted as f64)
                };
                let reports: Vec<_> = (0..4).map(&mut report).collect();
                self.period(&reports);
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    const GIGABIT: u64 = 1_000_000_000;

    #[test]
    fn without_loss_the_rate_doubles_up_to_the_highest() {
        let mut trial = Trial::new(RATE_START, GIGABIT);
        trial.run(4, |_| 0.0);
        assert_eq!(trial.governor.rate(), GIGABIT);
    }

    #[test]
    fn loss_of_the_medium_does_not_slow_the_session() {
        for (rate, loss) in [(GIGABIT, 0.2), (GIGABIT, 0.05), (GIGABIT / 20, 0.2), (GIGABIT, 0.01)]
        {
            let mut trial = Trial::new(rate, rate);
            trial.run(20, |_| loss);
            let mut sum = 0;
            for _ in 0..2_000 {
                trial.run(1, |_| loss);
                sum += trial.governor.rate();
            }
            let mean = sum / 2_000;
            assert!(mean > rate / 100 * 90, "{loss}: mean {mean} of {rate}");
        }
    }

    #[test]
    fn loss_that_rises_with_the_rate_does() {
        let mut trial = Trial::new(RATE_START, 10 * GIGABIT);
        let link = |rate: u64| (1.0 - GIGABIT as f64 / rate as f64).max(0.0);
        trial.run(60, link);
        let rate = trial.governor.rate();
        assert!((GIGABIT / 3..GIGABIT * 12 / 10).contains(&rate), "{rate}");
    }

    #[test]
    fn a_rate_given_above_the_link_is_found_out() {
        let mut trial = Trial::new(GIGABIT, GIGABIT);
        trial.run(60, |rate| (1.0 - GIGABIT as f64 / 4.0 / rate as f64).max(0.0));
        assert!(trial.governor.rate() < GIGABIT * 3 / 10, "{}", trial.governor.rate());
    }

    #[test]
    fn silence_slows_and_then_breaks_the_circuit_until_somebody_reports() {
        let mut trial = Trial::new(GIGABIT, GIGABIT);
        for _ in 0..30 {
            trial.period(&[]);
        }
        assert_eq!(trial.governor.rate(), GIGABIT / 8);
        for _ in 0..10 {
            trial.period(&[]);
        }
        assert_eq!(trial.governor.rate(), RATE_MIN, "the circuit is broken");
        trial.run(200, |_| 0.0);
        assert_eq!(trial.governor.rate(), GIGABIT);
    }

    #[test]
    fn one_bad_receiver_of_forty_does_not_slow_the_group() {
        let mut trial = Trial::new(GIGABIT, GIGABIT);
        let reports: Vec<_> = (0..40).map(|id| (id, if id == 7 { 0.5 } else { 0.0 })).collect();
        for _ in 0..50 {
            trial.period(&reports);
        }
        assert_eq!(trial.governor.rate(), GIGABIT);
    }
}
