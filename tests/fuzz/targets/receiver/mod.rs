//! Anything that comes to a receiver's session, in any order, while its other threads decode,
//! verify and write with whatever success the input says.
//!
//! A model of the driver keeps its part of the contract, and checks the session's: no symbol is
//! wanted twice, no block is checked with less than determines it, memory is not exceeded, needs
//! name only what is missing, nothing is flushed before all of it is stored, and success is claimed
//! only behind that.

mod driver;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use imgcast_common::{
    bits::BitSet,
    id::{BlockId, EncodingSymbolId, ImageId, ReceiverId, SessionId, Stream},
    layout::Layout,
    wire::{
        Announce, BlockRange, DataHead, Header, Message, Poll, Role, SenderState, Sync, UNICAST,
        Welcome,
    },
};
use imgcast_receiver::{
    memory::Memory,
    session::{Checked, Outcome, Session, SessionConfig, Verdict, Via, Wanted},
};

use super::input::{Input, beginning, host, offer};

pub(super) fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let mut table = Table::new(&mut input);
    table.enter(input.u8());
    while !input.is_over() && table.rounds_left > 0 && table.outcome.is_none() {
        table.step(&mut input);
    }
}

/// A session and what surrounds it.
struct Table {
    session: Session,
    now: Instant,
    counter: u64,
    layout: Layout,
    is_one_way: bool,
    memory_blocks: usize,
    /// The session that it is in.
    own: SessionId,
    /// Its image, and the hash of its index.
    chosen: Option<(ImageId, [u8; 32])>,
    nonce: [u8; 16],
    /// Symbols that were wanted, of blocks that are not checked.
    kept: BTreeMap<BlockId, BTreeSet<u32>>,
    /// Blocks that are being checked, and how often they were asked to be.
    checking: Vec<BlockId>,
    is_index_whole: bool,
    is_index_right: bool,
    zero: BitSet,
    writing: Vec<u32>,
    verified: BTreeSet<u32>,
    stored: BTreeSet<u32>,
    is_flushing: bool,
    is_flushed: bool,
    rounds_left: u32,
    outcome: Option<Outcome>,
}

impl Table {
    fn new(input: &mut Input<'_>) -> Self {
        let blocks = u64::from(1 + input.below(24));
        let layout = Layout::new((blocks << 10) - u64::from(input.u8()), 10, 64);
        let layout = layout.unwrap_or_else(|| unreachable!("within all limits"));
        let shape = input.u8();
        let memory = Memory::for_blocks(u64::from(shape % 16), 1 << 10);
        let config = SessionConfig {
            wanted: Wanted::Any,
            host: "node".into(),
            key: [1; 16],
            resumes: false,
            target_bytes: None,
            memory,
            datagram_octets_max: 1472,
            start_timeout: Some(Duration::from_secs(60)),
            receive_timeout: (shape & 16 == 0).then(|| Duration::from_secs(60)),
            ask: (shape & 32 != 0).then(|| host(1)),
        };
        let now = beginning();
        let mut zero = BitSet::new(layout.blocks());
        if shape & 64 != 0 {
            zero.insert(input.below(layout.blocks()));
        }
        Self {
            session: Session::new(config, input.u64(), now),
            now,
            counter: 0,
            layout,
            is_one_way: shape & 0x8F == 0x8F,
            memory_blocks: memory.blocks(layout.block_size(), layout.of_index().bytes()) as usize,
            own: SessionId::NONE,
            chosen: None,
            nonce: [0; 16],
            kept: BTreeMap::new(),
            checking: Vec::new(),
            is_index_whole: false,
            is_index_right: false,
            zero,
            writing: Vec::new(),
            verified: BTreeSet::new(),
            stored: BTreeSet::new(),
            is_flushing: false,
            is_flushed: false,
            rounds_left: ROUNDS_MAX,
            outcome: None,
        }
    }

    /// Joins a session, unless `how` says that it is to find its own way there, and gets the index.
    fn enter(&mut self, how: u8) {
        if how.is_multiple_of(4) {
            return;
        }
        self.announce(1, SenderState::Sending);
        self.pass(Duration::from_secs(1));
        self.welcome(true);
        if how % 4 == 1 {
            return;
        }
        for number in 0..self.layout.of_index().blocks() {
            let sources = self.layout.of_index().source_symbols(number);
            (0..sources).for_each(|esi| self.symbol(BlockId::index(number), esi, 1, 0, true));
            self.judge(0, Checked::Whole);
        }
        self.put_index_together(true);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 24 {
            0..=2 => self.datagram(input),
            3 => self.announce(input.u8() % 3, state(input)),
            4 => self.welcome(input.u8() != 0),
            5..=7 => self.sync(input),
            8..=13 => {
                let stream = if input.u8() % 8 == 7 { Stream::Index } else { Stream::Image };
                let block = BlockId { stream, number: input.below(self.layout.blocks() + 1) };
                let (first, run, turn) = (input.u8(), input.u8() % 64, input.u8());
                for step in 0..=run {
                    let esi = match first {
                        0..128 => u32::from(first % 64) + u32::from(step),
                        _ => 1 << 20 | u32::from(first) << 8 | u32::from(step),
                    };
                    self.symbol(block, esi, turn, u16::from(run - step), turn & 64 == 0);
                }
            }
            14 => self.run_of_symbols(input),
            15 | 16 => {
                let how = [Checked::Whole, Checked::Whole, Checked::TooFew, Checked::Corrupt];
                self.judge(usize::from(input.u8()), how[usize::from(input.u8() % 4)]);
            }
            17 => self.put_index_together(!input.u8().is_multiple_of(4)),
            18 | 19 => self.store(usize::from(input.u8())),
            20 => self.finish_flush(),
            21 if input.u8() > 250 => match input.u8() % 4 {
                0 => self.session.handle_stop(self.now),
                1 => self.session.handle_failure(self.now, 8, "it is full\n"),
                2 => self.session.handle_overflow(input.u64()),
                _ => self.session.handle_pace(self.now, input.chance().then(|| input.u32())),
            },
            22 => self.session.handle_drain(self.now, input.u32()),
            _ => self.pass(input.time()),
        }
        self.drain();
    }

    fn header(&mut self, via: Via, stream: Stream) -> Header {
        self.counter += 1;
        let high = if via == Via::Group { 0 } else { UNICAST };
        let session = if self.own == SessionId::NONE { SessionId(2) } else { self.own };
        Header { session, stream, counter: self.counter | high }
    }

    fn hear(&mut self, via: Via, header: &Header, message: &Message<'_>) {
        self.session.handle_message(self.now, via, host(1), header, message);
        self.drain();
    }

    /// A datagram of whatever octets, with a checksum that is right.
    fn datagram(&mut self, input: &mut Input<'_>) {
        let kinds = [0x01, 0x03, 0x04, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15];
        let kind = kinds[usize::from(input.u8()) % kinds.len()];
        let via = [Via::Group, Via::Unicast, Via::Rendezvous][usize::from(input.u8() % 3)];
        let header = self.header(via, Stream::Image);
        let session = if input.u8() > 240 { 77 } else { header.session.0 };
        let counter = if input.chance() { header.counter } else { input.u64().max(1) };
        let datagram = input.datagram(kind, session, counter, 120);
        match Message::parse(&datagram, Role::Receiver) {
            Ok((header, Message::Data(data))) => {
                self.offer_symbol(via, &header, &data.head, data.symbol.len());
            }
            Ok((header, message)) => self.hear(via, &header, &message),
            Err(_) => {}
        }
    }

    /// One of three sessions is announced: two of the same image, and one of another.
    fn announce(&mut self, number: u8, state: SenderState) {
        let announce = Announce {
            image: ImageId([1 + number / 2; 32]),
            one_way: self.is_one_way,
            state,
            ..offer(self.layout)
        };
        self.counter += 1;
        let session = SessionId(1 + u64::from(number));
        let header = Header { session, stream: Stream::Image, counter: UNICAST | self.counter };
        self.hear(Via::Rendezvous, &header, &Message::Announce(announce));
    }

    fn welcome(&mut self, is_ours: bool) {
        let welcome = Welcome {
            nonce: if is_ours { self.nonce } else { [9; 16] },
            receiver: ReceiverId(5),
            state: SenderState::Sending,
            needs_per_second: 20,
            needs_burst: 10,
            silence_ms: 10_000,
            handshake: Vec::new(),
        };
        let header = self.header(Via::Unicast, Stream::Image);
        self.hear(Via::Unicast, &header, &Message::Welcome(welcome));
    }

    fn sync(&mut self, input: &mut Input<'_>) {
        let shape = input.u8();
        let covers_first = input.below(self.layout.blocks() + 1);
        let covers_end = (covers_first + u32::from(input.u8())).min(BLOCKS_TOLD_MAX);
        let (mut planned, mut free_from) = (Vec::new(), covers_first);
        for _ in 0..shape % 4 {
            let first = free_from + u32::from(input.u8() % 4);
            let run = 1 + u32::from(input.u8() % 8);
            let symbols = [1, 3, 16, u16::MAX][usize::from(input.u8() % 4)];
            if first + run > covers_end {
                break;
            }
            planned.push(BlockRange { first, run, symbols });
            free_from = first + run;
        }
        let sync = Sync {
            time_micros: self.counter + 1,
            grtt: input.u8() % 167,
            group_log2: shape >> 4 & 7,
            feedback_window_ms: u16::from(input.u8()),
            rate_kilobits: u32::from(input.u8()) << 10,
            repair_share: 0,
            state: state(input),
            poll: Poll { mask_bits: shape >> 6, id: u16::from(input.u8()), nonce: input.u32() },
            covers_first,
            covers_end,
            planned,
        };
        let via = if shape & 8 == 0 { Via::Group } else { Via::Unicast };
        let stream = if shape & 4 == 0 { Stream::Image } else { Stream::Index };
        let header = self.header(via, stream);
        self.hear(via, &header, &Message::Sync(sync));
    }

    fn symbol(&mut self, block: BlockId, esi: u32, turn: u8, still_to_come: u16, by_group: bool) {
        let via = if by_group { Via::Group } else { Via::Unicast };
        let header = self.header(via, block.stream);
        let stored_len = self.layout_of(block.stream).block_len(block.number).max(1);
        let Some(esi) = EncodingSymbolId::new(esi) else { return };
        let head = DataHead { block: block.number, esi, turn, stored_len, still_to_come };
        self.offer_symbol(via, &header, &head, 64);
    }

    fn offer_symbol(&mut self, via: Via, header: &Header, head: &DataHead, octets: usize) {
        let verdict = self.session.handle_symbol(self.now, via, header, head, octets);
        if matches!(verdict, Verdict::Wanted | Verdict::Enough) {
            assert_eq!(header.session, self.own, "of another session");
            self.keep(BlockId { stream: header.stream, number: head.block }, head.esi.get());
        }
        self.drain();
    }

    /// Several symbols at one stroke, as they come joined.
    fn run_of_symbols(&mut self, input: &mut Input<'_>) {
        let block = BlockId::image(input.below(self.layout.blocks()));
        let first = u32::from(input.u8() % 20);
        let arrived = input.u64();
        let header = self.header(Via::Group, Stream::Image);
        let stored_len = self.layout.block_len(block.number);
        let Some(esi) = EncodingSymbolId::new(first) else { return };
        let head = DataHead { block: block.number, esi, turn: 1, stored_len, still_to_come: 63 };
        self.counter += 64;
        let kept = self.session.handle_symbols(self.now, Via::Group, &header, &head, 64, arrived);
        assert_eq!(kept & !arrived, 0, "only what came can be kept");
        (0..64).filter(|bit| kept >> bit & 1 == 1).for_each(|bit| self.keep(block, first + bit));
    }

    fn pass(&mut self, time: Duration) {
        let (end, mut idle) = (self.now + time, 0);
        while self.now < end && self.rounds_left > 0 && self.outcome.is_none() {
            self.rounds_left -= 1;
            let at = self.session.poll_timeout().unwrap_or(end).max(self.now).min(end);
            idle = if at > self.now { 0 } else { idle + 1 };
            assert!(idle < IDLE_ROUNDS_MAX, "it spins: {:?}", self.session.status(self.now));
            self.now = at;
            self.session.handle_timeout(self.now);
            self.drain();
        }
    }
}

fn state(input: &mut Input<'_>) -> SenderState {
    let states = [SenderState::Sending, SenderState::Gathering, SenderState::Idle];
    let octet = input.u8();
    if octet == 255 { SenderState::Closing } else { states[usize::from(octet % 3)] }
}

/// A SYNC may speak of blocks that there are not.
const BLOCKS_TOLD_MAX: u32 = 1 << 20;
/// Wakes in one moment: nothing takes more than a few.
const IDLE_ROUNDS_MAX: u32 = 50;
/// An input is not to take longer than some milliseconds.
const ROUNDS_MAX: u32 = 2_000;
