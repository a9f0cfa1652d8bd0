//! Announcing, admitting receivers, and when to start.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    id::{ReceiverId, SessionId},
    wire::{
        Announce, Eject, EjectReason, Header, Join, Message, QUESTION_OCTETS, Refuse, RefuseReason,
        SenderState, Welcome, padded_len,
    },
};

use super::{
    Destination, Event, MemberState, Outcome, Passes, Session,
    roster::{Admission, NEEDS_BURST, NEEDS_PER_SECOND},
};

impl Session {
    pub(super) fn announce_when_due(&mut self, now: Instant) {
        if now < self.announce_at {
            return;
        }
        self.announce_at = now + ANNOUNCE_INTERVAL;
        let padded = self.announces.is_multiple_of(ANNOUNCES_PER_PADDED);
        self.announces = self.announces.wrapping_add(1);
        let octets_min = if padded { padded_len(self.config.layout.symbol_size()) } else { 0 };
        let announce = Message::Announce(self.announce(now));
        self.send_of(
            Destination::Rendezvous,
            imgcast_common::id::Stream::Image,
            announce,
            octets_min,
        );
    }

    fn announce(&self, now: Instant) -> Announce {
        let config = &self.config;
        let start_in_ms = match (self.state, self.deadlines()[0]) {
            (SenderState::Gathering, Some(at)) => {
                let left = at.saturating_duration_since(now).as_millis();
                u32::try_from(left).unwrap_or(u32::MAX)
            }
            (SenderState::Gathering, None) => u32::MAX,
            _ => 0,
        };
        let numbers = (self.expected(), self.roster.joined_count());
        let passes = self.passes.as_ref().map(Passes::standing);
        let (receivers_expected, receivers_joined) =
            passes.map_or(numbers, |(begun, all)| (all.into(), begun.into()));
        Announce {
            image: config.image,
            index_hash: config.index_hash,
            layout: config.layout,
            data_group: config.data_group,
            unicast_port: config.unicast_port,
            one_way: self.is_one_way(),
            sector_size: config.sector_size,
            state: self.state,
            start_in_ms,
            receivers_expected,
            receivers_joined,
            salt: self.salt,
            signer: [0; 32],
            signature: [0; 64],
            name: config.name.clone(),
        }
    }

    pub(super) fn on_join(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: &Header,
        join: &Join,
        datagram_octets: usize,
    ) {
        if header.session == SessionId::NONE {
            self.answer_question(now, from, datagram_octets);
            return;
        }
        if header.session != self.config.session || self.is_one_way() {
            return;
        }
        if join.mtu && self.roster.is_busy_for(from) {
            // What kept its JOINs from being answered is no MTU.
        } else if join.mtu {
            self.refuse(from, join.nonce, RefuseReason::Mtu);
        } else if datagram_octets < padded_len(self.config.layout.symbol_size()) {
            // Its WELCOME would be larger than the JOIN: nobody is to be flooded that way.
        } else if self.state == SenderState::Closing {
            self.refuse(from, join.nonce, RefuseReason::Ending);
        } else {
            self.admit(now, from, join);
        }
    }

    /// Whoever asks for ANNOUNCEs by unicast gets one, if it is not larger than the question.
    fn answer_question(&mut self, now: Instant, from: SocketAddr, datagram_octets: usize) {
        let announce = self.announce(now);
        if datagram_octets >= QUESTION_OCTETS {
            self.send(Destination::Unicast(from), Message::Announce(announce));
        }
    }

    fn admit(&mut self, now: Instant, from: SocketAddr, join: &Join) {
        match self.roster.admit(now, from, join) {
            Admission::New { id, replaced } => {
                self.welcome(from, join, id);
                if let Some(old) = replaced {
                    self.eject(old);
                    self.events.push_back(Event::Changed(old));
                }
                if !join.unfit {
                    self.take_in(now, join, id);
                }
            }
            Admission::Known(id) => {
                let same = self.roster.member(id).is_some_and(|member| member.address == from);
                if same {
                    self.welcome(from, join, id);
                }
            }
            Admission::Full => self.refuse(from, join.nonce, RefuseReason::Full),
            Admission::Busy => {}
        }
    }

    /// One more takes part.
    fn take_in(&mut self, now: Instant, join: &Join, id: ReceiverId) {
        self.first_join_at = self.first_join_at.or(Some(now));
        self.index.owe_all();
        if join.have {
            self.image.expect_needs();
        } else {
            self.image.owe_all();
            self.closing.is_wanted = true;
        }
        self.has_listeners = true;
        self.events.push_back(Event::Joined(id));
        self.sync_soon();
        if self.state == SenderState::Gathering {
            self.gather(now);
        }
    }

    fn welcome(&mut self, to: SocketAddr, join: &Join, receiver: ReceiverId) {
        let silence = SILENCE_MIN.max(Duration::from_secs(u64::from(self.expected()) / 500));
        let welcome = Welcome {
            nonce: join.nonce,
            receiver,
            state: self.state,
            needs_per_second: NEEDS_PER_SECOND,
            needs_burst: NEEDS_BURST,
            silence_ms: u32::try_from(silence.as_millis()).unwrap_or(u32::MAX),
            handshake: Vec::new(),
        };
        let octets_min = padded_len(self.config.layout.symbol_size());
        self.send_of(
            Destination::Unicast(to),
            imgcast_common::id::Stream::Image,
            Message::Welcome(welcome),
            octets_min,
        );
    }

    pub(super) fn refuse(&mut self, to: SocketAddr, nonce: [u8; 16], reason: RefuseReason) {
        let refuse = Refuse { nonce, reason, mtu: self.config.mtu };
        self.send(Destination::Unicast(to), Message::Refuse(refuse));
    }

    /// Tells a receiver that another run of it has taken its place, or that it is too slow.
    pub(super) fn eject(&mut self, receiver: ReceiverId) {
        let Some(member) = self.roster.member(receiver) else { return };
        let reason = match member.state {
            MemberState::Dropped => EjectReason::Slow,
            _ => EjectReason::Replaced,
        };
        let eject = Eject { receiver, reason };
        self.send(Destination::Unicast(member.address), Message::Eject(eject));
    }

    /// When sending begins at the latest, and when the wait for the first receiver ends.
    pub(super) fn deadlines(&self) -> [Option<Instant>; 2] {
        if self.state != SenderState::Gathering {
            return [None, None];
        }
        let enough = self.roster.joined_count() >= self.config.receivers_min;
        let wait = if enough { Some(self.config.wait_min) } else { self.config.wait_max };
        match self.first_join_at {
            Some(first) => {
                let wait = wait.map(|wait| wait.min(self.config.wait_max.unwrap_or(wait)));
                [wait.map(|wait| first + wait), None]
            }
            None => [None, self.config.start_timeout.map(|timeout| self.began_at + timeout)],
        }
    }

    /// Starts, or gives up, when the time has come.
    pub(super) fn gather(&mut self, now: Instant) {
        let [starts_at, gives_up_at] = self.deadlines();
        if gives_up_at.is_some_and(|at| now >= at) {
            self.events.push_back(Event::Finished(Outcome::NoReceivers));
        } else if self.roster.joined_count() == 0 && !self.is_one_way() {
            // They left again, or are lost: the next one to join counts as the first.
            if self.first_join_at.take().is_some() {
                self.began_at = now;
            }
        } else if starts_at.is_some_and(|at| now >= at) {
            self.start(now);
        }
        if !self.is_one_way() {
            self.poll_while_gathering(now);
        }
    }

    /// The operator waits for nobody else: starts with those who have joined. Returns whether it
    /// did; with nobody there the wait goes on, unless nobody can answer.
    pub fn handle_start(&mut self, now: Instant) -> bool {
        let ready = self.is_one_way() || self.roster.joined_count() > 0;
        let starts = self.state == SenderState::Gathering && ready;
        if starts {
            self.start(now);
            self.settle(now);
        }
        starts
    }

    fn start(&mut self, now: Instant) {
        self.state = SenderState::Sending;
        self.governor.on_start(now);
        self.review_slowness(now);
        self.events.push_back(Event::Started);
        self.announce_at = now;
        self.sync_soon();
    }
}

/// A receiver that has just started hears every offer within its first 300 ms.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(250);
/// Every two seconds an ANNOUNCE is as long as a DATA datagram and shows whether those fit.
const ANNOUNCES_PER_PADDED: u32 = 8;
/// A receiver that has been silent for so long says that it is there; longer in large groups, so
/// that they all together say so at most 500 times a second.
const SILENCE_MIN: Duration = Duration::from_secs(10);
