//! How a stream of bytes is cut into source blocks: sizes, offsets and counts.
//!
//! Cutting a block into symbols is the business of [`fec`](crate::fec); what the bytes mean is
//! nobody's business here. The image (stream 0) and its index (stream 1) are cut alike.

use std::ops::Range;

/// The cut of one stream: `bytes` octets in blocks of `2^block_log2`, the last one shorter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    bytes: u64,
    block_log2: u8,
    symbol_size: u16,
}

impl Layout {
    /// Checks the limits of `PROTOCOL.md` section 10; `None` where one is broken.
    #[must_use]
    pub fn new(bytes: u64, block_log2: u8, symbol_size: u16) -> Option<Self> {
        let layout = Self { bytes, block_log2, symbol_size };
        let sizes = (1..=IMAGE_BYTES_MAX).contains(&bytes)
            && (BLOCK_LOG2_MIN..=BLOCK_LOG2_MAX).contains(&block_log2)
            && symbol_size_is_valid(symbol_size);
        let fits = sizes
            && bytes.div_ceil(layout.block_size()) <= u64::from(BLOCKS_MAX)
            && layout.block_size().div_ceil(u64::from(symbol_size)) <= u64::from(SYMBOLS_MAX);
        fits.then_some(layout)
    }

    /// The cut that a sender chooses for an image: blocks of 1 MiB, or the smallest power of two
    /// that keeps the image within 2^20 blocks.
    #[must_use]
    pub fn for_image(bytes: u64, symbol_size: u16) -> Option<Self> {
        (BLOCK_LOG2_DEFAULT..=BLOCK_LOG2_MAX)
            .find_map(|block_log2| Self::new(bytes, block_log2, symbol_size))
    }

    /// The cut of the index of an image that is cut like this: 32 octets for each block and the
    /// bitmap of the zero blocks, in blocks and symbols of the same sizes.
    #[must_use]
    pub fn of_index(&self) -> Self {
        let blocks = u64::from(self.blocks());
        Self { bytes: blocks * 32 + blocks.div_ceil(8), ..*self }
    }

    /// Length of the stream, in octets.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Octets in a whole block: a power of two.
    #[must_use]
    pub const fn block_size(&self) -> u64 {
        1 << self.block_log2
    }

    /// The binary logarithm of [`block_size`](Self::block_size).
    #[must_use]
    pub const fn block_log2(&self) -> u8 {
        self.block_log2
    }

    /// Octets in a symbol: T.
    #[must_use]
    pub const fn symbol_size(&self) -> u16 {
        self.symbol_size
    }

    /// Number of source blocks, at most 2^20.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        let blocks = self.bytes.div_ceil(self.block_size());
        u32::try_from(blocks).unwrap_or(BLOCKS_MAX)
    }

    /// Where block `number` lies in the stream; empty beyond the last one.
    #[must_use]
    pub fn block_range(&self, number: u32) -> Range<u64> {
        let start = (u64::from(number) * self.block_size()).min(self.bytes);
        start..(start + self.block_size()).min(self.bytes)
    }

    /// Octets in block `number`; zero beyond the last one.
    #[must_use]
    pub fn block_len(&self, number: u32) -> u32 {
        let range = self.block_range(number);
        u32::try_from(range.end - range.start).unwrap_or(0)
    }

    /// Symbols that carry data of block `number`: S.
    #[must_use]
    pub fn source_symbols(&self, number: u32) -> u32 {
        self.block_len(number).div_ceil(u32::from(self.symbol_size))
    }
}

/// Whether T is a multiple of 32 from 64 to 8,896.
#[must_use]
pub const fn symbol_size_is_valid(symbol_size: u16) -> bool {
    symbol_size >= 64 && symbol_size <= SYMBOL_SIZE_MAX && symbol_size.is_multiple_of(32)
}

/// The largest T whose datagram of 40 + T + 16 octets fits into `payload_octets_max`, the most
/// that UDP carries unfragmented; `None` below the smallest T.
#[must_use]
pub fn symbol_size_for(payload_octets_max: usize) -> Option<u16> {
    let room = payload_octets_max.checked_sub(40 + 16)? / 32 * 32;
    let symbol_size = u16::try_from(room).unwrap_or(SYMBOL_SIZE_MAX).min(SYMBOL_SIZE_MAX);
    symbol_size_is_valid(symbol_size).then_some(symbol_size)
}

/// 8 TiB: 2^20 blocks of the largest size.
pub const IMAGE_BYTES_MAX: u64 = 1 << 43;
/// The index of more blocks would not fit into 33 MiB, which every receiver holds.
pub const BLOCKS_MAX: u32 = 1 << 20;
/// Jumbo frames of 9,000 octets carry no more.
pub const SYMBOL_SIZE_MAX: u16 = 8_896;
/// A K' of RFC 6330 Table 2; beyond it the matrices take milliseconds and many MiB to solve.
pub const SYMBOLS_MAX: u32 = 8_111;
/// BLAKE3 hashes chunks of 1 KiB: a smaller block is no subtree of its own.
pub const BLOCK_LOG2_MIN: u8 = 10;
/// 1 MiB: 745 symbols of 1,408 octets, which decode within a millisecond or two.
pub const BLOCK_LOG2_DEFAULT: u8 = 20;
/// 8 MiB: with it 2^20 blocks reach the largest image.
pub const BLOCK_LOG2_MAX: u8 = 23;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_takes_1_mib_blocks_until_there_are_too_many() {
        let small = Layout::for_image(5 << 20, 1408).unwrap();
        assert_eq!((small.block_size(), small.blocks()), (1 << 20, 5));
        assert_eq!(small.source_symbols(0), 745);
        let large = Layout::for_image((1 << 40) + 1, 1408).unwrap();
        assert_eq!((large.block_size(), large.blocks()), (2 << 20, (1 << 19) + 1));
        assert!(Layout::for_image(IMAGE_BYTES_MAX, 1408).is_some());
        assert!(Layout::for_image(IMAGE_BYTES_MAX + 1, 1408).is_none());
        assert!(Layout::for_image(0, 1408).is_none());
    }

    #[test]
    fn blocks_tile_the_stream() {
        let layout = Layout::new(10_000, 10, 64).unwrap();
        assert_eq!(layout.blocks(), 10);
        let total: u64 = (0..10).map(|number| u64::from(layout.block_len(number))).sum();
        assert_eq!(total, 10_000);
        assert_eq!(layout.block_range(9), 9216..10_000);
        assert_eq!(layout.block_len(10), 0);
        assert_eq!(layout.source_symbols(9), 13);
    }

    #[test]
    fn each_limit_is_kept() {
        assert!(Layout::new(1 << 20, 20, 1408).is_some());
        for symbol_size in [0, 32, 63, 100, 8928] {
            assert!(Layout::new(1 << 20, 20, symbol_size).is_none(), "T = {symbol_size}");
        }
        assert!(Layout::new(1 << 20, 9, 64).is_none(), "block below 1 KiB");
        assert!(Layout::new(1 << 20, 24, 8896).is_none(), "block above 8 MiB");
        assert!(Layout::new(1 << 23, 23, 1024).is_none(), "more than 8,111 symbols");
        assert!(Layout::new((1 << 30) + 1, 10, 64).is_none(), "more than 2^20 blocks");
    }

    #[test]
    fn the_index_takes_33_octets_for_every_8th_block() {
        let layout = Layout::new(9 << 20, 20, 1408).unwrap();
        assert_eq!(layout.of_index().bytes(), 9 * 32 + 2);
        assert_eq!(layout.of_index().blocks(), 1);
    }

    #[test]
    fn symbol_size_follows_the_mtu_as_in_the_table() {
        assert_eq!(symbol_size_for(1500 - 28), Some(1408));
        assert_eq!(symbol_size_for(1500 - 48), Some(1376));
        assert_eq!(symbol_size_for(9000 - 28), Some(8896));
        assert_eq!(symbol_size_for(9000 - 48), Some(8896));
        assert_eq!(symbol_size_for(65_507), Some(8896));
        assert_eq!(symbol_size_for(100), None);
        assert_eq!(symbol_size_for(10), None);
    }
}
