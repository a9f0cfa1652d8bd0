//! Where the sender hears nothing.

use super::*;

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
