//! The sender's index cache: a file in the user's home that anything may have become of.
//!
//! One index is remembered honestly; the input says what becomes of its file, and whether the hash
//! at its end is made right again.

use std::{cell::OnceCell, fs, path::PathBuf, process, thread};

use imgcast_common::{layout::Layout, tree::index_hash};
use imgcast_sender::image::{ImageSource, IndexCache, build_index};

use super::input::Input;

thread_local! {
    static PLACE: OnceCell<Place> = const { OnceCell::new() };
}

/// A directory with an image and the cache of its index; gone with its thread.
struct Place {
    directory: PathBuf,
    source: ImageSource,
    cache: IndexCache,
    layout: Layout,
    entry: PathBuf,
    honest: Vec<u8>,
}

pub(super) fn run(octets: &[u8]) {
    PLACE.with(|place| place.get_or_init(Place::new).check(&mut Input::new(octets)));
}

impl Place {
    fn new() -> Self {
        let unique = format!("imgcast-fuzz-{}-{:?}", process::id(), thread::current().id());
        let directory = std::env::temp_dir().join(unique.replace(['(', ')'], ""));
        fs::create_dir_all(directory.join("cache")).expect("a directory can be made");
        let image = directory.join("image");
        let octets: Vec<u8> =
            (0..IMAGE_OCTETS).map(|at| (at / 1024 % 5).to_le_bytes()[0]).collect();
        fs::write(&image, &octets).expect("an image can be written");
        let source = ImageSource::open(&image).expect("it can be read");
        let layout = Layout::new(source.bytes(), 10, 64).expect("a layout");
        let cache = IndexCache::at(directory.join("cache"));
        let index = build_index(&source, &layout, 1, |_| ()).expect("it can be hashed");
        cache.store(&source, &layout, &index);
        let files = fs::read_dir(directory.join("cache")).expect("it is there");
        let entry = files.flatten().map(|file| file.path()).next().expect("one index is kept");
        let honest = fs::read(&entry).expect("it can be read");
        Self { directory, source, cache, layout, entry, honest }
    }

    fn check(&self, input: &mut Input<'_>) {
        let mut contents = self.honest.clone();
        let is_signed = input.chance();
        for _ in 0..input.u8() % 8 {
            let at = usize::from(input.u16()) % (contents.len() + 1);
            match input.u8() % 4 {
                0 => contents.truncate(at),
                1 => contents.splice(at..at, input.octets(8).iter().copied()).for_each(drop),
                2 => contents.splice(..at, []).for_each(drop),
                _ => {
                    let new = input.octets(8);
                    let end = (at + new.len()).min(contents.len());
                    contents[at..end].copy_from_slice(&new[..end - at]);
                }
            }
        }
        if is_signed && let Some((covered, hash)) = contents.split_last_chunk_mut::<32>() {
            *hash = index_hash(covered);
        }
        fs::write(&self.entry, &contents).expect("it can be written");
        let loaded = self.cache.load(&self.source, &self.layout);
        if contents == self.honest {
            assert!(loaded.is_some(), "what was stored is found again");
        }
        if let Some(index) = loaded {
            assert_eq!(index.blocks(), self.layout.blocks());
            let honest_head = self.honest.len() - 32 - index.to_bytes().len();
            assert_eq!(contents[..honest_head], self.honest[..honest_head], "of this very image");
            assert!(is_signed || contents == self.honest, "a bent file is not believed");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Nineteen blocks: a bitmap of three octets, five bits of it unused.
const IMAGE_OCTETS: u32 = 19 * 1024 - 5;
