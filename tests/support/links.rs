//! How fast the lab's links are, what they carried, and the test's own sockets at their ends.

use std::fs::File;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::netns::{Lab, Node, port};
use crate::process::run;

impl Lab {
    /// Gives every link this rate, in both directions, as Ethernet has it: preamble, FCS and gap
    /// count. The host's queue makes its programs wait, that of the bridge's port drops.
    ///
    /// # Errors
    ///
    /// What `tc` said.
    pub fn limit_rate(&self, mbit_per_second: u32) -> Result<(), String> {
        for node in self.nodes().into_iter().filter(|node| *node != Node::Bridge) {
            self.limit_host(node, mbit_per_second)?;
            self.limit_port(node, mbit_per_second)?;
        }
        Ok(())
    }

    /// Gives this rate to what leaves `node`. It makes programs there wait.
    ///
    /// # Errors
    ///
    /// What `tc` said.
    pub fn limit_host(&self, node: Node, mbit_per_second: u32) -> Result<(), String> {
        limit(&self.namespace(node), "eth0", mbit_per_second, HOST_QUEUE_OCTETS)
    }

    /// Gives this rate to what reaches `node`. What is too much the switch drops, and nobody is
    /// made to wait.
    ///
    /// # Errors
    ///
    /// What `tc` said.
    pub fn limit_port(&self, node: Node, mbit_per_second: u32) -> Result<(), String> {
        let queue_octets = SWITCH_QUEUE_OCTETS.min(mbit_per_second * SWITCH_QUEUE_OCTETS_PER_MBIT);
        limit(&self.namespace(Node::Bridge), &port(node), mbit_per_second, queue_octets)
    }

    /// What the limited link from `node` has carried.
    ///
    /// # Errors
    ///
    /// What `tc` said.
    pub fn traffic_from(&self, node: Node) -> Result<Traffic, String> {
        traffic(&self.namespace(node), "eth0")
    }

    /// What the limited link to `node` has carried.
    ///
    /// # Errors
    ///
    /// What `tc` said.
    pub fn traffic_to(&self, node: Node) -> Result<Traffic, String> {
        traffic(&self.namespace(Node::Bridge), &port(node))
    }

    /// Starts a thread whose sockets are `node`'s.
    ///
    /// # Errors
    ///
    /// Why its namespace cannot be opened.
    pub fn spawn<T: Send + 'static>(
        &self,
        node: Node,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, String> {
        let path = format!("/run/netns/{}", self.namespace(node));
        let namespace = File::open(&path).map_err(|e| format!("{path}: {e}"))?;
        Ok(thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            drop(namespace);
            work()
        }))
    }
}

/// What a link has carried and dropped since its rate was limited.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Octets on the wire, preamble, FCS and gap included.
    pub octets: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that its queue had no room for.
    pub drops: u64,
}

impl Traffic {
    /// What came to it since `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            octets: self.octets - before.octets,
            packets: self.packets - before.packets,
            drops: self.drops - before.drops,
        }
    }

    /// How much of what a link of this rate carries in this time that is.
    #[must_use]
    pub fn share_of(self, mbit_per_second: u32, time: Duration) -> f64 {
        self.octets as f64 * 8.0 / (f64::from(mbit_per_second) * 1e6 * time.as_secs_f64())
    }

    /// The share of the packets that was dropped.
    #[must_use]
    pub fn loss(self) -> f64 {
        self.drops as f64 / (self.drops + self.packets).max(1) as f64
    }
}

fn limit(
    namespace: &str,
    device: &str,
    mbit_per_second: u32,
    queue_octets: u32,
) -> Result<(), String> {
    let rate = format!("{mbit_per_second}mbit");
    let burst = (mbit_per_second * BURST_OCTETS_PER_MBIT).max(BURST_OCTETS_MIN).to_string();
    let overhead = FRAME_OVERHEAD_OCTETS.to_string();
    let tc = ["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf"];
    let queue = ["limit", &queue_octets.to_string(), "overhead", &overhead];
    run(&[&tc, ["rate", &rate, "burst", &burst].as_slice(), &queue].concat()).map(drop)
}

fn traffic(namespace: &str, device: &str) -> Result<Traffic, String> {
    let json = run(&["tc", "-n", namespace, "-s", "-j", "qdisc", "show", "dev", device])?;
    let json: serde_json::Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
    let count = |field: &str| json[0][field].as_u64().ok_or(format!("tc tells no {field}: {json}"));
    let packets = count("packets")?;
    let octets = count("bytes")? + packets * u64::from(FRAME_OVERHEAD_OCTETS);
    Ok(Traffic { octets, packets, drops: count("drops")? })
}

/// Preamble, FCS and gap around every Ethernet frame.
const FRAME_OVERHEAD_OCTETS: u32 = 24;

/// A quarter of a millisecond: as much as a switch may send without a pause.
const BURST_OCTETS_PER_MBIT: u32 = 1_000_000 / 8 / 4_000;

/// Room for the frames that a slow link's clock lets through at once.
const BURST_OCTETS_MIN: u32 = 8_000;

/// A thousand frames, as an interface's queue commonly has.
const HOST_QUEUE_OCTETS: u32 = 1_514_000;

/// What a port of a small switch has …
const SWITCH_QUEUE_OCTETS: u32 = 512 << 10;

/// … but no more than 50 ms of a slow link.
const SWITCH_QUEUE_OCTETS_PER_MBIT: u32 = 1_000_000 / 8 / 20;
