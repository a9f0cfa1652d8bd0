//! What receivers say they need, and what they are sent.

use super::*;

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
fn what_the_group_was_never_sent_goes_to_all_whoever_finds_out_first_that_it_is_lacking() {
    let mut table = Table::new(|config| config.receivers_min = 2);
    let nodes = [table.join_again(1), table.join_again(2)];
    table.run(LONG);
    let destinations = |table: &Table, from: usize| -> Vec<(u32, bool)> {
        let of_image = table.bursts[from..].iter().filter(|it| it.block.stream == Stream::Image);
        of_image.map(|it| (it.block.number, it.to == Destination::Group)).collect()
    };
    table.need(nodes[0], &[BlockRange::one(7, WHOLE)]);
    table.run(LONG);
    assert!(destinations(&table, 0).iter().all(|it| *it == (7, true)), "the other may need it");
    assert_eq!(table.symbols_of(7, 0), 16);

    let before = table.bursts.len();
    table.need(nodes[1], &[BlockRange::one(7, 2)]);
    table.run(LONG);
    assert!(destinations(&table, before).iter().all(|it| *it == (7, false)), "all have heard it");
    assert_eq!(table.symbols_of(7, before), 3);

    let before = table.bursts.len();
    let late = [table.join_again(3), table.join_again(4)];
    table.need(late[0], &[BlockRange::one(7, WHOLE)]);
    table.run(LONG);
    let to_all = destinations(&table, before);
    assert!(to_all.iter().all(|it| *it == (7, true)), "another late one may need it");
    assert_eq!(table.symbols_of(7, before), 16);
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
