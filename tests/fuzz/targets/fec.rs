//! A block out of symbols of which some are wrong, come twice, or stand under senseless ids.

use imgcast_common::{
    fec::{BlockShape, Insertion, Received, SYMBOLS_HELD_SURPLUS_MAX, repair_symbols},
    id::EncodingSymbolId,
    prng::Prng,
};

use super::input::Input;

pub(super) fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let symbol_size = 32 * (2 + u16::from(input.u8() % 8));
    let stored_len = 1 + input.below(STORED_OCTETS_MAX);
    let Some(shape) = BlockShape::new(stored_len, symbol_size) else { return };
    let mut stored = vec![0; stored_len as usize];
    Prng::new(input.u64()).fill(&mut stored);
    let mut received = Received::new(shape, vec![0xA5; usize::from(input.u8())]);
    let mut is_forged = false;
    while !input.is_over() {
        let wanted = input.u8();
        let esi = match wanted & 3 {
            0 | 1 => u32::from(wanted >> 2),
            2 => shape.padded_symbols() + u32::from(wanted >> 2),
            _ => input.u32() & 0x00FF_FFFF,
        };
        let Some(esi) = EncodingSymbolId::new(esi) else { unreachable!("24 bits") };
        let mut symbol = honest(&shape, &stored, esi);
        let bend = input.u8();
        if bend > 250 {
            symbol.truncate(usize::from(input.u8()) * 4);
        } else if bend > 240
            && let Some(octet) = symbol.get_mut(input.below(u32::from(symbol_size)) as usize)
        {
            *octet ^= bend;
        }
        let known = received.known();
        let inserted = received.insert(esi, &symbol);
        is_forged |= inserted == Insertion::New && symbol != honest(&shape, &stored, esi);
        let more = u32::from(inserted == Insertion::New);
        assert_eq!(received.known(), known + more, "{esi:?}: {inserted:?}");
        let repairs = shape.padded_symbols() + SYMBOLS_HELD_SURPLUS_MAX;
        assert!(received.known() <= repairs + shape.source_symbols(), "sources have their place");
    }
    let (known, complete) = (received.known(), received.is_complete());
    match received.decode() {
        Ok(block) if is_forged => assert_eq!(block.len(), stored.len()),
        Ok(block) => assert!(block == stored, "honest symbols make another block"),
        Err(undecoded) => {
            assert!(!complete, "nothing was to be decoded");
            assert_eq!(undecoded.received.known(), known, "{}", undecoded.error);
        }
    }
}

/// What a sender would send under this id; zeroes where there is no such symbol.
fn honest(shape: &BlockShape, stored: &[u8], esi: EncodingSymbolId) -> Vec<u8> {
    let mut symbol = match shape.symbol_range(esi) {
        Some(range) => stored[range].to_vec(),
        None if shape.is_repair(esi) => repair_symbols(shape, stored, esi, 1).unwrap_or_default(),
        None => Vec::new(),
    };
    symbol.resize(shape.symbol_size(), 0);
    symbol
}

/// Up to sixty-four symbols: every path of the decoder, a thousand times a second.
const STORED_OCTETS_MAX: u32 = 4_096;
