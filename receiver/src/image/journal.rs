//! What an earlier run had on disk: a file of claims that are believed only as far as the blocks'
//! hashes bear them out.
//!
//! ```text
//!  0        16         48           56       60      64
//!  | magic  | image id | image size | log2 B | CRC-32 |   then, 12 octets each:
//!  | first block | run | CRC-32 over the header's CRC, first block and run |
//! ```
//!
//! All numbers are big-endian. A record is appended when its blocks are flushed, and not before;
//! nobody waits for the record itself to be on disk: what a power cut takes of it is fetched again.
//! Reading ends at the first record that is damaged. An empty run behind the last block says that
//! what the target held at first has been looked for: what is not claimed is not there. Without it
//! a journal says nothing. A journal that cannot be written is given up,
//! and the transfer goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use imgcast_common::bits::BitSet;
use imgcast_common::id::ImageId;
use imgcast_common::layout::Layout;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use tracing::warn;

use crate::error::Error;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Flock<File>,
    /// What an earlier run wrote, until this one begins.
    before: Vec<u8>,
    /// The CRC of the header, without which no record is valid.
    seed: u32,
    /// What it says by now.
    claimed: Option<BitSet>,
    is_searched: bool,
}

impl Journal {
    /// Opens the journal at `path`, or a new one; with `anew`, whatever it says counts for nothing.
    /// `option` is what the operator asked for it by.
    ///
    /// # Errors
    /// [`Error::Usage`] if the file is there and no journal, in use, or cannot be written.
    pub fn open(path: &Path, option: &'static str, anew: bool) -> Result<Self, Error> {
        let refused = |text: String| Error::Usage { option, text };
        let failed =
            |source: io::Error| refused(format!("cannot use {}: {source}", path.display()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(refused(format!("{} is no regular file", path.display())));
        }
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let mut file = locked.map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => refused(format!("{} is in use by another run", path.display())),
            errno => refused(format!("cannot lock {}: {errno}", path.display())),
        })?;
        let mut before = Vec::new();
        (&mut *file).take(OCTETS_MAX).read_to_end(&mut before).map_err(failed)?;
        if !before.is_empty() && !before.starts_with(&MAGIC[..before.len().min(MAGIC.len())]) {
            let text = format!("{} is a file of something else, not a journal", path.display());
            return Err(refused(text));
        }
        if anew {
            before.clear();
        }
        Ok(Self { path: path.into(), file, before, seed: 0, claimed: None, is_searched: false })
    }

    /// Begins to write for an image. Returns the blocks that the journal claims to be on disk;
    /// `None` if it says nothing of this image, or not everything: others may be there, too.
    pub fn begin(&mut self, image: ImageId, layout: &Layout) -> Option<BitSet> {
        let header = header(image, layout);
        let before = std::mem::take(&mut self.before);
        let claims = parse(&before, &header, layout.blocks());
        self.seed = crc32fast::hash(&header);
        let kept = claims.clone().unwrap_or_else(|| BitSet::new(layout.blocks()));
        let mut octets = header.to_vec();
        kept.runs().for_each(|(first, run)| octets.extend(record(self.seed, first, run)));
        self.is_searched = claims.is_some();
        if self.is_searched {
            octets.extend(record(self.seed, layout.blocks(), 0));
        }
        self.claimed = Some(kept);
        let file = &mut *self.file;
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(&octets));
        self.judge(written);
        claims
    }

    /// These blocks are on disk.
    pub fn append(&mut self, blocks: &[u32]) {
        let Some(claimed) = &mut self.claimed else { return };
        let mut new = BitSet::new(claimed.len());
        for block in blocks.iter().filter(|block| claimed.insert(**block)) {
            new.insert(*block);
        }
        let seed = self.seed;
        let records: Vec<u8> =
            new.runs().flat_map(|(first, run)| record(seed, first, run)).collect();
        let written = self.file.write_all(&records);
        self.judge(written);
    }

    /// Whatever is on disk of the image has been appended.
    pub fn note_searched(&mut self) {
        let Some(claimed) = self.claimed.as_ref().filter(|_| !self.is_searched) else { return };
        let written = self.file.write_all(&record(self.seed, claimed.len(), 0));
        self.is_searched = true;
        self.judge(written);
    }

    /// The image is whole and in its place: there is nothing to resume.
    pub fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "the journal cannot be removed");
        }
    }

    fn judge(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            warn!(path = %self.path.display(), %error, "no more journal is kept");
            self.claimed = None;
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let is_empty = self.file.metadata().is_ok_and(|it| it.is_file() && it.len() == 0);
        if is_empty {
            // A run that ended before it began leaves nothing behind.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The blocks that a journal claims; `None` if it is not of this image, or tells but a part.
fn parse(octets: &[u8], header: &[u8; HEADER_OCTETS], blocks: u32) -> Option<BitSet> {
    let records = octets.strip_prefix(header)?;
    let seed = crc32fast::hash(header);
    let (mut claims, mut is_searched) = (BitSet::new(blocks), false);
    for found in records.chunks_exact(RECORD_OCTETS) {
        let number = |at: usize| found.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let (Some(first), Some(run)) = (number(0), number(4)) else { break };
        let end = first.checked_add(run).filter(|end| *end <= blocks);
        let (Some(end), true) = (end, record(seed, first, run) == found) else { break };
        is_searched |= first == blocks;
        (first..end).for_each(|block| {
            claims.insert(block);
        });
    }
    is_searched.then_some(claims)
}

fn header(image: ImageId, layout: &Layout) -> [u8; HEADER_OCTETS] {
    let mut header = [0; HEADER_OCTETS];
    header[..16].copy_from_slice(MAGIC);
    header[16..48].copy_from_slice(&image.0);
    header[48..56].copy_from_slice(&layout.bytes().to_be_bytes());
    header[56..60].copy_from_slice(&u32::from(layout.block_log2()).to_be_bytes());
    let checksum = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&checksum.to_be_bytes());
    header
}

fn record(seed: u32, first: u32, run: u32) -> [u8; RECORD_OCTETS] {
    let mut octets = [0; RECORD_OCTETS];
    octets[..4].copy_from_slice(&first.to_be_bytes());
    octets[4..8].copy_from_slice(&run.to_be_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&seed.to_be_bytes());
    checksum.update(&octets[..8]);
    octets[8..].copy_from_slice(&checksum.finalize().to_be_bytes());
    octets
}

const MAGIC: &[u8; 16] = b"imgcast-journal\n";
const HEADER_OCTETS: usize = 64;
const RECORD_OCTETS: usize = 12;
/// A record for each block of the largest image is a fifth of this.
const OCTETS_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use imgcast_common::prng::Prng;

    use super::*;
    use crate::image::testing::Scratch;

    const IMAGE: ImageId = ImageId([7; 32]);

    fn layout() -> Layout {
        Layout::new(100 * 1024 - 7, 10, 64).unwrap()
    }

    fn open(path: &Path) -> Journal {
        Journal::open(path, "--journal", false).unwrap()
    }

    /// A journal of blocks 3, 4, 5, 9 and 50.
    fn written(path: &Path) {
        let mut journal = open(path);
        assert_eq!(journal.begin(IMAGE, &layout()), None);
        journal.note_searched();
        journal.append(&[4, 3, 9, 5]);
        journal.append(&[9, 50]);
    }

    fn claims(path: &Path, image: ImageId) -> Option<Vec<u32>> {
        let claims = open(path).begin(image, &layout());
        claims.map(|claims| claims.iter().collect())
    }

    #[test]
    fn what_was_appended_is_claimed_by_the_next_run_and_the_one_after() {
        let scratch = Scratch::new();
        let path = scratch.path().join("journal");
        written(&path);
        assert_eq!(fs::metadata(&path).unwrap().len(), 64 + 4 * 12, "a run is one record");
        for _ in 0..2 {
            assert_eq!(claims(&path, IMAGE), Some(vec![3, 4, 5, 9, 50]));
        }
        assert_eq!(claims(&path, ImageId([8; 32])), None, "of another image");
        assert_eq!(claims(&path, IMAGE), None, "and now it is that one's");
    }

    #[test]
    fn a_run_that_begins_anew_believes_nothing() {
        let scratch = Scratch::new();
        let path = scratch.path().join("journal");
        written(&path);
        let mut journal = Journal::open(&path, "--journal", true).unwrap();
        assert_eq!(journal.begin(IMAGE, &layout()), None);
    }

    #[test]
    fn before_the_search_is_over_a_journal_says_nothing() {
        let scratch = Scratch::new();
        let path = scratch.path().join("journal");
        let mut journal = open(&path);
        journal.begin(IMAGE, &layout());
        journal.append(&[1, 2]);
        drop(journal);
        assert_eq!(claims(&path, IMAGE), None, "others may be there as well");
        let mut journal = open(&path);
        journal.begin(IMAGE, &layout());
        journal.append(&[1, 2]);
        journal.note_searched();
        journal.note_searched();
        drop(journal);
        assert_eq!(fs::metadata(&path).unwrap().len(), 64 + 2 * 12);
        for _ in 0..2 {
            assert_eq!(claims(&path, IMAGE), Some(vec![1, 2]));
        }
    }

    #[test]
    fn damage_costs_claims_and_never_makes_one() {
        let scratch = Scratch::new();
        let path = scratch.path().join("journal");
        written(&path);
        let whole = fs::read(&path).unwrap();
        let header = header(IMAGE, &layout());
        let all = parse(&whole, &header, 100).unwrap();
        let mark = record(crc32fast::hash(&header), 100, 0);
        for len in 0..whole.len() {
            let claims = parse(&whole[..len], &header, 100);
            assert!(claims.is_none_or(|it| it.iter().all(|block| all.contains(block))), "{len}");
        }
        let mut prng = Prng::new(3);
        for _ in 0..20_000 {
            let mut bent = whole.clone();
            for _ in 0..=prng.below(3) {
                let at = usize::try_from(prng.below(bent.len() as u64)).unwrap();
                bent[at] ^= 1 << prng.below(8);
            }
            let claims = parse(&bent, &header, 100);
            assert!(claims.is_none_or(|it| it.iter().all(|block| all.contains(block))));
        }
        let beyond = [&header[..], &mark, &record(crc32fast::hash(&header), 99, 2)].concat();
        assert!(parse(&beyond, &header, 100).unwrap().is_empty());
        let beyond = [&header[..], &mark, &record(crc32fast::hash(&header), u32::MAX, 2)].concat();
        assert!(parse(&beyond, &header, 100).unwrap().is_empty());
    }

    #[test]
    fn a_file_of_something_else_a_device_and_a_journal_in_use_are_refused() {
        let scratch = Scratch::new();
        let path = scratch.path().join("precious");
        fs::write(&path, "precious").unwrap();
        let error = |path: &Path| {
            let refused = Journal::open(path, "--journal", false);
            refused.unwrap_err().to_string()
        };
        assert!(error(&path).contains("precious is a file of something else"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert!(error(Path::new("/dev/null")).contains("is no regular file"));
        assert!(error(&scratch.path().join("no/where")).contains("No such file"));
        let path = scratch.path().join("journal");
        let held = open(&path);
        assert!(error(&path).contains("in use by another run"));
        drop(held);
        assert_eq!(scratch.names(), ["precious"]);
    }

    #[test]
    fn a_journal_that_cannot_be_written_is_given_up() {
        let scratch = Scratch::new();
        let path = scratch.path().join("journal");
        let mut journal = open(&path);
        journal.begin(IMAGE, &layout());
        journal.note_searched();
        journal.append(&[1]);
        let reading = Flock::lock(File::open(&path).unwrap(), FlockArg::LockSharedNonblock);
        assert!(reading.is_err(), "it is locked");
        journal.file = Flock::lock(File::open("/dev/null").unwrap(), FlockArg::LockShared).unwrap();
        journal.append(&[2]);
        journal.append(&[3]);
        drop(journal);
        assert_eq!(claims(&path, IMAGE), Some(vec![1]));
    }
}
