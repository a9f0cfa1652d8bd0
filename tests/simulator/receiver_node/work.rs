//! What a receiver's other threads do: decode, verify, write, flush.

use std::{rc::Rc, time::Duration};

use imgcast_common::{
    bits::BitSet,
    id::{BlockId, Stream},
};
use imgcast_receiver::session::Checked;

use super::ReceiverNode;
use crate::{
    attach::Surroundings,
    config::Fidelity,
    planted::PlantedBug,
    queue::{Happening, Task},
    store::Judged,
};

impl ReceiverNode {
    pub(super) fn on_check(&mut self, around: &mut Surroundings, block: BlockId) {
        let Some(store) = &mut self.store else { return };
        match store.judge(block, &mut self.prng) {
            Ok(judged) => {
                *self.judging.entry(block).or_default() += 1;
                let wait = self.thinking_time();
                let task = Task::Judged { block, judged, cut: self.cut };
                self.task_after(around, wait, task);
            }
            Err(problem) => around.safety(format!("receiver {}: {problem}", self.number)),
        }
    }

    pub(super) fn on_judged(
        &mut self,
        around: &mut Surroundings,
        block: BlockId,
        judged: Judged,
        cut: u32,
    ) {
        if let Some(times) = self.judging.get_mut(&block) {
            *times -= 1;
            if *times == 0 {
                self.judging.remove(&block);
            }
        }
        let Some(store) = &mut self.store else { return };
        let now = around.instant();
        let stale = cut != self.cut;
        match judged {
            Judged::Corrupt(bytes) if around.has(PlantedBug::HashCheckSkipped) => {
                self.on_whole(around, block, bytes);
            }
            _ if stale && block.stream == Stream::Index => {}
            Judged::Whole(bytes) => self.on_whole(around, block, bytes),
            Judged::TooFew(received) => {
                if !stale {
                    if !around.has(PlantedBug::PutBackLost) {
                        store.put_back(block, received);
                    }
                    self.session.handle_checked(now, block, Checked::TooFew);
                }
            }
            Judged::Corrupt(_) => {
                if !stale {
                    self.session.handle_checked(now, block, Checked::Corrupt);
                }
            }
        }
    }

    pub(super) fn on_whole(&mut self, around: &mut Surroundings, block: BlockId, bytes: Vec<u8>) {
        let Some(store) = &mut self.store else { return };
        // Symbols that came while an earlier cut of it was judged are not needed any more.
        store.forget(block);
        self.session.handle_checked(around.instant(), block, Checked::Whole);
        if block.stream == Stream::Index {
            store.insert_index_block(block.number, &bytes);
            return;
        }
        let truth = self.truth.as_ref().filter(|_| around.fidelity == Fidelity::Real);
        if truth.is_some_and(|truth| truth.block(block) != bytes) {
            around.safety(format!("receiver {} writes a wrong {block}", self.number));
        }
        self.write(around, block.number, Some(bytes));
    }

    pub(super) fn on_index(&mut self, around: &mut Surroundings, cut: u32) {
        let (Some(store), Some(truth), Some(offer)) = (&mut self.store, &self.truth, &self.offer)
        else {
            return;
        };
        if cut != self.cut {
            return;
        }
        let announce = &offer.announce;
        let mut index = store.finish_index(&announce.index_hash, announce.image, &truth.index);
        if index.is_none() && around.has(PlantedBug::IndexCheckSkipped) {
            around.safety(format!("receiver {} believes a wrong index", self.number));
            index = Some(Rc::clone(&truth.index));
        }
        store.index.clone_from(&index);
        let now = around.instant();
        let Some(index) = index else { return self.session.handle_index(now, None) };
        if self.config.resumes {
            let claims = store.begin_search();
            self.session.handle_claims(&claims);
            for (block, place) in claims.iter().zip(1..) {
                let wait = self.config.search_per_block * place + self.thinking_time();
                self.task_after(around, wait, Task::Searched { block });
            }
        }
        self.session.handle_index(now, Some(index.zero()));
        self.judge_zero_blocks(around, index.zero());
    }

    pub(super) fn judge_zero_blocks(&mut self, around: &mut Surroundings, zero: &BitSet) {
        for block in zero.iter() {
            let right = self.store.as_ref().is_some_and(|store| store.is_zero_indeed(block));
            let wait = self.thinking_time();
            self.task_after(around, wait, Task::ZeroJudged { block, right });
        }
    }

    pub(super) fn on_zero_judged(&mut self, around: &mut Surroundings, block: u32, right: bool) {
        let now = around.instant();
        let checked = if right { Checked::Whole } else { Checked::Corrupt };
        self.session.handle_checked(now, BlockId::image(block), checked);
        if right && around.has(PlantedBug::ZeroBlocksSkipped) {
            self.session.handle_stored(now, block);
        } else if right {
            self.write(around, block, None);
        }
    }

    /// A block was hashed that may be on the target from before.
    pub(super) fn on_searched(&mut self, around: &mut Surroundings, block: u32) {
        let Some(store) = &mut self.store else { return };
        let (now, is_there) = (around.instant(), store.is_there(block));
        store.note_searched(block);
        if !is_there && !around.has(PlantedBug::ClaimsBelieved) {
            return self.session.handle_absent(now, block);
        }
        store.forget(BlockId::image(block));
        store.find(block);
        self.session.handle_checked(now, BlockId::image(block), Checked::Whole);
        self.session.handle_stored(now, block);
    }

    /// Hands a block to the disk.
    pub(super) fn write(&mut self, around: &mut Surroundings, block: u32, bytes: Option<Vec<u8>>) {
        let octets = self.store.as_ref().map_or(0, |it| u64::from(it.layout.block_len(block)));
        let disk = &self.config.disk;
        let mut begins = self.disk_free_at.max(around.now);
        if let Some(stall) = disk.stalls.iter().find(|stall| stall.contains(begins)) {
            begins = stall.until;
        }
        let nanos = octets * 1_000_000_000 / disk.bytes_per_second.max(1);
        let idle_until = self.disk_free_at.max(around.now);
        self.disk_free_at = begins + Duration::from_nanos(nanos);
        // A wait for the disk is the disk's time, too.
        self.drain.note(octets, self.disk_free_at - idle_until);
        let fails = disk.fails_at_write == Some(self.writes);
        let loses = disk.loses_at_write == Some(self.writes);
        self.writes += 1;
        let wait = self.disk_free_at - around.now;
        if fails && around.has(PlantedBug::WriteErrorIgnored) {
            self.session.handle_stored(around.instant(), block);
        } else if fails {
            self.task_after(around, wait, Task::WriteFailed);
        } else if loses {
            self.writing += 1;
            self.task_after(around, wait, Task::Lost { blocks: vec![block], writing: true });
        } else {
            self.writing += 1;
            if around.has(PlantedBug::StoredBeforeWritten) {
                self.session.handle_stored(around.instant(), block);
            }
            self.task_after(around, wait, Task::Stored { block, bytes });
        }
    }

    /// Tells the session what the disk takes, each turn as the driver does.
    pub(super) fn tell_drain(&mut self, around: &Surroundings) {
        if self.stored >= KNOWN_BLOCKS_MIN {
            self.session.handle_drain(around.instant(), self.drain.kilobytes_per_second());
        }
    }

    /// Zero blocks are made once more, the others have to come again.
    pub(super) fn on_lost(&mut self, around: &mut Surroundings, blocks: &[u32], writing: bool) {
        self.writing -= u32::from(writing);
        for block in blocks {
            self.session.handle_lost(around.instant(), *block);
            let index = self.store.as_ref().and_then(|store| store.index.as_ref());
            if index.is_some_and(|index| index.zero().contains(*block)) {
                self.write(around, *block, None);
            }
        }
    }

    pub(super) fn on_flush(&mut self, around: &mut Surroundings) {
        self.flushes += 1;
        if let Some(store) = self.store.as_mut().filter(|_| self.flushes == 1)
            && self.config.disk.loses_at_flush > 0
        {
            let blocks: Vec<u32> = (0..store.layout.blocks()).collect();
            let most = self.config.disk.loses_at_flush as usize;
            let lost = blocks[..most.min(blocks.len())].to_vec();
            lost.iter().for_each(|block| store.lose(*block));
            let wait = self.thinking_time();
            return self.task_after(around, wait, Task::Lost { blocks: lost, writing: false });
        }
        self.flushed = self.is_right();
        self.flushed_at.get_or_insert(around.now);
        if !self.flushed && around.fidelity == Fidelity::Real {
            around.safety(format!("receiver {} flushes a target that is wrong", self.number));
        }
        let wait = self.thinking_time() + self.config.disk.flush_takes;
        self.task_after(around, wait, Task::Flushed);
    }

    /// Blocks in memory: incomplete, being judged, or being written.
    pub(super) fn check_memory(&mut self, around: &mut Surroundings) {
        let Some(store) = &self.store else { return };
        let judging = self.judging.keys().filter(|block| block.stream == Stream::Image).count();
        let held = store.image_blocks_held() + judging + self.writing as usize;
        // Zero blocks wait for the disk too, but take no memory.
        let zero = store.index.as_ref().map_or(0, |index| index.zero().count() as usize);
        let allowed = usize::try_from(self.config.memory_blocks).unwrap_or(usize::MAX).max(8);
        if held > allowed + zero {
            around.safety(format!("receiver {} holds {held} of {allowed} blocks", self.number));
        }
    }

    /// What its threads take for anything but writing.
    pub(super) fn thinking_time(&mut self) -> Duration {
        Duration::from_micros(self.prng.below(THINKING_MICROS_MAX))
    }

    pub(super) fn task_after(&self, around: &mut Surroundings, wait: Duration, task: Task) {
        around.after(wait, Happening::Task { receiver: self.number, task });
    }
}

/// The first blocks say nothing about the thousandth.
const KNOWN_BLOCKS_MIN: u32 = 16;
/// A decode or a hash takes some hundred microseconds, and waits for others.
const THINKING_MICROS_MAX: u64 = 2_000;
