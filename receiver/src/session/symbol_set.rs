//! Which encoding symbols of one block have arrived, without their octets.

use std::collections::BTreeSet;

use imgcast_common::{
    bits::BitSet,
    fec::{BlockShape, SYMBOLS_HELD_SURPLUS_MAX},
    id::EncodingSymbolId,
};

/// The symbols of one block that are held.
#[derive(Clone, Debug)]
pub(super) struct SymbolSet {
    shape: BlockShape,
    sources: BitSet,
    repairs: BTreeSet<EncodingSymbolId>,
}

impl SymbolSet {
    pub(super) fn new(shape: BlockShape) -> Self {
        let sources = BitSet::new(shape.source_symbols());
        Self { shape, sources, repairs: BTreeSet::new() }
    }

    /// Takes a symbol in; false for one that is there already, is none of this block's, or for
    /// which there is no room.
    pub(super) fn insert(&mut self, esi: EncodingSymbolId) -> bool {
        if esi.get() < self.shape.source_symbols() {
            return self.sources.insert(esi.get());
        }
        let room = self.known() < self.shape.padded_symbols() + SYMBOLS_HELD_SURPLUS_MAX;
        self.shape.is_repair(esi) && room && self.repairs.insert(esi)
    }

    /// Takes source symbols in: `first + i` for every bit `i` of `symbols`. Returns those that were
    /// missing, in the same form.
    pub(super) fn insert_sources(&mut self, first: u32, symbols: u64) -> u64 {
        self.sources.insert_all(first, symbols)
    }

    /// Symbols known: those that arrived, and those between S and K, which are always zero.
    pub(super) fn known(&self) -> u32 {
        let padding = self.shape.padded_symbols() - self.shape.source_symbols();
        let repairs = u32::try_from(self.repairs.len()).unwrap_or(u32::MAX);
        self.sources.count() + repairs + padding
    }

    /// Whether every source symbol is there: nothing is to be decoded.
    pub(super) const fn is_complete(&self) -> bool {
        self.sources.is_full()
    }

    /// K.
    pub(super) const fn padded_symbols(&self) -> u32 {
        self.shape.padded_symbols()
    }
}
