//! The sender's clock as receivers echo it, and the group's round trip time (RFC 5401 section
//! 3.7.1): a peak counts at once, and is halved per interval without one.

use std::time::{Duration, Instant};

use imgcast_common::timing::{GRTT_MAX, GRTT_MIN, GRTT_START, RTT_SAMPLE_MAX};

/// Turns echoes into times and round trips.
#[derive(Debug)]
pub(super) struct Clock {
    epoch: Instant,
    grtt: Duration,
    peak: Duration,
    decay_at: Instant,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self { epoch: now, grtt: GRTT_START, peak: Duration::ZERO, decay_at: now + INTERVAL }
    }

    /// What SYNC carries: never 0, which stands for "no SYNC heard".
    pub(super) fn micros(&self, now: Instant) -> u64 {
        let micros = now.saturating_duration_since(self.epoch).as_micros() + 1;
        u64::try_from(micros).unwrap_or(u64::MAX)
    }

    /// When a receiver that echoes `echo` and held it for `hold` was in the state that it
    /// describes; measures the round trip on the way. Without an echo: one GRTT ago.
    pub(super) fn described_at(&mut self, now: Instant, echo: u64, hold: u32) -> Instant {
        let before = now.checked_sub(self.grtt).unwrap_or(now).max(self.epoch);
        let Some(since_epoch) = echo.checked_sub(1) else { return before };
        let hold = Duration::from_micros(u64::from(hold));
        let Some(described) = self.epoch.checked_add(Duration::from_micros(since_epoch) + hold)
        else {
            return before;
        };
        let Some(sample) = now.checked_duration_since(described) else { return before };
        if sample.is_zero() || sample > RTT_SAMPLE_MAX {
            return before;
        }
        self.peak = self.peak.max(sample);
        self.grtt = self.grtt.max(sample).clamp(GRTT_MIN, GRTT_MAX);
        described
    }

    /// Lets an old peak fade.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if now < self.decay_at {
            return;
        }
        if !self.peak.is_zero() {
            self.grtt = self.peak.max(self.grtt / 2).clamp(GRTT_MIN, GRTT_MAX);
        }
        self.peak = Duration::ZERO;
        self.decay_at = now + INTERVAL;
    }

    pub(super) const fn poll_timeout(&self) -> Instant {
        self.decay_at
    }

    pub(super) const fn grtt(&self) -> Duration {
        self.grtt
    }
}

/// Dozens of answers to polls fall into each interval, so that what was measured while the rate was
/// still far too high does not make the whole transfer wait.
const INTERVAL: Duration = Duration::from_millis(500);
