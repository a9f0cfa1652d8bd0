//! Anything said to a sender's session, in any order, while time passes and turns get ready.
//!
//! A model of what surrounds the session keeps the driver's part of the contract, and checks what
//! comes out: valid messages of bounded length, symbols that exist, no more turns at once than are
//! promised, no answer to strangers that is longer than what they said, no success that nobody
//! reported, and an end of every wait.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    bits::BitSet,
    id::{EncodingSymbolId, ImageId, ReceiverId, SessionId, Stream},
    layout::Layout,
    wire::{AbortReason, BlockRange, Header, Join, Message, Name, Need, Role, UNICAST, padded_len},
};
use imgcast_sender::session::{
    Burst, Destination, Event, MEMBERS_MAX, OneWay, Outcome, Session, SessionConfig, SlowReceivers,
    Transmit, TurnId,
};

use super::input::{Input, beginning, host};

pub(super) fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let mut table = Table::new(&mut input, false);
    while !input.is_over() && table.rounds_left > 0 && table.outcome.is_none() {
        table.step(&mut input);
    }
}

/// A session and what surrounds it.
pub(super) struct Table {
    pub(super) session: Session,
    pub(super) layout: Layout,
    began_at: Instant,
    pub(super) now: Instant,
    zero_blocks: BitSet,
    is_one_way: bool,
    counter: u64,
    /// Turns that are being prepared.
    waiting: Vec<TurnId>,
    /// Those, and the ones that are being sent.
    open: BTreeSet<TurnId>,
    welcomed: BTreeSet<SocketAddr>,
    /// Who said that it has the image.
    succeeded: BTreeSet<ReceiverId>,
    /// Octets by unicast since this was last set to zero, and to whom they are counted.
    answered: usize,
    stranger: Option<SocketAddr>,
    /// What left since this was last emptied.
    pub(super) bursts: Vec<Burst>,
    /// Of every SYNC of the image since this was last emptied, what it lists.
    pub(super) planned: Vec<Vec<BlockRange>>,
    rounds_left: u32,
    outcome: Option<Outcome>,
}

impl Table {
    /// A session of a small image; `is_plain`: two-way, and a receiver may be as slow as it likes.
    pub(super) fn new(input: &mut Input<'_>, is_plain: bool) -> Self {
        let blocks = u64::from(1 + input.below(300));
        let symbol_size = [64, 96, 256, 1024][usize::from(input.u8() % 4)];
        let layout = Layout::new((blocks << 10) - u64::from(input.u8()), 10, symbol_size);
        let layout = layout.unwrap_or_else(|| unreachable!("within all limits"));
        let mut zero_blocks = BitSet::new(layout.blocks());
        for _ in 0..input.u8() % 4 {
            zero_blocks.insert(input.below(layout.blocks()));
        }
        let shape = input.u8();
        let is_one_way = !is_plain && shape % 8 == 7;
        let slow = [SlowReceivers::Detach, SlowReceivers::Wait, SlowReceivers::Drop];
        let config = SessionConfig {
            session: SESSION,
            image: IMAGE,
            index_hash: [2; 32],
            layout,
            zero_blocks: zero_blocks.clone(),
            name: Name::new("disk").unwrap_or_else(|| unreachable!("a plain name")),
            data_group: SocketAddr::from(([239, 255, 70, 7], 6331)),
            unicast_port: 6330,
            mtu: 1500,
            receivers_min: u32::from(!is_one_way) * (1 + u32::from(!is_plain && shape & 8 != 0)),
            wait_min: Duration::ZERO,
            wait_max: (shape & 16 != 0).then(|| Duration::from_secs(5)),
            start_timeout: Some(Duration::from_secs(60)),
            rate_start: (shape & 32 != 0).then_some(RATE / 10),
            rate_max: RATE,
            sector_size: None,
            one_way: is_one_way.then(|| OneWay { passes: 1 + shape / 64, repair_percent: 5 }),
            framing_octets: 66,
            slow_receivers: if is_plain { slow[1] } else { slow[usize::from(shape % 3)] },
        };
        let now = beginning();
        let mut table = Self {
            session: Session::new(config, input.u64(), now),
            layout,
            began_at: now,
            now,
            zero_blocks,
            is_one_way,
            counter: 0,
            waiting: Vec::new(),
            open: BTreeSet::new(),
            welcomed: BTreeSet::new(),
            succeeded: BTreeSet::new(),
            answered: 0,
            stranger: None,
            bursts: Vec::new(),
            planned: Vec::new(),
            rounds_left: ROUNDS_MAX,
            outcome: None,
        };
        table.drain();
        table
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0..=2 => self.datagram(input),
            3 | 4 => {
                let number = input.u8();
                self.join(number % 16, input.chance(), number & 0x80 != 0);
            }
            5..=8 => {
                let need = self.need(input);
                self.hear(host(input.u8() % 16), &Message::Need(need), 0);
            }
            9 => self.get_ready(usize::from(input.u8()), input.chance()),
            10 => self.session.handle_backlog(),
            11 => drop(self.session.handle_start(self.now)),
            12 if input.u8() == 255 => {
                self.session.handle_stop(self.now, AbortReason::Image, "it is gone\n");
            }
            _ => self.pass(input.time(), usize::from(input.u8() % 4)),
        }
        self.drain();
    }

    /// A datagram of whatever octets, with a checksum that is right.
    fn datagram(&mut self, input: &mut Input<'_>) {
        let kind = [0x02, 0x20, 0x21, 0x22, 0x10, 0x01][usize::from(input.u8() % 6)];
        let session = [SESSION.0, SESSION.0, SESSION.0, 0, 9][usize::from(input.u8() % 5)];
        self.counter += 1;
        let counter = if input.chance() { self.counter } else { input.u64().max(1) };
        let from = host(input.u8() % 16);
        let padded = padded_len(self.layout.symbol_size());
        let datagram = input.datagram(kind, session, counter, padded);
        if let Ok((header, message)) = Message::parse(&datagram, Role::Sender) {
            self.take_in(from, &header, &message, datagram.len());
        }
    }

    /// Somebody says something as a receiver would.
    pub(super) fn hear(&mut self, from: SocketAddr, message: &Message<'_>, octets_min: usize) {
        self.counter += 1;
        let header = Header { session: SESSION, stream: Stream::Image, counter: self.counter };
        let octets = message.emit(&header, octets_min).len();
        self.take_in(from, &header, message, octets);
    }

    fn take_in(&mut self, from: SocketAddr, header: &Header, message: &Message<'_>, octets: usize) {
        if let Message::Done(done) = message
            && done.succeeded
            && done.image == IMAGE
        {
            self.succeeded.insert(done.receiver);
        }
        self.drain();
        self.stranger = (!self.welcomed.contains(&from)).then_some(from);
        self.answered = 0;
        self.session.handle_message(self.now, from, header, message, octets);
        self.drain();
        assert!(self.answered <= octets, "{} octets answer {octets}: {message:?}", self.answered);
        self.stranger = None;
    }

    /// A host of this number asks to be let in; `have`: it has verified something; `unfit`: it only
    /// says that it cannot take part.
    pub(super) fn join(&mut self, number: u8, have: bool, unfit: bool) {
        let join = Join {
            nonce: [number; 16],
            key: [number / 2; 16],
            have,
            mtu: false,
            unfit,
            capabilities: 0,
            target_bytes: u64::MAX,
            memory_blocks: 64,
            host: format!("node{number}"),
            handshake: Vec::new(),
        };
        let padded = padded_len(self.layout.symbol_size());
        self.hear(host(number), &Message::Join(join), padded);
    }

    /// Needs of one of the first members.
    pub(super) fn need(&self, input: &mut Input<'_>) -> Need {
        let age = input.time();
        let (shape, loss) = (input.u8(), u16::from(input.u8()) << 8);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(0);
        let said_at = self.now.saturating_duration_since(self.began_at).saturating_sub(age);
        let echo = [micros(said_at) + 1, micros(said_at) + 1, 0, input.u64()];
        let (mut needs, mut free_from) = (Vec::new(), 0);
        for _ in 0..shape % 8 {
            let first = free_from + input.below(64);
            let symbols = match input.u8() {
                0 => 8_111,
                many @ 240.. => u16::MAX - u16::from(many == 255) * 60_000,
                few => u16::from(few),
            };
            let run = 1 + input.below(32);
            needs.push(BlockRange { first, run, symbols });
            free_from = first + run;
        }
        let flags = imgcast_common::wire::NeedFlags {
            no_multicast: shape & 16 != 0,
            by_unicast: shape & 32 != 0,
            behind: shape & 64 != 0,
        };
        Need {
            receiver: ReceiverId(u32::from(input.u8() % 16)),
            echo_micros: echo[usize::from(shape >> 3 & 3)],
            hold_micros: 0,
            network_loss: (shape & 128 == 0).then_some(loss),
            socket_loss: loss / 3,
            free_blocks: u16::from(input.u8()),
            drain_kilobytes: u32::from(input.u16()),
            done_blocks: u32::from(input.u16()),
            poll: u16::from(input.u8()),
            flags,
            needs,
        }
    }

    /// One of the turns that wait is ready, or one that there is not.
    pub(super) fn get_ready(&mut self, which: usize, is_known: bool) {
        if !is_known {
            self.session.handle_turn_ready(TurnId(which as u64 * 1_000));
        } else if !self.waiting.is_empty() {
            let turn = self.waiting.remove(which % self.waiting.len());
            self.session.handle_turn_ready(turn);
        }
    }

    /// Time passes, in which turns get ready unless more than `held_back` wait.
    pub(super) fn pass(&mut self, time: Duration, held_back: usize) {
        let (end, mut idle) = (self.now + time, 0);
        while self.now < end && self.rounds_left > 0 && self.outcome.is_none() {
            self.rounds_left -= 1;
            let at = self.session.poll_timeout().max(self.now).min(end);
            idle = if at > self.now { 0 } else { idle + 1 };
            assert!(idle < IDLE_ROUNDS_MAX, "it spins: {:?}", self.session.status());
            self.now = at;
            self.session.handle_timeout(self.now);
            self.drain();
            while self.waiting.len() > held_back {
                self.get_ready(0, true);
                self.drain();
            }
        }
    }

    /// Takes what comes out, and looks at it.
    pub(super) fn drain(&mut self) {
        loop {
            let mut is_idle = true;
            while let Some(transmit) = self.session.poll_transmit(self.now) {
                is_idle = false;
                match transmit {
                    Transmit::Burst(burst) => self.check_burst(burst),
                    Transmit::Message { to, stream, message, octets_min } => {
                        self.check_message(to, stream, &message, octets_min);
                    }
                }
            }
            while let Some(event) = self.session.poll_event() {
                is_idle = false;
                self.on_event(event);
            }
            if is_idle {
                return self.check_status();
            }
        }
    }

    fn check_burst(&mut self, burst: Burst) {
        assert!(self.open.contains(&burst.turn) && !self.waiting.contains(&burst.turn));
        let layout = match burst.block.stream {
            Stream::Image => self.layout,
            Stream::Index => self.layout.of_index(),
        };
        let number = burst.block.number;
        assert!(number < layout.blocks() && burst.count > 0, "{burst:?}");
        let is_zero = burst.block.stream == Stream::Image && self.zero_blocks.contains(number);
        assert!(!is_zero, "{burst:?}: zeroes are not sent");
        for position in [0, burst.count - 1] {
            let head = burst.head(position);
            let head = head.unwrap_or_else(|| panic!("{burst:?} has no symbol {position}"));
            let is_source = head.esi.get() < layout.source_symbols(number);
            assert!(is_source || head.esi.get() >= layout.source_symbols(number), "{head:?}");
            assert!(head.esi < EncodingSymbolId::new(0xFF_FFFF).unwrap_or(head.esi) || !is_source);
            assert_eq!(head.stored_len, layout.block_len(number));
        }
        if let Destination::Unicast(to) = burst.to {
            assert!(self.welcomed.contains(&to), "{burst:?}: to no member");
        }
        self.bursts.push(burst);
    }

    fn check_message(
        &mut self,
        to: Destination,
        stream: Stream,
        message: &Message<'static>,
        octets_min: usize,
    ) {
        let header = Header { session: SESSION, stream, counter: UNICAST | 1 };
        let datagram = message.emit(&header, octets_min);
        let (_, read) = Message::parse(&datagram, Role::Receiver)
            .unwrap_or_else(|error| panic!("it says what nobody takes, {error}: {message:?}"));
        let longest = padded_len(self.layout.symbol_size()).max(ANNOUNCE_OCTETS_MAX);
        assert!(datagram.len() <= longest, "{} octets: {message:?}", datagram.len());
        match read {
            Message::Sync(sync) if stream == Stream::Image => {
                assert!(sync.covers_end <= self.layout.blocks());
                self.planned.push(sync.planned);
            }
            Message::Welcome(_) => {
                let Destination::Unicast(to) = to else { panic!("{message:?} to {to:?}") };
                self.welcomed.insert(to);
            }
            _ => {}
        }
        if let Destination::Unicast(to) = to
            && self.stranger == Some(to)
        {
            self.answered += datagram.len();
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::TurnWanted { turn, .. } => {
                self.waiting.push(turn);
                self.open.insert(turn);
                assert!(self.open.len() <= TURNS_MAX, "{} turns at once", self.open.len());
            }
            Event::TurnOver(turn) => assert!(self.open.remove(&turn), "{turn:?}"),
            Event::Finished(outcome) => {
                if let Outcome::Ended { expected, done } = outcome {
                    assert!(done <= expected);
                    assert!(done as usize <= self.succeeded.len(), "who said so?");
                }
                self.outcome.get_or_insert(outcome);
            }
            Event::Started | Event::Joined(_) | Event::Changed(_) | Event::Detached(_) => {}
        }
    }

    fn check_status(&self) {
        let status = self.session.status();
        assert!((0.0..=1.0).contains(&status.progress), "{status:?}");
        assert!((0.0..=1.0).contains(&status.loss), "{status:?}");
        assert!(status.rate > 0 && status.rate <= RATE, "{status:?}");
        assert!(status.done as usize <= self.succeeded.len(), "{status:?}");
        assert!(self.session.members().count() <= MEMBERS_MAX);
        assert!(!self.is_one_way || self.welcomed.is_empty());
    }
}

const SESSION: SessionId = SessionId(0x5e55);
const IMAGE: ImageId = ImageId([7; 32]);
const RATE: u64 = 100_000_000;
/// The longest ANNOUNCE that is not padded, as PROTOCOL.md has it in section 4.
const ANNOUNCE_OCTETS_MAX: usize = 314;
/// Sixteen ahead for the group and four for unicast, as `sending` has it.
const TURNS_MAX: usize = 20;
/// Wakes in one moment: every turn that is ready and a few messages.
const IDLE_ROUNDS_MAX: u32 = 200;
/// An input is not to take longer than some milliseconds.
const ROUNDS_MAX: u32 = 1_500;
