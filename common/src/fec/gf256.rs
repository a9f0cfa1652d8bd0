//! Arithmetic in GF(256) as RFC 6330 section 5.7 has it, on single octets and on whole symbols.
//!
//! Decides in which order symbols pass through the cache. How a register full of octets is
//! multiplied is left to the kernels, of which each machine takes its fastest.

mod kernel;
mod portable;

pub(super) use kernel::Kernel;

/// The product of two elements.
pub(super) const fn multiply(a: u8, b: u8) -> u8 {
    let (mut product, mut power, mut rest) = (0, a, b);
    while rest != 0 {
        if rest & 1 == 1 {
            product ^= power;
        }
        power = (power << 1) ^ if power & 0x80 == 0 { 0 } else { REDUCTION };
        rest >>= 1;
    }
    product
}

/// The element whose product with `a` is 1; 0, which has none, gives 0.
pub(super) const fn invert(a: u8) -> u8 {
    // a^254, because a^255 = 1.
    let (mut inverse, mut square, mut step) = (1, a, 1);
    while step < 8 {
        square = multiply(square, square);
        inverse = multiply(inverse, square);
        step += 1;
    }
    inverse
}

/// Adds to each target the sum of all sources, each times its coefficient: `coefficients` has a row
/// for each target with a column for each source.
///
/// # Panics
/// If the symbols are not all of one length, or the coefficients are not as many as that.
pub(super) fn add_products(
    kernel: Kernel,
    targets: &mut [&mut [u8]],
    sources: &[&[u8]],
    coefficients: &[u8],
) {
    let (Some(first), false) = (targets.first(), sources.is_empty()) else { return };
    let len = first.len();
    assert!(targets.iter().all(|target| target.len() == len), "targets of one length");
    assert!(sources.iter().all(|source| source.len() == len), "sources of one length");
    assert_eq!(coefficients.len(), targets.len() * sources.len(), "one coefficient for each pair");
    for start in (0..len).step_by(TILE_COLUMNS) {
        let columns = start..(start + TILE_COLUMNS).min(len);
        for (at, sources_tile) in sources.chunks(SOURCES_MAX).enumerate() {
            let rows = targets.chunks_mut(TARGETS_MAX);
            let rows = rows.zip(coefficients.chunks(TARGETS_MAX * sources.len()));
            for (targets_tile, rows) in rows {
                let mut factors = [[0; SOURCES_MAX]; TARGETS_MAX];
                for (to, row) in factors.iter_mut().zip(rows.chunks_exact(sources.len())) {
                    let row = &row[at * SOURCES_MAX..][..sources_tile.len()];
                    to[..row.len()].copy_from_slice(row);
                }
                kernel.add_products(targets_tile, sources_tile, &factors, columns.clone());
            }
        }
    }
}

/// The coefficients of a call of a kernel: `[target][source]`.
type Factors = [[u8; SOURCES_MAX]; TARGETS_MAX];

/// Targets that a kernel holds in registers at a time: with 64 octets of each, four leave room in
/// the 16 registers of AVX2 for the source, its tables and nothing else.
const TARGETS_MAX: usize = 4;

/// Sources that a kernel adds before it stores its targets, which is then 3 % of its work.
const SOURCES_MAX: usize = 16;

/// Octets of each symbol that are worked on at a time: 16 sources and 4 targets of so many stay
/// in a first-level cache of 32 KiB, and a symbol for a network of 1500 octets is one tile.
const TILE_COLUMNS: usize = 1408;

/// x^8 in the field: the polynomial x^8 + x^4 + x^3 + x^2 + 1 without its first term.
const REDUCTION: u8 = 0x1d;

#[cfg(test)]
mod tests;
