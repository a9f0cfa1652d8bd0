//! Multiplication of octets in terms that every machine has.

use std::ops::Range;

use super::{Factors, REDUCTION};

/// Adds the products of `columns`, as [`Kernel::add_products`](super::Kernel::add_products) does.
pub(super) fn add_products(
    targets: &mut [&mut [u8]],
    sources: &[&[u8]],
    factors: &Factors,
    columns: &Range<usize>,
) {
    for (target, factors) in targets.iter_mut().zip(factors) {
        for (source, &factor) in sources.iter().zip(factors) {
            add_product(&mut target[columns.clone()], &source[columns.clone()], factor);
        }
    }
}

fn add_product(target: &mut [u8], source: &[u8], factor: u8) {
    let (targets, target_rest) = target.as_chunks_mut::<LANES>();
    let (sources, source_rest) = source.as_chunks::<LANES>();
    for (target, source) in targets.iter_mut().zip(sources) {
        add_lanes(target, *source, factor);
    }
    for (target, &source) in target_rest.iter_mut().zip(source_rest) {
        *target ^= super::multiply(source, factor);
    }
}

/// The sum of the powers that the bits of the factor stand for: shifts and masks of whole arrays,
/// of which the compiler makes vector instructions.
fn add_lanes(target: &mut [u8; LANES], mut power: [u8; LANES], factor: u8) {
    for bit in 0..8 {
        let mask = (factor >> bit & 1).wrapping_neg();
        for (target, power) in target.iter_mut().zip(&mut power) {
            *target ^= *power & mask;
            let overflow = (*power >> 7).wrapping_neg() & REDUCTION;
            *power = *power << 1 ^ overflow;
        }
    }
}

/// Two vectors of the smallest kind there is.
const LANES: usize = 32;
