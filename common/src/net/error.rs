//! What can go wrong between this process and the network, in words the operator can act on.

use std::io;
use std::net::SocketAddr;

use super::interface::Family;

/// Why a socket or an interface cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Nothing on this host has the name, the address or the subnet.
    #[error(
        "no interface is called {spec} or has an {family} address that matches it; this host has: \
         {present}; name one of them with --interface"
    )]
    NoSuchInterface {
        /// What was asked for.
        spec: String,
        /// The family wanted.
        family: Family,
        /// Interfaces of that family by name and address.
        present: String,
    },
    /// The interface is there, but has no address of the family.
    #[error(
        "interface {name} has no {family} address; give it one, or choose another interface or \
         address family"
    )]
    NoAddress {
        /// The interface.
        name: String,
        /// The family wanted.
        family: Family,
    },
    /// The interface is there, but down.
    #[error("interface {name} is down; bring it up with: ip link set {name} up")]
    InterfaceDown {
        /// The interface.
        name: String,
    },
    /// No interface can carry multicast of the family.
    #[error(
        "no interface is up, allows multicast and has an {family} address; this host has: \
         {present}; bring one up, or name one with --interface"
    )]
    NoInterface {
        /// The family wanted.
        family: Family,
        /// Interfaces of that family by name and address.
        present: String,
    },
    /// Several interfaces fit, and nothing says which one is meant.
    #[error("several interfaces fit: {candidates}; say which one with --interface")]
    AmbiguousInterface {
        /// The interfaces that fit, by name and address.
        candidates: String,
    },
    /// The kernel's list of interfaces cannot be read.
    #[error("cannot list the network interfaces: {source}")]
    List {
        /// The kernel's answer.
        source: io::Error,
    },
    /// A group address is no group, or of another family than the interface address.
    #[error(
        "{group} is not a multicast group that interface {interface} ({family}) can join; use an \
         address in 239.0.0.0/8 or ff00::/8 of that family"
    )]
    NotAGroup {
        /// What was given as a group.
        group: SocketAddr,
        /// The interface it was meant for.
        interface: String,
        /// The family of that interface's address.
        family: Family,
    },
    /// An address and port cannot be had.
    #[error(
        "cannot bind UDP {address} on interface {interface}: {source}; if another program holds \
         the port, stop it or choose another one with --portbase"
    )]
    Bind {
        /// The address and port wanted.
        address: SocketAddr,
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel does not let this socket join the group.
    #[error(
        "cannot join group {group} on interface {interface}: {source}; check that the interface \
         is up and, if many groups are joined, net.ipv4.igmp_max_memberships"
    )]
    Join {
        /// The group.
        group: SocketAddr,
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A socket option that the datapath cannot do without.
    #[error("cannot set {option} for {address} on interface {interface}: {source}")]
    Option {
        /// The option, in the kernel's words.
        option: &'static str,
        /// What the socket is, or was to be, bound to.
        address: SocketAddr,
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A datagram that would have to be fragmented.
    #[error(
        "a datagram of {datagram_octets} octets to {destination} does not fit: interface \
         {interface} carries at most {octets_max} octets (MTU {mtu_octets}); raise the MTU on the \
         whole path or choose a smaller symbol size"
    )]
    DatagramTooLarge {
        /// Where it was to go.
        destination: SocketAddr,
        /// UDP payload of the datagram.
        datagram_octets: usize,
        /// The largest UDP payload that needs no fragments.
        octets_max: usize,
        /// MTU of the interface, or of the path if that is smaller.
        mtu_octets: u32,
        /// The interface.
        interface: String,
    },
    /// There is no way to the destination.
    #[error("cannot reach {destination} from {address} on interface {interface}: {source}; {hint}")]
    Unreachable {
        /// Where it was to go.
        destination: SocketAddr,
        /// Where it was to come from.
        address: SocketAddr,
        /// The interface.
        interface: String,
        /// What to do about it.
        hint: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel has taken nothing for so long that the interface must be stuck.
    #[error(
        "interface {interface} has accepted nothing for {destination} for {waited_ms} ms; check \
         its link and its queue with: ip -s link show {interface}"
    )]
    Stuck {
        /// Where it was to go.
        destination: SocketAddr,
        /// The interface.
        interface: String,
        /// How long sending was tried.
        waited_ms: u32,
    },
    /// Any other refusal to send.
    #[error(
        "cannot send to {destination} from {address} on interface {interface}: {source}; if the \
         operation is not permitted, a firewall on this host drops it"
    )]
    Send {
        /// Where it was to go.
        destination: SocketAddr,
        /// Where it was to come from.
        address: SocketAddr,
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A socket that can no longer be read.
    #[error("cannot receive on UDP {address}: {source}; check that its interface is still up")]
    Receive {
        /// What the socket is bound to.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}
