//! Conversations with a session.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    bits::BitSet,
    id::{BlockId, ImageId, ReceiverId, SessionId, Stream},
    layout::Layout,
    wire::{
        AbortReason, BlockRange, Done, Eject, EjectReason, Header, Join, Leave, LeaveReason,
        Message, Name, Need, NeedFlags, RefuseReason, SenderState, WHOLE, Welcome, padded_len,
    },
};

use super::*;

mod floods;

/// A session on a table: messages go in, everything that comes out is kept.
struct Table {
    session: Session,
    now: Instant,
    sent: Vec<(Destination, Message<'static>)>,
    bursts: Vec<Burst>,
    events: Vec<Event>,
    counter: u64,
    /// NEEDs that were taken.
    needs_taken: BTreeMap<ReceiverId, u64>,
}

#[derive(Clone, Copy)]
struct Node {
    address: SocketAddr,
    id: ReceiverId,
}

pub(crate) const SESSION: SessionId = SessionId(0x5e55);
const IMAGE: ImageId = ImageId([7; 32]);
const BLOCKS: u32 = 40;

impl Table {
    fn new(change: impl Fn(&mut SessionConfig)) -> Self {
        let layout = Layout::new(u64::from(BLOCKS) << 14, 14, 1024).unwrap();
        let mut zero_blocks = BitSet::new(BLOCKS);
        zero_blocks.insert(3);
        let mut config = config(layout, zero_blocks);
        change(&mut config);
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let now = Instant::now();
        let session = Session::new(config, 1, now);
        let (sent, bursts, events) = (Vec::new(), Vec::new(), Vec::new());
        let needs_taken = BTreeMap::new();
        Self { session, now, sent, bursts, events, counter: 0, needs_taken }
    }

    fn drain(&mut self) {
        loop {
            let mut idle = true;
            while let Some(transmit) = self.session.poll_transmit(self.now) {
                idle = false;
                match transmit {
                    Transmit::Message { to, message, .. } => self.sent.push((to, *message)),
                    Transmit::Burst(burst) => self.bursts.push(burst),
                }
            }
            while let Some(event) = self.session.poll_event() {
                idle = false;
                if let Event::TurnWanted { turn, .. } = event {
                    self.session.handle_turn_ready(turn);
                }
                self.events.push(event);
            }
            if idle {
                return;
            }
        }
    }

    fn hear_of(&mut self, from: SocketAddr, stream: Stream, message: &Message<'_>, octets: usize) {
        self.counter += 1;
        let header = Header { session: SESSION, stream, counter: self.counter };
        self.session.handle_message(self.now, from, &header, message, octets);
        if let Message::Need(need) = message {
            let member = self.session.member(need.receiver);
            let taken = member.is_some_and(|member| member.need_counter == self.counter);
            *self.needs_taken.entry(need.receiver).or_default() += u64::from(taken);
        }
        self.drain();
    }

    fn taken(&self, node: Node) -> u64 {
        self.needs_taken.get(&node.id).copied().unwrap_or(0)
    }

    fn hear(&mut self, from: SocketAddr, message: &Message<'_>) {
        self.hear_of(from, Stream::Image, message, 1080);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.session.poll_timeout().max(self.now).min(end);
            self.session.handle_timeout(self.now);
            self.drain();
            self.now += Duration::from_micros(1);
        }
    }

    fn join(&mut self, number: u8) -> Node {
        let address = SocketAddr::from(([10, 0, 0, number], 4000));
        self.hear(address, &join(number));
        let id = self.welcomes().last().unwrap().receiver;
        Node { address, id }
    }

    /// The same of one that holds something of the image, or all of it.
    fn join_again(&mut self, number: u8) -> Node {
        let address = SocketAddr::from(([10, 0, 0, number], 4000));
        let Message::Join(join) = join(number) else { panic!() };
        self.hear(address, &Message::Join(Join { have: true, ..join }));
        let id = self.welcomes().last().unwrap().receiver;
        Node { address, id }
    }

    fn welcomes(&self) -> Vec<Welcome> {
        let welcomes = self.sent.iter().filter_map(|(_, message)| match message {
            Message::Welcome(welcome) => Some(welcome.clone()),
            _ => None,
        });
        welcomes.collect()
    }

    fn refusals(&self) -> Vec<RefuseReason> {
        let refusals = self.sent.iter().filter_map(|(_, message)| match message {
            Message::Refuse(refuse) => Some(refuse.reason),
            _ => None,
        });
        refusals.collect()
    }

    fn need(&mut self, node: Node, needs: &[BlockRange]) {
        let echo_micros = self.session.clock.micros(self.now);
        self.hear(node.address, &need(node.id, echo_micros, needs));
        self.now += Duration::from_millis(100);
    }

    fn finish(&mut self, node: Node, image: ImageId) {
        let done = Done {
            receiver: node.id,
            succeeded: true,
            image,
            bytes_written: 1,
            seconds: 1,
            refetched_blocks: 0,
            error_code: 0,
            text: String::new(),
        };
        self.hear(node.address, &Message::Done(done));
    }

    fn symbols_of(&self, block: u32, from: usize) -> u32 {
        let bursts = self.bursts[from..].iter();
        bursts.filter(|burst| burst.block == BlockId::image(block)).map(|burst| burst.count).sum()
    }

    fn symbols_of_all(&self) -> u32 {
        self.bursts.iter().map(|burst| burst.count).sum()
    }

    fn outcome(&self) -> Option<Outcome> {
        self.events.iter().find_map(|event| match event {
            Event::Finished(outcome) => Some(outcome.clone()),
            _ => None,
        })
    }

    fn state(&self) -> SenderState {
        self.session.status().state
    }
}

/// A session that one receiver is enough for.
pub(crate) fn config(layout: Layout, zero_blocks: BitSet) -> SessionConfig {
    SessionConfig {
        session: SESSION,
        image: IMAGE,
        index_hash: [1; 32],
        layout,
        zero_blocks,
        name: Name::new("disk").unwrap(),
        sector_size: None,
        data_group: "239.255.70.7:6331".parse().unwrap(),
        unicast_port: 6330,
        mtu: 1500,
        receivers_min: 1,
        wait_min: Duration::ZERO,
        wait_max: None,
        start_timeout: Some(Duration::from_secs(30)),
        rate_start: Some(100_000_000),
        rate_max: 100_000_000,
        one_way: None,
        framing_octets: 66,
        slow_receivers: SlowReceivers::Detach,
    }
}

/// Of host `node` with its number.
pub(crate) fn join(number: u8) -> Message<'static> {
    Message::Join(Join {
        nonce: [number; 16],
        key: [number; 16],
        have: false,
        mtu: false,
        capabilities: 0,
        target_bytes: u64::MAX,
        memory_blocks: 64,
        host: format!("node{number}"),
        handshake: Vec::new(),
    })
}

fn need(receiver: ReceiverId, echo_micros: u64, needs: &[BlockRange]) -> Message<'static> {
    Message::Need(Need {
        receiver,
        echo_micros,
        hold_micros: 0,
        network_loss: Some(0),
        socket_loss: 0,
        free_blocks: 64,
        drain_kilobytes: 0,
        done_blocks: 0,
        poll: 0,
        flags: NeedFlags::default(),
        needs: needs.to_vec(),
    })
}

const LONG: Duration = Duration::from_secs(3);

#[test]
fn it_starts_when_enough_have_joined_and_the_least_wait_is_over() {
    let mut table = Table::new(|config| {
        config.receivers_min = 2;
        config.wait_min = Duration::from_secs(5);
    });
    table.join(1);
    table.run(Duration::from_secs(20));
    assert_eq!(table.state(), SenderState::Gathering);
    table.join(2);
    table.run(Duration::from_millis(100));
    assert_ne!(table.state(), SenderState::Gathering);
    let mut table = Table::new(|config| config.wait_min = Duration::from_secs(5));
    table.join(1);
    table.run(Duration::from_millis(4900));
    assert_eq!(table.state(), SenderState::Gathering);
    table.run(Duration::from_millis(200));
    assert_ne!(table.state(), SenderState::Gathering);
}

#[test]
fn it_starts_without_the_missing_ones_when_the_longest_wait_is_over() {
    let mut table = Table::new(|config| {
        config.receivers_min = 9;
        config.wait_max = Some(Duration::from_secs(5));
    });
    let node = table.join(1);
    table.run(Duration::from_secs(6));
    assert_ne!(table.state(), SenderState::Gathering);
    table.finish(node, IMAGE);
    table.run(Duration::from_secs(20));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 9, done: 1 }));
}

#[test]
fn the_operator_starts_it_with_those_who_have_joined_if_there_are_any() {
    let mut table = Table::new(|config| {
        config.receivers_min = 9;
        config.wait_min = Duration::from_secs(5);
    });
    assert!(!table.session.handle_start(table.now), "with nobody");
    table.run(Duration::from_secs(1));
    assert_eq!(table.state(), SenderState::Gathering);
    let node = table.join(1);
    assert!(table.session.handle_start(table.now));
    table.drain();
    assert_eq!(table.events.iter().filter(|event| **event == Event::Started).count(), 1);
    assert_eq!(table.state(), SenderState::Sending);
    assert!(!table.session.handle_start(table.now), "it has begun");
    let late = table.join(2);
    for node in [node, late] {
        table.finish(node, IMAGE);
    }
    table.run(Duration::from_secs(20));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 9, done: 2 }));
}

#[test]
fn who_is_done_before_the_start_counts_as_one_of_those_who_are_waited_for() {
    let mut table = Table::new(|config| config.receivers_min = 3);
    let done = table.join_again(1);
    table.finish(done, IMAGE);
    table.run(Duration::from_secs(40));
    assert_eq!((table.state(), table.outcome()), (SenderState::Gathering, None), "it has one");
    let leaving = table.join(2);
    let leave = Leave { receiver: leaving.id, reason: LeaveReason::Interrupted };
    table.hear(leaving.address, &Message::Leave(leave));
    let Message::Join(again) = join(1) else { panic!() };
    table.hear(done.address, &Message::Join(Join { nonce: [99; 16], ..again }));
    table.join(3);
    table.run(LONG);
    assert_eq!(table.state(), SenderState::Gathering, "who left or was replaced does not count");
    let other = table.join_again(4);
    assert_eq!(table.state(), SenderState::Sending);
    table.finish(other, IMAGE);
    table.run(LONG);
    let announced = table.sent.iter().rev().find_map(|(_, message)| match message {
        Message::Announce(announce) => Some(announce.receivers_joined),
        _ => None,
    });
    assert_eq!(announced, Some(3), "two who lack something, and one who is done");
    assert!(table.symbols_of_all() > 0);
}

#[test]
fn with_those_who_are_done_alone_it_starts_and_ends_when_it_is_told_to_or_has_waited_long() {
    for is_told in [false, true] {
        let mut table = Table::new(|config| {
            config.receivers_min = 2;
            config.wait_max = Some(Duration::from_secs(60));
        });
        let done = table.join_again(1);
        table.finish(done, IMAGE);
        table.run(Duration::from_secs(59));
        assert_eq!(table.state(), SenderState::Gathering);
        if is_told {
            assert!(table.session.handle_start(table.now));
        }
        table.run(Duration::from_secs(12));
        assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 2, done: 1 }));
    }
}

#[test]
fn where_all_had_the_image_it_stays_for_others_that_are_on_their_way_and_for_nobody_else() {
    let mut table = Table::new(|_| {});
    let done = table.join_again(1);
    table.finish(done, IMAGE);
    table.run(Duration::from_millis(2_900));
    assert_ne!(table.state(), SenderState::Closing);
    let late = table.join_again(2);
    table.need(late, &[BlockRange::one(7, WHOLE)]);
    table.run(LONG);
    assert!(table.symbols_of(7, 0) > 0);
    table.finish(late, IMAGE);
    assert_eq!(table.state(), SenderState::Closing);
    let mut table = Table::new(|_| {});
    let done = table.join_again(1);
    table.finish(done, IMAGE);
    table.run(Duration::from_secs(6));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 1, done: 1 }));
    let mut table = Table::new(|_| {});
    let done = table.join(1);
    table.finish(done, IMAGE);
    assert_eq!(table.state(), SenderState::Closing, "it lacked something");
}

#[test]
fn it_gives_up_when_nobody_comes() {
    let mut table = Table::new(|_| {});
    table.run(Duration::from_secs(29));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(2));
    assert_eq!(table.outcome(), Some(Outcome::NoReceivers));
}

#[test]
fn the_same_join_gets_the_same_welcome_and_a_new_run_takes_the_old_one_s_place() {
    let mut table = Table::new(|config| config.receivers_min = 9);
    let node = table.join(1);
    assert_eq!(table.join(1).id, node.id);
    let Message::Join(again) = join(1) else { panic!() };
    table.hear(node.address, &Message::Join(Join { nonce: [99; 16], ..again }));
    assert_ne!(table.welcomes().last().unwrap().receiver, node.id);
    let ejected = |(to, message): &(Destination, Message<'_>)| {
        matches!(message, Message::Eject(eject) if eject.receiver == node.id)
            && *to == Destination::Unicast(node.address)
    };
    assert!(table.sent.iter().any(ejected));
    assert_eq!(table.session.status().active, 1);
}

#[test]
fn a_join_that_is_smaller_than_its_welcome_is_not_answered() {
    let mut table = Table::new(|_| {});
    let from = SocketAddr::from(([10, 0, 0, 1], 4000));
    table.hear_of(from, Stream::Image, &join(1), padded_len(1024) - 1);
    assert!(table.welcomes().is_empty() && table.refusals().is_empty());
    let Message::Join(unpadded) = join(1) else { panic!() };
    table.hear_of(from, Stream::Image, &Message::Join(Join { mtu: true, ..unpadded }), 100);
    assert_eq!(table.refusals(), [RefuseReason::Mtu]);
}

#[test]
fn at_most_16384_receivers_and_1024_half_open_ones() {
    let mut table = Table::new(|config| config.receivers_min = 20_000);
    let confirm = |table: &mut Table, id: u32, address| {
        table.now += Duration::from_millis(1);
        table.hear(address, &need(ReceiverId(id), 0, &[]));
    };
    let mut admitted = 0;
    for number in 0..u32::try_from(MEMBERS_MAX).unwrap() + 10 {
        let address = SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + number), 4000));
        let Message::Join(any) = join(0) else { panic!() };
        let mut nonce = [1; 16];
        nonce[..4].copy_from_slice(&number.to_be_bytes());
        table.hear(address, &Message::Join(Join { nonce, key: nonce, ..any }));
        if number == HALF_OPEN_MAX {
            assert_eq!(table.welcomes().len(), HALF_OPEN_MAX as usize, "one too many waits");
            for id in 0..HALF_OPEN_MAX {
                let ip = std::net::Ipv4Addr::from(0x0a00_0000 + id);
                confirm(&mut table, id, SocketAddr::from((ip, 4000)));
            }
            let Message::Join(any) = join(0) else { panic!() };
            table.hear(address, &Message::Join(Join { nonce, key: nonce, ..any }));
        }
        if let Some(welcome) = table.welcomes().last()
            && welcome.nonce == nonce
        {
            admitted += 1;
            if number >= HALF_OPEN_MAX {
                confirm(&mut table, welcome.receiver.0, address);
            }
        }
        table.sent.retain(|(_, message)| {
            matches!(message, Message::Refuse(_))
                || (number < HALF_OPEN_MAX && matches!(message, Message::Welcome(_)))
        });
    }
    assert_eq!(admitted, MEMBERS_MAX);
    assert_eq!(table.refusals(), [RefuseReason::Full; 10]);
}

#[test]
fn a_fresh_receiver_is_sent_everything_but_the_zero_blocks_once() {
    let mut table = Table::new(|_| {});
    table.join(1);
    table.run(LONG);
    for block in 0..BLOCKS {
        let expected = if block == 3 { 0 } else { 16 };
        assert_eq!(table.symbols_of(block, 0), expected, "block {block}");
    }
    let index: u32 =
        table.bursts.iter().filter(|b| b.block.stream == Stream::Index).map(|b| b.count).sum();
    assert_eq!(index, 2 + 4, "two source symbols and the least repair");
    assert_eq!(table.state(), SenderState::Idle);
}

#[test]
fn a_deficit_is_answered_with_one_symbol_more_and_merged_by_maximum() {
    let mut table = Table::new(|config| config.receivers_min = 3);
    let nodes = [table.join(1), table.join(2), table.join(3)];
    table.run(LONG);
    let before = table.bursts.len();
    for (node, deficit) in nodes.into_iter().zip([2, 5, 3]) {
        let echo = table.session.clock.micros(table.now);
        let message = need(node.id, echo, &[BlockRange::one(7, deficit)]);
        table.counter += 1;
        let header = Header { session: SESSION, stream: Stream::Image, counter: table.counter };
        table.session.handle_message(table.now, node.address, &header, &message, 100);
    }
    table.run(Duration::from_millis(200));
    let to_all: Vec<_> =
        table.bursts[before..].iter().filter(|b| b.to == Destination::Group).collect();
    let symbols: u32 = to_all.iter().map(|burst| burst.count).sum();
    assert_eq!(symbols, 6, "for the largest deficit, 5");
    let one = Destination::Unicast(nodes[0].address);
    let to_one = table.bursts[before..].iter().filter(|burst| burst.to == one);
    let symbols: u32 = to_one.map(|burst| burst.count).sum();
    assert_eq!(symbols, 3, "it was the only one so far");
    let esis: Vec<u32> =
        table.bursts[before..].iter().map(|b| b.head(0).unwrap().esi.get()).collect();
    assert!(esis.iter().all(|esi| *esi >= 18), "repair symbols, never sent before: {esis:?}");
}

#[test]
fn who_lacks_little_of_a_block_does_not_wait_until_it_is_sent_again_for_a_late_joiner() {
    let mut table = Table::new(|_| {});
    let early = table.join(1);
    table.run(LONG);
    let before = table.bursts.len();
    table.join(2);
    let echo = table.session.clock.micros(table.now);
    table.hear(early.address, &need(early.id, echo, &[BlockRange::one(30, 2)]));
    table.run(LONG);
    let bursts = &table.bursts[before..];
    let first = |block| bursts.iter().position(|burst| burst.block == BlockId::image(block));
    assert!(first(30) < first(20), "at once");
    assert!(bursts[first(30).unwrap()].head(0).unwrap().esi.get() >= 18, "repair symbols");
    assert_eq!(table.symbols_of(30, before), 3 + 16);
}

#[test]
fn what_a_late_joiner_missed_of_a_block_that_ran_is_left_to_its_next_turn() {
    let mut table = Table::new(|_| {});
    table.join(1);
    table.run(Duration::from_millis(20));
    let late = table.join(2);
    let before = table.bursts.len();
    assert!((16..30 * 16).contains(&table.symbols_of_all()), "in the middle");
    let echo = table.session.clock.micros(table.now);
    let needs = [BlockRange::one(0, 10), BlockRange::one(1, 3)];
    table.hear(late.address, &need(late.id, echo, &needs));
    table.run(LONG);
    let sent = |block| table.symbols_of(block, before);
    assert_eq!([sent(0), sent(1)], [16, 4 + 16], "ten of sixteen are much, three are not");
}

#[test]
fn needs_of_a_lone_receiver_are_answered_by_unicast_when_nothing_is_new() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    let before = table.bursts.len();
    table.need(node, &[BlockRange::one(7, 2), BlockRange::one(9, WHOLE)]);
    table.run(Duration::from_millis(200));
    let to = Destination::Unicast(node.address);
    assert!(table.bursts[before..].iter().all(|burst| burst.to == to));
    assert_eq!((table.symbols_of(7, before), table.symbols_of(9, before)), (3, 16));
}

#[test]
fn a_need_beyond_the_image_or_for_a_zero_block_changes_nothing() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    let before = table.bursts.len();
    table.need(node, &[BlockRange { first: 30, run: 11, symbols: WHOLE }]);
    table.need(node, &[BlockRange::one(3, WHOLE)]);
    table.run(Duration::from_secs(1));
    assert_eq!(table.bursts.len(), before);
}

#[test]
fn one_receiver_s_needs_are_taken_ten_at_once_and_twenty_a_second() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    for _ in 0..100 {
        table.hear(node.address, &need(node.id, 0, &[BlockRange::one(7, 1)]));
    }
    assert_eq!(table.taken(node), 10);
    for _ in 0..100 {
        table.now += Duration::from_millis(10);
        table.hear(node.address, &need(node.id, 0, &[BlockRange::one(7, 1)]));
    }
    let taken = table.taken(node);
    assert!((29..=31).contains(&taken), "{taken}");
}

#[test]
fn what_a_receiver_asks_for_again_counts_once_as_repaired() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    let repaired = |table: &Table| table.session.member(node.id).unwrap().repaired_symbols;
    for _ in 0..3 {
        table.need(node, &[BlockRange::one(7, 3), BlockRange::one(9, 2)]);
    }
    assert_eq!(repaired(&table), 5);
    table.need(node, &[BlockRange::one(7, 1)]);
    assert_eq!(repaired(&table), 5, "some of its repairs were lost");
    table.need(node, &[BlockRange::one(7, 4), BlockRange::one(8, WHOLE)]);
    assert_eq!((repaired(&table), table.taken(node)), (6, 5));
}

#[test]
fn old_or_foreign_feedback_is_ignored() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    let message = need(node.id, 0, &[BlockRange::one(7, 1)]);
    let header = Header { session: SESSION, stream: Stream::Image, counter: 1 };
    table.hear(node.address, &need(node.id, 0, &[]));
    table.session.handle_message(table.now, node.address, &header, &message, 100);
    let other = SocketAddr::from(([10, 0, 0, 250], 4000));
    table.hear(other, &message);
    assert_eq!(table.session.member(node.id).unwrap().repaired_symbols, 0);
}

#[test]
fn done_is_acknowledged_by_both_ways_and_ends_the_session() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    table.finish(node, IMAGE);
    for to in [Destination::Group, Destination::Unicast(node.address)] {
        let acknowledged = |(sent_to, message): &(Destination, Message<'_>)| {
            matches!(message, Message::DoneAck(ack) if ack.includes(node.id)) && *sent_to == to
        };
        assert!(table.sent.iter().any(acknowledged), "{to:?}");
    }
    assert_eq!(table.state(), SenderState::Closing);
    table.run(Duration::from_secs(2));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 1, done: 1 }));
}

#[test]
fn the_group_is_told_with_the_next_sync_of_all_who_are_done() {
    let mut table = Table::new(|config| config.receivers_min = 4);
    let nodes: Vec<Node> = (1..=4).map(|number| table.join(number)).collect();
    table.run(LONG);
    table.sent.clear();
    nodes[..3].iter().for_each(|node| table.finish(*node, IMAGE));
    table.run(Duration::from_millis(600));
    let to_group = table.sent.iter().filter_map(|(to, message)| match message {
        Message::DoneAck(ack) if *to == Destination::Group => Some(ack),
        _ => None,
    });
    let told: Vec<_> = to_group.collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(nodes[..3].iter().all(|node| told[0].includes(node.id)));
}

#[test]
fn a_receiver_with_another_image_is_not_done() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    table.finish(node, ImageId([8; 32]));
    assert_eq!(table.session.member(node.id).unwrap().state, MemberState::Failed);
    table.run(Duration::from_secs(20));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 1, done: 0 }));
}

#[test]
fn who_leaves_is_not_waited_for() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    let leave = Leave { receiver: node.id, reason: LeaveReason::Interrupted };
    table.hear(node.address, &Message::Leave(leave));
    table.run(Duration::from_secs(20));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 1, done: 0 }));
}

#[test]
fn who_says_nothing_for_a_minute_and_twenty_polls_is_lost_and_may_come_back() {
    let mut table = Table::new(|config| config.receivers_min = 2);
    let (silent, lively) = (table.join(1), table.join(2));
    table.run(LONG);
    for _ in 0..56 {
        table.need(lively, &[]);
        table.run(Duration::from_millis(900));
        assert_eq!(table.session.member(silent.id).unwrap().state, MemberState::Active);
    }
    table.run(Duration::from_secs(25));
    assert_eq!(table.session.member(silent.id).unwrap().state, MemberState::Lost);
    table.need(silent, &[]);
    assert_eq!(table.session.member(silent.id).unwrap().state, MemberState::Active);
}

#[test]
fn stopping_tells_everybody_and_ends_soon() {
    let mut table = Table::new(|_| {});
    table.join(1);
    table.run(Duration::from_millis(10));
    table.session.handle_stop(table.now, AbortReason::Interrupted, "enough");
    table.run(Duration::from_secs(1));
    let aborts = table
        .sent
        .iter()
        .filter(|(to, message)| matches!(message, Message::Abort(_)) && *to == Destination::Group);
    assert!(aborts.count() >= 5);
    assert_eq!(table.outcome(), Some(Outcome::Aborted(AbortReason::Interrupted)));
    table.join_late();
    assert_eq!(table.refusals(), [RefuseReason::Ending]);
}

impl Table {
    fn join_late(&mut self) {
        self.hear(SocketAddr::from(([10, 0, 0, 99], 4000)), &join(99));
    }
}

#[test]
fn a_receiver_without_multicast_gets_everything_by_unicast() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    let before = table.bursts.len();
    let all = [BlockRange { first: 0, run: BLOCKS, symbols: WHOLE }];
    let echo = table.session.clock.micros(table.now);
    let Message::Need(plain) = need(node.id, echo, &all) else { panic!() };
    let flags = NeedFlags { no_multicast: true, ..NeedFlags::default() };
    table.hear(node.address, &Message::Need(Need { flags, ..plain }));
    table.run(Duration::from_millis(200));
    let to = Destination::Unicast(node.address);
    let unicast = table.bursts[before..].iter().filter(|burst| burst.to == to);
    let mut seen = BitSet::new(BLOCKS);
    unicast.for_each(|burst| {
        seen.insert(burst.block.number);
    });
    assert_eq!(seen.count(), BLOCKS - 1);
    assert!(table.bursts[before..].iter().all(|burst| burst.to == to), "nobody hears the group");
}

#[test]
fn reports_of_receivers_without_multicast_keep_the_rate_up() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    for _ in 0..200 {
        table.run(Duration::from_millis(100));
        let echo = table.session.clock.micros(table.now);
        let Message::Need(plain) = need(node.id, echo, &[]) else { panic!() };
        let flags = NeedFlags { no_multicast: true, ..NeedFlags::default() };
        table.hear(node.address, &Message::Need(Need { flags, ..plain }));
    }
    assert_eq!(table.session.status().rate, 100_000_000);
}

#[test]
fn after_the_last_one_left_there_is_as_much_time_for_another_as_at_first() {
    let mut table = Table::new(|config| config.receivers_min = 2);
    let node = table.join(1);
    for _ in 0..50 {
        table.need(node, &[]);
        table.run(Duration::from_secs(1));
    }
    let leave = Leave { receiver: node.id, reason: LeaveReason::Interrupted };
    table.hear(node.address, &Message::Leave(leave));
    table.run(Duration::from_secs(29));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(2));
    assert_eq!(table.outcome(), Some(Outcome::NoReceivers));
}

#[test]
fn round_trips_of_zero_or_more_than_ten_seconds_are_ignored() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(Duration::from_secs(20));
    let before = table.session.clock.grtt();
    let future = table.session.clock.micros(table.now) + 5_000_000;
    table.hear(node.address, &need(node.id, future, &[]));
    table.hear(node.address, &need(node.id, 1_000, &[]));
    assert_eq!(table.session.clock.grtt(), before);
    let echo = table.session.clock.micros(table.now) - 300_000;
    table.hear(node.address, &need(node.id, echo, &[]));
    assert!(table.session.clock.grtt() >= Duration::from_millis(299));
}

fn one_way(passes: u8) -> Table {
    Table::new(|config| {
        config.one_way = Some(OneWay { passes, repair_percent: 10 });
        (config.receivers_min, config.wait_min) = (0, Duration::from_secs(2));
    })
}

#[test]
fn one_way_every_block_goes_out_once_a_pass_with_fresh_repair_and_then_it_is_over() {
    let mut table = one_way(3);
    table.run(Duration::from_millis(1_900));
    assert_eq!((table.state(), table.bursts.len()), (SenderState::Gathering, 0));
    table.run(Duration::from_secs(15));
    let mut symbols = std::collections::BTreeMap::<_, Vec<_>>::new();
    for burst in &table.bursts {
        assert_eq!(burst.to, Destination::Group);
        for position in 0..burst.count {
            let head = burst.head(position).unwrap();
            symbols.entry((burst.block, head.turn)).or_default().push(head.esi.get());
        }
    }
    let mut repairs = std::collections::BTreeSet::new();
    for number in (0..BLOCKS).filter(|number| *number != 3) {
        for pass in 1..=3 {
            let sent = symbols.remove(&(BlockId::image(number), pass)).unwrap();
            assert_eq!(sent[..16], (0..16).collect::<Vec<_>>()[..], "block {number}");
            assert_eq!(sent.len(), 16 + 4, "10 % of 16, at least 4");
            assert!(sent[16..].iter().all(|esi| repairs.insert((number, *esi))), "fresh");
        }
    }
    // Before each pass, in the midst of each, and at the end.
    assert_eq!(symbols.len(), 3 + 3 + 1, "{:?}", symbols.keys());
    assert!(symbols.keys().all(|(block, _)| block.stream == Stream::Index));
    let ended = Event::Finished(Outcome::Ended { expected: 0, done: 0 });
    assert!(table.events.contains(&ended) && table.events.contains(&Event::Started));
    let ends = table.sent.iter().filter(|(to, message)| {
        *to == Destination::Group && matches!(message, Message::End(end) if end.complete)
    });
    assert!(ends.count() >= 10);
}

#[test]
fn one_way_nobody_is_let_in_or_answered_and_the_announcement_says_so() {
    let mut table = one_way(2);
    let from = SocketAddr::from(([10, 0, 0, 9], 4000));
    table.run(Duration::from_millis(100));
    table.hear(from, &join(9));
    let leave = Leave { receiver: ReceiverId(0), reason: LeaveReason::Interrupted };
    table.hear(from, &Message::Leave(leave));
    assert!(table.sent.iter().all(|(to, _)| !matches!(to, Destination::Unicast(_))));
    let announce = table.sent.iter().find_map(|(_, message)| match message {
        Message::Announce(announce) => Some(announce.clone()),
        _ => None,
    });
    let announce = announce.unwrap();
    let numbers = (announce.receivers_joined, announce.receivers_expected);
    assert_eq!((announce.one_way, announce.start_in_ms, numbers), (true, 2_000, (0, 2)));
    // An operator who sees that all is ready need not wait.
    assert!(table.session.handle_start(table.now));
    assert_eq!(table.state(), SenderState::Sending);
}

/// A session with three receivers, the first of which takes a tenth of the rate.
fn with_a_slow_one(slow_receivers: SlowReceivers) -> (Table, [Node; 3]) {
    let mut table = Table::new(|config| {
        config.slow_receivers = slow_receivers;
        config.receivers_min = 3;
    });
    let nodes = [table.join(1), table.join(2), table.join(3)];
    for _ in 0..20 {
        table.pace(nodes[0], 1_250);
        nodes[1..].iter().for_each(|node| table.pace(*node, 0));
        table.run(Duration::from_millis(100));
    }
    (table, nodes)
}

impl Table {
    /// A receiver reports what it gets through, in kB/s, and that it is behind; 0: it keeps up.
    fn pace(&mut self, node: Node, drain_kilobytes: u32) {
        let echo = self.session.clock.micros(self.now);
        let Message::Need(plain) = need(node.id, echo, &[]) else { panic!() };
        let flags = NeedFlags { behind: drain_kilobytes > 0, ..NeedFlags::default() };
        self.hear(node.address, &Message::Need(Need { drain_kilobytes, flags, ..plain }));
    }

    fn is_detached(&self, node: Node) -> bool {
        self.session.member(node.id).unwrap().detached
    }

    fn ejected_for_being_slow(&self, node: Node) -> usize {
        let to = Destination::Unicast(node.address);
        let eject = Eject { receiver: node.id, reason: EjectReason::Slow };
        let ejected = |(sent_to, message): &&(Destination, Message<'_>)| {
            matches!(message, Message::Eject(said) if *said == eject) && *sent_to == to
        };
        self.sent.iter().filter(ejected).count()
    }
}

#[test]
fn who_takes_far_less_than_the_others_is_detached_and_gets_its_needs_by_unicast() {
    let (mut table, nodes) = with_a_slow_one(SlowReceivers::Detach);
    assert_eq!(nodes.map(|node| table.is_detached(node)), [true, false, false]);
    assert!(table.events.contains(&Event::Detached(nodes[0].id)));
    assert_eq!(table.session.status().detached, 1);
    assert_eq!(table.session.status().rate, 100_000_000, "nobody waits");
    let slow = table.session.member(nodes[0].id).unwrap().slow;
    let Some(Slow::Host { takes, of }) = slow else { panic!("{slow:?}") };
    assert!((9_000_000..12_000_000).contains(&takes) && of == 100_000_000, "{slow:?}");
    let before = table.bursts.len();
    table.need(nodes[0], &[BlockRange::one(7, 2), BlockRange::one(9, WHOLE)]);
    table.run(Duration::from_millis(200));
    let to = Destination::Unicast(nodes[0].address);
    assert!(table.bursts[before..].iter().all(|burst| burst.to == to));
    assert_eq!((table.symbols_of(7, before), table.symbols_of(9, before)), (3, 16));
}

#[test]
fn who_keeps_up_again_or_is_left_alone_is_not_detached_any_more() {
    let (mut table, nodes) = with_a_slow_one(SlowReceivers::Detach);
    for _ in 0..15 {
        nodes.iter().for_each(|node| table.pace(*node, 0));
        table.run(Duration::from_millis(100));
    }
    assert!(table.is_detached(nodes[0]), "it may have kept up for a moment");
    for _ in 0..15 {
        nodes.iter().for_each(|node| table.pace(*node, 0));
        table.run(Duration::from_millis(100));
    }
    assert!(!table.is_detached(nodes[0]));

    let (mut table, nodes) = with_a_slow_one(SlowReceivers::Detach);
    table.finish(nodes[1], IMAGE);
    assert!(table.is_detached(nodes[0]));
    table.finish(nodes[2], IMAGE);
    assert!(!table.is_detached(nodes[0]));
    table.pace(nodes[0], 1_250);
    assert!(table.session.status().rate < 60_000_000, "the last one sets the pace");
}

#[test]
fn who_is_dropped_hears_so_with_each_word_and_is_missed_at_the_end() {
    let (mut table, nodes) = with_a_slow_one(SlowReceivers::Drop);
    assert_eq!(table.session.member(nodes[0].id).unwrap().state, MemberState::Dropped);
    let before = table.ejected_for_being_slow(nodes[0]);
    table.pace(nodes[0], 1_250);
    assert_eq!((before > 0, table.ejected_for_being_slow(nodes[0])), (true, before + 1));
    for _ in 0..30 {
        table.pace(nodes[1], 1_250);
        table.pace(nodes[2], 0);
        table.run(Duration::from_millis(100));
    }
    let state = table.session.member(nodes[1].id).unwrap().state;
    assert_eq!(state, MemberState::Active, "one of three is enough");
    nodes[1..].iter().for_each(|node| table.finish(*node, IMAGE));
    table.run(Duration::from_secs(20));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 3, done: 2 }));
}

#[test]
fn the_rate_follows_a_slow_one_if_the_others_are_to_wait() {
    let (table, nodes) = with_a_slow_one(SlowReceivers::Wait);
    assert!(nodes.iter().all(|node| !table.is_detached(*node)));
    assert!(table.session.status().rate < 60_000_000, "{}", table.session.status().rate);
}
