//! Has what was written on disk while the writing goes on, so that little is left for the end.
//!
//! It bounds what waits in the page cache: one window is being flushed, another one filled; who
//! fills it faster than the disk takes the other waits. fdatasync does it: sync_file_range would
//! start earlier, but says nothing of the disk's own cache. (Measured: space set aside by
//! fallocate makes all of it slower, not faster, because its extents have to be converted.)
//!
//! A flush that failed is never tried again: the kernel tells it once, and what it means is lost.
//! Whoever is told has to have those blocks written anew.

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::rate::now;

/// What was written between the beginnings of two flushes.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Octets, without the zeroed ones.
    pub(super) octets: u64,
    /// The blocks that were written …
    pub(super) blocks: Vec<u32>,
    /// … and those that were made zero.
    pub(super) zeroed: Vec<Range<u32>>,
    /// Whether nothing that the target held from before is left to be found.
    pub(super) ends_search: bool,
    /// Flushes that had failed when it was handed over.
    pub(super) failed_flushes: u64,
}

impl Window {
    /// Whether nothing was written.
    pub(super) const fn is_empty(&self) -> bool {
        self.octets == 0 && self.blocks.is_empty() && self.zeroed.is_empty()
    }
}

/// A thread that flushes. Dropped, it ends after the flush that is under way.
#[derive(Debug)]
pub(super) struct Flusher {
    /// `None` only while it ends.
    tasks: Option<SyncSender<Task>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Task {
    Flush(Window),
    Answer(SyncSender<()>),
}

impl Flusher {
    /// Starts the thread. It flushes by `flush`, and tells `note` of each window how that ended and
    /// how long it took.
    pub(super) fn start(
        flush: impl FnMut() -> io::Result<()> + Send + 'static,
        note: impl FnMut(Window, io::Result<()>, Duration) + Send + 'static,
    ) -> io::Result<Self> {
        // Without room in the queue: whoever hands over a window waits for the one before it.
        let (tasks, queue) = sync_channel(0);
        let work = move || flush_all(flush, &queue, note);
        let thread = thread::Builder::new().name("flush".into()).spawn(work)?;
        Ok(Self { tasks: Some(tasks), thread: Some(thread) })
    }

    /// Has everything flushed that is written by now, this window of it since the call before.
    /// Waits until the flush before is through, but not for this one. Whether the thread is there
    /// at all.
    pub(super) fn begin(&self, window: Window) -> bool {
        self.tasks.as_ref().is_some_and(|tasks| tasks.send(Task::Flush(window)).is_ok())
    }

    /// Waits until the flush that is under way is through, and noted.
    pub(super) fn wait(&self) {
        let (answer, answered) = sync_channel(1);
        if let Some(tasks) = &self.tasks
            && tasks.send(Task::Answer(answer)).is_ok()
        {
            let _ = answered.recv();
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // Whether it panicked makes no difference any more.
            let _ = thread.join();
        }
    }
}

fn flush_all(
    mut flush: impl FnMut() -> io::Result<()>,
    tasks: &Receiver<Task>,
    mut note: impl FnMut(Window, io::Result<()>, Duration),
) {
    for task in tasks {
        match task {
            Task::Flush(window) => {
                let start = now();
                // A flush of nothing proves nothing, and what its failure meant nobody could mend.
                let result = if window.is_empty() { Ok(()) } else { flush() };
                note(window, result, now().duration_since(start));
            }
            // Nobody waits any more, or there is room for one answer.
            Task::Answer(answer) => drop(answer.try_send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn window(octets: u64) -> Window {
        Window { octets, ..Window::default() }
    }

    #[test]
    fn every_window_is_flushed_once_and_told_with_how_it_ended() {
        let (notes, noted) = channel();
        let mut flushes = 0;
        let flush = move || {
            flushes += 1;
            assert!(flushes <= 3, "there are three to flush");
            if flushes == 2 { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        };
        let note = move |window: Window, result: io::Result<()>, _| {
            notes.send((window.octets, result.map_err(|error| error.raw_os_error()))).unwrap();
        };
        let flusher = Flusher::start(flush, note).unwrap();
        for octets in [3, 1, 2] {
            assert!(flusher.begin(window(octets)));
        }
        flusher.wait();
        let told: Vec<_> = noted.try_iter().collect();
        assert_eq!(told, [(3, Ok(())), (1, Err(Some(5))), (2, Ok(()))], "no second try");
        // Nothing is to be flushed: it is only passed on.
        assert!(flusher.begin(Window { ends_search: true, ..Window::default() }));
        drop(flusher);
        assert_eq!(noted.recv(), Ok((0, Ok(()))));
        assert!(noted.recv().is_err());
    }

    #[test]
    fn a_thread_that_died_is_not_waited_for() {
        let flusher = Flusher::start(|| panic!("planned panic"), |_, _, _| ()).unwrap();
        flusher.begin(window(1));
        flusher.wait();
        assert!(!flusher.begin(window(1)));
    }
}
