//! RaptorQ (RFC 6330) behind checked types: repair symbols out of a stored block, and a stored
//! block out of whatever symbols arrived.
//!
//! This room owns the only calls into the RaptorQ library, which panics on malformed input by
//! design. Its types admit no such input, and should it panic all the same, the panic ends here as
//! an error. Which symbols to send, when to try a decode and whether a decoded block is the right
//! one are decided elsewhere: a decode that succeeds proves nothing about its bytes.
//!
//! ```text
//! stored block    |  0  |  1  | ... | S-1 |           stored_len octets, symbols of T octets
//! source block    |  0  |  1  | ... | S-1 | S ... K-1 |   zero padded, RFC 6330 section 5.3.1
//! ESI                0     1    ...   S-1   never sent    K ... 2^24-1: repair symbols
//! ```
//!
//! The library is always told that a block has K source symbols, K being in RFC 6330's table 2:
//! then it pads nothing itself and its internal symbol ids are our ESIs.

mod decoder;
mod encoder;
mod gf256;
mod rows;
mod solver;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use raptorq::{ObjectTransmissionInformation, extended_source_block_symbols};

use crate::id::EncodingSymbolId;
use crate::layout::{SYMBOLS_MAX, symbol_size_is_valid};
use crate::pool::panic_text;

pub use decoder::{Insertion, Received, SYMBOLS_HELD_SURPLUS_MAX, Undecoded};
pub use encoder::repair_symbols;

/// How one stored block is cut into encoding symbols.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockShape {
    stored_len: u32,
    symbol_size: u16,
    source_symbols: u32,
    padded_symbols: u32,
}

impl BlockShape {
    /// The shape of a block of `stored_len` octets in symbols of `symbol_size` octets; `None` if
    /// it is empty, T is not valid, or it takes more than [`SYMBOLS_MAX`] symbols.
    #[must_use]
    pub fn new(stored_len: u32, symbol_size: u16) -> Option<Self> {
        if !symbol_size_is_valid(symbol_size) {
            return None;
        }
        let source_symbols = stored_len.div_ceil(u32::from(symbol_size));
        let padded_symbols = padded_symbols(source_symbols)?;
        Some(Self { stored_len, symbol_size, source_symbols, padded_symbols })
    }

    /// Octets of the stored block.
    #[must_use]
    pub const fn stored_len(&self) -> u32 {
        self.stored_len
    }

    /// T: octets in a symbol.
    #[must_use]
    pub const fn symbol_size(&self) -> usize {
        self.symbol_size as usize
    }

    /// S: the symbols that carry data, ESI 0 … S−1.
    #[must_use]
    pub const fn source_symbols(&self) -> u32 {
        self.source_symbols
    }

    /// K: the source symbols of the code, of which S … K−1 are zero, never sent and always known.
    #[must_use]
    pub const fn padded_symbols(&self) -> u32 {
        self.padded_symbols
    }

    /// Where source symbol `esi` lies in the stored block; the last one is shorter than T unless
    /// the block is a multiple of T. `None` for what is no source symbol.
    #[must_use]
    pub fn symbol_range(&self, esi: EncodingSymbolId) -> Option<Range<usize>> {
        if esi.get() >= self.source_symbols {
            return None;
        }
        let start = esi.get() as usize * self.symbol_size();
        Some(start..(start + self.symbol_size()).min(self.stored_len as usize))
    }

    /// Whether `esi` is one of a repair symbol: K or above.
    #[must_use]
    pub const fn is_repair(&self, esi: EncodingSymbolId) -> bool {
        esi.get() >= self.padded_symbols
    }

    /// S·T: octets of all source symbols, the last one padded.
    fn symbols_len(&self) -> usize {
        self.source_symbols as usize * self.symbol_size()
    }

    /// What the library wants to know of an object. Only the symbol size, the number of sub-blocks
    /// and the alignment reach its block coders; one block of one sub-block has no object framing.
    fn object(&self) -> ObjectTransmissionInformation {
        ObjectTransmissionInformation::new(0, self.symbol_size, 1, 1, 1)
    }
}

/// Why a block was not coded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FecError {
    /// The symbols at hand do not determine the block.
    #[error(
        "{known} known symbols do not determine a source block of {needed}; it takes more of them"
    )]
    TooFew {
        /// Symbols known, the zero ones included.
        known: u32,
        /// K.
        needed: u32,
    },
    /// The block to encode has not the length that its shape says.
    #[error("a stored block of {given} octets was to be encoded as one of {expected}")]
    StoredLength {
        /// Its length, in octets.
        given: usize,
        /// The length according to its shape, in octets.
        expected: u32,
    },
    /// The symbols asked for are not all repair symbols with an ESI of 24 bits.
    #[error("{count} repair symbols from ESI {first} on do not fit between {start} and 2^24")]
    SymbolIds {
        /// The first one asked for.
        first: u32,
        /// How many were asked for.
        count: u32,
        /// K, the first ESI of a repair symbol.
        start: u32,
    },
    /// The library gave up in a way it should not; the block is as it was.
    #[error("the RaptorQ library failed on a source block of {symbols} symbols: {text}")]
    Panicked {
        /// K.
        symbols: u32,
        /// What it said.
        text: String,
    },
}

/// K: the smallest K' of RFC 6330 table 2 (section 5.6) that is not below `symbols`; `None` for
/// none and for more than [`SYMBOLS_MAX`], which is itself in the table.
#[must_use]
pub fn padded_symbols(symbols: u32) -> Option<u32> {
    (1..=SYMBOLS_MAX).contains(&symbols).then(|| extended_source_block_symbols(symbols))
}

/// Runs a call into the library and turns its panic into an error.
fn contained<T>(shape: &BlockShape, call: impl FnOnce() -> T) -> Result<T, FecError> {
    // What a panic leaves half done inside the library is dropped with the closure; its one
    // process-wide state, the plan cache, recovers from a poisoned lock.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| FecError::Panicked {
        symbols: shape.padded_symbols,
        text: panic_text(panic.as_ref()).to_owned(),
    })
}

/// The source block number that the library is given: each block stands alone.
const BLOCK_NUMBER: u8 = 0;

#[cfg(test)]
mod tests;
