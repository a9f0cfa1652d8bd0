//! DATA: one encoding symbol of one block.
//!
//! ```text
//! |                         source block                          |
//! |                     ESI                       |     turn      |
//! | codec |                   stored length                       |
//! | still to come in this turn    |          reserved             |
//! |                     the symbol, T octets                      |
//! ```

use super::{
    HEADER_LEN, Header, Kind, TRAILER_LEN, WireError,
    codec::{Reader, Writer},
};
use crate::{
    id::EncodingSymbolId,
    layout::{BLOCK_LOG2_MAX, BLOCKS_MAX, SYMBOLS_MAX, symbol_size_is_valid},
};

/// What stands before a symbol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DataHead {
    /// The source block.
    pub block: u32,
    /// Which symbol of it: source below S, repair from K on.
    pub esi: EncodingSymbolId,
    /// Low 8 bits of the block's turn count.
    pub turn: u8,
    /// Octets of the block's stored form; codec 0, the raw octets, is the only one in use.
    pub stored_len: u32,
    /// Symbols of this block that follow in this turn, saturating.
    pub still_to_come: u16,
}

/// One encoding symbol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Data<'a> {
    /// What stands before it.
    pub head: DataHead,
    /// Its T octets.
    pub symbol: &'a [u8],
}

impl DataHead {
    /// The 40 octets before a symbol of `symbol_size` octets: the datagram's header and this.
    #[must_use]
    pub fn emit(&self, header: &Header, symbol_size: u16) -> [u8; DATA_HEAD_LEN] {
        let mut bytes = [0; DATA_HEAD_LEN];
        let body_len = symbol_size.saturating_add(BODY_HEAD_LEN);
        bytes[..HEADER_LEN].copy_from_slice(&header.emit(Kind::Data, body_len));
        bytes[HEADER_LEN..].copy_from_slice(&self.emit_body());
        bytes
    }

    fn emit_body(&self) -> [u8; BODY_HEAD_LEN as usize] {
        let mut bytes = [0; BODY_HEAD_LEN as usize];
        bytes[0..4].copy_from_slice(&self.block.to_be_bytes());
        bytes[4..7].copy_from_slice(&self.esi.get().to_be_bytes()[1..]);
        bytes[7] = self.turn;
        bytes[8..12].copy_from_slice(&(self.stored_len & STORED_LEN_MASK).to_be_bytes());
        bytes[12..14].copy_from_slice(&self.still_to_come.to_be_bytes());
        bytes
    }
}

/// The trailer of a DATA datagram: the CRC-32 of its head and its symbol.
#[must_use]
pub fn data_trailer(head: &[u8; DATA_HEAD_LEN], symbol: &[u8]) -> [u8; TRAILER_LEN] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(symbol);
    hasher.finalize().to_be_bytes()
}

impl<'a> Data<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let block = reader.u32()?;
        if block >= BLOCKS_MAX {
            return Err(WireError::Field("block"));
        }
        let esi = EncodingSymbolId::new(reader.u24()?).ok_or(WireError::Field("ESI"))?;
        let turn = reader.u8()?;
        let stored = reader.u32()?;
        let still_to_come = reader.u16()?;
        if reader.u16()? != 0 {
            return Err(WireError::Field("reserved"));
        }
        if stored & !STORED_LEN_MASK != 0 {
            return Err(WireError::Field("codec"));
        }
        let symbol = reader.0;
        let symbol_size = u16::try_from(symbol.len()).map_err(|_| WireError::Length)?;
        if !symbol_size_is_valid(symbol_size) {
            return Err(WireError::Length);
        }
        let source_symbols = stored.div_ceil(u32::from(symbol_size));
        if stored == 0 || stored > 1 << BLOCK_LOG2_MAX || source_symbols > SYMBOLS_MAX {
            return Err(WireError::Field("stored length"));
        }
        Ok(Self { head: DataHead { block, esi, turn, stored_len: stored, still_to_come }, symbol })
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.head.emit_body());
        writer.bytes(self.symbol);
    }
}

/// Octets before the symbol of a DATA datagram.
pub const DATA_HEAD_LEN: usize = HEADER_LEN + BODY_HEAD_LEN as usize;
const BODY_HEAD_LEN: u16 = 16;
const STORED_LEN_MASK: u32 = (1 << 28) - 1;
