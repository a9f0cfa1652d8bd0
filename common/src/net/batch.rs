//! Batches of received datagrams, and the fixed pool of memory they live in.
//!
//! ```text
//!  slot 0                      slot 1
//!  ┌───────┬───────┬────┬·····┬───────┬·······
//!  │ 1st   │ 2nd   │3rd │ free│ 1st   │ free     one source and one segment size per slot,
//!  └───────┴───────┴────┴·····┴───────┴·······   the last segment may be shorter
//! ```

use std::fmt;
use std::iter;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What one read brought: datagrams with their sources, in memory of their own.
///
/// It may move to another thread. Its memory returns to the pool when it is dropped.
pub struct Batch {
    storage: Storage,
    pool: BatchPool,
    slots: usize,
    overflow_total: u64,
}

impl Batch {
    /// The datagrams in the order of their arrival, each with its source. An octet string that the
    /// slot could not hold is cut at its end.
    pub fn datagrams(&self) -> impl Iterator<Item = (&SocketAddr, &[u8])> {
        self.storage.filled.iter().flat_map(|filled| {
            let octets = &self.storage.octets[filled.start..filled.start + filled.octets];
            let empty = octets.is_empty().then_some(octets);
            let segments = octets.chunks(filled.segment_octets.max(1));
            empty.into_iter().chain(segments).map(|datagram| (&filled.source, datagram))
        })
    }

    /// How often the kernel has dropped for want of receive buffer since the socket was opened
    /// (SO_RXQ_OVFL). It counts what was queued as one: where segments were joined (UDP_GRO), a
    /// whole burst.
    #[must_use]
    pub fn overflow_total(&self) -> u64 {
        self.overflow_total
    }

    /// How many datagrams the kernel joined, on average; 1 if nothing was received.
    #[must_use]
    pub fn datagrams_joined(&self) -> usize {
        (self.datagrams().count() / self.storage.filled.len().max(1)).max(1)
    }

    /// The share of its slots that was filled: 1 if there may be more where it came from.
    #[must_use]
    pub fn fill(&self) -> f64 {
        self.storage.filled.len() as f64 / self.slots.max(1) as f64
    }

    /// Whether the kernel joined any of the datagrams.
    pub(super) fn is_joined(&self) -> bool {
        self.storage.filled.iter().any(|filled| filled.octets > filled.segment_octets)
    }

    /// How many slots were filled.
    pub(super) fn filled(&self) -> usize {
        self.storage.filled.len()
    }

    /// Nothing was received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.storage.filled.is_empty()
    }

    pub(super) fn set_overflow_total(&mut self, overflow_total: u64) {
        self.overflow_total = overflow_total;
    }

    /// So many slots are to be read into; returns their memory, and the list that says what was
    /// read.
    pub(super) fn parts(&mut self, slots: usize) -> (&mut [u8], &mut Vec<Filled>) {
        self.slots = slots;
        (&mut self.storage.octets, &mut self.storage.filled)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.storage));
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("slots_filled", &self.storage.filled.len())
            .field("overflow_total", &self.overflow_total)
            .finish_non_exhaustive()
    }
}

/// A fixed number of batches. A batch gets its memory when it is first needed, and the one that
/// came back last is used next: whoever receives little touches little, and starts sooner.
#[derive(Clone, Debug)]
pub struct BatchPool {
    shared: Arc<Shared>,
}

impl BatchPool {
    /// Up to `batches` batches at a time.
    #[must_use]
    pub fn new(batches: usize, layout: BatchLayout) -> Self {
        let free = iter::repeat_with(Storage::default).take(batches).collect();
        let shared = Shared { layout, free: Mutex::new(free), returned: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// The shape that its batches have at first.
    #[must_use]
    pub fn layout(&self) -> BatchLayout {
        self.shared.layout
    }

    /// How many batches nobody holds.
    #[must_use]
    pub fn batches_free(&self) -> usize {
        self.free().len()
    }

    /// An empty batch; `None` if none came back within `wait`.
    #[must_use]
    pub fn take(&self, wait: Duration) -> Option<Batch> {
        let waited =
            self.shared.returned.wait_timeout_while(self.free(), wait, |free| free.is_empty());
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut storage = free.pop()?;
        drop(free);
        let layout = self.layout();
        if storage.octets.is_empty() {
            // Zeroes that nobody has touched: pages are there when something is received into them.
            storage.octets = vec![0; layout.slots * layout.slot_octets];
            storage.filled.reserve(SLOTS_MAX);
        }
        Some(Batch { storage, pool: self.clone(), slots: 0, overflow_total: 0 })
    }

    fn give_back(&self, mut storage: Storage) {
        storage.filled.clear();
        self.free().push(storage);
        self.shared.returned.notify_one();
    }

    /// A panic elsewhere leaves the list whole: each change is a single push or pop.
    fn free(&self) -> MutexGuard<'_, Vec<Storage>> {
        self.shared.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many datagrams, or bursts of joined ones, a batch holds, and how large they may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchLayout {
    slots: usize,
    slot_octets: usize,
}

impl BatchLayout {
    /// Slots for bursts that the kernel joined (UDP_GRO): 576 KiB a batch. Where it joins none the
    /// same memory is cut into more and smaller slots.
    pub const COALESCED: Self = Self { slots: COALESCED_SLOTS, slot_octets: COALESCED_SLOT_OCTETS };

    /// The memory of [`Self::COALESCED`] for datagrams that the kernel does not join.
    pub(super) const SINGLES: Self = Self { slots: SLOTS_MAX, slot_octets: SINGLE_SLOT_OCTETS };

    /// Slots for single datagrams of up to `datagram_octets_max` octets; a receiver with this
    /// layout does not ask the kernel to join any. A longer datagram is cut: one octet more than
    /// is valid shows that it was.
    #[must_use]
    pub const fn plain(datagram_octets_max: usize) -> Self {
        let slot_octets = match datagram_octets_max {
            0 => 1,
            1..COALESCED_SLOT_OCTETS => datagram_octets_max,
            _ => COALESCED_SLOT_OCTETS - 1,
        };
        Self { slots: SLOTS_MAX, slot_octets }
    }

    pub(super) fn slots(self) -> usize {
        self.slots
    }

    pub(super) fn slot_octets(self) -> usize {
        self.slot_octets
    }

    pub(super) fn holds_bursts(self) -> bool {
        self.slot_octets >= COALESCED_SLOT_OCTETS
    }
}

/// What one slot holds.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) start: usize,
    pub(super) source: SocketAddr,
    pub(super) octets: usize,
    pub(super) segment_octets: usize,
}

#[derive(Debug, Default)]
struct Storage {
    octets: Vec<u8>,
    filled: Vec<Filled>,
}

#[derive(Debug)]
struct Shared {
    layout: BatchLayout,
    free: Mutex<Vec<Storage>>,
    returned: Condvar,
}

/// One read fetches at most this many datagrams. 64 of 1.5 KiB are the octets of one joined burst
/// and amortise the call; more only adds latency.
pub(super) const SLOTS_MAX: usize = 64;

/// Measured: 1, 4, 16 and 64 joined bursts a read are equally fast.
const COALESCED_SLOTS: usize = 9;

/// A joined burst is at most one IP packet of 65,535 octets.
const COALESCED_SLOT_OCTETS: usize = 65_536;

/// More than a frame of 9,000 octets carries, and so than any symbol takes.
const SINGLE_SLOT_OCTETS: usize = COALESCED_SLOTS * COALESCED_SLOT_OCTETS / SLOTS_MAX;
