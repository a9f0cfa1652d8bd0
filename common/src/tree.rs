//! BLAKE3 of an image, cut at block size: what each block is verified against.
//!
//! BLAKE3 hashes its input as a binary tree over chunks of 1 KiB. A block is a power of two of
//! chunks and lies at a multiple of its size, so that it is a subtree, and the subtrees' chaining
//! values alone give the hash of the whole image (BLAKE3 paper, section 2.1):
//!
//! ```text
//!                   image id: what b3sum prints
//!                  /                           \
//!            parent                             \
//!           /      \                             \
//!      value[0]   value[1]                     value[2]      the index
//!      block 0    block 1                      block 2       may be shorter than the others
//! ```
//!
//! This room owns the index and its arithmetic. It reads no files and knows no threads: blocks
//! may be hashed in any order and anywhere, for each knows its offset.

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::bits::BitSet;
use crate::id::ImageId;
use crate::layout::Layout;

/// A chaining value: the BLAKE3 hash of a subtree that is not the whole tree.
pub type BlockValue = [u8; 32];

/// The chaining values of all blocks of an image, and which blocks are all zero. There is at
/// least one block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Index {
    values: Vec<BlockValue>,
    zero: BitSet,
}

impl Index {
    /// The index with these values, one for each block; `None` if there is none, or not one bit
    /// in `zero` for each of them.
    #[must_use]
    pub fn new(values: Vec<BlockValue>, zero: BitSet) -> Option<Self> {
        let consistent = !values.is_empty() && values.len() == zero.len() as usize;
        consistent.then_some(Self { values, zero })
    }

    /// Reads the index of an image of `blocks` blocks; `None` unless it has exactly the octets
    /// and no bit set behind the last block's.
    ///
    /// It is not to be believed before its [`index_hash`] and its
    /// [`image_id`](Self::image_id) are the announced ones; even then its zero bits are a claim,
    /// to be checked against [`zero_block_value`].
    #[must_use]
    pub fn parse(bytes: &[u8], blocks: u32) -> Option<Self> {
        let (values, zero) = bytes.split_at_checked((blocks as usize).checked_mul(VALUE_LEN)?)?;
        let zero = BitSet::from_bytes(zero, blocks)?;
        Self::new(values.as_chunks().0.to_vec(), zero)
    }

    /// The index as it travels: all values, then one bit for each block, set if it is all zero,
    /// beginning with the most significant bit.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.values.concat();
        bytes.extend_from_slice(&self.zero.to_bytes());
        bytes
    }

    /// How many blocks the image has.
    #[must_use]
    pub const fn blocks(&self) -> u32 {
        self.zero.len()
    }

    /// The chaining value of block `number`; `None` beyond the last one.
    #[must_use]
    pub fn value(&self, number: u32) -> Option<&BlockValue> {
        self.values.get(number as usize)
    }

    /// The blocks that are all zero, according to who made the index.
    #[must_use]
    pub const fn zero(&self) -> &BitSet {
        &self.zero
    }

    /// The hash of the image whose blocks have these values.
    #[must_use]
    pub fn image_id(&self) -> ImageId {
        let Some((left, right)) = split(&self.values) else {
            // A single block was hashed as root.
            return ImageId(self.values[0]);
        };
        ImageId(merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).into())
    }

    /// Whether `bytes` are block `number` of the image that is cut by `layout`.
    #[must_use]
    pub fn verify(&self, layout: &Layout, number: u32, bytes: &[u8]) -> bool {
        self.is_for(layout)
            && bytes.len() == layout.block_len(number) as usize
            && self.value(number).is_some_and(|value| {
                *value == block_value(bytes, layout.block_range(number).start, is_single(layout))
            })
    }

    /// Whether block `number` of the image that is cut by `layout` is all zero indeed.
    #[must_use]
    pub fn verify_zero(&self, layout: &Layout, number: u32) -> bool {
        let (len, offset) = (layout.block_len(number), layout.block_range(number).start);
        self.is_for(layout)
            && self
                .value(number)
                .is_some_and(|value| *value == zero_block_value(len, offset, is_single(layout)))
    }

    fn is_for(&self, layout: &Layout) -> bool {
        self.blocks() == layout.blocks()
    }
}

/// Collects the values of blocks that are hashed in any order.
#[derive(Clone, Debug)]
pub struct IndexBuilder {
    values: Vec<BlockValue>,
    zero: BitSet,
    known: BitSet,
}

impl IndexBuilder {
    /// No block of `blocks` is known yet.
    #[must_use]
    pub fn new(blocks: u32) -> Self {
        let values = vec![[0; VALUE_LEN]; blocks as usize];
        Self { values, zero: BitSet::new(blocks), known: BitSet::new(blocks) }
    }

    /// Notes the digest of block `number`; one beyond the last block is ignored, a later one
    /// replaces an earlier one.
    pub fn insert(&mut self, number: u32, digest: BlockDigest) {
        if let Some(value) = self.values.get_mut(number as usize) {
            *value = digest.value;
            self.known.insert(number);
            if digest.zero {
                self.zero.insert(number)
            } else {
                self.zero.remove(number)
            };
        }
    }

    /// The blocks that are known.
    #[must_use]
    pub const fn known(&self) -> &BitSet {
        &self.known
    }

    /// The index; `None` while a block is missing.
    #[must_use]
    pub fn finish(self) -> Option<Index> {
        if self.known.is_full() { Index::new(self.values, self.zero) } else { None }
    }
}

/// What the index says about one block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockDigest {
    /// Its chaining value.
    pub value: BlockValue,
    /// Whether it is all zero.
    pub zero: bool,
}

impl BlockDigest {
    /// Hashes block `number` of the stream that is cut by `layout`; `None` if `block` has not its
    /// length.
    #[must_use]
    pub fn of(layout: &Layout, number: u32, block: &[u8]) -> Option<Self> {
        if block.is_empty() || block.len() != layout.block_len(number) as usize {
            return None;
        }
        let value = block_value(block, layout.block_range(number).start, is_single(layout));
        Some(Self { value, zero: is_zero(block) })
    }
}

/// The chaining value of a block at `offset` octets into the image, or its BLAKE3 hash if it is
/// the image's only one (`single`).
///
/// # Panics
/// Unless the block is cut as a [`Layout`] cuts: at a multiple of its whole size, not empty.
#[must_use]
pub fn block_value(block: &[u8], offset: u64, single: bool) -> BlockValue {
    let mut hasher = Hasher::new();
    if single {
        return hasher.update(block).finalize().into();
    }
    hasher.set_input_offset(offset).update(block).finalize_non_root()
}

/// The [`block_value`] of `len` zero octets.
///
/// # Panics
/// As [`block_value`] does.
#[must_use]
pub fn zero_block_value(len: u32, offset: u64, single: bool) -> BlockValue {
    let mut hasher = Hasher::new();
    if !single {
        hasher.set_input_offset(offset);
    }
    let mut rest = len as usize;
    while rest > 0 {
        let piece = rest.min(ZEROES.len());
        hasher.update(&ZEROES[..piece]);
        rest -= piece;
    }
    if single { hasher.finalize().into() } else { hasher.finalize_non_root() }
}

/// The hash that an index is announced by, from its octets.
#[must_use]
pub fn index_hash(bytes: &[u8]) -> [u8; 32] {
    blake3::hash(bytes).into()
}

/// Whether all octets are zero; at once where they are not from the start.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Whole pieces without a branch become vector instructions.
    bytes.chunks(4096).all(|piece| piece.iter().fold(0, |all, octet| all | octet) == 0)
}

/// Whether the stream is one block, which is then the whole tree.
fn is_single(layout: &Layout) -> bool {
    layout.blocks() == 1
}

/// The value of the subtree over these blocks, of which there is at least one.
fn merged(values: &[BlockValue]) -> BlockValue {
    match split(values) {
        Some((left, right)) => merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash),
        None => values[0],
    }
}

/// The two halves of a tree of several blocks: on the left the largest power of two of blocks
/// that leaves something for the right.
fn split(values: &[BlockValue]) -> Option<(&[BlockValue], &[BlockValue])> {
    (values.len() > 1).then(|| values.split_at(values.len().div_ceil(2).next_power_of_two()))
}

/// Octets in a chaining value.
const VALUE_LEN: usize = 32;

/// Zeroes to hash: as much as keeps BLAKE3's widest instructions busy, and little enough for the
/// second-level cache.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    fn random_image(len: usize) -> Vec<u8> {
        let mut image = vec![0; len];
        Prng::new(len as u64).fill(&mut image);
        image
    }

    fn layout(image: &[u8], block_log2: u8) -> Layout {
        Layout::new(image.len() as u64, block_log2, 8896).unwrap()
    }

    fn block<'a>(layout: &Layout, image: &'a [u8], number: u32) -> &'a [u8] {
        let range = layout.block_range(number);
        &image[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
    }

    /// The index of an image, its blocks hashed from the last to the first.
    fn index_of(layout: &Layout, image: &[u8]) -> Index {
        let mut builder = IndexBuilder::new(layout.blocks());
        for number in (0..layout.blocks()).rev() {
            assert!(builder.clone().finish().is_none());
            let digest = BlockDigest::of(layout, number, block(layout, image, number)).unwrap();
            builder.insert(number, digest);
        }
        builder.finish().unwrap()
    }

    #[test]
    fn the_image_id_is_the_blake3_hash_for_any_length_and_block_size() {
        for block_log2 in [10, 12, 20] {
            let size = 1usize << block_log2;
            let around = [1, 2, 3, 4, 5, 7, 8, 9]
                .into_iter()
                .flat_map(|blocks| [blocks * size - 1, blocks * size, blocks * size + 1]);
            let small = if block_log2 < 20 { 40 } else { 0 };
            let many = (1..small).map(|blocks| blocks * size + blocks * 37 % size);
            for len in [1, 1023, 1024, 1025, 3 * size + 5].into_iter().chain(around).chain(many) {
                let image = random_image(len);
                let layout = layout(&image, block_log2);
                let expected = ImageId(blake3::hash(&image).into());
                let id = index_of(&layout, &image).image_id();
                assert_eq!(id, expected, "{len} octets in blocks of {size}");
            }
        }
    }

    #[test]
    fn zero_blocks_have_the_value_of_as_many_zeroes() {
        for (len, block_log2) in [(1, 10), (1024, 10), (5000, 10), (1 << 20, 20), (3_000_000, 20)] {
            let image = vec![0; len];
            let layout = layout(&image, block_log2);
            let index = index_of(&layout, &image);
            assert!(index.zero().is_full());
            for number in 0..layout.blocks() {
                assert!(index.verify_zero(&layout, number), "block {number} of {len} octets");
                let value = zero_block_value(
                    layout.block_len(number),
                    layout.block_range(number).start,
                    layout.blocks() == 1,
                );
                assert_eq!(index.value(number), Some(&value));
            }
            assert!(!index.verify_zero(&layout, layout.blocks()));
        }
    }

    #[test]
    fn a_zero_bit_on_a_block_that_is_not_zero_is_found_out() {
        let image = random_image(5000);
        let layout = layout(&image, 10);
        let honest = index_of(&layout, &image);
        assert!(honest.zero().is_empty());
        let forged = Index::new(honest.values, BitSet::full(5)).unwrap();
        assert!((0..5).all(|number| !forged.verify_zero(&layout, number)));
    }

    #[test]
    fn a_block_is_accepted_only_as_it_is_and_where_it_is() {
        let image = random_image(5000);
        let layout = layout(&image, 10);
        let index = index_of(&layout, &image);
        let first = block(&layout, &image, 0);
        assert_eq!(index.value(0), Some(&block_value(first, 0, false)));
        assert_ne!(index.value(0), Some(&block_value(first, 1024, false)), "elsewhere");
        assert_ne!(index.value(0), Some(&block_value(first, 0, true)), "as a whole image");
        for number in 0..5 {
            let good = block(&layout, &image, number);
            assert!(index.verify(&layout, number, good));
            for bit in [0, 1, 4321, good.len() * 8 - 1] {
                let mut bent = good.to_vec();
                bent[bit / 8 % good.len()] ^= 1 << (bit % 8);
                assert!(!index.verify(&layout, number, &bent), "bit {bit} of block {number}");
            }
            assert!(!index.verify(&layout, number, &good[1..]));
            assert!(!index.verify(&layout, number, &[good, &[0]].concat()));
            assert!(!index.verify(&layout, number, &[]));
            assert!(!index.verify(&layout, (number + 1) % 5, good));
        }
        assert!(!index.verify(&layout, 5, &[]));
        assert!(!index.verify(&layout, u32::MAX, &image[..1024]));
        let longer = Layout::new(6000, 10, 64).unwrap();
        assert!(!index.verify(&longer, 0, first), "another image's layout");
    }

    #[test]
    fn an_index_survives_its_journey_and_nothing_else_is_taken_for_it() {
        let mut image = random_image(9 * 1024 + 100);
        image[1024..2048].fill(0);
        image[9 * 1024..].fill(0);
        let layout = layout(&image, 10);
        let index = index_of(&layout, &image);
        assert!(index.zero().iter().eq([1, 9]));
        let bytes = index.to_bytes();
        assert_eq!(bytes.len() as u64, layout.of_index().bytes());
        assert_eq!(bytes[32..64], *index.value(1).unwrap());
        assert_eq!(bytes[320..], [0b0100_0000, 0b0100_0000]);
        assert_eq!(Index::parse(&bytes, 10).as_ref(), Some(&index));
        for blocks in [0, 8, 9, 11, u32::MAX] {
            assert_eq!(Index::parse(&bytes, blocks), None, "{blocks} blocks");
        }
        assert_eq!(Index::parse(&bytes[1..], 10), None);
        assert_eq!(Index::parse(&[], 0), None);
        let mut tail = bytes.clone();
        tail[321] |= 1 << 5;
        assert_eq!(Index::parse(&tail, 10), None, "a bit behind the last block's");
        for octet in 0..320 {
            let mut bent = bytes.clone();
            bent[octet] ^= 0x10;
            assert_ne!(index_hash(&bent), index_hash(&bytes));
            let bent = Index::parse(&bent, 10).unwrap();
            assert_ne!(bent.image_id(), index.image_id(), "octet {octet}");
        }
    }

    #[test]
    fn an_index_needs_a_value_and_a_bit_for_each_block() {
        assert!(Index::new(vec![[1; 32]; 3], BitSet::new(3)).is_some());
        assert!(Index::new(vec![[1; 32]; 3], BitSet::new(2)).is_none());
        assert!(Index::new(Vec::new(), BitSet::new(0)).is_none());
        assert!(IndexBuilder::new(0).finish().is_none());
    }

    #[test]
    fn a_digest_noted_again_replaces_the_first() {
        let mut builder = IndexBuilder::new(1);
        builder.insert(0, BlockDigest { value: [1; 32], zero: true });
        builder.insert(0, BlockDigest { value: [2; 32], zero: false });
        builder.insert(1, BlockDigest { value: [3; 32], zero: true });
        let index = builder.finish().unwrap();
        assert_eq!(index.value(0), Some(&[2; 32]));
        assert!(index.zero().is_empty());
    }

    #[test]
    fn only_a_block_of_the_right_length_has_a_digest() {
        let layout = Layout::new(5000, 10, 64).unwrap();
        assert!(BlockDigest::of(&layout, 4, &[1; 904]).is_some());
        assert!(BlockDigest::of(&layout, 4, &[1; 1024]).is_none());
        assert!(BlockDigest::of(&layout, 5, &[]).is_none());
    }

    #[test]
    fn a_single_octet_makes_a_block_nonzero() {
        assert!(is_zero(&[]));
        for len in [1, 4095, 4096, 4097, 10_000] {
            let mut block = vec![0; len];
            assert!(is_zero(&block));
            for position in [0, len / 2, len - 1] {
                block[position] = 0x80;
                assert!(!is_zero(&block), "octet {position} of {len}");
                block[position] = 0;
            }
        }
    }
}
