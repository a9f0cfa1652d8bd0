//! Which symbols are kept, and which blocks are asked for.

use super::*;

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
fn a_receiver_that_is_behind_says_so_and_what_it_gets_through() {
    let mut table = Table::receiving();
    let whole = BlockRange { first: 0, run: BLOCKS, symbols: WHOLE };
    table.sync(&[whole]);
    table.run(Duration::from_millis(500));
    table.session.handle_drain(table.now, 90_000);
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

/// What is reported within 20 ms of which blocks were begun, others written, and the target is
/// known to take so much: how many blocks are free then, and what the target takes.
fn reports_of(table: &mut Table, drain: u32, begun: &[u32], written: &[u32]) -> Vec<(u16, u32)> {
    table.sync(&[BlockRange { first: 0, run: BLOCKS, symbols: WHOLE }]);
    for &block in begun {
        table.symbols(block, 0..1, 16);
    }
    for &block in written {
        table.symbols(block, 1..16, 16);
        table.checked(BlockId::image(block), Checked::Whole);
        table.session.handle_stored(table.now, block);
    }
    table.needs();
    for _ in 0..20 {
        table.session.handle_drain(table.now, drain);
        table.run(Duration::from_millis(1));
    }
    table.needs().iter().map(|need| (need.free_blocks, need.drain_kilobytes)).collect()
}

#[test]
fn a_receiver_whose_memory_runs_short_says_so_at_once_and_once() {
    let mut table = Table::receiving();
    table.session.config.memory = Memory::for_blocks(8, 1 << 14);
    let mut reports =
        |drain, begun: &[u32], written: &[u32]| reports_of(&mut table, drain, begun, written);
    assert_eq!(reports(90_000, &[0, 1, 2, 4, 5, 6], &[]), [], "a quarter is free");
    assert_eq!(reports(0, &[7], &[]), [], "what the target takes is not known");
    assert_eq!(reports(90_000, &[], &[]), [(1, 90_000)]);
    assert_eq!(reports(80_000, &[], &[0]), []);
    assert_eq!(reports(80_000, &[8], &[]), [], "half has not been free since");
    assert_eq!(reports(80_000, &[], &[1, 2, 4]), [], "now it is");
    assert_eq!(reports(80_000, &[9], &[]), [], "three eighths");
    (0..2).for_each(|block| table.session.handle_lost(table.now, block));
    assert_eq!(reports_of(&mut table, 70_000, &[0, 1], &[]), [(1, 70_000)]);
}

#[test]
fn a_receiver_of_a_large_group_says_so_when_it_is_polled() {
    let mut table = Table::receiving();
    table.session.config.memory = Memory::for_blocks(8, 1 << 14);
    table.sync_with(0, &[], |sync| (sync.group_log2, sync.feedback_window_ms) = (10, 150));
    assert!(!table.session.asking.window().is_zero());
    for block in [0, 1, 2, 4, 5, 6, 7] {
        table.symbols(block, 0..1, 16);
    }
    table.needs();
    table.session.handle_drain(table.now, 90_000);
    table.run(Duration::from_millis(100));
    assert!(table.needs().iter().all(|need| !need.needs.is_empty()), "no plain report");
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
