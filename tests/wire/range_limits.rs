//! Limits of the lists of SYNC and NEED, which are checked alike.

use imgcast_common::{
    layout::symbol_size_is_valid,
    wire::{
        BlockRange, HEADER_LEN, Message, RANGES_MAX, SEALED_TRAILER_LEN, TRAILER_LEN, WHOLE,
        WireError, padded_len, ranges_max,
    },
};

use crate::vector::{Vector, assert_limits};

const RANGES: WireError = WireError::Field("ranges");
const LISTS: [&str; 2] = ["sync", "need"];

#[test]
fn a_list_has_up_to_128_runs() {
    for name in LISTS {
        for (count, reason) in [(0, None), (1, None), (128, None), (129, Some(RANGES))] {
            let runs: Vec<_> = (0..count).map(|block: u32| (block, 1, 1)).collect();
            let vector = with_runs(name, &runs);
            assert_eq!(vector.parse().err(), reason, "{name}, {count} runs");
        }
    }
}

#[test]
fn a_list_is_as_long_as_its_count_says() {
    for name in LISTS {
        assert_limits(name, "count", &[[4]], &[[0], [3], [5], [128]], WireError::Length);
    }
}

#[test]
fn runs_are_sorted_and_disjoint() {
    for name in LISTS {
        assert_eq!(with_runs(name, &[(0, 5, 1), (5, 1, 1), (9, 2, 1)]).parse().err(), None);
        for runs in [
            [(9, 2, 1), (5, 1, 1)],
            [(0, 5, 1), (4, 1, 1)],
            [(7, 1, 1), (7, 1, 1)],
            [(0, 100, 1), (50, 1, 1)],
        ] {
            assert_eq!(with_runs(name, &runs).parse(), Err(RANGES), "{name}: {runs:?}");
        }
    }
}

#[test]
fn runs_are_not_empty() {
    for name in LISTS {
        assert_eq!(with_runs(name, &[(3, 0, 1)]).parse(), Err(RANGES), "{name}");
    }
}

#[test]
fn the_end_of_a_run_does_not_overflow() {
    for name in LISTS {
        for run in [(u32::MAX, 1, 1), (1, u32::MAX, 1), (u32::MAX, u32::MAX, 1)] {
            assert_eq!(with_runs(name, &[run]).parse(), Err(RANGES), "{name}: {run:?}");
        }
    }
}

#[test]
fn runs_end_within_the_largest_image() {
    for name in LISTS {
        assert_eq!(with_runs(name, &[(0, 1 << 20, 1)]).parse().err(), None, "{name}");
        for run in [(0, (1 << 20) + 1, 1), (1 << 20, 1, 1)] {
            assert_eq!(with_runs(name, &[run]).parse(), Err(RANGES), "{name}: {run:?}");
        }
    }
}

#[test]
fn a_deficit_is_1_to_8111_symbols_or_a_whole_block() {
    for name in LISTS {
        for symbols in [1, 2, 8110, 8111, WHOLE] {
            assert_eq!(with_runs(name, &[(0, 1, symbols)]).parse().err(), None, "{symbols}");
        }
        for symbols in [0, 8112, 8194, WHOLE - 1] {
            let error = Err(WireError::Field("symbols"));
            assert_eq!(with_runs(name, &[(0, 1, symbols)]).parse(), error, "{symbols}");
        }
    }
}

#[test]
fn sync_lists_only_what_it_covers() {
    let covering = |first: u32, end: u32| {
        let vector = with_runs("sync", &[(100, 10, 1), (200, 10, 1)]);
        let vector = vector.with("covers first", first.to_be_bytes());
        vector.with("covers end", end.to_be_bytes()).parse().err()
    };
    assert_eq!(covering(100, 210), None);
    assert_eq!(covering(0, 1 << 20), None);
    for (first, end) in [(101, 210), (100, 209), (300, 400), (0, 0), (210, 100)] {
        assert_eq!(covering(first, end), Some(WireError::Field("covers")), "{first}..{end}");
    }
}

#[test]
fn what_sync_covers_is_in_order_and_within_the_largest_image() {
    let covering = |first: u32, end: u32| {
        let vector = Vector::load("sync-idle").with("covers first", first.to_be_bytes());
        vector.with("covers end", end.to_be_bytes()).parse().err()
    };
    for (first, end) in [(0, 0), (7, 7), (1 << 20, 1 << 20)] {
        assert_eq!(covering(first, end), None, "{first}..{end}");
    }
    for (first, end) in [(1, 0), (0, (1 << 20) + 1), (u32::MAX, u32::MAX)] {
        assert_eq!(covering(first, end), Some(WireError::Field("covers")), "{first}..{end}");
    }
}

#[test]
fn a_list_of_the_longest_that_t_allows_is_no_longer_than_a_symbol() {
    for symbol_size in (64..=8896).filter(|size| symbol_size_is_valid(*size)) {
        let count = ranges_max(symbol_size);
        let longest = padded_len(symbol_size) - SEALED_TRAILER_LEN + TRAILER_LEN;
        for name in LISTS {
            let octets = list_of(name, count);
            assert!(octets.len() <= longest, "{name}: {count} runs for T = {symbol_size}");
        }
        let more = list_of("sync", count + 1).len();
        assert!(count == RANGES_MAX || more > longest, "{count} runs for T = {symbol_size}");
    }
}

#[test]
fn a_longer_list_is_cut_when_it_is_written() {
    for name in LISTS {
        assert_eq!(list_of(name, RANGES_MAX + 50), list_of(name, RANGES_MAX), "{name}");
    }
}

/// The golden datagram with a list of `count` runs of one block each.
fn list_of(name: &str, count: usize) -> Vec<u8> {
    let vector = Vector::load(name);
    let (header, mut message) = vector.parse().unwrap();
    let runs = (0..2000).map(|block| BlockRange::one(block, 1)).take(count).collect();
    match &mut message {
        Message::Sync(sync) => sync.planned = runs,
        Message::Need(need) => need.needs = runs,
        other => panic!("{other:?} has no list"),
    }
    message.emit(&header, 0)
}

/// The golden datagram with these runs in place of its own; SYNC covers all of an image.
fn with_runs(name: &str, runs: &[(u32, u32, u16)]) -> Vector {
    let mut vector = Vector::load(name);
    for index in 0..vector.field("count")[0] {
        for part in ["first block", "run", "symbols"] {
            vector = vector.with(&format!("range {index} {part}"), []);
        }
    }
    if name == "sync" {
        vector = vector.with("covers end", (1u32 << 20).to_be_bytes());
    }
    let mut list = vec![u8::try_from(runs.len()).unwrap()];
    for (first, run, symbols) in runs {
        list.extend(first.to_be_bytes());
        list.extend(run.to_be_bytes());
        list.extend(symbols.to_be_bytes());
    }
    assert!(vector.octets.len() > HEADER_LEN);
    vector.with("count", list)
}
