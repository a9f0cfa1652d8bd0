//! Collects the blocks of the index and judges the whole.

use imgcast_common::bits::BitSet;
use imgcast_common::id::ImageId;
use imgcast_common::layout::Layout;
use imgcast_common::tree::{Index, index_hash};

/// The index as far as it is here. Its blocks are unverified; only the whole can be checked.
#[derive(Debug)]
pub struct IndexAssembly {
    layout: Layout,
    bytes: Vec<u8>,
    present: BitSet,
}

impl IndexAssembly {
    /// Nothing of the index that is cut by `layout` (see [`Layout::of_index`]) is here yet.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, bytes: Vec::new(), present: BitSet::new(layout.blocks()) }
    }

    /// Takes block `number` of the index in; `false` if it is not one of its blocks or has not
    /// its length. A block that is here already is replaced.
    pub fn insert(&mut self, number: u32, block: &[u8]) -> bool {
        if block.is_empty() || block.len() != self.layout.block_len(number) as usize {
            return false;
        }
        let (Ok(len), Ok(start)) = (
            usize::try_from(self.layout.bytes()),
            usize::try_from(self.layout.block_range(number).start),
        ) else {
            return false;
        };
        // At most 33 MiB, by the limits of a layout.
        self.bytes.resize(len, 0);
        self.bytes[start..start + block.len()].copy_from_slice(block);
        self.present.insert(number);
        true
    }

    /// The blocks that are here.
    #[must_use]
    pub const fn present(&self) -> &BitSet {
        &self.present
    }

    /// Whether all blocks are here.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.present.is_full()
    }

    /// The index, if it is the one that was announced: hash, number of blocks, image id. A wrong
    /// one is forgotten whole, since nothing tells which of its blocks is to blame.
    ///
    /// # Errors
    /// [`IndexError::Incomplete`], which forgets nothing, or what is wrong.
    pub fn finish(
        &mut self,
        expected_hash: &[u8; 32],
        blocks: u32,
        image: ImageId,
    ) -> Result<Index, IndexError> {
        if !self.is_complete() {
            let missing_blocks = self.present.len() - self.present.count();
            return Err(IndexError::Incomplete { missing_blocks });
        }
        let result = judge(&self.bytes, expected_hash, blocks, image);
        if result.is_err() {
            *self = Self::new(self.layout);
        }
        result
    }
}

/// Why there is no index.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IndexError {
    /// Blocks of it are missing.
    #[error("{missing_blocks} blocks of it are missing")]
    Incomplete {
        /// How many.
        missing_blocks: u32,
    },
    /// It is not the one that was announced.
    #[error("its hash is not the announced one")]
    Hash,
    /// The sender announced something that is no index of this image.
    #[error("it has not the form of an index of {blocks} blocks")]
    Form {
        /// Blocks of the image.
        blocks: u32,
    },
    /// The sender announced the index of another image.
    #[error("it is the index of another image, {actual}")]
    Image {
        /// The image it belongs to.
        actual: ImageId,
    },
}

fn judge(
    bytes: &[u8],
    expected_hash: &[u8; 32],
    blocks: u32,
    image: ImageId,
) -> Result<Index, IndexError> {
    if index_hash(bytes) != *expected_hash {
        return Err(IndexError::Hash);
    }
    let index = Index::parse(bytes, blocks).ok_or(IndexError::Form { blocks })?;
    let actual = index.image_id();
    if actual == image { Ok(index) } else { Err(IndexError::Image { actual }) }
}

#[cfg(test)]
mod tests {
    use imgcast_common::tree::{BlockDigest, IndexBuilder};

    use super::*;

    /// An image of 100 blocks, whose index takes four blocks.
    fn image() -> (Layout, Index) {
        let layout = Layout::new(100 * 1024 - 7, 10, 64).unwrap();
        let mut builder = IndexBuilder::new(layout.blocks());
        for number in 0..layout.blocks() {
            let block = vec![u8::try_from(number % 9).unwrap(); layout.block_len(number) as usize];
            builder.insert(number, BlockDigest::of(&layout, number, &block).unwrap());
        }
        (layout, builder.finish().unwrap())
    }

    fn filled(layout: &Layout, bytes: &[u8]) -> IndexAssembly {
        let layout = layout.of_index();
        let mut assembly = IndexAssembly::new(layout);
        for (block, number) in bytes.chunks(1024).zip(0..).collect::<Vec<_>>().into_iter().rev() {
            assert!(!assembly.is_complete());
            assert!(assembly.insert(number, block));
        }
        assembly
    }

    #[test]
    fn blocks_in_any_order_become_the_index() {
        let (layout, index) = image();
        let bytes = index.to_bytes();
        let mut assembly = filled(&layout, &bytes);
        let id = index.image_id();
        assert_eq!(assembly.finish(&index_hash(&bytes), 100, id), Ok(index));
    }

    #[test]
    fn a_missing_block_is_waited_for_and_a_strange_one_refused() {
        let (layout, index) = image();
        let bytes = index.to_bytes();
        let mut assembly = IndexAssembly::new(layout.of_index());
        assert_eq!(bytes.len(), 3213);
        assert!(assembly.insert(1, &bytes[1024..2048]));
        assert!(!assembly.insert(3, &bytes[2048..]), "block 3 has 141 octets");
        assert!(!assembly.insert(4, &[]) && !assembly.insert(u32::MAX, &[0]));
        let waiting = Err(IndexError::Incomplete { missing_blocks: 3 });
        assert_eq!(assembly.finish(&index_hash(&bytes), 100, index.image_id()), waiting);
        assert!(assembly.present().iter().eq([1]));
    }

    #[test]
    fn a_wrong_index_is_named_and_forgotten_whole() {
        let (layout, index) = image();
        let bytes = index.to_bytes();
        let (hash, id) = (index_hash(&bytes), index.image_id());
        let mut bent = bytes.clone();
        bent[1500] ^= 1;
        let actual = Index::parse(&bent, 100).unwrap().image_id();
        let mut tail = bytes.clone();
        *tail.last_mut().unwrap() |= 1;
        for (bytes, hash, expected) in [
            (&bent, hash, IndexError::Hash),
            (&bent, index_hash(&bent), IndexError::Image { actual }),
            (&tail, index_hash(&tail), IndexError::Form { blocks: 100 }),
        ] {
            let mut assembly = filled(&layout, bytes);
            assert_eq!(assembly.finish(&hash, 100, id), Err(expected));
            assert!(assembly.present().is_empty());
        }
    }
}
