//! What was lost on the way from the group: by the network, and by the receiver's own sockets.

/// Counts datagrams against the gaps in the group's counter, over the last few thousand.
///
/// A counter far off is believed only when others confirm it: anybody can forge one.
#[derive(Debug, Default)]
pub(super) struct LossMeter {
    begun: bool,
    newest: u64,
    /// Counters far off that came since the last one that was not.
    doubted: Doubted,
    /// A report speaks of both periods: right after one ended the next says nothing yet.
    last: Period,
    this: Period,
    base: u64,
    /// The first datagram that came, and how many have come since: what was lost in all.
    first: u64,
    received: u64,
    overflow: u64,
    overflow_base: u64,
    /// What was said last, if anything.
    said: Option<(u16, u16)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Period {
    expected: u64,
    received: u64,
    overflow: u64,
}

/// Counters far off that lie close together: the lowest, the highest and how many they are.
#[derive(Clone, Copy, Debug, Default)]
struct Doubted {
    lowest: u64,
    highest: u64,
    count: u64,
}

impl LossMeter {
    /// Datagrams of the group arrived: `first + i` for every bit `i` of `arrived`.
    pub(super) fn on_datagrams(&mut self, first: u64, arrived: u64) {
        let Some(newest) = arrived.checked_ilog2() else { return };
        let (last, before) = (first.saturating_add(newest.into()), arrived.trailing_zeros());
        let (first, arrived) = (first.saturating_add(before.into()), arrived >> before);
        if !self.begun {
            self.begin(first);
        }
        if self.is_far_off(first, last) {
            self.doubted.note(first, last, arrived.count_ones().into());
            if self.doubted.count >= CONFIRMED {
                self.believe();
            }
            return;
        }
        self.doubted = Doubted::default();
        self.count(first, last, arrived);
    }

    fn begin(&mut self, first: u64) {
        self.begun = true;
        self.newest = first.saturating_sub(1);
        (self.first, self.received) = (first, 0);
        self.restart();
    }

    const fn is_far_off(&self, first: u64, last: u64) -> bool {
        last > self.newest.saturating_add(AHEAD_MAX)
            || first.saturating_add(BEHIND_MAX) < self.newest
    }

    /// So many agree that they are no forgery.
    fn believe(&mut self) {
        let Doubted { lowest, highest, count } = std::mem::take(&mut self.doubted);
        if !(self.newest..=self.newest.saturating_add(JUMP_MAX)).contains(&lowest) {
            self.begin(lowest);
        }
        self.newest = highest;
        self.received += count;
        self.this.received += count;
    }

    fn count(&mut self, first: u64, last: u64, arrived: u64) {
        self.newest = self.newest.max(last);
        self.received += u64::from(arrived.count_ones());
        // What belongs to the past was counted as lost there.
        let of_past = self.base.saturating_add(1).saturating_sub(first);
        let of_this = u32::try_from(of_past).ok().and_then(|bits| arrived.checked_shr(bits));
        self.this.received += u64::from(of_this.unwrap_or(0).count_ones());
    }

    /// The highest counter so far, be it confirmed or not.
    pub(super) fn newest(&self) -> u64 {
        self.newest.max(self.doubted.highest)
    }

    /// So many datagrams have been dropped by the sockets of this receiver so far.
    pub(super) const fn on_overflow(&mut self, total: u64) {
        if total > self.overflow {
            self.overflow = total;
        }
    }

    /// Forgets the past: the rate changed, and older losses say nothing about it.
    pub(super) fn restart(&mut self) {
        self.begin_period();
        self.last = Period::default();
    }

    /// The group is heard again from this datagram on: what was missed meanwhile is no loss that a
    /// lower rate would avoid, or that anybody but this receiver has.
    pub(super) fn resume(&mut self, counter: u64) {
        self.newest = self.newest.max(counter.saturating_sub(1));
        self.doubted = Doubted::default();
        self.restart();
    }

    fn begin_period(&mut self) {
        self.last = std::mem::take(&mut self.this);
        self.base = self.newest;
        self.overflow_base = self.overflow;
    }

    /// The share that was lost of all since the first datagram came, wherever.
    pub(super) fn overall(&self) -> f64 {
        let sent = self.newest.saturating_add(1).saturating_sub(self.first);
        let lost = sent.saturating_sub(self.received);
        lost as f64 / sent.max(1) as f64
    }

    /// Recent loss by network and by socket, in 65,536ths. Until enough was counted since the rate
    /// changed, that of before, and nothing at first: of a few datagrams often none is lost.
    pub(super) fn report(&mut self) -> Option<(u16, u16)> {
        self.this.expected = self.newest - self.base;
        self.this.overflow = self.overflow - self.overflow_base;
        let (last, this) = (self.last, self.this);
        let expected = last.expected + this.expected;
        if expected < COUNTED_MIN {
            return self.said;
        }
        let lost = expected.saturating_sub(last.received + this.received);
        let socket = (last.overflow + this.overflow).min(lost);
        let share = |count: u64| u16::try_from(count * 65_536 / expected).unwrap_or(u16::MAX);
        if this.expected >= PERIOD_DATAGRAMS {
            self.begin_period();
        }
        self.said = Some((share(lost - socket), share(socket)));
        self.said
    }
}

impl Doubted {
    fn note(&mut self, first: u64, last: u64, count: u64) {
        let near = self.lowest.saturating_sub(AHEAD_MAX)..=self.highest.saturating_add(AHEAD_MAX);
        if self.count == 0 || !near.contains(&first) {
            *self = Self { lowest: first, highest: last, count };
        } else {
            self.lowest = self.lowest.min(first);
            self.highest = self.highest.max(last);
            self.count += count;
        }
    }
}

/// Gaps are hardly ever longer, and those that are need only be confirmed.
const AHEAD_MAX: u64 = 256;
/// Datagrams overtake each other by less.
const BEHIND_MAX: u64 = 4_096;
/// So many in a row and close together, with none between that is not far off.
const CONFIRMED: u64 = 8;
/// A longer gap is no loss but another beginning.
const JUMP_MAX: u64 = 1 << 24;
/// As many as a sender wants a report to speak of.
const COUNTED_MIN: u64 = 300;
/// So many show a loss of half a percent, and pass within a fifth of a second at 200 Mbit/s.
const PERIOD_DATAGRAMS: u64 = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    impl LossMeter {
        fn on_datagram(&mut self, counter: u64) {
            self.on_datagrams(counter, 1);
        }
    }

    #[test]
    fn gaps_are_loss_and_reordering_is_not() {
        let mut meter = LossMeter::default();
        assert_eq!(meter.report(), None);
        for ten in 10..50 {
            for one in [0, 2, 1, 3, 5, 6, 7, 9] {
                meter.on_datagram(10 * ten + one);
            }
        }
        assert_eq!(meter.report(), Some((2 * 6553 + 1, 0)), "2 of 10");
        meter.restart();
        assert!((meter.overall() - 0.2).abs() < 1e-9, "{}", meter.overall());
    }

    #[test]
    fn what_the_socket_dropped_is_not_the_network_s_fault() {
        let mut meter = LossMeter::default();
        for counter in (1..=1000).filter(|counter| counter % 10 != 0) {
            meter.on_datagram(counter);
        }
        meter.on_datagram(1000);
        meter.on_overflow(50);
        let (network, socket) = meter.report().unwrap();
        assert_eq!(socket, 3276);
        assert_eq!(network, 3211, "99 - 50 of 1000");
    }

    #[test]
    fn what_passed_while_the_group_was_not_heard_is_no_loss() {
        let mut meter = LossMeter::default();
        (1..=1_000).for_each(|counter| meter.on_datagram(counter));
        meter.resume(5_001);
        (5_001..=6_000).for_each(|counter| meter.on_datagram(counter));
        assert_eq!(meter.report(), Some((0, 0)));
        assert!((meter.overall() - 4.0 / 6.0).abs() < 1e-3, "{}", meter.overall());
    }

    #[test]
    fn a_forged_counter_is_neither_loss_nor_an_overflow() {
        let mut meter = LossMeter::default();
        for counter in [5, 6, u64::MAX, 7, 8] {
            meter.on_datagram(counter);
        }
        assert_eq!(meter.report(), None);
    }

    /// What it says of ten thousand datagrams of which a hundredth is lost, amid forged ones.
    fn amid_forged(forged: impl Fn(u64) -> Vec<u64>) -> f64 {
        let mut meter = LossMeter::default();
        for counter in (1..=10_000).filter(|counter| counter % 100 != 0) {
            meter.on_datagram(counter);
            forged(counter).into_iter().for_each(|it| meter.on_datagram(it));
        }
        let (network, socket) = meter.report().unwrap();
        assert_eq!(socket, 0);
        f64::from(network) / 655.36
    }

    #[test]
    fn forged_counters_among_true_ones_change_nothing() {
        assert!((amid_forged(|_| vec![]) - 1.0).abs() < 0.1);
        for far in [300, 1 << 20, 1 << 24, 1 << 40, (1 << 63) - 10_001] {
            let percent = amid_forged(|counter| vec![counter + far; 7]);
            assert!((percent - 1.0).abs() < 0.1, "{far} ahead: {percent} %");
        }
    }

    #[test]
    fn forged_counters_that_were_believed_are_found_out_by_the_true_ones() {
        for far in [5_000, 1 << 20, 1 << 40, (1 << 63) - 10_001] {
            let burst = |counter: u64| (0..100).map(|it| counter + far + it).collect();
            let percent = amid_forged(|counter| if counter == 3 { burst(3) } else { vec![] });
            assert!((percent - 1.0).abs() < 0.1, "{far} ahead: {percent} %");
        }
    }

    #[test]
    fn a_first_counter_that_was_forged_is_found_out() {
        let mut meter = LossMeter::default();
        meter.on_datagram((1 << 63) - 1);
        (1..=1_000).filter(|counter| counter % 10 != 0).for_each(|it| meter.on_datagram(it));
        let (network, _) = meter.report().unwrap();
        assert!((6_400..6_600).contains(&network), "{network}");
        assert!((meter.overall() - 0.1).abs() < 0.01, "{}", meter.overall());
    }

    #[test]
    fn a_long_gap_is_loss_as_soon_as_it_is_confirmed() {
        let mut meter = LossMeter::default();
        (1..=1_000).chain(3_001..=3_007).for_each(|counter| meter.on_datagram(counter));
        assert_eq!(meter.report(), Some((0, 0)));
        meter.on_datagram(3_008);
        assert_eq!(meter.report(), Some((43_574, 0)), "2000 of 3008");
        meter.on_datagrams(4_009, u64::MAX);
        assert_eq!(meter.report(), Some((48_282, 0)), "3000 of 4072");
    }

    #[test]
    fn after_a_restart_it_says_what_it_said_until_it_has_counted_enough() {
        let mut meter = LossMeter::default();
        (1..=1000).filter(|counter| counter % 10 != 9).for_each(|it| meter.on_datagram(it));
        let before = meter.report();
        assert_eq!(before, Some((6553, 0)), "a tenth");
        meter.restart();
        assert_eq!(meter.report(), before);
        (1001..1300).for_each(|it| meter.on_datagram(it));
        assert_eq!(meter.report(), before, "299 datagrams");
        meter.on_datagram(1300);
        assert_eq!(meter.report(), Some((0, 0)), "and the past is forgotten");
    }
}
