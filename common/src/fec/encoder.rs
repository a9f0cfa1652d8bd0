//! Repair symbols out of a stored block.

use raptorq::SourceBlockEncoder;

use super::{BLOCK_NUMBER, BlockShape, FecError, contained};
use crate::id::EncodingSymbolId;

/// The `count` repair symbols of a stored block from ESI `first` on, T octets each, one after the
/// other.
///
/// Nearly all of the work is the same for one symbol and for a hundred: ask for all that a turn
/// needs in one call.
///
/// # Errors
/// [`FecError::StoredLength`] if `stored` is not of this shape, [`FecError::SymbolIds`] if the
/// symbols are not all from K to 2^24 − 1, [`FecError::Panicked`] if the library fails.
pub fn repair_symbols(
    shape: &BlockShape,
    stored: &[u8],
    first: EncodingSymbolId,
    count: u32,
) -> Result<Vec<u8>, FecError> {
    if stored.len() != shape.stored_len as usize {
        return Err(FecError::StoredLength { given: stored.len(), expected: shape.stored_len });
    }
    let start = shape.padded_symbols;
    let fits = count <= EncodingSymbolId::END - first.get();
    let Some(skipped) = first.get().checked_sub(start).filter(|_| fits) else {
        return Err(FecError::SymbolIds { first: first.get(), count, start });
    };
    if count == 0 {
        return Ok(Vec::new());
    }
    contained(shape, || {
        let mut source = Vec::with_capacity(start as usize * shape.symbol_size());
        source.extend_from_slice(stored);
        source.resize(start as usize * shape.symbol_size(), 0);
        // The library keeps the encoding plans of the last 64 K by itself, which is as fast as
        // handing it a plan: a cache of our own would only hold them twice.
        let encoder = SourceBlockEncoder::new(BLOCK_NUMBER, &shape.object(), &source);
        let mut repairs = Vec::with_capacity(count as usize * shape.symbol_size());
        for packet in encoder.repair_packets(skipped, count) {
            repairs.extend_from_slice(packet.data());
        }
        repairs
    })
}
