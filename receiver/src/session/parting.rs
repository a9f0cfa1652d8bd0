//! Taking leave of the sender: DONE or LEAVE until it is acknowledged.

use std::time::{Duration, Instant};

use imgcast_common::{
    id::{ImageId, Stream},
    wire::{Done, DoneAck, Eject, Leave, LeaveReason, Message},
};

use super::{Failure, Flush, Ledger, Outcome, Phase, Session};

/// A last word that is not acknowledged yet.
#[derive(Debug)]
pub(super) struct Parting {
    message: Message<'static>,
    /// What it comes to with an acknowledgement …
    heard: Outcome,
    /// … and without one.
    unheard: Outcome,
    next_at: Instant,
    wait: Duration,
    until: Instant,
}

impl Parting {
    pub(super) fn poll_timeout(&self) -> Instant {
        self.next_at.min(self.until)
    }

    /// Whether it is that the image is there.
    pub(super) const fn has_succeeded(&self) -> bool {
        matches!(self.unheard, Outcome::Done { .. })
    }
}

/// Why a receiver cannot take part in the session that it is joining.
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) error_code: u16,
    pub(super) text: String,
    /// When it goes unheard.
    pub(super) until: Instant,
}

/// The exit code and the words that the sender is told of a failure.
pub(super) fn last_words(failure: &Failure) -> (u16, String) {
    match failure {
        Failure::Stalled => (6, "no block was completed for too long".into()),
        Failure::Block(block) => (9, format!("{block} kept arriving with a wrong hash")),
        Failure::Index => (9, "the index kept arriving with a wrong hash".into()),
        other => (1, format!("{other:?}")),
    }
}

impl Session {
    /// Tells the sender how it ended: the image's hash and the octets written, or why it failed.
    pub(super) fn part(
        &mut self,
        now: Instant,
        result: Result<(ImageId, u64), (Failure, u16, String)>,
    ) {
        let (done, failure) = match result {
            Ok((image, bytes_written)) => ((true, image, bytes_written, 0, String::new()), None),
            Err((failure, code, text)) => ((false, ImageId([0; 32]), 0, code, text), Some(failure)),
        };
        let (succeeded, image, bytes_written, error_code, text) = done;
        let heard = failure.clone().map_or(Outcome::Done { acknowledged: true }, Outcome::Failed);
        let unheard = failure.map_or(Outcome::Done { acknowledged: false }, Outcome::Failed);
        let Some(member) = self.member.filter(|_| !matches!(self.phase, Phase::Finished)) else {
            self.finish_once(unheard);
            return;
        };
        let seconds = now.saturating_duration_since(member.joined_at).as_secs();
        let message = Message::Done(Done {
            receiver: member.receiver,
            succeeded,
            image,
            bytes_written,
            seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
            refetched_blocks: self.image.as_ref().map_or(0, Ledger::refetched),
            error_code,
            text,
        });
        // Of a crowd that finishes at once not all speak at once.
        let group = f64::from(1u32 << self.asking.group_log2().min(14));
        let spread = Duration::from_secs_f64(group / DONES_PER_SECOND * self.prng.unit());
        let spread =
            if succeeded && self.asking.group_log2() > 0 { spread } else { Duration::ZERO };
        let patience = if succeeded { DONE_PATIENCE } else { FAILURE_PATIENCE };
        let (next_at, until) = (now + spread, now + spread + patience);
        self.phase = Phase::Parting(Box::new(Parting {
            message,
            heard,
            unheard,
            next_at,
            wait: DONE_RETRY_MIN.max(2 * self.asking.grtt()),
            until,
        }));
        self.part_when_due(now);
    }

    /// Asks to be let in, in order to say why it cannot take part: only a member is heard.
    pub(super) fn join_to_tell(&mut self, now: Instant, error_code: u16, text: &str) {
        if !matches!(self.phase, Phase::Joining(_)) {
            self.begin_joining(now);
        }
        let Phase::Joining(joining) = &self.phase else { return };
        let until = joining.poll_timeout().max(now) + FAILURE_PATIENCE;
        self.unfit.get_or_insert(Unfit { error_code, text: text.to_owned(), until });
    }

    /// Goes before it has the image.
    pub(super) fn leave(&mut self, now: Instant, failure: Failure) {
        if matches!(self.flush, Flush::Done(..)) {
            // The copy stands, though nobody has been told.
            return self.finish_once(Outcome::Done { acknowledged: false });
        }
        let outcome = Outcome::Failed(failure.clone());
        let Some(member) = self.member else { return self.finish_once(outcome) };
        if matches!(self.phase, Phase::Parting(_)) {
            return self.part_unheard();
        }
        let reason = match failure {
            Failure::Interrupted => LeaveReason::Interrupted,
            _ => LeaveReason::TimedOut,
        };
        let message = Message::Leave(Leave { receiver: member.receiver, reason });
        self.phase = Phase::Parting(Box::new(Parting {
            message,
            heard: outcome.clone(),
            unheard: outcome,
            next_at: now,
            wait: LEAVE_RETRY,
            until: now + LEAVE_PATIENCE,
        }));
        self.part_when_due(now);
    }

    pub(super) fn part_when_due(&mut self, now: Instant) {
        let Phase::Parting(parting) = &mut self.phase else { return };
        if now >= parting.until {
            self.part_unheard();
        } else if now >= parting.next_at {
            parting.next_at = now + parting.wait;
            parting.wait = (parting.wait * 3 / 2).min(DONE_RETRY_MAX);
            let message = parting.message.clone();
            self.send(Stream::Image, message, 0);
        }
    }

    /// Nobody will acknowledge any more.
    pub(super) fn part_unheard(&mut self) {
        if let Phase::Parting(parting) = &self.phase {
            let outcome = parting.unheard.clone();
            self.finish_once(outcome);
        }
    }

    pub(super) fn on_done_ack(&mut self, ack: &DoneAck) {
        let ours = self.member.is_some_and(|member| ack.includes(member.receiver));
        if let Phase::Parting(parting) = &self.phase
            && ours
        {
            let outcome = parting.heard.clone();
            self.finish_once(outcome);
        }
    }

    pub(super) fn on_eject(&mut self, eject: Eject) {
        let ours = self.member.is_some_and(|member| member.receiver == eject.receiver);
        if ours && matches!(self.phase, Phase::Member | Phase::Flushing) {
            self.finish_once(Outcome::Failed(Failure::Ejected(eject.reason)));
        }
    }

    fn finish_once(&mut self, outcome: Outcome) {
        if !matches!(self.phase, Phase::Finished) {
            self.finish(outcome);
        }
    }
}

/// A sender takes in several times as many.
const DONES_PER_SECOND: f64 = 5_000.0;
/// Or two round trips, half as long again with every try …
const DONE_RETRY_MIN: Duration = Duration::from_millis(50);
/// … up to this.
const DONE_RETRY_MAX: Duration = Duration::from_secs(5);
/// The copy stands, whether the sender hears of it or not.
pub(super) const DONE_PATIENCE: Duration = Duration::from_secs(60);
/// A failure is worth a few tries, but the operator of the node waits for the prompt.
const FAILURE_PATIENCE: Duration = Duration::from_secs(2);
/// Somebody waits at the keyboard.
const LEAVE_RETRY: Duration = Duration::from_millis(100);
/// Four tries.
const LEAVE_PATIENCE: Duration = Duration::from_millis(800);
