//! NEED: how many more symbols a receiver lacks, block by block, and how it fares. A NACK in the
//! ERASURES form of RFC 5740: repair symbols are interchangeable, so it counts and never lists.
//!
//! ```text
//! | receiver id                                            4 |
//! | echo: SYNC's send time 8, held here for, µs 4         12 |
//! | network loss 2, socket loss 2 (65,536ths)              4 |
//! | free blocks                                            2 |
//! | drain rate, kB/s                                       4 |
//! | blocks done                                            4 |
//! | poll id                                                2 |
//! | flags: 0 no multicast, 2 by unicast, 3 behind            1 |
//! | n 1, n × { first 4, run 4, deficit 2 }                   |
//! ```

use super::{
    BlockRange, WireError,
    codec::{Reader, Writer},
    range,
};
use crate::{id::ReceiverId, layout::BLOCKS_MAX};

/// One receiver's needs in one stream; without ranges a plain report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Need {
    /// Who.
    pub receiver: ReceiverId,
    /// The send time of the newest SYNC heard, 0 if none was.
    pub echo_micros: u64,
    /// How long ago that SYNC came, in microseconds.
    pub hold_micros: u32,
    /// Datagrams of the group that the network lost of late, in 65,536ths, at most 65,534; `None`
    /// until enough were counted to tell.
    pub network_loss: Option<u16>,
    /// Datagrams that its own socket dropped, in 65,536ths.
    pub socket_loss: u16,
    /// Incomplete blocks that it still has room for.
    pub free_blocks: u16,
    /// What it decodes, verifies and writes, in kB/s, or what it gets through of what arrives if
    /// that is less and it is behind; 0 where not yet known.
    pub drain_kilobytes: u32,
    /// Blocks of the image that are verified, zero blocks among them.
    pub done_blocks: u32,
    /// The poll that is answered, 0 if none.
    pub poll: u16,
    /// See [`NeedFlags`].
    pub flags: NeedFlags,
    /// Runs of blocks with the largest deficit in each run.
    pub needs: Vec<BlockRange>,
}

/// What a receiver says of its situation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NeedFlags {
    /// It hears nothing from the data group.
    pub no_multicast: bool,
    /// It wants these ranges by unicast, having been given polluted symbols by multicast.
    pub by_unicast: bool,
    /// More arrives than it gets through: its queues are filling.
    pub behind: bool,
}

impl Need {
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let need = Self {
            receiver: ReceiverId(reader.u32()?),
            echo_micros: reader.u64()?,
            hold_micros: reader.u32()?,
            network_loss: Some(reader.u16()?).filter(|loss| *loss != LOSS_UNKNOWN),
            socket_loss: reader.u16()?,
            free_blocks: reader.u16()?,
            drain_kilobytes: reader.u32()?,
            done_blocks: reader.u32()?,
            poll: reader.u16()?,
            flags: NeedFlags::parse(reader.u8()?)?,
            needs: range::parse(&mut reader)?,
        };
        reader.end()?;
        if need.done_blocks > BLOCKS_MAX {
            return Err(WireError::Field("blocks done"));
        }
        Ok(need)
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.u32(self.receiver.0);
        writer.u64(self.echo_micros);
        writer.u32(self.hold_micros);
        writer.u16(self.network_loss.map_or(LOSS_UNKNOWN, |loss| loss.min(LOSS_UNKNOWN - 1)));
        writer.u16(self.socket_loss);
        writer.u16(self.free_blocks);
        writer.u32(self.drain_kilobytes);
        writer.u32(self.done_blocks);
        writer.u16(self.poll);
        writer.u8(self.flags.octet());
        range::emit(writer, &self.needs);
    }
}

impl NeedFlags {
    fn parse(octet: u8) -> Result<Self, WireError> {
        if octet & !0b1101 != 0 {
            return Err(WireError::Field("flags"));
        }
        let bit = |bit: u8| octet & 1 << bit != 0;
        Ok(Self { no_multicast: bit(0), by_unicast: bit(2), behind: bit(3) })
    }

    fn octet(self) -> u8 {
        let bits = [self.no_multicast, false, self.by_unicast, self.behind];
        bits.into_iter().rev().fold(0, |octet, bit| octet << 1 | u8::from(bit))
    }
}

/// The network loss of a receiver that has not counted enough datagrams to tell one.
const LOSS_UNKNOWN: u16 = u16::MAX;
