//! Conversations with a session.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    bits::BitSet,
    id::{BlockId, EncodingSymbolId, ImageId, ReceiverId, SessionId, Stream},
    layout::Layout,
    prng::Prng,
    wire::{
        Abort, AbortReason, Announce, BlockRange, DataHead, DoneAck, Eject, EjectReason, End,
        Header, Join, Message, Name, Need, Poll, Refuse, RefuseReason, SenderState, Sync, UNICAST,
        WHOLE, Welcome,
    },
};

use super::*;
use crate::memory::Memory;

mod blocks;
mod contact;
mod image_gone;
mod offers;
mod one_way;
mod parting;
mod resuming;

/// A receiver on a table: everything that comes out of it is kept.
struct Table {
    session: Session,
    now: Instant,
    sent: Vec<Message<'static>>,
    /// In which sessions it was said that it is done.
    done_in: Vec<SessionId>,
    events: Vec<Event>,
    counter: u64,
}

const SENDER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 6330);
const SESSION: SessionId = SessionId(0x5e55);
const BLOCKS: u32 = 10;
const ME: ReceiverId = ReceiverId(5);

impl Table {
    fn new(change: impl Fn(&mut SessionConfig)) -> Self {
        let mut config = SessionConfig {
            wanted: Wanted::Any,
            host: "node".into(),
            key: [1; 16],
            target_bytes: None,
            memory: Memory::for_blocks(64, 1 << 14),
            datagram_octets_max: 1472,
            start_timeout: Some(Duration::from_secs(60)),
            receive_timeout: Some(Duration::from_secs(30)),
            ask: None,
            resumes: false,
        };
        change(&mut config);
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let now = Instant::now();
        let session = Session::new(config, 1, now);
        Self {
            session,
            now,
            sent: Vec::new(),
            done_in: Vec::new(),
            events: Vec::new(),
            counter: 100,
        }
    }

    /// A member that has the index, and looks for all blocks on the target.
    fn searching() -> Self {
        let mut table = Self::member();
        table.symbol_of(Stream::Index, Via::Group, 0, 0, 0);
        table.checked(BlockId::index(0), Checked::Whole);
        table.session.handle_claims(&BitSet::full(BLOCKS));
        table.session.handle_index(table.now, Some(&BitSet::new(BLOCKS)));
        table.drain();
        table
    }

    /// A member that has the index, with block 3 zero, and nothing of the image.
    fn receiving() -> Self {
        let mut table = Self::member();
        table.symbol_of(Stream::Index, Via::Group, 0, 0, 0);
        table.checked(BlockId::index(0), Checked::Whole);
        assert!(table.events.contains(&Event::IndexWhole));
        let mut zero = BitSet::new(BLOCKS);
        zero.insert(3);
        table.session.handle_index(table.now, Some(&zero));
        table.checked(BlockId::image(3), Checked::Whole);
        table.session.handle_stored(table.now, 3);
        table.drain();
        table
    }

    fn member() -> Self {
        let mut table = Self::new(|_| {});
        table.offer(SESSION, "disk", 1);
        table.run(Duration::from_secs(1));
        assert!(matches!(table.events[0], Event::Chosen(_)));
        table.session.handle_joined(table.now);
        table.run(Duration::from_millis(50));
        table.welcome();
        table.run(Duration::from_millis(150));
        table
    }

    /// What it said to be let in.
    fn joins(&self) -> impl DoubleEndedIterator<Item = &Join> {
        self.sent.iter().filter_map(|message| match message {
            Message::Join(join) => Some(join),
            _ => None,
        })
    }

    fn welcome(&mut self) {
        self.welcome_in(SESSION);
    }

    fn welcome_in(&mut self, session: SessionId) {
        let welcome = Welcome {
            nonce: self.joins().next_back().unwrap().nonce,
            receiver: ME,
            state: SenderState::Sending,
            needs_per_second: 20,
            needs_burst: 10,
            silence_ms: 10_000,
            handshake: Vec::new(),
        };
        self.hear_in(session, Via::Unicast, &Message::Welcome(welcome));
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.session.poll_transmit() {
            if matches!(transmit.message, Message::Done(_)) {
                self.done_in.push(transmit.session);
            }
            self.sent.push(transmit.message);
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }

    fn hear_in(&mut self, session: SessionId, via: Via, message: &Message<'_>) {
        self.counter += 1;
        let high = if via == Via::Group { 0 } else { UNICAST };
        let header = Header { session, stream: Stream::Image, counter: self.counter | high };
        self.session.handle_message(self.now, via, SENDER, &header, message);
        self.drain();
    }

    fn hear(&mut self, via: Via, message: Message<'_>) {
        self.hear_in(SESSION, via, &message);
    }

    fn offer(&mut self, session: SessionId, name: &str, image: u8) {
        let announce = Self::announce(name, image);
        self.hear_in(session, Via::Rendezvous, &Message::Announce(announce));
    }

    /// In its first of two passes.
    fn offer_one_way(&mut self, session: SessionId) {
        let numbers =
            Announce { receivers_joined: 1, receivers_expected: 2, ..Self::announce("disk", 1) };
        let announce = Announce { one_way: true, state: SenderState::Sending, ..numbers };
        self.hear_in(session, Via::Rendezvous, &Message::Announce(announce));
    }

    fn announce(name: &str, image: u8) -> Announce {
        Announce {
            image: ImageId([image; 32]),
            index_hash: [2; 32],
            layout: Layout::new(u64::from(BLOCKS) << 14, 14, 1024).unwrap(),
            data_group: "239.255.70.7:6331".parse().unwrap(),
            unicast_port: 6330,
            one_way: false,
            sector_size: None,
            state: SenderState::Gathering,
            start_in_ms: u32::MAX,
            receivers_expected: 1,
            receivers_joined: 0,
            salt: [0; 16],
            signer: [0; 32],
            signature: [0; 64],
            name: Name::new(name).unwrap(),
        }
    }

    fn sync(&mut self, planned: &[BlockRange]) {
        self.sync_of(0, planned);
    }

    fn sync_of(&mut self, covers_first: u32, planned: &[BlockRange]) {
        self.sync_with(covers_first, planned, |_| {});
    }

    fn sync_with(&mut self, covers_first: u32, planned: &[BlockRange], change: impl Fn(&mut Sync)) {
        let mut sync = Sync { covers_first, planned: planned.to_vec(), ..Self::empty_sync() };
        change(&mut sync);
        self.hear(Via::Group, Message::Sync(sync));
    }

    /// It covers all of the image, of which nothing is planned.
    fn empty_sync() -> Sync {
        Sync {
            time_micros: 1,
            grtt: imgcast_common::timing::quantise_rtt(Duration::from_millis(2)),
            group_log2: 0,
            feedback_window_ms: 0,
            rate_kilobits: 1_000_000,
            repair_share: 0,
            state: SenderState::Sending,
            poll: Poll::default(),
            covers_first: 0,
            covers_end: BLOCKS,
            planned: Vec::new(),
        }
    }

    fn symbol_of(
        &mut self,
        stream: Stream,
        via: Via,
        block: u32,
        esi: u32,
        still_to_come: u16,
    ) -> Verdict {
        self.counter += 1;
        let header = Header { session: SESSION, stream, counter: self.counter };
        let layout = Layout::new(u64::from(BLOCKS) << 14, 14, 1024).unwrap();
        let layout = if stream == Stream::Index { layout.of_index() } else { layout };
        let head = DataHead {
            block,
            esi: EncodingSymbolId::new(esi).unwrap(),
            turn: 1,
            stored_len: layout.block_len(block),
            still_to_come,
        };
        let verdict = self.session.handle_symbol(self.now, via, &header, &head, 1024);
        self.drain();
        verdict
    }

    /// Symbols `esis` of a block of the image, the last of which ends the turn.
    fn symbols(&mut self, block: u32, esis: impl Iterator<Item = u32>, end: u32) -> Vec<Verdict> {
        let still = |esi| u16::try_from(end - 1 - esi).unwrap_or(0);
        esis.map(|esi| self.symbol_of(Stream::Image, Via::Group, block, esi, still(esi))).collect()
    }

    fn checked(&mut self, block: BlockId, checked: Checked) {
        self.session.handle_checked(self.now, block, checked);
        self.drain();
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let at = self.session.poll_timeout().unwrap_or(end);
            self.now = at.max(self.now).min(end);
            self.session.handle_timeout(self.now);
            self.drain();
            self.now += Duration::from_micros(10);
        }
    }

    /// Lets time pass, with a sender that keeps saying that it plans nothing.
    fn run_with_sender(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.sync(&[]);
            self.run(Duration::from_millis(50));
        }
    }

    fn needs(&mut self) -> Vec<Need> {
        let needs =
            std::mem::take(&mut self.sent).into_iter().filter_map(|message| match message {
                Message::Need(need) => Some(need),
                _ => None,
            });
        needs.collect()
    }

    fn outcome(&self) -> Option<Outcome> {
        self.events.iter().find_map(|event| match event {
            Event::Finished(outcome) => Some(outcome.clone()),
            _ => None,
        })
    }

    fn failure(&self) -> Failure {
        match self.outcome() {
            Some(Outcome::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    /// Every block arrives whole and is stored.
    fn receive_all(&mut self) {
        for block in (0..BLOCKS).filter(|block| *block != 3) {
            self.symbols(block, 0..16, 16);
            self.checked(BlockId::image(block), Checked::Whole);
            self.session.handle_stored(self.now, block);
            self.drain();
        }
    }
}
