//! Whether the sender's own machine or link takes what the schedule wants.

/// What the last control periods showed.
#[derive(Debug, Default)]
pub(super) struct Strain {
    /// The rate became what was taken: the queues that the one before filled have to empty first.
    was_certain: bool,
    /// Less was taken than was wanted.
    was_there: bool,
}

/// How sure it is that they are the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Strained {
    /// A thread that was not scheduled for a moment looks alike in the short periods of the start.
    Perhaps,
    Certainly,
}

impl Strain {
    /// At the end of a control period: `held_back` is the share of the schedule that they did not
    /// take in it, if that can be told. `None` if they are not the limit.
    pub(super) fn judge(&mut self, held_back: Option<f64>, is_starting: bool) -> Option<Strained> {
        let held_back = held_back?;
        let is_there = held_back > HELD_BACK_MAX && !std::mem::take(&mut self.was_certain);
        let was_there = std::mem::replace(&mut self.was_there, is_there);
        self.was_certain = is_there && (was_there || !is_starting);
        let certain = if self.was_certain { Strained::Certainly } else { Strained::Perhaps };
        is_there.then_some(certain)
    }
}

/// A machine that does not take this share of the schedule is the limit.
const HELD_BACK_MAX: f64 = 0.03;
