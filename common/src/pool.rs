//! A few named threads that work off a bounded queue: coding, hashing, whatever takes CPU time.
//!
//! The pool owns threads and queue; results travel back by whatever channel a job brings along. A
//! job that panics is counted and its thread lives on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::{fmt, io};

/// Threads that run jobs in the order of their arrival.
///
/// Dropping it waits until every job that was submitted has run.
pub struct Pool {
    /// `None` only while it is dropped.
    queue: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
    panics: Arc<AtomicU64>,
}

impl Pool {
    /// Starts `threads` threads, at least one, called `name-0`, `name-1` and so on (the kernel
    /// shows the first 15 octets). Up to `queue_max` jobs wait for a thread.
    ///
    /// # Errors
    /// Whatever the operating system has against another thread.
    pub fn new(name: &str, threads: usize, queue_max: usize) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(queue_max);
        let jobs = Arc::new(Mutex::new(jobs));
        // Dropped on an early return, it ends and joins the threads started so far.
        let mut pool =
            Self { queue: Some(queue), workers: Vec::new(), panics: Arc::new(AtomicU64::new(0)) };
        for number in 0..threads.max(1) {
            let (jobs, panics) = (Arc::clone(&jobs), Arc::clone(&pool.panics));
            let builder = thread::Builder::new().name(format!("{name}-{number}"));
            pool.workers.push(builder.spawn(move || work(&jobs, &panics))?);
        }
        Ok(pool)
    }

    /// How many threads to start beside those that send, receive or write all the time: half as
    /// many as this machine has cores.
    ///
    /// With more the others wait for a core, and blocks for them, until they have left the cache:
    /// on two cores a transfer took 3.23 s with two threads, and 3.00 s with one.
    #[must_use]
    pub fn threads_beside_others() -> usize {
        thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
    }

    /// Queues a job; waits for room while the queue is full. A job must not submit to its own
    /// pool: with a full queue, all threads would wait for each other.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        if let Some(queue) = &self.queue {
            // The threads hold the other end for as long as this end exists.
            let _ = queue.send(Box::new(job));
        }
    }

    /// How many jobs have panicked so far.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// How many threads it has.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Without senders the threads end once the queue is empty.
        self.queue = None;
        for worker in self.workers.drain(..) {
            // A job may have held the last handle of its own pool; a thread cannot join itself.
            if worker.thread().id() != thread::current().id() {
                let _ = worker.join();
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (threads, panics) = (self.threads(), self.panics());
        f.debug_struct("Pool").field("threads", &threads).field("panics", &panics).finish()
    }
}

/// The text of a panic that was caught, as far as it has one.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

/// What a pool runs.
type Job = Box<dyn FnOnce() + Send>;

fn work(jobs: &Mutex<Receiver<Job>>, panics: &AtomicU64) {
    loop {
        // Held while waiting, so that one thread waits for a job and the others for their turn.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Nothing of the pool is in reach of the job that a panic could leave half done.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn every_job_runs_once_before_the_pool_is_gone() {
        let (results, received) = channel();
        let pool = Pool::new("test", 3, 2).unwrap();
        for number in 0..100 {
            let results = results.clone();
            pool.submit(move || results.send(number).unwrap());
        }
        drop((pool, results));
        let mut numbers: Vec<u32> = received.iter().collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..100));
    }

    #[test]
    fn a_panic_costs_its_job_and_nothing_else() {
        let (results, received) = channel();
        let pool = Pool::new("test", 1, 4).unwrap();
        for number in 0..6 {
            let results = results.clone();
            pool.submit(move || {
                assert!(number % 2 == 0, "planned panic of job {number}");
                results.send(number).unwrap();
            });
        }
        drop(results);
        assert_eq!(received.iter().collect::<Vec<u32>>(), [0, 2, 4]);
        let panics = Arc::clone(&pool.panics);
        drop(pool);
        assert_eq!(panics.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn threads_are_named_and_at_least_one() {
        let (names, received) = channel();
        let pool = Pool::new("decode", 0, 0).unwrap();
        assert_eq!(pool.threads(), 1);
        pool.submit(move || names.send(thread::current().name().map(str::to_owned)).unwrap());
        assert_eq!(received.recv().unwrap().as_deref(), Some("decode-0"));
    }

    #[test]
    fn a_pool_may_end_on_its_own_thread() {
        let (ended, has_ended) = channel();
        let pool = Arc::new(Pool::new("test", 2, 1).unwrap());
        let (go, may_go) = channel::<()>();
        let own = Arc::clone(&pool);
        pool.submit(move || {
            let _ = may_go.recv();
            drop(own);
            ended.send(()).unwrap();
        });
        drop(pool);
        go.send(()).unwrap();
        assert_eq!(has_ended.recv(), Ok(()));
    }
}
