//! A stored block out of the symbols that arrived.

use std::iter;

use raptorq::{EncodingPacket, PayloadId, SourceBlockDecoder};

use super::gf256::{Kernel, add_products};
use super::rows::{Generator, Worthwhile};
use super::solver::Recipe;
use super::{BLOCK_NUMBER, BlockShape, FecError, contained};
use crate::bits::BitSet;
use crate::id::EncodingSymbolId;

/// The symbols of one block that are at hand: source symbols in their place in the block, repair
/// symbols in a slab. Every symbol in it has the right length and an ESI of its own.
#[derive(Clone, Debug)]
pub struct Received {
    shape: BlockShape,
    /// S·T octets; what is not `present` is undefined.
    block: Vec<u8>,
    present: BitSet,
    repair_ids: Vec<EncodingSymbolId>,
    /// The repair symbols in the order of their ids, T octets each.
    repairs: Vec<u8>,
}

impl Received {
    /// Nothing received yet. `buffer` becomes the block; pass one that was used before to spare
    /// an allocation: its contents do not matter.
    #[must_use]
    pub fn new(shape: BlockShape, mut buffer: Vec<u8>) -> Self {
        if buffer.capacity() < shape.symbols_len() {
            // Fresh zeroes come from the system for nothing, and no contents are moved.
            buffer = vec![0; shape.symbols_len()];
        }
        buffer.resize(shape.symbols_len(), 0);
        let present = BitSet::new(shape.source_symbols);
        Self { shape, block: buffer, present, repair_ids: Vec::new(), repairs: Vec::new() }
    }

    /// How the block is cut.
    #[must_use]
    pub const fn shape(&self) -> &BlockShape {
        &self.shape
    }

    /// The source symbols at hand, of S.
    #[must_use]
    pub const fn present(&self) -> &BitSet {
        &self.present
    }

    /// How many different symbols are known, the zero ones S … K−1 included: below K a decode is
    /// hopeless, at K it fails about once in 200 times, and 256 times more rarely with each more.
    #[must_use]
    pub fn known(&self) -> u32 {
        // No more than K + `SYMBOLS_HELD_SURPLUS_MAX`, see `insert`.
        let repairs = u32::try_from(self.repair_ids.len()).unwrap_or(u32::MAX);
        let zeroes = self.shape.padded_symbols - self.shape.source_symbols;
        self.present.count() + zeroes + repairs
    }

    /// Whether all source symbols are here, so that nothing needs decoding.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.present.is_full()
    }

    /// Takes a symbol in.
    pub fn insert(&mut self, esi: EncodingSymbolId, symbol: &[u8]) -> Insertion {
        if symbol.len() != self.shape.symbol_size() {
            return Insertion::Malformed;
        }
        if let Some(range) = self.shape.symbol_range(esi) {
            if !self.present.insert(esi.get()) {
                return Insertion::Duplicate;
            }
            // The padding of the last symbol is zero whatever was sent: it is part of the code.
            let (data, padding) = symbol.split_at(range.len());
            self.block[range.clone()].copy_from_slice(data);
            self.block[range.end..range.end + padding.len()].fill(0);
            return Insertion::New;
        }
        if !self.shape.is_repair(esi) {
            return Insertion::Malformed;
        }
        if self.repair_ids.contains(&esi) {
            return Insertion::Duplicate;
        }
        if self.known() >= self.shape.padded_symbols + SYMBOLS_HELD_SURPLUS_MAX {
            return Insertion::Full;
        }
        if self.repairs.is_empty() {
            // Source symbols come first as a rule: what is missing now is what repairs will fill.
            let deficit = self.shape.padded_symbols.saturating_sub(self.known());
            let reserved = deficit.clamp(1, REPAIRS_RESERVED_MAX) as usize;
            self.repairs.reserve_exact(reserved * self.shape.symbol_size());
        }
        self.repair_ids.push(esi);
        self.repairs.extend_from_slice(symbol);
        Insertion::New
    }

    /// The stored block, whose buffer keeps room for S·T octets. The source symbols received are
    /// taken as they are; if all are here nothing is decoded.
    ///
    /// Success does not mean that the block is right: one wrong symbol makes nearly all decoded
    /// ones wrong.
    ///
    /// # Errors
    /// [`FecError::TooFew`] or [`FecError::Panicked`], and with it everything received, unchanged.
    pub fn decode(mut self) -> Result<Vec<u8>, Undecoded> {
        if !self.is_complete()
            && let Err(error) = self.complete()
        {
            return Err(Undecoded { error, received: Box::new(self) });
        }
        self.block.truncate(self.shape.stored_len as usize);
        Ok(self.block)
    }

    /// Gives up the symbols for the memory of the block.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.block
    }

    /// Makes the missing source symbols, the faster way.
    fn complete(&mut self) -> Result<(), FecError> {
        let shape = self.shape;
        if self.known() < shape.padded_symbols {
            return Err(self.too_few());
        }
        let kernel = Kernel::best();
        let missing = shape.source_symbols - self.present.count();
        if missing <= Worthwhile::with(kernel).decoded
            && let Some(generator) = Generator::of(&shape)
        {
            return self.complete_by_rows(kernel, &generator);
        }
        self.complete_by_library()
    }

    /// Makes them of all present symbols and as many repair symbols: the cost is proportional to
    /// how many are missing.
    pub(super) fn complete_by_rows(
        &mut self,
        kernel: Kernel,
        generator: &Generator,
    ) -> Result<(), FecError> {
        let size = self.shape.symbol_size();
        let runs: Vec<(u32, u32)> = self.present.runs().collect();
        let present = self.present.count() as usize;
        let missing: Vec<usize> = missing(&self.present).map(|esi| esi as usize).collect();
        let rows = self.repair_ids.iter().map(|&esi| {
            let row = generator.row(esi)?;
            let mut sorted = Vec::with_capacity(present + missing.len());
            for (first, run) in &runs {
                sorted.extend_from_slice(&row[*first as usize..][..*run as usize]);
            }
            sorted.extend(missing.iter().map(|&esi| row[esi]));
            Ok(sorted)
        });
        let Some(recipe) = Recipe::new(kernel, present, missing.len(), rows)? else {
            return Err(self.too_few());
        };
        let mut targets = Vec::with_capacity(missing.len());
        let mut sources: Vec<&[u8]> = Vec::with_capacity(present + missing.len());
        for (esi, symbol) in (0..).zip(self.block.chunks_exact_mut(size)) {
            if self.present.contains(esi) {
                sources.push(symbol);
            } else {
                symbol.fill(0);
                targets.push(symbol);
            }
        }
        sources.extend(recipe.repairs.iter().map(|place| &self.repairs[place * size..][..size]));
        add_products(kernel, &mut targets, &sources, &recipe.coefficients);
        Ok(())
    }

    /// Makes them the library's way, whose cost is the same however many are missing.
    pub(super) fn complete_by_library(&mut self) -> Result<(), FecError> {
        let shape = self.shape;
        let solution = contained(&shape, || {
            let octets = u64::from(shape.padded_symbols) * u64::from(shape.symbol_size);
            let mut decoder = SourceBlockDecoder::new(BLOCK_NUMBER, &shape.object(), octets);
            // In one call: each call with enough symbols is a whole attempt at a solution.
            decoder.decode(self.packets())
        })?;
        // The library gives no other length; a shorter one would panic in `fill_gaps`.
        let solution = solution.filter(|symbols| symbols.len() >= shape.symbols_len());
        self.fill_gaps(&solution.ok_or_else(|| self.too_few())?);
        Ok(())
    }

    fn too_few(&self) -> FecError {
        FecError::TooFew { known: self.known(), needed: self.shape.padded_symbols }
    }

    /// All known symbols, as the library takes them.
    fn packets(&self) -> impl Iterator<Item = EncodingPacket> {
        let size = self.shape.symbol_size();
        let packet = |esi, symbol| EncodingPacket::new(PayloadId::new(BLOCK_NUMBER, esi), symbol);
        let sources = self.present.iter().map(move |esi| {
            let start = esi as usize * size;
            packet(esi, self.block[start..start + size].to_vec())
        });
        let zeroes = (self.shape.source_symbols..self.shape.padded_symbols)
            .map(move |esi| packet(esi, vec![0; size]));
        let repairs = self.repair_ids.iter().zip(self.repairs.chunks_exact(size));
        let repairs = repairs.map(move |(esi, symbol)| packet(esi.get(), symbol.to_vec()));
        sources.chain(zeroes).chain(repairs)
    }

    /// Copies the missing source symbols out of the decoded source block.
    fn fill_gaps(&mut self, solution: &[u8]) {
        let size = self.shape.symbol_size();
        for esi in missing(&self.present) {
            let range = esi as usize * size..(esi as usize + 1) * size;
            self.block[range.clone()].copy_from_slice(&solution[range]);
        }
    }
}

/// What became of a symbol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Insertion {
    /// It is one more.
    New,
    /// Its ESI is here already; the first one stays.
    Duplicate,
    /// Its length is not T, or its ESI is one of the zero symbols, which are never sent.
    Malformed,
    /// [`SYMBOLS_HELD_SURPLUS_MAX`] symbols more than K are here, and it is a repair symbol.
    Full,
}

/// A decode that failed, with everything received: the next attempt needs it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Undecoded {
    /// Why.
    pub error: FecError,
    /// The symbols, as they were.
    pub received: Box<Received>,
}

/// The source symbols that are not there, ascending.
fn missing(present: &BitSet) -> impl Iterator<Item = u32> {
    let first = present.first_clear_from(0);
    iter::successors(first, |last| present.first_clear_from(last + 1))
}

/// A block that K + 10 honest symbols do not decode is polluted with all but certainty (256^-11);
/// the rest is room for symbols that arrive while that is found out.
pub const SYMBOLS_HELD_SURPLUS_MAX: u32 = 64;

/// As many repair symbols as make up for a loss of 2 % of a usual block, in 23 KiB.
const REPAIRS_RESERVED_MAX: u32 = 16;
