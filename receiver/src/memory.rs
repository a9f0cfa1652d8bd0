//! How the memory that the operator grants is spent: one answer for the session, which begins
//! blocks, and for the store, which keeps their buffers.
//!
//! ```text
//! --memory = scratch of the decoding threads + blocks, each with the repair symbols it may hold
//! ```
//!
//! The program itself, its stacks and what lies between socket and session come on top, and stay
//! below 32 MiB.

use std::fs;

use imgcast_common::{layout::BLOCK_LOG2_DEFAULT, pool::Pool, units::ByteSize};

use crate::error::Error;

/// What the operator grants, on a machine with so many cores.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Memory {
    bytes: u64,
    threads_max: usize,
}

impl Memory {
    /// So many octets on this machine.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { bytes, threads_max: Pool::threads_beside_others() }
    }

    /// As much as so many blocks take on one core.
    #[must_use]
    pub const fn for_blocks(blocks: u64, block_size: u64) -> Self {
        Self { bytes: bytes_for(blocks, block_size), threads_max: 1 }
    }

    /// Octets in all.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many threads decode blocks of `block_size` octets: half as many as there are cores,
    /// unless their scratch would take more than a quarter of what an index of `index_bytes`
    /// leaves; always one.
    #[must_use]
    pub fn threads(&self, block_size: u64, index_bytes: u64) -> usize {
        let left = self.bytes.saturating_sub(bytes_for_index(index_bytes));
        let affordable = left / 4 / scratch_bytes(block_size).max(1);
        self.threads_max.min(usize::try_from(affordable).unwrap_or(usize::MAX)).max(1)
    }

    /// How many blocks of `block_size` octets there is room for, beside an index of `index_bytes`;
    /// at least [`BLOCKS_MIN`].
    #[must_use]
    pub fn blocks(&self, block_size: u64, index_bytes: u64) -> u32 {
        let threads = u64::try_from(self.threads(block_size, index_bytes)).unwrap_or(u64::MAX);
        let scratch = threads.saturating_mul(scratch_bytes(block_size));
        let taken = scratch.saturating_add(bytes_for_index(index_bytes));
        let rest = self.bytes.saturating_sub(taken);
        let blocks = (rest - rest / REPAIR_SHARE).checked_div(block_size).unwrap_or(0);
        u32::try_from(blocks).unwrap_or(u32::MAX).max(BLOCKS_MIN)
    }

    /// Whether [`BLOCKS_MIN`] blocks of `block_size` octets fit indeed.
    ///
    /// # Errors
    /// [`Error::Usage`] with how much they take.
    pub fn check(&self, block_size: u64, index_bytes: u64) -> Result<(), Error> {
        let least = least_bytes(block_size, index_bytes);
        if self.bytes >= least {
            return Ok(());
        }
        let (granted, block) = (ByteSize(self.bytes), ByteSize(block_size));
        let text = format!(
            "{granted} is too little for blocks of {block}: to hold and decode {BLOCKS_MIN} of \
             them takes at least {}M",
            least >> 20
        );
        Err(Error::Usage { option: "--memory", text })
    }
}

/// What to use when nobody says: a quarter of what the kernel calls available, at most
/// 1 GiB, and no less than works.
#[must_use]
pub fn default_bytes() -> u64 {
    let bytes = default_from(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    bytes.max(least_bytes(1 << BLOCK_LOG2_DEFAULT, 0))
}

/// The least that works with blocks of `block_size` octets and an index of `index_bytes`, in whole
/// MiB.
fn least_bytes(block_size: u64, index_bytes: u64) -> u64 {
    let blocks = bytes_for(u64::from(BLOCKS_MIN), block_size);
    (blocks + bytes_for_index(index_bytes)).next_multiple_of(1 << 20)
}

/// What one thread and so many blocks, with the repair symbols they may hold, take.
const fn bytes_for(blocks: u64, block_size: u64) -> u64 {
    scratch_bytes(block_size) + (blocks * block_size * REPAIR_SHARE).div_ceil(REPAIR_SHARE - 1)
}

const fn bytes_for_index(index_bytes: u64) -> u64 {
    index_bytes.saturating_sub(INDEX_BYTES_FREE).saturating_mul(2)
}

/// Measured with blocks of 1 MiB: the RaptorQ library takes up to 4.4 times the octets of a block
/// to decode it, and a thread's allocator keeps that for the next.
const fn scratch_bytes(block_size: u64) -> u64 {
    block_size.saturating_mul(9) / 2
}

/// The budget according to `/proc/meminfo` (proc_meminfo(5)); kernels before 3.14 say only how
/// much there is in all.
fn default_from(meminfo: &str) -> u64 {
    let kibibytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()
    };
    let bytes = kibibytes("MemAvailable").or_else(|| kibibytes("MemTotal"));
    bytes
        .map_or(BYTES_UNKNOWN, |kibibytes| kibibytes.saturating_mul(1024) / 4)
        .min(DEFAULT_BYTES_MAX)
}

/// A receiver that lags by more than ten seconds of 1 Gbit/s gains nothing by more memory.
const DEFAULT_BYTES_MAX: u64 = 1 << 30;
/// Where there is no /proc: what the smallest node can spare.
const BYTES_UNKNOWN: u64 = 64 << 20;
/// Four blocks are interleaved on the wire; as many more are being decoded and written. Fewer do
/// not even hold what is interleaved.
pub const BLOCKS_MIN: u32 = 8;
/// A block of which a quarter was lost holds a quarter of its size in repair symbols, one fifth of
/// both; memory that grows with them leaves gaps.
const REPAIR_SHARE: u64 = 4;
/// The index of 64 GiB, and of all that is smaller, is no matter. It is held twice for a moment:
/// as it came, and as it is used.
const INDEX_BYTES_FREE: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_what_is_available_up_to_a_gibibyte() {
        let meminfo = "MemTotal:        2048000 kB\nMemFree: 1 kB\nMemAvailable:    1024000 kB\n";
        assert_eq!(default_from(meminfo), 256_000 * 1024);
        assert_eq!(default_from("MemTotal: 4096 kB\n"), 1 << 20);
        assert_eq!(default_from("MemAvailable: 99999999999 kB\n"), DEFAULT_BYTES_MAX);
        assert_eq!(default_from(""), BYTES_UNKNOWN);
        assert_eq!(default_from("MemAvailable: many kB\n"), BYTES_UNKNOWN);
    }

    #[test]
    fn eight_blocks_there_always_are() {
        let one = |bytes| Memory { bytes, threads_max: 1 };
        assert_eq!(Memory::for_blocks(1024, 1 << 20).blocks(1 << 20, 0), 1024);
        assert_eq!(one(1 << 20).blocks(8 << 20, 0), 8);
        assert_eq!(one(0).blocks(0, 0), 8);
        assert_eq!(one(u64::MAX).blocks(1 << 20, u64::MAX), 8);
        assert_eq!(one(u64::MAX).blocks(1, 0), u32::MAX);
    }

    #[test]
    fn blocks_with_their_repair_symbols_and_the_scratch_fit_into_the_memory() {
        for (mebibytes, block_log2, threads_max) in
            [16, 64, 256, 1024].into_iter().flat_map(|memory| {
                (20..=23)
                    .flat_map(move |log2| [1, 2, 32].map(|threads_max| (memory, log2, threads_max)))
            })
        {
            let (memory, block_size) =
                (Memory { bytes: mebibytes << 20, threads_max }, 1 << block_log2);
            let what = format!("{mebibytes} MiB, {threads_max} threads, blocks of {block_size}");
            if memory.check(block_size, 2 << 20).is_err() {
                assert_eq!(memory.threads(block_size, 2 << 20), 1, "{what}");
                continue;
            }
            let count = u64::from(memory.blocks(block_size, 2 << 20));
            let scratch = memory.threads(block_size, 2 << 20) as u64 * scratch_bytes(block_size);
            let taken = |count| scratch + count * block_size * 4 / 3;
            assert!(taken(count) <= memory.bytes, "{what}: {count} are too many");
            assert!(taken(count + 1) + 4 > memory.bytes, "{what}: {count} are too few");
        }
    }

    #[test]
    fn the_scratch_of_a_thread_grows_with_the_blocks() {
        let memory = Memory { bytes: 256 << 20, threads_max: 32 };
        let threads = (20..=23).map(|log2| memory.threads(1 << log2, 0));
        assert_eq!(threads.collect::<Vec<_>>(), [14, 7, 3, 1]);
        assert_eq!(memory.blocks(8 << 20, 0), 20, "36 MiB of scratch, 55 MiB for repair");
    }

    #[test]
    fn little_memory_has_few_threads_and_a_large_index_few_blocks() {
        let threads = |bytes| Memory { bytes, threads_max: 8 }.threads(1 << 20, 0);
        assert_eq!([0, 32 << 20, 64 << 20, 1 << 30].map(threads), [1, 1, 3, 8]);
        assert_eq!(Memory::for_blocks(64, 1 << 20).blocks(1 << 20, 12 << 20), 52);
    }

    #[test]
    fn less_than_works_is_refused_with_the_least_that_does() {
        for (block_size, index_bytes, least) in
            [(1 << 20, 0, 16), (8 << 20, 0, 122), (1 << 20, 33 << 20, 74)]
        {
            let memory = |bytes| Memory { bytes, threads_max: 4 };
            let error = memory((least << 20) - 1).check(block_size, index_bytes).unwrap_err();
            assert!(error.to_string().ends_with(&format!(" at least {least}M")), "{error}");
            assert_eq!(error.exit_code(), 2);
            memory(least << 20).check(block_size, index_bytes).unwrap();
            assert_eq!(memory(least << 20).blocks(block_size, index_bytes), BLOCKS_MIN);
        }
        assert!(default_bytes() >= 16 << 20);
    }
}
