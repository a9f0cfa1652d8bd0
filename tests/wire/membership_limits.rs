//! Limits of ANNOUNCE, JOIN, WELCOME and REFUSE.

use imgcast_common::{layout::Layout, wire::WireError};

use crate::vector::{Vector, assert_limits, with_text};

const LAYOUT: WireError = WireError::Field("layout");

#[test]
fn t_is_a_multiple_of_32_from_64_to_8896() {
    let rejected = [0, 1, 32, 63, 65, 80, 1400, 8895, 8897, 8928, u16::MAX].map(u16::to_be_bytes);
    for name in ["announce-ipv4", "announce-ipv6"] {
        let accepted = [160, 1376, 1408, 8896].map(u16::to_be_bytes);
        assert_limits(name, "T", &accepted, &rejected, LAYOUT);
    }
    let small_blocks = Vector::load("announce-ipv4").with("log2 B", [10]);
    let small_image = small_blocks.with("image bytes", 1_000_000u64.to_be_bytes());
    assert!(small_image.clone().with("T", 64u16.to_be_bytes()).parse().is_ok());
    for octets in rejected {
        assert_eq!(small_image.clone().with("T", octets).parse(), Err(LAYOUT), "{octets:?}");
    }
}

#[test]
fn a_block_is_of_2_to_the_10_to_2_to_the_23_octets() {
    let accepted = [[13], [20], [23]];
    assert_limits("announce-ipv4", "log2 B", &accepted, &[[9], [24], [64], [255]], LAYOUT);
    let small = Vector::load("announce-ipv4").with("image bytes", 1u64.to_be_bytes());
    assert!(small.clone().with("log2 B", [10]).parse().is_ok());
    for log2 in [0, 9] {
        assert_eq!(small.clone().with("log2 B", [log2]).parse(), Err(LAYOUT));
    }
}

#[test]
fn an_image_is_of_1_to_2_to_the_43_octets() {
    let accepted = [1, 1 << 43].map(u64::to_be_bytes);
    let rejected = [0, (1 << 43) + 1, u64::MAX].map(u64::to_be_bytes);
    assert_limits("announce-short", "image bytes", &accepted, &rejected, LAYOUT);
}

#[test]
fn an_image_is_of_no_more_than_2_to_the_20_blocks() {
    let accepted = [1 << 40].map(u64::to_be_bytes);
    let rejected = [(1 << 40) + 1, 1 << 43].map(u64::to_be_bytes);
    assert_limits("announce-ipv4", "image bytes", &accepted, &rejected, LAYOUT);
}

#[test]
fn a_block_is_of_no_more_than_8111_symbols() {
    // 8 MiB make 7,944 symbols of 1,056 octets, but 8,192 of 1,024.
    let accepted = [1056, 8896].map(u16::to_be_bytes);
    assert_limits("announce-short", "T", &accepted, &[1024u16.to_be_bytes()], LAYOUT);
}

#[test]
fn the_index_of_every_layout_that_comes_through_can_be_cut() {
    for (bytes, log2, symbol_size) in [(1 << 43, 23, 8896), (1 << 30, 10, 64), (1, 10, 8896)] {
        let index = Layout::new(bytes, log2, symbol_size).unwrap().of_index();
        assert_eq!(Layout::new(index.bytes(), log2, symbol_size), Some(index));
    }
}

#[test]
fn the_data_group_is_a_multicast_address_of_a_known_family_with_a_port() {
    let group = WireError::Field("data group");
    for (ipv4, reason) in [
        ([239, 255, 75, 205, 0], None),
        ([224, 0, 1, 20, 0], None),
        ([192, 0, 2, 1, 0], Some(group)),
        ([255, 255, 255, 255, 0], Some(group)),
        ([0, 0, 0, 0, 0], Some(group)),
        ([239, 255, 75, 205, 1], Some(WireError::Field("address"))),
    ] {
        let mut octets = [0; 16];
        octets[..5].copy_from_slice(&ipv4);
        let vector = Vector::load("announce-ipv4").with("data group address", octets);
        assert_eq!(vector.parse().err(), reason, "{ipv4:?}");
    }
    let unicast = [[0; 16], [0x20; 16], [0xfe; 16]];
    assert_limits("announce-ipv6", "data group address", &[[0xff; 16]], &unicast, group);
    let family = WireError::Field("address family");
    let families = [[0], [5], [7], [255]];
    assert_limits("announce-ipv6", "data group family", &[[6]], &families, family);
    let ports = [1, u16::MAX].map(u16::to_be_bytes);
    assert_limits("announce-ipv4", "data group port", &ports, &[[0, 0]], group);
}

#[test]
fn the_unicast_port_is_not_0() {
    let ports = [1, u16::MAX].map(u16::to_be_bytes);
    let reason = WireError::Field("unicast port");
    assert_limits("announce-ipv4", "unicast port", &ports, &[[0, 0]], reason);
}

#[test]
fn a_sender_is_gathering_sending_idle_or_closing() {
    for name in ["announce-ipv4", "welcome", "sync"] {
        let states = [[0], [1], [2], [3]];
        assert_limits(name, "state", &states, &[[4], [255]], WireError::Field("state"));
    }
}

#[test]
fn only_an_announce_is_one_way_and_that_changes_nothing_of_its_state() {
    let (one_way, field) = ([[0x80], [0x81], [0x82], [0x83]], WireError::Field("state"));
    assert_limits("announce-one-way", "state", &one_way, &[[0x84], [0x8f], [0xc4]], field);
    for name in ["welcome", "sync"] {
        assert_limits(name, "state", &[[0]], &one_way, field);
    }
}

#[test]
fn the_gpt_of_an_image_counts_in_sectors_of_512_to_4096_octets_or_there_is_none() {
    let sizes = [[0x00], [0x10], [0x23], [0x30], [0x40], [0xc0]];
    let reason = WireError::Field("sector size");
    assert_limits("announce-ipv4", "state", &sizes, &[[0x50], [0x60], [0x71], [0xf0]], reason);
}

#[test]
fn a_name_is_1_to_64_letters_digits_dots_underscores_and_hyphens() {
    let reason_of = |name: &[u8]| with_text("announce-ipv4", "name", name).parse().err();
    for name in ["a", "A-Z_0.9", "...", "..a", &"n".repeat(64)] {
        assert_eq!(reason_of(name.as_bytes()), None, "{name:?}");
    }
    for name in ["", ".", "..", "a/b", "/dev/sda", "a b", "a\\b", "ü", "a:b", "*"] {
        assert_eq!(reason_of(name.as_bytes()), Some(WireError::Field("name")), "{name:?}");
    }
    for name in [&[b'n'; 65][..], b"a\0b", b"a\nb", b"\x1b[2J", b"\xff"] {
        assert_eq!(reason_of(name), Some(WireError::Field("text")), "{name:?}");
    }
}

#[test]
fn padding_is_of_zeroes_of_any_length() {
    for name in ["announce-ipv4", "announce-ipv6", "join", "join-ask", "join-unfit", "welcome"] {
        let mut padding = vec![0; 100];
        assert!(Vector::load(name).with("padding", &padding).parse().is_ok(), "{name}");
        assert!(Vector::load(name).with("padding", []).parse().is_ok(), "{name}");
        for octet in [0, 50, 99] {
            padding.fill(0);
            padding[octet] = 1;
            let parsed = Vector::load(name).with("padding", &padding);
            assert_eq!(parsed.parse(), Err(WireError::Length), "{name}: octet {octet}");
        }
    }
}

#[test]
fn join_has_something_or_nothing_and_no_unknown_flags() {
    assert_limits("join", "have", &[[0], [1]], &[[2], [255]], WireError::Field("have"));
    let flags = [[0], [1], [2], [3]];
    assert_limits("join", "join flags", &flags, &[[4], [7], [128]], WireError::Field("flags"));
}

#[test]
fn unknown_capabilities_are_no_reason_to_refuse_a_receiver() {
    let capabilities = [0, 1, u16::MAX].map(u16::to_be_bytes);
    assert_limits("join", "capabilities", &capabilities, &[], WireError::Length);
}

#[test]
fn a_host_name_is_up_to_64_octets_of_text() {
    let reason_of = |host: &[u8]| with_text("join", "host", host).parse().err();
    for host in ["", "x", "ü", &"h".repeat(64)] {
        assert_eq!(reason_of(host.as_bytes()), None, "{host:?}");
    }
    for host in [&[b'h'; 65][..], b"\x07", b"\x7f", b"\xc3", b"a\nb", "\u{9b}".as_bytes()] {
        assert_eq!(reason_of(host), Some(WireError::Field("text")), "{host:?}");
    }
}

#[test]
fn a_handshake_is_up_to_256_octets() {
    for (len, reason) in [(0u16, None), (256, None), (257, Some(WireError::Field("handshake")))] {
        let octets = vec![7; usize::from(len)];
        let vector = Vector::load("join-mtu").with("handshake length", len.to_be_bytes());
        assert_eq!(vector.with("handshake", octets).parse().err(), reason, "{len}");
    }
    let beyond = Vector::load("join-mtu").with("handshake length", 49u16.to_be_bytes());
    assert_eq!(beyond.parse(), Err(WireError::Length));
}

#[test]
fn welcome_grants_at_least_one_need() {
    let accepted = [1, 20, u16::MAX].map(u16::to_be_bytes);
    for field in ["needs per second", "needs burst"] {
        assert_limits("welcome", field, &accepted, &[[0, 0]], WireError::Field("limits"));
    }
}

#[test]
fn welcome_neither_floods_itself_with_reports_nor_goes_without() {
    let accepted = [1000, 10_000, 60_000].map(u32::to_be_bytes);
    let rejected = [0, 999, 60_001, u32::MAX].map(u32::to_be_bytes);
    assert_limits("welcome", "silence", &accepted, &rejected, WireError::Field("silence"));
}

#[test]
fn refuse_has_one_of_five_reasons() {
    let accepted = [[0], [1], [2], [3], [4]];
    assert_limits("refuse", "reason", &accepted, &[[5], [255]], WireError::Field("reason"));
}
