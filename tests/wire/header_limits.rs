//! What the header of every datagram is checked for.

use imgcast_common::wire::{Message, Role, WireError};

use crate::vector::{Vector, assert_limits, names};

#[test]
fn another_magic_is_not_ours() {
    let rejected = [[0x1c, 0xa4], [0xa5, 0x1c], [0, 0]];
    assert_limits("sync", "magic", &[[0x1c, 0xa5]], &rejected, WireError::Magic);
}

#[test]
fn another_version_is_named_and_whether_it_announces() {
    for version in (0..=255).filter(|version| *version != 1) {
        let other = |announced| WireError::Version { version, announced };
        assert_limits("announce-ipv4", "version", &[], &[[version]], other(true));
        assert_limits("need", "version", &[], &[[version]], other(false));
    }
}

#[test]
fn another_version_is_told_from_its_first_four_octets_alone() {
    let error = WireError::Version { version: 2, announced: true };
    assert_eq!(Message::parse(&[0x1c, 0xa5, 2, 1], Role::Receiver), Err(error));
    assert_eq!(Message::parse(&[0x1c, 0xa5, 2], Role::Receiver), Err(WireError::Length));
    assert_eq!(Message::parse(&[], Role::Sender), Err(WireError::Length));
}

#[test]
fn unknown_kinds_are_rejected_at_both_ends() {
    let known = [1, 2, 3, 4, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x20, 0x21, 0x22];
    for kind in (0..=255).filter(|kind| !known.contains(kind)) {
        let vector = Vector::load("sync").with("kind", [kind]);
        for role in [Role::Sender, Role::Receiver] {
            assert_eq!(Message::parse(&vector.octets, role), Err(WireError::Kind), "{kind:#x}");
        }
    }
}

#[test]
fn each_kind_is_taken_by_one_end_only() {
    for name in names() {
        let vector = Vector::load(&name);
        let wrong = match vector.role() {
            Role::Sender => Role::Receiver,
            Role::Receiver => Role::Sender,
        };
        assert_eq!(Message::parse(&vector.octets, wrong), Err(WireError::Kind), "{name}");
    }
}

#[test]
fn session_0_is_for_join_and_refuse_only() {
    for name in names() {
        let vector = Vector::load(&name).with("session", [0; 8]);
        let parsed = vector.parse();
        if name.starts_with("join") || name == "refuse" {
            assert!(parsed.is_ok(), "{name}");
        } else {
            assert_eq!(parsed, Err(WireError::Field("session")), "{name}");
        }
    }
}

#[test]
fn sealed_datagrams_are_told_apart() {
    for name in names() {
        let sealed = [[2], [3], [0xff]];
        assert_limits(&name, "flags", &[], &sealed, WireError::Sealed);
    }
}

#[test]
fn unknown_flags_are_rejected() {
    for name in names() {
        for bit in 2..8 {
            let flags = [[1 << bit], [1 << bit | 1]];
            assert_limits(&name, "flags", &[], &flags, WireError::Flags);
        }
    }
}

#[test]
fn the_index_flag_is_for_data_sync_and_need_only() {
    for name in names() {
        let has_stream = ["data", "sync", "need"].iter().any(|kind| name.starts_with(kind));
        let (accepted, rejected): (&[_], &[_]) =
            if has_stream { (&[[0], [1]], &[]) } else { (&[[0]], &[[1]]) };
        assert_limits(&name, "flags", accepted, rejected, WireError::Flags);
    }
}

#[test]
fn a_plain_session_has_no_key_epoch() {
    for name in names() {
        assert_limits(&name, "key epoch", &[[0]], &[[1], [255]], WireError::Flags);
    }
}

#[test]
fn counter_0_is_rejected() {
    let accepted = [1, 1 << 63, u64::MAX].map(u64::to_be_bytes);
    for name in names() {
        assert_limits(&name, "counter", &accepted, &[[0; 8]], WireError::Counter);
    }
}

#[test]
fn the_body_length_is_that_of_the_datagram() {
    for name in names() {
        let vector = Vector::load(&name);
        let right = u16::from_be_bytes(vector.field("body length").try_into().unwrap());
        let wrong = [0, right - 1, right + 1, right + 4, u16::MAX].map(u16::to_be_bytes);
        let right = [right.to_be_bytes()];
        assert_limits(&name, "body length", &right, &wrong, WireError::Length);
    }
}

#[test]
fn a_wrong_checksum_is_rejected_before_any_field_of_the_body() {
    for name in names() {
        let vector = Vector::load(&name);
        let right = u32::from_be_bytes(vector.field("crc").try_into().unwrap());
        let wrong = [0, !right, right ^ 1, right.swap_bytes()].map(u32::to_be_bytes);
        assert_limits(&name, "crc", &[right.to_be_bytes()], &wrong, WireError::Checksum);
    }
    let damaged = Vector::load("announce-ipv4").with("state", [77]).with("crc", [0; 4]);
    assert_eq!(damaged.parse(), Err(WireError::Checksum));
}
