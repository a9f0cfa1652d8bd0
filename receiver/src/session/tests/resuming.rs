//! What is on the target from before, and what it loses.

use super::*;

/// Whole blocks that it asks for.
fn whole_asked(needs: &[Need]) -> Vec<u32> {
    let ranges = needs.iter().flat_map(|need| &need.needs).filter(|it| it.symbols == WHOLE);
    ranges.flat_map(|range| range.first..range.end()).collect()
}

#[test]
fn claimed_blocks_are_not_asked_for_before_they_are_looked_for_and_their_symbols_are_kept() {
    let mut table = Table::member();
    let join = table.joins().next().map(|join| join.have);
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
