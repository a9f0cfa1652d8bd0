//! What was lost on the way from the group: by the network, and by the receiver's own sockets.

use super::bits;

/// Counts datagrams against the gaps in the group's counter, over the last few thousand.
#[derive(Debug, Default)]
pub(super) struct LossMeter {
    begun: bool,
    newest: u64,
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

impl LossMeter {
    /// A datagram of the group arrived.
    pub(super) fn on_datagram(&mut self, counter: u64) {
        if !self.begun || counter > self.newest.saturating_add(JUMP_MAX) {
            self.begun = true;
            self.newest = counter - 1;
            (self.first, self.received) = (counter, 0);
            self.restart();
        }
        self.newest = self.newest.max(counter);
        self.received += 1;
        if counter > self.base {
            self.this.received += 1;
        }
    }

    /// Datagrams of the group arrived: `first + i` for every bit `i` of `arrived`.
    pub(super) fn on_datagrams(&mut self, first: u64, arrived: u64) {
        let last = first + u64::from(arrived.checked_ilog2().unwrap_or(0));
        if self.begun && first > self.base && last <= self.newest.saturating_add(JUMP_MAX) {
            self.newest = self.newest.max(last);
            self.received += u64::from(arrived.count_ones());
            self.this.received += u64::from(arrived.count_ones());
        } else {
            bits(arrived).for_each(|bit| self.on_datagram(first + u64::from(bit)));
        }
    }

    /// The highest counter so far.
    pub(super) const fn newest(&self) -> u64 {
        self.newest
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

/// A longer gap is no loss but another beginning, or a forged counter.
const JUMP_MAX: u64 = 1 << 24;
/// As many as a sender wants a report to speak of.
const COUNTED_MIN: u64 = 300;
/// So many show a loss of half a percent, and pass within a fifth of a second at 200 Mbit/s.
const PERIOD_DATAGRAMS: u64 = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

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
