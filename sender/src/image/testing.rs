//! Directories, images and indexes for the tests of this room.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use imgcast_common::prng::Prng;

/// A directory of one test, gone with it.
pub(super) struct TestDir(PathBuf);

impl TestDir {
    /// `name` must be no other test's.
    pub(super) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("imgcast-sender-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file with these contents.
    pub(super) fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Octets that are not zero and that depend on `seed`.
pub(super) fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Prng::new(seed).fill(&mut bytes);
    bytes
}
