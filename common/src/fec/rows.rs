//! The code of each K as what it is: a matrix, a row of K coefficients for each repair symbol.
//!
//! The rows come from the library alone: the repair symbols of a block whose symbol `i` is 1 at
//! octet `i` and 0 elsewhere are the rows themselves. All blocks of one K share that encoded
//! block. When rows are the faster way is decided here as well.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use raptorq::{ObjectTransmissionInformation, SourceBlockEncoder};

use super::gf256::Kernel;
use super::{BLOCK_NUMBER, BlockShape, FecError, contained};
use crate::id::EncodingSymbolId;

/// The generator matrix of one K.
#[derive(Debug)]
pub(super) struct Generator {
    shape: BlockShape,
    identity: SourceBlockEncoder,
}

impl Generator {
    /// The one for blocks of this shape; made on the first call, which takes about as long as a
    /// block of K² octets takes to encode. `None` if K is too large to have one, or the library
    /// could not make it: each block then is the library's.
    pub(super) fn of(shape: &BlockShape) -> Option<Arc<Self>> {
        if shape.padded_symbols > PADDED_SYMBOLS_MAX {
            return None;
        }
        static GENERATORS: Mutex<Generators> = Mutex::new(Generators(Vec::new()));
        // Nothing that is done with it panics halfway.
        let mut generators = GENERATORS.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = generators.slot(shape.padded_symbols);
        drop(generators);
        slot.get_or_init(|| Self::make(shape).ok().map(Arc::new)).clone()
    }

    fn make(shape: &BlockShape) -> Result<Self, FecError> {
        let symbols = shape.padded_symbols as usize;
        let identity = contained(shape, || {
            let mut unit_vectors = vec![0; symbols * symbols];
            unit_vectors.iter_mut().step_by(symbols + 1).for_each(|octet| *octet = 1);
            // Above `PADDED_SYMBOLS_MAX` it would not always be a symbol size.
            let symbol_size = u16::try_from(symbols).unwrap_or(u16::MAX);
            let object = ObjectTransmissionInformation::new(0, symbol_size, 1, 1, 1);
            SourceBlockEncoder::new(BLOCK_NUMBER, &object, &unit_vectors)
        })?;
        Ok(Self { shape: *shape, identity })
    }

    /// What each of the K source symbols is multiplied by to give the repair symbols from `first`,
    /// K or above, on: `count` rows.
    ///
    /// # Errors
    /// [`FecError::Panicked`] if the library fails.
    pub(super) fn rows(
        &self,
        first: EncodingSymbolId,
        count: u32,
    ) -> Result<Vec<Vec<u8>>, FecError> {
        contained(&self.shape, || {
            let skipped = first.get() - self.shape.padded_symbols;
            let packets = self.identity.repair_packets(skipped, count);
            packets.into_iter().map(|packet| packet.split().1).collect()
        })
    }

    /// The same for one repair symbol.
    ///
    /// # Errors
    /// [`FecError::Panicked`] if the library fails.
    pub(super) fn row(&self, esi: EncodingSymbolId) -> Result<Vec<u8>, FecError> {
        Ok(self.rows(esi, 1)?.pop().unwrap_or_default())
    }
}

/// Up to how many repair symbols the way by rows is the faster one, its cost being proportional to
/// them and that of the library the same for any number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worthwhile {
    /// Made of one block in one call.
    pub(super) encoded: u32,
    /// Used to decode one block, as many as source symbols are missing.
    pub(super) decoded: u32,
}

impl Worthwhile {
    pub(super) fn with(kernel: Kernel) -> Self {
        kernel.choose(PORTABLE, LOOKUP, INSTRUCTION)
    }
}

/// The generators made last, the latest used first.
#[derive(Debug, Default)]
struct Generators(Vec<(u32, Slot)>);

/// Where a generator is or will be.
type Slot = Arc<OnceLock<Option<Arc<Generator>>>>;

impl Generators {
    /// The place of the generator of a K. It is made outside of here: whoever wants that of
    /// another K does not wait.
    fn slot(&mut self, padded_symbols: u32) -> Slot {
        let known = self.0.iter().position(|(symbols, _)| *symbols == padded_symbols);
        let entry = known.map_or_else(|| (padded_symbols, Slot::default()), |at| self.0.remove(at));
        let slot = Arc::clone(&entry.1);
        self.0.insert(0, entry);
        self.0.truncate(GENERATORS_MAX);
        let mut octets = 0;
        self.0.retain(|(symbols, _)| {
            octets += octets_held(*symbols);
            octets <= GENERATORS_OCTETS_MAX
        });
        slot
    }
}

/// What the generator of a K holds: K source symbols and somewhat more intermediate ones.
const fn octets_held(padded_symbols: u32) -> u64 {
    let symbols = padded_symbols as u64;
    symbols * symbols * 9 / 4
}

/// Rows cost 0.21 ns per octet of the block and symbol here, the library 1.5 to 2.
const PORTABLE: Worthwhile = Worthwhile { encoded: 6, decoded: 6 };

/// Rows cost 0.015 ns per octet and symbol, to decode a little more with the square of how many are
/// missing. The library takes 1.5 to 1.8 ns per octet to decode, and to encode 2, or 1 where the
/// allocator keeps its memory.
const LOOKUP: Worthwhile = Worthwhile { encoded: 64, decoded: 80 };

/// Rows cost 0.008 ns per octet and symbol.
const INSTRUCTION: Worthwhile = Worthwhile { encoded: 128, decoded: 128 };

/// Whole blocks and last blocks of an image and of its index make four; this is two transfers.
const GENERATORS_MAX: usize = 8;

/// Three of the largest.
const GENERATORS_OCTETS_MAX: u64 = 3 * octets_held(PADDED_SYMBOLS_MAX);

/// The generator takes 9 MiB here and grows with the square of K; blocks of the usual 1 MiB have
/// a K below 1024.
const PADDED_SYMBOLS_MAX: u32 = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(generators: &Generators) -> Vec<u32> {
        generators.0.iter().map(|(symbols, _)| *symbols).collect()
    }

    #[test]
    fn the_generators_used_last_are_kept() {
        let mut generators = Generators::default();
        let first = generators.slot(10);
        for symbols in [12, 18, 20, 26, 30, 32, 36] {
            generators.slot(symbols);
        }
        assert!(Arc::ptr_eq(&first, &generators.slot(10)), "it was there still");
        generators.slot(42);
        assert_eq!(kept(&generators), [42, 10, 36, 32, 30, 26, 20, 18]);
    }

    #[test]
    fn large_generators_are_fewer() {
        let mut generators = Generators::default();
        for symbols in [2040, 1002, 2000, 1965, 1032] {
            generators.slot(symbols);
        }
        assert_eq!(kept(&generators), [1032, 1965, 2000, 1002]);
    }

    #[test]
    fn only_blocks_of_few_symbols_have_a_generator() {
        let shape = |symbols| BlockShape::new(symbols * 64, 64).unwrap();
        assert!(Generator::of(&shape(PADDED_SYMBOLS_MAX)).is_none(), "K is 2070");
        let generator = Generator::of(&shape(100)).unwrap();
        let first = EncodingSymbolId::new(101).unwrap();
        let rows = generator.rows(first, 3).unwrap();
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [101; 3]);
        assert_eq!(generator.row(first).unwrap(), rows[0]);
    }
}
