//! Runs of blocks with one number for all of them: the lists of SYNC and NEED.
//!
//! ```text
//! |                         first block                           |
//! |                       number of blocks                        |
//! |   symbols per block           |
//! ```

use super::{
    HEADER_LEN, SEALED_TRAILER_LEN, WireError,
    codec::{Reader, Writer},
    padded_len,
};
use crate::layout::{BLOCKS_MAX, SYMBOLS_MAX};

/// A run of blocks, and the symbols that each of them is owed (SYNC) or lacks at most (NEED).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockRange {
    /// The first block.
    pub first: u32,
    /// How many blocks, at least one.
    pub run: u32,
    /// Symbols for each of them; [`WHOLE`] stands for all source symbols.
    pub symbols: u16,
}

impl BlockRange {
    /// One block.
    #[must_use]
    pub const fn one(block: u32, symbols: u16) -> Self {
        Self { first: block, run: 1, symbols }
    }

    /// The first block behind the run.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.first.saturating_add(self.run)
    }
}

/// Whether so many symbols are so large a part of a block's that its next whole turn is waited for,
/// however far away that is.
#[must_use]
pub const fn is_much(symbols: u32, source_symbols: u32) -> bool {
    symbols.saturating_mul(MUCH) >= source_symbols
}

/// How many runs a SYNC or NEED may list, so that it is no longer than a DATA datagram of this
/// symbol size, which the path carries for certain.
#[must_use]
pub const fn ranges_max(symbol_size: u16) -> usize {
    let room = padded_len(symbol_size) - HEADER_LEN - LIST_OFFSET - SEALED_TRAILER_LEN;
    let ranges = room / RANGE_LEN;
    if ranges < RANGES_MAX { ranges } else { RANGES_MAX }
}

/// Reads the counted list at the end of a body: sorted, disjoint runs, none of them empty, all
/// within the largest image.
pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Vec<BlockRange>, WireError> {
    let count = usize::from(reader.u8()?);
    if count > RANGES_MAX {
        return Err(WireError::Field("ranges"));
    }
    let mut bytes = Reader(reader.bytes(count * RANGE_LEN)?);
    let mut ranges = Vec::with_capacity(count);
    let mut free_from = 0;
    for _ in 0..count {
        let range = BlockRange { first: bytes.u32()?, run: bytes.u32()?, symbols: bytes.u16()? };
        let end = range.first.checked_add(range.run).ok_or(WireError::Field("ranges"))?;
        if range.run == 0 || range.first < free_from || end > BLOCKS_MAX {
            return Err(WireError::Field("ranges"));
        }
        let countable = (1..=SYMBOLS_PER_BLOCK_MAX).contains(&u32::from(range.symbols));
        if range.symbols != WHOLE && !countable {
            return Err(WireError::Field("symbols"));
        }
        free_from = end;
        ranges.push(range);
    }
    Ok(ranges)
}

/// Writes the count and at most [`RANGES_MAX`] runs.
pub(super) fn emit(writer: &mut Writer<'_>, ranges: &[BlockRange]) {
    let ranges = &ranges[..ranges.len().min(RANGES_MAX)];
    writer.u8(u8::try_from(ranges.len()).unwrap_or(u8::MAX));
    for range in ranges {
        writer.u32(range.first);
        writer.u32(range.run);
        writer.u16(range.symbols);
    }
}

/// "All source symbols" in place of a number of symbols.
pub const WHOLE: u16 = 0xFFFF;
/// A quarter of a block: no loss that repairs at once can keep up with, but a late beginning.
const MUCH: u32 = 4;
/// So that a list fits into an MTU of 1,500 octets.
pub const RANGES_MAX: usize = 128;
/// The largest K: 8,111 symbols are a K' of RFC 6330 Table 2 themselves.
pub const SYMBOLS_PER_BLOCK_MAX: u32 = SYMBOLS_MAX;
/// Octets of a SYNC before its first run, the longer one of the two messages that have a list.
const LIST_OFFSET: usize = 35;
const RANGE_LEN: usize = 10;
