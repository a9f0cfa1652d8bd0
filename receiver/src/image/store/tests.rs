//! A store from its first symbol to the flushed file, with somebody in the session's place who
//! sends whatever is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use imgcast_common::prng::Prng;
use imgcast_common::tree::{BlockDigest, IndexBuilder, index_hash};

use super::*;
use crate::image::flaky::{Faults, Flaky};
use crate::image::testing::{LoopDevice, Scratch};
use crate::image::{Journal, Keep, TargetOptions};

/// An image of 24 blocks of 64 KiB, the last one odd, of which 7, 8 and 9 are zero.
struct World {
    layout: Layout,
    image: Vec<u8>,
    index: Index,
}

impl World {
    fn new() -> Self {
        let mut image = vec![0; 24 * BLOCK - 1001];
        let layout = Layout::new(image.len() as u64, 16, 1408).unwrap();
        Prng::new(21).fill(&mut image);
        image[7 * BLOCK..10 * BLOCK].fill(0);
        let mut builder = IndexBuilder::new(layout.blocks());
        for (number, block) in (0..).zip(image.chunks(BLOCK)) {
            builder.insert(number, BlockDigest::of(&layout, number, block).unwrap());
        }
        Self { layout, image, index: builder.finish().unwrap() }
    }

    /// A run of a receiver up to its end.
    fn receive(&self, target: Target, as_medium: AsMedium) -> Run<'_> {
        let mut run = self.begin(target, as_medium);
        run.go(u32::MAX);
        run
    }

    /// A run of a receiver that has the index.
    fn begin(&self, target: Target, as_medium: AsMedium) -> Run<'_> {
        let (done, work) = channel();
        let memory = Memory::for_blocks(32, BLOCK as u64);
        let store = Store::new(target, memory, move |work| {
            let _ = done.send(work);
        });
        let mut store = store.unwrap();
        store.as_medium = as_medium;
        store.begin(self.layout, false).unwrap();
        let octets = self.index.to_bytes();
        let of_index = self.layout.of_index();
        let mut run = Run {
            world: self,
            store,
            work,
            stored: BTreeSet::new(),
            sent: BTreeMap::new(),
            losses: Vec::new(),
            written: None,
        };
        for (number, block) in (0..of_index.blocks()).zip(octets.chunks(BLOCK)) {
            run.send(BlockId::index(number), block);
            while !matches!(run.next(), Some(Progress::Whole(it)) if it == BlockId::index(number)) {
            }
        }
        let zero = run.store.put_index_together(&index_hash(&octets), self.index.image_id());
        assert_eq!(zero.unwrap().unwrap(), *self.index.zero());
        run
    }
}

struct Run<'a> {
    world: &'a World,
    store: Store,
    work: Receiver<Work>,
    stored: BTreeSet<u32>,
    /// How often each block was sent.
    sent: BTreeMap<u32, u32>,
    losses: Vec<(Vec<u32>, String)>,
    written: Option<u64>,
}

impl Run<'_> {
    fn send(&mut self, block: BlockId, octets: &[u8]) {
        let len = u32::try_from(octets.len()).unwrap();
        for (esi, symbol) in (0..).zip(octets.chunks(1408)) {
            let mut padded = vec![0; 1408];
            padded[..symbol.len()].copy_from_slice(symbol);
            self.store.keep(block, len, EncodingSymbolId::new(esi).unwrap(), &padded);
        }
        assert!(self.store.check(block));
    }

    fn send_block(&mut self, number: u32) {
        let world = self.world;
        let octets = world.image.chunks(BLOCK).nth(number as usize).unwrap();
        *self.sent.entry(number).or_default() += 1;
        self.send(BlockId::image(number), octets);
    }

    fn next(&mut self) -> Option<Progress> {
        let work = self.work.recv().unwrap();
        self.store.take_in(work)
    }

    /// Sends what is neither there nor claimed, one block at a time, until the image is whole, or
    /// so many blocks are stored.
    fn go(&mut self, stored_max: u32) {
        let zero = self.world.index.zero().clone();
        let mut missing: BTreeSet<u32> = (0..self.world.layout.blocks())
            .filter(|it| !zero.contains(*it) && !self.store.claimed().contains(*it))
            .collect();
        let mut is_sending = false;
        while self.stored.len() < stored_max as usize {
            if !is_sending && let Some(number) = missing.pop_first() {
                self.send_block(number);
                is_sending = true;
            }
            match self.next() {
                None | Some(Progress::Whole(_) | Progress::Zeroes(_)) => {}
                Some(Progress::Stored(blocks)) => {
                    for number in blocks {
                        assert!(self.stored.insert(number), "{number} twice");
                        is_sending &= zero.contains(number) || !self.sent.contains_key(&number);
                    }
                    if self.stored.len() == self.world.layout.blocks() as usize {
                        self.store.flush();
                    }
                }
                Some(Progress::Absent(number)) => drop(missing.insert(number)),
                Some(Progress::Lost(blocks, error)) => {
                    for number in &blocks {
                        self.stored.remove(number);
                        is_sending &= !self.sent.contains_key(number);
                    }
                    missing.extend(blocks.iter().filter(|it| !zero.contains(**it)));
                    self.losses.push((blocks, error.code().to_owned()));
                }
                Some(Progress::Flushed(written)) => {
                    self.written = Some(written);
                    return;
                }
                Some(other) => panic!("{other:?}"),
            }
        }
    }

    fn sent_blocks(&self) -> Vec<u32> {
        self.sent.keys().copied().collect()
    }
}

type AsMedium = fn(Target) -> Box<dyn Medium>;

fn as_it_is(target: Target) -> Box<dyn Medium> {
    Box::new(target)
}

fn resume(path: &Path, journal: Option<PathBuf>) -> Target {
    let keep = Keep { resumes: true, journal, reads_back: true };
    Target::open_with(path, TargetOptions::default(), &keep).unwrap()
}

#[test]
fn what_the_disk_loses_is_sent_again_or_made_again_and_the_image_is_whole() {
    let world = World::new();
    let scratch = Scratch::new();
    let path = scratch.path().join("disk.img");
    let media: [(&str, AsMedium); 5] = [
        ("write", |it| Box::new(Flaky::new(it, Faults { write: 5, ..Faults::default() }))),
        ("write", |it| Box::new(Flaky::new(it, Faults { zero: 1, ..Faults::default() }))),
        ("flush", |it| Box::new(Flaky::new(it, Faults { flush: 1, ..Faults::default() }))),
        ("read-back", |it| Box::new(Flaky::new(it, Faults { read: 9, ..Faults::default() }))),
        ("read-back", |it| Box::new(Flaky::new(it, Faults { wrong_read: 8, ..Faults::default() }))),
    ];
    for (code, as_medium) in media {
        let _ = fs::remove_file(&path);
        let run = world.receive(resume(&path, None), as_medium);
        let [(lost, reason)] = &run.losses[..] else { panic!("{code}: {:?}", run.losses) };
        assert_eq!(reason, code);
        for (number, times) in &run.sent {
            let wanted = if lost.contains(number) { 2 } else { 1 };
            assert_eq!(*times, wanted, "{code}: {number} of {lost:?}");
        }
        assert_eq!(run.sent.len(), 21, "{code}: zero blocks are not sent");
        assert!(fs::read(&path).unwrap() == world.image, "{code}");
        drop(run);
        assert_eq!(scratch.names(), ["disk.img"], "{code}");
    }
}

#[test]
fn what_an_older_file_holds_is_copied_and_only_the_rest_is_sent() {
    let world = World::new();
    let scratch = Scratch::new();
    let path = scratch.path().join("disk.img");
    let mut old = world.image.clone();
    old[3 * BLOCK] ^= 1;
    // Zero in the image, something else before.
    old[8 * BLOCK] = 1;
    old[23 * BLOCK + 7] ^= 0x80;
    fs::write(&path, &old).unwrap();
    let run = world.receive(resume(&path, None), as_it_is);
    assert_eq!(run.sent_blocks(), [3, 23]);
    assert_eq!((run.store.found_blocks(), run.store.claimed().count()), (19, 21));
    assert!(run.losses.is_empty() && fs::read(&path).unwrap() == world.image);
}

#[test]
fn a_run_that_ended_halfway_is_gone_on_with_where_it_was() {
    let world = World::new();
    let scratch = Scratch::new();
    let path = scratch.path().join("disk.img");
    let journal = scratch.path().join(".disk.img.imgcast-journal");
    for has_journal in [false, true] {
        let _ = fs::remove_file(&path);
        let mut first = world.begin(resume(&path, None), as_it_is);
        first.go(14);
        let had: BTreeSet<u32> = first.stored.iter().copied().collect();
        drop(first);
        assert!(!path.exists() && journal.exists());
        if !has_journal {
            fs::remove_file(&journal).unwrap();
        }
        let run = world.receive(resume(&path, None), as_it_is);
        assert!(run.losses.is_empty() && fs::read(&path).unwrap() == world.image);
        // The journal tells of what was flushed: of so little nothing was.
        let again = run.sent_blocks().into_iter().filter(|it| had.contains(it)).count();
        assert!(has_journal || again == 0, "{:?} of {had:?}", run.sent);
        assert_eq!(run.sent.len() + run.store.found_blocks() as usize, 21);
        drop(run);
        assert_eq!(scratch.names(), ["disk.img"]);
    }
}

#[test]
fn a_device_is_gone_on_with_and_its_ends_are_never_believed() {
    let test = "a_device_is_gone_on_with_and_its_ends_are_never_believed";
    let Some(device) = LoopDevice::attach(test, 2 << 20) else { return };
    let world = World::new();
    let open = || resume(device.path(), None);
    let is_zero = |octets: &[u8]| octets.iter().all(|octet| *octet == 0);
    let ends_are_zero = || {
        let contents = device.contents();
        is_zero(&contents[..BLOCK]) && is_zero(&contents[23 * BLOCK..world.image.len()])
    };
    let mut first = world.begin(open(), as_it_is);
    first.go(16);
    drop(first);
    assert!(ends_are_zero(), "it does not look whole");
    let mut second = world.begin(open(), as_it_is);
    second.go(23);
    assert!(second.sent.contains_key(&0), "an end is kept in memory only");
    let found_blocks = second.store.found_blocks();
    // Of 16 that were stored 3 are zero, and 2 were ends.
    assert!((11..=20).contains(&found_blocks), "{found_blocks}");
    drop(second);
    assert!(ends_are_zero());
    let third = world.receive(open(), as_it_is);
    assert!(third.store.overwrites());
    assert!(third.sent.contains_key(&0) && third.sent.contains_key(&23), "{:?}", third.sent);
    assert!(third.sent.len() <= 3, "{:?}", third.sent);
    assert!(device.contents()[..world.image.len()] == world.image[..]);
    drop(third);
    // It is there, and whole: nothing is to be done.
    let again = world.receive(open(), as_it_is);
    assert!(again.sent.is_empty(), "{:?}", again.sent);
    assert_eq!((again.store.found_blocks(), again.written), (21, Some(0)));
    assert!(!again.store.overwrites());
    assert!(device.contents()[..world.image.len()] == world.image[..]);
}

#[test]
fn nothing_is_written_to_a_device_before_its_ends_were_looked_at() {
    let test = "nothing_is_written_to_a_device_before_its_ends_were_looked_at";
    let Some(device) = LoopDevice::attach(test, 2 << 20) else { return };
    let world = World::new();
    for bent in [vec![8 * BLOCK], vec![3 * BLOCK], vec![3 * BLOCK, 8 * BLOCK, 22 * BLOCK]] {
        for _ in 0..5 {
            let mut old = world.image.clone();
            bent.iter().for_each(|at| old[*at] ^= 1);
            fs::write(device.path(), &old).unwrap();
            let run = world.receive(resume(device.path(), None), as_it_is);
            // Block 8 is zero, and made.
            let missing: Vec<u32> =
                [3, 22].into_iter().filter(|it| bent.contains(&(*it as usize * BLOCK))).collect();
            assert_eq!(run.sent_blocks(), missing, "{bent:?}");
            assert!(device.contents()[..world.image.len()] == world.image[..], "{bent:?}");
        }
    }
    // A journal that claims nothing: all else may come at once.
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    for _ in 0..5 {
        let mut old = world.image.clone();
        old[BLOCK..23 * BLOCK].fill(0xee);
        fs::write(device.path(), &old).unwrap();
        let mut journal = Journal::open(&path, "--journal", true).unwrap();
        journal.begin(world.index.image_id(), &world.layout);
        journal.note_searched();
        drop(journal);
        let run = world.receive(resume(device.path(), Some(path.clone())), as_it_is);
        assert_eq!(run.store.found_blocks(), 2);
        assert!(!run.sent.contains_key(&0) && !run.sent.contains_key(&23), "{:?}", run.sent);
        assert!(device.contents()[..world.image.len()] == world.image[..]);
    }
}

const BLOCK: usize = 65_536;
