//! When the rate is halved for a moment, to see what is lost without congestion.

use std::time::{Duration, Instant};

/// Every ten seconds of loss the floor is measured anew, at half the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Probe {
    /// Not yet: so much loss from the start would be suspicious.
    First(Instant),
    Due(Instant),
    Running {
        back_to: u64,
        /// What was lost before, if so much is suspicious.
        suspect: Option<f64>,
    },
}

impl Probe {
    pub(super) const fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// Whether to halve the rate now that so much is lost.
    pub(super) fn is_due(self, now: Instant, loss: f64) -> bool {
        match self {
            Self::First(at) => loss > LOSS_SUSPECT || (loss > LOSS_MIN && now >= at),
            Self::Due(at) => loss > LOSS_MIN && now >= at,
            Self::Running { .. } => false,
        }
    }
}

/// Whether a link was full that lost the share `before`, and loses `after` at half the rate.
pub(super) fn link_was_full(before: f64, after: f64) -> bool {
    (1.0 - after) / 2.0 > (1.0 - before) * SUSPECT_PROVEN
}

/// Half the rate for a moment in so long costs less than one percent.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Less loss than this needs no measurement of its floor.
const LOSS_MIN: f64 = 0.01;
/// Rather a link of 100 Mbit/s that gets 200 than a medium: measured at once.
pub(super) const LOSS_SUSPECT: f64 = 0.3;
/// If half the rate brings more than this share of what all of it does, a link is full; a medium
/// that just loses would bring half.
const SUSPECT_PROVEN: f64 = 0.75;
