//! Whether loss that slows the session again and again rises with the rate at all.
//!
//! A medium that loses in long bursts loses nothing in one report and a tenth in the next, and the
//! first would be the floor of the second: the rate would sink and sink. A full link is not full
//! any more at much less than what it carried. So when the rate has been cut further and further
//! below that, it is doubled up to what got through before, as at the start. If that goes well it
//! goes down once more: whoever else was on the link has made room by then. If as much is lost
//! still, that is none that a lower rate avoids, and for a while only its mean counts.

use std::time::{Duration, Instant};

use super::search::{part, time_of};

/// Looks for loss that does not rise with the rate.
#[derive(Debug)]
pub(super) struct Climb {
    /// How low the rate has to be, as a share of the most that got through.
    far: f64,
    /// The most that got through, and when.
    best: (u64, Instant),
    /// What got through when the rate was cut last.
    through: u64,
    /// Cuts, one after the other, of rates well below that, and how many of them it takes.
    unexplained: u32,
    unexplained_min: u32,
    phase: Phase,
    /// Where it is to go down to again, and until when it stays there at least.
    bottom: u64,
    bottom_until: Instant,
    /// The most that was lost on top.
    lost_on_top: f64,
    /// No sooner than this it is raised again …
    due_at: Instant,
    /// … and if that was a mistake so much later.
    wait: Duration,
    in_bursts_until: Instant,
}

/// What is being tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    None,
    Up,
    /// For so many periods.
    Top(u32),
    Bottom(u32),
}

impl Climb {
    pub(super) const fn new(now: Instant, searches: bool) -> Self {
        Self {
            far: if searches { FAR } else { FAR_IF_SET },
            best: (0, now),
            through: 0,
            unexplained: 0,
            unexplained_min: if searches { UNEXPLAINED_MIN } else { UNEXPLAINED_MIN_IF_SET },
            phase: Phase::None,
            bottom: 0,
            bottom_until: now,
            lost_on_top: 0.0,
            due_at: now,
            wait: if searches { WAIT_FIRST } else { WAIT_FIRST_IF_SET },
            in_bursts_until: now,
        }
    }

    /// The rate is too high for the network, and so much of it gets through. Returns whether to
    /// climb from `cut`, to which it is to be lowered.
    pub(super) fn on_cut(&mut self, now: Instant, rate: u64, through: u64, cut: u64) -> bool {
        let explained = rate > self.through - self.through / BELOW;
        self.through = through;
        self.unexplained = if explained { 0 } else { self.unexplained + 1 };
        if through > self.best.0 || now > self.best.1 + BEST_FOR {
            self.best = (through, now);
        }
        if self.is_running() {
            self.give_up(now);
            return false;
        }
        let is_far = cut < part(self.best.0, self.far);
        let begins = self.unexplained >= self.unexplained_min && is_far && now >= self.due_at;
        if begins {
            let bottom = cut.max(part(self.best.0, FAR));
            (self.phase, self.bottom, self.lost_on_top) = (Phase::Up, bottom, 0.0);
        }
        begins
    }

    /// Something else is the limit: it does not climb.
    pub(super) const fn stop(&mut self) -> bool {
        self.phase = Phase::None;
        false
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase != Phase::None
    }

    /// How far up it goes.
    pub(super) fn top(&self) -> u64 {
        if self.is_running() { self.best.0 } else { u64::MAX }
    }

    /// A period with the rate on top, or at the bottom again, went well, with so much loss; returns
    /// the rate for the next one, if it is not over.
    pub(super) fn on_period(&mut self, now: Instant, loss: f64) -> Option<u64> {
        match self.phase {
            Phase::None => return None,
            Phase::Up => self.phase = Phase::Top(0),
            Phase::Top(periods) => {
                self.lost_on_top = self.lost_on_top.max(loss);
                self.phase = Phase::Top(periods + 1);
                if periods + 1 >= PERIODS_ON_TOP {
                    self.phase = Phase::Bottom(0);
                    let long_enough = time_of(DATAGRAMS_AT_BOTTOM, self.bottom);
                    self.bottom_until = now + long_enough.min(BOTTOM_MAX);
                }
            }
            Phase::Bottom(_) if loss > LOSS_MIN.max(self.lost_on_top / 4.0) => {
                self.stop();
                self.in_bursts_until = now + IN_BURSTS_FOR;
                return Some(self.best.0);
            }
            Phase::Bottom(periods)
                if periods + 1 < PERIODS_AT_BOTTOM || now < self.bottom_until =>
            {
                self.phase = Phase::Bottom(periods + 1);
            }
            Phase::Bottom(_) => {
                self.give_up(now);
                return None;
            }
        }
        Some(if matches!(self.phase, Phase::Bottom(_)) { self.bottom } else { self.best.0 })
    }

    fn give_up(&mut self, now: Instant) {
        self.stop();
        self.due_at = now + self.wait;
        self.wait *= 2;
    }

    /// Whether losses come in bursts, whatever the rate.
    pub(super) fn is_in_bursts(&self, now: Instant) -> bool {
        now < self.in_bursts_until
    }
}

/// A link that is full by its own means carries no less than this part less than last time.
const BELOW: u64 = 20;
/// Whoever comes to a link may cause two such cuts; a TCP flow causes several, but leaves some …
const UNEXPLAINED_MIN: u32 = 3;
/// … and one where somebody set the rate, which is not searched for at twice what the link takes.
const UNEXPLAINED_MIN_IF_SET: u32 = 2;
/// Others leave more than this, however they share. What is lost of so much behind a climb, for
/// which they have made room, is lost at any rate …
const FAR: f64 = 1.0 / 4.0;
/// … and where somebody set the rate and cuts are small.
const FAR_IF_SET: f64 = 0.7;
/// What got through longer ago says nothing about the network any more. Bursts of loss take more
/// than ten seconds to slow a session so far.
const BEST_FOR: Duration = Duration::from_secs(60);
/// Two times 200 ms: no queue of a switch takes in more than half a second of what is too much.
const PERIODS_ON_TOP: u32 = 2;
/// The queue is empty then.
const PERIODS_AT_BOTTOM: u32 = 3;
/// Fewer may by chance meet none of the bursts that lose a hundredth.
const DATAGRAMS_AT_BOTTOM: u64 = 3_000;
/// A slow link cannot wait for them.
const BOTTOM_MAX: Duration = Duration::from_secs(5);
/// Less loss at the bottom is some TCP flow's doing.
const LOSS_MIN: f64 = 0.004;
/// Others on a full link feel it.
const WAIT_FIRST: Duration = Duration::from_secs(10);
/// Nobody is to be spared so much whom somebody has left no room on purpose.
const WAIT_FIRST_IF_SET: Duration = Duration::from_secs(1);
/// As long as a floor counts.
const IN_BURSTS_FOR: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn who_sinks_although_ever_less_is_sent_climbs_back_and_counts_bursts_no_more() {
        let now = start();
        let mut climb = sunk(now);
        assert_eq!(climb.top(), BEST);
        for rate in [BEST, BEST, BEST / 4] {
            assert_eq!(climb.on_period(now, 0.05), Some(rate));
        }
        let later = now + time_of(DATAGRAMS_AT_BOTTOM - 1, BEST / 4);
        for _ in 0..9 {
            assert_eq!(climb.on_period(later, 0.0), Some(BEST / 4), "it may be chance");
        }
        assert_eq!(climb.on_period(now, 0.06), Some(BEST), "whatever the rate");
        assert!(climb.is_in_bursts(now) && !climb.is_in_bursts(now + IN_BURSTS_FOR));
        assert_eq!((climb.top(), climb.on_period(now, 0.05)), (u64::MAX, None));
    }

    #[test]
    fn who_yielded_to_a_climb_is_no_medium_that_loses() {
        let now = start();
        let mut climb = sunk(now);
        let later = now + time_of(DATAGRAMS_AT_BOTTOM, BEST / 4);
        let losses =
            [(now, 0.0), (now, 0.1), (now, 0.05), (later, 0.01), (later, 0.0), (later, 0.0)];
        let rates = losses.map(|(at, loss)| climb.on_period(at, loss));
        let (top, bottom) = (Some(BEST), Some(BEST / 4));
        assert_eq!(rates, [top, top, bottom, bottom, bottom, None]);
        assert!(!climb.is_in_bursts(now) && !climb.is_running());
    }

    /// One whose rate was cut without its link being full, and so far that it climbs.
    fn sunk(now: Instant) -> Climb {
        let mut climb = Climb::new(now, true);
        assert!(!climb.on_cut(now, BEST + BEST / 10, BEST, BEST / 10 * 7));
        for rate in [BEST / 10 * 7, BEST / 2] {
            let cut = climb.on_cut(now, rate, rate / 10 * 9, rate / 10 * 7);
            assert!(!cut, "twice may be whoever came");
        }
        assert!(climb.on_cut(now, BEST / 6, BEST / 7, BEST / 8));
        climb
    }

    const BEST: u64 = 928_000_000;

    #[test]
    fn a_climb_into_a_full_link_is_not_tried_again_soon() {
        let now = start();
        let mut climb = Climb::new(now, true);
        let mut sink = |now| {
            climb.on_cut(now, 1_000, 930, 650);
            climb.on_cut(now, 650, 600, 480);
            climb.on_cut(now, 480, 450, 360);
            climb.on_cut(now, 150, 140, 110)
        };
        assert!(sink(now));
        assert!(!sink(now), "the first of these ends it");
        assert!(!sink(now + WAIT_FIRST / 2));
        assert!(sink(now + 2 * WAIT_FIRST));
    }

    #[test]
    fn a_full_link_that_carries_a_little_less_each_time_is_no_medium_that_loses() {
        let now = start();
        let mut climb = Climb::new(now, true);
        for rate in [1_000, 950, 900, 850, 800, 750, 700, 650, 600, 550, 500, 450, 400, 360] {
            assert!(!climb.on_cut(now, rate, rate - 40, rate / 9), "{rate}");
        }
    }
}
