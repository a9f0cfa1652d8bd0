//! Looks on the target, and in the file that it will replace, for blocks of the image.
//!
//! Nothing is believed: a block counts as found when its hash is right, as the medium holds it and
//! not as the page cache remembers it. What the target itself holds stays where it is; what only
//! the old file holds is handed over to be written like a block that was received.

use std::collections::BTreeSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use imgcast_common::bits::BitSet;
use imgcast_common::layout::Layout;
use imgcast_common::tree::Index;
use tracing::debug;

use super::reading::Reading;
use crate::error::Error;

/// Where to look, and for what.
#[derive(Debug)]
pub(super) struct Search {
    target: Option<(Reading, BitSet)>,
    old: Option<Reading>,
    blocks: BitSet,
    /// The first and the last block, of a device: they are looked at before anything is written.
    ends: Option<[u32; 2]>,
}

/// What became of a block that was looked for.
#[derive(Debug)]
pub enum Found {
    /// It has to be fetched.
    Nothing,
    /// The target holds it.
    InPlace,
    /// The target holds it, and it is kept: it will be zeroed if anything is written.
    End(Vec<u8>),
    /// It was read, and is to be written.
    Copy(Vec<u8>),
}

impl Search {
    /// Looks in the target for the blocks that are claimed, or without claims for all; and in the
    /// old file for what is not there. Zero blocks are nowhere looked for: they are made. The ends
    /// of a device, which no journal claims, are always looked at.
    pub(super) fn new(
        (target, old): (Option<&File>, Option<&File>),
        claims: Option<BitSet>,
        layout: &Layout,
        zero: &BitSet,
        is_device: bool,
    ) -> Option<Self> {
        let ends = is_device.then(|| [0, layout.blocks().saturating_sub(1)]);
        let claims = claims.map(|mut claims| {
            for end in ends.iter().flatten() {
                claims.insert(*end);
            }
            claims
        });
        let reading = |file: &File| {
            let reading = Reading::new(file);
            reading.inspect_err(|error| debug!(%error, "nothing can be looked for")).ok()
        };
        let old = old.and_then(reading);
        let target = target
            .and_then(reading)
            .map(|target| (target, claims.unwrap_or_else(|| BitSet::full(layout.blocks()))));
        let mut blocks = BitSet::new(layout.blocks());
        for block in (0..layout.blocks()).filter(|block| !zero.contains(*block)) {
            let is_claimed = target.as_ref().is_some_and(|(_, claims)| claims.contains(block));
            if is_claimed || old.is_some() {
                blocks.insert(block);
            }
        }
        (!blocks.is_empty()).then_some(Self { target, old, blocks, ends })
    }

    fn is_end(&self, number: u32) -> bool {
        self.ends.is_some_and(|ends| ends.contains(&number))
    }

    /// All blocks in the order in which to look for them: first the ends, and how many these are.
    fn in_turn(&self) -> (u32, Vec<u32>) {
        let (mut turns, others): (Vec<u32>, Vec<u32>) =
            self.blocks.iter().partition(|number| self.is_end(*number));
        let ends = u32::try_from(turns.len()).unwrap_or(0);
        turns.extend(others);
        (ends, turns)
    }

    fn find(&mut self, layout: &Layout, index: &Index, number: u32) -> Found {
        let mut bytes = vec![0; layout.block_len(number) as usize];
        let offset = layout.block_range(number).start;
        let mut holds = |reading: &mut Reading| {
            reading.read(&mut bytes, offset).is_ok() && index.verify(layout, number, &bytes)
        };
        let target = self.target.as_mut().filter(|(_, claims)| claims.contains(number));
        if target.is_some_and(|(target, _)| holds(target)) {
            return if self.is_end(number) { Found::End(bytes) } else { Found::InPlace };
        }
        if self.old.as_mut().is_some_and(holds) { Found::Copy(bytes) } else { Found::Nothing }
    }
}

/// What is looked for, and what was found and is not out of the way yet.
#[derive(Debug)]
pub(super) struct Hunt {
    scan: Option<Scan>,
    claimed: BitSet,
    /// Not looked for yet; `None` if nothing is looked for, or no more.
    left: Option<u32>,
    /// Of these the ends of a device.
    ends_left: u32,
    found: BTreeSet<u32>,
    found_blocks: u32,
}

impl Default for Hunt {
    fn default() -> Self {
        Self {
            scan: None,
            claimed: BitSet::new(0),
            left: None,
            ends_left: 0,
            found: BTreeSet::new(),
            found_blocks: 0,
        }
    }
}

impl Hunt {
    /// Starts a search; a thread tells `deliver` of every block in turn, of the ends of a device
    /// first.
    ///
    /// # Errors
    /// [`Error::System`] if there is no thread to be had.
    pub(super) fn begin(
        search: Search,
        layout: Layout,
        index: Arc<Index>,
        deliver: impl Fn(u32, Found) + Send + 'static,
    ) -> Result<Self, Error> {
        let claimed = search.blocks.clone();
        let (ends_left, turns) = search.in_turn();
        let scan = Some(Scan::start(search, turns, layout, index, deliver)?);
        let left = Some(claimed.count());
        Ok(Self { scan, claimed, left, ends_left, found: BTreeSet::new(), found_blocks: 0 })
    }

    /// Whether the ends of a device have not been looked at yet: nothing may be written.
    pub(super) const fn looks_at_ends(&self) -> bool {
        self.ends_left > 0
    }

    /// The blocks that are looked for.
    pub(super) const fn claimed(&self) -> &BitSet {
        &self.claimed
    }

    /// A block was looked for; found, it is on its way to the writer.
    pub(super) fn note(&mut self, number: u32, is_found: bool) {
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.ends_left = self.ends_left.saturating_sub(1);
        if is_found {
            self.found.insert(number);
            self.found_blocks += 1;
        }
    }

    /// Whether nothing is left to look for, and what was found is out of the way; true once.
    pub(super) fn ends(&mut self) -> bool {
        let ends = self.left == Some(0) && self.found.is_empty();
        self.left = self.left.filter(|_| !ends);
        ends
    }

    /// How many were found.
    pub(super) const fn found_blocks(&self) -> u32 {
        self.found_blocks
    }

    /// A block is out of the way, found or not.
    pub(super) fn go_on_after(&mut self, number: u32) {
        if self.found.remove(&number)
            && let Some(scan) = &self.scan
        {
            scan.go_on();
        }
    }
}

/// A search that is under way. Dropped, it ends.
#[derive(Debug)]
struct Scan {
    is_stopped: Arc<AtomicBool>,
    credits: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scan {
    fn start(
        mut search: Search,
        turns: Vec<u32>,
        layout: Layout,
        index: Arc<Index>,
        deliver: impl Fn(u32, Found) + Send + 'static,
    ) -> Result<Self, Error> {
        let (credits, granted) = sync_channel(FOUND_MAX);
        for _ in 0..FOUND_MAX {
            // There is room for just so many.
            let _ = credits.try_send(());
        }
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopped);
        let work = move || {
            for number in turns {
                let find = || search.find(&layout, &index, number);
                let found = catch_unwind(AssertUnwindSafe(find)).unwrap_or(Found::Nothing);
                // Nobody waits for what was not found.
                let waits = !matches!(found, Found::Nothing);
                if (waits && granted.recv().is_err()) || stop.load(Ordering::Relaxed) {
                    return;
                }
                deliver(number, found);
            }
        };
        let builder = thread::Builder::new().name("search".into());
        let thread = builder.spawn(work);
        let thread = thread.map_err(|source| Error::System { action: "start a thread", source })?;
        Ok(Self { is_stopped, credits: Some(credits), thread: Some(thread) })
    }

    /// A block that was found is out of the way.
    fn go_on(&self) {
        if let Some(credits) = &self.credits {
            // It is full when more come back than were given.
            let _ = credits.try_send(());
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.credits = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Blocks that were found and wait for the disk: they come on top of the memory for blocks.
pub(super) const FOUND_MAX: usize = 4;

#[cfg(test)]
mod tests;
