//! Who was welcomed and has said nothing since. Whoever sends JOINs from one address, its own or a
//! forged one, gets no more than a share of the places, and leaves the others theirs.

use std::{collections::BTreeMap, net::IpAddr};

/// How many members are half-open, by host.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    hosts: BTreeMap<IpAddr, u32>,
    count: u32,
}

impl HalfOpen {
    /// Whether one more may come from this host.
    pub(super) fn has_room(&self, host: IpAddr) -> bool {
        let of_host = self.hosts.get(&host).copied().unwrap_or(0);
        self.count < HALF_OPEN_MAX && of_host < HALF_OPEN_OF_HOST_MAX
    }

    pub(super) fn add(&mut self, host: IpAddr) {
        *self.hosts.entry(host).or_default() += 1;
        self.count += 1;
    }

    /// One that was added has confirmed, or is gone.
    pub(super) fn remove(&mut self, host: IpAddr) {
        let Some(of_host) = self.hosts.get_mut(&host) else { return };
        *of_host -= 1;
        self.count -= 1;
        if *of_host == 0 {
            self.hosts.remove(&host);
        }
    }
}

/// Forged JOINs cannot fill the table: so many may be members without having said anything yet …
pub const HALF_OPEN_MAX: u32 = 1_024;
/// … and so many on one host, where dozens of receivers may run.
pub const HALF_OPEN_OF_HOST_MAX: u32 = 256;
