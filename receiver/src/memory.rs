//! How the memory that the operator grants is spent: one answer for the session, which begins
//! blocks, and for the store, which keeps their buffers.
//!
//! ```text
//! --memory = scratch of the decoding threads + blocks, each with the repair symbols it may hold
//! ```
//!
//! The program itself, its stacks and what lies between socket and session come on top, and stay
//! below 32 MiB.

use std::{fs, thread};

/// What to use when nobody says: a quarter of what the kernel calls available, at most
/// 1 GiB.
#[must_use]
pub fn default_bytes() -> u64 {
    default_from(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// How many threads decode: as many as there are cores, unless their scratch would take more than
/// a quarter of `memory_bytes`; always one.
#[must_use]
pub fn decoder_threads(memory_bytes: u64) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let affordable = usize::try_from(memory_bytes / 4 / SCRATCH_BYTES).unwrap_or(usize::MAX);
    cores.min(affordable).max(1)
}

/// Octets that are left of `memory_bytes` for blocks while `threads` decode.
#[must_use]
pub fn for_blocks(memory_bytes: u64, threads: usize) -> u64 {
    let scratch = u64::try_from(threads).unwrap_or(u64::MAX).saturating_mul(SCRATCH_BYTES);
    let rest = memory_bytes.saturating_sub(scratch);
    rest - rest / REPAIR_SHARE
}

/// How many blocks of `block_size` octets [`for_blocks`] octets hold, beside an index of
/// `index_bytes`; at least [`BLOCKS_MIN`].
#[must_use]
pub fn blocks(bytes_for_blocks: u64, block_size: u64, index_bytes: u64) -> u32 {
    let index = index_bytes.saturating_sub(INDEX_BYTES_FREE).saturating_mul(2);
    let blocks = bytes_for_blocks.saturating_sub(index).checked_div(block_size).unwrap_or(0);
    u32::try_from(blocks).unwrap_or(u32::MAX).max(BLOCKS_MIN)
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
/// Measured: the RaptorQ library takes up to 4.4 times the octets of a block of 1 MiB to decode
/// one, and a thread's allocator keeps that for the next.
const SCRATCH_BYTES: u64 = 9 << 19;
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
        assert_eq!(blocks(1 << 30, 1 << 20, 0), 1024);
        assert_eq!(blocks(1 << 20, 8 << 20, 0), 8);
        assert_eq!(blocks(0, 0, 0), 8);
        assert_eq!(blocks(u64::MAX, 1, u64::MAX), 8);
        assert_eq!(blocks(u64::MAX, 1, 0), u32::MAX);
    }

    #[test]
    fn blocks_with_their_repair_symbols_and_the_scratch_fit_into_the_memory() {
        for mebibytes in [16, 64, 256, 1024] {
            let memory = mebibytes << 20;
            for threads in [1, decoder_threads(memory)] {
                let count = u64::from(blocks(for_blocks(memory, threads), 1 << 20, 2 << 20));
                let taken = |count| threads as u64 * SCRATCH_BYTES + count * (4 << 20) / 3;
                let what = format!("{count} blocks, {threads} threads in {mebibytes} MiB");
                assert!(taken(count) <= memory, "{what}: too much");
                assert!(taken(count + 1) + 4 > memory, "{what}: too little");
            }
        }
    }

    #[test]
    fn little_memory_has_few_threads_and_a_large_index_few_blocks() {
        assert_eq!(decoder_threads(0), 1);
        assert_eq!(decoder_threads(32 << 20), 1);
        assert!(decoder_threads(u64::MAX) >= decoder_threads(64 << 20));
        assert_eq!(blocks(64 << 20, 1 << 20, 12 << 20), 48);
    }
}
