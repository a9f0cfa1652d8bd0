//! EJECT, END and ABORT: the sender is through with one receiver, or with all of them.
//!
//! ```text
//! EJECT                                       END, ABORT
//! | receiver id 4 | reason 1           |      | outcome, or reason               1 |
//!                                             | text: length 1, octets             |
//! ```

use super::{
    TEXT_OCTETS_MAX, WireError,
    codec::{Reader, Writer},
};
use crate::id::ReceiverId;

/// One receiver is no member any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Eject {
    /// Who.
    pub receiver: ReceiverId,
    /// Why.
    pub reason: EjectReason,
}

/// Why a receiver was put out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EjectReason {
    /// Another run on the same host and target has taken its place.
    Replaced,
    /// It is slower than the operator wants to serve.
    Slow,
}

/// The session is over, as planned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct End {
    /// Whether every expected receiver is done.
    pub complete: bool,
    /// For people.
    pub text: String,
}

/// The session is over before its time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Abort {
    /// Why.
    pub reason: AbortReason,
    /// For people.
    pub text: String,
}

/// Why a session ended before its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AbortReason {
    /// Somebody stopped the sender.
    Interrupted,
    /// The image changed, or cannot be read any more.
    Image,
    /// Something else went wrong at the sender.
    Internal,
}

impl Eject {
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let receiver = ReceiverId(reader.u32()?);
        let reason = match reader.u8()? {
            0 => EjectReason::Replaced,
            1 => EjectReason::Slow,
            _ => return Err(WireError::Field("reason")),
        };
        reader.end()?;
        Ok(Self { receiver, reason })
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.u32(self.receiver.0);
        writer.u8(self.reason as u8);
    }
}

impl End {
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let complete = match reader.u8()? {
            0 => true,
            1 => false,
            _ => return Err(WireError::Field("outcome")),
        };
        let text = reader.text(TEXT_OCTETS_MAX)?;
        reader.end()?;
        Ok(Self { complete, text })
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.u8(u8::from(!self.complete));
        writer.text(&self.text, TEXT_OCTETS_MAX);
    }
}

impl Abort {
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let reason = match reader.u8()? {
            0 => AbortReason::Interrupted,
            1 => AbortReason::Image,
            2 => AbortReason::Internal,
            _ => return Err(WireError::Field("reason")),
        };
        let text = reader.text(TEXT_OCTETS_MAX)?;
        reader.end()?;
        Ok(Self { reason, text })
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.u8(self.reason as u8);
        writer.text(&self.text, TEXT_OCTETS_MAX);
    }
}
