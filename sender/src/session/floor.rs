//! What a receiver says of how it keeps up, and what the way to it loses at any rate.

use std::time::{Duration, Instant};

/// What a receiver says of how it keeps up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    /// Share of the group's datagrams that the network lost.
    pub(super) network_loss: f64,
    /// Share that its own socket dropped.
    pub(super) socket_loss: f64,
    /// What it gets through in a second, in octets on the wire, if it has no room to keep the rest.
    pub(super) limit: Option<u64>,
}

/// The lowest loss of one receiver, by as much higher as it may have been by chance, in this
/// quarter of a minute and the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    this: f64,
    last: f64,
    since: Instant,
}

impl Floor {
    pub(super) const fn new(now: Instant) -> Self {
        Self { this: 1.0, last: 1.0, since: now }
    }

    /// Takes in a loss; returns the lowest.
    pub(super) fn lower(&mut self, now: Instant, loss: f64) -> f64 {
        if now >= self.since + FLOOR_MEMORY / 2 {
            *self = Self { this: 1.0, last: self.this, since: now };
        }
        self.this = self.this.min(loss);
        self.this.min(self.last)
    }
}

/// A medium's own loss changes slowly.
const FLOOR_MEMORY: Duration = Duration::from_secs(30);
