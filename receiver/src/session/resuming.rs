//! Blocks that are on the target without having come, and blocks that came and are not.

use std::time::Instant;

use imgcast_common::bits::BitSet;

use super::{Flush, Phase, Session};

impl Session {
    /// These blocks are being looked for on the target, which is to be told before
    /// [`handle_index`](Self::handle_index). Of each block follows `handle_checked` and
    /// `handle_stored`, or [`handle_absent`](Self::handle_absent): until then nobody is asked for
    /// it, and what comes of it is kept.
    pub fn handle_claims(&mut self, blocks: &BitSet) {
        let Some(image) = &mut self.image else { return };
        blocks.iter().for_each(|block| image.claim(block));
    }

    /// A block that was looked for is not there.
    pub fn handle_absent(&mut self, now: Instant, block: u32) {
        let Some(image) = &mut self.image else { return };
        image.disclaim(block);
        self.progress_at = now;
        self.asking.attend();
        self.settle(now);
    }

    /// A block that was written is not on the target after all. A zero block is made once more,
    /// which `handle_stored` tells; any other one is fetched again.
    pub fn handle_lost(&mut self, now: Instant, block: u32) {
        let Some(image) = &mut self.image else { return };
        if self.zero.contains(block) && image.verified().contains(block) {
            self.writing_zero += u32::from(self.writing.insert(block));
        } else {
            if image.verified().is_full() {
                self.contact.lack(now);
            }
            image.lose(block);
            self.writing.remove(block);
        }
        self.flush = Flush::NotAsked;
        if matches!(self.phase, Phase::Flushing) {
            self.phase = Phase::Member;
        }
        self.progress_at = now;
        self.asking.attend();
        self.settle(now);
    }
}
