//! Limits of DONE, DONE_ACK, LEAVE, EJECT, END and ABORT.

use imgcast_common::{
    id::ReceiverId,
    wire::{Done, DoneAck, Message, WireError},
};

use crate::vector::{Vector, assert_limits, with_text};

#[test]
fn done_is_a_success_or_a_failure() {
    assert_limits("done", "status", &[[0], [1]], &[[2], [255]], WireError::Field("status"));
}

#[test]
fn end_is_complete_or_not() {
    assert_limits("end", "outcome", &[[0], [1]], &[[2], [255]], WireError::Field("outcome"));
}

#[test]
fn leave_eject_and_abort_have_known_reasons() {
    let reason = WireError::Field("reason");
    assert_limits("leave", "reason", &[[0], [1], [2]], &[[3], [255]], reason);
    assert_limits("eject", "reason", &[[0], [1]], &[[2], [255]], reason);
    assert_limits("abort", "reason", &[[0], [1], [2]], &[[3], [255]], reason);
}

#[test]
fn text_is_up_to_200_octets() {
    for name in ["done-failed", "end", "abort"] {
        for len in [0, 1, 200] {
            assert_eq!(with_text(name, "text", &vec![b'x'; len]).parse().err(), None, "{len}");
        }
        for len in [201, 255] {
            let vector = with_text(name, "text", &vec![b'x'; len]);
            assert_eq!(vector.parse(), Err(WireError::Field("text")), "{name}: {len} octets");
        }
        let longer = Vector::load(name).with("text length", [200]);
        assert_eq!(longer.parse(), Err(WireError::Length), "{name}");
    }
}

#[test]
fn text_has_no_control_characters() {
    for name in ["done-failed", "end", "abort"] {
        let controls = (0..=0x1f).chain(0x7f..=0x9f).map(|c| char::from_u32(c).unwrap());
        for control in controls {
            let text = format!("a{control}b");
            let vector = with_text(name, "text", text.as_bytes());
            assert_eq!(vector.parse(), Err(WireError::Field("text")), "{name}: {text:?}");
        }
    }
}

#[test]
fn text_is_utf_8() {
    for name in ["done-failed", "end", "abort"] {
        assert!(with_text(name, "text", "größer ≥ 1 MiB".as_bytes()).parse().is_ok());
        for octets in [&b"\xff"[..], b"a\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\x80"] {
            let vector = with_text(name, "text", octets);
            assert_eq!(vector.parse(), Err(WireError::Field("text")), "{name}: {octets:?}");
        }
    }
}

#[test]
fn text_that_cannot_be_sent_as_it_is_is_cut_and_made_printable() {
    for (text, sent) in [
        ("one\ntwo\u{9b}three\u{7f}".to_owned(), "one?two?three?".to_owned()),
        ("x".repeat(300), format!("{}…", "x".repeat(197))),
        (format!("{}ü", "x".repeat(199)), format!("{}…", "x".repeat(197))),
        (format!("{}ü", "x".repeat(198)), format!("{}ü", "x".repeat(198))),
        ("word ".repeat(50), format!("{}…", "word ".repeat(39).trim_end())),
        (format!("{}\u{85}", "x".repeat(199)), format!("{}?", "x".repeat(199))),
    ] {
        let vector = Vector::load("done");
        let Ok((header, Message::Done(done))) = vector.parse() else { panic!("not DONE") };
        let datagram = Message::Done(Done { text, ..done }).emit(&header, 0);
        let parsed = Message::parse(&datagram, vector.role());
        let Ok((_, Message::Done(done))) = parsed else { panic!("{parsed:?}") };
        assert_eq!(done.text, sent);
    }
}

#[test]
fn a_bitmap_has_1_to_1024_octets() {
    for (len, reason) in [
        (0u16, Some(WireError::Field("bitmap"))),
        (1, None),
        (1024, None),
        (1025, Some(WireError::Field("bitmap"))),
        (u16::MAX, Some(WireError::Field("bitmap"))),
    ] {
        let bitmap = vec![0xff; usize::from(len.min(2000))];
        let vector = Vector::load("done-ack").with("bitmap length", len.to_be_bytes());
        assert_eq!(vector.with("bitmap", bitmap).parse().err(), reason, "{len}");
    }
    let wrong = [1u16, 3, 1024].map(u16::to_be_bytes);
    assert_limits("done-ack", "bitmap length", &[[0, 2]], &wrong, WireError::Length);
}

#[test]
fn an_acknowledgement_includes_exactly_whom_it_was_made_of() {
    let done = [16, 17, 31, 500, 16 + 8191].map(ReceiverId);
    let ack = DoneAck::of(&done).unwrap();
    let included: Vec<_> = (0..20_000).map(ReceiverId).filter(|id| ack.includes(*id)).collect();
    assert_eq!(included, done);
    let beyond = DoneAck::of(&[16, 16 + 8192].map(ReceiverId)).unwrap();
    assert!(beyond.includes(ReceiverId(16)) && !beyond.includes(ReceiverId(16 + 8192)));
    assert_eq!(DoneAck::of(&[]), None);
    let highest = DoneAck::of(&[ReceiverId(u32::MAX)]).unwrap();
    assert!(highest.includes(ReceiverId(u32::MAX)) && !highest.includes(ReceiverId(0)));
}
