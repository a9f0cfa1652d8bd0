//! How fast to send: as fast as the group can take it.
//!
//! *Congestion is loss that rises with the rate.* What the way to a receiver loses at any rate is
//! the business of repair; `Floor`, its lowest loss of the last half minute, stands for it. Loss
//! above the floor slows the session (AIMD, so that two sessions share a link), as do datagrams
//! that the sockets of receivers drop and receivers that run out of memory because they cannot
//! decode or write as fast. Where the sender's own machine or link is the limit nothing is lost:
//! what it accepts is the rate. Receivers that report nothing at all slow the session too, and
//! stop it in the end (RFC 8085 section 3.1.10, circuit breaker).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use imgcast_common::id::ReceiverId;

use super::{
    climb::Climb,
    floor::{Floor, Keeping},
    pacer::Uptake,
    probe::{LOSS_SUSPECT, Probe, Running},
    reach::Reach,
    samples::{EXCESS_MAX, Sample, Samples},
    search::{Limit, PERIOD, RATE_HIGH, Search, datagrams_min, excess_max, part, start_period},
    strain::{Strain, Strained},
};

/// Decides the rate.
#[derive(Debug)]
pub(super) struct Governor {
    rate: u64,
    rate_max: u64,
    reach: Reach,
    starting: bool,
    /// Nobody set the rate.
    searches: bool,
    limit: Limit,
    search: Search,
    strain: Strain,
    period_at: Instant,
    /// Datagrams that had been sent to the group when it was told of the present rate; `None`
    /// until then. With that SYNC receivers begin to count anew.
    sent_when_told: Option<u64>,
    samples: Samples,
    floors: BTreeMap<ReceiverId, Floor>,
    /// After slowing down the rate stays until then.
    rest_until: Instant,
    /// The one after the start.
    is_first_rest: bool,
    silent_periods: u32,
    reported: bool,
    /// Whether receivers were asked for reports on the present rate.
    polled: bool,
    probe: Probe,
    climb: Climb,
    loss: f64,
}

impl Governor {
    /// Starts at `rate_start`, or at `rate_max` if that is lower.
    pub(super) fn new(rate_start: u64, rate_max: u64, now: Instant) -> Self {
        Self {
            rate: rate_start.min(rate_max),
            rate_max,
            reach: Reach::new(rate_max),
            starting: rate_start < rate_max,
            searches: rate_start < rate_max,
            limit: Limit::Network,
            search: Search::new(rate_max, rate_start < rate_max),
            strain: Strain::default(),
            period_at: now,
            sent_when_told: None,
            samples: Samples::default(),
            floors: BTreeMap::new(),
            rest_until: now,
            is_first_rest: false,
            silent_periods: 0,
            reported: false,
            polled: false,
            probe: Probe::new(now),
            climb: Climb::new(now, rate_start < rate_max),
            loss: 0.0,
        }
    }

    pub(super) const fn rate(&self) -> u64 {
        self.rate
    }

    /// Whether the rate doubles until something says that it is too high.
    pub(super) const fn is_starting(&self) -> bool {
        self.starting
    }

    /// Nobody set the rate, and neither this machine nor the receivers are known to be what keeps
    /// it from being higher: another session may.
    pub(super) fn may_share_a_link(&self) -> bool {
        self.searches && self.limit == Limit::Network
    }

    /// The loss of the receiver that 95 % of the others do not exceed, in the last period.
    pub(super) const fn loss(&self) -> f64 {
        self.loss
    }

    /// That loss, if it is none that a lower rate would avoid, as far as that is known yet.
    pub(super) fn lasting_loss(&self, now: Instant) -> Option<f64> {
        let settled = now >= self.rest_until && !self.probe.is_running();
        let excess = self.samples.quantile(|sample| sample.excess)?;
        let loss = self.samples.quantile(|sample| sample.loss)?;
        (settled && excess <= EXCESS_MAX && loss <= LOSS_SUSPECT).then_some(loss)
    }

    /// A receiver reported how it keeps up. `sent_by_then` is how many datagrams had gone to the
    /// group when the SYNC that it echoes left; `None` if that is not known. Of `active` receivers
    /// more than one in twenty are enough to slow down at once; returns whether they did.
    pub(super) fn on_report(
        &mut self,
        now: Instant,
        id: ReceiverId,
        keeping: Keeping,
        sent_by_then: Option<u64>,
        active: u32,
    ) -> bool {
        self.on_sign_of_life();
        let datagrams_min = datagrams_min(self.rate, self.starting);
        let limit = keeping.limit.map_or(0.0, |limit| 1.0 - limit as f64 * 8.0 / self.rate as f64);
        let counted = self.sent_when_told.zip(sent_by_then).zip(self.floors.get_mut(&id));
        let counted = counted.and_then(|((told, then), floor)| {
            let datagrams = then.saturating_sub(told.max(floor.heard_from()));
            (datagrams >= datagrams_min).then_some((floor, datagrams))
        });
        let (loss, congestion, socket_loss) = if let Some((floor, datagrams)) = counted {
            let in_bursts = self.climb.is_in_bursts(now);
            let congestion = floor.congestion(now, keeping, datagrams, self.rate, in_bursts);
            (keeping.network_loss, congestion, keeping.socket_loss)
        } else if limit > EXCESS_MAX {
            // What a host gets through is the same at any rate. One with long queues hears of the
            // rate so late that it has changed again by then.
            (self.samples.loss_of(id).unwrap_or(self.loss), 0.0, 0.0)
        } else {
            return false;
        };
        let host = socket_loss.max(limit);
        let (excess, is_host) = (congestion.max(host), host > congestion);
        let (drops, was_asked) = (keeping.socket_loss > EXCESS_MAX, keeping.was_asked);
        let sample = Sample { loss, excess, is_host, drops, was_asked, at: now };
        self.samples.insert(id, sample, active);
        if self.starting && self.rate < RATE_HIGH {
            // Others do not answer much later.
            self.period_at = self.period_at.min(now + ANSWERS_WITHIN);
        }
        let Some(least) = self.samples.too_much().filter(|_| !self.probe.is_running()) else {
            return false;
        };
        let excess =
            self.samples.quantile(|it| it.excess).map_or(least, |excess| excess.max(least));
        let hosts_alone = self.samples.hosts_alone_suffer();
        // In the network others may be about to make theirs.
        let hurries = hosts_alone || self.is_first_rest;
        let is_rested = now >= self.rest_until || (hurries && excess > EXCESS_GROSS);
        let is_due = is_rested
            && (hosts_alone || excess > excess_max(self.starting, self.climb.is_running()));
        if is_due {
            self.slow_down(now, excess.max(EXCESS_MAX));
        }
        is_due
    }

    /// A receiver that says something for the first time has counted none of the datagrams that
    /// had been `sent` to the group by then.
    pub(super) fn on_heard(&mut self, now: Instant, id: ReceiverId, sent: u64) {
        self.floors.entry(id).or_insert_with(|| Floor::new(now, sent));
    }

    /// A receiver said something, be it only that it hears nothing of the group.
    pub(super) const fn on_sign_of_life(&mut self) {
        // After an outage the way up is as short as at the start.
        self.starting |= self.silent_periods >= SILENT_PERIODS_BREAK;
        self.silent_periods = 0;
        self.reported = true;
    }

    /// What is known of single receivers, and who of them does not count.
    pub(super) const fn samples(&mut self) -> &mut Samples {
        &mut self.samples
    }

    /// Data begins to flow.
    pub(super) fn on_start(&mut self, now: Instant) {
        self.period_at = now + start_period(self.rate, Duration::ZERO);
        self.silent_periods = 0;
        self.probe = Probe::new(now);
    }

    /// The group is being told of the rate; `sent` datagrams have gone to it so far.
    pub(super) const fn on_told(&mut self, sent: u64) {
        if self.sent_when_told.is_none() {
            self.sent_when_told = Some(sent);
        }
    }

    /// Whether to ask for reports now: once for each rate, as soon as they can say something of
    /// it. `sent` datagrams have gone to the group so far.
    pub(super) fn poll_is_due(&mut self, sent: u64) -> bool {
        let told = self.sent_when_told.filter(|_| !self.polled);
        let datagrams_min = datagrams_min(self.rate, self.starting);
        let is_due = told.is_some_and(|told| sent.saturating_sub(told) >= datagrams_min);
        self.polled |= is_due;
        is_due
    }

    /// Ends a control period when its time has come; returns whether it did. `uptake`: what the
    /// sender's own machine or link took of the schedule, if that can be told.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        grtt: Duration,
        uptake: impl FnOnce() -> Option<Uptake>,
    ) -> bool {
        if now < self.period_at {
            return false;
        }
        let is_short = self.starting || self.probe.is_running();
        let doubled = self.rate.saturating_mul(2);
        let period = if is_short { start_period(doubled, grtt) } else { PERIOD };
        // While that is not known a rate that it set stands.
        let unknown = if self.limit == Limit::Local { HELD_BACK_MIN } else { 0.0 };
        let uptake = uptake();
        let held_back = uptake.map_or(unknown, |uptake| uptake.given_up);
        self.period_at = now + period;
        self.polled = false;
        self.samples.forget_before(now.checked_sub(5 * period));
        let reported = std::mem::take(&mut self.reported);
        if let Some(strained) = self.strain.judge(uptake, self.starting) {
            if let Strained::Certainly(taken) = strained {
                self.on_held_back(now, taken);
            }
        } else if !reported {
            self.on_silence(now);
        } else if let Some(loss) = self.samples.quantile(|sample| sample.loss)
            && let Some(excess) = self.samples.quantile(|sample| sample.excess)
        {
            self.on_loss(now, loss, excess, held_back);
        }
        true
    }

    pub(super) const fn poll_timeout(&self) -> Instant {
        self.period_at
    }

    fn on_silence(&mut self, now: Instant) {
        self.silent_periods += 1;
        if self.silent_periods >= SILENT_PERIODS_BREAK {
            self.probe.end(now);
            self.set_rate(RATE_MIN);
        } else if self.silent_periods.is_multiple_of(SILENT_PERIODS_MAX) {
            self.set_rate(self.rate / 2);
        }
    }

    /// What the machine or its link accepted is the rate, and a little more, so that it shows when
    /// they take more again.
    fn on_held_back(&mut self, now: Instant, taken: u64) {
        self.starting = self.climb.stop();
        self.probe.end(now);
        self.limit = Limit::Local;
        let taken = taken.clamp(part(self.rate, HELD_BACK_RATE_MIN), self.rate);
        self.reach.limit(taken);
        self.set_rate((taken + taken / STEPS).min(self.rate));
    }

    fn on_loss(&mut self, now: Instant, loss: f64, excess: f64, held_back: f64) {
        self.loss = loss;
        if let Some(before) = self.probe.end(now) {
            self.end_probe(now, before, loss);
            return;
        }
        // Nothing has told yet that this rate, which nobody set, is not the network's limit.
        let searches = self.searches && self.limit != Limit::Local;
        if excess > excess_max(self.starting, self.climb.is_running())
            || (excess > EXCESS_MAX && self.samples.hosts_alone_suffer())
        {
            if now >= self.rest_until {
                self.slow_down(now, excess);
                return;
            }
        } else if !self.climb.is_running() && self.probe.is_due(now, loss, searches) {
            let rate = self.probe.begin(self.rate, loss);
            self.set_rate(rate);
            return;
        } else if now >= self.rest_until && held_back < HELD_BACK_MIN {
            self.search.on_loss(self.rate, loss);
            if !self.starting
                && let Some(rate) = self.climb.on_period(now, loss)
            {
                self.set_rate(rate);
                return;
            }
            let step = match self.limit {
                _ if self.starting => self.rate,
                Limit::Local | Limit::Hosts => self.reach.step(self.limit, self.rate),
                Limit::Network => self.search.step(now, self.rest_until, self.rate),
            };
            self.reach.reached(self.rate);
            self.set_rate((self.rate + step.max(RATE_MIN / STEPS)).min(self.climb.top()));
            self.starting &= self.rate < self.rate_max.min(self.climb.top());
        }
        self.is_first_rest &= now < self.rest_until;
    }

    /// Half the rate has shown what is lost without congestion. If as much got through as with all
    /// of the suspicious rate, it stays at half, and may have to be halved again.
    fn end_probe(&mut self, now: Instant, before: Running, loss: f64) {
        if before.was_hidden(loss) {
            let rate = self.probe.begin(self.rate, loss);
            self.set_rate(rate);
        } else if before.was_full(self.rate, loss) {
            self.starting = self.climb.stop();
            self.limit = Limit::Network;
            self.rest_until = now + REST;
            self.search.on_full(part(before.rate, 1.0 - before.loss));
            // Another rate, so that what the queue dropped until it was empty counts no more.
            self.set_rate(self.rate + self.rate / STEPS);
        } else {
            self.set_rate(before.rate);
        }
    }

    /// Such a share of the rate did not get through.
    fn slow_down(&mut self, now: Instant, excess: f64) {
        let is_host = self.samples.hosts_alone_suffer();
        let loss = self.samples.quantile(|sample| sample.loss).unwrap_or(excess);
        let is_start = self.starting && !self.climb.is_running();
        if is_start && !is_host && self.probe.is_suspect(loss) {
            // How much of that was lost at the rates before is not certain: they may have been
            // too high already.
            let rate = self.probe.begin(self.rate, loss);
            self.set_rate(rate);
            return;
        }
        // The first rate that is too high for a link may be so by far; later ones were reached
        // step by step.
        let share_min = if self.starting { RATE_SHARE_MIN } else { 0.5 };
        self.is_first_rest = self.starting || (self.is_first_rest && now < self.rest_until);
        let (rate, through) = (self.rate, part(self.rate, 1.0 - loss));
        self.limit = if is_host { Limit::Hosts } else { Limit::Network };
        let share = if is_host { SHARE_OF_HOSTS } else { self.search.on_full(through) };
        let kept = part(self.rate, (1.0 - excess).max(share_min));
        if is_host && !self.starting && !self.samples.hosts_drop() {
            self.reach.limit_for_a_moment(self.rate, part(self.rate, 1.0 - excess), kept);
        } else {
            self.reach.limit(kept);
        }
        self.set_rate(part(self.rate, (share * (1.0 - excess)).max(share_min)));
        self.starting = if is_host {
            self.climb.stop()
        } else {
            self.climb.on_cut(now, rate, through, self.rate)
        };
        self.rest_until = now + REST;
    }

    /// Reports on the old rate do not count any more.
    fn set_rate(&mut self, rate: u64) {
        let rate = rate.clamp(RATE_MIN.min(self.rate_max), self.rate_max);
        if rate != self.rate {
            self.rate = rate;
            self.sent_when_told = None;
            self.samples.clear();
        }
    }
}

/// Below it a session makes no progress that anybody would wait for.
const RATE_MIN: u64 = 1_000_000;
/// The short periods at the start end so soon after the first answer.
const ANSWERS_WITHIN: Duration = Duration::from_millis(2);
/// So much is no rest of what queues held: the step down was too small.
const EXCESS_GROSS: f64 = 0.1;
/// After slowing down the queues need so long to drain.
const REST: Duration = Duration::from_millis(400);
/// Hosts share their limit with nobody: of what got through so much is left.
const SHARE_OF_HOSTS: f64 = 0.95;
/// However much of a burst was lost: half of the rate before it, which had not been too much.
const RATE_SHARE_MIN: f64 = 1.0 / 4.0;
/// A machine that takes all but this share of the schedule could take more.
const HELD_BACK_MIN: f64 = 0.005;
/// A single look says no more than this: a stall is no slow link.
const HELD_BACK_RATE_MIN: f64 = 1.0 / 8.0;
/// Without any report for so long the rate is halved.
const SILENT_PERIODS_MAX: u32 = 10;
/// Without any for so long the sender all but stops, and probes with a few datagrams.
const SILENT_PERIODS_BREAK: u32 = 40;
/// How much more than it took the sender's own link is asked to take.
const STEPS: u64 = 64;

#[cfg(test)]
mod tests {
    use imgcast_common::prng::Prng;

    use super::*;

    /// A governor, the time, and what was sent so far.
    struct Trial {
        governor: Governor,
        now: Instant,
        sent: u64,
        /// The present rate, and what had been sent when it was set.
        since: (u64, u64),
        prng: Prng,
    }

    impl Trial {
        fn new(rate_start: u64, rate_max: u64) -> Self {
            let governor = Governor::new(rate_start, rate_max, start());
            Self { governor, now: start(), sent: 0, since: (0, 0), prng: Prng::new(1) }
        }

        /// One control period, at the end of which each of `reports` is made.
        fn period(&mut self, reports: &[(u32, f64)]) {
            self.period_held_back(reports, 0.0);
        }

        fn period_held_back(&mut self, reports: &[(u32, f64)], held_back: f64) {
            self.now += PERIOD + Duration::from_millis(1);
            self.sent += self.governor.rate() / 8 / 1518 / 5;
            let active = u32::try_from(reports.len()).unwrap();
            for (id, loss) in reports {
                self.report(*id, Keeping { network_loss: *loss, ..KEEPS_UP }, active);
            }
            let taken = part(self.governor.rate(), 1.0 - held_back);
            let uptake = Uptake { given_up: held_back, rate: taken };
            self.governor.handle_timeout(self.now, Duration::from_millis(1), || Some(uptake));
            self.governor.on_told(self.sent);
        }

        fn report(&mut self, id: u32, keeping: Keeping, active: u32) -> bool {
            let (now, sent) = (self.now, self.sent);
            self.governor.on_heard(now, ReceiverId(id), sent);
            self.governor.on_report(now, ReceiverId(id), keeping, Some(sent), active)
        }

        /// The same if losses come in bursts of 50 on average.
        fn run_in_bursts(&mut self, periods: u32, receivers: u32, loss: f64) {
            let mut lossy = vec![false; receivers as usize];
            for _ in 0..periods {
                if self.since.0 != self.governor.rate() {
                    self.since = (self.governor.rate(), self.sent);
                }
                let this = self.governor.rate() / 8 / 1518 / 5;
                let counted = (self.sent - self.since.1 + this).clamp(1, 4_096);
                let mut reports = Vec::new();
                for (id, lossy) in (0..).zip(&mut lossy) {
                    let mut lost = 0;
                    for _ in 0..counted {
                        let changes = if *lossy { 0.02 } else { 0.02 * loss / (1.0 - loss) };
                        *lossy ^= self.prng.unit() < changes;
                        lost += u32::from(*lossy);
                    }
                    reports.push((id, f64::from(lost) / counted as f64));
                }
                self.period(&reports);
            }
        }

        /// Receivers report `loss` at each rate for `periods`, as exactly as datagrams allow.
        fn run(&mut self, periods: u32, loss: impl Fn(u64) -> f64) {
            for _ in 0..periods {
                let expected = loss(self.governor.rate());
                if self.since.0 != self.governor.rate() {
                    self.since = (self.governor.rate(), self.sent);
                }
                let this = self.governor.rate() / 8 / 1518 / 5;
                let counted = (self.sent - self.since.1 + this).clamp(1, 4_096);
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
    const KEEPS_UP: Keeping =
        Keeping { network_loss: 0.0, socket_loss: 0.0, limit: None, was_asked: true };

    #[test]
    fn a_link_of_the_sender_s_own_is_found_within_two_periods_and_followed() {
        let mut trial = Trial::new(GIGABIT / 5, 10 * GIGABIT);
        let mut rates = Vec::new();
        for period in 0..60 {
            let link = if period < 30 { GIGABIT / 20 } else { GIGABIT };
            let surplus = 1.0 - (link as f64 / trial.governor.rate() as f64).min(1.0);
            trial.period_held_back(&[(0, 0.0), (1, 0.0)], surplus);
            rates.push(trial.governor.rate());
        }
        let slow = GIGABIT / 20;
        assert!(rates[1..30].iter().all(|rate| (slow..slow * 13 / 10).contains(rate)), "{rates:?}");
        assert!(rates[59] > GIGABIT && rates[59] < GIGABIT * 13 / 10, "{rates:?}");
    }

    #[test]
    fn a_machine_that_is_held_up_never_raises_the_rate() {
        let mut trial = Trial::new(GIGABIT, GIGABIT);
        trial.run(3, |_| 0.0);
        trial.period_held_back(&[(0, 0.0)], 0.2);
        trial.run(2, |_| 0.0);
        trial.sent += 10_000;
        assert!(trial.report(1, Keeping { socket_loss: 0.4, ..KEEPS_UP }, 4));
        let rate = trial.governor.rate();
        trial.period_held_back(&[], 0.1);
        assert!((rate * 8 / 10..=rate).contains(&trial.governor.rate()), "{rate}");
    }

    #[test]
    fn a_thread_that_stalls_once_at_the_start_is_no_slow_link() {
        let mut trial = Trial::new(GIGABIT, 10 * GIGABIT);
        trial.period_held_back(&[(0, 0.0)], 0.06);
        assert_eq!(trial.governor.rate(), GIGABIT, "it is looked at once more");
        for _ in 0..4 {
            trial.period_held_back(&[(0, 0.0)], 0.0);
        }
        assert_eq!(trial.governor.rate(), 10 * GIGABIT);
        trial.period_held_back(&[(0, 0.0)], 0.5);
        assert!(trial.governor.rate() < 6 * GIGABIT, "later periods are long enough");
    }

    #[test]
    fn a_receiver_that_cannot_keep_up_slows_a_small_group_at_once() {
        let cannot = [
            Keeping { socket_loss: 0.3, ..KEEPS_UP },
            Keeping { limit: Some(GIGABIT / 8 * 7 / 10), ..KEEPS_UP },
            Keeping { network_loss: 0.35, ..KEEPS_UP },
        ];
        for keeping in cannot {
            let mut trial = Trial::new(GIGABIT, GIGABIT);
            trial.run(3, |_| 0.0);
            trial.sent += 10_000;
            assert!(trial.report(1, keeping, 8), "{keeping:?}");
            let rate = trial.governor.rate();
            assert!((GIGABIT / 2..GIGABIT * 7 / 10).contains(&rate), "{keeping:?}: {rate}");
            trial.period(&[]);
            let drops = |socket_loss| Keeping { socket_loss, ..KEEPS_UP };
            trial.sent += 10_000;
            assert!(!trial.report(2, drops(0.05), 8), "it takes a while until that shows");
            assert!(trial.report(2, drops(0.3), 8), "by far too small a step");
        }
    }

    #[test]
    fn a_host_with_long_queues_counts_however_late_it_hears_of_the_rate() {
        let mut trial = Trial::new(GIGABIT, GIGABIT);
        trial.run(3, |_| 0.0);
        let (now, long_ago) = (trial.now, Some(0));
        let behind = Keeping { limit: Some(GIGABIT / 8 * 7 / 10), ..KEEPS_UP };
        assert!(trial.governor.on_report(now, ReceiverId(1), behind, long_ago, 8));
        let rate = trial.governor.rate();
        assert!((GIGABIT / 2..GIGABIT * 7 / 10).contains(&rate), "{rate}");
        let loses = Keeping { socket_loss: 0.3, ..KEEPS_UP };
        trial.run(5, |_| 0.0);
        assert!(!trial.governor.on_report(now, ReceiverId(1), loses, long_ago, 8), "at what rate?");
    }

    #[test]
    fn whoever_joins_late_has_not_proved_that_nothing_is_lost() {
        let mut trial = Trial::new(GIGABIT, GIGABIT);
        trial.run(10, |_| 0.02);
        assert!(!trial.report(9, KEEPS_UP, 5), "it has heard nothing yet");
        for _ in 0..20 {
            trial.period(&[(0, 0.02), (1, 0.02), (9, 0.02)]);
        }
        assert_eq!(trial.governor.rate(), GIGABIT);
    }

    #[test]
    fn while_sockets_drop_nobody_proves_that_the_network_loses_nothing() {
        let mut trial = Trial::new(GIGABIT, GIGABIT);
        trial.run(3, |_| 0.05);
        trial.sent += 10_000;
        trial.report(1, Keeping { socket_loss: 0.06, ..KEEPS_UP }, 4);
        trial.run(100, |_| 0.05);
        assert!(trial.governor.rate() > GIGABIT * 9 / 10, "{}", trial.governor.rate());
    }

    #[test]
    fn without_loss_the_rate_doubles_up_to_the_highest() {
        let mut trial = Trial::new(GIGABIT / 5, GIGABIT);
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
    fn long_bursts_of_loss_slow_the_session_for_a_moment() {
        for receivers in [1, 4, 16] {
            for loss in [0.01, 0.05] {
                let mut trial = Trial::new(GIGABIT, GIGABIT);
                trial.run_in_bursts(40, receivers, loss);
                let mut sum = 0;
                for _ in 0..500 {
                    trial.run_in_bursts(1, receivers, loss);
                    sum += trial.governor.rate();
                }
                let mean = sum / 500;
                println!("{receivers}, {loss}: {:.2}", mean as f64 / GIGABIT as f64);
                assert!(mean > GIGABIT / 100 * 80, "{receivers}, {loss}: mean {mean}");
            }
        }
    }

    #[test]
    fn a_link_that_gets_slower_is_no_medium_that_loses() {
        let mut trial = Trial::new(GIGABIT, GIGABIT);
        trial.run(60, |rate| (1.0 - 0.9 * GIGABIT as f64 / rate as f64).max(0.0));
        let slower = GIGABIT / 8;
        trial.run(40, |rate| (1.0 - slower as f64 / rate as f64).max(0.0));
        for _ in 0..200 {
            trial.run(1, |rate| (1.0 - slower as f64 / rate as f64).max(0.0));
            let rate = trial.governor.rate();
            assert!((slower / 2..slower * 6 / 5).contains(&rate), "{rate}");
        }
    }

    #[test]
    fn loss_that_rises_with_the_rate_does() {
        let mut trial = Trial::new(GIGABIT / 5, 10 * GIGABIT);
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
    fn a_link_far_slower_than_the_first_rate_is_found_by_halving() {
        for link in [GIGABIT / 50, GIGABIT / 10] {
            let mut trial = Trial::new(GIGABIT / 5, 10 * GIGABIT);
            trial.run(14, |rate| (1.0 - link as f64 / rate as f64).max(0.0));
            let rate = trial.governor.rate();
            assert!((link / 2..link * 12 / 10).contains(&rate), "{link}: {rate}");
            trial.run(40, |rate| (1.0 - link as f64 / rate as f64).max(0.0));
            let mut sum = 0;
            for _ in 0..20 {
                trial.run(1, |rate| (1.0 - link as f64 / rate as f64).max(0.0));
                sum += trial.governor.rate();
            }
            let rate = sum / 20;
            assert!((link * 7 / 10..link * 11 / 10).contains(&rate), "{link}: {rate}");
        }
    }

    #[test]
    fn a_medium_that_loses_much_from_the_start_is_not_taken_for_a_slow_link() {
        let mut trial = Trial::new(GIGABIT / 5, GIGABIT);
        trial.run(12, |_| 0.4);
        assert_eq!(trial.governor.rate(), GIGABIT);
        assert!(trial.governor.lasting_loss(trial.now).is_none(), "too much to be relied upon");
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

    #[test]
    fn in_a_large_group_who_speaks_up_unasked_does_not_stand_for_those_who_are_polled() {
        let slow = Keeping { limit: Some(GIGABIT / 32), ..KEEPS_UP };
        for (asked, unasked, slows) in [(0, 1, false), (1, 3, false), (4, 0, true), (0, 60, true)] {
            let mut trial = Trial::new(GIGABIT, GIGABIT);
            for period in 0..20 {
                trial.now += PERIOD + Duration::from_millis(1);
                trial.sent += trial.governor.rate() / 8 / 1518 / 5;
                for number in 0..13 {
                    let slows = number < asked && (asked > 1 || period % 5 == 0);
                    let keeping = if slows { slow } else { KEEPS_UP };
                    trial.report(100 + number, keeping, 1_000);
                }
                for id in 0..unasked {
                    trial.report(id, Keeping { was_asked: false, ..slow }, 1_000);
                }
                let grtt = Duration::from_millis(1);
                let uptake = Uptake { given_up: 0.0, rate: trial.governor.rate() };
                trial.governor.handle_timeout(trial.now, grtt, || Some(uptake));
                trial.governor.on_told(trial.sent);
            }
            let rate = trial.governor.rate();
            assert_eq!(rate < GIGABIT / 2, slows, "{asked} asked, {unasked} not: {rate}");
        }
    }
}
