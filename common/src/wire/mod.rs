//! Octets to [`Message`] and back: the one wall for hostile input.
//!
//! A `Message` that exists is valid in itself: lengths, ranges of fields, order of lists and the
//! checksum have been looked at here, once. What depends on a session (block numbers within its
//! image, T, receiver ids) is for the sessions to compare. One file per message; the offset of
//! every field is drawn at the top of its file and in [`PROTOCOL.md`](crate::protocol).

mod announce;
mod codec;
mod data;
mod done;
mod end;
mod header;
mod join;
mod need;
mod range;
mod sync;

use std::{fmt, sync::Arc};

use thiserror::Error;

pub use announce::{Announce, SenderState};
pub use data::{DATA_HEAD_LEN, Data, DataHead, data_trailer};
pub use done::{Done, DoneAck, Leave, LeaveReason};
pub use end::{Abort, AbortReason, Eject, EjectReason, End};
pub use header::{HEADER_LEN, Header, MAGIC, SEALED_TRAILER_LEN, TRAILER_LEN, UNICAST, VERSION};
pub use join::{Join, Refuse, RefuseReason, Welcome};
pub use need::{Need, NeedFlags};
pub use range::{BlockRange, RANGES_MAX, SYMBOLS_PER_BLOCK_MAX, WHOLE, is_much, ranges_max};
pub use sync::{Poll, Sync};

use codec::Writer;

/// Everything that can be said.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "each variant is the message of its name")]
pub enum Message<'a> {
    Announce(Announce),
    Join(Join),
    Welcome(Welcome),
    Refuse(Refuse),
    Data(Data<'a>),
    Sync(Sync),
    DoneAck(DoneAck),
    Eject(Eject),
    End(End),
    Abort(Abort),
    Need(Need),
    Done(Done),
    Leave(Leave),
}

/// The octet that tells messages apart.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "each variant is the kind of the message of its name")]
#[repr(u8)]
pub enum Kind {
    Announce = 0x01,
    Join = 0x02,
    Welcome = 0x03,
    Refuse = 0x04,
    Data = 0x10,
    Sync = 0x11,
    DoneAck = 0x12,
    Eject = 0x13,
    End = 0x14,
    Abort = 0x15,
    Need = 0x20,
    Done = 0x21,
    Leave = 0x22,
}

/// Which end a datagram has come to: each takes only what the other one says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Takes JOIN, NEED, DONE and LEAVE.
    Sender,
    /// Takes all the others.
    Receiver,
}

/// What people call an image: 1 to 64 of `A-Z a-z 0-9 . _ -`, but not `.` or `..`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Arc<str>);

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, Ord, PartialEq, PartialOrd)]
pub enum WireError {
    /// It does not begin as ours do.
    #[error("not an imgcast datagram")]
    Magic,
    /// It speaks another version of the protocol.
    #[error("protocol version {version}")]
    Version {
        /// The other version.
        version: u8,
        /// Whether it was an ANNOUNCE, which is worth telling people.
        announced: bool,
    },
    /// Its kind is unknown, or not for this end.
    #[error("kind not expected here")]
    Kind,
    /// It is sealed, and this session is plain.
    #[error("sealed datagram in a plain session")]
    Sealed,
    /// It has flags or a key epoch that mean nothing.
    #[error("unknown flags")]
    Flags,
    /// Its counter is 0.
    #[error("no counter")]
    Counter,
    /// Its parts do not add up to its length.
    #[error("wrong length")]
    Length,
    /// It was damaged on its way.
    #[error("wrong checksum")]
    Checksum,
    /// A field is out of its range.
    #[error("field out of range: {0}")]
    Field(&'static str),
}

impl<'a> Message<'a> {
    /// Reads one datagram.
    ///
    /// # Errors
    ///
    /// Anything that is not exactly as `PROTOCOL.md` describes is an error, by reason.
    pub fn parse(datagram: &'a [u8], role: Role) -> Result<(Header, Self), WireError> {
        let (header, kind, body) = Header::parse(datagram)?;
        if kind.role() != role {
            return Err(WireError::Kind);
        }
        let message = match kind {
            Kind::Announce => Self::Announce(Announce::parse(body)?),
            Kind::Join => Self::Join(Join::parse(body)?),
            Kind::Welcome => Self::Welcome(Welcome::parse(body)?),
            Kind::Refuse => Self::Refuse(Refuse::parse(body)?),
            Kind::Data => Self::Data(Data::parse(body)?),
            Kind::Sync => Self::Sync(Sync::parse(body)?),
            Kind::DoneAck => Self::DoneAck(DoneAck::parse(body)?),
            Kind::Eject => Self::Eject(Eject::parse(body)?),
            Kind::End => Self::End(End::parse(body)?),
            Kind::Abort => Self::Abort(Abort::parse(body)?),
            Kind::Need => Self::Need(Need::parse(body)?),
            Kind::Done => Self::Done(Done::parse(body)?),
            Kind::Leave => Self::Leave(Leave::parse(body)?),
        };
        Ok((header, message))
    }

    /// Writes one datagram; the octets of a message that can be padded are filled up with zeroes
    /// to `octets_min` in all.
    #[must_use]
    pub fn emit(&self, header: &Header, octets_min: usize) -> Vec<u8> {
        let mut datagram = vec![0; HEADER_LEN];
        self.emit_body(&mut Writer(&mut datagram));
        if matches!(self, Self::Announce(_) | Self::Join(_) | Self::Welcome(_)) {
            let padded = octets_min.saturating_sub(TRAILER_LEN).max(datagram.len());
            datagram.resize(padded, 0);
        }
        let body_len = u16::try_from(datagram.len() - HEADER_LEN).unwrap_or(u16::MAX);
        datagram[..HEADER_LEN].copy_from_slice(&header.emit(self.kind(), body_len));
        let crc = crc32fast::hash(&datagram);
        datagram.extend_from_slice(&crc.to_be_bytes());
        datagram
    }

    fn emit_body(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Announce(message) => message.emit(writer),
            Self::Join(message) => message.emit(writer),
            Self::Welcome(message) => message.emit(writer),
            Self::Refuse(message) => message.emit(writer),
            Self::Data(message) => message.emit(writer),
            Self::Sync(message) => message.emit(writer),
            Self::DoneAck(message) => message.emit(writer),
            Self::Eject(message) => message.emit(writer),
            Self::End(message) => message.emit(writer),
            Self::Abort(message) => message.emit(writer),
            Self::Need(message) => message.emit(writer),
            Self::Done(message) => message.emit(writer),
            Self::Leave(message) => message.emit(writer),
        }
    }

    /// The octet that tells this message from others.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Announce(_) => Kind::Announce,
            Self::Join(_) => Kind::Join,
            Self::Welcome(_) => Kind::Welcome,
            Self::Refuse(_) => Kind::Refuse,
            Self::Data(_) => Kind::Data,
            Self::Sync(_) => Kind::Sync,
            Self::DoneAck(_) => Kind::DoneAck,
            Self::Eject(_) => Kind::Eject,
            Self::End(_) => Kind::End,
            Self::Abort(_) => Kind::Abort,
            Self::Need(_) => Kind::Need,
            Self::Done(_) => Kind::Done,
            Self::Leave(_) => Kind::Leave,
        }
    }
}

impl Kind {
    fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == octet)
    }

    /// The end that takes messages of this kind.
    const fn role(self) -> Role {
        match self {
            Self::Join | Self::Need | Self::Done | Self::Leave => Role::Sender,
            _ => Role::Receiver,
        }
    }

    /// Whether blocks are named, of one stream or the other.
    pub(super) const fn has_stream(self) -> bool {
        matches!(self, Self::Data | Self::Sync | Self::Need)
    }

    const ALL: [Self; 13] = [
        Self::Data,
        Self::Sync,
        Self::Need,
        Self::Announce,
        Self::Join,
        Self::Welcome,
        Self::Refuse,
        Self::DoneAck,
        Self::Eject,
        Self::End,
        Self::Abort,
        Self::Done,
        Self::Leave,
    ];
}

impl Name {
    /// So that it fits into ANNOUNCE and onto a line.
    pub const OCTETS_MAX: usize = NAME_OCTETS_MAX as usize;

    /// Returns `None` for anything that could be mistaken for a path or garble a terminal.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let sized = (1..=Self::OCTETS_MAX).contains(&name.len());
        (sized && name.chars().all(valid) && name != "." && name != "..").then(|| Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Octets of a padded JOIN, WELCOME or ANNOUNCE in all: as large as a sealed DATA datagram, so that
/// where it passes, symbols pass.
#[must_use]
pub const fn padded_len(symbol_size: u16) -> usize {
    DATA_HEAD_LEN + symbol_size as usize + SEALED_TRAILER_LEN
}

/// See [`Name::OCTETS_MAX`].
const NAME_OCTETS_MAX: u8 = 64;
/// A JOIN of session 0, which asks for an ANNOUNCE, is padded to this; no ANNOUNCE is longer when
/// not padded, so the answer is not larger than the question.
pub const QUESTION_OCTETS: usize = 512;
/// Text for people: two lines of a terminal.
const TEXT_OCTETS_MAX: u8 = 200;
