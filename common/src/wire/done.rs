//! DONE and LEAVE, by which a receiver takes its leave, and DONE_ACK, which lets it go.
//!
//! ```text
//! DONE                                        DONE_ACK
//! | receiver id                      4 |      | base receiver id                 4 |
//! | status                           1 |      | bitmap: length 2, octets           |
//! | image id as computed            32 |
//! | bytes written                    8 |      LEAVE
//! | seconds                          4 |      | receiver id 4 | reason 1           |
//! | blocks fetched twice             4 |
//! | error code                       2 |
//! | text: length 1, octets             |
//! ```

use super::{
    TEXT_OCTETS_MAX, WireError,
    codec::{Reader, Writer},
};
use crate::id::{ImageId, ReceiverId};

/// The last word of a receiver that finished, well or not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Done {
    /// Who.
    pub receiver: ReceiverId,
    /// Whether the whole image is verified, written and flushed.
    pub succeeded: bool,
    /// The image's hash as the receiver computed it; zeroes where it could not.
    pub image: ImageId,
    /// Octets written to the target.
    pub bytes_written: u64,
    /// How long it took since WELCOME, in seconds.
    pub seconds: u32,
    /// Blocks that had to be fetched again because their hash was wrong.
    pub refetched_blocks: u32,
    /// The receiver's exit code.
    pub error_code: u16,
    /// Why it failed, in words; empty otherwise.
    pub text: String,
}

/// The sender has recorded the last word of these receivers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DoneAck {
    /// The receiver that bit 0 stands for.
    pub base: ReceiverId,
    /// Most significant bit first.
    pub bitmap: Vec<u8>,
}

/// A receiver goes before it has the image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Leave {
    /// Who.
    pub receiver: ReceiverId,
    /// Why.
    pub reason: LeaveReason,
}

/// Why a receiver goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LeaveReason {
    /// Somebody stopped it.
    Interrupted,
    /// It gave up waiting.
    TimedOut,
    /// It joins another session.
    Moved,
}

impl Done {
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let done = Self {
            receiver: ReceiverId(reader.u32()?),
            succeeded: match reader.u8()? {
                0 => true,
                1 => false,
                _ => return Err(WireError::Field("status")),
            },
            image: ImageId(reader.array()?),
            bytes_written: reader.u64()?,
            seconds: reader.u32()?,
            refetched_blocks: reader.u32()?,
            error_code: reader.u16()?,
            text: reader.text(TEXT_OCTETS_MAX)?,
        };
        reader.end()?;
        Ok(done)
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.u32(self.receiver.0);
        writer.u8(u8::from(!self.succeeded));
        writer.bytes(&self.image.0);
        writer.u64(self.bytes_written);
        writer.u32(self.seconds);
        writer.u32(self.refetched_blocks);
        writer.u16(self.error_code);
        writer.text(&self.text, TEXT_OCTETS_MAX);
    }
}

impl DoneAck {
    /// Acknowledges `receivers`, as many as one datagram holds, lowest first; `None` for none.
    #[must_use]
    pub fn of(receivers: &[ReceiverId]) -> Option<Self> {
        let base = *receivers.iter().min()?;
        let mut bitmap = Vec::new();
        for receiver in receivers {
            let bit = usize::try_from(receiver.0 - base.0).unwrap_or(usize::MAX);
            if bit < BITMAP_OCTETS_MAX * 8 {
                bitmap.resize(bitmap.len().max(bit / 8 + 1), 0);
                bitmap[bit / 8] |= 0x80 >> (bit % 8);
            }
        }
        Some(Self { base, bitmap })
    }

    /// Whether this acknowledges `receiver`.
    #[must_use]
    pub fn includes(&self, receiver: ReceiverId) -> bool {
        let bit = receiver.0.checked_sub(self.base.0).and_then(|bit| usize::try_from(bit).ok());
        bit.is_some_and(|bit| {
            self.bitmap.get(bit / 8).is_some_and(|octet| octet & 0x80 >> (bit % 8) != 0)
        })
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let base = ReceiverId(reader.u32()?);
        let len = usize::from(reader.u16()?);
        if !(1..=BITMAP_OCTETS_MAX).contains(&len) {
            return Err(WireError::Field("bitmap"));
        }
        let bitmap = reader.bytes(len)?.to_vec();
        reader.end()?;
        Ok(Self { base, bitmap })
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        let bitmap = &self.bitmap[..self.bitmap.len().min(BITMAP_OCTETS_MAX)];
        writer.u32(self.base.0);
        writer.u16(u16::try_from(bitmap.len()).unwrap_or(0));
        writer.bytes(bitmap);
    }
}

impl Leave {
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let receiver = ReceiverId(reader.u32()?);
        let reason = match reader.u8()? {
            0 => LeaveReason::Interrupted,
            1 => LeaveReason::TimedOut,
            2 => LeaveReason::Moved,
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

/// 8,192 receivers: what fits into an MTU of 1,500 with room to spare.
const BITMAP_OCTETS_MAX: usize = 1_024;
