//! The receiver's journal: a file beside the output that anything may have become of. What it
//! claims is a hint, but it has to be of this image, and nobody may stumble over it.
//!
//! One journal is written honestly; the input says which blocks it claims, and what becomes of the
//! file then.

use std::{cell::OnceCell, fs, path::PathBuf, process, thread};

use imgcast_common::{bits::BitSet, id::ImageId, layout::Layout};
use imgcast_receiver::image::Journal;

use super::input::Input;

thread_local! {
    static PLACE: OnceCell<Place> = const { OnceCell::new() };
}

/// A directory for the journal; gone with its thread.
struct Place(PathBuf);

pub(super) fn run(octets: &[u8]) {
    PLACE.with(|place| place.get_or_init(Place::new).check(&mut Input::new(octets)));
}

impl Place {
    fn new() -> Self {
        let unique = format!("imgcast-fuzz-journal-{}-{:?}", process::id(), thread::current().id());
        let directory = std::env::temp_dir().join(unique.replace(['(', ')'], ""));
        fs::create_dir_all(&directory).expect("a directory can be made");
        Self(directory)
    }

    fn check(&self, input: &mut Input<'_>) {
        let layout = Layout::new(u64::from(1 + input.below(200)) << 10, 10, 64);
        let layout = layout.unwrap_or_else(|| unreachable!("within all limits"));
        let _ = fs::remove_file(self.path());
        assert_eq!(self.claims(ImageId([1; 32]), &layout, &[]), None, "there was none");
        let mut honest = BitSet::new(layout.blocks());
        for _ in 0..input.u8() % 4 {
            let (first, run) = (input.below(layout.blocks()), 1 + input.u8() % 16);
            let end = (first + u32::from(run)).min(layout.blocks());
            let blocks: Vec<u32> = (first..end).collect();
            self.claims(ImageId([1; 32]), &layout, &blocks);
            for block in blocks {
                honest.insert(block);
            }
        }
        let written = fs::read(self.path()).expect("it can be read");
        let mut bent = written.clone();
        for _ in 0..input.u8() % 6 {
            let at = usize::from(input.u16()) % (bent.len() + 1);
            match input.u8() % 3 {
                0 => bent.truncate(at),
                1 => bent.splice(at..at, input.octets(12).iter().copied()).for_each(drop),
                _ => {
                    let new = input.octets(8);
                    let end = (at + new.len()).min(bent.len());
                    bent[at..end].copy_from_slice(&new[..end - at]);
                }
            }
        }
        fs::write(self.path(), &bent).expect("it can be written");
        let image = ImageId([1 + input.u8() % 2; 32]);
        // A file of something else is refused, and stays as it is.
        let Ok(mut journal) = Journal::open(&self.path(), "--journal", input.u8() == 255) else {
            return assert_eq!(fs::read(self.path()).ok(), Some(bent));
        };
        let claims = journal.begin(image, &layout);
        drop(journal);
        if image == ImageId([2; 32]) {
            assert_eq!(claims, None, "of another image");
        } else if bent == written && claims.is_some() {
            assert_eq!(claims, Some(honest), "what was appended is claimed");
        }
        if let Some(claims) = claims {
            assert_eq!(claims.len(), layout.blocks());
            assert_eq!(self.claims(image, &layout, &[]), Some(claims), "and again");
        }
    }

    /// What the journal claims at the beginning of a run, which then appends these blocks.
    fn claims(&self, image: ImageId, layout: &Layout, blocks: &[u32]) -> Option<BitSet> {
        let journal = Journal::open(&self.path(), "--journal", false);
        let mut journal = journal.expect("it is a journal, or none");
        let claims = journal.begin(image, layout);
        journal.note_searched();
        journal.append(blocks);
        claims
    }

    fn path(&self) -> PathBuf {
        self.0.join("journal")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
