//! Interfaces of this host: finding the one that is meant, and what it can carry.
//!
//! Decides which interface and which of its addresses a session uses. What is sent over it is not
//! known here.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;

use super::error::NetError;
use super::options::path_mtu_octets;
use super::route::default_route_interfaces;

/// An interface with the one of its addresses that is used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// The kernel's name for it, `eth0`.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// The address of this node on it.
    pub address: IpAddr,
    /// The largest IP packet it carries, in octets.
    pub mtu_octets: u32,
    /// Speed of the link in Mbit/s; `None` where the driver does not say, or there is no hardware
    /// below it: a veth says 10,000 whatever it carries.
    pub speed_megabits: Option<u32>,
    /// It reaches this host only.
    pub is_loopback: bool,
    /// It carries multicast. `lo` works for groups within the host without saying so.
    pub is_multicast: bool,
    /// It is up.
    pub is_up: bool,
}

impl Interface {
    /// All interfaces of this host, one entry per address, in the kernel's order.
    ///
    /// # Errors
    /// [`NetError::List`] if the kernel does not tell.
    pub fn list() -> Result<Vec<Self>, NetError> {
        let addresses = getifaddrs().map_err(|errno| NetError::List { source: errno.into() })?;
        Ok(addresses.filter_map(|entry| from_entry(&entry)).collect())
    }

    /// The interface that `spec` names: a name (`eth0`), one of its addresses (`10.0.0.7`), or a
    /// subnet that holds one (`10.0.0.0/24`).
    ///
    /// # Errors
    /// If there is none, several, or one that is down or has no address of the family.
    pub fn find(spec: &str, family: Family) -> Result<Self, NetError> {
        select(&Self::list()?, spec, family)
    }

    /// The interface to use when none is named: the only one that is up, not loopback, and carries
    /// multicast with an address of the family; of several the one with the default route.
    ///
    /// # Errors
    /// [`NetError::NoInterface`] if there is none, [`NetError::AmbiguousInterface`] if several fit
    /// and the default route does not decide.
    pub fn only(family: Family) -> Result<Self, NetError> {
        select_only(&Self::list()?, &default_route_interfaces(family), family)
    }

    /// The interface that an operator means: the one [`find`](Self::find) finds if it is named,
    /// else the [`only`](Self::only) one.
    ///
    /// # Errors
    /// As these two.
    pub fn chosen(spec: Option<&str>, family: Family) -> Result<Self, NetError> {
        spec.map_or_else(|| Self::only(family), |spec| Self::find(spec, family))
    }

    /// The family of [`Self::address`].
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// The largest UDP payload this interface carries unfragmented, in octets.
    #[must_use]
    pub fn max_datagram_octets(&self) -> usize {
        max_datagram_octets(self.mtu_octets, self.family())
    }
}

/// The address family of a session; a session never mixes them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The largest UDP payload that fits unfragmented into `mtu_octets`, in octets: without the IP
/// header (20 octets in RFC 791, 40 in RFC 8200, no options) and the UDP header (8, RFC 768).
#[must_use]
pub fn max_datagram_octets(mtu_octets: u32, family: Family) -> usize {
    let headers_octets = match family {
        Family::V4 => 20 + 8,
        Family::V6 => 40 + 8,
    };
    let packet_octets =
        usize::try_from(mtu_octets).map_or(PACKET_OCTETS_MAX, |mtu| mtu.min(PACKET_OCTETS_MAX));
    packet_octets.saturating_sub(headers_octets)
}

fn select(rows: &[Interface], spec: &str, family: Family) -> Result<Interface, NetError> {
    let has_name = rows.iter().any(|row| row.name == spec);
    let of_family = rows.iter().filter(|row| row.family() == family);
    let meant: Vec<&Interface> = if has_name {
        of_family.filter(|row| row.name == spec).collect()
    } else if let Some((network, prefix_bits)) = parse_subnet(spec) {
        of_family.filter(|row| is_within(row.address, network, prefix_bits)).collect()
    } else {
        Vec::new()
    };
    let found = best_of_each(&meant);
    match found.as_slice() {
        [one] if one.is_up => Ok((*one).clone()),
        [one] => Err(NetError::InterfaceDown { name: one.name.clone() }),
        [] if has_name => Err(NetError::NoAddress { name: spec.to_owned(), family }),
        [] => Err(NetError::NoSuchInterface {
            spec: spec.to_owned(),
            family,
            present: describe_family(rows, family),
        }),
        several => Err(NetError::AmbiguousInterface { candidates: describe(several) }),
    }
}

fn select_only(
    rows: &[Interface],
    default_routes: &[String],
    family: Family,
) -> Result<Interface, NetError> {
    let fits = |row: &&Interface| {
        row.family() == family && row.is_up && row.is_multicast && !row.is_loopback
    };
    let candidates = best_of_each(&rows.iter().filter(fits).collect::<Vec<_>>());
    let routed: Vec<&Interface> =
        candidates.iter().copied().filter(|row| default_routes.contains(&row.name)).collect();
    match (candidates.as_slice(), routed.as_slice()) {
        ([], _) => Err(NetError::NoInterface { family, present: describe_family(rows, family) }),
        ([one], _) | (_, [one]) => Ok((*one).clone()),
        (several, _) => Err(NetError::AmbiguousInterface { candidates: describe(several) }),
    }
}

/// One entry per interface name: its first address, a global one before a link-local one.
fn best_of_each<'a>(rows: &[&'a Interface]) -> Vec<&'a Interface> {
    let mut best: Vec<&Interface> = Vec::new();
    for &row in rows {
        match best.iter_mut().find(|kept| kept.name == row.name) {
            None => best.push(row),
            Some(kept) if is_link_local(kept.address) && !is_link_local(row.address) => *kept = row,
            Some(_) => {}
        }
    }
    best
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// `address` or `address/prefix`; a bare address is the subnet that holds nothing else.
fn parse_subnet(spec: &str) -> Option<(IpAddr, u32)> {
    let (address, prefix) = match spec.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (spec, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let address_bits = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
    let prefix_bits = match prefix {
        Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= address_bits)?,
        None => address_bits,
    };
    Some((address, prefix_bits))
}

fn is_within(address: IpAddr, network: IpAddr, prefix_bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.leading_zeros() >= prefix_bits
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.leading_zeros() >= prefix_bits
        }
        _ => false,
    }
}

fn describe(rows: &[&Interface]) -> String {
    let named: Vec<String> =
        rows.iter().map(|row| format!("{} ({})", row.name, row.address)).collect();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

fn describe_family(rows: &[Interface], family: Family) -> String {
    describe(&rows.iter().filter(|row| row.family() == family).collect::<Vec<_>>())
}

/// `None` for entries without an IP address (AF_PACKET) or of an interface that just went away.
fn from_entry(entry: &InterfaceAddress) -> Option<Interface> {
    let address = ip_address(entry.address.as_ref()?)?;
    let name = entry.interface_name.clone();
    let index = if_nametoindex(name.as_str()).ok()?;
    Some(Interface {
        index,
        address,
        mtu_octets: mtu_octets(&name, index, address),
        speed_megabits: sysfs_number(&name, index, "speed").filter(|_| is_on_hardware(&name)),
        is_loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
        is_multicast: entry.flags.contains(InterfaceFlags::IFF_MULTICAST),
        is_up: entry.flags.contains(InterfaceFlags::IFF_UP),
        name,
    })
}

fn ip_address(address: &SockaddrStorage) -> Option<IpAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
        (_, Some(v6)) => Some(IpAddr::V6(v6.ip())),
        _ => None,
    }
}

/// sysfs if it is there and shows this namespace, else the routing table of the kernel.
fn mtu_octets(name: &str, index: u32, address: IpAddr) -> u32 {
    let from_route = || -> io::Result<u32> { path_mtu_octets(address, index, None) };
    sysfs_number(name, index, "mtu").or_else(|| from_route().ok()).unwrap_or(MTU_OCTETS_DEFAULT)
}

/// A positive number from /sys/class/net. A sysfs that was mounted in another network namespace
/// shows that one's interfaces: believed only if the index is the same.
fn sysfs_number(name: &str, index: u32, attribute: &str) -> Option<u32> {
    let read = |attribute: &str| -> Option<u32> {
        let text = fs::read_to_string(format!("/sys/class/net/{name}/{attribute}")).ok()?;
        text.trim().parse().ok()
    };
    read("ifindex").filter(|seen| *seen == index)?;
    read(attribute).filter(|number| *number > 0)
}

/// Whether it, or an interface that it lies on (a VLAN's, those of a bond or bridge), has a device.
fn is_on_hardware(name: &str) -> bool {
    let folder = Path::new("/sys/class/net").join(name);
    let is_above_hardware = |entry: fs::DirEntry| {
        let file_name = entry.file_name();
        file_name.to_str().and_then(|link| link.strip_prefix("lower_")).is_some_and(is_on_hardware)
    };
    folder.join("device").exists()
        || fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(is_above_hardware))
}

/// The total length of an IPv4 packet is a 16-bit field (RFC 791); `lo` says 65536.
const PACKET_OCTETS_MAX: usize = 65_535;

/// Ethernet's, for an interface that is down or shows its MTU nowhere.
const MTU_OCTETS_DEFAULT: u32 = 1500;

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, address: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            index: 1,
            address: address.parse().expect("a valid address"),
            mtu_octets: 1500,
            speed_megabits: None,
            is_loopback: name == "lo",
            is_multicast: name != "lo",
            is_up: true,
        }
    }

    fn host() -> Vec<Interface> {
        vec![
            interface("lo", "127.0.0.1"),
            interface("eth0", "10.0.0.7"),
            interface("eth0", "10.9.0.7"),
            interface("eth1", "192.168.1.7"),
            interface("eth1", "fe80::1"),
            interface("eth1", "2001:db8::1"),
            interface("eth2", "fe80::2"),
        ]
    }

    #[test]
    fn an_interface_is_found_by_name_address_and_subnet() {
        for (spec, name, address) in [
            ("eth0", "eth0", "10.0.0.7"),
            ("10.9.0.7", "eth0", "10.9.0.7"),
            ("192.168.0.0/16", "eth1", "192.168.1.7"),
            ("10.9.0.1/24", "eth0", "10.9.0.7"),
        ] {
            let found = select(&host(), spec, Family::V4).unwrap();
            assert_eq!((found.name.as_str(), found.address.to_string().as_str()), (name, address));
        }
    }

    #[test]
    fn a_global_ipv6_address_is_preferred_to_a_link_local_one() {
        let find = |spec| select(&host(), spec, Family::V6).unwrap().address.to_string();
        assert_eq!(find("eth1"), "2001:db8::1");
        assert_eq!(find("eth2"), "fe80::2");
        assert_eq!(find("fe80::1"), "fe80::1");
    }

    #[test]
    fn an_unknown_interface_is_answered_with_those_that_exist() {
        let text = select(&host(), "eth9", Family::V4).unwrap_err().to_string();
        assert!(text.contains("eth9") && text.contains("eth1 (192.168.1.7)"), "{text}");
        for spec in ["10.0.0.8", "10.0.0.0/33", "", "/", "10.0.0.0/x", "2001:db8::1"] {
            let error = select(&host(), spec, Family::V4).unwrap_err();
            assert!(matches!(error, NetError::NoSuchInterface { .. }), "{spec}: {error}");
        }
    }

    #[test]
    fn an_interface_without_an_address_of_the_family_or_down_is_named_as_such() {
        let error = select(&host(), "eth0", Family::V6).unwrap_err();
        assert!(matches!(error, NetError::NoAddress { .. }), "{error}");
        let down = Interface { is_up: false, ..interface("eth0", "10.0.0.7") };
        let error = select(&[down], "eth0", Family::V4).unwrap_err();
        assert!(matches!(error, NetError::InterfaceDown { .. }), "{error}");
    }

    #[test]
    fn a_subnet_that_holds_two_interfaces_is_ambiguous() {
        let text = select(&host(), "0.0.0.0/0", Family::V4).unwrap_err().to_string();
        assert!(text.contains("lo (127.0.0.1), eth0 (10.0.0.7), eth1 (192.168.1.7)"), "{text}");
    }

    #[test]
    fn without_a_name_the_only_multicast_interface_is_taken() {
        let host = [interface("lo", "127.0.0.1"), interface("eth0", "10.0.0.7")];
        assert_eq!(select_only(&host, &[], Family::V4).unwrap().name, "eth0");
    }

    #[test]
    fn the_default_route_decides_between_several_interfaces() {
        let routed = |names: &[&str]| -> Result<Interface, NetError> {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            select_only(&host(), &names, Family::V4)
        };
        assert_eq!(routed(&["eth1"]).unwrap().name, "eth1");
        for undecided in [&[][..], &["eth0", "eth1"], &["ppp0"]] {
            let text = routed(undecided).unwrap_err().to_string();
            assert!(text.contains("eth0 (10.0.0.7), eth1 (192.168.1.7)"), "{text}");
            assert!(text.contains("--interface"), "{text}");
        }
    }

    #[test]
    fn interfaces_that_are_down_loopback_or_without_multicast_are_no_candidates() {
        let host = [
            interface("lo", "127.0.0.1"),
            Interface { is_up: false, ..interface("eth0", "10.0.0.7") },
            Interface { is_multicast: false, ..interface("tun0", "10.1.0.7") },
        ];
        let error = select_only(&host, &[], Family::V4).unwrap_err();
        assert!(matches!(error, NetError::NoInterface { .. }), "{error}");
        assert!(error.to_string().contains("tun0 (10.1.0.7)"), "{error}");
    }

    #[test]
    fn the_loopback_interface_of_this_host_is_found_by_name_and_address() {
        let by_name = Interface::find("lo", Family::V4).unwrap();
        let by_address = Interface::find("127.0.0.1", Family::V4).unwrap();
        assert_eq!(by_name, by_address);
        assert!(by_name.is_loopback && by_name.is_up && by_name.index > 0);
        assert!(by_name.mtu_octets > 1500);
    }

    #[test]
    fn datagram_sizes_follow_the_mtu_and_the_family() {
        assert_eq!(max_datagram_octets(1500, Family::V4), 1472);
        assert_eq!(max_datagram_octets(1500, Family::V6), 1452);
        assert_eq!(max_datagram_octets(9000, Family::V4), 8972);
        assert_eq!(max_datagram_octets(65_536, Family::V4), 65_507);
        assert_eq!(max_datagram_octets(0, Family::V4), 0);
    }
}
