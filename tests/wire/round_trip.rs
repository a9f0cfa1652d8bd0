//! Whatever can be said comes back as it was said.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use imgcast_common::{
    id::{EncodingSymbolId, ImageId, ReceiverId, SessionId, Stream},
    layout::{BLOCKS_MAX, Layout, SYMBOLS_MAX},
    sectors::SectorSize,
    wire::{
        Abort, AbortReason, Announce, BlockRange, Data, DataHead, Done, DoneAck, Eject,
        EjectReason, End, Header, Join, Leave, LeaveReason, Message, Name, Need, NeedFlags, Poll,
        Refuse, RefuseReason, Role, SenderState, Sync, WHOLE, Welcome,
    },
};
use proptest::{
    array::{uniform16, uniform32},
    collection::vec,
    prelude::*,
};

proptest! {
    #[test]
    fn announce_comes_back(header in plain_header(), message in announce(), padded in PADDED) {
        check(&header, &Message::Announce(message), Role::Receiver, padded)?;
    }

    #[test]
    fn join_comes_back(header in plain_header(), message in join(), padded in PADDED) {
        check(&header, &Message::Join(message), Role::Sender, padded)?;
    }

    #[test]
    fn welcome_comes_back(header in plain_header(), message in welcome(), padded in PADDED) {
        check(&header, &Message::Welcome(message), Role::Receiver, padded)?;
    }

    #[test]
    fn refuse_comes_back(header in plain_header(), message in refuse()) {
        check(&header, &Message::Refuse(message), Role::Receiver, 0)?;
    }

    #[test]
    fn data_comes_back(header in stream_header(), (head, symbol) in data()) {
        let message = Message::Data(Data { head, symbol: &symbol });
        check(&header, &message, Role::Receiver, 0)?;
    }

    #[test]
    fn sync_comes_back(header in stream_header(), message in sync()) {
        check(&header, &Message::Sync(message), Role::Receiver, 0)?;
    }

    #[test]
    fn need_comes_back(header in stream_header(), message in need()) {
        check(&header, &Message::Need(message), Role::Sender, 0)?;
    }

    #[test]
    fn done_comes_back(header in plain_header(), message in done()) {
        check(&header, &Message::Done(message), Role::Sender, 0)?;
    }

    #[test]
    fn done_ack_comes_back(
        header in plain_header(),
        base in any::<u32>(),
        bitmap in vec(any::<u8>(), 1..=1024),
    ) {
        let message = Message::DoneAck(DoneAck { base: ReceiverId(base), bitmap });
        check(&header, &message, Role::Receiver, 0)?;
    }

    #[test]
    fn leave_and_eject_come_back(
        header in plain_header(),
        id in any::<u32>(),
        leave in leave_reason(),
        slow in any::<bool>(),
    ) {
        let receiver = ReceiverId(id);
        let message = Message::Leave(Leave { receiver, reason: leave });
        check(&header, &message, Role::Sender, 0)?;
        let reason = if slow { EjectReason::Slow } else { EjectReason::Replaced };
        check(&header, &Message::Eject(Eject { receiver, reason }), Role::Receiver, 0)?;
    }

    #[test]
    fn end_and_abort_come_back(
        header in plain_header(),
        complete in any::<bool>(),
        reason in abort_reason(),
        text in text(200),
    ) {
        let end = Message::End(End { complete, text: text.clone() });
        check(&header, &end, Role::Receiver, 0)?;
        check(&header, &Message::Abort(Abort { reason, text }), Role::Receiver, 0)?;
    }
}

fn check(
    header: &Header,
    message: &Message<'_>,
    role: Role,
    octets_min: usize,
) -> Result<(), TestCaseError> {
    let datagram = message.emit(header, octets_min);
    prop_assert_eq!(Message::parse(&datagram, role), Ok((*header, message.clone())));
    prop_assert!(datagram.len() >= octets_min);
    Ok(())
}

fn plain_header() -> impl Strategy<Value = Header> {
    (1..=u64::MAX, 1..=u64::MAX).prop_map(|(session, counter)| Header {
        session: SessionId(session),
        stream: Stream::Image,
        counter,
    })
}

fn stream_header() -> impl Strategy<Value = Header> {
    (plain_header(), any::<bool>()).prop_map(|(header, index)| Header {
        stream: if index { Stream::Index } else { Stream::Image },
        ..header
    })
}

fn announce() -> impl Strategy<Value = Announce> {
    let hashes = (uniform32(any::<u8>()), uniform32(any::<u8>()), uniform16(any::<u8>()));
    let keys = (uniform32(any::<u8>()), uniform32(any::<u8>()), uniform32(any::<u8>()));
    let sectors = (0..=4u8).prop_map(SectorSize::from_code);
    let bits = (any::<bool>(), sectors);
    let state = (sender_state(), any::<u32>(), any::<u32>(), any::<u32>(), bits);
    let place = (layout(), data_group(), 1..=u16::MAX, "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}");
    (hashes, keys, state, place).prop_map(|(hashes, keys, state, place)| Announce {
        image: ImageId(hashes.0),
        index_hash: hashes.1,
        layout: place.0,
        data_group: place.1,
        unicast_port: place.2,
        one_way: state.4.0,
        sector_size: state.4.1,
        state: state.0,
        start_in_ms: state.1,
        receivers_expected: state.2,
        receivers_joined: state.3,
        salt: hashes.2,
        signer: keys.0,
        signature: [keys.1, keys.2].concat().try_into().unwrap(),
        name: Name::new(&place.3).unwrap(),
    })
}

fn layout() -> impl Strategy<Value = Layout> {
    (10..=23u8).prop_flat_map(|block_log2| {
        let words_min = (1u32 << block_log2).div_ceil(SYMBOLS_MAX * 32).max(2);
        let words = u16::try_from(words_min).unwrap()..=278;
        let bytes = 1..=u64::from(BLOCKS_MAX) << block_log2;
        (words, bytes)
            .prop_map(move |(words, bytes)| Layout::new(bytes, block_log2, words * 32).unwrap())
    })
}

fn symbol_size() -> impl Strategy<Value = u16> {
    (2..=278u16).prop_map(|words| words * 32)
}

fn data_group() -> impl Strategy<Value = SocketAddr> {
    let ipv4 = (224..=239u8, any::<[u8; 3]>())
        .prop_map(|(a, [b, c, d])| IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
    let ipv6 = any::<[u16; 7]>()
        .prop_map(|[b, c, d, e, f, g, h]| IpAddr::V6(Ipv6Addr::new(0xff15, b, c, d, e, f, g, h)));
    (prop_oneof![ipv4, ipv6], 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn sender_state() -> impl Strategy<Value = SenderState> {
    prop::sample::select(vec![
        SenderState::Gathering,
        SenderState::Sending,
        SenderState::Idle,
        SenderState::Closing,
    ])
}

fn join() -> impl Strategy<Value = Join> {
    let ids = (uniform16(any::<u8>()), uniform16(any::<u8>()));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let means = (any::<u16>(), any::<u64>(), any::<u32>());
    let texts = (text(64), vec(any::<u8>(), 0..=256));
    (ids, flags, means, texts).prop_map(|(ids, flags, means, texts)| Join {
        nonce: ids.0,
        key: ids.1,
        have: flags.0,
        mtu: flags.1,
        unfit: flags.2,
        capabilities: means.0,
        target_bytes: means.1,
        memory_blocks: means.2,
        host: texts.0,
        handshake: texts.1,
    })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let who = (uniform16(any::<u8>()), any::<u32>(), sender_state());
    let limits = (1..=u16::MAX, 1..=u16::MAX, 1000..=60_000u32);
    (who, limits, vec(any::<u8>(), 0..=256)).prop_map(|(who, limits, handshake)| Welcome {
        nonce: who.0,
        receiver: ReceiverId(who.1),
        state: who.2,
        needs_per_second: limits.0,
        needs_burst: limits.1,
        silence_ms: limits.2,
        handshake,
    })
}

fn refuse() -> impl Strategy<Value = Refuse> {
    let reason = prop::sample::select(vec![
        RefuseReason::Full,
        RefuseReason::Mtu,
        RefuseReason::Ending,
        RefuseReason::Rejoin,
        RefuseReason::Untrusted,
    ]);
    (uniform16(any::<u8>()), reason, any::<u16>()).prop_map(|(nonce, reason, mtu)| Refuse {
        nonce,
        reason,
        mtu,
    })
}

fn data() -> impl Strategy<Value = (DataHead, Vec<u8>)> {
    let esi = (0..EncodingSymbolId::END).prop_map(|esi| EncodingSymbolId::new(esi).unwrap());
    let numbers = (0..BLOCKS_MAX, esi, any::<u8>(), any::<u16>());
    (numbers, symbol_size()).prop_flat_map(|(numbers, symbol_size)| {
        let stored_len_max = (SYMBOLS_MAX * u32::from(symbol_size)).min(1 << 23);
        let symbol = vec(any::<u8>(), usize::from(symbol_size));
        (1..=stored_len_max, symbol).prop_map(move |(stored_len, symbol)| {
            let (block, esi, turn, still_to_come) = numbers;
            (DataHead { block, esi, turn, stored_len, still_to_come }, symbol)
        })
    })
}

fn sync() -> impl Strategy<Value = Sync> {
    let timing = (any::<u64>(), 0..=166u8, 0..=14u8, 0..=2000u16, any::<u32>(), any::<u16>());
    let poll = (0..=14u8, any::<u16>(), any::<u32>());
    let covers = (0..=BLOCKS_MAX, 0..=BLOCKS_MAX, ranges());
    (timing, sender_state(), poll, covers).prop_map(|(timing, state, poll, covers)| {
        let (first, end) = (covers.0.min(covers.1), covers.0.max(covers.1));
        let (from, to) = (covers.2.first(), covers.2.last());
        Sync {
            time_micros: timing.0,
            grtt: timing.1,
            group_log2: timing.2,
            feedback_window_ms: timing.3,
            rate_kilobits: timing.4,
            repair_share: timing.5,
            state,
            poll: Poll { mask_bits: poll.0, id: poll.1, nonce: poll.2 },
            covers_first: from.map_or(first, |range| range.first.min(first)),
            covers_end: to.map_or(end, |range| range.end().max(end)),
            planned: covers.2,
        }
    })
}

fn need() -> impl Strategy<Value = Need> {
    let times = (any::<u32>(), any::<u64>(), any::<u32>());
    let losses = (proptest::option::of(0..u16::MAX), any::<u16>(), any::<u16>());
    let progress = (any::<u32>(), 0..=BLOCKS_MAX, any::<u16>());
    let flags = any::<[bool; 3]>().prop_map(|[no_multicast, by_unicast, behind]| NeedFlags {
        no_multicast,
        by_unicast,
        behind,
    });
    (times, losses, progress, flags, ranges()).prop_map(
        |(times, losses, progress, flags, needs)| Need {
            receiver: ReceiverId(times.0),
            echo_micros: times.1,
            hold_micros: times.2,
            network_loss: losses.0,
            socket_loss: losses.1,
            free_blocks: losses.2,
            drain_kilobytes: progress.0,
            done_blocks: progress.1,
            poll: progress.2,
            flags,
            needs,
        },
    )
}

/// Up to 128 sorted, disjoint runs: gaps and lengths that add up to less than 2^20.
fn ranges() -> impl Strategy<Value = Vec<BlockRange>> {
    let symbols = prop_oneof![1..=8111u16, Just(WHOLE)];
    vec((0..4000u32, 1..4000u32, symbols), 0..=128).prop_map(|parts| {
        let mut end = 0;
        let runs = parts.into_iter().map(|(gap, run, symbols)| {
            let first = end + gap;
            end = first + run;
            BlockRange { first, run, symbols }
        });
        runs.collect()
    })
}

fn done() -> impl Strategy<Value = Done> {
    let result = (any::<u32>(), any::<bool>(), uniform32(any::<u8>()), any::<u64>());
    let figures = (any::<u32>(), any::<u32>(), any::<u16>());
    (result, figures, text(200)).prop_map(|(result, figures, text)| Done {
        receiver: ReceiverId(result.0),
        succeeded: result.1,
        image: ImageId(result.2),
        bytes_written: result.3,
        seconds: figures.0,
        refetched_blocks: figures.1,
        error_code: figures.2,
        text,
    })
}

fn leave_reason() -> impl Strategy<Value = LeaveReason> {
    use LeaveReason::{Interrupted, Moved, TimedOut};
    prop::sample::select(vec![Interrupted, TimedOut, Moved])
}

fn abort_reason() -> impl Strategy<Value = AbortReason> {
    use AbortReason::{Image, Internal, Interrupted};
    prop::sample::select(vec![Interrupted, Image, Internal])
}

/// Text of characters of one to four octets, none of them a control character.
fn text(octets_max: usize) -> impl Strategy<Value = String> {
    let character = prop::sample::select(vec!['a', 'Z', ' ', '/', 'ß', '–', '漢', '🦀']);
    vec(character, 0..=octets_max).prop_map(move |characters| {
        let mut text: String = characters.into_iter().collect();
        while text.len() > octets_max {
            text.pop();
        }
        text
    })
}

/// Up to the largest symbol and what stands around it.
const PADDED: std::ops::Range<usize> = 0..9000;
