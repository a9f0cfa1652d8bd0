//! What a target loses once is told, and written again it is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use imgcast_common::layout::Layout;
use imgcast_common::prng::Prng;
use imgcast_common::tree::{BlockDigest, Index, IndexBuilder};

use super::{Writer, Written};
use crate::image::flaky::{Faults, Flaky};
use crate::image::medium::Medium;
use crate::image::order::{Keeping, Order};
use crate::image::testing::{LoopDevice, Scratch};
use crate::image::{Journal, Target};

/// An image whose block 2 is zero.
struct World {
    layout: Layout,
    image: Vec<u8>,
    index: Arc<Index>,
}

impl World {
    fn new(octets: u64, block_log2: u8) -> Self {
        let layout = Layout::new(octets, block_log2, 1408).unwrap();
        let mut image = vec![0; usize::try_from(octets).unwrap()];
        Prng::new(octets).fill(&mut image);
        let mut builder = IndexBuilder::new(layout.blocks());
        let zero = layout.block_range(2);
        let zero = usize::try_from(zero.start).unwrap()..usize::try_from(zero.end).unwrap();
        image[zero].fill(0);
        for (number, block) in (0..).zip(image.chunks(1 << block_log2)) {
            builder.insert(number, BlockDigest::of(&layout, number, block).unwrap());
        }
        Self { layout, image, index: Arc::new(builder.finish().unwrap()) }
    }

    /// Writes the image to a target that fails so, and whatever is lost once more, until it is
    /// whole. Returns what was lost, and why.
    fn write(&self, target: Target, faults: Faults, window_bytes: u64) -> Vec<(Vec<u32>, String)> {
        let read_back = Some(Arc::clone(&self.index));
        let medium = Box::new(Flaky::new(target, faults));
        medium.make_room(self.layout.bytes()).unwrap();
        let keeping = Keeping { read_back, ..Keeping::default() };
        let mut order = Order::new(self.layout, medium.is_device(), keeping);
        order.window_bytes = window_bytes;
        let (reports, written) = channel();
        let writer = Writer::start_in(order, medium, QUEUE_MAX, move |report| {
            let _ = reports.send(report);
        });
        let writer = writer.unwrap();
        let (mut stored, mut losses) = (BTreeSet::new(), Vec::new());
        (0..self.layout.blocks()).for_each(|number| self.give(&writer, number));
        for report in written {
            let blocks = match report {
                Written::Stored { number, .. } => number..number + 1,
                Written::Zeroed { blocks } => blocks,
                Written::Lost { blocks, error, .. } => {
                    for number in &blocks {
                        stored.remove(number);
                        self.give(&writer, *number);
                    }
                    losses.push((blocks, error.code().to_owned()));
                    continue;
                }
                Written::Flushed { .. } => return losses,
                Written::Failed(error) => panic!("{error}"),
            };
            for number in blocks {
                assert!(stored.insert(number), "{number} was told to be stored twice: {losses:?}");
            }
            if stored.len() == self.layout.blocks() as usize {
                writer.finish();
            }
        }
        panic!("it never ended: {losses:?}")
    }

    fn give(&self, writer: &Writer, number: u32) {
        if self.index.zero().contains(number) {
            return writer.zero(number..number + 1);
        }
        let range = self.layout.block_range(number);
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        writer.write(number, self.image[range].to_vec());
    }

    fn assert_holds(&self, path: &Path, fault: &str) {
        let holds = fs::read(path).unwrap();
        assert!(holds[..self.image.len()] == self.image[..], "{fault}");
    }
}

/// Every operation of a short transfer fails once, whichever it is.
fn each_fails_once(world: &World, mut target: impl FnMut() -> Target, path: &Path) {
    type Nth = fn(u32) -> Faults;
    let kinds: [(&str, Nth); 5] = [
        ("write", |write| Faults { write, ..Faults::default() }),
        ("write", |zero| Faults { zero, ..Faults::default() }),
        ("flush", |flush| Faults { flush, ..Faults::default() }),
        ("read-back", |read| Faults { read, ..Faults::default() }),
        ("read-back", |wrong_read| Faults { wrong_read, ..Faults::default() }),
    ];
    for (code, faults) in kinds {
        let mut failed = 0;
        for nth in 1.. {
            let losses = world.write(target(), faults(nth), 1 << 20);
            world.assert_holds(path, &format!("{code} {nth}"));
            let Some((blocks, reason)) = losses.first() else { break };
            assert!(losses.len() <= 2 && !blocks.is_empty(), "{code} {nth}: {losses:?}");
            assert_eq!(reason, code, "{nth}");
            failed += 1;
        }
        assert!(failed > 0, "no {code} failed");
    }
}

#[test]
fn whichever_operation_on_a_file_fails_once_what_it_lost_is_told_and_the_image_is_whole() {
    let scratch = Scratch::new();
    let path = scratch.path().join("disk.img");
    let world = World::new(4 * 65_536 + 1001, 16);
    let target = || {
        let _ = fs::remove_file(&path);
        Target::open(&path).unwrap()
    };
    each_fails_once(&world, target, &path);
    assert_eq!(scratch.names(), ["disk.img"]);
}

#[test]
fn whichever_operation_on_a_device_fails_once_what_it_lost_is_told_and_the_image_is_whole() {
    let test =
        "whichever_operation_on_a_device_fails_once_what_it_lost_is_told_and_the_image_is_whole";
    let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
    let world = World::new(4 * 65_536 + 1001, 16);
    each_fails_once(&world, || Target::open(device.path()).unwrap(), device.path());
}

#[test]
fn a_flush_on_the_way_that_fails_loses_what_it_was_to_flush_and_no_more() {
    let scratch = Scratch::new();
    let path = scratch.path().join("disk.img");
    let world = World::new(100 << 20, 20);
    let faults = Faults { flush: 1, ..Faults::default() };
    let losses = world.write(Target::open(&path).unwrap(), faults, 32 << 20);
    world.assert_holds(&path, "flush");
    assert!(losses.iter().all(|(_, code)| code == "flush"), "{losses:?}");
    // A window of 32 MiB, another one that was filled meanwhile, and what was being written.
    let lost: usize = losses.iter().map(|(blocks, _)| blocks.len()).sum();
    assert!((32..=66).contains(&lost), "{losses:?}");
}

#[test]
fn what_was_told_to_be_lost_is_not_told_to_be_stored_afterwards() {
    let scratch = Scratch::new();
    let path = scratch.path().join("disk.img");
    let world = World::new(40 * 1024, 10);
    let mut lost = 0;
    for nth in 0..500 {
        let _ = fs::remove_file(&path);
        // Each block is a window, and a flush that fails does so at once.
        let faults = Faults { flush: 1 + nth % 20, ..Faults::default() };
        let losses = world.write(Target::open(&path).unwrap(), faults, 1);
        world.assert_holds(&path, "flush");
        lost += losses.len();
    }
    assert!(lost >= 500, "{lost}");
}

#[test]
fn a_flush_of_nothing_is_not_made_and_cannot_fail() {
    let scratch = Scratch::new();
    let path = scratch.path().join("disk.img");
    let world = World::new(5 * 1024, 10);
    for flush in 1..=8 {
        let _ = fs::remove_file(&path);
        // Each block is flushed when it is written: at the end nothing is left to be.
        let faults = Faults { flush, ..Faults::default() };
        let losses = world.write(Target::open(&path).unwrap(), faults, 1);
        world.assert_holds(&path, "flush");
        assert!(losses.iter().all(|(blocks, _)| !blocks.is_empty()), "{flush}: {losses:?}");
    }
}

#[test]
fn where_a_search_ends_beside_a_flush_that_fails_what_was_lost_is_told_and_nothing_else_happens() {
    let scratch = Scratch::new();
    let (path, journal) = (scratch.path().join("disk.img"), scratch.path().join("journal"));
    let world = World::new(3 * 1024, 10);
    for _ in 0..200 {
        let _ = fs::remove_file(&path);
        let faults = Faults { flush: 1, ..Faults::default() };
        let medium = Box::new(Flaky::new(Target::open(&path).unwrap(), faults));
        medium.make_room(world.layout.bytes()).unwrap();
        let mut noted = Journal::open(&journal, "--journal", true).unwrap();
        noted.begin(world.index.image_id(), &world.layout);
        let keeping = Keeping { journal: Some(noted), ..Keeping::default() };
        let mut order = Order::new(world.layout, false, keeping);
        order.window_bytes = 1;
        let (reports, written) = channel();
        let writer = Writer::start_in(order, medium, QUEUE_MAX, move |report| {
            let _ = reports.send(report);
        });
        let writer = writer.unwrap();
        world.give(&writer, 0);
        writer.end_search();
        while !matches!(written.recv().unwrap(), Written::Lost { blocks, .. } if blocks == [0]) {}
        (0..3).for_each(|number| world.give(&writer, number));
        for _ in 0..3 {
            let report = written.recv().unwrap();
            let is_there = matches!(report, Written::Stored { .. } | Written::Zeroed { .. });
            assert!(is_there, "{report:?}");
        }
        writer.finish();
        let report = written.recv().unwrap();
        assert!(matches!(report, Written::Flushed { .. }), "{report:?}");
        world.assert_holds(&path, "flush");
    }
}

/// More than is ever given at a time.
const QUEUE_MAX: usize = 1000;
