use proptest::prelude::*;

use super::kernel::MATRICES;
use super::*;
use crate::prng::Prng;

/// Multiplication as RFC 6330 section 5.7.2 defines it, by logarithms to the base 2.
fn by_logarithms(a: u8, b: u8) -> u8 {
    let mut powers = vec![1u8];
    while powers.len() < 255 {
        let last = *powers.last().unwrap();
        powers.push(last << 1 ^ if last > 127 { 0x1d } else { 0 });
    }
    let logarithm = |value| powers.iter().position(|&power| power == value);
    match (logarithm(a), logarithm(b)) {
        (Some(a), Some(b)) => powers[(a + b) % 255],
        _ => 0,
    }
}

#[test]
fn products_follow_the_logarithms_of_rfc_6330() {
    for a in 0..=255 {
        for b in (0..=255).step_by(7).chain([1, 2, 255]) {
            assert_eq!(multiply(a, b), by_logarithms(a, b), "{a} * {b}");
            assert_eq!(multiply(a, b), multiply(b, a), "{a} * {b}");
        }
    }
}

#[test]
fn every_element_but_zero_has_an_inverse() {
    assert_eq!(invert(0), 0);
    for a in 1..=255 {
        assert_eq!(multiply(a, invert(a)), 1, "{a}");
    }
}

/// The affine transformation of GFNI on one octet, as its manual defines it.
fn affine(matrix: u64, octet: u8) -> u8 {
    let rows = matrix.to_le_bytes();
    (0..8).fold(0, |result, bit| {
        let parity = (rows[7 - bit] & octet).count_ones() % 2;
        result | u8::try_from(parity).unwrap() << bit
    })
}

#[test]
fn the_matrices_for_gfni_multiply() {
    for (factor, matrix) in (0..=255).zip(MATRICES) {
        for octet in 0..=255 {
            assert_eq!(affine(matrix, octet), multiply(factor, octet), "{factor} * {octet}");
        }
    }
}

#[test]
fn the_kernels_of_this_machine_are_tested_and_the_others_are_named() {
    let tested = format!("{:?}", Kernel::available());
    assert!(tested.contains("Portable"), "{tested}");
    for name in ["Avx2", "Gfni", "Neon"].iter().filter(|name| !tested.contains(**name)) {
        println!("not tested, this machine lacks it: {name}");
    }
}

#[test]
fn products_of_nothing_are_nothing() {
    for kernel in Kernel::available() {
        let mut target = [1, 2, 3];
        add_products(kernel, &mut [&mut target], &[], &[]);
        add_products(kernel, &mut [], &[&[1, 2, 3]], &[]);
        assert_eq!(target, [1, 2, 3]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn all_kernels_agree_with_the_definition(
        len in 0usize..3000,
        offset in 0usize..64,
        targets in 1usize..10,
        sources in 1usize..36,
        seed: u64,
    ) {
        let mut prng = Prng::new(seed);
        let mut filled = |len: usize| {
            let mut octets = vec![0; len];
            prng.fill(&mut octets);
            octets
        };
        let coefficients = filled(targets * sources);
        let before: Vec<_> = (0..targets).map(|_| filled(offset + len)).collect();
        let from: Vec<_> = (0..sources).map(|_| filled(offset + len)).collect();
        let mut expected = before.clone();
        for (target, row) in expected.iter_mut().zip(coefficients.chunks_exact(sources)) {
            for (source, &factor) in from.iter().zip(row) {
                let products: [u8; 256] =
                    std::array::from_fn(|octet| multiply(factor, u8::try_from(octet).unwrap()));
                for (target, &octet) in target[offset..].iter_mut().zip(&source[offset..]) {
                    *target ^= products[usize::from(octet)];
                }
            }
        }
        let from: Vec<_> = from.iter().map(|source| &source[offset..]).collect();
        for kernel in Kernel::available() {
            let mut found = before.clone();
            let mut to: Vec<_> = found.iter_mut().map(|target| &mut target[offset..]).collect();
            add_products(kernel, &mut to, &from, &coefficients);
            prop_assert!(found == expected, "{kernel:?}");
        }
    }
}
