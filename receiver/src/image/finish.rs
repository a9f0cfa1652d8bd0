//! The end of the [order](super::order) of writes: everything between the ends of a device is on
//! disk, and right if that is to be proved, before the ends are; and so are they, but for the
//! beginning of the first one, before that is written.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;

use super::books::Books;
use super::direct::Bounce;
use super::ends::End;
use super::medium::Medium;
use super::order::{Order, Output, reads_as_zero};
use super::writer::{Written, lock};
use crate::error::Error;

/// What came of the attempt to make an end.
#[derive(Debug)]
pub(super) enum Finish {
    /// All is on disk: so many octets were written. What is left is to commit it.
    Whole(u64),
    /// Something has to be fetched again.
    Lost(Written),
    /// That was said before, and not everything has come; or it is given up.
    NotYet,
}

impl Order {
    /// Has everything on disk, the ends of a device last, once nothing else is under way any more.
    /// Ends without a result when it is given up.
    pub(super) fn finish(&self, output: &Output, given_up: &AtomicBool) -> Result<Finish, Error> {
        output.flusher.wait();
        let medium = &*output.medium;
        let mut books = lock(&self.books);
        if !books.stored.is_full() {
            let missing = books.stored.len() - books.stored.count();
            if books.lost.len() == missing as usize {
                return Ok(Finish::NotYet);
            }
            let text = format!("the image was to be finished with {missing} blocks missing");
            return Err(Error::Internal { text });
        }
        let blocks = self.layout.blocks();
        let between = if self.is_device { 1..blocks.saturating_sub(1) } else { 0..blocks };
        let lost = match books.flush(medium)? {
            None => self.prove(&mut books, medium, between, given_up)?,
            lost => lost,
        };
        let lost = match lost {
            None if self.is_device => self.write_ends(&mut books, medium, given_up)?,
            lost => lost,
        };
        Ok(match lost {
            Some(lost) => Finish::Lost(lost),
            None if given_up.load(Ordering::Relaxed) => Finish::NotYet,
            None => Finish::Whole(books.written_bytes),
        })
    }

    /// Makes the ends of a device what they are to be; what does not get there is lost, and its
    /// octets with it.
    fn write_ends(
        &self,
        books: &mut Books,
        medium: &dyn Medium,
        given_up: &AtomicBool,
    ) -> Result<Option<Written>, Error> {
        if given_up.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if self.has_ends(books, medium) {
            return self.keep_ends(books, medium, given_up);
        }
        if let Err(error) = books.shield(medium, &self.layout) {
            let ends: Vec<u32> = books.ends.numbers().collect();
            ends.iter().for_each(|number| drop(books.ends.take(*number)));
            return books.lose_window_and(ends, None, error).map(Some);
        }
        let mut bounce = Bounce::default();
        let mut beginning = Vec::new();
        let mut last = 0;
        for number in books.ends.numbers() {
            last = last.max(number);
            match self.write_end(books, medium, number, &mut bounce) {
                Ok(bytes) => beginning = bytes,
                Err(error) => return books.lose_window_and(vec![number], None, error).map(Some),
            }
        }
        if let Some(lost) = books.flush(medium)? {
            return Ok(Some(lost));
        }
        // What makes a disk of it comes when all the rest is right.
        let lost = self.prove(books, medium, last.max(1)..last + 1, given_up)?;
        if lost.is_some() || given_up.load(Ordering::Relaxed) {
            if !beginning.is_empty() {
                books.ends.hold(0, beginning);
            }
            return Ok(lost);
        }
        beginning.truncate(self.beginning_octets);
        let begun = self.write_beginning(books, medium, &beginning, given_up);
        if !matches!(begun, Ok(None)) || given_up.load(Ordering::Relaxed) {
            // It may be on the disk all the same, which must not look whole.
            let hidden = medium.zero(0..beginning.len() as u64, true).map(|()| medium.flush());
            if !matches!(hidden, Ok(Ok(()))) {
                let path = medium.path().display();
                warn!("{path} may look like a whole disk: its beginning could not be zeroed again");
            }
        }
        begun
    }

    /// Whether the ends are there, and nothing was written to the device.
    fn has_ends(&self, books: &Books, medium: &dyn Medium) -> bool {
        let is_zero = |number| reads_as_zero(medium, self.layout.block_range(number), || true);
        self.may_be_whole() && books.ends.are_there(is_zero)
    }

    /// Leaves the ends as they are, flushed and right.
    fn keep_ends(
        &self,
        books: &mut Books,
        medium: &dyn Medium,
        given_up: &AtomicBool,
    ) -> Result<Option<Written>, Error> {
        // What an earlier run wrote there may be on its way to the disk only.
        let mut ends: Vec<u32> = books.ends.numbers().collect();
        books.window.blocks.append(&mut ends);
        if let Some(lost) = books.flush(medium)? {
            return Ok(Some(lost));
        }
        for number in books.ends.numbers() {
            if let Some(lost) = self.prove(books, medium, number..number + 1, given_up)? {
                return Ok(Some(lost));
            }
        }
        Ok(None)
    }

    /// Writes what makes a disk of it.
    fn write_beginning(
        &self,
        books: &mut Books,
        medium: &dyn Medium,
        beginning: &[u8],
        given_up: &AtomicBool,
    ) -> Result<Option<Written>, Error> {
        if !beginning.is_empty() {
            if let Err(error) = medium.write(beginning, 0, &mut Bounce::default()) {
                return books.lose(vec![0], None, error).map(Some);
            }
            books.note(0, beginning.len());
            books.window.blocks.push(0);
            if let Some(lost) = books.flush(medium)? {
                return Ok(Some(lost));
            }
        }
        self.prove(books, medium, 0..1, given_up)
    }

    /// Writes an end but for the beginning of the first one, which it returns with the rest.
    fn write_end(
        &self,
        books: &mut Books,
        medium: &dyn Medium,
        number: u32,
        bounce: &mut Bounce,
    ) -> Result<Vec<u8>, Error> {
        let range = self.layout.block_range(number);
        let bytes = match books.ends.take(number) {
            End::Missing => return Ok(Vec::new()),
            End::Zero => {
                let run = number..number + 1;
                let was_lost = books.losses.have_any_of(&run);
                books.window.zeroed.push(run);
                return medium.zero(range, was_lost).map(|()| Vec::new());
            }
            End::Held(bytes) | End::Found(bytes) => bytes,
        };
        let kept = if number == 0 { bytes.len().min(self.beginning_octets) } else { 0 };
        let offset = range.start + kept as u64;
        books.window.blocks.push(number);
        if bytes.len() > kept {
            books.note(offset, bytes.len() - kept);
            medium.write(&bytes[kept..], offset, bounce)?;
        }
        Ok(if number == 0 { bytes } else { Vec::new() })
    }

    /// Compares what the medium holds with the hashes, if that is wanted.
    fn prove(
        &self,
        books: &mut Books,
        medium: &dyn Medium,
        blocks: Range<u32>,
        given_up: &AtomicBool,
    ) -> Result<Option<Written>, Error> {
        let Some(index) = &self.read_back else { return Ok(None) };
        self.proved_blocks.store(books.proved.count(), Ordering::Relaxed);
        let mut bytes = Vec::new();
        let (mut wrong, mut first_error) = (Vec::new(), None);
        for number in blocks {
            if given_up.load(Ordering::Relaxed) {
                break;
            }
            if books.proved.contains(number) {
                continue;
            }
            bytes.resize(self.layout.block_len(number) as usize, 0);
            let offset = self.layout.block_range(number).start;
            let reason = match medium.read(&mut bytes, offset) {
                Ok(()) if index.verify(&self.layout, number, &bytes) => {
                    books.proved.insert(number);
                    self.proved_blocks.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Ok(()) => "the hash of the block is another".to_owned(),
                Err(error) => error.to_string(),
            };
            wrong.push(number);
            let path = medium.path().into();
            first_error.get_or_insert(Error::ReadBack { path, offset, reason });
        }
        let Some(error) = first_error else { return Ok(None) };
        books.lose(wrong, None, error).map(Some)
    }
}

/// Without it a disk has no partition table: the header of a GPT is in the second sector, and a
/// sector has up to 4096 octets.
pub(super) const BEGINNING_OCTETS: usize = 8192;
