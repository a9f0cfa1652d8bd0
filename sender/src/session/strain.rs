//! Whether the sender's own machine or link takes what the schedule wants, and what it takes else.

use super::pacer::Uptake;

/// What the last control periods showed.
#[derive(Debug, Default)]
pub(super) struct Strain {
    /// The rate became what was taken: the queues that the one before filled have to empty first.
    was_certain: bool,
    /// Less was taken than was wanted.
    was_there: bool,
    /// The most that was taken lately, in bits per second, since it was less than wanted for the
    /// first time.
    most: Option<u64>,
}

/// How sure it is that they are the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Strained {
    /// A thread that was not scheduled for a moment looks alike in the short periods of the start.
    Perhaps,
    /// They take so many bits per second.
    Certainly(u64),
}

impl Strain {
    /// At the end of a control period: what was taken in it, if that can be told. `None` if they
    /// are not the limit.
    pub(super) fn judge(&mut self, uptake: Option<Uptake>, is_starting: bool) -> Option<Strained> {
        let Uptake { given_up, rate } = uptake?;
        self.most = self.most.map(|most| followed(most, rate));
        let is_there = given_up > HELD_BACK_MAX && !std::mem::take(&mut self.was_certain);
        let was_there = std::mem::replace(&mut self.was_there, is_there);
        self.was_certain = is_there && (was_there || !is_starting);
        if !self.was_certain {
            return is_there.then_some(Strained::Perhaps);
        }
        Some(Strained::Certainly(*self.most.get_or_insert(rate)))
    }
}

/// What is taken at most, if it was `most` and now so much: others may have kept the machine busy
/// for a moment, but half of it is another link.
const fn followed(most: u64, taken: u64) -> u64 {
    let remembered = most - most / FORGETTING;
    if taken >= remembered || taken < most / 2 { taken } else { remembered }
}

/// A machine that does not take this share of the schedule is the limit.
const HELD_BACK_MAX: f64 = 0.03;
/// Of the most that was taken so much is forgotten with each control period.
const FORGETTING: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_taken_to_be_as_fast_as_it_was_just_now_unless_it_is_far_slower() {
        let mut strain = Strain::default();
        let mut judge = |given_up, rate| strain.judge(Some(Uptake { given_up, rate }), false);
        assert_eq!(judge(0.0, 900), None);
        assert_eq!(judge(0.2, 640), Some(Strained::Certainly(640)), "what was before says nothing");
        assert_eq!(judge(0.0, 640), None);
        assert_eq!(judge(0.2, 400), Some(Strained::Certainly(620)), "less a 32nd");
        assert_eq!(judge(0.0, 601), None);
        assert_eq!(judge(0.6, 250), Some(Strained::Certainly(250)));
        assert_eq!(judge(0.0, 300), None);
        assert_eq!(judge(0.1, 310), Some(Strained::Certainly(310)));
        assert_eq!(strain.judge(None, false), None);
    }
}
