//! When the next burst may leave, so that the mean rate is kept and no burst is longer than a few
//! milliseconds of it.
//!
//! What was not handed out in time is a debt of time: a millisecond of it is made up for at once,
//! a few more are paid back by going a little faster, and the rest is given up. Given up because
//! what had been handed out did not leave, it shows that the rate is more than this machine or its
//! link can take.

use std::time::{Duration, Instant};

use imgcast_common::prng::Prng;

/// Spreads octets over time.
#[derive(Debug)]
pub(super) struct Pacer {
    rate_bits_per_second: u64,
    next_at: Instant,
    last_at: Instant,
    /// Time of the schedule that was missed and is still to be made up for.
    debt: Duration,
    /// Since the last burst there was a time when no more could be handed out.
    is_held_back: bool,
    /// How much of the schedule was given up because of that, lately.
    held_back: HeldBack,
    /// Octets that unicast may send while the group wants data too.
    unicast_credit: i64,
}

/// What became of the schedule over some time.
#[derive(Debug)]
struct HeldBack {
    since: Instant,
    given_up: Duration,
    /// What was kept of it, and what left with that.
    kept: Duration,
    octets: u64,
}

/// What the sender's own machine and link made of the schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Uptake {
    /// The share of it that was given up because of them.
    pub(super) given_up: f64,
    /// Bits per second that left while there was something to send.
    pub(super) rate: u64,
}

impl HeldBack {
    const fn new(since: Instant) -> Self {
        Self { since, given_up: Duration::ZERO, kept: Duration::ZERO, octets: 0 }
    }
}

impl Pacer {
    pub(super) const fn new(rate_bits_per_second: u64, now: Instant) -> Self {
        Self {
            rate_bits_per_second,
            next_at: now,
            last_at: now,
            debt: Duration::ZERO,
            is_held_back: false,
            held_back: HeldBack::new(now),
            unicast_credit: 0,
        }
    }

    pub(super) const fn set_rate(&mut self, rate_bits_per_second: u64) {
        self.rate_bits_per_second = rate_bits_per_second;
    }

    pub(super) const fn rate(&self) -> u64 {
        self.rate_bits_per_second
    }

    /// When a burst may be handed out: a little before it leaves, so that whoever sends it has the
    /// next one at hand.
    pub(super) fn ready_at(&self) -> Instant {
        self.next_at.checked_sub(LOOKAHEAD).unwrap_or(self.next_at)
    }

    /// Symbols for one burst out of datagrams of so many octets on the wire.
    pub(super) fn burst(&self, datagram_octets: u64) -> u32 {
        let octets = self.rate_bits_per_second / 8 * BURST_MILLIS_MAX / 1000;
        let octets = octets.min(BURST_OCTETS_MAX);
        let symbols = (octets / datagram_octets.max(1)).clamp(1, u64::from(BURST_SYMBOLS_MAX));
        u32::try_from(symbols).unwrap_or(1)
    }

    /// The same, less up to half of it, by chance: two senders that share a link in step find its
    /// queue with room for one burst each time, and always for the same sender's.
    pub(super) fn burst_out_of_step(&self, datagram_octets: u64, prng: &mut Prng) -> u32 {
        let most = self.burst(datagram_octets);
        let fewer = if self.rate_bits_per_second < RATE_IN_STEP_MAX { most / 2 } else { 0 };
        let by_chance = prng.below(u64::from(fewer) + 1);
        most - u32::try_from(by_chance).unwrap_or(0)
    }

    /// How long one burst takes at the present rate.
    pub(super) fn burst_time(&self, datagram_octets: u64) -> Duration {
        self.time_for(datagram_octets * u64::from(self.burst(datagram_octets)))
    }

    /// Takes so many octets off the schedule; returns when they are to leave.
    pub(super) fn take(&mut self, now: Instant, octets: u64) -> Instant {
        self.miss(now);
        self.is_held_back = false;
        self.held_back.octets += octets;
        let time = self.time_for(octets);
        self.held_back.kept += time;
        let paid = self.debt.min(time / DEBT_SHARE);
        self.debt -= paid;
        let at = self.next_at;
        self.next_at = at + time - paid;
        self.last_at = at.max(now);
        self.last_at
    }

    /// What should have left by now and cannot be made up for at once.
    fn miss(&mut self, now: Instant) {
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let Some(missed) = earliest.checked_duration_since(self.next_at) else { return };
        self.next_at = earliest;
        let debt = self.debt + missed;
        self.debt = debt.min(DEBT_MAX);
        if self.is_held_back {
            self.held_back.given_up += debt - self.debt;
        }
    }

    /// There was nothing to send: no time is missed.
    pub(super) fn rest(&mut self, now: Instant) {
        self.next_at = self.next_at.max(now.checked_sub(CATCH_UP).unwrap_or(now));
        self.debt = Duration::ZERO;
        self.is_held_back = false;
    }

    /// What was handed out does not leave as fast as the schedule wants.
    pub(super) const fn hold_back(&mut self) {
        self.is_held_back = true;
    }

    /// What became of the schedule since this was answered last; `None` while too little has left
    /// to tell a link that is slow from one that delivers in gulps.
    pub(super) fn uptake(&mut self, now: Instant) -> Option<Uptake> {
        if self.is_held_back {
            self.miss(now);
        }
        let HeldBack { since, given_up, kept, octets } = self.held_back;
        let lasted = now.saturating_duration_since(since);
        if lasted < JUDGED_MIN || (octets < JUDGED_OCTETS_MIN && lasted < JUDGED_MAX) {
            return None;
        }
        self.held_back = HeldBack::new(now);
        let (millionths, busy) = (u128::from(octets) * 8_000_000, given_up + kept);
        let rate = millionths.checked_div(busy.as_micros()).unwrap_or(0);
        Some(Uptake {
            given_up: (given_up.as_secs_f64() / lasted.as_secs_f64()).min(1.0),
            rate: u64::try_from(rate).unwrap_or(u64::MAX),
        })
    }

    /// When the last burst that was handed out leaves, and with it what is handed out behind it.
    pub(super) const fn last_at(&self) -> Instant {
        self.last_at
    }

    /// How long so many octets take at the present rate.
    pub(super) fn time_for(&self, octets: u64) -> Duration {
        Duration::from_secs_f64(octets as f64 * 8.0 / self.rate_bits_per_second.max(1) as f64)
    }

    /// So many octets went to the group: unicast may have its share of as many.
    pub(super) fn grant_unicast(&mut self, octets: u64) {
        let share = i64::try_from(octets * UNICAST_PERCENT / 100).unwrap_or(0);
        self.unicast_credit = (self.unicast_credit + share).min(UNICAST_CREDIT_MAX);
    }

    /// Unicast sent so many octets beside what the group wanted.
    pub(super) fn spend_unicast(&mut self, octets: u64) {
        self.unicast_credit -= i64::try_from(octets).unwrap_or(0);
    }

    pub(super) const fn unicast_has_credit(&self) -> bool {
        self.unicast_credit > 0
    }
}

/// How far ahead of its time a burst is handed out: as long as a busy host may sleep too long.
const LOOKAHEAD: Duration = Duration::from_millis(4);
/// What was missed longer ago is not made up for at once, or a stall would end in a flood …
const CATCH_UP: Duration = Duration::from_millis(1);
/// … and what was missed longer ago than that, never.
const DEBT_MAX: Duration = Duration::from_millis(4);
/// The shortest time over which it is judged whether the schedule can be kept …
const JUDGED_MIN: Duration = Duration::from_millis(20);
/// … in which so much left, which is more than socket and queues take in at once …
const JUDGED_OCTETS_MIN: u64 = 512 << 10;
/// … unless it takes very long.
const JUDGED_MAX: Duration = Duration::from_millis(500);
/// A debt is paid back by going faster by so many parts in one.
const DEBT_SHARE: u32 = 8;
/// A switch port of 128 KiB and more holds a burst of so long at a tenth of the rate in excess.
const BURST_MILLIS_MAX: u64 = 5;
/// One datagram with segmentation offload carries 44 symbols of 1,408 octets.
pub const BURST_SYMBOLS_MAX: u32 = 44;
/// So much they take on the wire: a burst of jumbo frames shall not fill a switch port either.
const BURST_OCTETS_MAX: u64 = 44 * 1518;
/// Rates that links of a gigabit are tried with. A faster one needs all that a call can take.
const RATE_IN_STEP_MAX: u64 = 2_500_000_000;
/// Those who cannot hear the group must not slow it.
const UNICAST_PERCENT: u64 = 8;
/// A burst's worth, so that credit is not saved up.
const UNICAST_CREDIT_MAX: i64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn the_mean_rate_is_kept_and_a_stall_is_not_made_up_for() {
        let start = Instant::now();
        let mut pacer = Pacer::new(80_000_000, start);
        let mut at = start;
        for _ in 0..100 {
            at = pacer.take(start, 10_000);
        }
        assert_eq!(at, start + Duration::from_millis(99));
        let late = start + Duration::from_secs(5);
        let mut sent = 0;
        while pacer.take(late, 10_000) <= late {
            sent += 1;
        }
        assert_eq!(sent, 2, "a millisecond is made up for at once");
        (0..100).for_each(|_| at = pacer.take(late, 10_000));
        assert_eq!(at, late + Duration::from_millis(101 - 4), "four more bit by bit");
        assert_eq!(pacer.uptake(late).unwrap().given_up, 0.0, "nobody held it back");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn what_does_not_leave_shows_by_how_much_the_rate_is_too_high() {
        let start = Instant::now();
        let mut pacer = Pacer::new(80_000_000, start);
        let mut now = start;
        for burst in 1..=1000 {
            now = start + burst * Duration::from_micros(1250);
            pacer.hold_back();
            pacer.take(now, 10_000);
            if burst == 40 {
                assert_eq!(pacer.uptake(now), None, "too little to tell");
            }
        }
        let Uptake { given_up, rate } = pacer.uptake(now).unwrap();
        assert!((0.18..0.21).contains(&given_up), "{given_up}");
        assert!((64_000_000..65_000_000).contains(&rate), "{rate}");
        pacer.set_rate(40_000_000);
        let idle = start + Duration::from_secs(9);
        pacer.rest(idle);
        pacer.hold_back();
        pacer.take(idle, 10_000);
        assert_eq!(pacer.uptake(idle).unwrap().given_up, 0.0, "there was nothing to send");
        pacer.hold_back();
        let later = idle + Duration::from_secs(1);
        assert_eq!(pacer.uptake(later).unwrap().given_up, 0.994, "it is stuck");
        pacer.rest(later);
        let at_last = pacer.uptake(later + Duration::from_secs(1)).unwrap();
        assert_eq!(at_last, Uptake { given_up: 0.0, rate: 0 }, "all has left");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn two_sessions_on_a_link_do_not_send_in_step() {
        let (now, mut prng) = (Instant::now(), Prng::new(1));
        let mut bursts = |rate| {
            let pacer = Pacer::new(rate, now);
            let bursts: Vec<u32> =
                (0..1000).map(|_| pacer.burst_out_of_step(1518, &mut prng)).collect();
            (*bursts.iter().min().unwrap(), *bursts.iter().max().unwrap())
        };
        assert_eq!(bursts(1_000_000_000), (22, 44));
        assert_eq!(bursts(1_000_000), (1, 1));
        assert_eq!(bursts(RATE_IN_STEP_MAX), (44, 44), "calls are dear");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn bursts_follow_the_rate() {
        let now = Instant::now();
        assert_eq!(Pacer::new(1_000_000, now).burst(1518), 1);
        assert_eq!(Pacer::new(50_000_000, now).burst(1518), 20);
        assert_eq!(Pacer::new(10_000_000_000, now).burst(1518), 44);
        for (rate, octets, _) in rates() {
            let pacer = Pacer::new(rate, now);
            assert!(pacer.burst(octets) == 1 || pacer.burst_time(octets) <= 5 * MILLI, "{rate}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn unicast_gets_its_share_of_what_the_group_gets() {
        let mut pacer = Pacer::new(1_000_000_000, Instant::now());
        let mut unicast = 0u64;
        for _ in 0..10_000 {
            pacer.grant_unicast(60_000);
            while pacer.unicast_has_credit() {
                pacer.spend_unicast(15_000);
                unicast += 15_000;
            }
        }
        let share = unicast * 100 / (10_000 * 60_000);
        assert!((7..=8).contains(&share), "{share} %");
    }

    #[test]
    fn in_any_second_the_rate_is_kept_within_two_percent_whenever_one_wakes_within_five_millis() {
        for (rate, datagram_octets, seed) in rates() {
            let mut prng = Prng::new(seed);
            let late = move |_: Duration| up_to(5 * MILLI, &mut prng);
            let left = departures(rate, datagram_octets, seed, late);
            assert_every_second_holds(rate, datagram_octets, &left);
        }
    }

    #[test]
    fn a_stall_of_nine_millis_now_and_then_costs_no_second_two_percent() {
        for (rate, datagram_octets, seed) in rates() {
            let mut prng = Prng::new(seed);
            let (lasts, mut stall_at) = (9 * MILLI, Duration::ZERO);
            let late = move |now: Duration| {
                if now < stall_at {
                    return up_to(4 * MILLI, &mut prng);
                }
                stall_at = now + STALL_INTERVAL_MIN + up_to(STALL_INTERVAL_MIN, &mut prng);
                lasts
            };
            let left = departures(rate, datagram_octets, seed, late);
            assert_every_second_holds(rate, datagram_octets, &left);
            let ahead = ahead_max(rate, &left);
            let made_up = octets_in(5 * MILLI, rate);
            let allowed = burst_octets(rate, datagram_octets) as f64 + made_up + ROUNDING_OCTETS;
            assert!(ahead <= allowed, "{rate}: {ahead} > {allowed}");
        }
    }

    #[test]
    fn what_leaves_is_never_more_than_a_burst_and_a_milli_ahead_whenever_one_wakes() {
        for (rate, datagram_octets, seed) in rates() {
            let burst_octets = burst_octets(rate, datagram_octets) as f64;
            for (late_max, made_up) in
                [(Duration::ZERO, Duration::ZERO), (4 * MILLI, Duration::ZERO), (5 * MILLI, MILLI)]
            {
                let mut prng = Prng::new(seed);
                let late = move |_: Duration| up_to(late_max, &mut prng);
                let ahead = ahead_max(rate, &departures(rate, datagram_octets, seed, late));
                let allowed = burst_octets + octets_in(made_up, rate) + ROUNDING_OCTETS;
                assert!(ahead <= allowed, "{rate}, {late_max:?}: {ahead} > {allowed}");
            }
        }
    }

    #[test]
    fn long_stalls_of_any_kind_end_in_no_flood() {
        for (rate, datagram_octets, seed) in rates() {
            let mut prng = Prng::new(seed);
            let late = move |_: Duration| match prng.below(20) {
                0 => up_to(500 * MILLI, &mut prng),
                _ => up_to(12 * MILLI, &mut prng),
            };
            let ahead = ahead_max(rate, &departures(rate, datagram_octets, seed, late));
            let made_up = octets_in(5 * MILLI, rate);
            let allowed = burst_octets(rate, datagram_octets) as f64 + made_up + ROUNDING_OCTETS;
            assert!(ahead <= allowed, "{rate}: {ahead} > {allowed}");
        }
    }

    /// Rates from 1 Mbit/s to 20 Gbit/s with datagrams of both common sizes, each with a seed.
    fn rates() -> impl Iterator<Item = (u64, u64, u64)> {
        let rates = [1, 2, 5, 7, 30, 100, 333, 900, 1_000, 2_500, 7_000, 10_000, 20_000];
        let sizes = [1_518, 9_010];
        let pairs = rates.into_iter().flat_map(move |rate| sizes.map(|size| (rate, size)));
        (1..).zip(pairs).map(|(seed, (megabits, octets))| (megabits * 1_000_000, octets, seed))
    }

    /// When what leaves, since the start, if one comes `late(now)` after each time that is asked
    /// for and hands out all that may be handed out then, in bursts of up to the longest size.
    fn departures(
        rate: u64,
        datagram_octets: u64,
        seed: u64,
        mut late: impl FnMut(Duration) -> Duration,
    ) -> Vec<(Duration, u64)> {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let start = Instant::now();
        let (mut pacer, mut prng) = (Pacer::new(rate, start), Prng::new(seed));
        let (mut now, mut left) = (start, Vec::new());
        let symbols_max = u64::from(pacer.burst(datagram_octets));
        // The last symbols of a turn are a shorter burst.
        let whole_share = prng.unit();
        while now < start + SIMULATED {
            while pacer.ready_at() <= now {
                let whole = prng.unit() < whole_share;
                let symbols = if whole { symbols_max } else { 1 + prng.below(symbols_max) };
                let octets = symbols * datagram_octets;
                let at = pacer.take(now, octets);
                assert!(at <= now + 4 * MILLI, "{rate}: {:?} ahead", at - now);
                left.push((at - start, octets));
            }
            let wanted = pacer.ready_at().max(now);
            now = wanted + late(wanted - start);
        }
        left
    }

    /// What leaves in any second, wherever it begins, differs from the rate by at most 2 %, or by
    /// one burst where that is more.
    fn assert_every_second_holds(rate: u64, datagram_octets: u64, left: &[(Duration, u64)]) {
        let (second, whole) = (Duration::from_secs(1), rate / 8);
        let off_max = (whole / 50).max(burst_octets(rate, datagram_octets));
        let (last, _) = left[left.len() - 1];
        let (mut end, mut octets) = (0, 0);
        for &(from, first_octets) in left.iter().take_while(|(from, _)| *from + second < last) {
            while left[end].0 < from + second {
                octets += left[end].1;
                end += 1;
            }
            // Once from just before this burst on, once from just behind it.
            assert!(octets <= whole + off_max, "{rate}: {octets} in the second from {from:?}");
            octets -= first_octets;
            let least = octets + left[end].1;
            assert!(least >= whole - off_max, "{rate}: {least} in the second after {from:?}");
        }
    }

    /// The most octets that left in any time beyond what the rate allows in it.
    fn ahead_max(rate: u64, left: &[(Duration, u64)]) -> f64 {
        let (mut sum, mut lowest, mut ahead) = (0.0, f64::MAX, 0.0_f64);
        for &(at, octets) in left {
            let allowed = octets_in(at, rate) * (1.0 + ROUNDING_SHARE);
            lowest = lowest.min(sum - allowed);
            sum += octets as f64;
            ahead = ahead.max(sum - allowed - lowest);
        }
        ahead
    }

    fn burst_octets(rate: u64, datagram_octets: u64) -> u64 {
        #[expect(clippy::disallowed_methods, reason = "a pacer that is asked for sizes only")]
        let pacer = Pacer::new(rate, Instant::now());
        u64::from(pacer.burst(datagram_octets)) * datagram_octets
    }

    fn octets_in(time: Duration, rate: u64) -> f64 {
        time.as_secs_f64() * rate as f64 / 8.0
    }

    fn up_to(most: Duration, prng: &mut Prng) -> Duration {
        most.mul_f64(prng.unit())
    }

    /// Long enough for many different seconds.
    const SIMULATED: Duration = Duration::from_millis(2_600);
    /// What a stall costs is paid back before the next one.
    const STALL_INTERVAL_MIN: Duration = Duration::from_millis(200);
    /// The schedule has whole nanoseconds, and a datagram may take as little as 607.
    const ROUNDING_SHARE: f64 = 1e-4;
    /// … and so do times.
    const ROUNDING_OCTETS: f64 = 3.0;
    const MILLI: Duration = Duration::from_millis(1);
}
