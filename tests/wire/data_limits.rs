//! Limits of DATA, SYNC and NEED, but for the lists of the latter two.

use imgcast_common::{
    timing::{GRTT_MAX, quantise_rtt},
    wire::{Message, WireError},
};

use crate::vector::{Vector, assert_limits};

#[test]
fn a_symbol_is_a_multiple_of_32_octets_from_64_to_8896() {
    for len in [64, 96, 1376, 1408, 8896] {
        let vector = Vector::load("data-source").with("symbol", vec![9; len]);
        let Ok((_, Message::Data(data))) = vector.parse() else { panic!("{len}") };
        assert_eq!(data.symbol, vec![9; len]);
    }
    for len in [0, 1, 32, 63, 65, 80, 1400, 8895, 8897, 8928, 65_504] {
        let vector = Vector::load("data-source").with("symbol", vec![9; len]);
        assert_eq!(vector.parse(), Err(WireError::Length), "{len}");
    }
}

#[test]
fn the_stored_length_is_of_1_octet_to_8_mib() {
    let of = |stored: u32| {
        let vector = Vector::load("data-source").with("symbol", vec![9; 8896]);
        vector.with("stored", stored.to_be_bytes()).parse().err()
    };
    for stored in [1, 1 << 20, 1 << 23] {
        assert_eq!(of(stored), None, "{stored}");
    }
    for stored in [0, (1 << 23) + 1, (1 << 28) - 1] {
        assert_eq!(of(stored), Some(WireError::Field("stored length")), "{stored}");
    }
}

#[test]
fn a_stored_block_is_of_no_more_than_8111_symbols() {
    let accepted = [8111 * 64].map(u32::to_be_bytes);
    let rejected = [8111 * 64 + 1, 1 << 23].map(u32::to_be_bytes);
    let reason = WireError::Field("stored length");
    assert_limits("data-source", "stored", &accepted, &rejected, reason);
}

#[test]
fn other_codecs_than_0_are_dropped() {
    for codec in 1..16 {
        let stored = (codec << 28 | 65_536u32).to_be_bytes();
        assert_limits("data-source", "stored", &[], &[stored], WireError::Field("codec"));
    }
}

#[test]
fn a_block_number_is_below_2_to_the_20() {
    let accepted = [0, (1 << 20) - 1].map(u32::to_be_bytes);
    let rejected = [1 << 20, u32::MAX].map(u32::to_be_bytes);
    assert_limits("data-source", "block", &accepted, &rejected, WireError::Field("block"));
}

#[test]
fn an_esi_has_24_bits_and_each_of_them_counts() {
    for esi in [0, 1, 0x01_0203, (1 << 24) - 1] {
        let octets = u32::to_be_bytes(esi);
        let vector = Vector::load("data-source").with("esi", &octets[1..]);
        let Ok((_, Message::Data(data))) = vector.parse() else { panic!("{esi}") };
        assert_eq!(data.head.esi.get(), esi);
    }
}

#[test]
fn the_reserved_octets_of_data_are_zero() {
    let rejected = [[0, 1], [1, 0], [255, 255]];
    assert_limits("data-source", "reserved", &[[0, 0]], &rejected, WireError::Field("reserved"));
}

#[test]
fn grtt_is_no_longer_than_a_second() {
    let longest = quantise_rtt(GRTT_MAX);
    let rejected = [[longest + 1], [255]];
    assert_limits("sync", "grtt", &[[0], [longest]], &rejected, WireError::Field("GRTT"));
}

#[test]
fn a_group_is_of_no_more_than_2_to_the_14_receivers() {
    for field in ["group log2", "poll mask bits"] {
        let rejected = [[15], [64], [255]];
        assert_limits("sync", field, &[[0], [14]], &rejected, WireError::Field("group size"));
    }
}

#[test]
fn the_feedback_window_is_no_longer_than_two_seconds() {
    let accepted = [0, 2000].map(u16::to_be_bytes);
    let rejected = [2001, u16::MAX].map(u16::to_be_bytes);
    let reason = WireError::Field("feedback window");
    assert_limits("sync", "feedback window", &accepted, &rejected, reason);
}

#[test]
fn the_flags_of_need_are_three() {
    let accepted: Vec<_> = (0..16).filter(|flags| flags & 2 == 0).map(|flags| [flags]).collect();
    let others = [1, 4, 5, 6, 7];
    let rejected: Vec<_> = others.iter().flat_map(|bit| [[1 << bit], [1 << bit | 13]]).collect();
    assert_limits("need", "need flags", &accepted, &rejected, WireError::Field("flags"));
}

#[test]
fn no_more_blocks_are_done_than_an_image_can_have() {
    let accepted = [0, 1 << 20].map(u32::to_be_bytes);
    let rejected = [(1 << 20) + 1, u32::MAX].map(u32::to_be_bytes);
    assert_limits("need", "blocks done", &accepted, &rejected, WireError::Field("blocks done"));
}
