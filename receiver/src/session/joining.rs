//! Asking to be let in.

use std::time::{Duration, Instant};

use imgcast_common::{
    id::{ReceiverId, Stream},
    wire::{Join, Message, Refuse, RefuseReason, Welcome, padded_len},
};

use super::{Event, Failure, INSTANTLY, Notice, Outcome, Phase, Session};

/// A JOIN that is not answered yet.
#[derive(Debug)]
pub(super) struct Joining {
    nonce: [u8; 16],
    tries: usize,
    mtu_refusals: u8,
    next_at: Instant,
}

/// What WELCOME gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    pub(super) receiver: ReceiverId,
    pub(super) joined_at: Instant,
    pub(super) silence_max: Duration,
    pub(super) needs_per_second: f64,
    pub(super) needs_burst: f64,
}

impl Joining {
    pub(super) const fn poll_timeout(&self) -> Instant {
        self.next_at
    }
}

impl Session {
    /// Joins after a while that spreads a crowd of receivers over time.
    pub(super) fn begin_joining(&mut self, now: Instant) {
        let expected = self.offer.as_ref().map_or(0, |offer| offer.announce.receivers_expected);
        let spread = Duration::from_secs_f64(f64::from(expected) / JOINS_PER_SECOND);
        let spread = spread.clamp(JOIN_SPREAD_MIN, JOIN_SPREAD_MAX);
        let mut nonce = [0; 16];
        self.prng.fill(&mut nonce);
        let next_at = now + spread.mul_f64(self.prng.unit());
        self.phase = Phase::Joining(Joining { nonce, tries: 0, mtu_refusals: 0, next_at });
    }

    pub(super) fn join_when_due(&mut self, now: Instant) {
        if self.give_up_without_sender(now) {
            return;
        }
        let until = self.unfit.as_ref().map(|unfit| unfit.until);
        if until.is_some_and(|until| now >= until) {
            return self.finish(Outcome::Failed(Failure::Driver));
        }
        let expected = self.offer.as_ref().map_or(0, |offer| offer.announce.receivers_expected);
        let Phase::Joining(joining) = &mut self.phase else { return };
        if now < joining.next_at {
            return;
        }
        let next_at = now + retry_wait(expected, joining.tries);
        joining.next_at = until.map_or(next_at, |until| until.min(next_at));
        joining.tries += 1;
        // Whoever only says that it cannot take part is not to be told so.
        let mtu = self.unfit.is_none() && joining.tries > JOINS_BEFORE_MTU;
        let nonce = joining.nonce;
        let symbol_size = self.offer.as_ref().map_or(0, |o| o.announce.layout.symbol_size());
        let join = Join { nonce, ..self.join_message(false) };
        self.send(Stream::Image, Message::Join(join), padded_len(symbol_size));
        if mtu {
            let join = Join { nonce, ..self.join_message(true) };
            self.send(Stream::Image, Message::Join(join), 0);
        }
        self.look_again(now);
    }

    pub(super) fn join_message(&self, mtu: bool) -> Join {
        let verified = self.image.as_ref().map_or(0, |image| image.verified().count());
        Join {
            nonce: [0; 16],
            key: self.config.key,
            have: verified > 0 || self.config.resumes,
            mtu,
            unfit: self.unfit.is_some(),
            capabilities: 0,
            target_bytes: self.config.target_bytes.unwrap_or(u64::MAX),
            memory_blocks: u32::try_from(self.free_blocks()).unwrap_or(u32::MAX),
            host: self.config.host.clone(),
            handshake: Vec::new(),
        }
    }

    pub(super) fn on_welcome(&mut self, now: Instant, welcome: &Welcome) {
        let Phase::Joining(joining) = &self.phase else { return };
        if joining.nonce != welcome.nonce {
            return;
        }
        self.member = Some(Membership {
            receiver: welcome.receiver,
            joined_at: now,
            silence_max: Duration::from_millis(u64::from(welcome.silence_ms)).max(SILENCE_MIN),
            needs_per_second: f64::from(welcome.needs_per_second),
            needs_burst: f64::from(welcome.needs_burst),
        });
        if let Some(unfit) = self.unfit.take() {
            return self.part(now, Err((Failure::Driver, unfit.error_code, unfit.text)));
        }
        self.phase = Phase::Member;
        self.progress_at = now;
        self.contact.on_welcome(now, welcome.state);
        self.asking.begin_session(now, &mut self.prng, f64::from(welcome.needs_burst));
        self.events.push_back(Event::Notice(Notice::Joined));
    }

    pub(super) fn on_refuse(&mut self, now: Instant, refuse: Refuse) {
        if refuse.reason == RefuseReason::Rejoin {
            if matches!(self.phase, Phase::Member) && self.member.is_some() {
                self.member = None;
                self.begin_joining(now);
            }
            return;
        }
        let Phase::Joining(joining) = &self.phase else { return };
        if joining.nonce != refuse.nonce {
            return;
        }
        if self.unfit.is_some() {
            return self.finish(Outcome::Failed(Failure::Driver));
        }
        if self.has_everything() {
            // It was only to be told.
            return self.begin_flush(now);
        }
        let has_blocks = self.image.as_ref().is_some_and(|image| image.verified().count() > 0);
        match refuse.reason {
            RefuseReason::Mtu => {
                if let Phase::Joining(joining) = &mut self.phase {
                    joining.mtu_refusals += 1;
                    if joining.mtu_refusals < MTU_REFUSALS_MAX {
                        joining.next_at = joining.next_at.min(now + MTU_RETRY);
                        return;
                    }
                }
                let symbol_size =
                    self.offer.as_ref().map_or(0, |o| o.announce.layout.symbol_size());
                let failure = Failure::Mtu {
                    datagram_octets: padded_len(symbol_size),
                    sender_mtu: Some(refuse.mtu),
                };
                self.finish(Outcome::Failed(failure));
            }
            // With part of the image there it is worth waiting for another session.
            RefuseReason::Ending if has_blocks => {
                if let Phase::Joining(joining) = &mut self.phase {
                    joining.next_at = now + JOIN_RETRY_MAX.max(INSTANTLY);
                }
                self.on_over(now, "the session is ending");
            }
            reason => self.finish(Outcome::Failed(Failure::Refused(reason))),
        }
    }
}

/// How long to wait for an answer to JOIN number `tries`, counted from 0, among `expected`
/// receivers.
fn retry_wait(expected: u32, tries: usize) -> Duration {
    let first = Duration::from_secs_f64(f64::from(expected) / FIRST_JOIN_RETRIES_PER_SECOND);
    let first = first.clamp(JOIN_RETRY_FIRST_MIN, JOIN_RETRY_FIRST_MAX);
    let crowd = Duration::from_secs_f64(f64::from(expected) / JOIN_RETRIES_PER_SECOND);
    let longest = crowd.clamp(JOIN_RETRY_SMALL_MAX, JOIN_RETRY_MAX);
    let doublings = u32::try_from(tries).unwrap_or(u32::MAX);
    first.saturating_mul(2u32.saturating_pow(doublings)).min(longest)
}

/// A sender answers several times as many.
const JOINS_PER_SECOND: f64 = 500.0;
/// Enough to keep a few receivers that boot in lockstep apart.
const JOIN_SPREAD_MIN: Duration = Duration::from_millis(10);
/// Nobody should wonder for longer whether anything happens.
const JOIN_SPREAD_MAX: Duration = Duration::from_secs(2);
/// A few receivers need not wait long for an answer that was lost …
const JOIN_RETRY_FIRST_MIN: Duration = Duration::from_millis(100);
/// … and a crowd gives the sender time to answer, twice as long each time …
const JOIN_RETRY_FIRST_MAX: Duration = Duration::from_millis(500);
/// … but no longer than so.
const JOIN_RETRY_MAX: Duration = Duration::from_secs(8);
/// From a thousand receivers on the first wait is the longest.
const FIRST_JOIN_RETRIES_PER_SECOND: f64 = 2_000.0;
/// So many at most come of a crowd in the end.
const JOIN_RETRIES_PER_SECOND: f64 = 1_000.0;
/// Small groups need not wait longer than this.
const JOIN_RETRY_SMALL_MAX: Duration = Duration::from_secs(1);
/// By chance three are lost hardly ever; a path with a smaller MTU loses all.
const JOINS_BEFORE_MTU: usize = 3;
/// Where short JOINs are answered so often and long ones never, it is not chance: where half of all
/// is lost each way, a receiver of 300 hears of eight before its WELCOME.
const MTU_REFUSALS_MAX: u8 = 16;
/// Between two of these.
const MTU_RETRY: Duration = Duration::from_millis(100);
/// Reports more often than this say nothing new.
const SILENCE_MIN: Duration = Duration::from_secs(1);
