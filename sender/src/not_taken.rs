//! How long it is borne that the network takes nothing.

use std::time::{Duration, Instant};

/// Since when the network takes nothing for a group.
#[derive(Debug, Default)]
pub(crate) struct NotTaken(Option<Since>);

#[derive(Debug)]
struct Since {
    at: Instant,
    /// How much had been taken by then.
    accepted: usize,
    is_told: bool,
}

/// What to make of it that something was not taken once more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Patience {
    /// It may pass.
    Lasts,
    /// People are to be told, once.
    IsTried,
    /// It has lasted too long.
    IsOver,
}

impl NotTaken {
    /// Something was not taken, after so much that was.
    pub(crate) fn note(&mut self, now: Instant, accepted: usize) -> Patience {
        match &mut self.0 {
            Some(since) if since.accepted == accepted => {
                if now >= since.at + NOT_TAKEN_MAX {
                    return Patience::IsOver;
                }
                let tells = now >= since.at + NOT_TAKEN_TOLD && !since.is_told;
                since.is_told |= tells;
                if tells { Patience::IsTried } else { Patience::Lasts }
            }
            since => {
                *since = Some(Since { at: now, accepted, is_told: false });
                Patience::Lasts
            }
        }
    }
}

/// A hiccup is not worth a word.
const NOT_TAKEN_TOLD: Duration = Duration::from_secs(1);
/// A cable that is plugged in again by then has done no harm.
const NOT_TAKEN_MAX: Duration = Duration::from_secs(10);
