//! The index of an image, from reading all of it once.
//!
//! Blocks are read and hashed by a few threads, each with room for one block, in the order in
//! which they lie. Holes are read like data: their hash depends on where they lie and costs more
//! than their reading, and what a file system calls a hole is not always one yet.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use imgcast_common::layout::Layout;
use imgcast_common::tree::{BlockDigest, Index, IndexBuilder};

use super::source::ImageSource;
use crate::error::Error;

/// Reads the image that is cut by `layout` and hashes its blocks on `threads` threads, at least
/// one. `progress` hears on this thread how many octets are done, in no even steps.
///
/// # Errors
/// [`Error::ImageRead`], [`Error::ImageChanged`] if the file is written to meanwhile,
/// [`Error::System`] if there are no threads to be had.
pub fn build_index(
    source: &ImageSource,
    layout: &Layout,
    threads: usize,
    mut progress: impl FnMut(u64),
) -> Result<Index, Error> {
    let mut builder = IndexBuilder::new(layout.blocks());
    let next = AtomicU32::new(0);
    thread::scope(|scope| {
        let (results, digests) = sync_channel(DIGESTS_WAITING_MAX);
        let mut workers = Vec::new();
        for number in 0..threads.max(1) {
            let (next, results) = (&next, results.clone());
            let worker = thread::Builder::new()
                .name(format!("index-{number}"))
                .spawn_scoped(scope, move || hash_blocks(source, layout, next, &results))
                .map_err(|source| Error::System { what: "threads to hash the image", source })?;
            workers.push(worker);
        }
        drop(results);
        let mut done_bytes = 0;
        for digest in digests {
            // On an error the channel goes, and with it the threads.
            let (number, digest) = digest?;
            builder.insert(number, digest);
            done_bytes += u64::from(layout.block_len(number));
            progress(done_bytes);
        }
        // Joined here, lest the scope repeats a worker's panic.
        if workers.into_iter().any(|worker| worker.join().is_err()) {
            return Err(internal("a thread panicked"));
        }
        Ok(())
    })?;
    if source.has_changed() {
        return Err(source.changed_at(source.bytes()));
    }
    builder.finish().ok_or_else(|| internal("a block is missing"))
}

/// Hashes the next block that nobody has taken, until there is none or nobody listens.
fn hash_blocks(
    source: &ImageSource,
    layout: &Layout,
    next: &AtomicU32,
    results: &SyncSender<Result<(u32, BlockDigest), Error>>,
) {
    let mut block = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= layout.blocks() {
            return;
        }
        block.resize(layout.block_len(number) as usize, 0);
        let digest = source.read_at(layout.block_range(number).start, &mut block).and_then(|()| {
            let digest = BlockDigest::of(layout, number, &block);
            Ok((number, digest.ok_or_else(|| internal("a block has no length"))?))
        });
        let is_last = digest.is_err();
        if results.send(digest).is_err() || is_last {
            return;
        }
    }
}

fn internal(reason: &str) -> Error {
    Error::Internal { task: "hash the image".to_owned(), reason: reason.to_owned() }
}

/// Digests that wait to be noted; they are small, and noting one takes no time.
const DIGESTS_WAITING_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::time::{Duration, UNIX_EPOCH};

    use imgcast_common::tree::index_hash;

    use super::*;
    use crate::image::testing::{TestDir, random_bytes};

    #[test]
    fn the_index_merges_to_the_hash_of_the_file_whatever_the_threads() {
        let dir = TestDir::new("indexer-equal");
        for len in [1, 1024, 5000, 64 << 10, (64 << 10) + 1] {
            let image = random_bytes(len as u64, len);
            let source = ImageSource::open(&dir.file("image", &image)).unwrap();
            let layout = Layout::new(source.bytes(), 12, 1408).unwrap();
            for threads in [0, 1, 3] {
                let mut done = Vec::new();
                let index = build_index(&source, &layout, threads, |now| done.push(now)).unwrap();
                assert_eq!(index.image_id().0, index_hash(&image), "{len} octets");
                assert!(done.is_sorted() && done.len() == layout.blocks() as usize);
                assert_eq!(done.last(), Some(&source.bytes()));
            }
        }
    }

    #[test]
    fn holes_and_zeroes_are_zero_blocks_alike() {
        let dir = TestDir::new("indexer-sparse");
        let path = dir.file("image", b"");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        // Blocks of 64 KiB: data, zeroes, holes, one octet, and a hole at the end.
        file.set_len((10 << 16) + 5).unwrap();
        file.write_all_at(&random_bytes(1, 1 << 16), 0).unwrap();
        file.write_all_at(&[0; 1 << 16], 1 << 16).unwrap();
        file.write_all_at(b"x", (7 << 16) + 99).unwrap();
        let source = ImageSource::open(&path).unwrap();
        let layout = Layout::new(source.bytes(), 16, 1408).unwrap();
        let index = build_index(&source, &layout, 2, |_| ()).unwrap();
        assert!(index.zero().iter().eq([1, 2, 3, 4, 5, 6, 8, 9, 10]));
        let zero = index.zero().iter().all(|number| index.verify_zero(&layout, number));
        assert!(zero);
        assert_eq!(index.image_id().0, index_hash(&std::fs::read(&path).unwrap()));
    }

    #[test]
    fn a_file_that_shrinks_or_is_written_to_meanwhile_is_refused() {
        let dir = TestDir::new("indexer-changed");
        let path = dir.file("image", &random_bytes(2, 100_000));
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let source = ImageSource::open(&path).unwrap();
        let layout = Layout::new(source.bytes(), 12, 1408).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        let error = build_index(&source, &layout, 2, |_| ()).unwrap_err();
        assert!(matches!(error, Error::ImageChanged { offset: 100_000, .. }), "{error}");
        file.set_len(50_000).unwrap();
        let error = build_index(&source, &layout, 2, |_| ()).unwrap_err();
        let Error::ImageTruncated { bytes_before, bytes_now, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((bytes_before, bytes_now), (100_000, 50_000));
    }
}
