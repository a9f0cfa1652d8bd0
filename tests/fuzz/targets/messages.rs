//! The wall of `common::wire`: what comes through is valid, says what was meant, and garbles no
//! terminal.
//!
//! The input is a datagram; one that begins with an odd octet is taken without it, and is given
//! the magic, version, length and checksum that let the parser see its body.

use imgcast_common::{
    layout::BLOCKS_MAX,
    wire::{BlockRange, MAGIC, Message, RANGES_MAX, Role, SYMBOLS_PER_BLOCK_MAX, VERSION, WHOLE},
};

use super::input::make_right;

pub(super) fn run(input: &[u8]) {
    let mut datagram = input.to_vec();
    if input.first().is_some_and(|first| first & 1 == 1) {
        datagram.remove(0);
        if datagram.len() > 3 {
            datagram[..2].copy_from_slice(&MAGIC.to_be_bytes());
            datagram[2] = VERSION;
        }
        make_right(&mut datagram);
    }
    let read = [Role::Sender, Role::Receiver].map(|role| {
        let Ok((header, message)) = Message::parse(&datagram, role) else { return false };
        check(&message, datagram.len());
        let again = message.emit(&header, datagram.len());
        assert_eq!(again.len(), datagram.len(), "{message:?}");
        assert_eq!(Message::parse(&again, role), Ok((header, message)));
        true
    });
    assert!(!(read[0] && read[1]), "a message is for one end only");
}

fn check(message: &Message<'_>, octets: usize) {
    match message {
        Message::Announce(announce) => {
            let layout = announce.layout;
            assert!((1..=BLOCKS_MAX).contains(&layout.blocks()));
            assert!((1..=SYMBOLS_PER_BLOCK_MAX).contains(&layout.source_symbols(0)));
            assert!(layout.of_index().blocks() <= layout.blocks().max(1) * 2);
            assert!(announce.data_group.ip().is_multicast());
            let name = announce.name.as_str();
            assert!(!name.contains('/') && name != ".." && name.is_ascii(), "{name}");
        }
        Message::Join(join) => assert_is_plain(&join.host),
        Message::Data(data) => {
            assert!(data.head.block < BLOCKS_MAX && data.symbol.len() < octets);
            let symbols =
                data.head.stored_len.div_ceil(u32::try_from(data.symbol.len()).unwrap_or(1));
            assert!((1..=SYMBOLS_PER_BLOCK_MAX).contains(&symbols));
        }
        Message::Sync(sync) => {
            assert_is_list(&sync.planned);
            let within = |range: &BlockRange| {
                range.first >= sync.covers_first && range.end() <= sync.covers_end
            };
            assert!(sync.planned.iter().all(within), "{sync:?}");
            assert!(sync.grtt().as_secs_f64() < 1.1 && sync.feedback_window().as_secs() <= 2);
        }
        Message::Need(need) => assert_is_list(&need.needs),
        Message::Done(done) => assert_is_plain(&done.text),
        Message::End(end) => assert_is_plain(&end.text),
        Message::Abort(abort) => assert_is_plain(&abort.text),
        Message::DoneAck(ack) => assert!((1..=1024).contains(&ack.bitmap.len())),
        Message::Welcome(welcome) => {
            assert!(welcome.needs_per_second > 0 && welcome.silence_ms >= 1_000);
        }
        Message::Refuse(_) | Message::Eject(_) | Message::Leave(_) => {}
    }
}

/// Ranges are sorted, disjoint, not empty, and within the largest image.
pub(super) fn assert_is_list(ranges: &[BlockRange]) {
    assert!(ranges.len() <= RANGES_MAX);
    let mut free_from = 0;
    for range in ranges {
        assert!(
            range.run > 0 && range.first >= free_from && range.end() <= BLOCKS_MAX,
            "{ranges:?}"
        );
        let symbols = u32::from(range.symbols);
        assert!(range.symbols == WHOLE || (1..=SYMBOLS_PER_BLOCK_MAX).contains(&symbols));
        free_from = range.end();
    }
}

fn assert_is_plain(text: &str) {
    assert!(text.len() <= 200 && !text.chars().any(char::is_control), "{text:?}");
}
