//! Blocks that may be on the target without having come, and blocks that came and are not.
//!
//! A block is *claimed* while it is being looked for on the target: symbols of it are kept, but
//! nobody is asked for any. Found, it is verified; else it is as if it had never been claimed. What
//! the target loses is untouched again.

use imgcast_common::bits::BitSet;

use super::{Ledger, Partial};

impl Ledger {
    /// A block may be on the target from before, and is looked for.
    pub(in crate::session) fn claim(&mut self, block: u32) {
        let begun = self.partial.contains_key(&block) || self.checking.contains_key(&block);
        if self.untouched.remove(block) || begun {
            self.claimed.insert(block);
        }
    }

    /// A block is not on the target from before.
    pub(in crate::session) fn disclaim(&mut self, block: u32) {
        let begun = self.partial.contains_key(&block) || self.checking.contains_key(&block);
        if self.claimed.remove(block) && !begun {
            self.untouched.insert(block);
        }
    }

    /// A block that was verified is not on the target after all.
    pub(in crate::session) fn lose(&mut self, block: u32) {
        if self.verified.remove(block) {
            self.untouched.insert(block);
            self.refetched += 1;
        }
    }

    /// Nothing is held of a block, and nothing of it is being checked.
    pub(super) fn is_untouched(&self, block: u32) -> bool {
        let is_claimed = self.claimed.contains(block) && !self.checking.contains_key(&block);
        is_claimed || self.untouched.contains(block)
    }

    /// What was held of a block is given up.
    pub(super) fn release(&mut self, block: u32) {
        if !self.claimed.contains(block) {
            self.untouched.insert(block);
        }
    }

    /// Blocks of which something is held and more may be asked for.
    pub(in crate::session) fn lacking(&self) -> impl Iterator<Item = (u32, &Partial)> {
        self.partial().filter(|(block, _)| !self.claimed.contains(*block))
    }

    /// Blocks that are being looked for.
    pub(in crate::session) const fn claimed(&self) -> &BitSet {
        &self.claimed
    }
}
