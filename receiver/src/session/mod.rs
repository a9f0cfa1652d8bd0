//! What the receiver decides: which session to join, which symbols to keep, what to ask for and
//! when, and when it is done. It knows no socket, file, thread, clock or payload octet.
//!
//! ```text
//!  Listening ─► Joining ─► Member: Indexing ─► Receiving ─► Flushing ─► Parting ─► Finished
//!      ▲           │          │ sender silent, END, ABORT        failure ──┘
//!      └───refused─┘          └──► any session of the same image: Joining, verified blocks kept
//! ```
//!
//! `offers` and `joining` find and enter a session; `ledger` keeps the books of both streams, to
//! which `blocks` and `runs` bring what arrives, and `resuming` what was there or got lost; `plan`
//! remembers what the sender plans and `asking` decides what to ask for and when; `contact` watches
//! whether group and sender are heard; `flushing` has it all on disk, and `parting` takes leave.
//! Where the sender hears nothing, `one_way` takes the place of joining, asking and parting.

mod asking;
mod blocks;
mod contact;
mod flushing;
mod joining;
mod lag;
mod ledger;
mod loss;
mod needs;
mod offers;
mod one_way;
mod parting;
mod plan;
mod resuming;
mod runs;
mod symbol_set;
mod types;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    bits::BitSet,
    id::Stream,
    prng::Prng,
    wire::{Header, Message, SenderState, UNICAST},
};

pub use blocks::Checked;
pub use one_way::{Lack, LackEnd};
pub use types::{
    Event, Failure, Notice, Offer, Outcome, SessionConfig, Stage, Status, Symbols, Transmit,
    Verdict, Via, Wanted,
};

use asking::Asking;
use contact::Contact;
use flushing::Flush;
use joining::{Joining, Membership};
use lag::Lag;
use ledger::Ledger;
use loss::LossMeter;
use offers::Offers;
use one_way::OneWay;
use parting::{Parting, Unfit};
use plan::PlanView;

/// The state machine of one receiver.
///
/// `handle_*` methods take in what happened, `poll_*` methods give out what to do, the rest are
/// questions. *Drain before you feed*: after each `handle_*` call `poll_transmit` and `poll_event`
/// until they return `None`, then wait until `poll_timeout` at most and call `handle_timeout`.
/// After a run of `handle_symbol` one round of draining is enough. `now` never runs backwards.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    phase: Phase,
    offers: Offers,
    offer: Option<Offer>,
    member: Option<Membership>,
    /// Where the sender hears nothing.
    one_way: Option<OneWay>,
    image: Option<Ledger>,
    index: Option<Ledger>,
    index_known: bool,
    index_failures: u8,
    plans: [PlanView; 2],
    /// Verified blocks that are not written, or made zero, yet.
    writing: BitSet,
    /// Zero blocks: they take no memory while they wait.
    zero: BitSet,
    writing_zero: u32,
    asking: Asking,
    contact: Contact,
    loss: LossMeter,
    lag: Lag,
    prng: Prng,
    drain_kilobytes: u32,
    /// What this host gets through of what arrives, in kB/s, while that is less.
    behind_kilobytes: Option<u32>,
    /// Symbols of the image that came, wanted or not.
    symbols_received: u64,
    /// Those of them that were lacking.
    symbols_kept: u64,
    flush: Flush,
    /// Why it cannot take part, until it has been let in to say so.
    unfit: Option<Unfit>,
    progress_at: Instant,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

#[derive(Debug)]
enum Phase {
    Listening,
    /// The driver is joining the data group.
    Opening,
    Joining(Joining),
    /// Indexing, receiving, or without a sender.
    Member,
    Flushing,
    Parting(Box<Parting>),
    Finished,
}

impl Session {
    /// A session that listens for offers. `seed` is the origin of all its random draws.
    #[must_use]
    pub fn new(config: SessionConfig, seed: u64, now: Instant) -> Self {
        Self {
            offers: Offers::new(now),
            phase: Phase::Listening,
            offer: None,
            member: None,
            one_way: None,
            image: None,
            index: None,
            index_known: false,
            index_failures: 0,
            plans: [PlanView::default(), PlanView::default()],
            writing: BitSet::new(0),
            zero: BitSet::new(0),
            writing_zero: 0,
            asking: Asking::new(now),
            contact: Contact::new(now),
            loss: LossMeter::default(),
            lag: Lag::default(),
            prng: Prng::new(seed),
            drain_kilobytes: 0,
            behind_kilobytes: None,
            symbols_received: 0,
            symbols_kept: 0,
            flush: Flush::default(),
            unfit: None,
            progress_at: now,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            config,
        }
    }

    /// A datagram other than DATA came; DATA is for [`handle_symbol`](Self::handle_symbol).
    pub fn handle_message(
        &mut self,
        now: Instant,
        via: Via,
        from: SocketAddr,
        header: &Header,
        message: &Message<'_>,
    ) {
        if let Message::Announce(announce) = message {
            self.on_announce(now, Offer::new(header.session, from.ip(), announce));
        } else if self.offer.as_ref().is_some_and(|offer| offer.session == header.session) {
            self.note_contact(now, via, header.counter);
            match message {
                Message::Welcome(welcome) => self.on_welcome(now, welcome),
                Message::Refuse(refuse) => self.on_refuse(now, *refuse),
                Message::Sync(sync) => self.on_sync(now, via, header, sync),
                Message::DoneAck(ack) => self.on_done_ack(ack),
                Message::Eject(eject) => self.on_eject(*eject),
                Message::End(end) => {
                    self.on_over(now, &end.text);
                    self.one_way.iter_mut().for_each(OneWay::on_end);
                }
                Message::Abort(abort) => self.on_abort(now, abort),
                _ => {}
            }
        }
        self.settle(now);
    }

    /// The data group has been joined.
    pub fn handle_joined(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Opening) {
            self.contact.on_group_joined(now);
            if self.is_one_way() {
                self.begin_listening(now);
            } else {
                self.begin_joining(now);
            }
        }
        self.settle(now);
    }

    /// The driver cannot go on: tells the sender why, for which it joins if it has not yet, then
    /// finishes with [`Failure::Driver`].
    pub fn handle_failure(&mut self, now: Instant, error_code: u16, text: &str) {
        let is_joining = matches!(self.phase, Phase::Opening | Phase::Joining(_));
        if is_joining && !self.is_one_way() && !self.has_everything() {
            self.join_to_tell(now, error_code, text);
        } else {
            self.part(now, Err((Failure::Driver, error_code, text.to_owned())));
        }
        self.settle(now);
    }

    /// Somebody stops us: tells the sender, then finishes with [`Failure::Interrupted`].
    pub fn handle_stop(&mut self, now: Instant) {
        self.leave(now, Failure::Interrupted);
        self.settle(now);
    }

    /// So many datagrams have been dropped by our own sockets since the start.
    pub const fn handle_overflow(&mut self, datagrams_total: u64) {
        self.loss.on_overflow(datagrams_total);
    }

    /// What the target takes, in kB/s.
    pub fn handle_drain(&mut self, now: Instant, kilobytes_per_second: u32) {
        self.drain_kilobytes = kilobytes_per_second;
        self.report_shortage(now);
    }

    /// How long the group's datagrams wait before they are worked off, compared with the shortest
    /// time of the last seconds.
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.lag.waited()
    }

    /// More arrives than this host gets through, which is so many kB/s; `None`: it keeps up.
    pub fn handle_pace(&mut self, now: Instant, behind: Option<u32>) {
        self.behind_kilobytes = behind;
        if behind.is_some() {
            self.report_soon(now);
        }
    }

    /// A datagram of another version of the protocol was an ANNOUNCE.
    pub fn handle_other_version(&mut self, version: u8) {
        if self.offers.note_version(version) {
            self.events.push_back(Event::Notice(Notice::OtherVersion(version)));
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Listening => {
                self.refresh_when_due(now);
                self.choose_when_due(now);
            }
            Phase::Joining(_) => self.join_when_due(now),
            Phase::Member => {
                self.watch(now);
                if !self.is_one_way() {
                    self.ask_when_due(now);
                }
            }
            Phase::Flushing => {
                // Reading a large disk back takes longer than switches remember.
                self.refresh_when_due(now);
                self.report_when_due(now);
                self.look_for_another(now);
            }
            Phase::Parting(_) => {
                self.part_when_due(now);
                self.look_for_another(now);
            }
            Phase::Opening | Phase::Finished => {}
        }
        self.settle(now);
    }

    /// The next message to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to do or tell.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` wants to be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let look_at = self.look_for_another_at();
        match &self.phase {
            Phase::Listening => Some(self.offers.poll_timeout(&self.config)),
            Phase::Joining(joining) => Some(joining.poll_timeout()),
            Phase::Member if self.is_one_way() => Some(self.contact_timeout()),
            Phase::Member => Some(self.contact_timeout().min(self.asking_timeout())),
            Phase::Flushing => {
                let asking_at = self.member.map(|_| self.asking_timeout());
                [Some(self.refresh_at()), asking_at, look_at].into_iter().flatten().min()
            }
            Phase::Parting(parting) => {
                let look_at = look_at.filter(|_| parting.has_succeeded());
                [Some(parting.poll_timeout()), look_at].into_iter().flatten().min()
            }
            Phase::Opening | Phase::Finished => None,
        }
    }

    /// What to tell people.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let announce = self.offer.as_ref().map(|offer| &offer.announce);
        let verified = self.image.as_ref().map_or(0, |image| image.verified().count());
        Status {
            stage: self.stage(),
            verified_blocks: verified,
            claimed_blocks: self.image.as_ref().map_or(0, |image| image.claimed().count()),
            blocks: announce.map_or(0, |announce| announce.layout.blocks()),
            fetched_bytes: announce
                .map_or(0, |announce| self.symbols_kept * u64::from(announce.layout.symbol_size())),
            network_loss: self.asking.network_loss(),
            receivers: announce
                .map_or((0, 0), |offer| (offer.receivers_expected, offer.receivers_joined)),
            start_in_ms: announce.map(|offer| offer.start_in_ms).filter(|ms| *ms != u32::MAX),
            pass: announce
                .filter(|announce| announce.one_way)
                .map(|announce| (announce.receivers_joined, announce.receivers_expected)),
            no_multicast: self.contact.no_multicast(),
            silence: self.contact.silence(now),
            offers: self.offers.len(),
            is_ending: self.offers.is_ending(),
        }
    }

    fn stage(&self) -> Stage {
        match &self.phase {
            Phase::Listening | Phase::Opening => Stage::Listening,
            Phase::Joining(_) => Stage::Joining,
            Phase::Member if self.contact.is_orphaned() => Stage::Orphaned,
            Phase::Member if self.contact.state() == SenderState::Gathering => Stage::Waiting,
            Phase::Member if !self.index_known => Stage::Indexing,
            Phase::Member => Stage::Receiving,
            Phase::Flushing => Stage::Flushing,
            Phase::Parting(_) | Phase::Finished => Stage::Parting,
        }
    }

    fn send(&mut self, stream: Stream, message: Message<'static>, octets_min: usize) {
        let Some(offer) = &self.offer else { return };
        let (to, session) = (offer.sender, offer.session);
        self.transmits.push_back(Transmit { to, session, stream, message, octets_min });
    }

    /// Brings everything in line after an input.
    fn settle(&mut self, now: Instant) {
        // Whoever was not let in before the session was over may have heard everything yet.
        let takes_part = match self.phase {
            Phase::Member => true,
            Phase::Joining(_) => self.contact.is_over(),
            _ => false,
        };
        if takes_part && self.has_everything() {
            self.begin_flush(now);
        }
        self.end_lacking(now);
        self.end_without_image(now);
    }

    /// Fails for a reason that the sender is told.
    fn fail(&mut self, now: Instant, failure: Failure) {
        let (code, text) = parting::last_words(&failure);
        self.part(now, Err((failure, code, text)));
    }

    fn finish(&mut self, outcome: Outcome) {
        self.phase = Phase::Finished;
        self.events.push_back(Event::Finished(outcome));
    }
}

/// Whether a counter is of the data group's sequence.
const fn is_group_counter(counter: u64) -> bool {
    counter & UNICAST == 0
}

/// A lower bound for waits that would otherwise make a busy loop.
const INSTANTLY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
