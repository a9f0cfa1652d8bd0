//! Puts verified blocks where they belong, on threads of its own behind a bounded queue.
//!
//! Which block may be written when is decided by the [order](super::order) of writes; whether a
//! block is right, before it comes here.
//!
//! Written by the threads that decode, while a block is still in their cache, it would be no
//! faster: measured into memory and to a disk, a thread of its own was so by a tenth.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

use imgcast_common::layout::Layout;
use imgcast_common::pool::panic_text;

use super::direct::Bounce;
use super::finish::Finish;
use super::flusher::{Flusher, Window};
use super::medium::Medium;
use super::order::{Keeping, Order, Output};
use crate::error::Error;

/// The writing threads, as their employer sees them. Dropped before [`Written::Flushed`] was
/// delivered, it gives up what is queued, and a file goes away.
#[derive(Debug)]
pub struct Writer {
    /// `None` only while it is dropped.
    queue: Option<SyncSender<Task>>,
    threads: Vec<JoinHandle<()>>,
    order: Arc<Order>,
    is_abandoned: Arc<AtomicBool>,
    /// Attempts to make an end.
    ends: AtomicU32,
}

impl Writer {
    /// Starts the threads, which own `medium` from now on and tell `deliver` what they did. Up to
    /// `queue_max` tasks wait; as many as blocks may be in memory, and nobody ever waits for room.
    ///
    /// # Errors
    /// [`Error::Target`], [`Error::Write`] if a file cannot become as long as the image,
    /// [`Error::System`] if there is no thread to be had.
    pub(super) fn start(
        medium: Box<dyn Medium>,
        layout: Layout,
        keeping: Keeping,
        queue_max: usize,
        deliver: impl Fn(Written) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        medium.make_room(layout.bytes())?;
        let order = Order::new(layout, medium.is_device(), keeping);
        Self::start_in(order, medium, queue_max, deliver)
    }

    fn start_in(
        order: Order,
        medium: Box<dyn Medium>,
        queue_max: usize,
        deliver: impl Fn(Written) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let no_thread = |source| Error::System { action: "start a writer thread", source };
        let order = Arc::new(order);
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let teller = Arc::new(Teller { has_ended: Mutex::new(false), deliver });
        let flusher = start_flusher(&*medium, &order, &is_abandoned, &teller).map_err(no_thread)?;
        let threads = medium.writes_at_a_time();
        let (queue, tasks) = sync_channel(queue_max);
        let crew = Arc::new(Crew {
            tasks: Mutex::new(tasks),
            output: RwLock::new(Some(Output { flusher, medium })),
            order: Arc::clone(&order),
            is_abandoned: Arc::clone(&is_abandoned),
            ends_made: AtomicU32::new(0),
            teller,
        });
        let (threads_started, ends) = (Vec::new(), AtomicU32::new(0));
        // Dropped on an early return, it ends and joins the threads started so far.
        let mut writer =
            Self { queue: Some(queue), threads: threads_started, order, is_abandoned, ends };
        for _ in 0..threads {
            let crew = Arc::clone(&crew);
            let builder = thread::Builder::new().name("writer".into());
            writer.threads.push(builder.spawn(move || crew.work()).map_err(no_thread)?);
        }
        Ok(writer)
    }

    /// Queues a verified block of the image; waits while the queue is full.
    pub fn write(&self, number: u32, bytes: Vec<u8>) {
        self.lacks_something();
        self.submit(Task::Write { number, bytes });
    }

    /// Queues a run of blocks that are all zero; waits while the queue is full.
    pub fn zero(&self, blocks: Range<u32>) {
        self.submit(Task::Zero { blocks });
    }

    /// Queues a block that was found on the target.
    pub(super) fn find(&self, number: u32) {
        self.submit(Task::Find { number });
    }

    /// Queues an end of the device, which has it.
    pub(super) fn hold(&self, number: u32, bytes: Vec<u8>) {
        self.submit(Task::Hold { number, bytes });
    }

    /// Something of the image is not on the target from before.
    pub(super) fn lacks_something(&self) {
        self.order.lacks_something();
    }

    /// Whether it is certain that the target is written to.
    pub(super) fn overwrites(&self) -> bool {
        !self.order.may_be_whole()
    }

    /// Queues what is left to note when all that was found on the target has been queued.
    pub(super) fn end_search(&self) {
        self.submit(Task::EndSearch);
    }

    /// Queues the end, after all blocks: flushes, and makes the target what it is to be.
    pub fn finish(&self) {
        let end = self.ends.fetch_add(1, Ordering::Relaxed) + 1;
        // The first thread that takes one makes the end, the others only go home.
        self.threads.iter().for_each(|_| self.submit(Task::Finish { end }));
    }

    /// How fast the target takes data, flushes included, in kB/s; 0 while nothing is known.
    #[must_use]
    pub fn drain_kilobytes_per_second(&self) -> u32 {
        self.order.drain_kilobytes_per_second()
    }

    /// How many blocks have been read back and are right; `None` if that is not wanted.
    #[must_use]
    pub fn proved_blocks(&self) -> Option<u32> {
        let wanted = self.order.read_back.is_some();
        wanted.then(|| self.order.proved_blocks.load(Ordering::Relaxed))
    }

    fn submit(&self, task: Task) {
        if let Some(queue) = &self.queue {
            // Threads that have ended have said why.
            let _ = queue.send(task);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What the writing threads report; after [`Failed`](Self::Failed) or [`Flushed`](Self::Flushed)
/// nothing follows.
#[derive(Debug)]
pub enum Written {
    /// A block is out of the way: on its way to the disk, or kept for the end.
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
    /// Blocks are not on the target after all: they were not written, flushed, or kept.
    Lost {
        /// Which ones, ascending.
        blocks: Vec<u32>,
        /// The memory of one that was to be written, for another block.
        buffer: Option<Vec<u8>>,
        /// Why.
        error: Error,
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
    Find { number: u32 },
    Hold { number: u32, bytes: Vec<u8> },
    EndSearch,
    Finish { end: u32 },
}

/// What all threads work with.
struct Crew<F> {
    tasks: Mutex<Receiver<Task>>,
    /// Held for reading from before the next task is taken, and for writing by the end: nothing is
    /// under way then.
    output: RwLock<Option<Output>>,
    order: Arc<Order>,
    is_abandoned: Arc<AtomicBool>,
    /// Attempts to make an end that were made.
    ends_made: AtomicU32,
    teller: Arc<Teller<F>>,
}

impl<F: Fn(Written)> Crew<F> {
    /// One thread.
    fn work(&self) {
        let mut bounce = Bounce::default();
        loop {
            let done = catch_unwind(AssertUnwindSafe(|| self.next(&mut bounce)));
            let result = done.unwrap_or_else(|panic| {
                let text = format!("a writer thread panicked: {}", panic_text(panic.as_ref()));
                Some(Err(Error::Internal { text }))
            });
            match result {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    self.is_abandoned.store(true, Ordering::Relaxed);
                    self.teller.report(Written::Failed(error));
                    return;
                }
                None => return,
            }
        }
    }

    /// Does one task and reports it; `None` if there are no more.
    fn next(&self, bounce: &mut Bounce) -> Option<Result<(), Error>> {
        let tasks = lock(&self.tasks);
        let task = tasks.recv().ok()?;
        if self.is_abandoned.load(Ordering::Relaxed) {
            return None;
        }
        if let Task::Finish { end } = task {
            let output = self.output.write().unwrap_or_else(PoisonError::into_inner);
            drop(tasks);
            return self.finish(output, end);
        }
        let output = self.output.read().unwrap_or_else(PoisonError::into_inner);
        drop(tasks);
        let output = output.as_ref()?;
        if let Task::EndSearch = task {
            return Some(self.order.end_search(output));
        }
        let result = match task {
            Task::Write { number, bytes } => self.order.write(output, number, bytes, bounce),
            Task::Zero { blocks } => self.order.zero(output, blocks),
            Task::Find { number } => Ok(self.order.find(number)),
            Task::Hold { number, bytes } => self.order.hold(output, number, bytes, true),
            Task::EndSearch | Task::Finish { .. } => return None,
        };
        Some(result.map(|written| self.report(written)))
    }

    /// Tells what became of a task, unless it is lost by now: another thread may have said so
    /// already, and nobody is to believe afterwards that the blocks are there.
    fn report(&self, written: Written) {
        let mut books = lock(&self.order.books);
        match written {
            Written::Stored { number, .. } if !books.untold.remove(number) => {}
            Written::Zeroed { blocks } => {
                let stored: Vec<u32> = blocks.filter(|it| books.untold.remove(*it)).collect();
                for run in stored.chunk_by(|one, next| one + 1 == *next) {
                    if let (Some(first), Some(last)) = (run.first(), run.last()) {
                        self.teller.report(Written::Zeroed { blocks: *first..last + 1 });
                    }
                }
            }
            written => self.teller.report(written),
        }
    }

    /// Makes an end, unless another thread has tried that; `None` if it was made.
    fn finish(
        &self,
        mut output: RwLockWriteGuard<'_, Option<Output>>,
        end: u32,
    ) -> Option<Result<(), Error>> {
        let whole = output.as_ref()?;
        if self.ends_made.fetch_max(end, Ordering::Relaxed) >= end {
            return Some(Ok(()));
        }
        let written = match self.order.finish(whole, &self.is_abandoned) {
            Ok(Finish::Whole(written_bytes)) => self.order.commit(output.take()?, written_bytes),
            Ok(Finish::Lost(lost)) => {
                drop(output);
                self.teller.report(lost);
                return Some(Ok(()));
            }
            Ok(Finish::NotYet) => return Some(Ok(())),
            Err(error) => Err(error),
        };
        // Whoever waits for its turn sees that there will be none.
        *output = None;
        match written {
            Ok(written) => {
                self.teller.report(written);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Tells the employer, up to the end.
struct Teller<F> {
    has_ended: Mutex<bool>,
    deliver: F,
}

impl<F: Fn(Written)> Teller<F> {
    fn report(&self, written: Written) {
        let mut has_ended = lock(&self.has_ended);
        if !*has_ended {
            *has_ended = matches!(written, Written::Failed(_) | Written::Flushed { .. });
            (self.deliver)(written);
        }
    }
}

fn start_flusher(
    medium: &dyn Medium,
    order: &Arc<Order>,
    is_abandoned: &Arc<AtomicBool>,
    teller: &Arc<Teller<impl Fn(Written) + Send + Sync + 'static>>,
) -> io::Result<Flusher> {
    let mut flush = medium.flusher()?;
    let path = medium.path().to_owned();
    let (order, flushing, teller) = (Arc::clone(order), Arc::clone(order), Arc::clone(teller));
    let is_abandoned = Arc::clone(is_abandoned);
    let note = move |window: Window, result, took| {
        let noted = order.note_flush(&path, window, result, took);
        match noted {
            Some(Ok(lost)) => teller.report(lost),
            Some(Err(error)) => {
                is_abandoned.store(true, Ordering::Relaxed);
                teller.report(Written::Failed(error));
            }
            None => {}
        }
    };
    Flusher::start(move || flushing.flush_by(&mut flush), note)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod faults;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::channel;

    use imgcast_common::prng::Prng;

    use super::*;
    use crate::image::Target;
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
        let medium = Box::new(target);
        let writer = Writer::start(medium, layout, Keeping::default(), 16, move |report| {
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
        let panicked = AtomicBool::new(false);
        let target = Target::open(&scratch.path().join("disk.img")).unwrap();
        let writer =
            Writer::start(Box::new(target), layout, Keeping::default(), 1, move |report| {
                let first = !panicked.swap(true, Ordering::Relaxed);
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
    fn the_ends_of_a_device_are_zeroed_first_and_written_last() {
        let test = "the_ends_of_a_device_are_zeroed_first_and_written_last";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let (layout, mut image) = image();
        image[2 * 65_536..3 * 65_536].fill(0);
        let (writer, written) = start(Target::open(device.path()).unwrap(), layout);
        for end in [0, 4] {
            writer.write(end, block(&layout, &image, end));
            let held = written.recv().unwrap();
            let is_held = matches!(held, Written::Stored { number, buffer: None } if number == end);
            assert!(is_held, "{held:?}");
        }
        assert!(device.contents().iter().all(|octet| *octet == FILLING), "untouched so far");

        writer.write(1, block(&layout, &image, 1));
        written.recv().unwrap();
        let has_no_table = |contents: &[u8]| {
            let ends = contents[..65_536].iter().chain(&contents[4 * 65_536..image.len()]);
            ends.into_iter().all(|octet| *octet == 0)
        };
        let contents = device.contents();
        assert!(has_no_table(&contents), "neither the old one nor the new one");
        assert_eq!(contents[65_536..2 * 65_536], image[65_536..2 * 65_536]);

        writer.write(3, block(&layout, &image, 3));
        writer.zero(2..3);
        (0..2).for_each(|_| drop(written.recv().unwrap()));
        assert!(has_no_table(&device.contents()));
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
        writer.write(4, block(&layout, &image, 4));
        writer.zero(2..3);
        (0..3).for_each(|_| drop(written.recv().unwrap()));
        drop(writer);
        let contents = device.contents();
        assert!(contents[..65_536].iter().all(|octet| *octet == 0));
        assert!(contents[4 * 65_536..image.len()].iter().all(|octet| *octet == 0));
    }

    #[test]
    fn images_of_few_or_small_blocks_are_as_right_and_so_are_ends_of_zeroes() {
        let test = "images_of_few_or_small_blocks_are_as_right_and_so_are_ends_of_zeroes";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        for (octets, block_log2, zeroes) in [
            (65_536, 16, 0..0),
            (1001, 16, 0..0),
            (9000, 13, 0..0),
            (5000, 10, 0..0),
            (3 * 65_536, 16, 0..3),
            (3 * 65_536, 16, 0..2),
            (2 * 65_536 + 7, 16, 1..3),
            (65_536, 16, 0..1),
        ] {
            let layout = Layout::new(octets, block_log2, 1408).unwrap();
            let mut image = vec![0; usize::try_from(octets).unwrap()];
            Prng::new(octets).fill(&mut image);
            for number in zeroes.clone() {
                let start = usize::try_from(layout.block_range(number).start).unwrap();
                image[start..start + layout.block_len(number) as usize].fill(0);
            }
            fs::write(device.path(), vec![FILLING; 1 << 20]).unwrap();
            let (writer, written) = start(Target::open(device.path()).unwrap(), layout);
            for number in (0..layout.blocks()).filter(|number| !zeroes.contains(number)) {
                writer.write(number, block(&layout, &image, number));
            }
            writer.zero(zeroes);
            writer.finish();
            let last = written.iter().last();
            assert!(matches!(last, Some(Written::Flushed { .. })), "{octets}: {last:?}");
            drop(writer);
            let contents = device.contents();
            assert!(contents[..image.len()] == image[..], "{octets}");
            assert!(contents[image.len()..].iter().all(|octet| *octet == FILLING), "{octets}");
        }
    }

    #[test]
    fn a_partition_table_for_other_sectors_is_refused_by_the_first_block_itself() {
        let test = "a_partition_table_for_other_sectors_is_refused_by_the_first_block_itself";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let (layout, mut image) = image();
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        image[450] = 0xee;
        image[4096..4104].copy_from_slice(b"EFI PART");
        image[4120..4128].copy_from_slice(&1u64.to_le_bytes());
        let (writer, written) = start(Target::open(device.path()).unwrap(), layout);
        writer.write(0, block(&layout, &image, 0));
        let report = written.recv().unwrap();
        let Written::Failed(error) = report else { panic!("{report:?}") };
        assert_eq!((error.code(), error.exit_code()), ("target-sector-size", 7));
        drop(writer);
        assert!(device.contents().iter().all(|octet| *octet == FILLING));
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
    fn blocks_written_at_the_same_time_all_get_to_the_device_and_the_first_one_last() {
        let test = "blocks_written_at_the_same_time_all_get_to_the_device_and_the_first_one_last";
        let Some(device) = LoopDevice::attach(test, 4 << 20) else { return };
        let mut image = vec![0; 63 * 65_536 + 4097];
        Prng::new(6).fill(&mut image);
        let layout = Layout::new(image.len() as u64, 16, 1408).unwrap();
        let (writer, written) = start(Target::open(device.path()).unwrap(), layout);
        (0..64).rev().for_each(|number| writer.write(number, block(&layout, &image, number)));
        let mut numbers: Vec<u32> = Vec::new();
        while numbers.len() < 64 {
            let Ok(Written::Stored { number, .. }) = written.recv() else { panic!("{numbers:?}") };
            numbers.push(number);
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..64));
        assert!(device.contents()[..65_536].iter().all(|octet| *octet == 0));
        writer.finish();
        assert!(matches!(written.recv(), Ok(Written::Flushed { .. })));
        let contents = device.contents();
        assert!(contents[..image.len()] == image[..]);
        assert!(contents[image.len()..].iter().all(|octet| *octet == FILLING));
    }

    #[test]
    fn what_fills_more_than_a_window_is_flushed_on_the_way_and_whole_at_the_end() {
        let scratch = Scratch::new();
        let path = scratch.path().join("disk.img");
        let layout = Layout::new(70 << 20, 20, 1408).unwrap();
        let (writer, written) = start(Target::open(&path).unwrap(), layout);
        (0..70u8).for_each(|number| writer.write(number.into(), vec![number; 1 << 20]));
        writer.finish();
        let last = written.iter().last();
        assert!(
            matches!(last, Some(Written::Flushed { written_bytes }) if written_bytes == 70 << 20)
        );
        assert!(writer.drain_kilobytes_per_second() > 0);
        let contents = fs::read(&path).unwrap();
        assert!(contents.chunks(1 << 20).zip(0..70).all(|(block, number)| {
            block.len() == 1 << 20 && block.iter().all(|octet| *octet == number)
        }));
    }

    #[test]
    fn an_image_too_large_for_the_device_never_starts() {
        let test = "an_image_too_large_for_the_device_never_starts";
        let Some(device) = LoopDevice::attach(test, 1 << 20) else { return };
        let layout = Layout::new((1 << 20) + 1, 16, 1408).unwrap();
        let target = Target::open(device.path()).unwrap();
        let started = Writer::start(Box::new(target), layout, Keeping::default(), 1, |_| {});
        let error = started.unwrap_err();
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
