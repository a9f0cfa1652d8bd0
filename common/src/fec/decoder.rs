//! A stored block out of the symbols that arrived.

use raptorq::{EncodingPacket, PayloadId, SourceBlockDecoder};

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
        // Bounded by K + `SYMBOLS_HELD_SURPLUS_MAX`, see `insert`.
        let repairs = u32::try_from(self.repair_ids.len()).unwrap_or(u32::MAX);
        let zeroes = self.shape.padded_symbols - self.shape.source_symbols;
        self.present.count() + zeroes + repairs
    }

    /// Whether all source symbols are here, so that nothing needs decoding.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.present.is_full()
    }

    /// Octets of memory it holds.
    #[must_use]
    pub const fn memory_octets(&self) -> usize {
        self.block.capacity() + self.repairs.capacity()
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
        if !self.is_complete() {
            match self.solve() {
                Ok(solution) => self.fill_gaps(&solution),
                Err(error) => return Err(Undecoded { error, received: Box::new(self) }),
            }
        }
        self.block.truncate(self.shape.stored_len as usize);
        Ok(self.block)
    }

    /// Gives up the symbols for the memory of the block.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.block
    }

    /// All K source symbols, from the library.
    fn solve(&self) -> Result<Vec<u8>, FecError> {
        let shape = &self.shape;
        let too_few = FecError::TooFew { known: self.known(), needed: shape.padded_symbols };
        if self.known() < shape.padded_symbols {
            return Err(too_few);
        }
        let solution = contained(shape, || {
            let octets = u64::from(shape.padded_symbols) * u64::from(shape.symbol_size);
            let mut decoder = SourceBlockDecoder::new(BLOCK_NUMBER, &shape.object(), octets);
            // In one call: each call with enough symbols is a whole attempt at a solution.
            decoder.decode(self.packets())
        })?;
        // The library gives no other length; a shorter one would panic in `fill_gaps`.
        solution.filter(|symbols| symbols.len() >= shape.symbols_len()).ok_or(too_few)
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
        let mut next = 0;
        while let Some(esi) = self.present.first_clear_from(next) {
            let range = esi as usize * size..(esi as usize + 1) * size;
            self.block[range.clone()].copy_from_slice(&solution[range]);
            next = esi + 1;
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

/// A block that K + 10 honest symbols do not decode is polluted with all but certainty (256^-11);
/// the rest is room for symbols that arrive while that is found out.
pub const SYMBOLS_HELD_SURPLUS_MAX: u32 = 64;
