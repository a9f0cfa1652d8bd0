//! When the rate is lowered for a moment, to see what is lost without congestion.

use std::time::{Duration, Instant};

use super::search::part;

/// Every ten seconds of loss the floor is measured anew, at half the rate; sooner at first, while
/// it may never have been seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// When the last one ended.
    since: Instant,
    /// How long after that the next is due, if much is lost.
    interval: Duration,
    runs: u32,
    running: Option<Running>,
}

/// What there was before the rate was lowered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) rate: u64,
    pub(super) loss: f64,
}

impl Probe {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, interval: INTERVAL_FIRST, runs: 0, running: None }
    }

    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether a link may be full if so much is lost, and nothing is known yet of what is lost
    /// below the rate.
    pub(super) fn is_suspect(&self, loss: f64) -> bool {
        loss > LOSS_SUSPECT && self.runs < RUNS_FIRST
    }

    /// Whether to lower the rate now that so much is lost. `searches`: it may be a full link's.
    pub(super) fn is_due(&self, now: Instant, loss: f64, searches: bool) -> bool {
        let wait = match loss {
            _ if self.running.is_some() || loss <= LOSS_MIN => return false,
            _ if self.is_suspect(loss) => Duration::ZERO,
            _ if loss > LOSS_SUSPECT || (loss > LOSS_MUCH && searches) => self.interval,
            _ => INTERVAL_MAX,
        };
        now >= self.since + wait
    }

    /// Returns the rate to go on with for a moment.
    pub(super) fn begin(&mut self, rate: u64, loss: f64) -> u64 {
        self.runs += 1;
        self.running = Some(Running { rate, loss });
        if loss > LOSS_SUSPECT {
            part(rate, (SHARE_SUSPECT * (1.0 - loss)).max(SHARE_MIN))
        } else {
            rate / 2
        }
    }

    /// Ends it if it runs; returns what there was before.
    pub(super) fn end(&mut self, now: Instant) -> Option<Running> {
        let before = self.running.take()?;
        self.since = now;
        self.interval = INTERVAL_MAX.min(2 * self.interval);
        Some(before)
    }
}

impl Running {
    /// Whether a lower rate that loses such a share is still far too high: a queue that was filling
    /// hid it before.
    pub(super) fn was_hidden(self, loss: f64) -> bool {
        loss > LOSS_SUSPECT.max(self.loss + LOSS_HIDDEN)
    }

    /// Whether a link was full if such a share is lost of that lower rate. A medium that just loses
    /// would bring as much less as was sent less.
    pub(super) fn was_full(self, rate: u64, loss: f64) -> bool {
        let brought = rate as f64 * (1.0 - loss);
        let share = brought / (self.rate as f64 * (1.0 - self.loss).max(SHARE_MIN));
        let less = SHARE_SUSPECT * rate as f64 / self.rate as f64;
        self.loss > LOSS_ABSURD || (self.loss > LOSS_SUSPECT && share * share > less)
    }
}

/// Twice at once: a queue that was filling may have hidden what was lost.
const RUNS_FIRST: u32 = 2;
/// Half the rate for a moment in so long costs less than one percent.
const INTERVAL_MAX: Duration = Duration::from_secs(10);
/// What filled a long queue was not lost, and makes a full link look like a medium that loses: it
/// is looked at again when the queue is full.
const INTERVAL_FIRST: Duration = Duration::from_millis(200);
/// Less loss than this needs no measurement of its floor.
const LOSS_MIN: f64 = 0.01;
/// More than this is worth a second look soon.
const LOSS_MUCH: f64 = 0.05;
/// Rather a link of 100 Mbit/s that gets 200 than a medium: measured at once …
pub(super) const LOSS_SUSPECT: f64 = 0.3;
/// (nobody uses a medium that loses so much) …
const LOSS_ABSURD: f64 = 0.8;
/// A medium does not lose so much more at a lower rate.
const LOSS_HIDDEN: f64 = 0.1;
/// … with less than what it brings, so that nothing is lost if it is so …
const SHARE_SUSPECT: f64 = 0.7;
/// … but with enough to tell.
const SHARE_MIN: f64 = 1.0 / 64.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_link_is_told_from_a_medium_that_loses_as_much() {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let now = Instant::now();
        for loss in [0.31, 0.5, 0.79] {
            let mut probe = Probe::new(now);
            assert!(probe.is_due(now, loss, false));
            let rate = probe.begin(1_000_000_000, loss);
            let link = 1_000_000_000.0 * (1.0 - loss);
            let lost = (1.0 - link / rate as f64).max(0.0);
            assert!(!probe.is_due(now, loss, false), "it is running");
            let before = probe.end(now).unwrap();
            assert!(before.was_full(rate, lost), "{loss}");
            assert!(!before.was_full(rate, loss), "{loss}");
            let rate = probe.begin(1_000_000_000, loss);
            assert!(probe.end(now).unwrap().was_full(rate, lost));
            assert!(!probe.is_due(now, loss, false), "it was done twice");
        }
    }

    #[test]
    fn less_loss_is_looked_at_soon_only_where_nobody_set_the_rate() {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let now = Instant::now();
        let probe = Probe::new(now);
        let soon = now + INTERVAL_FIRST;
        assert!(!probe.is_due(now, 0.1, true), "a queue may still be filling");
        assert!(probe.is_due(soon, 0.1, true));
        assert!(!probe.is_due(soon, 0.1, false));
        assert!(!probe.is_due(soon, 0.02, true));
        assert!(probe.is_due(now + INTERVAL_MAX, 0.02, false));
        assert!(!probe.is_due(now + INTERVAL_MAX, LOSS_MIN, true));
    }
}
