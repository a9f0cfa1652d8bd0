//! Each golden datagram is exactly one message, and no other octets are that message.

use std::collections::BTreeMap;

use imgcast_common::{
    id::{EncodingSymbolId, ImageId, ReceiverId, SessionId, Stream},
    layout::Layout,
    wire::{
        Abort, AbortReason, Announce, BlockRange, Data, DataHead, Done, DoneAck, Eject,
        EjectReason, End, Header, Join, Leave, LeaveReason, Message, Name, Need, NeedFlags, Poll,
        Refuse, RefuseReason, SenderState, Sync, UNICAST, WHOLE, Welcome,
    },
};

use crate::vector::{Vector, make_crc_right, make_length_right, names};

#[test]
fn every_golden_datagram_is_read_as_the_message_that_it_was_made_of() {
    let expected = expected();
    assert_eq!(names(), expected.keys().copied().collect::<Vec<_>>());
    for (name, (header, message, _)) in expected {
        assert_eq!(Vector::load(name).parse(), Ok((header, message)), "{name}");
    }
}

#[test]
fn every_message_is_written_as_its_golden_datagram_bit_for_bit() {
    for (name, (header, message, octets_min)) in expected() {
        assert_eq!(message.emit(&header, octets_min), Vector::load(name).octets, "{name}");
    }
}

#[test]
fn a_data_head_its_symbol_and_its_trailer_are_the_golden_datagram() {
    for name in ["data-source", "data-repair", "data-index"] {
        let vector = Vector::load(name);
        let Ok((header, Message::Data(data))) = vector.parse() else { panic!("{name}") };
        let head = data.head.emit(&header, u16::try_from(data.symbol.len()).unwrap());
        let trailer = imgcast_common::wire::data_trailer(&head, data.symbol);
        assert_eq!([&head[..], data.symbol, &trailer].concat(), vector.octets, "{name}");
    }
}

#[test]
fn no_truncated_datagram_is_read() {
    for name in names() {
        let vector = Vector::load(&name);
        for len in 0..vector.octets.len() {
            let cut = &vector.octets[..len];
            assert!(Message::parse(cut, vector.role()).is_err(), "{name} cut to {len}");
        }
    }
}

#[test]
fn no_body_that_lacks_its_end_is_read_whatever_length_and_checksum_say() {
    for name in names() {
        let vector = Vector::load(&name);
        let padding = if padded(&name) { vector.field("padding").len() } else { 0 };
        let body_end = vector.octets.len() - 4 - padding;
        for len in 24..body_end {
            // A shorter symbol of a valid size is a valid symbol: T is for the session to compare.
            if name.starts_with("data") && len >= 40 + 64 && (len - 40) % 32 == 0 {
                continue;
            }
            let mut cut = vector.octets[..len + 4].to_vec();
            make_length_right(&mut cut);
            make_crc_right(&mut cut);
            assert!(Message::parse(&cut, vector.role()).is_err(), "{name} cut to {len}");
        }
    }
}

#[test]
fn no_datagram_with_octets_behind_its_end_is_read() {
    for name in names() {
        let vector = Vector::load(&name);
        for octet in 0..=255 {
            let mut longer = vector.octets.clone();
            longer.push(octet);
            assert!(Message::parse(&longer, vector.role()).is_err(), "{name} and {octet}");
        }
    }
}

#[test]
fn no_body_with_octets_behind_its_end_is_read_whatever_length_and_checksum_say() {
    for name in names() {
        let vector = Vector::load(&name);
        for octet in 1..=255 {
            let crc = vector.field("crc").to_vec();
            let longer = vector.clone().with("crc", [&[octet], &crc[..]].concat());
            let mut octets = longer.octets;
            make_length_right(&mut octets);
            make_crc_right(&mut octets);
            assert!(Message::parse(&octets, vector.role()).is_err(), "{name} and {octet}");
        }
    }
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    for name in names() {
        let vector = Vector::load(&name);
        for bit in 0..vector.octets.len() * 8 {
            let mut flipped = vector.octets.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Message::parse(&flipped, vector.role()).is_err(), "{name}, bit {bit}");
        }
    }
}

fn padded(name: &str) -> bool {
    ["announce-ipv4", "announce-ipv6", "join", "join-ask", "join-unfit", "welcome"].contains(&name)
}

/// What each golden datagram says, and the length that it is padded to.
fn expected() -> BTreeMap<&'static str, (Header, Message<'static>, usize)> {
    let unicast = |counter| header(UNICAST | counter);
    let index = |counter| Header { stream: Stream::Index, ..header(counter) };
    let nowhere = Header { session: SessionId::NONE, ..header(1) };
    BTreeMap::from([
        ("announce-ipv4", (unicast(7), announce_ipv4(), 1464)),
        ("announce-ipv6", (unicast(7), announce_ipv6(), 1432)),
        ("announce-one-way", (unicast(7), announce_one_way(), 0)),
        ("announce-short", (unicast(7), announce_short(), 0)),
        ("join", (header(1), Message::Join(join()), 1464)),
        ("join-ask", (nowhere, join_ask(), 512)),
        ("join-mtu", (header(3), join_mtu(), 0)),
        ("join-unfit", (header(1), Message::Join(Join { unfit: true, ..join() }), 1464)),
        ("welcome", (unicast(8), welcome(), 1464)),
        ("refuse", (unicast(9), refuse(), 0)),
        ("data-source", (header(1000), data(4711, 12, 3, 65_536, 1011, 64), 0)),
        (
            "data-repair",
            (unicast(1001), data((1 << 20) - 1, (1 << 24) - 1, 255, 1 << 20, 0, 160), 0),
        ),
        ("data-index", (index(1002), data(0, 4, 1, 157_344, u16::MAX, 352), 0)),
        ("sync", (header(1003), Message::Sync(sync()), 0)),
        ("sync-index", (index(1004), sync_index(), 0)),
        ("sync-idle", (unicast(1005), sync_idle(), 0)),
        ("need", (header(11), Message::Need(need()), 0)),
        ("need-index", (index(12), need_index(), 0)),
        ("need-report", (header(13), need_report(), 0)),
        ("need-behind", (header(16), need_behind(), 0)),
        ("done", (header(14), Message::Done(done()), 0)),
        ("done-failed", (header(14), done_failed(), 0)),
        ("done-ack", (header(1006), done_ack(), 0)),
        ("leave", (header(15), leave(), 0)),
        ("eject", (unicast(10), eject(), 0)),
        ("end", (header(1007), end(), 0)),
        ("abort", (unicast(11), abort(), 0)),
    ])
}

fn header(counter: u64) -> Header {
    Header { session: SessionId(0x0123_4567_89ab_cdef), stream: Stream::Image, counter }
}

fn announce() -> Announce {
    Announce {
        image: ImageId(count_from(0x10)),
        index_hash: count_from(0x40),
        layout: Layout::new(5_000_000_000, 20, 1408).unwrap(),
        data_group: "239.255.75.205:6331".parse().unwrap(),
        unicast_port: 49_152,
        one_way: false,
        sector_size: None,
        state: SenderState::Gathering,
        start_in_ms: 30_000,
        receivers_expected: 40,
        receivers_joined: 12,
        salt: count_from(0x70),
        signer: [0; 32],
        signature: [0; 64],
        name: Name::new("debian-13.1_netinst").unwrap(),
    }
}

fn announce_ipv4() -> Message<'static> {
    Message::Announce(announce())
}

fn announce_ipv6() -> Message<'static> {
    Message::Announce(Announce {
        layout: Layout::new(5_000_000_000, 20, 1376).unwrap(),
        data_group: "[ff15::6331:89ab:cdef]:6331".parse().unwrap(),
        state: SenderState::Sending,
        start_in_ms: u32::MAX,
        signer: count_from(0x80),
        signature: count_from(0xa0),
        ..announce()
    })
}

fn announce_short() -> Message<'static> {
    Message::Announce(Announce {
        layout: Layout::new(1 << 43, 23, 8896).unwrap(),
        data_group: "239.255.75.205:65535".parse().unwrap(),
        ..announce()
    })
}

/// In the second of three passes.
fn announce_one_way() -> Message<'static> {
    Message::Announce(Announce {
        one_way: true,
        state: SenderState::Sending,
        start_in_ms: 0,
        receivers_expected: 3,
        receivers_joined: 2,
        ..announce()
    })
}

fn join() -> Join {
    Join {
        nonce: count_from(0x21),
        key: count_from(0x31),
        have: false,
        mtu: false,
        unfit: false,
        capabilities: 0,
        target_bytes: u64::MAX,
        memory_blocks: 256,
        host: "node-17.example".into(),
        handshake: vec![],
    }
}

fn join_ask() -> Message<'static> {
    Message::Join(Join { target_bytes: 0, host: "node-17".into(), ..join() })
}

fn join_mtu() -> Message<'static> {
    let handshake = count_from::<48>(0xc0).to_vec();
    let host = "rechner-süd".into();
    let target_bytes = 256 << 30;
    Message::Join(Join { have: true, mtu: true, target_bytes, host, handshake, ..join() })
}

fn welcome() -> Message<'static> {
    Message::Welcome(Welcome {
        nonce: count_from(0x21),
        receiver: ReceiverId(17),
        state: SenderState::Gathering,
        needs_per_second: 20,
        needs_burst: 10,
        silence_ms: 10_000,
        handshake: vec![],
    })
}

fn refuse() -> Message<'static> {
    Message::Refuse(Refuse { nonce: count_from(0x21), reason: RefuseReason::Mtu, mtu: 9000 })
}

fn data(
    block: u32,
    esi: u32,
    turn: u8,
    stored_len: u32,
    still_to_come: u16,
    symbol_size: usize,
) -> Message<'static> {
    const SYMBOL: &[u8] = &count_from::<352>(0);
    let esi = EncodingSymbolId::new(esi).unwrap();
    let head = DataHead { block, esi, turn, stored_len, still_to_come };
    Message::Data(Data { head, symbol: &SYMBOL[..symbol_size] })
}

fn sync() -> Sync {
    Sync {
        time_micros: 123_456_789,
        grtt: 106,
        group_log2: 6,
        feedback_window_ms: 90,
        rate_kilobits: 940_000,
        repair_share: 1311,
        state: SenderState::Sending,
        poll: Poll { mask_bits: 3, id: 9, nonce: 0xdead_beef },
        covers_first: 0,
        covers_end: 4769,
        planned: vec![run(0, 4, 3), run(4, 1, WHOLE), run(100, 900, 8111), run(4000, 769, WHOLE)],
    }
}

fn sync_index() -> Message<'static> {
    let planned = vec![BlockRange::one(0, WHOLE)];
    Message::Sync(Sync { poll: Poll::default(), covers_end: 1, planned, ..sync() })
}

fn sync_idle() -> Message<'static> {
    let (group_log2, state, poll) = (0, SenderState::Idle, Poll::default());
    Message::Sync(Sync { group_log2, state, poll, planned: vec![], ..sync() })
}

fn need() -> Need {
    Need {
        receiver: ReceiverId(17),
        echo_micros: 123_456_789,
        hold_micros: 1500,
        network_loss: Some(655),
        socket_loss: 66,
        free_blocks: 200,
        drain_kilobytes: 180_000,
        done_blocks: 3000,
        poll: 9,
        flags: NeedFlags::default(),
        needs: vec![run(0, 1, 1), run(1, 3, 12), run(4, 1, WHOLE), run(3000, 1769, WHOLE)],
    }
}

fn need_index() -> Message<'static> {
    let flags = NeedFlags { no_multicast: true, ..NeedFlags::default() };
    Message::Need(Need { echo_micros: 0, flags, needs: vec![run(0, 1, WHOLE)], ..need() })
}

fn need_report() -> Message<'static> {
    let flags = NeedFlags { by_unicast: true, ..NeedFlags::default() };
    Message::Need(Need { flags, needs: vec![], ..need() })
}

fn need_behind() -> Message<'static> {
    let flags = NeedFlags { behind: true, ..NeedFlags::default() };
    let (network_loss, drain_kilobytes, poll, needs) = (Some(0), 23_456, 0, vec![]);
    Message::Need(Need { network_loss, drain_kilobytes, poll, flags, needs, ..need() })
}

fn done() -> Done {
    Done {
        receiver: ReceiverId(17),
        succeeded: true,
        image: ImageId(count_from(0x10)),
        bytes_written: 5_000_000_000,
        seconds: 312,
        refetched_blocks: 2,
        error_code: 0,
        text: String::new(),
    }
}

fn done_failed() -> Message<'static> {
    Message::Done(Done {
        succeeded: false,
        image: ImageId([0; 32]),
        bytes_written: 1 << 20,
        error_code: 5,
        text: "/dev/sdb: write failed: no space left – 1 MiB written".into(),
        ..done()
    })
}

fn done_ack() -> Message<'static> {
    Message::DoneAck(DoneAck::of(&[31, 17, 16].map(ReceiverId)).unwrap())
}

fn leave() -> Message<'static> {
    Message::Leave(Leave { receiver: ReceiverId(17), reason: LeaveReason::Interrupted })
}

fn eject() -> Message<'static> {
    Message::Eject(Eject { receiver: ReceiverId(17), reason: EjectReason::Slow })
}

fn end() -> Message<'static> {
    Message::End(End { complete: true, text: "40 receivers done".into() })
}

fn abort() -> Message<'static> {
    let text = "image.raw changed while it was read".into();
    Message::Abort(Abort { reason: AbortReason::Image, text })
}

const fn run(first: u32, run: u32, symbols: u16) -> BlockRange {
    BlockRange { first, run, symbols }
}

/// Octets that count up from `first`, as the golden datagrams fill their long fields.
const fn count_from<const N: usize>(first: u8) -> [u8; N] {
    let mut octets = [0; N];
    let mut index = 0;
    while index < N {
        octets[index] = first.wrapping_add((index % 256).to_le_bytes()[0]);
        index += 1;
    }
    octets
}
