//! What the machine tells: how busy it is, what a process has used. And its limits for sockets,
//! which are raised for all programs alike while something is measured.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What all processors have done since the machine started, in their clock's ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTicks {
    idle: u64,
    all: u64,
}

impl CpuTicks {
    pub(crate) fn now() -> Self {
        // "cpu  user nice system idle iowait irq softirq steal …", see proc_stat(5).
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).map(|n| n.parse().unwrap_or(0)).collect();
        let idle = ticks.iter().skip(3).take(2).sum();
        Self { idle, all: ticks.iter().sum() }
    }

    /// The part of the time since `self` that the processors had nothing to do.
    pub(crate) fn idle_since(self) -> f64 {
        let now = Self::now();
        (now.idle - self.idle) as f64 / (now.all - self.all).max(1) as f64
    }
}

/// Waits until other programs leave the machine alone, or long enough; returns how busy it was at
/// the end.
pub(crate) fn wait_until_idle(wait_max: Duration) -> f64 {
    let until = Instant::now() + wait_max;
    loop {
        let before = CpuTicks::now();
        sleep(IDLE_SAMPLE);
        let busy = 1.0 - before.idle_since();
        if busy < BUSY_MAX || Instant::now() > until {
            return busy;
        }
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) has_ended: bool,
    /// It has ended otherwise than with exit code 0.
    pub(crate) has_failed: bool,
    pub(crate) cpu_seconds: f64,
}

impl Usage {
    /// Of a child that nobody has waited for yet: the kernel keeps the figures until then.
    pub(crate) fn of(pid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything; the fields after it are proc_pid_stat(5)'s
        // from the third on.
        let fields: Vec<&str> =
            text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3).and_then(|n| n.parse::<u64>().ok());
        let user_and_system = number(14).unwrap_or(0) + number(15).unwrap_or(0);
        let has_ended = matches!(fields.first(), None | Some(&"Z"));
        Self {
            has_ended,
            has_failed: has_ended && number(52) != Some(0),
            cpu_seconds: user_and_system as f64 / TICKS_PER_SECOND,
        }
    }
}

/// The most memory that a process has had resident at a time, in octets; `None` once it has ended.
pub(crate) fn peak_resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

/// Kernel limits that are as they were again once this is dropped.
#[derive(Debug)]
pub(crate) struct RaisedLimits(Vec<(&'static str, String)>);

impl RaisedLimits {
    /// Raises those that are lower than what some program here asks for.
    ///
    /// # Errors
    ///
    /// Which one cannot be set.
    pub(crate) fn raise() -> Result<Self, String> {
        let mut raised = Self(Vec::new());
        for (path, wanted) in LIMITS {
            let before = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
            if before.trim().parse::<u64>().is_ok_and(|before| before < wanted) {
                fs::write(path, wanted.to_string()).map_err(|e| format!("{path}: {e}"))?;
                raised.0.push((path, before));
            }
        }
        Ok(raised)
    }
}

impl Drop for RaisedLimits {
    fn drop(&mut self) {
        for (path, before) in &self.0 {
            let _ = fs::write(path, before);
        }
    }
}

/// Socket buffers, and what waits between two virtual interfaces, which is no part of a network.
const LIMITS: [(&str, u64); 3] = [
    ("/proc/sys/net/core/rmem_max", 64 << 20),
    ("/proc/sys/net/core/wmem_max", 64 << 20),
    ("/proc/sys/net/core/netdev_max_backlog", 30_000),
];

/// USER_HZ is this on every architecture in use.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the machine does for itself.
pub(crate) const BUSY_MAX: f64 = 0.12;

const IDLE_SAMPLE: Duration = Duration::from_millis(400);
