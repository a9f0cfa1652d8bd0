//! One way: nobody can answer, so all of the image is sent several times, each time with as many
//! fresh repair symbols as the operator thinks fit, and then it is over.
//!
//! The index goes before each pass, again and again on the way, so that whoever comes late can use
//! what it hears from then on, and once more at the end.

use std::time::{Duration, Instant};

use imgcast_common::{
    units::Counted,
    wire::{End, Message},
};

use super::{Outcome, Session};

/// How a session that nobody can answer is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OneWay {
    /// How often all of the image is sent. A block's turn count is the number of the pass.
    pub passes: u8,
    /// Repair symbols that go along each time, in percent of a block's source symbols.
    pub repair_percent: u8,
}

/// Where a one-way session stands.
#[derive(Debug)]
pub(super) struct Passes {
    plan: OneWay,
    /// Passes that have begun.
    begun: u8,
    /// When no more than so many blocks of this pass are left the index is due again.
    index_at_owed: u32,
    is_last_index_out: bool,
    /// When the last symbol has surely arrived.
    ends_at: Option<Instant>,
}

impl Passes {
    pub(super) const fn new(plan: OneWay) -> Self {
        Self { plan, begun: 0, index_at_owed: 0, is_last_index_out: false, ends_at: None }
    }

    /// Repair symbols that go with so many source symbols.
    pub(super) fn repairs_for(&self, source_symbols: u32) -> u32 {
        let repairs = (source_symbols * u32::from(self.plan.repair_percent)).div_ceil(100);
        if repairs > 0 { repairs.max(REPAIRS_MIN) } else { 0 }
    }

    /// r in 65,536ths of S.
    pub(super) fn share(&self) -> u16 {
        let share = u32::from(self.plan.repair_percent) * 65_536 / 100;
        u16::try_from(share).unwrap_or(u16::MAX)
    }

    /// The pass under way, from 1 once it has started, and how many there are.
    pub(super) const fn standing(&self) -> (u8, u8) {
        (self.begun, self.plan.passes)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ends_at
    }
}

impl Session {
    /// Whether receivers only listen.
    #[must_use]
    pub const fn is_one_way(&self) -> bool {
        self.passes.is_some()
    }

    /// Begins the next pass, or the index again, when their time has come.
    pub(super) fn go_round(&mut self, now: Instant) {
        let is_running = self.is_running();
        let Some(passes) = &mut self.passes else { return };
        if !is_running || passes.ends_at.is_some() {
            return;
        }
        let owed = self.image.owed();
        if self.turns.is_empty() && self.image.is_idle() && self.index.is_idle() {
            if passes.begun < passes.plan.passes {
                passes.begun += 1;
                self.image.owe_all();
                self.index.owe_all();
                passes.index_at_owed = self.image.owed().saturating_sub(index_every(&self.image));
            } else if passes.is_last_index_out {
                passes.ends_at = Some(now.max(self.pacer.last_at()) + ARRIVAL);
            } else {
                passes.is_last_index_out = true;
                self.index.owe_all();
            }
        } else if owed > 0 && owed <= passes.index_at_owed {
            passes.index_at_owed = owed.saturating_sub(index_every(&self.image));
            self.index.owe_all();
        }
    }

    /// Ends the session, which is running, when all passes have been sent.
    pub(super) fn end_when_sent(&mut self, now: Instant) {
        let Some(passes) = &self.passes else { return };
        if passes.ends_at.is_some_and(|at| now >= at) {
            let text = format!("all was sent, in {}", Counted::passes(passes.plan.passes));
            let farewell = Message::End(End { complete: true, text });
            // Whoever misses it waits in vain: it is repeated for as long as in any session.
            self.say_farewell(now, farewell, Outcome::Ended { expected: 0, done: 0 }, false);
        }
    }

    /// The share of all passes that has been taken up.
    pub(super) fn progress_one_way(&self, passes: &Passes) -> f64 {
        let blocks = f64::from(self.image.sendable().count().max(1));
        let left = f64::from(passes.plan.passes - passes.begun) * blocks;
        1.0 - (left + f64::from(self.image.owed())) / (f64::from(passes.plan.passes) * blocks)
    }
}

/// Blocks from one index to the next.
fn index_every(image: &super::Carousel) -> u32 {
    image.sendable().count().div_ceil(INDEXES_PER_PASS).max(INDEX_EVERY_MIN)
}

/// A block of few symbols is not to depend on each of them.
const REPAIRS_MIN: u32 = 4;
/// Late receivers lose at most a sixteenth of a pass, and an index is a 32,768th of an image …
const INDEXES_PER_PASS: u32 = 16;
/// … unless that is so small that it would cost more than a few percent.
const INDEX_EVERY_MIN: u32 = 32;
/// What overtakes on the longest way, over satellites, is half a second ahead.
const ARRIVAL: Duration = Duration::from_millis(500);
