//! Receivers that are far slower than the others.

use super::*;

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
