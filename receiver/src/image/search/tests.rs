//! What is found where, and how far ahead of the disk.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use imgcast_common::prng::Prng;
use imgcast_common::tree::{BlockDigest, IndexBuilder};

use super::*;
use crate::image::testing::Scratch;

/// An image of 40 blocks of 1 KiB, the last one odd, of which 5 and 6 are zero.
struct World {
    layout: Layout,
    image: Vec<u8>,
    index: Arc<Index>,
    scratch: Scratch,
}

impl World {
    fn new() -> Self {
        let mut image = vec![0; 40 * 1024 - 7];
        let layout = Layout::new(image.len() as u64, 10, 64).unwrap();
        Prng::new(11).fill(&mut image);
        image[5 * 1024..7 * 1024].fill(0);
        let mut builder = IndexBuilder::new(layout.blocks());
        for (number, block) in (0..).zip(image.chunks(1024)) {
            builder.insert(number, BlockDigest::of(&layout, number, block).unwrap());
        }
        let index = Arc::new(builder.finish().unwrap());
        Self { layout, image, index, scratch: Scratch::new() }
    }

    fn file(&self, name: &str, octets: &[u8]) -> File {
        let path = self.scratch.path().join(name);
        fs::write(&path, octets).unwrap();
        open(&path)
    }

    /// The image with other blocks in the place of these.
    fn without(&self, blocks: &[usize]) -> Vec<u8> {
        let mut octets = self.image.clone();
        blocks.iter().for_each(|block| octets[block * 1024 + 3] ^= 1);
        octets
    }

    fn search(
        &self,
        target: Option<&File>,
        old: Option<&File>,
        claims: Option<BitSet>,
    ) -> Option<Search> {
        Search::new((target, old), claims, &self.layout, self.index.zero(), false)
    }

    /// Where it is on a device.
    fn search_device(&self, target: &File, claims: Option<BitSet>) -> Option<Search> {
        Search::new((Some(target), None), claims, &self.layout, self.index.zero(), true)
    }

    fn find(&self, search: &mut Search, number: u32) -> &'static str {
        let start = usize::try_from(self.layout.block_range(number).start).unwrap();
        let (found, bytes) = match search.find(&self.layout, &self.index, number) {
            Found::Nothing => return "nothing",
            Found::InPlace => return "in place",
            Found::End(bytes) => ("end", bytes),
            Found::Copy(bytes) => ("copy", bytes),
        };
        assert!(bytes == self.image[start..start + bytes.len()], "{number}");
        assert_eq!(bytes.len(), self.layout.block_len(number) as usize);
        found
    }
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn claims(blocks: &[u32]) -> BitSet {
    let mut claims = BitSet::new(40);
    blocks.iter().for_each(|block| assert!(claims.insert(*block)));
    claims
}

#[test]
fn what_the_target_holds_stays_and_what_only_the_old_file_holds_is_copied() {
    let world = World::new();
    let target = world.file("target", &world.without(&[1, 2, 39]));
    let old = world.file("old", &world.without(&[0, 2]));
    let mut search = world.search(Some(&target), Some(&old), None).unwrap();
    assert_eq!(search.blocks.count(), 38, "zero blocks are made, not looked for");
    for (number, found) in
        [(0, "in place"), (1, "copy"), (2, "nothing"), (39, "copy"), (3, "in place")]
    {
        assert_eq!(world.find(&mut search, number), found, "{number}");
    }
}

#[test]
fn the_ends_of_a_device_are_looked_at_first_whoever_claims_them_and_kept() {
    let world = World::new();
    let target = world.file("target", &world.without(&[1, 39]));
    let mut search = world.search_device(&target, None).unwrap();
    let (ends, turns) = search.in_turn();
    assert_eq!((ends, &turns[..4], turns.len()), (2, &[0, 39, 1, 2][..], 38));
    for (number, found) in [(0, "end"), (39, "nothing"), (1, "nothing"), (38, "in place")] {
        assert_eq!(world.find(&mut search, number), found, "{number}");
    }
    let mut search = world.search_device(&target, Some(claims(&[3, 4]))).unwrap();
    assert_eq!(search.in_turn(), (2, vec![0, 39, 3, 4]));
    assert_eq!(world.find(&mut search, 0), "end");
    let layout = Layout::new(1000, 10, 64).unwrap();
    let only = Search::new((Some(&target), None), None, &layout, &BitSet::new(1), true).unwrap();
    assert_eq!(only.in_turn(), (1, vec![0]), "of one block both ends are the same");
    assert_eq!(world.search(Some(&target), None, None).unwrap().in_turn().0, 0, "of a file");
}

#[test]
fn claims_say_where_to_look_and_not_what_is_there() {
    let world = World::new();
    let target = world.file("target", &world.without(&[4]));
    let mut search = world.search(Some(&target), None, Some(claims(&[3, 4, 5]))).unwrap();
    assert!(search.blocks.iter().eq([3, 4]), "{:?}", search.blocks);
    assert_eq!(world.find(&mut search, 3), "in place");
    assert_eq!(world.find(&mut search, 4), "nothing", "the hash is another");
    assert_eq!(world.find(&mut search, 7), "nothing", "nobody claims it");
    // What is not claimed may be in the old file all the same.
    let old = world.file("old", &world.without(&[]));
    let mut search = world.search(Some(&target), Some(&old), Some(claims(&[3, 4]))).unwrap();
    assert_eq!(search.blocks.count(), 38);
    assert_eq!(world.find(&mut search, 4), "copy");
    assert_eq!(world.find(&mut search, 7), "copy");
}

#[test]
fn where_nothing_can_be_there_nothing_is_looked_for() {
    let world = World::new();
    let target = world.file("target", &world.image);
    assert!(world.search(None, None, None).is_none());
    assert!(world.search(None, None, Some(claims(&[3]))).is_none());
    assert!(world.search(Some(&target), None, Some(claims(&[]))).is_none());
    assert!(world.search(Some(&target), None, Some(claims(&[5, 6]))).is_none(), "zero blocks");
}

#[test]
fn what_cannot_be_read_is_not_there() {
    let world = World::new();
    let target = world.file("target", &world.image[..10 * 1024 + 9]);
    let mut search = world.search(Some(&target), None, None).unwrap();
    assert_eq!(world.find(&mut search, 9), "in place");
    for number in [10, 11, 39] {
        assert_eq!(world.find(&mut search, number), "nothing");
    }
}

#[test]
fn what_the_medium_has_counts_when_it_is_read_and_not_before() {
    let world = World::new();
    let target = world.file("target", &world.without(&[8]));
    let mut search = world.search(Some(&target), None, None).unwrap();
    target.write_all_at(&world.image[8 * 1024..9 * 1024], 8 * 1024).unwrap();
    target.write_all_at(&[0; 1024], 9 * 1024).unwrap();
    assert_eq!(world.find(&mut search, 8), "in place");
    assert_eq!(world.find(&mut search, 9), "nothing");
}

#[test]
fn no_more_is_found_ahead_than_waits_for_the_disk() {
    let world = World::new();
    // Blocks 10 … 19 are not there: nobody waits for them.
    let target = world.file("target", &world.without(&(10..20).collect::<Vec<_>>()));
    let search = world.search_device(&target, None).unwrap();
    let (tell, told) = channel();
    let deliver = move |number, found| drop(tell.send((number, found)));
    let index = Arc::clone(&world.index);
    let mut hunt = Hunt::begin(search, world.layout, index, deliver).unwrap();
    assert_eq!((hunt.claimed().count(), hunt.found_blocks()), (38, 0));
    let (mut waiting, mut told_blocks) = (BTreeSet::new(), 0);
    while told_blocks < 38 {
        let message = if waiting.len() < FOUND_MAX {
            Some(told.recv().unwrap())
        } else {
            // Nothing is granted for what was not found; and there is time to run ahead.
            hunt.go_on_after(12);
            thread::sleep(Duration::from_millis(2));
            told.try_recv().ok()
        };
        let Some((number, found)) = message else {
            hunt.go_on_after(waiting.pop_first().unwrap());
            continue;
        };
        assert!(!hunt.ends(), "{told_blocks} of 38");
        assert_eq!(hunt.looks_at_ends(), told_blocks < 2, "{told_blocks} of 38");
        told_blocks += 1;
        let is_found = !(10..20).contains(&number);
        let is_end = number == 0 || number == 39;
        match found {
            Found::Nothing => assert!(!is_found, "{number}"),
            Found::InPlace => assert!(is_found && !is_end, "{number}"),
            Found::End(_) => assert!(is_found && is_end, "{number}"),
            Found::Copy(_) => panic!("{number} is there"),
        }
        hunt.note(number, is_found);
        if is_found {
            waiting.insert(number);
        }
        assert!(waiting.len() <= FOUND_MAX, "{waiting:?} are under way");
    }
    assert_eq!(hunt.found_blocks(), 28);
    while let Some(number) = waiting.pop_first() {
        assert!(!hunt.ends(), "what was found is not out of the way");
        hunt.go_on_after(number);
    }
    assert!(hunt.ends() && !hunt.ends(), "once");
    assert!(told.recv().is_err(), "each is told once");
}

#[test]
fn a_hunt_that_nobody_goes_on_with_ends_when_it_is_dropped() {
    let world = World::new();
    let target = world.file("target", &world.image);
    let search = world.search(Some(&target), None, None).unwrap();
    let (tell, told) = channel();
    let deliver = move |number, _| {
        let _ = tell.send(number);
    };
    let index = Arc::clone(&world.index);
    let hunt = Hunt::begin(search, world.layout, index, deliver).unwrap();
    assert_eq!(told.recv(), Ok(0));
    drop(hunt);
    assert!(told.iter().count() < FOUND_MAX);
}
