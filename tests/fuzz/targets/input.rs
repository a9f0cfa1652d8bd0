//! Octets read as numbers and steps, and datagrams made right so that they get past the checksum.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    id::ImageId,
    layout::Layout,
    wire::{Announce, HEADER_LEN, MAGIC, Name, SenderState, TRAILER_LEN, VERSION},
};

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) const fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(super) const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// At most so many octets.
    pub(super) fn octets(&mut self, most: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        head
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let octets = self.octets(N);
        array[..octets.len()].copy_from_slice(octets);
        array
    }

    pub(super) fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// A number below `end`, which is at least 1.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        if end <= 1 << 8 { u32::from(self.u8()) % end } else { u32::from(self.u16()) % end }
    }

    pub(super) fn chance(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// From a microsecond to two minutes; short ones as likely as long ones.
    pub(super) fn time(&mut self) -> Duration {
        let octet = self.u8();
        Duration::from_micros(u64::from(octet & 15) + 1) * 2u32.pow(u32::from(octet >> 4) * 3 / 2)
    }

    /// A datagram with a header of this session, kind and counter, with what octets follow as its
    /// body, and with a length and a checksum that are right. One octet says how long the body is
    /// and whether it is padded, one has the flags.
    pub(super) fn datagram(
        &mut self,
        kind: u8,
        session: u64,
        counter: u64,
        padded: usize,
    ) -> Vec<u8> {
        let shape = self.u8();
        let mut datagram = vec![0; HEADER_LEN];
        datagram[0..2].copy_from_slice(&MAGIC.to_be_bytes());
        datagram[2..4].copy_from_slice(&[VERSION, kind]);
        datagram[4..12].copy_from_slice(&session.to_be_bytes());
        datagram[12] = self.u8() & 1;
        datagram[16..24].copy_from_slice(&counter.to_be_bytes());
        datagram.extend_from_slice(self.octets(usize::from(shape & 0x7F) * 4));
        if shape & 0x80 != 0 {
            datagram.resize(datagram.len().max(padded - TRAILER_LEN), 0);
        }
        datagram.extend_from_slice(&[0; TRAILER_LEN]);
        make_right(&mut datagram);
        datagram
    }
}

/// Gives a datagram the body length and the checksum that go with it.
pub(super) fn make_right(datagram: &mut [u8]) {
    if let Some(len) = datagram.len().checked_sub(HEADER_LEN + TRAILER_LEN) {
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        datagram[14..16].copy_from_slice(&len.to_be_bytes());
    }
    if let Some((covered, trailer)) = datagram.split_last_chunk_mut::<TRAILER_LEN>() {
        *trailer = crc32fast::hash(covered).to_be_bytes();
    }
}

/// An offer of an image that is cut like this, in a session that is under way.
pub(super) fn offer(layout: Layout) -> Announce {
    Announce {
        image: ImageId([1; 32]),
        index_hash: [2; 32],
        layout,
        data_group: SocketAddr::from(([239, 255, 70, 7], 6331)),
        unicast_port: 6330,
        sector_size: None,
        one_way: false,
        state: SenderState::Sending,
        start_in_ms: 0,
        receivers_expected: 2,
        receivers_joined: 1,
        salt: [0; 16],
        signer: [0; 32],
        signature: [0; 64],
        name: Name::new("disk").unwrap_or_else(|| unreachable!("a plain name")),
    }
}

/// One of 256 hosts.
pub(super) fn host(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 4000))
}

/// A moment to begin at.
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
pub(super) fn beginning() -> Instant {
    Instant::now()
}
