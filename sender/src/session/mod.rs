//! What the sender decides: who takes part, which symbol leaves when and for whom, how fast, and
//! when it is over. It knows no socket, file, thread, clock or payload octet.
//!
//! ```text
//!  Gathering ──start──► Sending ⇄ Idle ──all done, lost or left──► Closing ──► Finished
//!      └───────────────────┴─────────stopped, image gone─────────────┘
//! ```
//!
//! `budgets` says how much of what arrives is looked at. JOINs are answered in `gathering`, NEEDs
//! merged in `needs` into what `carousel` (for the group) and `unicast` (for one) owe; `sending`
//! turns that into bursts at the pace of `pacer`, whose rate `governor` sets by what is lost above
//! each receiver's `floor`, with `search`, `probe` and `climb`; `slowness` sees to it that the
//! others do not wait for whoever is far slower; `syncs` tells the group what is planned;
//! `closing` takes the receivers' last words and ends the session. Where nobody can answer,
//! `passes` takes the place of needs, governor and polls.

mod budgets;
mod carousel;
mod climb;
mod clock;
mod closing;
mod floor;
mod gathering;
mod governor;
mod half_open;
mod lacked;
mod needs;
mod pacer;
mod passes;
mod probe;
mod reach;
mod repair;
mod roster;
mod samples;
mod search;
mod sending;
mod slowness;
mod strain;
mod syncs;
mod types;
mod unicast;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    bits::BitSet,
    id::{ReceiverId, Stream},
    prng::Prng,
    wire::{AbortReason, Header, Message, SenderState},
};

pub use half_open::{HALF_OPEN_MAX, HALF_OPEN_OF_HOST_MAX};
pub use pacer::BURST_SYMBOLS_MAX;
pub use passes::OneWay;
pub use roster::{MEMBERS_MAX, Member, MemberState};
pub use sending::Burst;
pub use types::{
    Destination, Event, Outcome, SessionConfig, Slow, SlowReceivers, Status, Transmit, TurnId,
};

use budgets::Budgets;
use carousel::Carousel;
use clock::Clock;
use closing::Closing;
use governor::Governor;
use pacer::Pacer;
use passes::Passes;
use repair::RepairController;
use roster::Roster;
use sending::Turns;
use slowness::Slowness;
use syncs::SyncTimer;
use unicast::Unicast;

/// The state machine of one session.
///
/// `handle_*` methods take in what happened, `poll_*` methods give out what to do, the rest are
/// questions. *Drain before you feed*: after each `handle_*` call `poll_transmit` and `poll_event`
/// until they return `None`, then wait until `poll_timeout` at most and call `handle_timeout`.
/// `now` never runs backwards.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    state: SenderState,
    roster: Roster,
    image: Carousel,
    index: Carousel,
    unicast: Unicast,
    turns: Turns,
    repair: RepairController,
    /// Where nobody can answer.
    passes: Option<Passes>,
    pacer: Pacer,
    governor: Governor,
    slowness: Slowness,
    clock: Clock,
    syncs: SyncTimer,
    closing: Closing,
    prng: Prng,
    salt: [u8; 16],
    began_at: Instant,
    first_join_at: Option<Instant>,
    announce_at: Instant,
    announces: u32,
    housekeeping_at: Instant,
    budgets: Budgets,
    /// Symbols that went to the group so far.
    group_datagrams: u64,
    /// Whether an active member hears the group.
    has_listeners: bool,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Session {
    /// A session that gathers receivers. `seed` is the origin of all its random draws.
    #[must_use]
    pub fn new(config: SessionConfig, seed: u64, now: Instant) -> Self {
        let mut prng = Prng::new(seed);
        let mut salt = [0; 16];
        prng.fill(&mut salt);
        let repair_offset = u32::try_from(prng.below(1 << 23)).unwrap_or(0);
        let mut sendable = BitSet::full(config.layout.blocks());
        config.zero_blocks.iter().for_each(|block| {
            sendable.remove(block);
        });
        let index_layout = config.layout.of_index();
        let index_blocks = BitSet::full(index_layout.blocks());
        let rate_start = config.rate_start.unwrap_or(search::rate_start(config.rate_max));
        let governor = Governor::new(rate_start, config.rate_max, now);
        Self {
            state: SenderState::Gathering,
            roster: Roster::default(),
            image: Carousel::new(Stream::Image, config.layout, sendable, repair_offset),
            index: Carousel::new(Stream::Index, index_layout, index_blocks, repair_offset),
            unicast: Unicast::default(),
            turns: Turns::default(),
            repair: RepairController::new(config.layout.source_symbols(0)),
            passes: config.one_way.map(Passes::new),
            pacer: Pacer::new(governor.rate(), now),
            governor,
            slowness: Slowness::default(),
            clock: Clock::new(now),
            syncs: SyncTimer::new(now),
            closing: Closing::default(),
            prng,
            salt,
            began_at: now,
            // Nobody is waited for but those who start up just now.
            first_join_at: config.one_way.map(|_| now),
            announce_at: now,
            announces: 0,
            housekeeping_at: now + HOUSEKEEPING,
            budgets: Budgets::new(now),
            group_datagrams: 0,
            has_listeners: config.one_way.is_some(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            config,
        }
    }

    /// A datagram came from `from`.
    pub fn handle_message(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: &Header,
        message: &Message<'_>,
        datagram_octets: usize,
    ) {
        if self.has_time_for(now, from, header, message) {
            match message {
                Message::Join(join) => self.on_join(now, from, header, join, datagram_octets),
                Message::Need(need) => self.on_need(now, from, header, need),
                Message::Done(done) => self.on_done(now, from, done),
                Message::Leave(leave) => self.on_leave(now, from, *leave),
                _ => {}
            }
        }
        self.settle(now);
    }

    /// The block and the repair symbols of a turn are at hand.
    pub fn handle_turn_ready(&mut self, turn: TurnId) {
        self.turns.set_ready(turn);
    }

    /// What was handed out has not left yet, and no more may be handed out now.
    pub fn handle_backlog(&mut self) {
        if self.has_ready_turn() {
            self.pacer.hold_back();
        }
    }

    /// Ends the session before its time and tells everybody why.
    pub fn handle_stop(&mut self, now: Instant, reason: AbortReason, text: &str) {
        if self.state != SenderState::Closing {
            self.abort(now, reason, text);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock.handle_timeout(now);
        self.announce_when_due(now);
        match self.state {
            SenderState::Gathering => self.gather(now),
            SenderState::Sending | SenderState::Idle if self.is_one_way() => {}
            SenderState::Sending | SenderState::Idle => self.govern(now),
            SenderState::Closing => self.linger(now),
        }
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING;
            self.keep_house(now);
        }
        self.settle(now);
    }

    /// The next thing to send, if its time has come.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.sync_when_due(now);
        self.transmits.pop_front().or_else(|| self.next_burst(now).map(Transmit::Burst))
    }

    /// The next thing to do or tell.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` and `poll_transmit` want to be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let mut at = self.announce_at.min(self.housekeeping_at).min(self.clock.poll_timeout());
        if self.state != SenderState::Closing {
            at = at.min(self.sync_at());
        }
        match self.state {
            SenderState::Gathering => {
                at = self.deadlines().into_iter().flatten().fold(at, Instant::min);
            }
            SenderState::Sending | SenderState::Idle => {
                at = at.min(match &self.passes {
                    Some(passes) => passes.poll_timeout().unwrap_or(at),
                    None => self.governor.poll_timeout(),
                });
                if self.has_ready_turn() {
                    at = at.min(self.pacer.ready_at());
                }
            }
            SenderState::Closing => at = self.closing.poll_timeout().map_or(at, |end| at.min(end)),
        }
        at
    }

    /// Members, for the final table.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.roster.members()
    }

    /// One member.
    #[must_use]
    pub fn member(&self, id: ReceiverId) -> Option<&Member> {
        self.roster.member(id)
    }

    /// Whether it waits for receivers and has not begun to send.
    #[must_use]
    pub fn is_gathering(&self) -> bool {
        self.state == SenderState::Gathering
    }

    /// The rate that is paced, in bits per second on the wire.
    #[must_use]
    pub const fn rate(&self) -> u64 {
        self.pacer.rate()
    }

    /// What to tell people.
    #[must_use]
    pub fn status(&self) -> Status {
        let blocks = f64::from(self.config.layout.blocks());
        let (mut progress, mut counted, mut without_multicast) = (0.0, 0.0, 0);
        for member in self.roster.members() {
            let share = match member.state {
                MemberState::Active => f64::from(member.done_blocks) / blocks,
                MemberState::Done => 1.0,
                _ => continue,
            };
            without_multicast += u32::from(member.no_multicast);
            progress += share;
            counted += 1.0;
        }
        let [starts_at, gives_up_at] = self.deadlines();
        let (active, done) = (self.roster.active_count(), self.roster.done_count());
        Status {
            state: self.state,
            active,
            done,
            gone: self.roster.welcomed() - active - done,
            expected: self.expected(),
            without_multicast,
            detached: self.slowness.detached(),
            progress: match &self.passes {
                Some(passes) => self.progress_one_way(passes),
                None if counted > 0.0 => progress / counted,
                None => 0.0,
            },
            rate: self.pacer.rate(),
            loss: self.governor.loss(),
            repair_share: f64::from(self.repair_share()) / 65_536.0,
            pass: self.passes.as_ref().map(Passes::standing),
            starts_at,
            gives_up_at,
        }
    }

    /// Whether the session has begun and is not over.
    const fn is_running(&self) -> bool {
        matches!(self.state, SenderState::Sending | SenderState::Idle)
    }

    /// r in 65,536ths of S.
    fn repair_share(&self) -> u16 {
        self.passes.as_ref().map_or_else(|| self.repair.share(), Passes::share)
    }

    /// Receivers that the operator waits for.
    fn expected(&self) -> u32 {
        self.config.receivers_min.max(self.roster.welcomed())
    }

    fn carousel(&mut self, stream: Stream) -> &mut Carousel {
        match stream {
            Stream::Image => &mut self.image,
            Stream::Index => &mut self.index,
        }
    }

    fn send(&mut self, to: Destination, message: Message<'static>) {
        self.send_of(to, Stream::Image, message, 0);
    }

    fn send_of(
        &mut self,
        to: Destination,
        stream: Stream,
        message: Message<'static>,
        octets_min: usize,
    ) {
        let message = Box::new(message);
        self.transmits.push_back(Transmit::Message { to, stream, message, octets_min });
    }

    /// Brings everything in line after an input.
    fn settle(&mut self, now: Instant) {
        self.go_round(now);
        self.fill_turns(now);
        self.note_idleness();
        self.check_end(now);
    }

    fn keep_house(&mut self, now: Instant) {
        self.image.tidy(now);
        self.index.tidy(now);
        let roster = &self.roster;
        let takes_part =
            |id| roster.member(id).is_some_and(|member| member.state == MemberState::Active);
        self.unicast.retain(now, takes_part);
        for id in self.roster.newly_lost(now) {
            self.events.push_back(Event::Changed(id));
            self.note_listeners();
        }
        self.review_slowness(now);
        let all_idle = self.state == SenderState::Idle;
        for id in self.roster.due_for_poll(now, all_idle) {
            self.poll_one(now, id);
        }
    }

    fn note_listeners(&mut self) {
        self.has_listeners = self.is_one_way() || self.roster.listeners().next().is_some();
    }
}

/// Slow clean-up; lost receivers are noticed to within so long.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

#[cfg(test)]
pub(crate) mod tests;
