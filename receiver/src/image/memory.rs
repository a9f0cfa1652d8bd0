//! How much memory incomplete and unwritten blocks may take.

use std::fs;

/// What to use when nobody says: a quarter of what the kernel calls available, at most
/// 1 GiB.
#[must_use]
pub fn default_budget_bytes() -> u64 {
    budget_from(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// How many blocks of `block_size` octets fit into a budget, at least 8.
#[must_use]
pub fn budget_blocks(budget_bytes: u64, block_size: u64) -> u32 {
    let blocks = budget_bytes.checked_div(block_size).unwrap_or(0);
    u32::try_from(blocks).unwrap_or(u32::MAX).max(BLOCKS_MIN)
}

/// The budget according to `/proc/meminfo` (proc_meminfo(5)); kernels before 3.14 say only how
/// much there is in all.
fn budget_from(meminfo: &str) -> u64 {
    let kibibytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()
    };
    let bytes = kibibytes("MemAvailable").or_else(|| kibibytes("MemTotal"));
    bytes
        .map_or(BUDGET_BYTES_UNKNOWN, |kibibytes| kibibytes.saturating_mul(1024) / 4)
        .min(BUDGET_BYTES_MAX)
}

/// A receiver that lags by more than ten seconds of 1 Gbit/s gains nothing by more memory.
const BUDGET_BYTES_MAX: u64 = 1 << 30;
/// Where there is no /proc: what the smallest node can spare.
const BUDGET_BYTES_UNKNOWN: u64 = 64 << 20;
/// Four blocks are interleaved on the wire; as many more are being decoded and written.
const BLOCKS_MIN: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_what_is_available_up_to_a_gibibyte() {
        let meminfo = "MemTotal:        2048000 kB\nMemFree: 1 kB\nMemAvailable:    1024000 kB\n";
        assert_eq!(budget_from(meminfo), 256_000 * 1024);
        assert_eq!(budget_from("MemTotal: 4096 kB\n"), 1 << 20);
        assert_eq!(budget_from("MemAvailable: 99999999999 kB\n"), BUDGET_BYTES_MAX);
        assert_eq!(budget_from(""), BUDGET_BYTES_UNKNOWN);
        assert_eq!(budget_from("MemAvailable: many kB\n"), BUDGET_BYTES_UNKNOWN);
    }

    #[test]
    fn eight_blocks_there_always_are() {
        assert_eq!(budget_blocks(1 << 30, 1 << 20), 1024);
        assert_eq!(budget_blocks(1 << 20, 8 << 20), 8);
        assert_eq!(budget_blocks(0, 0), 8);
        assert_eq!(budget_blocks(u64::MAX, 1), u32::MAX);
    }
}
