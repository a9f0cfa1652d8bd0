//! What is known of the way through the network: how far the rate goes down when that is full, and
//! by which steps up again, and by how many datagrams a rate is judged.
//!
//! Whoever is alone on a link that loses nothing else finds it full at the same rate each time.
//! Then little is cut and the rate rises slowly: searching on costs next to nothing. Where others
//! are, or may be, the cuts are deeper, and what is gained since depends on nothing but the time
//! that has passed: slowly at first, and, where the link may be fast, ever faster, so that it is
//! full again soon. What each session loses is a part of what it has and what each gains is the
//! same: so those that share a link draw level, and a TCP flow finds room.

use std::time::{Duration, Instant};

use super::samples::EXCESS_MAX;

/// Of all receivers, by the worst that counts.
#[derive(Debug)]
pub(super) struct Search {
    /// Nobody set the rate.
    searches: bool,
    /// What got through when the network was full last; before that, what it carries at most.
    carried: u64,
    /// The most that ever did without doubt.
    most: u64,
    is_found: bool,
    /// That was at the start, and says no more than the order of magnitude.
    is_coarse: bool,
    /// Nothing to speak of has been lost since, below that.
    is_clean: bool,
    /// It was found twice alike, and clean in between: nobody else is there.
    is_alone: bool,
    /// From when the rate rises with time, what it has gained since, and when it did last.
    since: Option<Instant>,
    gained: u64,
    stepped_at: Option<Instant>,
    /// The link may have been a slow one when it did.
    was_slow: bool,
}

impl Search {
    pub(super) const fn new(rate_max: u64, searches: bool) -> Self {
        Self {
            searches,
            carried: rate_max,
            most: 0,
            is_found: false,
            is_coarse: false,
            is_clean: false,
            is_alone: false,
            since: None,
            gained: 0,
            stepped_at: None,
            was_slow: false,
        }
    }

    /// The network is full and so much gets through; returns the share of it to go on with.
    pub(super) fn on_full(&mut self, through: u64) -> f64 {
        let before = std::mem::replace(&mut self.carried, through);
        let was_clean = std::mem::replace(&mut self.is_clean, true);
        let was_found = std::mem::replace(&mut self.is_found, true);
        let is_alike = through.abs_diff(before) <= before / ALIKE;
        let surely = if was_found { through } else { part(through, SURE_AT_FIRST) };
        self.most = self.most.max(surely);
        self.is_coarse = !was_found;
        self.is_alone = was_found && was_clean && is_alike;
        (self.since, self.stepped_at) = (None, None);
        match (was_found, self.is_alone) {
            _ if !self.searches => SHARE_IF_SET,
            (false, _) => SHARE_AT_FIRST,
            (true, true) => SHARE_ALONE,
            (true, false) => SHARE,
        }
    }

    /// Such a share was lost of this rate, be it by congestion or not.
    pub(super) fn on_loss(&mut self, rate: u64, loss: f64) {
        self.is_clean &= loss <= LOSS_CLEAN || rate > self.carried - self.carried / CLOSE;
    }

    /// By how much to raise the rate, which has rested until `rested_at`: what the time that has
    /// passed since the last step brings, for reports on a low rate take long to come.
    pub(super) fn step(&mut self, now: Instant, rested_at: Instant, rate: u64) -> u64 {
        let near = part(self.carried, NEAR);
        if !self.searches {
            return self.carried.max(rate) / STEPS_IF_SET;
        }
        if self.is_coarse && rate < near {
            return (rate / STEPS_COARSE).min(near - rate);
        }
        let is_slow = self.most.max(rate) < SLOW;
        let was_slow = std::mem::replace(&mut self.was_slow, is_slow);
        if was_slow && !is_slow {
            // Its time on the curve begins here.
            (self.since, self.stepped_at) = (None, None);
        }
        let since = *self.since.get_or_insert_with(|| {
            self.gained = 0;
            if self.is_coarse || was_slow { now } else { rested_at }
        });
        let before = self.stepped_at.replace(now).unwrap_or(since);
        let passed = in_periods(now.saturating_duration_since(before)).clamp(1.0, CATCH_UP);
        let periods = in_periods(now.saturating_duration_since(since) + PERIOD);
        let carried = self.carried.max(rate) as f64;
        let gained = if self.is_alone && is_slow {
            part(self.carried, periods * self.settled_share() / STEPS_ALONE_SLOW)
        } else if self.is_alone {
            gain(periods / STRETCH_ALONE, carried * STEP_MAX)
        } else if is_slow {
            gain_slowly(periods, carried * STEP_MAX_SLOW)
        } else {
            gain(periods, carried * STEP_MAX)
        };
        let step_max = part(rate, passed / STEPS_MIN);
        let step = gained.saturating_sub(self.gained).min(step_max);
        self.gained = gained;
        step
    }

    /// The share that a control period is of the time that a step needs to show.
    fn settled_share(&self) -> f64 {
        (PERIOD.as_secs_f64() * self.carried as f64 / bits_of(DATAGRAMS_ALONE)).min(1.0)
    }
}

/// A duration in control periods.
fn in_periods(duration: Duration) -> f64 {
    duration.as_secs_f64() / PERIOD.as_secs_f64()
}

/// What a session has gained so many periods after a cut: in each more than in the one before, up
/// to `most`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn gain(periods: f64, most: f64) -> u64 {
    let until = (most / STEP_FIRST).max(1.0).ln() / STEP_GROWTH.ln();
    let curved = (STEP_GROWTH.powf(periods.min(until)) - 1.0) / (STEP_GROWTH - 1.0);
    (STEP_FIRST * curved + (periods - until).max(0.0) * most) as u64
}

/// The same of a link that may be slow: in each period as much, at most `most`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn gain_slowly(periods: f64, most: f64) -> u64 {
    (periods * most.min(STEP_SLOW)) as u64
}

/// What kept the rate from being higher last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Limit {
    /// The sender's own machine or link, which says so without loss.
    Local,
    /// Receivers, which lose what they are sent too fast.
    Hosts,
    /// Something in between, which others share.
    Network,
}

/// Which excess the rate goes down for. Who joins others on a link makes room for itself first:
/// before, whoever was there would only give way by what it lost, and the two would need long to
/// draw level.
pub(super) const fn excess_max(starting: bool, climbs: bool) -> f64 {
    match (climbs, starting) {
        (true, _) => EXCESS_CLIMBING,
        (_, true) => EXCESS_STARTING,
        _ => EXCESS_MAX,
    }
}

/// The rate to begin with where the interface allows no more than `rate_max`, and nobody set one.
pub(super) fn rate_start(rate_max: u64) -> u64 {
    (rate_max / 16).clamp(RATE_START_MIN, RATE_START_MAX)
}

/// A control period while the rate doubles.
pub(super) fn start_period(rate: u64, grtt: Duration) -> Duration {
    let shortest = if rate < RATE_HIGH { START_PERIOD_MIN } else { START_PERIOD_HIGH };
    (2 * grtt).max(shortest)
}

/// Datagrams that a report has to speak of. Whoever lost the SYNC that told of the rate hears of it
/// with one of the next.
pub(super) fn datagrams_min(rate: u64, starting: bool) -> u64 {
    let millis = if starting { TOLD_WITHIN_MILLIS_STARTING } else { TOLD_WITHIN_MILLIS };
    rate * millis / 8 / 1000 / DATAGRAM_OCTETS + DATAGRAMS_JUDGED_MIN
}

/// How long so many datagrams take at a rate.
pub(super) fn time_of(datagrams: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bits_of(datagrams) / rate.max(1) as f64)
}

/// What so many datagrams are on the wire.
fn bits_of(datagrams: u64) -> f64 {
    (datagrams * DATAGRAM_OCTETS * 8) as f64
}

/// A share of a rate.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the rate")]
pub(super) fn part(rate: u64, share: f64) -> u64 {
    (rate as f64 * share.clamp(0.0, 1.0)) as u64
}

/// A gigabit link carries it five times over; a slower one shows it as loss at once.
const RATE_START_MIN: u64 = 200_000_000;
/// Whoever has a faster interface sends to gigabit links, too.
const RATE_START_MAX: u64 = 1_000_000_000;
/// While the rate doubles. A link that carries less than four fifths of it is full.
const EXCESS_STARTING: f64 = 0.2;
/// What the worst of a few receivers may lose for a moment in bursts of 50 and 5 % on average.
const EXCESS_CLIMBING: f64 = 0.4;
/// Control periods once the rate does not double any more.
pub(super) const PERIOD: Duration = Duration::from_millis(200);
/// Control periods while it does …
const START_PERIOD_MIN: Duration = Duration::from_millis(25);
/// … and at rates that hosts may not get through: they take in more for some time, …
pub(super) const RATE_HIGH: u64 = 4_000_000_000;
/// … and need so long to tell.
const START_PERIOD_HIGH: Duration = Duration::from_millis(50);
/// Two or three SYNCs.
const TOLD_WITHIN_MILLIS: u64 = 25;
/// While the rate doubles this will do: soon there is another report.
const TOLD_WITHIN_MILLIS_STARTING: u64 = 10;
/// Of the usual symbol, with framing.
const DATAGRAM_OCTETS: u64 = 1_518;
/// Fewer say nothing about a loss of a few percent.
const DATAGRAMS_JUDGED_MIN: u64 = 300;
/// What got through differs by no more than this part of it if the network is the same: when the
/// queue began to overflow is not known.
const ALIKE: u64 = 32;
/// Of what got through so much is left: enough for the queue to empty, and for others to gain on
/// whoever has more …
const SHARE: f64 = 0.8;
/// … less of what a burst got through at first, for that may be more than a fair share …
const SHARE_AT_FIRST: f64 = 0.7;
/// … hardly less where nobody else waits for room …
const SHARE_ALONE: f64 = 0.95;
/// … and little less of a rate that somebody set, and is to know how much of the network it is.
const SHARE_IF_SET: f64 = 0.9;
const STEPS_IF_SET: u64 = 64;
/// A datagram in two thousand: any TCP flow that fills a queue loses more of everybody's.
const LOSS_CLEAN: f64 = 0.0005;
/// Nearer than this to what got through the network may be full again.
const CLOSE: u64 = 32;
/// After the start, which ends with a rough guess, a few large steps go up to this share of it.
const NEAR: f64 = 0.9;
const STEPS_COARSE: u64 = 16;
/// What is gained in the first period after that, or a cut: little of any link …
const STEP_FIRST: f64 = 100_000.0;
/// … and how much more in each that follows: 20 % of 100 Mbit/s take two sessions three seconds,
/// of 10 Gbit/s eight.
const STEP_GROWTH: f64 = 1.2;
/// Whoever is alone can wait.
const STRETCH_ALONE: f64 = 4.0;
/// Further apart the rates say nothing about what lies between.
const STEP_MAX: f64 = 1.0 / 16.0;
/// The queue in front of a slow link takes long to fill, and as long to show that it is full. What
/// each gains there must not depend on its rate either, or those who share the link never draw
/// level …
const STEP_SLOW: f64 = 75_000.0;
/// … but for rates so low that it would be much of them.
const STEP_MAX_SLOW: f64 = 1.0 / 40.0;
const SLOW: u64 = 25_000_000;
/// At the start an empty queue takes in some times as much again.
const SURE_AT_FIRST: f64 = 0.25;
/// There a session that is alone takes a step of this part each time …
const STEPS_ALONE_SLOW: f64 = 256.0;
/// … that so many datagrams were sent: a loss of two percent among them is no chance.
const DATAGRAMS_ALONE: u64 = 1_500;
/// No step is longer than this part of the rate.
const STEPS_MIN: f64 = 8.0;
/// For so many periods that have passed since the last step.
const CATCH_UP: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_finds_the_same_twice_and_loses_nothing_in_between_is_alone() {
        let mut search = Search::new(10_000_000_000, true);
        assert_eq!(search.on_full(101_000_000), SHARE_AT_FIRST);
        search.on_loss(90_000_000, 0.0);
        search.on_loss(100_000_000, 0.01);
        assert_eq!(search.on_full(100_000_000), SHARE_ALONE);
        search.on_loss(90_000_000, 0.001);
        assert_eq!(search.on_full(100_000_000), SHARE, "somebody else fills the queue");
        assert_eq!(search.on_full(120_000_000), SHARE);
        assert_eq!(Search::new(100_000_000, false).on_full(90_000_000), SHARE_IF_SET);
    }

    #[test]
    fn after_the_start_a_few_large_steps_lead_near_what_got_through() {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let now = Instant::now();
        let mut search = Search::new(10_000_000_000, true);
        search.on_full(100_000_000);
        assert_eq!(search.step(now, now, 80_000_000), 5_000_000);
        assert_eq!(search.step(now, now, 89_000_000), 1_000_000);
        assert!(search.step(now, now, 90_000_000) < 200_000);
        assert!(search.step(now + 5 * PERIOD, now, 90_000_000) > 200_000);
    }

    #[test]
    fn sessions_that_share_a_link_draw_level() {
        for link in [20_000_000, 100_000_000, 1_000_000_000, 10_000_000_000] {
            let mut sessions = [0.8, 0.2].map(|share| (Search::new(link, true), part(link, share)));
            for (search, rate) in &mut sessions {
                search.on_full(link.max(*rate));
            }
            let mut factors = Vec::new();
            #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
            let mut now = Instant::now();
            // In half a minute.
            for _ in 0..150 {
                let sum: u64 = sessions.iter().map(|(_, rate)| *rate).sum();
                for (search, rate) in &mut sessions {
                    if sum > link * 21 / 20 {
                        let through = part(link, *rate as f64 / sum as f64);
                        *rate = part(through, search.on_full(through));
                        search.on_loss(0, 0.01);
                    } else {
                        *rate += search.step(now, now, *rate);
                    }
                }
                now += PERIOD;
                factors.push(sessions[0].1 as f64 / sessions[1].1 as f64);
            }
            let is_level = |factor: &f64| (0.45..2.2).contains(factor);
            assert!(factors[100..].iter().all(is_level), "{link}: {factors:?}");
        }
    }

    #[test]
    fn whoever_hears_seldom_gains_as_much_as_whoever_hears_often() {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let start = Instant::now();
        let gained = |every: u32| {
            let mut search = Search::new(10_000_000_000, true);
            search.on_full(100_000_000);
            search.on_loss(80_000_000, 0.01);
            let cut = part(50_000_000, search.on_full(50_000_000));
            (0..=24)
                .step_by(every as usize)
                .fold(cut, |rate, period| rate + search.step(start + PERIOD * period, start, rate))
                - cut
        };
        assert!(gained(1) > 20_000_000, "{}", gained(1));
        assert!(gained(4) > gained(1) / 5 * 4, "{} of {}", gained(4), gained(1));
    }

    #[test]
    fn after_a_long_silence_it_does_not_leap() {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let start = Instant::now();
        let mut search = Search::new(10_000_000_000, true);
        search.on_full(100_000_000);
        search.on_loss(80_000_000, 0.01);
        let rate = part(50_000_000, search.on_full(50_000_000));
        search.step(start, start, rate);
        let late = start + 100 * PERIOD;
        assert!(search.step(late, start, rate) <= rate / 2, "four periods are made up for");
        let next = search.step(late + PERIOD, start, rate);
        assert!(next <= rate / 8, "the rest of them is forgotten: {next}");
    }

    #[test]
    fn a_link_that_turns_out_to_be_fast_is_not_risen_on_as_if_that_had_been_known_all_along() {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let start = Instant::now();
        let mut search = Search::new(10_000_000_000, true);
        search.on_full(30_000_000);
        search.on_loss(20_000_000, 0.01);
        search.on_full(24_000_000);
        let slowly = search.step(start + 30 * PERIOD, start, 24_900_000);
        assert!(slowly > 0, "{slowly}");
        let first = search.step(start + 31 * PERIOD, start, 25_100_000);
        assert!(first <= 110_000, "{first}");
    }

    #[test]
    fn a_link_that_carries_more_than_it_did_is_found_again() {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let start = Instant::now();
        let mut search = Search::new(10_000_000_000, true);
        search.on_full(30_000_000);
        search.on_full(50_000_000);
        let mut rate = 40_000_000;
        let steps = (0..).take_while(|period| {
            rate += search.step(start + PERIOD * *period, start, rate);
            rate < 1_000_000_000
        });
        assert!(steps.count() < 120);
    }
}
