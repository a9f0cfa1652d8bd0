//! The order of writes and the journal against a disk that loses power, fails and forgets.
//!
//! What was written and not flushed is kept or lost piece by piece when the power goes; a flush
//! that fails drops some of it for good and never says so again. An image that is reported as good
//! must be there all the same.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use imgcast_common::bits::BitSet;
use imgcast_common::layout::Layout;
use imgcast_common::prng::Prng;
use imgcast_common::tree::{BlockDigest, Index, IndexBuilder};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::direct::Bounce;
use super::finish::Finish;
use super::flusher::Flusher;
use super::journal::Journal;
use super::medium::{Flush, Medium};
use super::order::{Keeping, Order, Output};
use super::search::{Found, Hunt, Search};
use super::testing::Scratch;
use super::writer::{Written, lock};
use crate::error::Error;

/// A disk, and the same disk in the eyes of whoever writes to it.
#[derive(Clone, Debug)]
struct Disk {
    state: Arc<Mutex<State>>,
    is_device: bool,
}

#[derive(Debug)]
struct State {
    /// What survives.
    durable: Vec<u8>,
    /// What is read.
    seen: Vec<u8>,
    /// Pieces written since the last flush.
    unflushed: Vec<usize>,
    /// Operations until the power goes.
    operations_left: u64,
    /// Which flush from now on fails, whatever the others do; none with 0.
    failing_flush: u64,
    writes: u64,
    faults: Faults,
    prng: Prng,
}

/// What a disk does wrong, in parts of a million.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Faults {
    writes_fail: u32,
    flushes_fail: u32,
    /// It says that it has flushed.
    flushes_lie: u32,
    /// It writes something else.
    writes_bend: u32,
    reads_fail: u32,
    /// What a failed flush has dropped can be read for as long as there is power.
    shows_dropped: bool,
}

impl Disk {
    fn new(contents: Vec<u8>, is_device: bool, faults: Faults, seed: u64) -> Self {
        let state = State {
            seen: contents.clone(),
            durable: contents,
            unflushed: Vec::new(),
            operations_left: u64::MAX,
            failing_flush: 0,
            writes: 0,
            faults,
            prng: Prng::new(seed),
        };
        Self { state: Arc::new(Mutex::new(state)), is_device }
    }

    fn cut_power_after(&self, operations: u64) {
        lock(&self.state).operations_left = operations;
    }

    fn fail_flush(&self, number: u64) {
        lock(&self.state).failing_flush = number;
    }

    fn is_on(&self) -> bool {
        lock(&self.state).operations_left > 0
    }

    /// The power goes, and comes back: each piece that was not flushed is there or is not.
    fn cut_power(&self) -> Vec<u8> {
        let state = &mut *lock(&self.state);
        let odds = *[0, 100_000, 500_000, 900_000, 1_000_000]
            .get(usize::try_from(state.prng.below(5)).unwrap())
            .unwrap();
        for piece in std::mem::take(&mut state.unflushed) {
            if state.prng.chance(odds) {
                state.keep(piece);
            }
        }
        state.seen.clone_from(&state.durable);
        state.operations_left = u64::MAX;
        state.durable.clone()
    }

    /// The run is killed, and the power stays: what it wrote is there.
    fn kill(&self) -> Vec<u8> {
        let state = &mut *lock(&self.state);
        state.operations_left = u64::MAX;
        state.seen.clone()
    }

    /// A file of what is read.
    fn copy(&self) -> File {
        let file = File::from(memfd_create("disk", MFdFlags::MFD_CLOEXEC).unwrap());
        file.write_all_at(&lock(&self.state).seen, 0).unwrap();
        file
    }

    fn put(&self, offset: u64, octets: &[u8]) -> Result<(), Error> {
        let state = &mut *lock(&self.state);
        let error =
            |errno: Errno| Error::Write { path: "disk".into(), offset, source: errno.into() };
        state.operate().map_err(error)?;
        state.writes += 1;
        let fails = state.prng.chance(state.faults.writes_fail);
        let start = usize::try_from(offset).unwrap();
        for (at, piece) in (start..).step_by(PIECE).zip(octets.chunks(PIECE)) {
            if fails && state.prng.chance(500_000) {
                continue;
            }
            state.seen[at..at + piece.len()].copy_from_slice(piece);
            if state.prng.chance(state.faults.writes_bend / 16) {
                state.seen[at] ^= 1;
            }
            state.unflushed.push(at / PIECE);
        }
        if fails { Err(error(Errno::EIO)) } else { Ok(()) }
    }
}

impl State {
    fn operate(&mut self) -> Result<(), Errno> {
        self.operations_left = self.operations_left.saturating_sub(1);
        if self.operations_left == 0 { Err(Errno::EIO) } else { Ok(()) }
    }

    fn keep(&mut self, piece: usize) {
        let end = ((piece + 1) * PIECE).min(self.durable.len());
        let range = piece * PIECE..end;
        self.durable[range.clone()].copy_from_slice(&self.seen[range]);
    }
}

impl Medium for Disk {
    fn path(&self) -> &Path {
        Path::new("disk")
    }

    fn is_device(&self) -> bool {
        self.is_device
    }

    fn make_room(&self, _image_bytes: u64) -> Result<(), Error> {
        Ok(())
    }

    fn flusher(&self) -> io::Result<Flush> {
        let disk = self.clone();
        Ok(Box::new(move || disk.flush()))
    }

    fn write(&self, bytes: &[u8], offset: u64, _: &mut Bounce) -> Result<(), Error> {
        self.put(offset, bytes)
    }

    fn zero(&self, range: Range<u64>, _: bool) -> Result<(), Error> {
        self.put(range.start, &vec![0; usize::try_from(range.end - range.start).unwrap()])
    }

    fn flush(&self) -> io::Result<()> {
        let state = &mut *lock(&self.state);
        state.operate()?;
        let fails = state.prng.chance(state.faults.flushes_fail) || state.failing_flush == 1;
        state.failing_flush = state.failing_flush.saturating_sub(1);
        let lies = state.prng.chance(state.faults.flushes_lie);
        for piece in std::mem::take(&mut state.unflushed) {
            if (fails || lies) && state.prng.chance(500_000) {
                // Dropped, and never heard of again: a second flush finds nothing to do.
                continue;
            }
            state.keep(piece);
        }
        if !(fails && state.faults.shows_dropped) {
            state.seen.clone_from(&state.durable);
        }
        if fails { Err(Errno::EIO.into()) } else { Ok(()) }
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let state = &mut *lock(&self.state);
        state.operate()?;
        if state.prng.chance(state.faults.reads_fail) {
            return Err(Errno::EIO.into());
        }
        let start = usize::try_from(offset).unwrap();
        bytes.copy_from_slice(&state.seen[start..start + bytes.len()]);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// An image, and what was on the disk before.
struct World {
    layout: Layout,
    image: Vec<u8>,
    index: Arc<Index>,
    old: Vec<u8>,
    /// Octets of the first block that are written last.
    beginning: usize,
}

impl World {
    fn new(prng: &mut Prng) -> Self {
        let len = usize::try_from(BLOCKS * BLOCK - prng.below(BLOCK)).unwrap();
        let layout = Layout::new(len as u64, 10, 64).unwrap();
        let mut image = vec![0; len];
        prng.fill(&mut image);
        for number in 0..layout.blocks() {
            if prng.chance(150_000) {
                image[range(&layout, number)].fill(0);
            }
        }
        let mut builder = IndexBuilder::new(layout.blocks());
        for number in 0..layout.blocks() {
            let block = &image[range(&layout, number)];
            builder.insert(number, BlockDigest::of(&layout, number, block).unwrap());
        }
        let mut old = image.clone();
        // The image itself, one that has something in common with it, or something else.
        let changes = [0, 200_000, 1_000_000][usize::try_from(prng.below(3)).unwrap()];
        for number in 0..layout.blocks() {
            if prng.chance(changes) {
                prng.fill(&mut old[range(&layout, number)]);
            }
        }
        let beginning = if prng.chance(800_000) { 4 * PIECE } else { range(&layout, 0).end };
        Self { layout, image, index: Arc::new(builder.finish().unwrap()), old, beginning }
    }

    fn block(&self, number: u32) -> &[u8] {
        &self.image[range(&self.layout, number)]
    }

    /// Whether a device is what the order of writes may leave behind: the old one of which nothing
    /// is gone but parts of the first block, or of the last one when the first is zero; zeroes at
    /// both ends, and anything between them; or the new one that lacks parts of its ends, with a
    /// beginning only when the last block is whole, and in a first run the first block's rest.
    fn may_be_left(&self, durable: &[u8], is_first_run: bool) -> bool {
        let (first, last) = (range(&self.layout, 0), range(&self.layout, self.layout.blocks() - 1));
        let is_zero = |at: Range<usize>| durable[at].iter().all(|octet| *octet == 0);
        let is = |of: &[u8], at: Range<usize>| durable[at.clone()] == of[at];
        let is_partly = |of: &[u8], at: Range<usize>| {
            let mut pieces = at.step_by(PIECE).map(|start| start..(start + PIECE).min(of.len()));
            pieces.all(|piece| is(of, piece.clone()) || is_zero(piece))
        };
        let is_between = |of: &[u8]| {
            is(of, first.end..last.start)
                && is_partly(of, first.clone())
                && is_partly(of, last.clone())
        };
        if is_zero(first.clone()) && is_zero(last.clone()) {
            return true;
        }
        let rest = if is_first_run { self.beginning..first.end } else { last.clone() };
        is_between(&self.old) && (is_zero(first.clone()) || is(&self.old, last.clone()))
            || is_between(&self.image)
                && (is_zero(0..self.beginning)
                    || is(&self.image, last.clone()) && is(&self.image, rest))
    }
}

/// One run of a receiver.
struct Run<'a> {
    world: &'a World,
    disk: &'a Disk,
    order: Arc<Order>,
    output: Output,
    lost: Receiver<Result<Written, Error>>,
    missing: BTreeSet<u32>,
    counts: &'a mut Counts,
}

/// What has happened in all the runs, so that nobody proves something about nothing.
#[derive(Debug, Default)]
struct Counts {
    good: u32,
    false_goods: u32,
    cuts: u32,
    gave_up: u32,
    found: u32,
    false_claims: u32,
    lost: u32,
    read_back_lost: u32,
}

impl Counts {
    fn and(self, other: Self) -> Self {
        Self {
            good: self.good + other.good,
            false_goods: self.false_goods + other.false_goods,
            cuts: self.cuts + other.cuts,
            gave_up: self.gave_up + other.gave_up,
            found: self.found + other.found,
            false_claims: self.false_claims + other.false_claims,
            lost: self.lost + other.lost,
            read_back_lost: self.read_back_lost + other.read_back_lost,
        }
    }
}

impl<'a> Run<'a> {
    fn begin(
        world: &'a World,
        disk: &'a Disk,
        journal: Option<&Path>,
        reads_back: bool,
        counts: &'a mut Counts,
    ) -> (Self, Option<BitSet>) {
        let mut journal = journal.map(|path| Journal::open(path, "--journal", false).unwrap());
        let claims =
            journal.as_mut().and_then(|it| it.begin(world.index.image_id(), &world.layout));
        let read_back = reads_back.then(|| Arc::clone(&world.index));
        let keeping = Keeping { journal, read_back, may_be_whole: true };
        let mut order = Order::new(world.layout, disk.is_device, keeping);
        order.window_bytes = 2 * BLOCK;
        order.beginning_octets = world.beginning;
        let order = Arc::new(order);
        let (report, lost) = channel();
        let noting = Arc::clone(&order);
        let note = move |window, result, took| {
            if let Some(noted) = noting.note_flush(Path::new("disk"), window, result, took) {
                report.send(noted).unwrap();
            }
        };
        let (flushing, mut flush) = (Arc::clone(&order), disk.flusher().unwrap());
        let flusher = Flusher::start(move || flushing.flush_by(&mut flush), note).unwrap();
        let output = Output { flusher, medium: Box::new(disk.clone()) };
        let missing = (0..world.layout.blocks()).collect();
        (Self { world, disk, order, output, lost, missing, counts }, claims)
    }

    /// Whether the image is reported as good; an error for a disk that is given up, or has no
    /// power.
    fn go(mut self, claims: Option<BitSet>, prng: &mut Prng) -> Result<(), ()> {
        self.look(claims, prng)?;
        self.write_all(prng)
    }

    /// Writes what is missing, until it is all there.
    fn write_all(mut self, prng: &mut Prng) -> Result<(), ()> {
        loop {
            while !self.missing.is_empty() {
                self.write_one(&BTreeSet::new(), prng)?;
            }
            let finished = self.order.finish(&self.output, &AtomicBool::new(false));
            match finished.map_err(|_| ())? {
                Finish::Whole(written) => {
                    self.order.commit(self.output, written).map_err(|_| ())?;
                    return if self.disk.is_on() { Ok(()) } else { Err(()) };
                }
                Finish::Lost(lost) => self.note(Ok(lost))?,
                Finish::NotYet => self.hear()?,
            }
            if self.missing.is_empty() {
                thread::yield_now();
            }
        }
    }

    /// Writes any block that is missing and not looked for any more.
    fn write_one(&mut self, claimed: &BTreeSet<u32>, prng: &mut Prng) -> Result<(), ()> {
        self.hear()?;
        let numbers: Vec<u32> = self.missing.difference(claimed).copied().collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let number = numbers[usize::try_from(prng.below(numbers.len() as u64)).unwrap()];
        self.missing.remove(&number);
        let written = if self.world.index.zero().contains(number) {
            self.order.zero(&self.output, number..number + 1)
        } else {
            let bytes = self.world.block(number).to_vec();
            self.order.write(&self.output, number, bytes, &mut Bounce::default())
        };
        self.note(written)
    }

    /// Has found this block to be there, as a search does that read it before.
    fn find(&mut self, number: u32) -> Result<(), ()> {
        self.missing.remove(&number);
        let is_end = number == 0 || number + 1 == self.world.layout.blocks();
        let written = if self.world.index.zero().contains(number) {
            self.order.zero(&self.output, number..number + 1)
        } else if is_end {
            self.order.hold(&self.output, number, self.world.block(number).to_vec(), true)
        } else {
            Ok(self.order.find(number))
        };
        self.note(written)
    }

    /// Looks for what is claimed, as the store does it: when the ends of a device have been looked
    /// at, others are written meanwhile.
    fn look(&mut self, claims: Option<BitSet>, prng: &mut Prng) -> Result<(), ()> {
        let (layout, index) = (self.world.layout, Arc::clone(&self.world.index));
        let has_journal = claims.is_some();
        let seen = self.disk.copy();
        let is_device = self.disk.is_device;
        let search = Search::new((Some(&seen), None), claims, &layout, index.zero(), is_device);
        let Some(search) = search else {
            return self.order.end_search(&self.output).map_err(|_| ());
        };
        let (tell, told) = channel();
        let deliver = move |number, found| drop(tell.send((number, found)));
        let mut hunt = Hunt::begin(search, layout, index, deliver).map_err(|_| ())?;
        let mut claimed: BTreeSet<u32> = hunt.claimed().iter().collect();
        while !claimed.is_empty() {
            if !hunt.looks_at_ends() && prng.chance(300_000) {
                self.write_one(&claimed, prng)?;
            }
            let (number, found) = told.recv().unwrap();
            claimed.remove(&number);
            let written = match found {
                Found::Nothing => {
                    // No journal claims the ends of a device.
                    let is_end = is_device && (number == 0 || number + 1 == layout.blocks());
                    self.counts.false_claims += u32::from(has_journal && !is_end);
                    self.order.lacks_something();
                    hunt.note(number, false);
                    continue;
                }
                Found::InPlace => Ok(self.order.find(number)),
                Found::End(bytes) => self.order.hold(&self.output, number, bytes, true),
                Found::Copy(bytes) => {
                    self.order.write(&self.output, number, bytes, &mut Bounce::default())
                }
            };
            hunt.note(number, true);
            self.counts.found += 1;
            self.missing.remove(&number);
            self.note(written)?;
            hunt.go_on_after(number);
        }
        assert!(hunt.ends() && !hunt.ends(), "once");
        self.order.end_search(&self.output).map_err(|_| ())
    }

    /// Takes in what the thread that flushes has said.
    fn hear(&mut self) -> Result<(), ()> {
        while let Ok(noted) = self.lost.try_recv() {
            self.note(noted)?;
        }
        if self.disk.is_on() { Ok(()) } else { Err(()) }
    }

    fn note(&mut self, written: Result<Written, Error>) -> Result<(), ()> {
        if let Written::Lost { blocks, error, .. } = written.map_err(|_| ())? {
            // What fails for want of power says nothing about the disk.
            let counts = u32::from(self.disk.is_on());
            self.counts.lost += counts;
            self.counts.read_back_lost += counts * u32::from(error.code() == "read-back");
            self.missing.extend(blocks);
        }
        Ok(())
    }
}

/// Transfers to disks that lose power up to three times, each time resumed; says what came of it.
fn transfers(cuts: u32, faults: Faults, reads_back: bool) -> Counts {
    thread::scope(|scope| {
        let some = |part| move || some_transfers(part, cuts / PARTS, faults, reads_back);
        let parts: Vec<_> = (0..PARTS).map(|part| scope.spawn(some(part))).collect();
        let counts = parts.into_iter().map(|part| part.join().unwrap());
        counts.reduce(Counts::and).unwrap()
    })
}

fn some_transfers(part: u32, cuts: u32, faults: Faults, reads_back: bool) -> Counts {
    let mut counts = Counts::default();
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    for seed in (u64::from(part)..).step_by(PARTS as usize) {
        if counts.cuts >= cuts {
            break;
        }
        let mut prng = Prng::new(seed);
        let world = World::new(&mut prng);
        let is_device = prng.chance(700_000);
        let disk = Disk::new(world.old.clone(), is_device, faults, prng.bits());
        let journal = prng.chance(700_000).then_some(&*path);
        let _ = fs::remove_file(&path);
        for run in 0..4 {
            if run < 3 {
                disk.cut_power_after(1 + prng.below(60));
            }
            let (begun, claims) = Run::begin(&world, &disk, journal, reads_back, &mut counts);
            let ended = begun.go(claims, &mut prng);
            let is_cut = !disk.is_on();
            let durable = disk.cut_power();
            counts.cuts += u32::from(is_cut);
            counts.gave_up += u32::from(ended.is_err() && !is_cut);
            // Who lies about a flush cannot be helped in this.
            let is_honest = is_device && faults.flushes_lie == 0;
            let is_first = run == 0 && faults == Faults::default();
            let is_allowed = !is_honest || world.may_be_left(&durable, is_first);
            assert!(is_allowed, "seed {seed}, run {run}");
            if ended.is_ok() {
                counts.good += 1;
                counts.false_goods += u32::from(durable != world.image);
                break;
            }
            hurt_journal(&path, &mut prng);
        }
    }
    counts
}

/// What a power cut may leave of a file that nobody flushed.
fn hurt_journal(path: &Path, prng: &mut Prng) {
    let Ok(mut octets) = fs::read(path) else { return };
    if octets.is_empty() || prng.chance(400_000) {
        return;
    }
    let at = usize::try_from(prng.below(octets.len() as u64)).unwrap();
    match prng.below(3) {
        0 => octets.truncate(at),
        1 => octets[at..].fill(0),
        _ => octets[at] ^= 0x10,
    }
    // The magic word is all that tells it from a file of somebody's.
    if octets.len() < 16 || at >= 16 {
        fs::write(path, octets).unwrap();
    }
}

fn range(layout: &Layout, number: u32) -> Range<usize> {
    let range = layout.block_range(number);
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// Nothing smaller is written as a whole.
const PIECE: usize = 64;
const BLOCK: u64 = 1024;
const BLOCKS: u64 = 12;
/// Threads: they spend their time on waiting for each other's threads.
const PARTS: u32 = 4;

#[test]
fn ten_thousand_power_cuts_and_no_image_is_reported_good_that_is_not() {
    let faults = Faults { writes_fail: 10_000, flushes_fail: 30_000, ..Faults::default() };
    let counts = transfers(10_000, faults, false);
    assert_eq!(counts.false_goods, 0, "{counts:?}");
    // And most were finished, after all that.
    assert!(counts.good > 3_000 && counts.good > 10 * counts.gave_up, "{counts:?}");
    assert!(counts.found > 10_000 && counts.lost > 1_000, "{counts:?}");
}

#[test]
fn a_journal_never_claims_what_no_power_cut_could_take() {
    // Without a flush that fails, all that the journal claims was flushed.
    let counts = transfers(1_000, Faults::default(), false);
    assert_eq!((counts.false_goods, counts.false_claims, counts.gave_up), (0, 0, 0), "{counts:?}");
    assert!(counts.found > 1_000, "{counts:?}");
}

#[test]
fn a_device_that_has_all_of_the_image_is_not_written_to_whenever_the_power_goes() {
    let (mut cuts, mut zero_ends) = (0, 0);
    for seed in 0..500 {
        let mut prng = Prng::new(seed);
        let mut world = World::new(&mut prng);
        world.old.clone_from(&world.image);
        let zero = world.index.zero();
        zero_ends += u32::from(zero.contains(0) || zero.contains(world.layout.blocks() - 1));
        let disk = Disk::new(world.old.clone(), true, Faults::default(), seed);
        let mut counts = Counts::default();
        for run in 0..3 {
            if run < 2 {
                disk.cut_power_after(1 + prng.below(8));
            }
            let reads_back = prng.chance(500_000);
            let (begun, claims) = Run::begin(&world, &disk, None, reads_back, &mut counts);
            let is_done = begun.go(claims, &mut prng).is_ok();
            cuts += u32::from(!is_done);
            assert!(is_done || run < 2, "seed {seed}");
            assert!(disk.cut_power() == world.image, "seed {seed}, run {run}");
        }
        assert_eq!(lock(&disk.state).writes, 0, "seed {seed}");
    }
    assert!(cuts > 100 && zero_ends > 100, "{cuts} cuts, {zero_ends} with ends of zeroes");
}

#[test]
fn what_a_failed_flush_may_have_dropped_is_written_again_though_the_disk_shows_it() {
    let (mut lost, mut zero_blocks) = (0, 0);
    for seed in 0..500 {
        let mut prng = Prng::new(seed);
        let mut world = World::new(&mut prng);
        prng.fill(&mut world.old);
        let faults = Faults { shows_dropped: true, ..Faults::default() };
        let disk = Disk::new(world.old.clone(), true, faults, seed);
        // An earlier run has written all of it, and was killed before that was flushed.
        disk.put(0, &world.image).unwrap();
        disk.fail_flush(1 + prng.below(3));
        let mut counts = Counts::default();
        let (run, claims) = Run::begin(&world, &disk, None, false, &mut counts);
        run.go(claims, &mut prng).unwrap();
        assert!(disk.cut_power() == world.image, "seed {seed}");
        lost += counts.lost;
        zero_blocks += world.index.zero().count();
    }
    assert!(lost >= 300 && zero_blocks > 500, "{lost} lost, {zero_blocks} zero");
}

#[test]
fn a_device_of_which_one_end_was_zeroed_before_that_failed_is_not_taken_for_whole() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    let mut halves = 0;
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let mut world = World::new(&mut prng);
        world.old.clone_from(&world.image);
        let disk = Disk::new(world.old.clone(), true, Faults::default(), seed);
        let mut counts = Counts::default();
        let _ = fs::remove_file(&path);
        let (mut run, _) = Run::begin(&world, &disk, Some(&path), false, &mut counts);
        let (first, last) = (0, world.layout.blocks() - 1);
        let is_killed = prng.chance(500_000);
        let found_late =
            if is_killed { last + 1 } else { [first, last][usize::from(seed % 2 == 0)] };
        for number in (0..=last).filter(|number| *number != found_late) {
            run.find(number).unwrap();
        }
        if is_killed {
            run.order.end_search(&run.output).unwrap();
            run.output.flusher.wait();
        }
        // One comes once more, as others lack it, and is the first to be written.
        disk.fail_flush(1 + prng.below(2));
        let number = 1 + u32::try_from(prng.below(u64::from(last) - 1)).unwrap();
        let bytes = world.block(number).to_vec();
        let written = run.order.write(&run.output, number, bytes, &mut Bounce::default());
        assert!(matches!(written, Ok(Written::Lost { .. })), "seed {seed}: {written:?}");
        let left = disk.kill();
        let is_gone = |end: u32| left[range(&world.layout, end)] != *world.block(end);
        halves += u32::from(is_gone(first) != is_gone(last));
        if is_killed {
            drop(run);
            let (run, claims) = Run::begin(&world, &disk, Some(&path), false, &mut counts);
            assert!(claims.is_some(), "seed {seed}");
            run.go(claims, &mut prng).unwrap();
        } else {
            // All of it was there when it was looked for.
            (0..=last).for_each(|number| run.find(number).unwrap());
            run.write_all(&mut prng).unwrap();
        }
        assert!(disk.cut_power() == world.image, "seed {seed}");
    }
    assert!(halves > 100, "{halves}");
}

#[test]
fn a_run_that_was_killed_fetches_two_windows_again_at_most() {
    let scratch = Scratch::new();
    let path = scratch.path().join("journal");
    let mut most = 0;
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut world = World::new(&mut prng);
        prng.fill(&mut world.old);
        let disk = Disk::new(world.old.clone(), prng.chance(500_000), Faults::default(), seed);
        let mut counts = Counts::default();
        disk.cut_power_after(1 + prng.below(25));
        let (run, claims) = Run::begin(&world, &disk, Some(&path), false, &mut counts);
        let is_done = run.go(claims, &mut prng).is_ok();
        let left = disk.kill();
        if is_done {
            continue;
        }
        let is_right = |number: &u32| left[range(&world.layout, *number)] == *world.block(*number);
        let sent = (0..world.layout.blocks()).filter(|it| !world.index.zero().contains(*it));
        let right = u32::try_from(sent.filter(is_right).count()).unwrap();
        counts.found = 0;
        let (run, claims) = Run::begin(&world, &disk, Some(&path), false, &mut counts);
        run.go(claims, &mut prng).unwrap();
        let again = right - counts.found;
        // Windows of two blocks, and the block that was being written.
        assert!(again <= 2 * 2 + 1, "seed {seed}: {again} of {right}");
        assert!(disk.cut_power() == world.image, "seed {seed}");
        most = most.max(counts.found);
    }
    assert!(most >= 6, "some were killed late: {most}");
}

#[test]
fn a_disk_that_lies_is_found_out_by_reading_back_and_only_so() {
    let faults = Faults { flushes_lie: 50_000, writes_bend: 10_000, ..Faults::default() };
    let counts = transfers(1_000, faults, false);
    assert!(counts.false_goods > 20, "the faults are there: {counts:?}");
    let counts = transfers(1_000, faults, true);
    assert_eq!(counts.false_goods, 0, "{counts:?}");
    assert!(counts.read_back_lost > 100 && counts.good > 300, "{counts:?}");
}

#[test]
fn what_cannot_be_read_back_is_fetched_again() {
    let faults = Faults { reads_fail: 10_000, ..Faults::default() };
    let counts = transfers(1_000, faults, true);
    assert_eq!(counts.false_goods, 0, "{counts:?}");
    assert!(counts.read_back_lost > 100 && counts.lost == counts.read_back_lost, "{counts:?}");
    assert!(counts.good > 300 && counts.gave_up == 0, "{counts:?}");
}
