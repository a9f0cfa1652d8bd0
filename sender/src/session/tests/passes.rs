//! Where nobody can answer.

use super::*;

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
