//! Puts verified blocks where they belong, on one thread behind a bounded queue.
//!
//! It owns the order of writes: a disk that is half written must never boot nor be mistaken for
//! the old one. On a device the first block, which holds the partition table, is written last:
//!
//! ```text
//! zeroes over block 0 | flush | blocks 1 ... n-1 in any order | flush | block 0 | flush
//! ```
//!
//! (A backup GPT at the end of the disk is of no use to anybody without the protective MBR in
//! block 0.) A file gets its name last and needs none of this. Which blocks are written, and
//! whether they are right, is decided before. An error is final: what a failed fsync has dropped
//! from the page cache, a second one does not bring back.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use imgcast_common::bits::BitSet;
use imgcast_common::layout::Layout;

use super::rate::DrainRate;
use super::target::Target;
use crate::error::Error;

/// The writing thread, as its employer sees it. Dropped before [`Written::Flushed`] was
/// delivered, it gives up what is queued, and a file goes away.
#[derive(Debug)]
pub struct Writer {
    /// `None` only while it is dropped.
    queue: Option<SyncSender<Task>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Writer {
    /// Starts the thread, which owns `target` from now on and tells `deliver` what it did. Up to
    /// `queue_max` tasks wait; as many as blocks may be in memory, and nobody ever waits for room.
    ///
    /// # Errors
    /// [`Error::TargetTooSmall`], [`Error::Write`] if a file cannot become as long as the image,
    /// [`Error::System`] if there is no thread to be had.
    pub fn start(
        target: Target,
        layout: Layout,
        queue_max: usize,
        deliver: impl FnMut(Written) + Send + 'static,
    ) -> Result<Self, Error> {
        target.check_size(layout.bytes())?;
        target.set_len(layout.bytes())?;
        let shared = Arc::new(Shared::default());
        let (queue, tasks) = sync_channel(queue_max);
        let worker = Worker {
            first: First::Missing,
            is_shielded: !target.is_device(),
            target,
            stored: BitSet::new(layout.blocks()),
            layout,
            unflushed_bytes: 0,
            last_offset: 0,
            written_bytes: 0,
            rate: DrainRate::default(),
            shared: Arc::clone(&shared),
        };
        let builder = thread::Builder::new().name("writer".into());
        let thread = builder
            .spawn(move || work(worker, &tasks, deliver))
            .map_err(|source| Error::System { action: "start the writer thread", source })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), shared })
    }

    /// Queues a verified block of the image; waits while the queue is full.
    pub fn write(&self, number: u32, bytes: Vec<u8>) {
        self.submit(Task::Write { number, bytes });
    }

    /// Queues a run of blocks that are all zero; waits while the queue is full.
    pub fn zero(&self, blocks: Range<u32>) {
        self.submit(Task::Zero { blocks });
    }

    /// Queues the end, after all blocks: flushes, and makes the target what it is to be.
    pub fn finish(&self) {
        self.submit(Task::Finish);
    }

    /// How fast the target takes data, flushes included, in kB/s; 0 while nothing is known.
    #[must_use]
    pub fn drain_kilobytes_per_second(&self) -> u32 {
        self.shared.drain_kilobytes_per_second.load(Ordering::Relaxed)
    }

    fn submit(&self, task: Task) {
        if let Some(queue) = &self.queue {
            // A thread that has ended has said why.
            let _ = queue.send(task);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.is_abandoned.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the writing thread reports; after [`Failed`](Self::Failed) or [`Flushed`](Self::Flushed)
/// nothing follows.
#[derive(Debug)]
pub enum Written {
    /// A block is out of the way: in the page cache, or kept for the end.
    Stored {
        /// Its number.
        number: u32,
        /// Its memory, for another block.
        buffer: Option<Vec<u8>>,
    },
    /// A run of blocks reads as zeroes.
    Zeroed {
        /// The run.
        blocks: Range<u32>,
    },
    /// The whole image is on disk and in its place.
    Flushed {
        /// Octets written, without the zeroed ones.
        written_bytes: u64,
    },
    /// The target is lost.
    Failed(Error),
}

#[derive(Debug)]
enum Task {
    Write { number: u32, bytes: Vec<u8> },
    Zero { blocks: Range<u32> },
    Finish,
}

#[derive(Debug, Default)]
struct Shared {
    drain_kilobytes_per_second: AtomicU32,
    is_abandoned: AtomicBool,
}

struct Worker {
    target: Target,
    layout: Layout,
    /// What the first block of a device is to be, at last.
    first: First,
    /// Whether nothing on the target can be mistaken for a whole disk: for a device, whether its
    /// first block has been zeroed.
    is_shielded: bool,
    stored: BitSet,
    unflushed_bytes: u64,
    last_offset: u64,
    written_bytes: u64,
    rate: DrainRate,
    shared: Arc<Shared>,
}

enum First {
    Missing,
    Held(Vec<u8>),
    Zero,
}

impl Worker {
    fn write(&mut self, number: u32, bytes: Vec<u8>) -> Result<Written, Error> {
        if bytes.is_empty() || bytes.len() != self.layout.block_len(number) as usize {
            let text = format!("block {number} was to be written with {} octets", bytes.len());
            return Err(Error::Internal { text });
        }
        self.stored.insert(number);
        if number == 0 && self.target.is_device() {
            self.first = First::Held(bytes);
            return Ok(Written::Stored { number, buffer: None });
        }
        self.shield()?;
        self.put(&bytes, self.layout.block_range(number).start)?;
        if self.unflushed_bytes >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(Written::Stored { number, buffer: Some(bytes) })
    }

    fn zero(&mut self, blocks: Range<u32>) -> Result<Written, Error> {
        let mut rest = blocks.start..blocks.end.min(self.layout.blocks());
        for number in rest.clone() {
            self.stored.insert(number);
        }
        if rest.start == 0 && !rest.is_empty() && self.target.is_device() {
            self.first = First::Zero;
            rest.start = 1;
        }
        if !rest.is_empty() {
            self.shield()?;
            let last = self.layout.block_range(rest.end - 1);
            self.target.zero(self.layout.block_range(rest.start).start..last.end)?;
        }
        Ok(Written::Zeroed { blocks })
    }

    fn finish(mut self) -> Result<Written, Error> {
        if !self.stored.is_full() {
            let missing = self.stored.len() - self.stored.count();
            let text = format!("the image was to be finished with {missing} blocks missing");
            return Err(Error::Internal { text });
        }
        self.flush()?;
        match std::mem::replace(&mut self.first, First::Missing) {
            First::Missing => {}
            First::Held(bytes) => self.put(&bytes, 0)?,
            First::Zero => self.shield()?,
        }
        self.flush()?;
        self.target.commit()?;
        Ok(Written::Flushed { written_bytes: self.written_bytes })
    }

    /// Zeroes the first block of a device, on disk, before anything else changes there.
    fn shield(&mut self) -> Result<(), Error> {
        if !self.is_shielded {
            self.target.zero(self.layout.block_range(0))?;
            self.flush()?;
            self.is_shielded = true;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let start = now();
        self.target.write(bytes, offset)?;
        let octets = bytes.len() as u64;
        self.last_offset = offset;
        self.unflushed_bytes += octets;
        self.written_bytes += octets;
        self.note(octets, now().duration_since(start));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let start = now();
        self.target.flush().map_err(|source| Error::Flush {
            path: self.target.path().into(),
            offset: self.last_offset,
            unflushed_bytes: self.unflushed_bytes,
            source,
        })?;
        self.unflushed_bytes = 0;
        self.note(0, now().duration_since(start));
        Ok(())
    }

    fn note(&mut self, octets: u64, took: Duration) {
        self.rate.note(octets, took);
        let rate = self.rate.kilobytes_per_second();
        self.shared.drain_kilobytes_per_second.store(rate, Ordering::Relaxed);
    }
}

/// The thread.
fn work(worker: Worker, tasks: &Receiver<Task>, mut deliver: impl FnMut(Written)) {
    let result = catch_unwind(AssertUnwindSafe(|| run(worker, tasks, &mut deliver)));
    let last = result.unwrap_or_else(|panic| {
        let text = format!("the writer thread panicked: {}", panic_text(panic.as_ref()));
        Some(Err(Error::Internal { text }))
    });
    match last {
        Some(Ok(written)) => deliver(written),
        Some(Err(error)) => deliver(Written::Failed(error)),
        None => {}
    }
}

/// Works until the end, the first error, or until the employer is gone (`None`).
fn run(
    mut worker: Worker,
    tasks: &Receiver<Task>,
    deliver: &mut impl FnMut(Written),
) -> Option<Result<Written, Error>> {
    loop {
        let task = tasks.recv().ok()?;
        if worker.shared.is_abandoned.load(Ordering::Relaxed) {
            return None;
        }
        let result = match task {
            Task::Write { number, bytes } => worker.write(number, bytes),
            Task::Zero { blocks } => worker.zero(blocks),
            Task::Finish => return Some(worker.finish()),
        };
        match result {
            Ok(written) => deliver(written),
            Err(error) => return Some(Err(error)),
        }
    }
}

/// The text of a panic, as far as it has one.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

#[expect(clippy::disallowed_methods, reason = "measures the disk and decides nothing by it")]
fn now() -> Instant {
    Instant::now()
}

/// Flushed in between, the end is short, the drain rate is the disk's and not the memory's, and
/// no more than this waits in the page cache: less than a second of a disk that makes 100 MB/s.
/// fdatasync does it on the spot; sync_file_range, which would not wait, is not in nix and says
/// nothing about the disk's own cache.
const FLUSH_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::channel;

    use imgcast_common::prng::Prng;

    use super::*;
    use crate::image::testing::{FILLING, LoopDevice, Scratch, run as run_command, skip};

    /// An image of five blocks of 64 KiB, the last one odd.
    fn image() -> (Layout, Vec<u8>) {
        let mut image = vec![0; 4 * 65_536 + 1001];
        Prng::new(5).fill(&mut image);
        (Layout::new(image.len() as u64, 16, 1408).unwrap(), image)
    }

    fn block(layout: &Layout, image: &[u8], number: u32) -> Vec<u8> {
        let range = layout.block_range(number);
        image[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
    }

    fn start(target: Target, layout: Layout) -> (Writer, Receiver<Written>) {
        let (reports, written) = channel();
        let writer = Writer::start(target, layout, 16, move |report| {
            let _ = reports.send(report);
        });
        (writer.unwrap(), written)
    }

    #[test]
    fn blocks_in_any_order_become_the_file_and_their_memory_comes_back() {
        let scratch = Scratch::new();
        let path = scratch.path().join("disk.img");
        let (layout, mut image) = image();
        image[65_536..3 * 65_536].fill(0);
        let (writer, written) = start(Target::open(&path).unwrap(), layout);
        for number in [4, 0, 3] {
            let bytes = block(&layout, &image, number);
            let memory = bytes.as_ptr();
            writer.write(number, bytes);
            let Written::Stored { number: stored, buffer: Some(buffer) } = written.recv().unwrap()
            else {
                panic!("block {number} is not stored")
            };
            assert_eq!((stored, buffer.as_ptr()), (number, memory));
        }
        writer.zero(1..3);
        assert!(matches!(written.recv(), Ok(Written::Zeroed { blocks }) if blocks == (1..3)));
        assert!(!path.exists());
        writer.finish();
        let Written::Flushed { written_bytes } = written.recv().unwrap() else {
            panic!("not flushed")
        };
        assert_eq!(written_bytes, 2 * 65_536 + 1001);
        assert!(written.recv().is_err(), "nothing follows");
        assert_eq!(fs::read(&path).unwrap(), image);
        assert_eq!(scratch.names(), ["disk.img"]);
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_no_file() {
        let scratch = Scratch::new();
        let (layout, image) = image();
        let (writer, _written) =
            start(Target::open(&scratch.path().join("disk.img")).unwrap(), layout);
        writer.write(1, block(&layout, &image, 1));
        drop(writer);
        assert_eq!(scratch.names(), [""; 0]);
    }

    #[test]
    fn an_unfinished_image_or_a_block_of_another_length_is_never_finished() {
        let scratch = Scratch::new();
        let (layout, image) = image();
        let open = || Target::open(&scratch.path().join("disk.img")).unwrap();
        let (writer, written) = start(open(), layout);
        writer.write(1, block(&layout, &image, 1));
        writer.zero(3..9);
        writer.finish();
        let reports: Vec<Written> = written.iter().collect();
        let [_, _, Written::Failed(error)] = &reports[..] else { panic!("{reports:?}") };
        assert!(error.to_string().contains("2 blocks missing"), "{error}");
        for (number, len) in [(4, 65_536), (5, 1), (0, 0), (5, 0)] {
            let (writer, written) = start(open(), layout);
            writer.write(number, vec![1; len]);
            assert!(matches!(written.recv(), Ok(Written::Failed(Error::Internal { .. }))));
            // The thread is gone; nobody hangs.
            (0..40).for_each(|_| writer.write(1, Vec::new()));
        }
        assert_eq!(scratch.names(), [""; 0]);
    }

    #[test]
    fn a_panic_in_the_thread_is_reported() {
        let scratch = Scratch::new();
        let (layout, image) = image();
        let (reports, written) = channel();
        let mut panicked = false;
        let target = Target::open(&scratch.path().join("disk.img")).unwrap();
        let writer = Writer::start(target, layout, 1, move |report| {
            let first = !panicked;
            panicked = true;
            assert!(!first, "planned panic");
            let _ = reports.send(report);
        });
        let writer = writer.unwrap();
        writer.write(1, block(&layout, &image, 1));
        let report = written.recv().unwrap();
        let Written::Failed(error) = report else { panic!("{report:?}") };
        assert!(error.to_string().contains("planned panic"), "{error}");
        drop(writer);
        assert_eq!(scratch.names(), [""; 0]);
    }

    #[test]
    fn the_first_block_of_a_device_is_zeroed_first_and_written_last() {
        let test = "the_first_block_of_a_device_is_zeroed_first_and_written_last";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let (layout, mut image) = image();
        image[2 * 65_536..3 * 65_536].fill(0);
        image[4 * 65_536..].fill(0);
        let (writer, written) = start(Target::open(device.path()).unwrap(), layout);
        writer.write(0, block(&layout, &image, 0));
        let held = written.recv().unwrap();
        assert!(matches!(held, Written::Stored { number: 0, buffer: None }), "{held:?}");
        assert!(device.contents().iter().all(|octet| *octet == FILLING), "untouched so far");

        writer.write(1, block(&layout, &image, 1));
        written.recv().unwrap();
        let contents = device.contents();
        assert!(
            contents[..65_536].iter().all(|octet| *octet == 0),
            "no partition table, old or new"
        );
        assert_eq!(contents[65_536..2 * 65_536], image[65_536..2 * 65_536]);

        writer.write(3, block(&layout, &image, 3));
        writer.zero(2..3);
        writer.zero(4..5);
        (0..3).for_each(|_| drop(written.recv().unwrap()));
        assert!(device.contents()[..65_536].iter().all(|octet| *octet == 0));
        assert!(writer.drain_kilobytes_per_second() > 0);
        writer.finish();
        let last = written.recv().unwrap();
        assert!(matches!(last, Written::Flushed { .. }), "{last:?}");
        let contents = device.contents();
        assert!(contents[..image.len()] == image[..]);
        assert!(
            contents[image.len()..].iter().all(|octet| *octet == FILLING),
            "not one octet more"
        );
    }

    #[test]
    fn a_device_given_up_half_way_has_no_partition_table() {
        let test = "a_device_given_up_half_way_has_no_partition_table";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let (layout, image) = image();
        let (writer, written) = start(Target::open(device.path()).unwrap(), layout);
        writer.write(0, block(&layout, &image, 0));
        writer.zero(4..5);
        (0..2).for_each(|_| drop(written.recv().unwrap()));
        drop(writer);
        assert!(device.contents()[..65_536].iter().all(|octet| *octet == 0));
    }

    #[test]
    fn a_first_block_of_zeroes_overwrites_the_old_one() {
        let test = "a_first_block_of_zeroes_overwrites_the_old_one";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let layout = Layout::new(2048, 16, 1408).unwrap();
        let (writer, written) = start(Target::open(device.path()).unwrap(), layout);
        writer.zero(0..1);
        written.recv().unwrap();
        assert_eq!(device.contents()[0], FILLING, "not before the end");
        writer.finish();
        assert!(matches!(written.recv(), Ok(Written::Flushed { written_bytes: 0 })));
        let contents = device.contents();
        assert!(contents[..2048].iter().all(|octet| *octet == 0));
        assert_eq!(contents[2048], FILLING);
    }

    #[test]
    fn an_image_too_large_for_the_device_never_starts() {
        let test = "an_image_too_large_for_the_device_never_starts";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let layout = Layout::new((1 << 20) + 1, 16, 1408).unwrap();
        let target = Target::open(device.path()).unwrap();
        let error = Writer::start(target, layout, 1, |_| {}).unwrap_err();
        assert_eq!(error.exit_code(), 7);
    }

    #[test]
    fn a_full_disk_is_reported_with_path_offset_and_reason() {
        let test = "a_full_disk_is_reported_with_path_offset_and_reason";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let name = device.path().to_str().unwrap();
        let mount_point = device.scratch().path().join("mnt");
        fs::create_dir(&mount_point).unwrap();
        let mount_point = mount_point.to_str().unwrap();
        let mounted = run_command("mkfs.ext4", &["-q", name])
            .and_then(|_| run_command("mount", &[name, mount_point]));
        if mounted.is_none() {
            return skip(test, "cannot make and mount a file system here");
        }
        let layout = Layout::new(4 << 20, 20, 1408).unwrap();
        let path = std::path::Path::new(mount_point).join("disk.img");
        let (writer, written) = start(Target::open(&path).unwrap(), layout);
        (0..4).for_each(|number| writer.write(number, vec![7; 1 << 20]));
        writer.finish();
        let last = written.iter().last();
        drop(writer);
        let names = fs::read_dir(mount_point).unwrap().count();
        run_command("umount", &[mount_point]).unwrap();
        let Some(Written::Failed(error)) = last else { panic!("{last:?}") };
        assert_eq!((error.code(), error.exit_code()), ("write", 8));
        let text = error.to_string();
        assert!(text.contains("disk.img at offset ") && text.contains("No space left"), "{text}");
        assert_eq!(names, 1, "lost+found alone: the temporary is gone");
    }
}
