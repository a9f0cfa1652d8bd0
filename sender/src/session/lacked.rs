//! What a member has lacked of each block at most: a need that is repeated is no other one.

use std::collections::BTreeMap;

use imgcast_common::id::BlockId;

/// The most that one member lacked of the blocks that it asked for last.
#[derive(Clone, Debug, Default)]
pub(super) struct Lacked(BTreeMap<BlockId, u16>);

impl Lacked {
    /// It lacks so many symbols of `block`; returns how many of them are news.
    pub(super) fn note(&mut self, block: BlockId, symbols: u16) -> u16 {
        let most = self.0.entry(block).or_default();
        let more = symbols.saturating_sub(*most);
        *most += more;
        if self.0.len() > BLOCKS_MAX {
            self.0.pop_first();
        }
        more
    }
}

/// Of the blocks behind those little is lacking any more; ten thousand members take 50 MiB for
/// them at worst.
const BLOCKS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacked_again_is_no_news_and_more_of_it_is() {
        let mut lacked = Lacked::default();
        let mut note = |number, symbols| lacked.note(BlockId::image(number), symbols);
        assert_eq!([note(7, 3), note(7, 3), note(7, 1), note(7, 5), note(7, 2)], [3, 0, 0, 2, 0]);
        assert_eq!([note(8, 4), note(7, 5), note(8, 4)], [4, 0, 0]);
    }

    #[test]
    fn of_many_blocks_the_last_are_remembered() {
        let mut lacked = Lacked::default();
        let mut note = |number| lacked.note(BlockId::image(number), 1);
        assert_eq!((0..300).map(&mut note).sum::<u16>(), 300);
        assert_eq!((44..300).map(&mut note).sum::<u16>(), 0);
        assert_eq!(note(43), 1);
        assert_eq!(lacked.0.len(), BLOCKS_MAX);
    }
}
