//! What a receiver says of how it keeps up, and what the way to it loses at any rate.

use std::time::{Duration, Instant};

use super::search::time_of;

/// What a receiver says of how it keeps up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    /// Share of the group's datagrams that the network lost.
    pub(super) network_loss: f64,
    /// Share that its own socket dropped.
    pub(super) socket_loss: f64,
    /// What it gets through in a second, in octets on the wire, if it has no room to keep the rest.
    pub(super) limit: Option<u64>,
    /// It answers a poll.
    pub(super) was_asked: bool,
}

/// The lowest loss of one receiver, by as much higher as it may have been by chance, in this
/// quarter of a minute and the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    this: f64,
    last: f64,
    since: Instant,
    /// The mean of the last second or more, when it was taken, and whether it is what counts.
    mean: f64,
    mean_at: Option<Instant>,
    is_of_mean: bool,
    /// Datagrams that had been sent to the group before the receiver counted any.
    heard_from: u64,
}

impl Floor {
    pub(super) const fn new(now: Instant, heard_from: u64) -> Self {
        let (mean_at, is_of_mean) = (None, false);
        Self { this: 1.0, last: 1.0, since: now, mean: 0.0, mean_at, is_of_mean, heard_from }
    }

    pub(super) const fn heard_from(&self) -> u64 {
        self.heard_from
    }

    /// Loss above the floor that chance does not explain, in a report on so many datagrams, which
    /// went out at `rate`. Where loss is known to come in bursts a single report says little.
    pub(super) fn congestion(
        &mut self,
        now: Instant,
        keeping: Keeping,
        datagrams: u64,
        rate: u64,
        in_bursts: bool,
    ) -> f64 {
        let mean_over = time_of(MEAN_OF, rate).clamp(MEAN_OVER, MEAN_OVER_MAX);
        let mean = self.mean(now, keeping.network_loss, mean_over);
        if in_bursts != self.is_of_mean {
            *self = Self { this: 1.0, last: 1.0, since: now, is_of_mean: in_bursts, ..*self };
        }
        if in_bursts {
            return mean - BURSTS_EXPLAIN - self.lower(now, mean + keeping.socket_loss);
        }
        // A receiver that loses this much may by chance report so much more or less.
        let loss = keeping.network_loss;
        let datagrams = datagrams.min(DATAGRAMS_PER_REPORT) as f64;
        let chance = 3.0 * (loss.max(1.0 / datagrams) / datagrams).sqrt();
        // The network may have lost what is said to be dropped by the socket.
        loss - chance - self.lower(now, loss + chance + keeping.socket_loss)
    }

    /// Takes in a loss; returns the mean.
    fn mean(&mut self, now: Instant, loss: f64, over: Duration) -> f64 {
        let since = self.mean_at.replace(now).map(|at| now.saturating_duration_since(at));
        let share =
            since.map_or(1.0, |it| it.as_secs_f64() / (it.as_secs_f64() + over.as_secs_f64()));
        self.mean += share * (loss - self.mean);
        self.mean
    }

    /// Takes in a loss; returns the lowest.
    fn lower(&mut self, now: Instant, loss: f64) -> f64 {
        if now >= self.since + FLOOR_MEMORY / 2 {
            *self = Self { this: 1.0, last: self.this, since: now, ..*self };
        }
        self.this = self.this.min(loss);
        self.this.min(self.last)
    }
}

/// A medium's own loss changes slowly.
const FLOOR_MEMORY: Duration = Duration::from_secs(30);
/// Reports speak of the last few thousand datagrams, however long the rate has been the same.
const DATAGRAMS_PER_REPORT: u64 = 4_096;
/// Control periods are shorter, and what they report too little …
const MEAN_OVER: Duration = Duration::from_secs(1);
/// … as is what has met no dozen bursts at 5 % loss; but a floor is to be found meanwhile.
const MEAN_OF: u64 = 16_000;
const MEAN_OVER_MAX: Duration = Duration::from_secs(10);
/// By so much the highest of twenty such means is above the lowest.
const BURSTS_EXPLAIN: f64 = 0.1;
