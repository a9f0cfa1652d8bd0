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
        Header, Message, Name, Need, Poll, Refuse, RefuseReason, SenderState, Sync, UNICAST, WHOLE,
        Welcome,
    },
};

use super::*;
use crate::memory::Memory;

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

    fn welcome(&mut self) {
        self.welcome_in(SESSION);
    }

    fn welcome_in(&mut self, session: SessionId) {
        let joins = self.sent.iter().rev();
        let nonce = joins.clone().find_map(|message| match message {
            Message::Join(join) => Some(join.nonce),
            _ => None,
        });
        let welcome = Welcome {
            nonce: nonce.unwrap(),
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
        let mut sync = Sync {
            time_micros: 1,
            grtt: imgcast_common::timing::quantise_rtt(Duration::from_millis(2)),
            group_log2: 0,
            feedback_window_ms: 0,
            rate_kilobits: 1_000_000,
            repair_share: 0,
            state: SenderState::Sending,
            poll: Poll::default(),
            covers_first,
            covers_end: BLOCKS,
            planned: planned.to_vec(),
        };
        change(&mut sync);
        self.hear(Via::Group, Message::Sync(sync));
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

    fn joins(&self) -> usize {
        self.sent.iter().filter(|message| matches!(message, Message::Join(_))).count()
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

#[test]
fn the_only_image_on_offer_is_chosen_after_listening_for_a_while() {
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_millis(250));
    assert!(table.events.is_empty());
    table.run(Duration::from_millis(100));
    assert!(matches!(&table.events[..], [Event::Chosen(offer)] if offer.session == SESSION));
}

#[test]
fn of_several_images_none_is_chosen_unasked() {
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.offer(SessionId(9), "other", 2);
    table.run(Duration::from_secs(1));
    assert!(matches!(table.failure(), Failure::SeveralImages(offers) if offers.len() == 2));
}

#[test]
fn a_name_that_two_images_share_is_not_enough() {
    let mut table = Table::new(|config| config.wanted = Wanted::Name("disk".into()));
    table.offer(SESSION, "disk", 1);
    table.offer(SessionId(9), "disk", 2);
    table.run(Duration::from_secs(1));
    assert!(matches!(table.failure(), Failure::SeveralImages(offers) if offers.len() == 2));
    let hash = ImageId([2; 32]);
    let mut table = Table::new(|config| config.wanted = Wanted::Image(hash));
    table.offer(SESSION, "disk", 1);
    table.offer(SessionId(9), "disk", 2);
    assert!(matches!(&table.events[..], [Event::Chosen(it)] if it.session == SessionId(9)));
}

#[test]
fn the_image_that_was_named_is_chosen_and_no_other() {
    for wanted in [Wanted::Name("other".into()), Wanted::Image(ImageId([2; 32]))] {
        let mut table = Table::new(|config| config.wanted = wanted.clone());
        table.offer(SESSION, "disk", 1);
        table.run(Duration::from_secs(5));
        assert!(table.events.is_empty());
        table.offer(SessionId(9), "other", 2);
        assert!(matches!(&table.events[..], [Event::Chosen(it)] if it.session == SessionId(9)));
    }
    let mut table = Table::new(|config| config.wanted = Wanted::Name("none".into()));
    for _ in 0..61 {
        table.offer(SESSION, "disk", 1);
        table.run(Duration::from_secs(1));
    }
    assert!(matches!(table.failure(), Failure::NotOffered(offers) if offers.len() == 1));
}

#[test]
fn when_the_table_of_offers_is_full_the_one_heard_longest_ago_makes_room() {
    let mut table = Table::new(|config| {
        config.wanted = Wanted::Name("disk".into());
        config.start_timeout = Some(Duration::from_secs(3));
    });
    let forge = |table: &mut Table, session| {
        table.offer(SessionId(session), "forged", 7);
        table.run(Duration::from_millis(1));
    };
    (1..=256).for_each(|session| forge(&mut table, session));
    forge(&mut table, 1);
    forge(&mut table, 257);
    assert_eq!(table.session.status(table.now).offers, 256);
    table.run(Duration::from_secs(3));
    let Failure::NotOffered(offers) = table.failure() else { panic!("{:?}", table.failure()) };
    let sessions: Vec<u64> = offers.iter().map(|offer| offer.session.0).collect();
    assert_eq!(sessions, [&[1][..], &Vec::from_iter(3..=257)].concat());

    let mut table = Table::new(|config| config.wanted = Wanted::Name("disk".into()));
    (1..=256).for_each(|session| forge(&mut table, session));
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_millis(700));
    assert!(matches!(&table.events[..], [Event::Chosen(offer)] if offer.session == SESSION));
}

#[test]
fn without_a_sender_it_gives_up_in_time_and_says_if_another_version_was_heard() {
    let mut table = Table::new(|_| {});
    table.run(Duration::from_secs(59));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(2));
    assert_eq!(table.failure(), Failure::NoSender);
    let mut table = Table::new(|_| {});
    table.session.handle_other_version(2);
    table.run(Duration::from_secs(61));
    assert_eq!(table.failure(), Failure::OtherVersion(2));
}

#[test]
fn a_session_that_is_ending_is_told_from_silence_and_from_other_images() {
    let ending = |table: &mut Table, image| {
        let announce = Announce { state: SenderState::Closing, ..Table::announce("disk", image) };
        table.hear_in(SESSION, Via::Rendezvous, &Message::Announce(announce));
    };
    let wants = |config: &mut SessionConfig| config.wanted = Wanted::Image(ImageId([1; 32]));
    for (image, is_wanted) in [(1, true), (2, false)] {
        let mut table = Table::new(wants);
        ending(&mut table, image);
        let status = table.session.status(table.now);
        assert_eq!((status.offers, status.is_ending), (0, true));
        // It is silent long before this receiver has waited long enough.
        table.run(Duration::from_secs(30));
        assert!(!table.session.status(table.now).is_ending);
        table.run(Duration::from_secs(31));
        match table.failure() {
            Failure::Ending(offer) => assert!(is_wanted && offer.session == SESSION),
            Failure::NotOffered(offers) => assert!(!is_wanted && offers.len() == 1),
            other => panic!("{other:?}"),
        }
    }
    let mut table = Table::new(wants);
    ending(&mut table, 1);
    table.offer(SessionId(2), "disk", 1);
    table.run(Duration::from_millis(500));
    assert!(matches!(&table.events[..], [Event::Chosen(offer)] if offer.session == SessionId(2)));
}

#[test]
fn datagrams_that_do_not_fit_are_found_out_before_and_after_joining() {
    let mut table = Table::new(|config| config.datagram_octets_max = 1000);
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_secs(1));
    assert!(matches!(table.failure(), Failure::Mtu { sender_mtu: None, .. }));
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_secs(1));
    table.session.handle_joined(table.now);
    table.run(Duration::from_secs(1));
    let Some(Message::Join(join)) = table.sent.last().cloned() else { panic!() };
    let unpadded = table.sent.iter().filter(|m| matches!(m, Message::Join(join) if join.mtu));
    assert_eq!(unpadded.count(), 1, "after three unanswered ones");
    let refuse = Refuse { nonce: join.nonce, reason: RefuseReason::Mtu, mtu: 9000 };
    for _ in 0..16 {
        assert_eq!(table.outcome(), None, "a long one may have been lost by chance");
        table.hear(Via::Unicast, Message::Refuse(refuse));
        table.run(Duration::from_millis(200));
    }
    assert!(matches!(table.failure(), Failure::Mtu { sender_mtu: Some(9000), .. }));
}

#[test]
fn a_join_is_repeated_until_it_is_answered() {
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_secs(1));
    table.session.handle_joined(table.now);
    table.run(Duration::from_millis(60));
    assert_eq!(table.joins(), 1);
    table.run(Duration::from_millis(500));
    assert_eq!(table.joins(), 3, "at 0, 0.1 and 0.3 s");
    table.run(Duration::from_secs(1));
    table.welcome();
    let joins = table.joins();
    table.run(Duration::from_millis(1500));
    assert_eq!(table.joins(), joins);
}

#[test]
fn a_block_that_lost_nothing_is_checked_and_its_other_symbols_are_unwanted() {
    let mut table = Table::receiving();
    let verdicts = table.symbols(0, 0..16, 16);
    assert_eq!(verdicts[..15], [Verdict::Wanted; 15]);
    assert_eq!(verdicts[15], Verdict::Enough);
    assert!(table.events.contains(&Event::Check(BlockId::image(0))));
    assert_eq!(table.symbols(0, 5..6, 16), [Verdict::Unwanted]);
}

#[test]
fn when_its_turn_is_over_the_deficit_is_asked_for_once() {
    let mut table = Table::receiving();
    table.sent.clear();
    table.symbols(0, (0..16).filter(|esi| ![4, 9].contains(esi)), 16);
    table.run(Duration::from_millis(5));
    let needs = table.needs();
    assert_eq!(needs.len(), 1);
    assert_eq!(needs[0].needs, [BlockRange::one(0, 2)], "K = 18, of which 2 are padding");
    table.run(Duration::from_millis(5));
    assert!(table.needs().is_empty(), "holdoff");
}

#[test]
fn while_more_of_its_turn_is_to_come_a_block_is_not_tried_with_k_symbols() {
    // 16 source symbols, and two of padding.
    let mut table = Table::receiving();
    let block = BlockId::image(0);
    table.symbols(0, 0..15, 20);
    assert_eq!(table.symbols(0, 18..19, 21), [Verdict::Wanted], "K");
    assert_eq!(table.symbols(0, 19..20, 21), [Verdict::Wanted], "K + 1");
    assert_eq!(table.symbols(0, 20..21, 22), [Verdict::Enough], "K + 2");
    assert!(table.events.contains(&Event::Check(block)));
    let mut table = Table::receiving();
    table.symbols(0, 0..15, 19);
    assert_eq!(table.symbols(0, 18..19, 19), [Verdict::Enough], "K, and no more to come");
    let mut table = Table::receiving();
    table.symbols(0, 0..15, 20);
    table.symbols(0, 18..19, 20);
    table.sync(&[BlockRange::one(0, 1)]);
    assert!(!table.events.contains(&Event::Check(block)));
    table.sync(&[]);
    assert!(table.events.contains(&Event::Check(block)), "the end of its turn was lost");
}

#[test]
fn what_comes_up_during_a_backoff_waits_for_the_next() {
    let mut table = Table::receiving();
    let whole = |first, run| BlockRange { first, run, symbols: WHOLE };
    table.sync_with(0, &[whole(0, 10)], |sync| {
        sync.group_log2 = 10;
        sync.feedback_window_ms = 100;
    });
    table.sent.clear();
    table.symbols(0, 0..14, 14);
    table.run(Duration::from_millis(1));
    table.symbols(1, 0..13, 13);
    let plan = |table: &mut Table| {
        table.sync_with(0, &[whole(2, 8)], |sync| {
            sync.group_log2 = 10;
            sync.feedback_window_ms = 100;
        });
    };
    for _ in 0..11 {
        plan(&mut table);
        table.run(Duration::from_millis(10));
    }
    let needs = table.needs();
    assert_eq!(needs.len(), 1);
    assert_eq!(needs[0].needs, [BlockRange::one(0, 2)]);
    for _ in 0..30 {
        plan(&mut table);
        table.run(Duration::from_millis(10));
    }
    let needs = table.needs();
    assert_eq!(needs[0].needs, [BlockRange::one(0, 2), BlockRange::one(1, 3)]);
}

#[test]
fn symbols_that_come_together_are_taken_as_one_by_one() {
    let layout = Layout::new(u64::from(BLOCKS) << 14, 14, 1024).unwrap();
    let mut prng = Prng::new(3);
    let (mut one, mut other) = (Table::receiving(), Table::receiving());
    for step in 0..400 {
        let block = u32::try_from(prng.below(u64::from(BLOCKS))).unwrap();
        // Source symbols, symbols that no block has, or repair symbols.
        let esi =
            u32::try_from(prng.below(16) + if prng.chance(300_000) { 18 } else { 0 }).unwrap();
        let head = DataHead {
            block,
            esi: EncodingSymbolId::new(esi).unwrap(),
            turn: u8::try_from(step / 100).unwrap(),
            stored_len: layout.block_len(block) - u32::from(prng.chance(20_000)),
            still_to_come: u16::try_from(prng.below(20)).unwrap(),
        };
        let counter = 1_000 + 40 * step;
        let header = Header { session: SESSION, stream: Stream::Image, counter };
        let via = if prng.chance(100_000) { Via::Unicast } else { Via::Group };
        let arrived = prng.bits() & prng.bits() & 0xfff;
        let mut kept = 0;
        for bit in (0..12).filter(|bit| arrived >> bit & 1 == 1) {
            let header = Header { counter: counter + bit, ..header };
            let Some(esi) = EncodingSymbolId::new(esi + u32::try_from(bit).unwrap()) else {
                panic!()
            };
            let before = u16::try_from(bit).unwrap();
            let head =
                DataHead { esi, still_to_come: head.still_to_come.saturating_sub(before), ..head };
            let verdict = one.session.handle_symbol(one.now, via, &header, &head, 1024);
            kept |= u64::from(matches!(verdict, Verdict::Wanted | Verdict::Enough)) << bit;
        }
        let now = other.now;
        assert_eq!(other.session.handle_symbols(now, via, &header, &head, 1024, arrived), kept);
        one.drain();
        other.drain();
        assert_eq!(one.events, other.events, "step {step}");
        // Blocks that are checked, and were incomplete or not what they should be, begin anew.
        let checks = std::mem::take(&mut one.events);
        other.events.clear();
        for check in checks {
            let Event::Check(block) = check else { continue };
            let checked = if prng.chance(900_000) { Checked::TooFew } else { Checked::Corrupt };
            one.checked(block, checked);
            other.checked(block, checked);
        }
    }
    assert_eq!(one.session.loss.report(), other.session.loss.report());
    for table in [&mut one, &mut other] {
        table.sent.clear();
        table.sync(&[]);
        table.run(Duration::from_millis(100));
    }
    let asked = |needs: Vec<Need>| needs.into_iter().flat_map(|it| it.needs).collect::<Vec<_>>();
    assert_eq!(asked(one.needs()), asked(other.needs()));
}

#[test]
fn while_the_sender_plans_enough_nothing_is_asked_for_but_not_for_ever() {
    let mut table = Table::receiving();
    table.sent.clear();
    table.symbols(0, 0..12, 16);
    for _ in 0..3 {
        table.sync(&[BlockRange::one(0, 3), BlockRange { first: 1, run: 9, symbols: WHOLE }]);
        table.run(Duration::from_millis(40));
        assert!(table.needs().is_empty(), "its turn is not over");
    }
    table.symbol_of(Stream::Image, Via::Group, 0, 12, 0);
    table.run(Duration::from_millis(5));
    assert!(table.needs().is_empty(), "three are planned");
    for _ in 0..50 {
        table.sync(&[BlockRange::one(0, 3), BlockRange { first: 1, run: 9, symbols: WHOLE }]);
        table.run(Duration::from_millis(20));
    }
    let needs = table.needs();
    assert!(needs.is_empty(), "they are planned still: {needs:?}");
    for (times, asked) in [(23, vec![]), (3, vec![BlockRange::one(0, 3)])] {
        for _ in 0..times {
            table.sync_of(1, &[BlockRange { first: 1, run: 9, symbols: WHOLE }]);
            table.run(Duration::from_millis(20));
        }
        let mut needs: Vec<_> = table.needs().into_iter().flat_map(|need| need.needs).collect();
        needs.dedup();
        assert_eq!(needs, asked, "what was said lately is believed");
    }
}

#[test]
fn blocks_that_were_missed_whole_are_asked_for_when_nothing_is_planned() {
    let mut table = Table::receiving();
    table.sent.clear();
    table.sync(&[BlockRange { first: 2, run: 4, symbols: WHOLE }]);
    table.run(Duration::from_millis(5));
    let whole = |first, run| BlockRange { first, run, symbols: WHOLE };
    assert_eq!(table.needs()[0].needs, [whole(0, 2), whole(6, 4)]);
}

#[test]
fn with_memory_for_eight_blocks_a_ninth_is_not_begun_or_asked_for() {
    let mut table = Table::receiving();
    table.session.config.memory = Memory::for_blocks(8, 1 << 14);
    for block in [0, 1, 2, 4, 5, 6, 7, 8] {
        assert_eq!(table.symbols(block, 0..1, 16), [Verdict::Wanted]);
    }
    assert_eq!(table.symbols(9, 0..1, 16), [Verdict::NoRoom]);
    table.sent.clear();
    table.sync(&[]);
    table.run(Duration::from_millis(5));
    let asked: u32 = table.needs()[0].needs.iter().map(|range| range.run).sum();
    assert_eq!(asked, 8);
}

#[test]
fn symbols_of_another_session_length_or_size_are_refused() {
    let mut table = Table::receiving();
    let header = Header { session: SessionId(1), stream: Stream::Image, counter: 7 };
    let head = DataHead {
        block: 0,
        esi: EncodingSymbolId::new(0).unwrap(),
        turn: 0,
        stored_len: 1 << 14,
        still_to_come: 0,
    };
    let now = table.now;
    let mut offer = |header: &Header, head: &DataHead, octets| {
        table.session.handle_symbol(now, Via::Group, header, head, octets)
    };
    assert_eq!(offer(&header, &head, 1024), Verdict::Mismatched);
    let header = Header { session: SESSION, ..header };
    assert_eq!(offer(&header, &head, 1408), Verdict::Mismatched);
    let other = DataHead { stored_len: 100, ..head };
    assert_eq!(offer(&header, &other, 1024), Verdict::Mismatched);
    for block in [BLOCKS, u32::MAX] {
        let beyond = DataHead { block, ..head };
        assert_eq!(offer(&header, &beyond, 1024), Verdict::Unwanted);
    }
    let padding = DataHead { esi: EncodingSymbolId::new(17).unwrap(), ..head };
    assert_eq!(offer(&header, &padding, 1024), Verdict::Unwanted);
    assert_eq!(offer(&header, &head, 1024), Verdict::Wanted);
}

#[test]
fn a_block_with_a_wrong_hash_is_fetched_again_by_unicast_at_last_and_given_up_in_the_end() {
    let mut table = Table::receiving();
    let block = BlockId::image(0);
    for times in 1..8 {
        let via = if times > 3 { Via::Unicast } else { Via::Group };
        if times > 3 {
            let refused = table.symbol_of(Stream::Image, Via::Group, 0, 1, 5);
            assert_eq!(refused, Verdict::Unwanted, "only unicast is trusted");
        }
        for esi in 0..16 {
            table.symbol_of(Stream::Image, via, 0, esi, 0);
        }
        table.checked(block, Checked::Corrupt);
        assert!(table.events.contains(&Event::Notice(Notice::Polluted(block, times))));
        table.run(Duration::from_millis(600));
        let flagged = table.needs().iter().any(|need| need.flags.by_unicast);
        assert_eq!(flagged, times >= 3, "after {times}");
    }
    for esi in 0..16 {
        table.symbol_of(Stream::Image, Via::Unicast, 0, esi, 0);
    }
    table.checked(block, Checked::Corrupt);
    table.run(Duration::from_secs(4));
    assert_eq!(table.failure(), Failure::Block(block));
}

#[test]
fn a_wrong_index_is_fetched_again_twice() {
    let mut table = Table::member();
    for _ in 0..3 {
        table.symbol_of(Stream::Index, Via::Group, 0, 0, 0);
        table.checked(BlockId::index(0), Checked::Whole);
        table.session.handle_index(table.now, None);
        table.drain();
        table.now += Duration::from_secs(1);
    }
    table.run(Duration::from_secs(4));
    assert_eq!(table.failure(), Failure::Index);
}

#[test]
fn done_is_said_after_the_flush_until_it_is_acknowledged() {
    let mut table = Table::receiving();
    table.receive_all();
    assert!(table.events.contains(&Event::Flush));
    assert!(!table.sent.iter().any(|message| matches!(message, Message::Done(_))));
    table.sent.clear();
    table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
    table.run(Duration::from_secs(1));
    let dones = table.sent.iter().filter(|message| matches!(message, Message::Done(_))).count();
    assert!((5..=7).contains(&dones), "{dones} in a second");
    assert_eq!(table.outcome(), None);
    table.hear(Via::Unicast, Message::DoneAck(DoneAck::of(&[ReceiverId(4)]).unwrap()));
    assert_eq!(table.outcome(), None, "it was somebody else's");
    table.hear(Via::Unicast, Message::DoneAck(DoneAck::of(&[ReceiverId(4), ME]).unwrap()));
    assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: true }));
}

#[test]
fn without_an_acknowledgement_the_copy_stands() {
    let mut table = Table::receiving();
    table.receive_all();
    table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
    table.run(Duration::from_secs(61));
    assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: false }));
}

#[test]
fn a_receiver_that_is_behind_says_so_and_what_it_gets_through() {
    let mut table = Table::receiving();
    let whole = BlockRange { first: 0, run: BLOCKS, symbols: WHOLE };
    table.sync(&[whole]);
    table.run(Duration::from_millis(500));
    table.session.handle_drain(90_000);
    table.needs();
    let mut reports = Vec::new();
    for _ in 0..20 {
        table.session.handle_pace(table.now, Some(50_000));
        table.sync(&[whole]);
        table.run(Duration::from_millis(50));
        reports.append(&mut table.needs());
    }
    assert!(reports.len() >= 9, "{}", reports.len());
    assert!(reports.iter().all(|report| report.flags.behind && report.drain_kilobytes == 50_000));
}

#[test]
fn nothing_from_the_group_while_it_sends_is_reported_and_taken_back_later() {
    let mut table = Table::receiving();
    table.sync(&[]);
    table.sent.clear();
    table.run(Duration::from_millis(700));
    assert!(table.needs().iter().any(|need| need.flags.no_multicast));
    assert!(table.events.contains(&Event::Notice(Notice::NoMulticast { any_more: true })));
    assert!(table.events.contains(&Event::RenewMembership));
    table.run_with_sender(Duration::from_millis(2_200));
    assert!(table.events.contains(&Event::Notice(Notice::MulticastAgain { by_joining: true })));
    table.needs();
    table.run_with_sender(Duration::from_secs(1));
    assert!(table.needs().iter().all(|need| !need.flags.no_multicast));
}

#[test]
fn a_group_that_was_never_heard_and_one_that_comes_back_late_are_told_apart_from_others() {
    let mut table = Table::member();
    table.session.contact.begin_session(table.now);
    table.session.contact.on_state(SenderState::Sending);
    table.run(Duration::from_millis(700));
    let never = Event::Notice(Notice::NoMulticast { any_more: false });
    assert!(table.events.contains(&never));
    table.run(Duration::from_millis(1_000));
    table.run_with_sender(Duration::from_millis(2_200));
    let by_itself = Event::Notice(Notice::MulticastAgain { by_joining: false });
    assert!(table.events.contains(&by_itself));
}

#[test]
fn memberships_are_refreshed_before_switches_forget_them() {
    let renewals = |table: &Table| {
        table.events.iter().filter(|event| **event == Event::RenewMembership).count()
    };
    let mut listening = Table::new(|config| config.start_timeout = None);
    listening.run(Duration::from_secs(185));
    assert_eq!(renewals(&listening), 3);
    let mut table = Table::receiving();
    table.session.config.receive_timeout = None;
    table.run_with_sender(Duration::from_secs(125));
    assert_eq!(renewals(&table), 2);
    assert!(!table.session.status(table.now).no_multicast);
}

#[test]
fn symbols_that_came_are_counted_against_those_that_were_needed() {
    let mut table = Table::receiving();
    table.receive_all();
    assert_eq!(table.session.symbols(), Symbols { received: 9 * 16, needed: 9 * 16 });
    table.symbols(4, 0..3, 16);
    table.symbol_of(Stream::Index, Via::Group, 0, 0, 0);
    assert_eq!(table.session.symbols(), Symbols { received: 9 * 16 + 3, needed: 9 * 16 });
}

#[test]
fn another_session_of_the_same_image_takes_over_and_verified_blocks_stay() {
    let mut table = Table::receiving();
    table.symbols(0, 0..16, 16);
    table.checked(BlockId::image(0), Checked::Whole);
    table.session.handle_stored(table.now, 0);
    table.run(Duration::from_secs(3));
    assert!(table.events.contains(&Event::Notice(Notice::SenderSilent)));
    table.offer(SessionId(8), "other", 2);
    assert!(!matches!(table.events.last(), Some(Event::Chosen(_))), "not this image");
    table.offer(SessionId(9), "disk", 1);
    let chosen = |event: &Event| matches!(event, Event::Chosen(it) if it.session == SessionId(9));
    assert!(table.events.iter().any(chosen));
    table.sent.clear();
    table.session.handle_joined(table.now);
    table.run(Duration::from_millis(100));
    assert!(matches!(&table.sent[..], [Message::Join(join)] if join.have));
    assert_eq!(table.session.status(table.now).verified_blocks, 2);
}

#[test]
fn a_sender_that_is_gone_is_waited_for_and_then_given_up_with_its_last_words() {
    let mut table = Table::receiving();
    let abort = Abort { reason: AbortReason::Interrupted, text: "enough".into() };
    table.hear(Via::Group, Message::Abort(abort));
    table.run(Duration::from_secs(29));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(3));
    assert_eq!(table.failure(), Failure::SenderGone(Some("enough".into())));
}

fn image_gone() -> Message<'static> {
    Message::Abort(Abort { reason: AbortReason::Image, text: "it changed".into() })
}

#[test]
fn a_sender_whose_image_is_gone_ends_it_at_once_whether_it_was_joined_or_not() {
    let mut table = Table::receiving();
    table.hear(Via::Group, image_gone());
    let gone = Failure::ImageGone("it changed".into());
    assert_eq!(table.failure(), gone);
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_secs(1));
    table.session.handle_joined(table.now);
    table.hear(Via::Group, image_gone());
    assert_eq!(table.failure(), gone);
}

#[test]
fn a_sender_whose_image_is_gone_keeps_nobody_from_what_has_come_or_is_there() {
    let mut table = Table::receiving();
    for block in (0..BLOCKS).filter(|block| *block != 3) {
        table.symbols(block, 0..16, 16);
    }
    for block in (0..BLOCKS).filter(|block| *block != 3 && *block != 9) {
        table.checked(BlockId::image(block), Checked::Whole);
        table.session.handle_stored(table.now, block);
    }
    table.hear(Via::Group, image_gone());
    assert_eq!(table.outcome(), None, "block 9 is not judged yet");
    table.checked(BlockId::image(9), Checked::Whole);
    table.run(Duration::from_secs(6));
    assert_eq!(table.outcome(), None, "nor written");
    assert!(table.session.poll_timeout().unwrap() > table.now, "it spins");
    table.session.handle_stored(table.now, 9);
    table.drain();
    assert!(table.events.contains(&Event::Flush));

    let mut table = Table::searching();
    table.hear(Via::Group, image_gone());
    for block in 0..BLOCKS - 1 {
        table.checked(BlockId::image(block), Checked::Whole);
        table.session.handle_stored(table.now, block);
    }
    table.drain();
    assert_eq!(table.outcome(), None, "one is left to look for");
    table.session.handle_absent(table.now, BLOCKS - 1);
    table.drain();
    assert_eq!(table.failure(), Failure::ImageGone("it changed".into()));
}

#[test]
fn a_block_that_may_be_complete_is_judged_before_an_image_that_is_gone_ends_it() {
    for checked in [Checked::Whole, Checked::TooFew] {
        let mut table = Table::receiving();
        for block in (0..BLOCKS - 1).filter(|block| *block != 3) {
            table.symbols(block, 0..16, 16);
            table.checked(BlockId::image(block), Checked::Whole);
            table.session.handle_stored(table.now, block);
        }
        // As many as it takes, and more of its turn was to come.
        table.symbols(9, (0..15).chain([18]), 20);
        let last = BlockId::image(9);
        assert!(!table.events.contains(&Event::Check(last)));
        table.hear(Via::Group, image_gone());
        assert!(table.events.contains(&Event::Check(last)));
        assert_eq!(table.outcome(), None);
        table.checked(last, checked);
        if checked == Checked::Whole {
            table.session.handle_stored(table.now, 9);
            table.drain();
            assert!(table.events.contains(&Event::Flush));
        } else {
            assert_eq!(table.failure(), Failure::ImageGone("it changed".into()));
        }
    }
}

#[test]
fn where_another_session_has_the_image_it_goes_on_there() {
    let mut table = Table::receiving();
    table.offer(SessionId(9), "disk", 1);
    table.hear(Via::Group, image_gone());
    assert_eq!(table.outcome(), None);
    table.offer(SessionId(9), "disk", 1);
    let chosen = |event: &Event| matches!(event, Event::Chosen(it) if it.session == SessionId(9));
    assert!(table.events.iter().any(chosen));
    // One that is not heard again is not waited for.
    let mut table = Table::receiving();
    table.offer(SessionId(9), "disk", 1);
    table.hear(Via::Group, image_gone());
    table.run(Duration::from_secs(4));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(2));
    assert_eq!(table.failure(), Failure::ImageGone("it changed".into()));
}

#[test]
fn whoever_waits_for_the_image_is_told_once_that_its_name_means_another_one() {
    let others = |table: &Table| {
        let is_other = |event: &&Event| match event {
            Event::Notice(Notice::OtherImage(offer)) => offer.announce.image == ImageId([2; 32]),
            _ => false,
        };
        table.events.iter().filter(is_other).count()
    };
    let mut table = Table::receiving();
    table.offer(SessionId(8), "disk", 2);
    assert_eq!(others(&table), 0, "its own sender is there");
    table.run(Duration::from_secs(3));
    table.offer(SessionId(7), "another", 3);
    for _ in 0..3 {
        table.offer(SessionId(8), "disk", 2);
        table.run(Duration::from_millis(250));
    }
    assert_eq!(others(&table), 1);
    assert_eq!(table.outcome(), None);
    let mut table = Table::receiving();
    table.receive_all();
    table.run(Duration::from_secs(3));
    table.offer(SessionId(8), "disk", 2);
    assert_eq!(others(&table), 0, "it has everything");
}

#[test]
fn a_sender_that_sends_nothing_useful_is_given_up() {
    let mut table = Table::receiving();
    table.run_with_sender(Duration::from_secs(33));
    assert_eq!(table.failure(), Failure::Stalled);
}

#[test]
fn being_ejected_or_stopped_ends_it() {
    let mut table = Table::receiving();
    let other = Eject { receiver: ReceiverId(1), reason: EjectReason::Replaced };
    table.hear(Via::Unicast, Message::Eject(other));
    assert_eq!(table.outcome(), None);
    let eject = Eject { receiver: ME, reason: EjectReason::Replaced };
    table.hear(Via::Unicast, Message::Eject(eject));
    assert_eq!(table.failure(), Failure::Ejected(EjectReason::Replaced));
    let mut table = Table::receiving();
    table.session.handle_stop(table.now);
    table.run(Duration::from_secs(1));
    assert!(table.sent.iter().any(|message| matches!(message, Message::Leave(_))));
    assert_eq!(table.failure(), Failure::Interrupted);
}

#[test]
fn a_sender_that_forgot_us_does_not_undo_the_flush() {
    let mut table = Table::receiving();
    table.receive_all();
    let refuse = Refuse { nonce: [0; 16], reason: RefuseReason::Rejoin, mtu: 1500 };
    table.hear(Via::Unicast, Message::Refuse(refuse));
    table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
    table.run(Duration::from_secs(61));
    assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: false }));
    let flushes = table.events.iter().filter(|event| **event == Event::Flush);
    assert_eq!(flushes.count(), 1);
}

#[test]
fn without_a_limit_the_wait_for_a_sender_neither_ends_nor_spins() {
    let mut table = Table::receiving();
    table.session.config.receive_timeout = None;
    table.run(Duration::from_secs(3));
    let mut wakes = 0;
    let end = table.now + Duration::from_secs(600);
    while table.now < end {
        table.now = table.session.poll_timeout().unwrap().max(table.now);
        table.session.handle_timeout(table.now);
        table.drain();
        wakes += 1;
        assert!(wakes < 2_000, "it spins");
    }
    assert_eq!(table.outcome(), None);
}

/// Has `table` follow another session with the image, up to its JOIN.
fn follow(table: &mut Table, session: SessionId) {
    table.offer(session, "disk", 1);
    let chosen = |event: &Event| matches!(event, Event::Chosen(it) if it.session == session);
    assert!(table.events.iter().any(chosen), "{:?}", table.events);
    table.sent.clear();
    table.session.handle_joined(table.now);
    table.run(Duration::from_millis(100));
    assert!(matches!(&table.sent[..], [Message::Join(join)] if join.have), "{:?}", table.sent);
}

#[test]
fn whoever_has_everything_when_its_sender_is_started_again_tells_the_new_one() {
    let again = SessionId(9);
    // While it is flushed or read back, while the new one is asked, or after the old one was told.
    for flushed_after in [0, 1, 2, 3] {
        let mut table = Table::receiving();
        table.receive_all();
        let flushed = |table: &mut Table, step: u32| {
            if step == flushed_after {
                table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
                table.drain();
            }
        };
        flushed(&mut table, 0);
        table.run(Duration::from_secs(1));
        table.offer(again, "disk", 1);
        assert!(!matches!(table.events.last(), Some(Event::Chosen(_))), "the old one may be there");
        table.run(Duration::from_secs(2));
        flushed(&mut table, 1);
        follow(&mut table, again);
        flushed(&mut table, 2);
        table.done_in.clear();
        table.welcome_in(again);
        flushed(&mut table, 3);
        table.run(Duration::from_millis(100));
        assert!(!table.done_in.is_empty(), "{flushed_after}");
        assert!(table.done_in.iter().all(|session| *session == again), "{flushed_after}");
        let flushes = table.events.iter().filter(|event| **event == Event::Flush);
        assert_eq!(flushes.count(), 1, "{flushed_after}");
        table.hear_in(again, Via::Group, &Message::DoneAck(DoneAck::of(&[ME]).unwrap()));
        assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: true }), "{flushed_after}");
    }
}

#[test]
fn whoever_has_everything_ends_well_though_the_new_sender_refuses_it_or_is_gone() {
    let again = SessionId(9);
    for how in 0..4 {
        let mut table = Table::receiving();
        table.session.config.receive_timeout = None;
        table.receive_all();
        table.run(Duration::from_secs(3));
        follow(&mut table, again);
        let nonce = table.sent.iter().find_map(|message| match message {
            Message::Join(join) => Some(join.nonce),
            _ => None,
        });
        table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
        let full = Refuse { nonce: nonce.unwrap(), reason: RefuseReason::Full, mtu: 1500 };
        match how {
            0 => table.hear_in(again, Via::Unicast, &Message::Refuse(full)),
            1 => table.session.handle_stop(table.now),
            2 => table.run(Duration::from_secs(62)),
            _ => {
                let abort = Abort { reason: AbortReason::Image, text: "it changed".into() };
                table.hear_in(again, Via::Group, &Message::Abort(abort));
            }
        }
        table.drain();
        assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: false }), "{how}");
    }
}

#[test]
fn where_nobody_announces_the_new_sender_is_asked_for_while_the_image_is_flushed() {
    let ask = Some(SENDER);
    let questions = |table: &Table| {
        table
            .sent
            .iter()
            .filter(|it| matches!(it, Message::Join(join) if join.nonce == [0; 16]))
            .count()
    };
    for is_flushed in [false, true] {
        let mut table = Table::receiving();
        table.session.config.ask = ask;
        table.receive_all();
        if is_flushed {
            table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
        }
        table.run(Duration::from_millis(1_500));
        table.sent.clear();
        table.run(Duration::from_secs(3));
        assert!((3..8).contains(&questions(&table)), "{}", questions(&table));
    }
}

#[test]
fn an_end_after_the_flush_lets_it_go() {
    let mut table = Table::receiving();
    table.receive_all();
    table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
    table.hear(Via::Group, Message::End(End { complete: false, text: String::new() }));
    assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: false }));
}

#[test]
fn one_way_nothing_is_said_and_the_end_tells_what_is_lacking_once_all_is_judged() {
    let mut table = Table::new(|_| {});
    table.offer_one_way(SESSION);
    table.run(Duration::from_secs(1));
    assert!(matches!(table.events[0], Event::Chosen(_)));
    table.session.handle_joined(table.now);
    for block in [0, 4] {
        for esi in 0..16 {
            table.symbol_of(Stream::Image, Via::Group, block, esi, 1);
        }
    }
    table.symbol_of(Stream::Image, Via::Group, 9, 3, 12);
    table.symbol_of(Stream::Index, Via::Group, 0, 0, 0);
    table.checked(BlockId::index(0), Checked::Whole);
    table.run(Duration::from_secs(1));
    table.session.handle_index(table.now, Some(&BitSet::new(BLOCKS)));
    table.drain();
    table.checked(BlockId::image(0), Checked::Whole);
    table.hear(Via::Group, Message::End(End { complete: true, text: "over".into() }));
    table.run(Duration::from_millis(100));
    let ended = |event: &Event| matches!(event, Event::Finished(_));
    assert!(!table.events.iter().any(ended), "block 4 is not judged yet");
    table.checked(BlockId::image(4), Checked::TooFew);
    let lack = Lack {
        blocks: 9,
        bytes: 9 << 14,
        runs: vec![(1, 9)],
        begun: (2, 1 + 15),
        index: false,
        passes_heard: 1,
        passes: 2,
        loss_percent: 0,
        was_full: false,
        end: LackEnd::Sent,
    };
    let failure = Failure::Lacking(Box::new(lack));
    assert_eq!(table.events.last(), Some(&Event::Finished(Outcome::Failed(failure))));
    assert!(table.sent.is_empty());
}

#[test]
fn one_way_a_block_with_k_symbols_is_tried_at_the_end() {
    let mut table = Table::new(|_| {});
    table.offer_one_way(SESSION);
    table.run(Duration::from_secs(1));
    table.session.handle_joined(table.now);
    table.symbol_of(Stream::Index, Via::Group, 0, 0, 0);
    table.checked(BlockId::index(0), Checked::Whole);
    table.run(Duration::from_secs(1));
    table.session.handle_index(table.now, Some(&BitSet::new(BLOCKS)));
    // 15 source symbols, two of padding, and a repair symbol; the last of its turn is lost.
    for esi in (0..15).chain([18]) {
        table.symbol_of(Stream::Image, Via::Group, 0, esi, 1);
    }
    let check = Event::Check(BlockId::image(0));
    assert!(!table.events.contains(&check));
    table.hear(Via::Group, Message::End(End { complete: true, text: "over".into() }));
    table.run(Duration::from_millis(100));
    assert!(table.events.contains(&check));
}

#[test]
fn one_way_a_sender_that_was_stopped_is_waited_for_without_haste() {
    let mut table = Table::new(|_| {});
    table.offer_one_way(SESSION);
    table.run(Duration::from_secs(1));
    table.session.handle_joined(table.now);
    let abort = Abort { reason: AbortReason::Interrupted, text: "bye".into() };
    table.hear(Via::Group, Message::Abort(abort));
    table.now += Duration::from_secs(10);
    table.session.handle_timeout(table.now);
    table.drain();
    assert!(table.session.poll_timeout().unwrap() > table.now + Duration::from_secs(15));
    table.run(Duration::from_secs(25));
    let Some(Event::Finished(Outcome::Failed(Failure::Lacking(lack)))) = table.events.last() else {
        panic!("{:?}", table.events)
    };
    assert_eq!((&lack.end, lack.passes_heard), (&LackEnd::Stopped("bye".into()), 0));
    assert!(table.sent.is_empty());
}

/// Whole blocks that it asks for.
fn whole_asked(needs: &[Need]) -> Vec<u32> {
    let ranges = needs.iter().flat_map(|need| &need.needs).filter(|it| it.symbols == WHOLE);
    ranges.flat_map(|range| range.first..range.end()).collect()
}

#[test]
fn claimed_blocks_are_not_asked_for_before_they_are_looked_for_and_their_symbols_are_kept() {
    let mut table = Table::member();
    let join = table.sent.iter().find_map(|message| match message {
        Message::Join(join) => Some(join.have),
        _ => None,
    });
    assert_eq!(join, Some(false), "this one has nothing");
    table.symbol_of(Stream::Index, Via::Group, 0, 0, 0);
    table.checked(BlockId::index(0), Checked::Whole);
    let mut claims = BitSet::new(BLOCKS);
    for block in 0..6 {
        claims.insert(block);
    }
    table.session.handle_claims(&claims);
    table.session.handle_index(table.now, Some(&BitSet::new(BLOCKS)));
    table.drain();
    table.sent.clear();
    table.run_with_sender(Duration::from_millis(300));
    assert!(whole_asked(&table.needs()).iter().all(|block| (6..10).contains(block)));
    assert_eq!(table.session.status(table.now).claimed_blocks, 6);
    // Others found sooner that they lack blocks 0 and 1.
    assert_eq!(table.symbols(0, 0..15, 17), [Verdict::Wanted; 15]);
    assert_eq!(table.symbols(1, 0..16, 16)[15], Verdict::Enough);
    table.run_with_sender(Duration::from_millis(300));
    assert!(table.needs().iter().flat_map(|it| &it.needs).all(|range| range.first >= 6));
    // Block 0 is there and block 2 is not; block 1 came.
    table.events.clear();
    table.checked(BlockId::image(0), Checked::Whole);
    table.session.handle_stored(table.now, 0);
    assert_eq!(table.events, [Event::Forget(BlockId::image(0))]);
    table.session.handle_absent(table.now, 2);
    table.session.handle_absent(table.now, 1);
    table.checked(BlockId::image(1), Checked::Whole);
    assert_eq!(table.symbols(1, 0..1, 16), [Verdict::Unwanted]);
    table.run_with_sender(Duration::from_millis(600));
    let asked = whole_asked(&table.needs());
    assert!(asked.contains(&2) && asked.iter().all(|block| *block == 2 || *block >= 6));
}

#[test]
fn without_a_sender_nobody_gives_up_while_it_finds_blocks_on_the_target() {
    let mut table = Table::searching();
    let abort = Abort { reason: AbortReason::Interrupted, text: "enough".into() };
    table.hear(Via::Group, Message::Abort(abort));
    for block in 0..4 {
        table.run(Duration::from_secs(20));
        assert_eq!(table.outcome(), None);
        table.session.handle_absent(table.now, block);
    }
    table.run(Duration::from_secs(29));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(3));
    assert_eq!(table.failure(), Failure::SenderGone(Some("enough".into())));
}

#[test]
fn what_the_target_loses_long_after_the_last_words_is_waited_for_from_then_on() {
    let bye = || Message::End(End { complete: false, text: "bye".into() });
    let gives_up_in_time = |table: &mut Table, block: u32| {
        assert_eq!(table.outcome(), None, "nothing is lacking");
        table.session.handle_lost(table.now, block);
        table.run(Duration::from_secs(29));
        assert_eq!(table.outcome(), None);
        table.run(Duration::from_secs(3));
        assert_eq!(table.failure(), Failure::SenderGone(Some("bye".into())));
    };
    let mut table = Table::receiving();
    table.receive_all();
    assert!(table.events.contains(&Event::Flush));
    table.hear(Via::Group, bye());
    table.run(Duration::from_secs(100));
    gives_up_in_time(&mut table, 7);

    // Or it takes long to write.
    let mut table = Table::receiving();
    for block in (0..BLOCKS).filter(|block| *block != 3) {
        table.symbols(block, 0..16, 16);
        table.checked(BlockId::image(block), Checked::Whole);
    }
    table.hear(Via::Group, bye());
    for block in [0, 1] {
        table.run(Duration::from_secs(20));
        table.session.handle_stored(table.now, block);
    }
    gives_up_in_time(&mut table, 7);
}

#[test]
fn a_slow_disk_is_no_standstill() {
    let mut table = Table::receiving();
    for block in (0..BLOCKS).filter(|block| *block != 3) {
        table.symbols(block, 0..16, 16);
        table.checked(BlockId::image(block), Checked::Whole);
    }
    for block in (0..BLOCKS).filter(|block| *block != 3) {
        table.run_with_sender(Duration::from_secs(20));
        assert_eq!(table.outcome(), None);
        table.session.handle_stored(table.now, block);
    }
    table.drain();
    assert!(table.events.contains(&Event::Flush));
}

#[test]
fn who_may_hold_something_says_so_when_it_joins() {
    let mut table = Table::new(|config| config.resumes = true);
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_secs(1));
    table.session.handle_joined(table.now);
    table.run(Duration::from_millis(50));
    assert!(table.sent.iter().any(|it| matches!(it, Message::Join(join) if join.have)));
}

#[test]
fn a_block_that_the_target_loses_while_it_is_flushed_is_asked_for_and_flushed_again() {
    let mut table = Table::receiving();
    table.receive_all();
    assert!(table.events.contains(&Event::Flush));
    table.events.clear();
    table.sent.clear();
    // A zero block is made once more, without being asked for.
    for block in [3, 7] {
        table.session.handle_lost(table.now, block);
    }
    table.drain();
    table.run_with_sender(Duration::from_millis(300));
    let asked = whole_asked(&table.needs());
    assert!(!asked.is_empty() && asked.iter().all(|block| *block == 7), "{asked:?}");
    assert!(!table.sent.iter().any(|message| matches!(message, Message::Done(_))));
    table.symbols(7, 0..16, 16);
    table.checked(BlockId::image(7), Checked::Whole);
    table.session.handle_stored(table.now, 7);
    table.drain();
    assert!(!table.events.contains(&Event::Flush), "block 3 is not made yet");
    table.session.handle_stored(table.now, 3);
    table.drain();
    assert!(table.events.contains(&Event::Flush));
    table.session.handle_flushed(table.now, ImageId([1; 32]), 9);
    table.drain();
    let done = table.sent.iter().find_map(|message| match message {
        Message::Done(done) => Some((done.succeeded, done.refetched_blocks)),
        _ => None,
    });
    assert_eq!(done, Some((true, 1)));
}
