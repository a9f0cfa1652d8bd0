//! A link that everything on its way from senders to receivers passes, and shares.

use std::time::Duration;

use crate::{
    config::BackboneConfig,
    network::{FRAMING_OCTETS, time_for},
};

/// The link and what it has carried.
#[derive(Debug)]
pub(crate) struct Backbone {
    config: Option<BackboneConfig>,
    busy_until: Duration,
    /// Of each sender, for each [`CROSSED_DURING`] since the world began.
    pub(crate) crossed: Vec<Vec<Crossed>>,
}

/// What became of what one sender sent over a link in some time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Crossed {
    /// Octets on the wire that were carried.
    pub carried_octets: u64,
    /// Octets for which there was no room.
    pub dropped_octets: u64,
}

impl Backbone {
    pub(crate) const fn new(config: Option<BackboneConfig>) -> Self {
        Self { config, busy_until: Duration::ZERO, crossed: Vec::new() }
    }

    /// When a datagram that comes at `at` is through; `None` if there is no room for it.
    pub(crate) fn cross(&mut self, at: Duration, sender: usize, octets: usize) -> Option<Duration> {
        let Some(config) = self.config else { return Some(at) };
        if self.busy_until > at + config.queue {
            self.crossed(at, sender).dropped_octets += octets as u64 + FRAMING_OCTETS;
            return None;
        }
        self.crossed(at, sender).carried_octets += octets as u64 + FRAMING_OCTETS;
        self.busy_until = self.busy_until.max(at) + time_for(octets, config.bits_per_second);
        Some(self.busy_until)
    }

    fn crossed(&mut self, at: Duration, sender: usize) -> &mut Crossed {
        if self.crossed.len() <= sender {
            self.crossed.resize(sender + 1, Vec::new());
        }
        let of_sender = &mut self.crossed[sender];
        let during = usize::try_from(at.as_nanos() / CROSSED_DURING.as_nanos()).unwrap_or(0);
        if of_sender.len() <= during {
            of_sender.resize(during + 1, Crossed::default());
        }
        &mut of_sender[during]
    }
}

/// Half a control period.
pub const CROSSED_DURING: Duration = Duration::from_millis(100);
