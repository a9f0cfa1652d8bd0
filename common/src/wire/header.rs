//! The header of 24 octets that every datagram begins with, and the CRC-32 that ends it.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |        magic 0x1CA5           |    version    |     kind      |
//! |                            session                            |
//! |                                                               |
//! |     flags     |   key epoch   |          body length          |
//! |                            counter                            |
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |      body, then a trailer: in plain sessions a CRC-32         |
//! ```

use super::{Kind, WireError, codec::Reader};
use crate::id::{SessionId, Stream};

/// What a datagram says of itself, whatever its kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// The session it belongs to.
    pub session: SessionId,
    /// The stream that its blocks are of; the image's in what names no blocks.
    pub stream: Stream,
    /// Position in the sequence of its origin, above 0; see [`UNICAST`].
    pub counter: u64,
}

impl Header {
    /// The header's octets for a body of `body_len`.
    #[must_use]
    pub fn emit(&self, kind: Kind, body_len: u16) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..2].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[2] = VERSION;
        bytes[3] = kind as u8;
        bytes[4..12].copy_from_slice(&self.session.0.to_be_bytes());
        bytes[12] = if self.stream == Stream::Index { FLAG_INDEX } else { 0 };
        bytes[14..16].copy_from_slice(&body_len.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }

    /// Checks header and trailer of a datagram; returns them with the body.
    pub(super) fn parse(datagram: &[u8]) -> Result<(Self, Kind, &[u8]), WireError> {
        let mut reader = Reader(datagram);
        if reader.u16()? != MAGIC {
            return Err(WireError::Magic);
        }
        let (version, kind) = (reader.u8()?, reader.u8()?);
        if version != VERSION {
            return Err(WireError::Version { version, announced: kind == Kind::Announce as u8 });
        }
        let kind = Kind::from_octet(kind).ok_or(WireError::Kind)?;
        let session = SessionId(reader.u64()?);
        if session == SessionId::NONE && !matches!(kind, Kind::Join | Kind::Refuse) {
            return Err(WireError::Field("session"));
        }
        let (flags, epoch) = (reader.u8()?, reader.u8()?);
        if flags & FLAG_SEALED != 0 {
            return Err(WireError::Sealed);
        }
        let stream = match flags {
            0 => Stream::Image,
            FLAG_INDEX if kind.has_stream() => Stream::Index,
            _ => return Err(WireError::Flags),
        };
        if epoch != 0 {
            return Err(WireError::Flags);
        }
        let body_len = usize::from(reader.u16()?);
        let counter = reader.u64()?;
        if counter == 0 {
            return Err(WireError::Counter);
        }
        let body = reader.bytes(body_len)?;
        let trailer = reader.u32()?;
        reader.end()?;
        if trailer != crc32fast::hash(&datagram[..HEADER_LEN + body_len]) {
            return Err(WireError::Checksum);
        }
        Ok((Self { session, stream, counter }, kind, body))
    }
}

/// Octets 0 and 1 of every datagram, in all versions.
pub const MAGIC: u16 = 0x1CA5;
/// The version of the protocol that is spoken here.
pub const VERSION: u8 = 1;
/// Octets in a header.
pub const HEADER_LEN: usize = 24;
/// Octets in the trailer of a plain session: a CRC-32 (IEEE) over header and body.
pub const TRAILER_LEN: usize = 4;
/// Octets in the trailer of a sealed session, for which every padded datagram leaves room.
pub const SEALED_TRAILER_LEN: usize = 16;
/// Bit 63 of the counter: set in what a sender sends to anything but the data group.
pub const UNICAST: u64 = 1 << 63;

const FLAG_INDEX: u8 = 1 << 0;
const FLAG_SEALED: u8 = 1 << 1;
