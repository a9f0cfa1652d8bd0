//! What a store looks for on its target, reads back, and has lost there.

use imgcast_common::bits::BitSet;
use imgcast_common::id::BlockId;

use super::{Progress, Store};
use crate::image::Writer;
use crate::image::search::Found;

impl Store {
    /// The blocks that are looked for on the target: of each is told whether it is there.
    #[must_use]
    pub const fn claimed(&self) -> &BitSet {
        self.hunt.claimed()
    }

    /// How many blocks were found on the target, or in the file that it replaces.
    #[must_use]
    pub const fn found_blocks(&self) -> u32 {
        self.hunt.found_blocks()
    }

    /// Whether it is certain that the target is written to: it may hold all of the image.
    #[must_use]
    pub fn overwrites(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::overwrites)
    }

    /// How many blocks have been read back and are right; `None` if that is not wanted.
    #[must_use]
    pub fn proved_blocks(&self) -> Option<u32> {
        self.writer.as_ref().and_then(Writer::proved_blocks)
    }

    pub(super) fn searched(&mut self, number: u32, found: Found) -> Progress {
        let Some(writer) = &self.writer else { return Progress::Absent(number) };
        let is_found = match found {
            Found::Nothing => {
                writer.lacks_something();
                false
            }
            Found::InPlace => {
                writer.find(number);
                true
            }
            Found::End(bytes) => {
                writer.hold(number, bytes);
                true
            }
            Found::Copy(bytes) => {
                writer.write(number, bytes);
                true
            }
        };
        self.hunt.note(number, is_found);
        self.go_ahead();
        if is_found {
            return Progress::Whole(BlockId::image(number));
        }
        self.end_search();
        Progress::Absent(number)
    }

    /// Once the ends of a device have been looked at, something else may be written.
    fn go_ahead(&mut self) {
        if let Some(writer) = self.writer.as_ref().filter(|_| !self.hunt.looks_at_ends()) {
            for (number, bytes) in self.waiting.drain(..) {
                writer.write(number, bytes);
            }
            self.zero_next();
        }
    }

    /// A block is out of the way, found or not.
    pub(super) fn search_on_after(&mut self, number: u32) {
        self.hunt.go_on_after(number);
        self.end_search();
    }

    fn end_search(&mut self) {
        if let Some(writer) = &self.writer
            && self.hunt.ends()
        {
            writer.end_search();
        }
    }

    pub(super) fn lose(&mut self, number: u32) {
        self.search_on_after(number);
        if self.index.as_ref().is_some_and(|index| index.zero().contains(number)) {
            self.is_zeroing = false;
            self.zero_runs.push_back(number..number + 1);
        }
    }
}
