//! The receivers' last words, and the end of the session.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    id::ReceiverId,
    wire::{Abort, AbortReason, Done, DoneAck, End, Leave, Message, RefuseReason, SenderState},
};

use super::{Destination, Event, MemberState, Outcome, Session};

/// The end of a session, while it is being told.
#[derive(Debug, Default)]
pub(super) struct Closing {
    farewell: Option<Farewell>,
    /// Whose last words the group has not been told of yet.
    heard: Vec<ReceiverId>,
    /// Whether anybody has lacked a block of the image.
    pub(super) is_wanted: bool,
}

#[derive(Debug)]
struct Farewell {
    message: Message<'static>,
    outcome: Outcome,
    told: u32,
    next_at: Instant,
    began_at: Instant,
    quiet_since: Instant,
    /// All are done: nobody can have missed anything but an acknowledgement.
    complete: bool,
}

impl Closing {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let farewell = self.farewell.as_ref()?;
        Some(farewell.next_at.min(farewell.ends_at()))
    }
}

impl Farewell {
    fn ends_at(&self) -> Instant {
        let longest = self.began_at + LINGER;
        match self.outcome {
            Outcome::Aborted(_) => self.began_at + ABORT_LINGER,
            _ if self.complete => (self.quiet_since + QUIET).min(longest),
            _ => longest,
        }
    }
}

impl Session {
    /// Whether it is over, and only says so to whoever listens.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.state == SenderState::Closing
    }

    pub(super) fn on_done(&mut self, now: Instant, from: SocketAddr, done: &Done) {
        let Some(member) = self.roster.member_mut(done.receiver) else {
            self.refuse(from, [0; 16], RefuseReason::Rejoin);
            return;
        };
        if member.address != from {
            return;
        }
        let open =
            matches!(member.state, MemberState::Active | MemberState::Lost | MemberState::Dropped);
        if open {
            let right = done.succeeded && done.image == self.config.image;
            member.done = Some(done.clone());
            if right {
                member.done_blocks = self.config.layout.blocks();
            }
            let state = if right { MemberState::Done } else { MemberState::Failed };
            self.roster.heard(now, done.receiver);
            self.finish_member(now, done.receiver, state);
        }
        self.note_feedback(now);
        self.acknowledge(done.receiver, from);
    }

    pub(super) fn on_leave(&mut self, now: Instant, from: SocketAddr, leave: Leave) {
        let Some(member) = self.roster.member(leave.receiver) else { return };
        if member.address != from {
            return;
        }
        if matches!(member.state, MemberState::Active | MemberState::Lost) {
            self.roster.heard(now, leave.receiver);
            self.finish_member(now, leave.receiver, MemberState::Left);
        }
        self.note_feedback(now);
        self.acknowledge(leave.receiver, from);
    }

    pub(super) fn finish_member(&mut self, now: Instant, id: ReceiverId, state: MemberState) {
        self.roster.set_state(id, state);
        if let Some(member) = self.roster.member_mut(id) {
            member.finished_at = Some(now);
        }
        self.events.push_back(Event::Changed(id));
        self.note_listeners();
        if self.slowness.detached() > 0 {
            self.review_slowness(now);
        }
    }

    /// To the receiver itself at once, and to the group with the next SYNC: the one or the other
    /// may not hear it, and thousands end within a second or two.
    pub(super) fn acknowledge(&mut self, id: ReceiverId, address: SocketAddr) {
        if let Some(ack) = DoneAck::of(&[id]) {
            self.send(Destination::Unicast(address), Message::DoneAck(ack));
        }
        self.closing.heard.push(id);
        if self.state == SenderState::Closing || self.closing.heard.len() >= ACKNOWLEDGED_MAX {
            self.acknowledge_to_group();
        }
    }

    /// Tells the group of all whose last words have come.
    pub(super) fn acknowledge_to_group(&mut self) {
        let mut heard = std::mem::take(&mut self.closing.heard);
        while let Some(ack) = DoneAck::of(&heard) {
            heard.retain(|id| !ack.includes(*id));
            self.send(Destination::Group, Message::DoneAck(ack));
        }
    }

    /// Whoever still speaks when the session is over is told so; returns whether it is.
    pub(super) fn tell_that_it_is_over(&mut self, to: SocketAddr) -> bool {
        let Some(farewell) = &self.closing.farewell else { return false };
        let message = farewell.message.clone();
        self.send(Destination::Unicast(to), message);
        true
    }

    fn note_feedback(&mut self, now: Instant) {
        if let Some(farewell) = &mut self.closing.farewell {
            farewell.quiet_since = now;
        }
    }

    /// Ends the session when nobody takes part any more.
    pub(super) fn check_end(&mut self, now: Instant) {
        if !self.is_running() {
            return;
        }
        if self.is_one_way() {
            return self.end_when_sent(now);
        }
        if self.roster.active_count() > 0 || self.may_be_wanted(now) {
            return;
        }
        let (expected, done) = (self.expected(), self.roster.done_count());
        let complete = done == expected;
        let text = format!("{done} of {expected} receivers have the image");
        let farewell = Message::End(End { complete, text });
        let nobody_lost = self.roster.count(MemberState::Lost) == 0;
        self.say_farewell(now, farewell, Outcome::Ended { expected, done }, nobody_lost);
    }

    /// Whether others may be on their way, though all who came so far had the image: where a sender
    /// is started again whoever has everything only tells it so, sooner than others join it anew.
    fn may_be_wanted(&self, now: Instant) -> bool {
        !self.closing.is_wanted
            && self.first_join_at.is_some_and(|first| now < first + UNWANTED_MIN)
    }

    pub(super) fn abort(&mut self, now: Instant, reason: AbortReason, text: &str) {
        let farewell = Message::Abort(Abort { reason, text: text.to_owned() });
        self.say_farewell(now, farewell, Outcome::Aborted(reason), false);
    }

    pub(super) fn say_farewell(
        &mut self,
        now: Instant,
        message: Message<'static>,
        outcome: Outcome,
        complete: bool,
    ) {
        self.acknowledge_to_group();
        self.state = SenderState::Closing;
        self.closing.farewell = Some(Farewell {
            message,
            outcome,
            told: 0,
            next_at: now,
            began_at: now,
            quiet_since: now,
            complete,
        });
        self.linger(now);
    }

    /// Repeats the farewell: five times in close order, then once a second.
    pub(super) fn linger(&mut self, now: Instant) {
        let grtt = self.clock.grtt();
        let (expected, done) = (self.expected(), self.roster.done_count());
        let Some(farewell) = &mut self.closing.farewell else { return };
        if now >= farewell.ends_at() {
            // Whoever was lost may have said meanwhile that it is done.
            let outcome = match &farewell.outcome {
                Outcome::Ended { .. } => Outcome::Ended { expected, done },
                other => other.clone(),
            };
            self.events.push_back(Event::Finished(outcome));
            farewell.began_at = now;
            farewell.quiet_since = now;
            return;
        }
        if now < farewell.next_at {
            return;
        }
        farewell.told += 1;
        let close = (2 * grtt).min(FAREWELL_INTERVAL);
        farewell.next_at =
            now + if farewell.told < FAREWELLS_CLOSE { close } else { FAREWELL_INTERVAL };
        let message = farewell.message.clone();
        let deaf = self.roster.active().filter(|member| member.no_multicast);
        let addresses: Vec<_> = deaf.map(|member| member.address).collect();
        for address in addresses {
            self.send(Destination::Unicast(address), message.clone());
        }
        self.send(Destination::Group, message);
    }
}

/// A session that nobody has needed anything of does not end sooner: in a crowd of a thousand JOINs
/// are spread over 2 s, and who lost an announcement hears the next.
const UNWANTED_MIN: Duration = Duration::from_secs(3);
/// As many as say DONE within a SYNC's time, and a list that a forger cannot make long.
const ACKNOWLEDGED_MAX: usize = 256;
/// Receivers that did not hear the end yet ask within so long.
const LINGER: Duration = Duration::from_secs(10);
/// When all are done, only lost acknowledgements can be asked for, and soon are.
const QUIET: Duration = Duration::from_secs(1);
/// Somebody waits at the keyboard.
const ABORT_LINGER: Duration = Duration::from_millis(300);
/// So many in close order …
const FAREWELLS_CLOSE: u32 = 5;
/// … and then one in so long.
const FAREWELL_INTERVAL: Duration = Duration::from_secs(1);
