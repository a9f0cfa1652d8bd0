//! The index as it arrives: blocks of any length in any order, and a whole whose hash is the
//! announced one but whose content an attacker chose.

use imgcast_common::{
    id::ImageId,
    layout::Layout,
    tree::{BlockDigest, Index, index_hash},
};
use imgcast_receiver::image::{IndexAssembly, IndexError};

use super::input::Input;

pub(super) fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let (blocks, cut) = (1 + input.below(BLOCKS_MAX), u64::from(input.below(1024)));
    let Some(layout) = Layout::new((u64::from(blocks) << 10) - cut, 10, 64) else { return };
    let of_index = layout.of_index();
    let mut assembly = IndexAssembly::new(of_index);
    for _ in 0..input.u8() % 16 {
        let (number, shorter) = (input.below(of_index.blocks() + 2), input.u8() % 64 == 1);
        let mut block = vec![input.u8(); of_index.block_len(number) as usize];
        let given = input.octets(block.len().min(64));
        block[..given.len()].copy_from_slice(given);
        block.truncate(block.len().saturating_sub(usize::from(shorter)));
        let was = assembly.present().count();
        let fits = !shorter && number < of_index.blocks();
        assert_eq!(assembly.insert(number, &block), fits, "{number} {shorter}");
        assert!(fits || assembly.present().count() == was);
    }
    let missing = of_index.blocks() - assembly.present().count();
    let early = assembly.finish(&[0; 32], layout.blocks(), ImageId([0; 32]));
    match missing {
        0 => assert_eq!(early, Err(IndexError::Hash)),
        missing_blocks => assert_eq!(early, Err(IndexError::Incomplete { missing_blocks })),
    }
    judge(&layout, &mut input);
}

/// The attacker announces the hash of what it sends.
fn judge(layout: &Layout, input: &mut Input<'_>) {
    let of_index = layout.of_index();
    let mut bytes = vec![input.u8(); usize::try_from(of_index.bytes()).unwrap_or(0)];
    let tail = input.octets(16);
    let end = bytes.len();
    bytes[end.saturating_sub(tail.len())..].copy_from_slice(&tail[..tail.len().min(end)]);
    let head = input.octets(64);
    bytes[..head.len().min(end)].copy_from_slice(&head[..head.len().min(end)]);
    let mut assembly = IndexAssembly::new(of_index);
    for number in 0..of_index.blocks() {
        let range = of_index.block_range(number);
        let place = |at: u64| usize::try_from(at).unwrap_or(0);
        assert!(assembly.insert(number, &bytes[place(range.start)..place(range.end)]));
    }
    let read = Index::parse(&bytes, layout.blocks());
    let claimed = read.as_ref().map_or(ImageId([0; 32]), Index::image_id);
    let is_right = input.chance();
    let image = if is_right { claimed } else { ImageId([input.u8(); 32]) };
    match assembly.finish(&index_hash(&bytes), layout.blocks(), image) {
        Ok(index) => {
            assert_eq!(index.image_id(), image);
            assert_eq!(index.to_bytes(), bytes);
            assert_eq!(index.blocks(), layout.blocks());
            believe_nothing(layout, &index, input);
        }
        Err(IndexError::Form { .. }) => assert!(read.is_none(), "{bytes:?}"),
        Err(IndexError::Image { actual }) => assert!(actual == claimed && actual != image),
        Err(error) => panic!("{error}: all is there, and its hash is right"),
    }
}

/// A block is only what its chaining value says, zero bits or not.
fn believe_nothing(layout: &Layout, index: &Index, input: &mut Input<'_>) {
    let number = input.below(layout.blocks() + 1);
    let block = vec![input.u8(); layout.block_len(number) as usize];
    let digest = BlockDigest::of(layout, number, &block);
    let is_right = digest.is_some_and(|digest| index.value(number) == Some(&digest.value));
    assert_eq!(index.verify(layout, number, &block), is_right);
    if index.verify_zero(layout, number) {
        assert!(index.verify(layout, number, &vec![0; layout.block_len(number) as usize]));
    }
}

/// The index then has up to nine blocks of its own.
const BLOCKS_MAX: u32 = 280;
