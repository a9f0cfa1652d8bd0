//! SYNC: what the sender plans, so that nobody asks for it again; also its clock, the group's
//! timing, and a poll. The counterpart of RFC 5740's NORM_CMD(REPAIR_ADV) and NORM_CMD(CC).
//!
//! ```text
//! | send time, µs                                          8 |
//! | GRTT, quantised as in RFC 5401 section 3.7.4           1 |
//! | log2 of the group's size                               1 |
//! | T_fb, ms                                               2 |
//! | rate, kbit/s                                           4 |
//! | r, in 65,536ths of S                                   2 |
//! | state                                                  1 |
//! | poll: mask bits 1, id 2, nonce 4                       7 |
//! | covers: first block 4, end 4                           8 |
//! | n 1, n × { first 4, run 4, planned 2 }                   |
//! ```

use std::time::Duration;

use super::{
    BlockRange, SenderState, WireError,
    codec::{Reader, Writer},
    range,
};
use crate::{layout::BLOCKS_MAX, timing::unquantise_rtt};

/// The sender's plan for one stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sync {
    /// Microseconds on the sender's clock; feedback echoes it.
    pub time_micros: u64,
    /// GRTT as RFC 5401 section 3.7.4 quantises it, at most that of one second.
    pub grtt: u8,
    /// The binary logarithm of the group's size, rounded up.
    pub group_log2: u8,
    /// `T_fb`, the window over which feedback is spread, in milliseconds.
    pub feedback_window_ms: u16,
    /// The rate at which the group is sent to, in kbit/s.
    pub rate_kilobits: u32,
    /// Proactive repair, in 65,536ths of S.
    pub repair_share: u16,
    /// What the sender is doing.
    pub state: SenderState,
    /// Who should report now.
    pub poll: Poll,
    /// First block that the list speaks of.
    pub covers_first: u32,
    /// First block that it does not speak of any more.
    pub covers_end: u32,
    /// What is planned by multicast; blocks that are covered but not listed have nothing planned.
    pub planned: Vec<BlockRange>,
}

/// A sampled poll: those receivers answer with a report whose id, mixed with the nonce, ends in
/// `mask_bits` zero bits (RFC 3208 appendix D has the idea).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Poll {
    /// 2^-mask_bits of the group is asked.
    pub mask_bits: u8,
    /// Number of the poll; 0 asks nobody.
    pub id: u16,
    /// Changes with every poll, so that others are asked each time.
    pub nonce: u32,
}

impl Poll {
    /// Whether this poll asks `receiver`.
    #[must_use]
    pub const fn asks(&self, receiver: crate::id::ReceiverId) -> bool {
        let mixed = crate::prng::mix((self.nonce as u64) << 32 | receiver.0 as u64);
        self.id != 0 && mixed & ((1u64 << self.mask_bits) - 1) == 0
    }
}

impl Sync {
    /// The group's round trip time.
    #[must_use]
    pub fn grtt(&self) -> Duration {
        unquantise_rtt(self.grtt)
    }

    /// `T_fb` as a duration.
    #[must_use]
    pub fn feedback_window(&self) -> Duration {
        Duration::from_millis(u64::from(self.feedback_window_ms))
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let sync = Self {
            time_micros: reader.u64()?,
            grtt: reader.u8()?,
            group_log2: reader.u8()?,
            feedback_window_ms: reader.u16()?,
            rate_kilobits: reader.u32()?,
            repair_share: reader.u16()?,
            state: SenderState::parse(reader.u8()?)?,
            poll: Poll { mask_bits: reader.u8()?, id: reader.u16()?, nonce: reader.u32()? },
            covers_first: reader.u32()?,
            covers_end: reader.u32()?,
            planned: range::parse(&mut reader)?,
        };
        reader.end()?;
        let first = sync.planned.first().is_none_or(|range| range.first >= sync.covers_first);
        let last = sync.planned.last().is_none_or(|range| range.end() <= sync.covers_end);
        let ordered = sync.covers_first <= sync.covers_end && sync.covers_end <= BLOCKS_MAX;
        if !ordered || !first || !last {
            return Err(WireError::Field("covers"));
        }
        if sync.grtt > GRTT_OCTET_MAX {
            return Err(WireError::Field("GRTT"));
        }
        if sync.group_log2 > GROUP_LOG2_MAX || sync.poll.mask_bits > GROUP_LOG2_MAX {
            return Err(WireError::Field("group size"));
        }
        if sync.feedback_window_ms > FEEDBACK_WINDOW_MS_MAX {
            return Err(WireError::Field("feedback window"));
        }
        Ok(sync)
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.u64(self.time_micros);
        writer.u8(self.grtt);
        writer.u8(self.group_log2);
        writer.u16(self.feedback_window_ms);
        writer.u32(self.rate_kilobits);
        writer.u16(self.repair_share);
        writer.u8(self.state as u8);
        writer.u8(self.poll.mask_bits);
        writer.u16(self.poll.id);
        writer.u32(self.poll.nonce);
        writer.u32(self.covers_first);
        writer.u32(self.covers_end);
        range::emit(writer, &self.planned);
    }
}

/// What [`GRTT_MAX`](crate::timing::GRTT_MAX), one second, is packed into.
const GRTT_OCTET_MAX: u8 = 166;
/// 2^14: as many receivers as a session takes.
const GROUP_LOG2_MAX: u8 = 14;
/// Five times the longest window that a sender computes: beyond it feedback would be stopped.
const FEEDBACK_WINDOW_MS_MAX: u16 = 2_000;
