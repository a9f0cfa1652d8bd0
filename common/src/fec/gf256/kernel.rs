//! Multiplication of octets with what vector instructions the machine turns out to have.
//!
//! The one file with `unsafe`: vector loads and stores take pointers, and which instructions there
//! are is known at run time only. All pointers are made here from slices of checked length.
#![expect(unsafe_code, reason = "vector instructions chosen at run time, on raw pointers")]

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use std::arch::{asm, x86_64 as arch};
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

use super::{Factors, SOURCES_MAX, TARGETS_MAX, multiply, portable};

/// A way to multiply that this machine is able to go: one that it is not is never made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::fec) struct Kernel(Instructions);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Instructions {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Gfni,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Kernel {
    /// The fastest one.
    pub(in crate::fec) fn best() -> Self {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().pop().unwrap_or(Self(Instructions::Portable)))
    }

    /// All that this machine has, the fastest last.
    pub(in crate::fec) fn available() -> Vec<Self> {
        #[cfg_attr(
            not(any(target_arch = "x86_64", target_arch = "aarch64")),
            expect(unused_mut, reason = "other machines have no more than this one")
        )]
        let mut kernels = vec![Self(Instructions::Portable)];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            kernels.push(Self(Instructions::Avx2));
            if is_x86_feature_detected!("gfni") {
                kernels.push(Self(Instructions::Gfni));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            kernels.push(Self(Instructions::Neon));
        }
        kernels
    }

    /// One of three values: for no vector instructions of its own, for multiplication by table
    /// lookups, and for multiplication in one instruction.
    pub(in crate::fec) fn choose<T>(self, portable: T, lookup: T, instruction: T) -> T {
        match self.0 {
            Instructions::Portable => portable,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => lookup,
            #[cfg(target_arch = "x86_64")]
            Instructions::Gfni => instruction,
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => lookup,
        }
    }

    /// Adds to `columns` of each target those of the sources, each times its factor. There are at
    /// most [`TARGETS_MAX`] targets and [`SOURCES_MAX`] sources.
    pub(super) fn add_products(
        self,
        targets: &mut [&mut [u8]],
        sources: &[&[u8]],
        factors: &Factors,
        columns: Range<usize>,
    ) {
        if self.0 == Instructions::Portable {
            return portable::add_products(targets, sources, factors, &columns);
        }
        let strips = columns.start..columns.end - columns.len() % STRIP;
        let rest = strips.end..columns.end;
        self.add_whole_strips(targets, sources, factors, &strips);
        if rest.is_empty() {
            return;
        }
        let mut padded_targets = [[0; STRIP]; TARGETS_MAX];
        let mut padded_sources = [[0; STRIP]; SOURCES_MAX];
        for (padded, target) in padded_targets.iter_mut().zip(targets.iter()) {
            padded[..rest.len()].copy_from_slice(&target[rest.clone()]);
        }
        for (padded, source) in padded_sources.iter_mut().zip(sources) {
            padded[..rest.len()].copy_from_slice(&source[rest.clone()]);
        }
        let mut to = padded_targets.each_mut().map(<[u8; STRIP]>::as_mut_slice);
        let from = padded_sources.each_ref().map(<[u8; STRIP]>::as_slice);
        let (to, from) = (&mut to[..targets.len()], &from[..sources.len()]);
        self.add_whole_strips(to, from, factors, &(0..STRIP));
        for (target, padded) in targets.iter_mut().zip(padded_targets) {
            target[rest.clone()].copy_from_slice(&padded[..rest.len()]);
        }
    }

    fn add_whole_strips(
        self,
        targets: &mut [&mut [u8]],
        sources: &[&[u8]],
        factors: &Factors,
        strips: &Range<usize>,
    ) {
        match targets.len() {
            1 => self.add_strips::<1>(targets, sources, factors, strips),
            2 => self.add_strips::<2>(targets, sources, factors, strips),
            3 => self.add_strips::<3>(targets, sources, factors, strips),
            _ => self.add_strips::<TARGETS_MAX>(targets, sources, factors, strips),
        }
    }

    /// The same for exactly `N` targets.
    fn add_strips<const N: usize>(
        self,
        targets: &mut [&mut [u8]],
        sources: &[&[u8]],
        factors: &Factors,
        strips: &Range<usize>,
    ) {
        assert_eq!(targets.len(), N, "as many targets as the kernel is made for");
        assert!(strips.len().is_multiple_of(STRIP), "whole strips");
        let mut tile = Tile {
            targets: [ptr::null_mut(); N],
            sources: [ptr::null(); SOURCES_MAX],
            sources_len: sources.len(),
            factors,
            octets: strips.len(),
        };
        for (pointer, target) in tile.targets.iter_mut().zip(targets) {
            *pointer = target[strips.clone()].as_mut_ptr();
        }
        for (pointer, source) in tile.sources[..sources.len()].iter_mut().zip(sources) {
            *pointer = source[strips.clone()].as_ptr();
        }
        match self.0 {
            Instructions::Portable => {}
            // SAFETY: `available` found the instructions; the tile was just made from slices of
            // the same length, a multiple of STRIP.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { add_avx2(&tile) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Gfni => unsafe { add_gfni(&tile) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => unsafe { add_neon(&tile) },
        }
    }
}

/// What a kernel works on. All targets, and the first `sources_len` sources, point to `octets`
/// octets, a multiple of [`STRIP`]; the targets overlap with nothing.
struct Tile<'a, const N: usize> {
    targets: [*mut u8; N],
    sources: [*const u8; SOURCES_MAX],
    sources_len: usize,
    factors: &'a Factors,
    octets: usize,
}

/// # Safety
/// The machine has AVX2, and the tile is as its type says.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn add_avx2<const N: usize>(tile: &Tile<'_, N>) {
    let low_bits = arch::_mm256_set1_epi8(15);
    for at in (0..tile.octets).step_by(STRIP) {
        // SAFETY: `at` + 64 is within the octets of each target and source.
        let load = |from: *const u8| unsafe {
            let from = from.add(at).cast::<arch::__m256i>();
            [arch::_mm256_loadu_si256(from), arch::_mm256_loadu_si256(from.add(1))]
        };
        let mut sums = tile.targets.map(|target| load(target));
        for (number, source) in tile.sources[..tile.sources_len].iter().enumerate() {
            let octets = load(*source);
            let low = octets.map(|octets| arch::_mm256_and_si256(octets, low_bits));
            let high = octets
                .map(|octets| arch::_mm256_and_si256(arch::_mm256_srli_epi64(octets, 4), low_bits));
            for (sums, factors) in sums.iter_mut().zip(tile.factors) {
                let [of_low, of_high] = &NIBBLES[usize::from(factors[number])];
                // SAFETY: the tables have 16 octets.
                let (of_low, of_high) = unsafe {
                    let of_low = arch::_mm_loadu_si128(of_low.as_ptr().cast());
                    (of_low, arch::_mm_loadu_si128(of_high.as_ptr().cast()))
                };
                let of_low = arch::_mm256_broadcastsi128_si256(of_low);
                let of_high = arch::_mm256_broadcastsi128_si256(of_high);
                for ((sum, low), high) in sums.iter_mut().zip(low).zip(high) {
                    let low = arch::_mm256_shuffle_epi8(of_low, low);
                    let high = arch::_mm256_shuffle_epi8(of_high, high);
                    *sum = arch::_mm256_xor_si256(*sum, arch::_mm256_xor_si256(low, high));
                }
            }
        }
        for (target, sums) in tile.targets.iter().zip(sums) {
            // SAFETY: `at` + 64 is within the octets of each target.
            unsafe {
                let to = target.add(at).cast::<arch::__m256i>();
                arch::_mm256_storeu_si256(to, sums[0]);
                arch::_mm256_storeu_si256(to.add(1), sums[1]);
            }
        }
    }
}

/// # Safety
/// The machine has AVX2 and GFNI, and the tile is as its type says.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn add_gfni<const N: usize>(tile: &Tile<'_, N>) {
    let mut matrices = [[0; N]; SOURCES_MAX];
    for (number, matrices) in matrices.iter_mut().enumerate() {
        for (matrix, factors) in matrices.iter_mut().zip(tile.factors) {
            *matrix = MATRICES[usize::from(factors[number])].cast_signed();
        }
    }
    for at in (0..tile.octets).step_by(STRIP) {
        // SAFETY: `at` + 64 is within the octets of each target and source.
        let load = |from: *const u8| unsafe {
            let from = from.add(at).cast::<arch::__m256i>();
            [arch::_mm256_loadu_si256(from), arch::_mm256_loadu_si256(from.add(1))]
        };
        let mut sums = tile.targets.map(|target| load(target));
        for (source, matrices) in tile.sources[..tile.sources_len].iter().zip(&matrices) {
            let octets = load(*source);
            for (sums, matrix) in sums.iter_mut().zip(matrices) {
                let matrix = arch::_mm256_set1_epi64x(*matrix);
                for (sum, octets) in sums.iter_mut().zip(octets) {
                    let product: arch::__m256i;
                    // The instruction by its name: its function needs a later compiler.
                    // SAFETY: the machine has it; it reads and writes these registers only.
                    unsafe {
                        asm!(
                            "vgf2p8affineqb {product}, {octets}, {matrix}, 0",
                            product = lateout(ymm_reg) product,
                            octets = in(ymm_reg) octets,
                            matrix = in(ymm_reg) matrix,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                    *sum = arch::_mm256_xor_si256(*sum, product);
                }
            }
        }
        for (target, sums) in tile.targets.iter().zip(sums) {
            // SAFETY: `at` + 64 is within the octets of each target.
            unsafe {
                let to = target.add(at).cast::<arch::__m256i>();
                arch::_mm256_storeu_si256(to, sums[0]);
                arch::_mm256_storeu_si256(to.add(1), sums[1]);
            }
        }
    }
}

/// # Safety
/// The machine has NEON, and the tile is as its type says.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn add_neon<const N: usize>(tile: &Tile<'_, N>) {
    for at in (0..tile.octets).step_by(16) {
        // SAFETY: `at` + 16 is within the octets of each target.
        let mut sums = tile.targets.map(|target| unsafe { arch::vld1q_u8(target.add(at)) });
        for (number, source) in tile.sources[..tile.sources_len].iter().enumerate() {
            // SAFETY: `at` + 16 is within the octets of each source.
            let octets = unsafe { arch::vld1q_u8(source.add(at)) };
            let low = arch::vandq_u8(octets, arch::vdupq_n_u8(15));
            let high = arch::vshrq_n_u8::<4>(octets);
            for (sum, factors) in sums.iter_mut().zip(tile.factors) {
                let [of_low, of_high] = &NIBBLES[usize::from(factors[number])];
                // SAFETY: the tables have 16 octets.
                let (of_low, of_high) =
                    unsafe { (arch::vld1q_u8(of_low.as_ptr()), arch::vld1q_u8(of_high.as_ptr())) };
                let low = arch::vqtbl1q_u8(of_low, low);
                let high = arch::vqtbl1q_u8(of_high, high);
                *sum = arch::veorq_u8(*sum, arch::veorq_u8(low, high));
            }
        }
        for (target, sum) in tile.targets.iter().zip(sums) {
            // SAFETY: `at` + 16 is within the octets of each target.
            unsafe { arch::vst1q_u8(target.add(at), sum) };
        }
    }
}

/// Octets of each symbol that a kernel takes at a time: a cache line.
const STRIP: usize = 64;

/// For each factor its products with 0 … 15 and with 16 times these: a table lookup by shuffle.
static NIBBLES: [[[u8; 16]; 2]; 256] = {
    let mut tables = [[[0; 16]; 2]; 256];
    let mut factor: u8 = 0;
    loop {
        let mut nibble: u8 = 0;
        while nibble < 16 {
            tables[factor as usize][0][nibble as usize] = multiply(factor, nibble);
            tables[factor as usize][1][nibble as usize] = multiply(factor, nibble << 4);
            nibble += 1;
        }
        if factor == u8::MAX {
            break tables;
        }
        factor += 1;
    }
};

/// For each factor the matrix over GF(2) that multiplies by it, as GFNI's affine transformation
/// takes it: octet 7 − i has the bits of the input that make up bit i of the output. GFNI's own
/// multiplication is of no use, its field has another polynomial.
#[cfg(any(test, target_arch = "x86_64"))]
pub(super) static MATRICES: [u64; 256] = {
    let mut matrices = [0; 256];
    let mut factor: u8 = 0;
    loop {
        let mut input = 0;
        while input < 8 {
            let product = multiply(factor, 1 << input);
            let mut output = 0;
            while output < 8 {
                let bit = (product >> output & 1) as u64;
                matrices[factor as usize] |= bit << (8 * (7 - output) + input);
                output += 1;
            }
            input += 1;
        }
        if factor == u8::MAX {
            break matrices;
        }
        factor += 1;
    }
};
