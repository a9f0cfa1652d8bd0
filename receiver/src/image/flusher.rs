//! Has what was written on disk while the writing goes on, so that little is left for the end.
//!
//! It bounds what waits in the page cache: one window is being flushed, another one filled; who
//! fills it faster than the disk takes the other waits. fdatasync does it: sync_file_range would
//! start earlier, but says nothing of the disk's own cache. (Measured: space set aside by
//! fallocate makes all of it slower, not faster, because its extents have to be converted.)

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::rate::now;

/// A thread that flushes. Dropped, it ends after the flush that is under way.
#[derive(Debug)]
pub(super) struct Flusher {
    /// `None` only while it ends.
    windows: Option<SyncSender<u64>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl Flusher {
    /// Starts the thread. It tells `note` how long each flush of how many octets took.
    pub(super) fn start(
        file: File,
        note: impl FnMut(u64, Duration) + Send + 'static,
    ) -> io::Result<Self> {
        // Without room in the queue: whoever hands over a window waits for the one before it.
        let (windows, queue) = sync_channel(0);
        let failure = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&failure);
        let work = move || {
            if let Err(error) = flush_all(&file, &queue, note) {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        };
        let thread = thread::Builder::new().name("flush".into()).spawn(work)?;
        Ok(Self { windows: Some(windows), thread: Some(thread), failure })
    }

    /// Has everything flushed that is written by now, the last `octets` of it since the call
    /// before. Waits until the flush before is through, but not for this one.
    ///
    /// # Errors
    /// The first that any flush met: the kernel tells it once, and what it means is lost for good.
    pub(super) fn begin(&self, octets: u64) -> io::Result<()> {
        match &self.windows {
            Some(windows) if windows.send(octets).is_ok() => Ok(()),
            _ => Err(self.failure().unwrap_or_else(|| io::Error::other("flushing has failed"))),
        }
    }

    /// Waits for the flush that is under way.
    ///
    /// # Errors
    /// As of [`begin`](Self::begin).
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.end();
        self.failure().map_or(Ok(()), Err)
    }

    /// A copy: once a flush has failed, none is right any more.
    fn failure(&self) -> Option<io::Error> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|error| match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        })
    }

    fn end(&mut self) {
        self.windows = None;
        if let Some(thread) = self.thread.take() {
            // It calls nothing that panics, and what it could not flush the writer flushes again.
            let _ = thread.join();
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.end();
    }
}

fn flush_all(
    file: &File,
    windows: &Receiver<u64>,
    mut note: impl FnMut(u64, Duration),
) -> io::Result<()> {
    for octets in windows {
        let start = now();
        file.sync_data()?;
        note(octets, now().duration_since(start));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::image::testing::Scratch;

    #[test]
    fn every_window_is_flushed_and_told_once() {
        let scratch = Scratch::new();
        let file = File::create(scratch.path().join("file")).unwrap();
        let (notes, noted) = channel();
        let flusher = Flusher::start(file, move |octets, _| notes.send(octets).unwrap()).unwrap();
        for octets in [3, 1, 2] {
            flusher.begin(octets).unwrap();
        }
        flusher.finish().unwrap();
        assert_eq!(noted.iter().collect::<Vec<u64>>(), [3, 1, 2]);
    }

    #[test]
    fn a_flush_that_fails_is_told_by_the_next_or_by_the_end() {
        // A pipe cannot be flushed.
        let pipe = || File::from(std::os::fd::OwnedFd::from(io::pipe().unwrap().1));
        let unused = |_, _| panic!("nothing was flushed");
        let flusher = Flusher::start(pipe(), unused).unwrap();
        flusher.begin(1).unwrap();
        let error = flusher.finish().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EINVAL));

        let flusher = Flusher::start(pipe(), unused).unwrap();
        flusher.begin(1).unwrap();
        let error = flusher.begin(1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EINVAL));
        let error = flusher.begin(1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EINVAL), "and it stays so");
        assert_eq!(flusher.finish().unwrap_err().raw_os_error(), Some(nix::libc::EINVAL));
    }
}
