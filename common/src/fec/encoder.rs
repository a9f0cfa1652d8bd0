//! Repair symbols out of a stored block.

use raptorq::SourceBlockEncoder;

use super::gf256::{Kernel, add_products};
use super::rows::{Generator, Worthwhile};
use super::{BLOCK_NUMBER, BlockShape, FecError, contained};
use crate::id::EncodingSymbolId;

/// The `count` repair symbols of a stored block from ESI `first` on, T octets each, one after the
/// other.
///
/// A few cost as much each as adding up the block once; many cost the same whatever their number:
/// ask for all that a turn needs in one call.
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
    if first.get() < start || !fits {
        return Err(FecError::SymbolIds { first: first.get(), count, start });
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let kernel = Kernel::best();
    if count <= Worthwhile::with(kernel).encoded
        && let Some(generator) = Generator::of(shape)
    {
        return Ok(by_rows(kernel, shape, stored, &generator.rows(first, count)?));
    }
    by_library(shape, stored, first, count)
}

/// The repair symbols that these rows of the generator stand for.
pub(super) fn by_rows(
    kernel: Kernel,
    shape: &BlockShape,
    stored: &[u8],
    rows: &[Vec<u8>],
) -> Vec<u8> {
    let (whole, rest) = stored.split_at(stored.len() - stored.len() % shape.symbol_size());
    let mut last = rest.to_vec();
    last.resize(shape.symbol_size(), 0);
    let mut sources: Vec<&[u8]> = whole.chunks_exact(shape.symbol_size()).collect();
    if !rest.is_empty() {
        sources.push(&last);
    }
    // What rows say of the symbols S ... K-1 does not matter: these are zero.
    let coefficients: Vec<u8> =
        rows.iter().flat_map(|row| &row[..sources.len()]).copied().collect();
    let mut repairs = vec![0; rows.len() * shape.symbol_size()];
    let mut targets: Vec<&mut [u8]> = repairs.chunks_exact_mut(shape.symbol_size()).collect();
    add_products(kernel, &mut targets, &sources, &coefficients);
    repairs
}

/// The repair symbols by way of the intermediate symbols of RFC 6330 section 5.3.3.
pub(super) fn by_library(
    shape: &BlockShape,
    stored: &[u8],
    first: EncodingSymbolId,
    count: u32,
) -> Result<Vec<u8>, FecError> {
    contained(shape, || {
        let source_len = shape.padded_symbols as usize * shape.symbol_size();
        let mut source = Vec::with_capacity(source_len);
        source.extend_from_slice(stored);
        source.resize(source_len, 0);
        // The library keeps the encoding plans of the last 64 K by itself, which is as fast as
        // handing it a plan: a cache of our own would only hold them twice.
        let encoder = SourceBlockEncoder::new(BLOCK_NUMBER, &shape.object(), &source);
        let mut repairs = Vec::with_capacity(count as usize * shape.symbol_size());
        for packet in encoder.repair_packets(first.get() - shape.padded_symbols, count) {
            repairs.extend_from_slice(packet.data());
        }
        repairs
    })
}
