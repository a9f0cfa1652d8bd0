//! Valid messages in masses: each kind has its budget, and who exceeds his takes nothing from the
//! others.

use super::*;

/// A hundred thousand times a second.
const EVERY: Duration = Duration::from_micros(10);
const SECOND: u32 = 100_000;

/// Lets `flood` happen a hundred thousand times in a second, and an honest receiver ask for one
/// symbol ten times; returns how many of its needs were taken.
fn needs_taken_amid(table: &mut Table, node: Node, flood: impl Fn(&mut Table, u32)) -> u64 {
    let before = table.taken(node);
    for number in 0..SECOND {
        flood(table, number);
        if number % (SECOND / 10) == 0 {
            table.hear(node.address, &need(node.id, 0, &[BlockRange::one(7, 1)]));
        }
        table.now += EVERY;
    }
    table.taken(node) - before
}

#[test]
fn strangers_are_told_to_join_500_times_a_second_and_members_are_heard_all_the_while() {
    let mut table = Table::new(|config| config.receivers_min = 9);
    let node = table.join(1);
    let stranger = SocketAddr::from(([10, 9, 9, 9], 4000));
    let heard = needs_taken_amid(&mut table, node, |table, number| {
        let unknown = need(ReceiverId(77 + number % 1_000), 0, &[BlockRange::one(0, WHOLE)]);
        table.hear(stranger, &unknown);
    });
    assert_eq!(heard, 10);
    let refusals = table.refusals();
    assert!((999..=1_001).contains(&refusals.len()), "500 at once, and 500 in a second");
    assert!(refusals.iter().all(|reason| *reason == RefuseReason::Rejoin));
}

#[test]
fn who_speaks_in_a_member_s_name_from_elsewhere_is_a_stranger_and_is_not_answered() {
    let mut table = Table::new(|config| config.receivers_min = 9);
    let node = table.join(1);
    let stranger = SocketAddr::from(([10, 9, 9, 9], 4000));
    let before = table.sent.len();
    let heard = needs_taken_amid(&mut table, node, |table, _| {
        table.hear(stranger, &need(node.id, 0, &[BlockRange::one(7, 9)]));
    });
    assert_eq!(heard, 10, "and nothing of the nines");
    let to_stranger = |(to, _): &&(Destination, _)| *to == Destination::Unicast(stranger);
    assert_eq!(table.sent[before..].iter().filter(to_stranger).count(), 0);
}

#[test]
fn a_member_that_says_too_much_takes_nothing_from_the_others() {
    let mut table = Table::new(|config| config.receivers_min = 9);
    let (node, loud, done) = (table.join(1), table.join(2), table.join(3));
    table.finish(done, IMAGE);
    let before = table.sent.len();
    let heard = needs_taken_amid(&mut table, node, |table, number| match number % 3 {
        0 => table.hear(loud.address, &need(loud.id, 0, &[BlockRange::one(7, 1)])),
        1 => table.finish(done, IMAGE),
        _ => {
            let leave = Leave { receiver: done.id, reason: LeaveReason::Moved };
            table.hear(done.address, &Message::Leave(leave));
        }
    });
    assert_eq!(heard, 10);
    let of_loud = table.taken(loud);
    assert!((29..=31).contains(&of_loud), "{of_loud}: ten at once, and twenty in a second");
    let acks = table.sent[before..].iter();
    let acks = acks.filter(|(to, _)| *to == Destination::Unicast(done.address)).count();
    assert!((28..=31).contains(&acks), "{acks} answers");
}

#[test]
fn members_are_heard_5000_times_a_second_in_all() {
    let mut table = Table::new(|config| config.receivers_min = 9_999);
    let nodes: Vec<Node> = (0..1_000u16)
        .map(|number| {
            let address = SocketAddr::from(([10, 0, number.to_be_bytes()[0], 1], number));
            let Message::Join(any) = join(0) else { panic!() };
            let mut nonce = [1; 16];
            nonce[..2].copy_from_slice(&number.to_be_bytes());
            table.hear(address, &Message::Join(Join { nonce, key: nonce, ..any }));
            Node { address, id: ReceiverId(number.into()) }
        })
        .collect();
    for _ in 0..10 {
        for node in &nodes {
            table.hear(node.address, &need(node.id, 0, &[BlockRange::one(7, 1)]));
        }
    }
    let heard: u64 = nodes.iter().map(|node| table.taken(*node)).sum();
    assert_eq!(heard, 5_000, "of ten thousand");
}

#[test]
fn joins_are_answered_16384_times_at_once_and_5000_times_a_second() {
    for question in [false, true] {
        let mut table = Table::new(|config| config.receivers_min = 9);
        let from = SocketAddr::from(([10, 0, 0, 1], 4000));
        let session = if question { SessionId::NONE } else { SESSION };
        let ask = |table: &mut Table| {
            let header = Header { session, stream: Stream::Image, counter: 1 };
            table.session.handle_message(table.now, from, &header, &join(1), 1_080);
            table.drain();
        };
        (0..SECOND).for_each(|_| ask(&mut table));
        let answers = |table: &Table| {
            let to_it = |(to, _): &&(Destination, _)| *to == Destination::Unicast(from);
            table.sent.iter().filter(to_it).count()
        };
        assert_eq!(answers(&table), 16_384);
        for _ in 0..SECOND {
            table.now += EVERY;
            ask(&mut table);
        }
        let later = answers(&table) - 16_384;
        assert!((4_999..=5_001).contains(&later), "{later}");
    }
}

#[test]
fn a_thousand_receivers_may_each_ask_for_a_million_blocks_many_times() {
    let blocks = 1 << 20;
    let layout = Layout::new(u64::from(blocks) << 10, 10, 1024).unwrap();
    let mut table = Table::new(|config| {
        config.layout = layout;
        config.zero_blocks = BitSet::new(blocks);
    });
    let mut nodes: Vec<Node> = (0..=255).map(|number| table.join(number)).collect();
    nodes.truncate(200);
    for _ in 0..50 {
        for node in &nodes {
            let all = BlockRange { first: 0, run: blocks, symbols: WHOLE };
            table.hear(node.address, &need(node.id, 0, &[all]));
        }
        table.run(Duration::from_millis(50));
    }
    let status = table.session.status();
    assert_eq!((status.active, status.state), (256, SenderState::Sending));
    assert!(table.bursts.len() > 1_000, "it sends all the while");
}

#[test]
fn while_time_stands_still_nothing_is_said_a_second_time() {
    let mut table = Table::new(|_| {});
    table.join(1);
    table.run(Duration::from_millis(20));
    let said = |table: &Table| (table.sent.len(), table.bursts.len(), table.events.len());
    table.session.handle_timeout(table.now);
    table.drain();
    let before = said(&table);
    for _ in 0..10_000 {
        table.session.handle_timeout(table.now);
        table.drain();
    }
    assert_eq!(said(&table), before);
    assert_eq!(table.state(), SenderState::Sending);
}
