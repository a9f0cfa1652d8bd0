//! Indexes of images that were sent before, so that sending one again begins at once.
//!
//! Decides whether a file is still the one whose index is known: by device, inode, length and
//! times. That is a hint; every block that is sent is hashed against the index all the same, and
//! [`IndexCache::remove`] forgets an index that proved wrong. Nothing here can fail a transfer:
//! what cannot be read, written or believed is absent.
//!
//! ```text
//! magic 8 | version 4 | device 8 | inode 8 | length 8 | modified 16 | changed 16 | log2 B 1
//! index   | BLAKE3 of all before 32                              big-endian, as on the wire
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{env, process};

use imgcast_common::layout::Layout;
use imgcast_common::tree::{Index, index_hash};
use tracing::debug;

use super::source::ImageSource;

/// A directory of indexes, or none.
#[derive(Clone, Debug)]
pub struct IndexCache {
    directory: Option<PathBuf>,
}

impl IndexCache {
    /// The cache of whoever runs the program: `imgcast` in `$XDG_CACHE_HOME`, or in `~/.cache`
    /// where that is not set. Without a home, as in an initramfs, nothing is ever remembered.
    #[must_use]
    pub fn of_user() -> Self {
        let directory = directory(|name| env::var_os(name).map(PathBuf::from));
        if directory.is_none() {
            debug!("neither XDG_CACHE_HOME nor HOME is set: indexes are not remembered");
        }
        Self { directory }
    }

    /// The cache in `directory`, which need not exist yet.
    #[must_use]
    pub const fn at(directory: PathBuf) -> Self {
        Self { directory: Some(directory) }
    }

    /// The index of the image as it is cut by `layout`, if it is known.
    #[must_use]
    pub fn load(&self, source: &ImageSource, layout: &Layout) -> Option<Index> {
        let entry = self.entry(source, layout)?;
        match entry.read(layout) {
            Ok(Some(index)) => Some(index),
            Ok(None) => {
                debug!(path = %entry.path.display(), "the remembered index is not usable");
                None
            }
            Err(error) => {
                debug!(path = %entry.path.display(), %error, "no index is remembered");
                None
            }
        }
    }

    /// Remembers the index of the image as it is cut by `layout`.
    pub fn store(&self, source: &ImageSource, layout: &Layout, index: &Index) {
        let Some(entry) = self.entry(source, layout) else { return };
        match entry.write(index) {
            Ok(()) => entry.remove_oldest(),
            Err(error) => {
                debug!(path = %entry.path.display(), %error, "the index is not remembered");
            }
        }
    }

    /// Forgets the index of the image: a block was not what it says.
    pub fn remove(&self, source: &ImageSource, layout: &Layout) {
        if let Some(entry) = self.entry(source, layout) {
            let removed = fs::remove_file(&entry.path);
            debug!(path = %entry.path.display(), ?removed, "the remembered index is forgotten");
        }
    }

    fn entry(&self, source: &ImageSource, layout: &Layout) -> Option<Entry<'_>> {
        let directory = self.directory.as_deref()?;
        let head = head(source, layout)?;
        let name: String = index_hash(&head).iter().map(|octet| format!("{octet:02x}")).collect();
        let path = directory.join(format!("{name}.{EXTENSION}"));
        Some(Entry { directory, path, head })
    }
}

/// Where the index of one image would lie, and what its file begins with.
struct Entry<'a> {
    directory: &'a Path,
    path: PathBuf,
    head: Vec<u8>,
}

impl Entry<'_> {
    /// `None` for a file that is torn, another image's or of another version.
    fn read(&self, layout: &Layout) -> io::Result<Option<Index>> {
        let file = File::open(&self.path)?;
        let expected = self.head.len() as u64 + layout.of_index().bytes() + HASH_LEN as u64;
        if file.metadata()?.len() != expected {
            return Ok(None);
        }
        let mut contents = Vec::new();
        file.take(expected).read_to_end(&mut contents)?;
        Ok(self.parse(&contents, layout))
    }

    fn parse(&self, contents: &[u8], layout: &Layout) -> Option<Index> {
        let (contents, hash) = contents.split_last_chunk::<HASH_LEN>()?;
        let index = contents.strip_prefix(self.head.as_slice())?;
        if index_hash(contents) != *hash {
            return None;
        }
        Index::parse(index, layout.blocks())
    }

    /// Writes all of it elsewhere before it gets its name.
    fn write(&self, index: &Index) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.directory)?;
        let contents = [self.head.as_slice(), &index.to_bytes()].concat();
        let temporary = self.path.with_extension(format!("{}.{EXTENSION}", process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&temporary).and_then(|mut file| {
            file.write_all(&contents)?;
            file.write_all(&index_hash(&contents))
        });
        let named = written.and_then(|()| fs::rename(&temporary, &self.path));
        if named.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        named
    }

    /// Keeps the number of files within bounds, also of those that a crash left half written. The
    /// one just written stays, whatever the clock says.
    fn remove_oldest(&self) {
        let Ok(files) = fs::read_dir(self.directory) else { return };
        let mut others: Vec<_> = files
            .filter_map(|file| file.ok().map(|file| file.path()))
            .filter(|path| path.extension().is_some_and(|found| found == EXTENSION))
            .filter(|path| *path != self.path)
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        others.sort_unstable();
        let surplus = (others.len() + 1).saturating_sub(ENTRIES_MAX);
        for (_, path) in &others[..surplus] {
            let removed = fs::remove_file(path);
            debug!(path = %path.display(), ?removed, "the oldest remembered index is forgotten");
        }
    }
}

/// What the file of an image's index begins with, up to the index; `None` if none may be kept.
fn head(source: &ImageSource, layout: &Layout) -> Option<Vec<u8>> {
    let identity = source.identity()?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_be_bytes());
    for number in [identity.device, identity.inode, identity.bytes] {
        head.extend_from_slice(&number.to_be_bytes());
    }
    for time in [identity.modified_ns, identity.changed_ns] {
        head.extend_from_slice(&time.to_be_bytes());
    }
    head.push(layout.block_log2());
    Some(head)
}

/// The cache directory in this environment. The XDG Base Directory Specification has relative
/// paths ignored.
fn directory(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("imgcast"))
}

/// What no other program's files begin with.
const MAGIC: &[u8; 8] = b"imgcidx\n";

/// To be raised when the file or the index changes its form.
const VERSION: u32 = 1;

/// Octets in a BLAKE3 hash.
const HASH_LEN: usize = 32;

/// What names of index files end with; nothing else in the directory is touched.
const EXTENSION: &str = "index";

/// Enough for all images of a site; about 200 MiB if each of them has 100 GiB, and usually a
/// hundredth of that.
const ENTRIES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::image::build_index;
    use crate::image::testing::{TestDir, random_bytes};

    const SIZE: usize = 50_000;

    fn layout(block_log2: u8) -> Layout {
        Layout::new(SIZE as u64, block_log2, 1408).unwrap()
    }

    /// An image with its index in a cache of its own.
    fn remembered(dir: &TestDir) -> (IndexCache, ImageSource, Index) {
        let cache = IndexCache::at(dir.path().join("deep/imgcast"));
        let source = ImageSource::open(&dir.file("image", &random_bytes(3, SIZE))).unwrap();
        let index = build_index(&source, &layout(12), 2, |_| ()).unwrap();
        assert!(cache.load(&source, &layout(12)).is_none());
        cache.store(&source, &layout(12), &index);
        (cache, source, index)
    }

    fn files(cache: &IndexCache) -> Vec<PathBuf> {
        let files = fs::read_dir(cache.directory.as_ref().unwrap()).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    }

    #[test]
    fn an_index_is_remembered_for_its_image_and_block_size_alone() {
        let dir = TestDir::new("cache-hit");
        let (cache, source, index) = remembered(&dir);
        assert_eq!(cache.load(&source, &layout(12)), Some(index.clone()));
        let again = ImageSource::open(source.path()).unwrap();
        assert_eq!(cache.load(&again, &layout(12)), Some(index));
        assert_eq!(cache.load(&source, &layout(13)), None);
        let copy = ImageSource::open(&dir.file("copy", &random_bytes(3, SIZE))).unwrap();
        assert_eq!(cache.load(&copy, &layout(12)), None);
        assert_eq!(files(&cache).len(), 1, "no temporary file is left");
        cache.remove(&source, &layout(12));
        assert_eq!(cache.load(&source, &layout(12)), None);
        assert!(files(&cache).is_empty());
    }

    #[test]
    fn a_file_that_was_written_to_is_another_image_even_with_its_old_date() {
        let dir = TestDir::new("cache-changed");
        let (cache, source, index) = remembered(&dir);
        let file = OpenOptions::new().write(true).open(source.path()).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified + Duration::from_secs(1)).unwrap();
        let now = ImageSource::open(source.path()).unwrap();
        assert_eq!(cache.load(&now, &layout(12)), None);
        assert_eq!(cache.load(&source, &layout(12)), Some(index), "the key is as of the opening");
        assert_ne!(head(&now, &layout(12)), head(&source, &layout(12)));
    }

    #[test]
    fn a_torn_foreign_or_bent_file_is_absent() {
        let dir = TestDir::new("cache-torn");
        let (cache, source, index) = remembered(&dir);
        let path = files(&cache).remove(0);
        let good = fs::read(&path).unwrap();
        for len in [0, 1, 8, 69, good.len() - 33, good.len() - 1] {
            fs::write(&path, &good[..len]).unwrap();
            assert_eq!(cache.load(&source, &layout(12)), None, "{len} octets");
        }
        fs::write(&path, [good.as_slice(), &[0]].concat()).unwrap();
        assert_eq!(cache.load(&source, &layout(12)), None);
        for position in [0, 11, 12, 20, 28, 68, 69, 100, good.len() - 33, good.len() - 1] {
            let mut bent = good.clone();
            bent[position] ^= 1;
            fs::write(&path, &bent).unwrap();
            assert_eq!(cache.load(&source, &layout(12)), None, "octet {position}");
        }
        // The next version, with a hash that holds.
        let mut next = good[..good.len() - HASH_LEN].to_vec();
        next[11] += 1;
        next.extend_from_slice(&index_hash(&next));
        fs::write(&path, &next).unwrap();
        assert_eq!(cache.load(&source, &layout(12)), None);
        fs::write(&path, &good).unwrap();
        assert_eq!(cache.load(&source, &layout(12)), Some(index));
    }

    #[test]
    fn only_so_many_indexes_are_kept_and_the_oldest_go() {
        let dir = TestDir::new("cache-bound");
        let (cache, source, index) = remembered(&dir);
        let directory = cache.directory.clone().unwrap();
        for age in 0..70 {
            let file = File::create(directory.join(format!("{age}.index"))).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1000 - age)).unwrap();
        }
        fs::write(directory.join("somebody-else"), b"").unwrap();
        cache.store(&source, &layout(12), &index);
        assert_eq!(files(&cache).len(), ENTRIES_MAX + 1);
        assert!(directory.join("somebody-else").exists());
        assert!(directory.join("62.index").exists() && !directory.join("63.index").exists());
        assert_eq!(cache.load(&source, &layout(12)), Some(index));
    }

    #[test]
    fn without_a_place_to_keep_it_nothing_is_remembered_and_nothing_fails() {
        let dir = TestDir::new("cache-none");
        let source = ImageSource::open(&dir.file("image", &random_bytes(3, SIZE))).unwrap();
        let index = build_index(&source, &layout(12), 1, |_| ()).unwrap();
        let in_a_file = IndexCache::at(source.path().join("imgcast"));
        for cache in [IndexCache { directory: None }, in_a_file] {
            cache.store(&source, &layout(12), &index);
            assert_eq!(cache.load(&source, &layout(12)), None);
            cache.remove(&source, &layout(12));
        }
    }

    #[test]
    fn the_directory_is_the_users_and_never_relative() {
        let of = |cache: &'static str, home: &'static str| {
            directory(|name| match name {
                "XDG_CACHE_HOME" => Some(cache.into()),
                "HOME" => Some(home.into()),
                _ => None,
            })
        };
        assert_eq!(of("/var/cache", "/root"), Some("/var/cache/imgcast".into()));
        assert_eq!(of("", "/root"), Some("/root/.cache/imgcast".into()));
        assert_eq!(of("cache", "/root"), Some("/root/.cache/imgcast".into()));
        assert_eq!(of("", ""), None);
        assert_eq!(directory(|_| None), None);
    }
}
