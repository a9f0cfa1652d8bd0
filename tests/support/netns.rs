//! A small network of namespaces: a bridge, one sender, some receivers.
//!
//! ```text
//!   sender eth0 ── port-s ┐                ┌ port-0 ── eth0 receiver 0   10.88.0.10  fd88::10
//!   10.88.0.1             ├ bridge: br0 ───┼ port-1 ── eth0 receiver 1   10.88.0.11  fd88::11
//!   fd88::1               ┘ snoops, asks   └ …
//! ```
//!
//! Loss strikes at a receiver's ingress, after the frame has used its share of the link. Nothing
//! here reaches the machine's own network.

use std::env;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::process::run;
use crate::scratch::is_orphan;

/// The namespaces; dropping it deletes them.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    receivers: usize,
}

impl Lab {
    /// Sets the network up, without loss and without a limit to its rate.
    ///
    /// # Errors
    ///
    /// The command that failed, with what it said.
    pub fn new(receivers: usize) -> Result<Self, String> {
        static LABS: AtomicUsize = AtomicUsize::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("imgcast-lab-{}-{number}", std::process::id());
        // Made first: whatever was set up before a failure is taken down again.
        let lab = Self { prefix, receivers };
        for node in lab.nodes() {
            run(&["ip", "netns", "add", &lab.namespace(node)])?;
            lab.ip(node, "link set lo up")?;
            // Addresses are usable at once, without duplicate address detection.
            let no_dad = "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad";
            run(&["ip", "netns", "exec", &lab.namespace(node), "sh", "-c", no_dad])?;
        }
        lab.ip(Node::Bridge, &format!("link add br0 type bridge {SNOOPING}"))?;
        lab.ip(Node::Bridge, "link set br0 up")?;
        // Last: a querier counts one response interval, as it is now, before the bridge stops
        // to flood. Set together with the intervals it would count the default, ten seconds.
        lab.ip(Node::Bridge, "link set br0 type bridge mcast_querier 1")?;
        lab.plug_in(Node::Sender)?;
        for receiver in 0..receivers {
            lab.plug_in(Node::Receiver(receiver))?;
        }
        Ok(lab)
    }

    /// A command that will run `program` at `node`, under a host name of the node's own and with
    /// the process id that `spawn` reports.
    pub fn command(&self, node: Node, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace(node)])
            .args(["unshare", "--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\""])
            .arg(host_name(node))
            // It ends even if the test is killed and drops nothing.
            .args(["setpriv", "--pdeathsig", "KILL"])
            .arg(program);
        command
    }

    /// Lets `receiver` lose each UDP packet with the same probability, independently of all
    /// others.
    ///
    /// # Errors
    ///
    /// What `ethtool` or `nft` said.
    pub fn lose(&self, receiver: usize, per_mille: u32) -> Result<(), String> {
        self.split_bursts(Node::Sender)?;
        self.split_bursts(Node::Receiver(receiver))?;
        let rule = format!("meta l4proto udp numgen random mod 1000 < {per_mille} drop");
        self.filter(receiver, &[&rule])
    }

    /// Lets packets leave and reach `node` one by one. Without it, what a program hands over as one
    /// large buffer crosses the bridge as a whole, and would be lost as a whole.
    ///
    /// # Errors
    ///
    /// What `ethtool` said.
    pub fn split_bursts(&self, node: Node) -> Result<(), String> {
        let offloads = ["tx-udp-segmentation", "off", "gso", "off", "gro", "off"];
        self.run(node, &[&["ethtool", "-K", "eth0"], offloads.as_slice()].concat()).map(drop)
    }

    /// Drops every multicast UDP packet that arrives at `receiver`, and nothing else: IGMP and
    /// MLD still tell the bridge that it listens.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn cut_multicast(&self, receiver: usize) -> Result<(), String> {
        let ipv4 = "meta l4proto udp ip daddr 224.0.0.0/4 drop";
        let ipv6 = "meta l4proto udp ip6 daddr ff00::/8 drop";
        self.filter(receiver, &[ipv4, ipv6])
    }

    /// Drops what arrives at `receiver` from any data group, and nothing else: announcements of
    /// sessions still do.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn cut_data_groups(&self, receiver: usize) -> Result<(), String> {
        let data_groups = "meta l4proto udp ip daddr 239.255.64.0-239.255.191.255 drop";
        self.filter(receiver, &[data_groups])
    }

    /// Drops the IGMP queries that arrive at `receiver`: nothing asks it any more what it listens
    /// to, and it says so only when it joins.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn hide_queries(&self, receiver: usize) -> Result<(), String> {
        self.filter(receiver, &["meta l4proto igmp drop"])
    }

    /// Drops all IGMP reports of `receiver` where they arrive at the bridge, which therefore never
    /// learns that it listens.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn hide_reports(&self, receiver: usize) -> Result<(), String> {
        let port = port(Node::Receiver(receiver));
        self.filter_at(Node::Bridge, &port, &["meta l4proto igmp drop"])
    }

    /// Sets options of the bridge, in the words of ip-link(8): `mcast_querier 0`.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn set_bridge(&self, options: &str) -> Result<(), String> {
        self.ip(Node::Bridge, &format!("link set br0 type bridge {options}"))
    }

    /// Counts the packets that arrive at `receiver` and of which `matches` is true, in the words
    /// of `nft`, from now on under this name.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn count(&self, receiver: usize, name: &str, matches: &str) -> Result<(), String> {
        let counter = format!("add table netdev lab; add counter netdev lab {name}");
        self.run(Node::Receiver(receiver), &["nft", &counter])?;
        self.filter(receiver, &[&format!("{matches} counter name {name}")])
    }

    /// How many packets `receiver` has counted under this name.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn counted(&self, receiver: usize, name: &str) -> Result<u64, String> {
        let list = ["nft", "-j", "list", "counter", "netdev", "lab", name];
        let json = self.run(Node::Receiver(receiver), &list)?;
        let json: serde_json::Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
        let objects = json["nftables"].as_array().ok_or("nft lists no objects")?;
        let packets = objects.iter().find_map(|object| object["counter"]["packets"].as_u64());
        packets.ok_or(format!("nft counts nothing as {name}"))
    }

    /// Gives every link this MTU.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn set_mtu(&self, octets: u32) -> Result<(), String> {
        for node in self.nodes().into_iter().filter(|node| *node != Node::Bridge) {
            self.set_mtu_of(node, octets)?;
            self.set_mtu_before(node, octets)?;
        }
        Ok(())
    }

    /// Gives the interface of `node` this MTU.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn set_mtu_of(&self, node: Node, octets: u32) -> Result<(), String> {
        self.ip(node, &format!("link set eth0 mtu {octets}"))
    }

    /// Gives the bridge's port to `node` this MTU: longer packets pass in neither direction.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn set_mtu_before(&self, node: Node, octets: u32) -> Result<(), String> {
        self.ip(Node::Bridge, &format!("link set {} mtu {octets}", port(node)))
    }

    /// Runs a short program at `node` and returns what it printed.
    ///
    /// # Errors
    ///
    /// What it said, if it failed.
    pub fn run(&self, node: Node, command: &[&str]) -> Result<String, String> {
        let namespace = self.namespace(node);
        run(&[&["ip", "netns", "exec", &namespace], command].concat())
    }

    /// Octets that the sender's interface has sent since the lab was made, headers included.
    ///
    /// # Panics
    ///
    /// If the kernel does not tell.
    pub fn sent_bytes(&self) -> u64 {
        let namespace = self.namespace(Node::Sender);
        let json = run(&["ip", "-n", &namespace, "-j", "-s", "link", "show", "dev", "eth0"]);
        let json: serde_json::Value =
            serde_json::from_str(&json.expect("counters can be read")).expect("ip -j prints JSON");
        json[0]["stats64"]["tx"]["bytes"].as_u64().expect("the counter is a number")
    }

    /// Connects `node` to the bridge.
    fn plug_in(&self, node: Node) -> Result<(), String> {
        let (namespace, port, number) = (self.namespace(node), port(node), number(node));
        let veth = format!("link add {port} type veth peer name eth0 netns {namespace}");
        self.ip(Node::Bridge, &veth)?;
        self.ip(Node::Bridge, &format!("link set {port} master br0 up"))?;
        self.ip(node, "link set eth0 up")?;
        self.ip(node, &format!("address add 10.88.0.{number}/24 brd + dev eth0"))?;
        self.ip(node, &format!("address add fd88::{number}/64 dev eth0 nodad"))?;
        self.ip(node, "route add 224.0.0.0/4 dev eth0")
    }

    fn filter(&self, receiver: usize, rules: &[&str]) -> Result<(), String> {
        self.filter_at(Node::Receiver(receiver), "eth0", rules)
    }

    fn filter_at(&self, node: Node, device: &str, rules: &[&str]) -> Result<(), String> {
        let chain = format!(
            "add table netdev lab; add chain netdev lab {device} \
             {{ type filter hook ingress device {device} priority 0; }}"
        );
        let rules = rules.iter().map(|rule| format!("; add rule netdev lab {device} {rule}"));
        let script = chain + &rules.collect::<String>();
        self.run(node, &["nft", &script]).map(drop)
    }

    /// Runs `ip` on `node` with arguments that contain no spaces.
    fn ip(&self, node: Node, arguments: &str) -> Result<(), String> {
        let namespace = self.namespace(node);
        let mut command = vec!["ip", "-n", &namespace];
        command.extend(arguments.split(' '));
        run(&command).map(drop)
    }

    pub(crate) fn namespace(&self, node: Node) -> String {
        match node {
            Node::Bridge => format!("{}-bridge", self.prefix),
            Node::Sender => format!("{}-sender", self.prefix),
            Node::Receiver(i) => format!("{}-receiver-{i}", self.prefix),
        }
    }

    pub(crate) fn nodes(&self) -> Vec<Node> {
        let receivers = (0..self.receivers).map(Node::Receiver);
        [Node::Bridge, Node::Sender].into_iter().chain(receivers).collect()
    }
}

/// Deletes namespaces of test processes that were killed before they could.
pub fn delete_orphans() {
    for line in run(&["ip", "netns", "list"]).unwrap_or_default().lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if is_orphan(name) {
            let _ = run(&["ip", "netns", "delete", name]);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for node in self.nodes() {
            // After a failed set-up some of them were never made.
            let _ = run(&["ip", "netns", "delete", &self.namespace(node)]);
        }
    }
}

/// A place in the lab where a program can run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Node {
    /// The switch.
    Bridge,
    /// Where images come from.
    Sender,
    /// One of those that get them, from 0 on.
    Receiver(usize),
}

/// The host name that programs at `node` see.
pub fn host_name(node: Node) -> String {
    match node {
        Node::Bridge => "lab-bridge".to_owned(),
        Node::Sender => "lab-sender".to_owned(),
        Node::Receiver(i) => format!("lab-receiver-{i}"),
    }
}

/// The bridge's side of the link to `node`.
pub(crate) fn port(node: Node) -> String {
    format!("port-{}", number(node))
}

/// A node's IPv4 address.
#[must_use]
pub fn address(node: Node) -> Ipv4Addr {
    Ipv4Addr::new(10, 88, 0, number(node))
}

/// The last part of a node's addresses.
fn number(node: Node) -> u8 {
    match node {
        Node::Bridge => 254,
        Node::Sender => 1,
        Node::Receiver(i) => u8::try_from(10 + i).expect("the lab has room for 240 receivers"),
    }
}

/// Whether this process's effective user is root: it owns its entry in /proc.
#[must_use]
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// Whether `program` is in one of the directories that are searched for programs.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// The sender's IPv4 address.
pub const SENDER_ADDRESS: &str = "10.88.0.1";

/// Snooping as switches do it, with the querier that every snooping network needs. The times, in
/// hundredths of a second, are as short as the kernel takes them, so that the bridge has learned
/// who listens before a transfer begins and again after a receiver left.
const SNOOPING: &str = "mcast_snooping 1 mcast_igmp_version 3 mcast_mld_version 2 \
    mcast_startup_query_interval 100 mcast_query_interval 200 mcast_query_response_interval 20 \
    mcast_last_member_interval 20 mcast_membership_interval 500";
