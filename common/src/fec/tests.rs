use proptest::prelude::*;
use raptorq::SourceBlockEncoder;

use super::gf256::Kernel;
use super::rows::Generator;
use super::*;
use crate::prng::Prng;

fn esi(value: u32) -> EncodingSymbolId {
    EncodingSymbolId::new(value).unwrap()
}

fn random_block(prng: &mut Prng, len: u32) -> Vec<u8> {
    let mut block = vec![0; len as usize];
    prng.fill(&mut block);
    block
}

/// Source symbol `number` as a datagram carries it.
fn source_symbol(shape: &BlockShape, stored: &[u8], number: u32) -> Vec<u8> {
    let mut symbol = stored[shape.symbol_range(esi(number)).unwrap()].to_vec();
    symbol.resize(shape.symbol_size(), 0);
    symbol
}

/// A block of which all source symbols arrived but these.
fn received_without(shape: BlockShape, stored: &[u8], lost: &[u32]) -> Received {
    let mut received = Received::new(shape, vec![0xa5; 999]);
    for number in (0..shape.source_symbols()).filter(|number| !lost.contains(number)) {
        let symbol = source_symbol(&shape, stored, number);
        assert_eq!(received.insert(esi(number), &symbol), Insertion::New);
    }
    received
}

fn insert_repairs(received: &mut Received, stored: &[u8], first: u32, count: u32) {
    let shape = *received.shape();
    let repairs = repair_symbols(&shape, stored, esi(first), count).unwrap();
    for (id, symbol) in (first..).zip(repairs.chunks_exact(shape.symbol_size())) {
        assert_eq!(received.insert(esi(id), symbol), Insertion::New);
    }
}

/// Decodes with ever more repair symbols, from as many as make K known; returns the block and how
/// many symbols above K it took.
fn decode_with_more(mut received: Received, stored: &[u8], first: u32) -> (Vec<u8>, u32) {
    let deficit = received.shape().padded_symbols() - received.known();
    insert_repairs(&mut received, stored, first, deficit);
    for surplus in 0..=10 {
        let undecoded = match received.decode() {
            Ok(block) => return (block, surplus),
            Err(undecoded) => undecoded,
        };
        assert!(matches!(undecoded.error, FecError::TooFew { .. }), "{undecoded}");
        received = *undecoded.received;
        insert_repairs(&mut received, stored, first + deficit + surplus, 1);
    }
    panic!("10 symbols above K do not decode {:?}", received.shape());
}

#[test]
fn padded_symbols_follow_table_2_of_rfc_6330() {
    let start_of_table = [10, 12, 18, 20, 26, 30, 32, 36, 42, 46, 48, 49, 55, 60, 62, 69, 75, 84];
    let mut symbols = 1;
    for padded in start_of_table {
        while symbols <= padded {
            assert_eq!(padded_symbols(symbols), Some(padded), "{symbols} symbols");
            symbols += 1;
        }
    }
    for (symbols, padded) in [(745, 747), (747, 747), (763, 778), (8030, 8030), (8031, 8111)] {
        assert_eq!(padded_symbols(symbols), Some(padded), "{symbols} symbols");
    }
    assert_eq!(padded_symbols(0), None);
    assert_eq!(padded_symbols(SYMBOLS_MAX), Some(SYMBOLS_MAX));
    assert_eq!(padded_symbols(SYMBOLS_MAX + 1), None);
    assert_eq!(padded_symbols(u32::MAX), None);
}

#[test]
fn a_shape_keeps_the_limits_of_section_8() {
    let shape = BlockShape::new(1 << 20, 1408).unwrap();
    assert_eq!((shape.source_symbols(), shape.padded_symbols()), (745, 747));
    assert_eq!(shape.symbol_range(esi(0)), Some(0..1408));
    assert_eq!(shape.symbol_range(esi(744)), Some(744 * 1408..1 << 20));
    assert_eq!(shape.symbol_range(esi(745)), None);
    assert!(!shape.is_repair(esi(746)) && shape.is_repair(esi(747)));
    for symbol_size in [0, 32, 65, 1400, 8928, u16::MAX] {
        assert_eq!(BlockShape::new(1000, symbol_size), None, "T = {symbol_size}");
    }
    assert_eq!(BlockShape::new(0, 1408), None);
    assert!(BlockShape::new(8111 * 64, 64).is_some());
    assert_eq!(BlockShape::new(8111 * 64 + 1, 64), None);
    assert_eq!(BlockShape::new(u32::MAX, 8896), None);
}

#[test]
fn repair_symbols_are_those_of_an_unpadded_rfc_6330_block() {
    let mut prng = Prng::new(1);
    for stored_len in [1, 64, 500, 47 * 64, 25_000] {
        let shape = BlockShape::new(stored_len, 64).unwrap();
        let stored = random_block(&mut prng, stored_len);
        let mut symbols = stored.clone();
        symbols.resize(shape.symbols_len(), 0);
        // Here the library pads from S to K symbols, and counts repair symbols from S.
        let packets =
            SourceBlockEncoder::new(0, &shape.object(), &symbols).repair_packets(1_000_000, 9);
        let expected: Vec<u8> = packets.iter().flat_map(|packet| packet.data().to_vec()).collect();
        let first = esi(shape.padded_symbols() + 1_000_000);
        assert_eq!(repair_symbols(&shape, &stored, first, 9).unwrap(), expected);
    }
}

#[test]
fn blocks_of_every_size_survive_the_loss_of_all_source_symbols() {
    let mut prng = Prng::new(2);
    let shapes = [(1, 64), (64, 64), (65, 64), (640, 64), (641, 64), (1, 8896), (99_999, 1408)];
    for (stored_len, symbol_size) in shapes.into_iter().chain([(1 << 20, 1408)]) {
        let shape = BlockShape::new(stored_len, symbol_size).unwrap();
        let stored = random_block(&mut prng, stored_len);
        let received = Received::new(shape, Vec::new());
        assert_eq!(received.known(), shape.padded_symbols() - shape.source_symbols());
        let (block, _) = decode_with_more(received, &stored, shape.padded_symbols() + 12_345);
        assert!(block == stored, "{shape:?}");
    }
}

#[test]
fn the_last_symbols_before_2_to_the_24_decode_and_none_comes_after_them() {
    let shape = BlockShape::new(5000, 64).unwrap();
    let stored = random_block(&mut Prng::new(3), 5000);
    let mut received = received_without(shape, &stored, &[0, 1, 77, 78]);
    insert_repairs(&mut received, &stored, EncodingSymbolId::END - 7, 7);
    assert!(received.decode().unwrap() == stored);
    let first = EncodingSymbolId::END - 7;
    assert_eq!(
        repair_symbols(&shape, &stored, esi(first), 8),
        Err(FecError::SymbolIds { first, count: 8, start: 84 })
    );
    assert!(repair_symbols(&shape, &stored, esi(first), u32::MAX).is_err());
}

#[test]
fn only_repair_symbols_of_the_right_block_are_encoded() {
    let shape = BlockShape::new(5000, 64).unwrap();
    let stored = vec![7; 5000];
    assert_eq!(repair_symbols(&shape, &stored, esi(84), 0), Ok(Vec::new()));
    assert_eq!(
        repair_symbols(&shape, &stored, esi(83), 1),
        Err(FecError::SymbolIds { first: 83, count: 1, start: 84 })
    );
    assert_eq!(
        repair_symbols(&shape, &stored[1..], esi(84), 1),
        Err(FecError::StoredLength { given: 4999, expected: 5000 })
    );
}

#[test]
fn k_symbols_fail_rarely_and_more_of_them_hardly_ever() {
    let mut prng = Prng::new(4);
    let shape = BlockShape::new(640, 64).unwrap();
    let stored = random_block(&mut prng, 640);
    let mut trials_by_surplus = [0; 11];
    for _ in 0..2000 {
        let lost: Vec<u32> = (0..10).filter(|_| prng.chance(500_000)).collect();
        let first = 10 + u32::try_from(prng.below(1 << 23)).unwrap();
        let received = received_without(shape, &stored, &lost);
        let (block, surplus) = decode_with_more(received, &stored, first);
        assert_eq!(block, stored);
        trials_by_surplus[surplus as usize] += 1;
    }
    assert!((1..40).contains(&trials_by_surplus[1]), "{trials_by_surplus:?}");
    assert!(trials_by_surplus[2..].iter().sum::<u32>() <= 1, "{trials_by_surplus:?}");
}

#[test]
fn too_few_symbols_are_handed_back_as_they_were() {
    let shape = BlockShape::new(5000, 64).unwrap();
    let stored = random_block(&mut Prng::new(5), 5000);
    let mut received = received_without(shape, &stored, &[3, 4]);
    insert_repairs(&mut received, &stored, 100, 1);
    assert_eq!(received.known(), 83);
    let undecoded = received.decode().unwrap_err();
    assert_eq!(undecoded.error, FecError::TooFew { known: 83, needed: 84 });
    let (block, _) = decode_with_more(*undecoded.received, &stored, 200);
    assert_eq!(block, stored);
}

#[test]
fn source_symbols_are_used_as_they_came() {
    let shape = BlockShape::new(5000, 64).unwrap();
    let stored = random_block(&mut Prng::new(6), 5000);
    let mut bent = stored.clone();
    bent[10 * 64] ^= 1;
    let complete = received_without(shape, &bent, &[]);
    assert!(complete.is_complete());
    assert_eq!(complete.decode().unwrap(), bent);
    let mut received = received_without(shape, &bent, &[0]);
    insert_repairs(&mut received, &stored, 84, 3);
    let block = received.decode().unwrap();
    assert_eq!(block[64..], bent[64..]);
    assert_eq!(block.len(), 5000);
}

#[test]
fn a_flipped_bit_in_a_repair_symbol_gives_a_wrong_block_and_no_panic() {
    let mut prng = Prng::new(7);
    let shape = BlockShape::new(30_000, 96).unwrap();
    let stored = random_block(&mut prng, 30_000);
    let mut decoded = 0;
    for first in (400..).step_by(100).take(24) {
        let mut received = received_without(shape, &stored, &[5, 17, 100, 101, 311]);
        let mut repairs = repair_symbols(&shape, &stored, esi(first), 5).unwrap();
        let bit = prng.below(repairs.len() as u64 * 8);
        repairs[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        for (id, symbol) in (first..).zip(repairs.chunks_exact(96)) {
            assert_eq!(received.insert(esi(id), symbol), Insertion::New);
        }
        match received.decode() {
            Ok(block) => {
                assert_ne!(block, stored);
                decoded += 1;
            }
            Err(undecoded) => assert!(matches!(undecoded.error, FecError::TooFew { .. })),
        }
    }
    assert!(decoded > 18, "{decoded}");
}

#[test]
fn what_is_no_symbol_of_the_block_never_gets_in() {
    let shape = BlockShape::new(5000, 64).unwrap();
    let mut received = Received::new(shape, Vec::new());
    assert_eq!((shape.source_symbols(), shape.padded_symbols()), (79, 84));
    for id in 79..84 {
        assert_eq!(received.insert(esi(id), &[0; 64]), Insertion::Malformed, "ESI {id}");
    }
    for len in [0, 1, 63, 65, 128] {
        assert_eq!(received.insert(esi(0), &vec![0; len]), Insertion::Malformed, "{len} octets");
        assert_eq!(received.insert(esi(84), &vec![0; len]), Insertion::Malformed, "{len} octets");
    }
    assert_eq!(received.known(), 5);
    for id in [0, 78, 84, EncodingSymbolId::END - 1] {
        assert_eq!(received.insert(esi(id), &[1; 64]), Insertion::New);
        assert_eq!(received.insert(esi(id), &[2; 64]), Insertion::Duplicate);
    }
    assert_eq!((received.known(), received.present().count()), (9, 2));
}

#[test]
fn repair_symbols_far_above_k_are_not_held() {
    let shape = BlockShape::new(5000, 64).unwrap();
    let mut received = Received::new(shape, Vec::new());
    for id in 84..84 + 79 + 64 {
        assert_eq!(received.insert(esi(id), &[0; 64]), Insertion::New);
    }
    assert_eq!(received.insert(esi(1000), &[0; 64]), Insertion::Full);
    assert_eq!(received.insert(esi(78), &[0; 64]), Insertion::New, "it has its place already");
}

#[test]
fn the_padding_of_the_last_symbol_counts_as_zero() {
    let shape = BlockShape::new(5000, 64).unwrap();
    let stored = random_block(&mut Prng::new(8), 5000);
    let mut received = received_without(shape, &stored, &[40, 78]);
    let mut last = source_symbol(&shape, &stored, 78);
    last[8..].fill(0xff);
    assert_eq!(received.insert(esi(78), &last), Insertion::New);
    let (block, _) = decode_with_more(received, &stored, 84);
    assert_eq!(block, stored);
}

#[test]
fn a_panic_of_the_library_is_an_error() {
    let shape = BlockShape::new(5000, 64).unwrap();
    let panicked = |text: &str| FecError::Panicked { symbols: 84, text: text.to_owned() };
    assert_eq!(contained(&shape, || 7), Ok(7));
    assert_eq!(contained(&shape, || panic!("static")), Err::<(), _>(panicked("static")));
    let number = shape.symbol_size();
    assert_eq!(contained(&shape, || panic!("T {number}")), Err::<(), _>(panicked("T 64")));
}

#[test]
fn repair_symbols_are_the_same_one_by_one_and_all_at_once() {
    let mut prng = Prng::new(9);
    // K is 84, 526 and, too many for a generator, 2565.
    for (stored_len, count) in [(5000, 200), (526 * 64, 150), (2500 * 64 + 1, 2)] {
        let shape = BlockShape::new(stored_len, 64).unwrap();
        let stored = random_block(&mut prng, stored_len);
        let first = 1_000_000;
        let together = repair_symbols(&shape, &stored, esi(first), count).unwrap();
        for (id, symbol) in (first..).zip(together.chunks_exact(64)) {
            assert_eq!(repair_symbols(&shape, &stored, esi(id), 1).unwrap(), symbol, "ESI {id}");
        }
    }
}

#[test]
fn rows_and_library_agree_on_which_symbols_do_not_suffice() {
    let mut prng = Prng::new(10);
    let shape = BlockShape::new(640, 64).unwrap();
    let stored = random_block(&mut prng, 640);
    let generator = Generator::of(&shape).unwrap();
    let mut failed = 0;
    for _ in 0..1000 {
        let lost: Vec<u32> = (0..10).filter(|_| prng.chance(500_000)).collect();
        if lost.is_empty() {
            continue;
        }
        let first = 10 + u32::try_from(prng.below(1 << 23)).unwrap();
        let mut received = received_without(shape, &stored, &lost);
        insert_repairs(&mut received, &stored, first, u32::try_from(lost.len()).unwrap());
        let by_library = received.clone().complete_by_library();
        let by_rows = received.complete_by_rows(Kernel::best(), &generator);
        assert_eq!(by_rows, by_library);
        if by_rows.is_err() {
            failed += 1;
            assert_eq!(by_rows, Err(FecError::TooFew { known: 10, needed: 10 }));
            // What was received is as it was: with one more it decodes.
            let (block, surplus) = decode_with_more(received, &stored, first + 100);
            assert_eq!((block, surplus), (stored.clone(), 1));
        }
    }
    assert!((1..30).contains(&failed), "{failed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_loss_is_repaired_by_any_repair_symbols(
        stored_len in 1u32..25_000,
        symbol_size in prop_oneof![Just(64u16), Just(96), Just(1408), Just(8896)],
        lost_parts_per_million in 0u32..=1_000_000,
        first in 10_000u32..(1 << 24) - 2000,
        seed: u64,
    ) {
        let mut prng = Prng::new(seed);
        let shape = BlockShape::new(stored_len, symbol_size).unwrap();
        let stored = random_block(&mut prng, stored_len);
        let lost: Vec<u32> = (0..shape.source_symbols())
            .filter(|_| prng.chance(lost_parts_per_million))
            .collect();
        let received = received_without(shape, &stored, &lost);
        prop_assert_eq!(received.is_complete(), lost.is_empty());
        let (block, _) = decode_with_more(received, &stored, first);
        prop_assert!(block == stored);
    }

    #[test]
    fn rows_make_the_repair_symbols_that_the_library_makes(
        stored_len in 1u32..60_000,
        symbol_size in prop_oneof![Just(64u16), Just(96), Just(1408), Just(8896)],
        position in 0u32..=1_000_000,
        count in 1u32..12,
        seed: u64,
    ) {
        let shape = BlockShape::new(stored_len, symbol_size).unwrap();
        let stored = random_block(&mut Prng::new(seed), stored_len);
        let (start, end) = (shape.padded_symbols(), EncodingSymbolId::END - count);
        let first = u64::from(end - start) * u64::from(position) / 1_000_000;
        let first = esi(start + u32::try_from(first).unwrap());
        let expected = encoder::by_library(&shape, &stored, first, count).unwrap();
        let rows = Generator::of(&shape).unwrap().rows(first, count).unwrap();
        for kernel in Kernel::available() {
            let found = encoder::by_rows(kernel, &shape, &stored, &rows);
            prop_assert!(found == expected, "{kernel:?}");
        }
    }

    #[test]
    fn rows_decode_what_the_library_decodes(
        stored_len in 1u32..60_000,
        symbol_size in prop_oneof![Just(64u16), Just(96), Just(1408)],
        missing in 1u32..=130,
        surplus in 0u32..3,
        first in prop_oneof![10_000u32..1 << 23, Just(EncodingSymbolId::END - 133)],
        seed: u64,
    ) {
        let mut prng = Prng::new(seed);
        let shape = BlockShape::new(stored_len, symbol_size).unwrap();
        let stored = random_block(&mut prng, stored_len);
        let missing = missing.min(shape.source_symbols());
        let mut lost: Vec<u32> = (0..shape.source_symbols()).collect();
        while lost.len() > missing as usize {
            lost.swap_remove(usize::try_from(prng.below(lost.len() as u64)).unwrap());
        }
        let mut received = received_without(shape, &stored, &lost);
        insert_repairs(&mut received, &stored, first, missing + surplus);
        let generator = Generator::of(&shape).unwrap();
        let by_library = received.clone().complete_by_library();
        for kernel in Kernel::available() {
            let mut received = received.clone();
            let by_rows = received.complete_by_rows(kernel, &generator);
            prop_assert_eq!(&by_rows, &by_library, "{:?}", kernel);
            if by_rows.is_ok() {
                prop_assert!(received.into_buffer()[..stored.len()] == stored, "{kernel:?}");
            }
        }
    }
}
