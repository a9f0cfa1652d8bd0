//! Images to send: made when first asked for, the same in every run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use imgcast_tests::scratch::Scratch;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// What is in an image and where it lies.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Spec {
    pub(crate) mib: u64,
    /// So many MiB, spread evenly, do not compress; the others are zeroes, and holes of the file.
    pub(crate) data_mib: u64,
    pub(crate) on_disk: bool,
}

impl Spec {
    pub(crate) const fn random(mib: u64) -> Self {
        Self { mib, data_mib: mib, on_disk: false }
    }

    /// The like of it in another size.
    pub(crate) fn scaled_to(self, mib: u64) -> Self {
        Self { mib, data_mib: (mib * self.data_mib / self.mib).max(1), ..self }
    }
}

/// An image that is there.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) octets: u64,
    pub(crate) hash: blake3::Hash,
}

/// All images of a run of the table.
#[derive(Debug)]
pub(crate) struct Images {
    memory: Scratch,
    disk: Scratch,
    made: BTreeMap<Spec, Image>,
}

impl Images {
    /// None yet; they will be below `memory` and `disk`.
    pub(crate) fn new(memory: &Path, disk: &Path) -> Self {
        let (memory, disk) = (Scratch::below(memory), Scratch::below(disk));
        Self { memory, disk, made: BTreeMap::new() }
    }

    /// Makes what is not there yet.
    ///
    /// # Errors
    ///
    /// Which file cannot be written.
    pub(crate) fn get(&mut self, spec: Spec) -> Result<&Image, String> {
        if !self.made.contains_key(&spec) {
            let scratch = if spec.on_disk { &self.disk } else { &self.memory };
            let path = scratch.path(&format!("{}-of-{}-mib.img", spec.data_mib, spec.mib));
            let image = make(spec, path.clone()).map_err(|e| format!("{}: {e}", path.display()))?;
            self.made.insert(spec, image);
        }
        self.made.get(&spec).ok_or_else(|| "just made".to_owned())
    }

    /// Removes them all: the next row needs the room.
    pub(crate) fn clear(&mut self) {
        for (_, image) in std::mem::take(&mut self.made) {
            let _ = std::fs::remove_file(image.path);
        }
    }
}

/// Lets the kernel forget what it holds of a file that lies on a disk.
///
/// # Errors
///
/// If it cannot be opened or the kernel refuses.
pub(crate) fn drop_cached(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

/// The BLAKE3 hash of a file.
///
/// # Errors
///
/// If it cannot be read.
pub(crate) fn hash(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}

fn make(spec: Spec, path: PathBuf) -> io::Result<Image> {
    let mut data = blake3::Hasher::new().update(b"table image").finalize_xof();
    let mut file = File::create(&path)?;
    file.set_len(spec.mib << 20)?;
    let whole_before = |block: u64| block * spec.data_mib / spec.mib;
    for block in (0..spec.mib).filter(|block| whole_before(block + 1) > whole_before(*block)) {
        file.seek(SeekFrom::Start(block << 20))?;
        io::copy(&mut data.by_ref().take(1 << 20), &mut file)?;
    }
    file.sync_all()?;
    Ok(Image { octets: spec.mib << 20, hash: hash(&path)?, path })
}
